"""The shipped studies of classes of their own: every arm trains on every task, and the dial has its sizes."""

import sys

import pytest
from support.places import STUDIES

from qsgd_ray.config.loading import load_study, with_overrides
from qsgd_ray.config.trial import confirm_trials
from qsgd_ray.outcome import Ending
from qsgd_ray.training.loop import run, train
from qsgd_ray.workloads import make_workload

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def load(monkeypatch):
    """Return a function that loads a shipped study by its name and size; its module is forgotten at the end."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    loaded = []

    def load(name, scale=None):
        loaded.append(name)
        return load_study(STUDIES / f"{name}.py", scale)

    yield load
    for name in loaded:
        sys.modules.pop(name, None)


def outcomes(study, **overrides):
    """Yield by arm how it trains for an epoch at the middle of its ranges."""
    study = with_overrides(study, ["confirm.epochs=1"])
    for arm in study.arms:
        point = {path: (space.low * space.high) ** 0.5 for path, space in arm.spaces().items()}
        trial = confirm_trials(study, arm.name, point)[0]
        yield arm.name, run(train(trial, make_workload(trial.workload), None), lambda _: False)


def test_every_arm_of_the_table_trains(load):
    study = with_overrides(load("tables"), ["workload.n_train=512"])
    for arm, outcome in outcomes(study):
        assert outcome.ending is Ending.COMPLETED, arm
        assert outcome.test_accuracy is None
        assert 0 < outcome.test_metrics["error"] < 20
    large = load("tables", "laptop")
    assert (large.metric.name, large.metric.direction, large.name) == ("loss", "min", "tables_laptop")
    assert len(large.confirm.seeds) > len(study.confirm.seeds) >= 5


@pytest.mark.parametrize("task", ["spirals", "segments", "survey"])
def test_every_optimizer_trains_every_task(load, task):
    pytest.importorskip("pytorch_optimizer")
    pytest.importorskip("schedulefree")
    study = load("optimizers").parts()[task]
    trained = dict(outcomes(study))
    assert len(trained) == 10
    assert {outcome.ending for outcome in trained.values()} == {Ending.COMPLETED}


def test_two_arms_check_the_judge(load):
    pytest.importorskip("pytorch_optimizer")
    study = load("optimizers", "laptop")
    assert study.name == "optimizers_laptop"
    again, baseline, slow = (study.arm(name) for name in ("adamw-again", study.baseline, "too-slow"))
    assert again.model_copy(update={"name": baseline.name}) == baseline
    assert not slow.spaces()
    assert slow.rate == pytest.approx(1e-2 / 30)
