"""Conditions of searched fields: which fields a point has, what the others are, what is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.small_study import a_study

from qsgd_ray.config import Arm, Choice, InvalidSettings, LogUniform, Optimizer, Perturbation, Uniform, study_from_tree
from qsgd_ray.paths import PathError, value_at

RATE = LogUniform(low=1e-4, high=1e-1)
SWITCH = Choice(options=(True, False))
NESTEROV = {"optimizer.nesterov": True}


def sgd(**fields) -> Arm:
    return Arm(name="sgd", optimizer=Optimizer("sgd", **{"lr": RATE, "nesterov": SWITCH} | fields))


MOMENTUM = Uniform(low=0.5, high=0.99, active_when=NESTEROV, otherwise=0.0)
CONDITIONAL = sgd(momentum=MOMENTUM, weight_decay=LogUniform(low=1e-5, high=1e-2, active_when=NESTEROV))


def test_a_field_is_searched_where_its_condition_holds_and_else_has_its_default_or_is_left_out():
    on = {"optimizer.lr": 0.1, "optimizer.nesterov": True, "optimizer.momentum": 0.9, "optimizer.weight_decay": 1e-3}
    assert CONDITIONAL.at(on).optimizer.settings == {path.partition(".")[2]: value for path, value in on.items()}
    off = {"optimizer.lr": 0.1, "optimizer.nesterov": False}
    assert CONDITIONAL.at(off).optimizer.settings == {"lr": 0.1, "nesterov": False, "momentum": 0.0}
    assert set(CONDITIONAL.spaces_at({})) == {"optimizer.lr", "optimizer.nesterov"}
    with pytest.raises(ValueError, match="a point must set"):
        CONDITIONAL.at(off | {"optimizer.momentum": 0.9})
    with pytest.raises(ValueError, match="a point must set"):
        CONDITIONAL.at({path: value for path, value in on.items() if path != "optimizer.momentum"})


def test_one_is_not_true():
    arm = sgd(nesterov=Choice(options=(0, 1)), momentum=0.9)
    assert arm.at({"optimizer.lr": 0.1, "optimizer.nesterov": 1}).optimizer.settings["nesterov"] == 1
    with pytest.raises(InvalidSettings, match="options of its Choice"):
        sgd(nesterov=Choice(options=(0, 1)), momentum=MOMENTUM)


def test_several_values_and_several_fields_may_be_asked_for():
    arm = sgd(
        schedule=Choice(options=("constant", "linear", "cosine")),
        momentum=MOMENTUM,
        weight_decay=Uniform(
            low=0, high=1, active_when={**NESTEROV, "optimizer.schedule": ("linear", "cosine")}, otherwise=0.5
        ),
    )
    point = {"optimizer.lr": 0.1, "optimizer.nesterov": True, "optimizer.momentum": 0.9}
    for shape, active in (("constant", False), ("linear", True), ("cosine", True)):
        there = arm.spaces_at(point | {"optimizer.schedule": shape})
        assert ("optimizer.weight_decay" in there) == active


def test_a_condition_on_a_field_that_is_not_searched_holds_always_or_never():
    assert "optimizer.momentum" in sgd(nesterov=True, momentum=MOMENTUM).spaces()
    never = sgd(nesterov=False, momentum=MOMENTUM, weight_decay=Uniform(low=0, high=1, active_when=NESTEROV))
    assert list(never.spaces()) == ["optimizer.lr"]
    assert never.at({"optimizer.lr": 0.1}).optimizer.settings == {"lr": 0.1, "nesterov": False, "momentum": 0.0}
    study = a_study(arms=(sgd(lr=0.1, nesterov=False, momentum=MOMENTUM),), baseline="sgd")
    assert study.points(study.arms[0]) == 0


def test_a_field_without_effect_meets_no_condition():
    perturbation = Perturbation(
        source=Choice(options=("sine", "circuit")),
        depth=Choice(options=(2, 3)),
        lambda_=Uniform(low=0, high=1, active_when={"perturbation.depth": 2}, otherwise=0.25),
    )
    arm = Arm(name="q", perturbation=perturbation)
    assert arm.at({"perturbation.source": "sine"}).perturbation.lambda_ == 0.25
    with_circuit = {"perturbation.source": "circuit", "perturbation.depth": 2}
    assert "perturbation.lambda_" in arm.spaces_at(with_circuit)


def test_a_field_of_the_workload_that_is_left_out_is_the_study_s():
    arm = Arm(
        name="wide",
        workload={
            "model.d_model": Choice(options=(8, 16)),
            "model.d_feedforward": Choice(options=(16, 32), active_when={"workload.model.d_model": 16}),
        },
    )
    study = a_study(arms=(arm,), baseline="wide")
    narrow, wide = arm.at({"workload.model.d_model": 8}), {"workload.model.d_model": 16}
    assert study.workload_of(narrow).model.d_feedforward == study.workload.model.d_feedforward
    assert study.workload_of(arm.at(wide | {"workload.model.d_feedforward": 32})).model.d_feedforward == 32


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"momentum": Uniform(low=0.5, high=0.9, active_when={"optimizer.nestrov": True})},
            r"optimizer\.momentum\.active_when: fields of the arm \(optimizer\.name, .*; got 'optimizer\.nestrov'",
        ),
        ({"momentum": Uniform(low=0.5, high=0.9, active_when={"name": "sgd"})}, "fields of the arm"),
        (
            {"momentum": Uniform(low=0.5, high=0.9, active_when={"optimizer.lr": 0.1})},
            "fields that hold one value or a Choice; got 'optimizer.lr', a range",
        ),
        (
            {"momentum": Uniform(low=0.5, high=0.9, active_when={"optimizer.nesterov": "yes"})},
            r"options of its Choice \(True, False\); got 'yes'",
        ),
        (
            {
                "nesterov": Choice(options=(True, False), active_when={"optimizer.maximize": True}),
                "maximize": Choice(options=(True, False), active_when=NESTEROV),
            },
            "fields that do not depend on optimizer.nesterov themselves; got a cycle",
        ),
        ({"maximize": Choice(options=(True, False), active_when={"optimizer.maximize": True})}, "got a cycle"),
        ({"lr": LogUniform(low=1e-4, high=1e-1, active_when=NESTEROV)}, "lr: a learning rate, once; got 0"),
        ({"lr": LogUniform(low=1e-4, high=1e-1, active_when=NESTEROV, otherwise=-1.0)}, "lr: a number > 0"),
    ],
)
def test_a_condition_that_cannot_be_asked_is_one_line(fields, said):
    with pytest.raises(InvalidSettings, match=said) as refused:
        sgd(**fields)
    assert "\n" not in str(refused.value)


def test_what_decides_by_itself_has_no_condition():
    source = Choice(options=("sine", "zero"), active_when={"learning_rate": 0.1}, otherwise="sine")
    with pytest.raises(InvalidSettings, match=r"perturbation\.source: without active_when"):
        Arm(name="q", learning_rate=Choice(options=(0.1, 0.2)), perturbation=Perturbation(source=source))


def test_an_item_of_a_list_needs_a_default():
    beta = Uniform(low=0.9, high=0.99, active_when={"optimizer.amsgrad": True})
    with pytest.raises(InvalidSettings, match=r"optimizer.betas.1.otherwise: a value"):
        Arm(name="adamw", optimizer=Optimizer("adamw", lr=0.1, amsgrad=SWITCH, betas=(0.9, beta)))


def test_a_default_without_a_condition_and_a_condition_in_a_map_are_refused():
    with pytest.raises(InvalidSettings, match="otherwise: with active_when"):
        Uniform(low=0, high=1, otherwise=0.5)
    tree = a_study().model_dump(mode="json")
    axis = {"kind": "uniform", "low": 0.1, "high": 1, "active_when": {"learning_rate": 0.1}}
    tree["map"] = {"arm": "sine", "axes": {"perturbation.lambda_": axis}, "seeds": [5], "epochs": 1, "n_points": 2}
    with pytest.raises(ValueError, match=r"axes\.perturbation\.lambda_: a range without active_when"):
        study_from_tree(tree)


def test_a_default_is_checked_like_a_value():
    with pytest.raises(InvalidSettings, match=r"learning_rate: .*a number > 0"):
        Arm(
            name="adamw",
            learning_rate=LogUniform(low=1e-4, high=1e-1, active_when={"weight_decay": 0.0}, otherwise=0.0),
        )


def test_a_space_without_a_condition_is_stored_as_before():
    assert RATE.model_dump() == {"low": 1e-4, "high": 1e-1, "kind": "log_uniform"}
    assert SWITCH.model_dump(mode="json") == {"kind": "choice", "options": [True, False]}
    assert repr(RATE) == "LogUniform(low=0.0001, high=0.1, kind='log_uniform')"


FIELDS = ("amsgrad", "maximize", "capturable", "weight_decay", "eps")


@st.composite
def arms(draw) -> Arm:
    """An arm whose fields are active by conditions on any of the fields before them."""
    settings = {"lr": RATE}
    choices = {}
    for name in draw(st.permutations(FIELDS)):
        parents = draw(st.lists(st.sampled_from(sorted(choices)), unique=True, max_size=2)) if choices else []
        asked = {
            f"optimizer.{parent}": tuple(
                draw(st.lists(st.sampled_from(choices[parent]), unique=True, min_size=1, max_size=2))
            )
            for parent in parents
        }
        condition = {"active_when": asked, "otherwise": draw(st.sampled_from([None, 0.125]))} if asked else {}
        if name in ("weight_decay", "eps"):
            settings[name] = Uniform(low=0.25, high=0.75, **condition)
        else:
            if condition:
                condition["otherwise"] = draw(st.sampled_from([None, True, False]))
            choices[name] = (True, False)
            settings[name] = Choice(options=choices[name], **condition)
    return Arm(name="adamw", optimizer=Optimizer("adamw", **settings))


def naively_active(arm: Arm, values: dict) -> set[str]:
    """The fields that are active under these values, by going over all of them until nothing changes."""
    active: set[str] = set()
    while True:
        more = {
            path
            for path, space in arm.spaces().items()
            if all(parent in active and values[parent] in asked for parent, asked in (space.active_when or {}).items())
        }
        if more == active:
            return active
        active = more


@given(arms(), st.randoms(use_true_random=False))
def test_every_point_is_an_arm_and_is_found_again_in_it(arm, random):
    values = {path: random.choice(space.edges()) for path, space in arm.spaces().items()}
    point = arm.point_in(values)
    assert point.keys() == naively_active(arm, values)
    assert point == {path: values[path] for path in point}
    there = arm.at(point)
    assert not there.spaces()
    tree = json.loads(there.model_dump_json())
    for path, space in arm.spaces().items():
        if path not in point and space.otherwise is None:
            with pytest.raises(PathError):
                value_at(tree, path)
        else:
            assert value_at(tree, path) == point.get(path, space.otherwise)
    found = {
        path: value_at(tree, path) for path in arm.spaces() if path in point or arm.spaces()[path].otherwise is not None
    }
    assert arm.point_in(found) == point


@given(arms())
def test_an_arm_with_conditions_round_trips_through_json(arm):
    study = a_study(arms=(arm,), baseline="adamw")
    assert study_from_tree(json.loads(study.model_dump_json())) == study


def test_every_number_of_adamw_and_word_of_a_perturbation_may_be_searched_and_be_conditional():
    paper = {"perturbation.formula": "paper"}
    arm = Arm(
        name="q",
        weight_decay=Uniform(low=0.0, high=0.1),
        betas=(0.9, Uniform(low=0.9, high=0.999, active_when=paper, otherwise=0.95)),
        eps=LogUniform(low=1e-9, high=1e-6),
        perturbation=Perturbation(
            source="sine",
            formula=Choice(options=("adamw", "paper")),
            placement=Choice(options=("update", "moments")),
            direction=Choice(options=("gradient", "preconditioned")),
            schedule=Choice(options=("constant", "cosine"), active_when=paper),
        ),
    )
    point = {"weight_decay": 0.05, "eps": 1e-7, "perturbation.formula": "adamw", "perturbation.placement": "moments"}
    there = arm.at(point | {"perturbation.direction": "gradient"})
    assert (there.weight_decay, there.betas, there.eps) == (0.05, (0.9, 0.95), 1e-7)
    assert (there.perturbation.placement, there.perturbation.schedule) == ("moments", "constant")
    assert there == Arm(
        name="q",
        weight_decay=0.05,
        betas=(0.9, 0.95),
        eps=1e-7,
        perturbation=Perturbation(source="sine", placement="moments"),
    )
