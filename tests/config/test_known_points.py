"""Known points of a search: what is refused, and that a study without them is stored as it was."""

import pytest
from support.small_study import a_study

from qsgd_ray.config import Arm, Choice, InvalidSettings, LogUniform, Optimizer, Perturbation, Search, Uniform
from qsgd_ray.config.known_points import known_points
from qsgd_ray.config.loading import with_overrides
from qsgd_ray.config.trial import known_budget, search_key

RATE = LogUniform(low=1e-3, high=1e-2)
NESTEROV = {"optimizer.nesterov": True}
ARMS = (
    Arm(name="adamw", learning_rate=RATE),
    Arm(
        name="sgd",
        optimizer=Optimizer(
            "sgd",
            lr=RATE,
            nesterov=Choice(options=(True, False)),
            momentum=Uniform(low=0.5, high=1, active_when=NESTEROV, otherwise=0.0),
        ),
    ),
    Arm(
        name="q",
        perturbation=Perturbation(source=Choice(options=("sine", "circuit")), depth=Choice(options=(2, 3))),
    ),
    Arm(name="fixed"),
)


def searching(known=None, **fields):
    fields |= {} if known is None else {"known_points": known}
    return a_study(arms=ARMS, search=Search(trials_per_arm=3, epochs=2, **fields))


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({"adam": [{"learning_rate": 2e-3}]}, r"names of arms that are searched \(adamw, sgd, q\); got 'adam'"),
        ({"fixed": [{"learning_rate": 2e-3}]}, "names of arms that are searched"),
        ({"adamw": [{"lr": 2e-3}]}, r"known_points.adamw.0: fields that are searched \(learning_rate\); got 'lr'"),
        ({"adamw": [{"learning_rate": 1.0}]}, "adamw.0.learning_rate: a number from 0.001 to 0.01; got 1"),
        ({"adamw": [{"learning_rate": True}]}, "adamw.0.learning_rate: a number from 0.001 to 0.01; got True"),
        ({"sgd": [{"optimizer.nesterov": 1}]}, "sgd.0.optimizer.nesterov: one of True, False; got 1"),
        ({"adamw": [{"learning_rate": 2e-3}] * 4}, r"at most search.trials_per_arm \(3\) points; got 4"),
        (
            {"sgd": [{"optimizer.nesterov": False, "optimizer.momentum": 0.9}]},
            "sgd.0: fields that have an effect at the point; got 'optimizer.momentum'",
        ),
        (
            {"q": [{}, {"perturbation.source": "sine", "perturbation.depth": 2}]},
            "at least 1 item|fields that have an effect at the point; got 'perturbation.depth'",
        ),
        (
            {"q": [{"perturbation.source": "sine", "perturbation.depth": 2}]},
            "fields that have an effect at the point; got 'perturbation.depth'",
        ),
    ],
)
def test_a_point_that_cannot_be_tried_is_one_line(known, said):
    with pytest.raises(InvalidSettings, match=said) as refused:
        searching(known)
    assert "\n" not in str(refused.value)


def test_values_are_as_their_space_writes_them_and_missing_ones_are_allowed():
    study = searching({"sgd": [{"optimizer.momentum": 1}, {"optimizer.lr": 2e-3, "optimizer.nesterov": False}]})
    first, second = known_points(study.search, study.arm("sgd"))
    assert (first, type(first["optimizer.momentum"])) == ({"optimizer.momentum": 1.0}, float)
    assert second == {"optimizer.lr": 2e-3, "optimizer.nesterov": False}
    assert known_points(study.search, study.arm("adamw")) == ()
    assert type(study).model_validate_json(study.model_dump_json()) == study


def test_the_search_of_an_arm_is_renamed_by_its_own_known_points_alone():
    plain, known = searching(), searching({"sgd": [{"optimizer.nesterov": True}]})
    assert search_key(plain, "adamw", None) == search_key(known, "adamw", None)
    assert search_key(plain, "sgd", None) != search_key(known, "sgd", None)


def test_a_search_at_its_defaults_is_stored_as_before():
    assert set(searching().search.model_dump()) == {
        *("trials_per_arm", "epochs", "seeds", "sampler", "objectives", "tolerance", "grace_epochs"),
        *("reduction_factor", "trials_at_once_per_arm", "workers"),
    }
    assert searching(scheduler="none").search.model_dump()["scheduler"] == "none"
    assert with_overrides(searching(), ["search.scheduler=hyperband"]).search.scheduler == "hyperband"
    warm = with_overrides(searching(), ["search.warm_start=results/other"])
    assert [known_budget(one.search, 0) for one in (searching(), warm)] == [None, 2]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"scheduler": "pbt"}, "scheduler: got 'pbt'; allowed: 'asha', 'hyperband', 'bohb' or 'none'"),
        ({"scheduler": "bohb", "sampler": "gp"}, "sampler: tpe with the scheduler bohb"),
        ({"scheduler": "hyperband", "objectives": ("quality", "circuits")}, "scheduler: asha or none with several"),
        ({"warm_start": "results/other", "sampler": "qmc"}, "sampler: tpe or gp with a warm start"),
    ],
)
def test_a_search_that_would_not_do_what_it_says_is_refused(fields, said):
    with pytest.raises(InvalidSettings, match=said):
        Search(trials_per_arm=3, epochs=2, **fields)
