"""A budget is hours, money or both; node prices add up; what is not set changes neither what is stored nor a name."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.small_study import a_study

from qsgd_ray.config import Arm, Budget, Resources, Study, StudyError, WorkerResources
from qsgd_ray.config.budget import node_label
from qsgd_ray.config.loading import with_overrides
from qsgd_ray.config.trial import confirm_trials, search_key, search_trial

PRICES = {"sim": 0.2, "train": 3.0, "default": 0.5}
SECONDS = st.dictionaries(st.sampled_from(["", "sim", "train", "big", "sim+train"]), st.floats(0, 1e6))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "hours, cost or price_per_node_hour"),
        ({"hours": 0}, "hours"),
        ({"hours": -1.0}, "hours"),
        ({"hours": "two"}, "hours"),
        ({"cost": 5.0}, "cost with a price_per_node_hour above 0"),
        ({"cost": 5.0, "price_per_node_hour": {"default": 0}}, "cost with a price_per_node_hour above 0"),
        ({"price_per_node_hour": -1}, "a price from 0"),
        ({"price_per_node_hour": True}, "a price from 0"),
        ({"price_per_node_hour": float("nan")}, "a price from 0"),
        ({"price_per_node_hour": {}}, "prices by kind of node"),
        ({"price_per_node_hour": {"train": 3.0}}, "a price for default too"),
        ({"price_per_node_hour": {"GPU": 3.0, "default": 0}}, "kinds of nodes in lower case"),
        ({"price_per_node_hour": {"train": "3", "default": 0}}, "got '3' for train"),
    ],
)
def test_a_wrong_budget_is_one_line_that_names_it(fields, said):
    with pytest.raises(StudyError) as error:
        Budget(**fields)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"resources": {}}, "one of cpus_per_worker"),
        ({"resources": {"gpus": 1}}, "gpus"),
        ({"resources": {"gpus_per_worker": 1.5}}, "a whole number of GPUs"),
        ({"resources": {"memory_gb_per_worker": 0.0}}, "memory_gb_per_worker"),
    ],
)
def test_wrong_resources_of_an_arm_are_one_line(fields, said):
    with pytest.raises(StudyError) as error:
        Arm(name="adamw", **fields)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("retries", [["later"], ["alone", {}], [{"memory": 3}], "alone", [3]])
def test_a_wrong_retry_is_one_line_that_names_the_field(retries):
    with pytest.raises(StudyError, match="on_out_of_memory") as error:
        with_overrides(a_study(), [f"resources.on_out_of_memory={json.dumps(retries)}"])
    assert "\n" not in str(error.value)


@given(SECONDS, SECONDS)
def test_money_is_additive_and_never_falls(one, two):
    budget = Budget(hours=1, price_per_node_hour=PRICES)
    both = {kind: one.get(kind, 0.0) + two.get(kind, 0.0) for kind in one | two}
    assert budget.money(both) == pytest.approx(budget.money(one) + budget.money(two))
    assert budget.money(both) >= max(budget.money(one), budget.money(two)) * (1 - 1e-12)


@given(SECONDS)
def test_money_is_the_sum_of_each_nodes_dearest_price(seconds):
    dearest = {"": 0.5, "sim": 0.2, "train": 3.0, "big": 0.5, "sim+train": 3.0}
    slow = sum(dearest[kind] * value for kind, value in seconds.items()) / 3600
    assert Budget(price_per_node_hour=PRICES).money(seconds) == pytest.approx(slow)
    assert Budget(price_per_node_hour=2).money(seconds) == pytest.approx(2 * sum(seconds.values()) / 3600)
    assert Budget(hours=1).money(seconds) is None


def test_a_budget_is_spent_at_the_first_limit():
    budget = Budget(hours=2, cost=3.0, price_per_node_hour=1.0)
    assert not budget.is_spent(7199.0, {"": 7199.0})
    assert budget.is_spent(7200.0, {})
    assert budget.is_spent(60.0, {"": 3 * 3600.0})
    assert not Budget(price_per_node_hour=1.0).is_spent(1e9, {"": 1e9})


def test_a_node_is_named_by_its_kinds_in_one_order():
    assert node_label(["train", "sim"]) == node_label(["sim", "train"]) == "sim+train"
    assert node_label([]) == ""


def a_study_with_all() -> Study:
    study = a_study(
        budget=Budget(hours=2, cost=5.0, price_per_node_hour=PRICES),
        resources=Resources(memory_gb_per_worker=2.0, on_out_of_memory=("alone", {"memory_gb_per_worker": 4.0})),
    )
    arms = (study.arms[0].model_copy(update={"resources": WorkerResources(cpus_per_worker=2)}), study.arms[1])
    return study.model_copy(update={"arms": arms})


def test_what_is_not_set_is_left_out_of_a_stored_study_and_what_is_comes_back():
    plain, whole = a_study(), a_study_with_all()
    assert "budget" not in plain.model_dump()
    assert not {"memory_gb_per_worker", "on_out_of_memory"} & plain.model_dump()["resources"].keys()
    assert all("resources" not in arm for arm in plain.model_dump()["arms"])
    for study in (plain, whole):
        assert Study.model_validate_json(study.model_dump_json()) == study
    assert json.loads(whole.model_dump_json())["arms"][0]["resources"] == {"cpus_per_worker": 2}
    assert whole.model_dump()["resources"]["on_out_of_memory"] == ("alone", {"memory_gb_per_worker": 4.0})


def test_resources_and_budget_change_no_trials_name():
    plain, whole = a_study(), a_study_with_all()
    point = {"learning_rate": 2e-3}
    for arm in ("adamw", "sine"):
        assert search_key(plain, arm, 2) == search_key(whole, arm, 2)
        assert search_trial(plain, arm, 0, point) == search_trial(whole, arm, 0, point)
        assert confirm_trials(plain, arm, point) == confirm_trials(whole, arm, point)


def test_they_can_be_switched_on_from_the_command_line():
    study = with_overrides(
        a_study(),
        ['budget={"hours": 3}', 'arms.sine.resources={"cpus_per_worker": 2}', 'resources.on_out_of_memory=["alone"]'],
    )
    assert study.budget == Budget(hours=3)
    assert study.arm("sine").resources == WorkerResources(cpus_per_worker=2)
    assert study.resources.on_out_of_memory == ("alone",)


def test_a_workers_resources_replace_those_that_are_set():
    resources = Resources(cpus_per_worker=2, worker_nodes="train")
    other = resources.with_worker(WorkerResources(gpus_per_worker=1, memory_gb_per_worker=1.5))
    assert other.worker_request() == {"CPU": 2, "GPU": 1, "memory": 1_500_000_000, "train": 0.001}
    assert resources.with_worker(None) == resources
    assert resources.worker_request() == {"CPU": 2, "train": 0.001}
