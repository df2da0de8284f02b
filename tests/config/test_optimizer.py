"""Optimizers by name: keywords that their class takes, spaces anywhere, groups; the rest is refused in one line."""

import json
import pickle
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.small_study import a_study
from support.stored_ids import IDS, ids_of

from qsgd_ray.config import (
    Arm,
    Choice,
    Confirm,
    Groups,
    InvalidSettings,
    LogUniform,
    Map,
    Optimizer,
    Perturbation,
    Resources,
    StudyError,
    Uniform,
    study_from_tree,
)
from qsgd_ray.config.loading import load_study, with_overrides
from qsgd_ray.config.optimizer_class import _EXTRA, _SHORT_NAMES, _optimizer_class, module_of

OWN = "support.own_optimizers."
RATE = LogUniform(low=1e-3, high=1e-1)
MUON = Optimizer("torch.optim.Muon", lr=0.02)
ADAMW = Optimizer("adamw", lr=1e-3)


@pytest.mark.parametrize("study", IDS)
def test_todays_studies_keep_the_names_of_their_trials(study):
    assert ids_of(load_study(f"studies/{study}.py")) == IDS[study]


@pytest.mark.parametrize("name", _SHORT_NAMES)
def test_every_short_name_is_a_class_with_a_learning_rate(name):
    if module_of(name) in _EXTRA:
        pytest.importorskip(module_of(name))
    settings = {"base_optimizer": Optimizer("sgd", lr=0.1)} if name == "sam" else {"lr": 0.1}
    assert issubclass(_optimizer_class(name), torch.optim.Optimizer)
    assert Optimizer(name, **settings).learning_rate == 0.1


def test_learning_rate_and_weight_decay_that_the_class_sets_are_written_out():
    written = Optimizer("torch.optim.Muon")
    assert (written.settings["lr"], written.settings["weight_decay"]) == (1e-3, 0.1)
    assert Optimizer("sgd").weight_decay == 0
    assert Optimizer("rprop", lr=0.1).weight_decay == 0  # it has none


REFUSED = {
    "no name": (lambda: Optimizer(), r"Optimizer\.name: got None; allowed: a name first, and keywords"),
    "two names": (lambda: Optimizer("sgd", "adam"), r"Optimizer\.name: .*allowed: a name first"),
    "a number": (lambda: Optimizer(3), r"Optimizer\.name: got 3; allowed: a name first"),
    "no short name": (lambda: Optimizer("sdg"), r"Optimizer\.name: got 'sdg'; allowed: a dotted name .* adadelta"),
    "no such class": (lambda: Optimizer("torch.optim.Muom"), r"got 'torch.optim.Muom'; allowed: .* such as Muon"),
    "not installed": (
        lambda: Optimizer("no_such_package.A"),
        r"a class that is installed \(pip install no_such_package",
    ),
    "no module": (lambda: Optimizer("torch.no_such_module.A"), r"whose module cannot be imported \(No module named"),
    "no class": (lambda: Optimizer(f"{OWN}no_class"), r"allowed: a subclass of torch\.optim\.Optimizer"),
    "a function": (lambda: Optimizer("os.system"), r"allowed: a subclass of torch\.optim\.Optimizer"),
    "odd letters": (lambda: Optimizer("torch.optim/../SGD"), r"Optimizer\.name: got 'torch\.optim/"),
    "misspelt": (
        lambda: Optimizer("sgd", momentun=0.9),
        r"momentun: got 0\.9; allowed: a keyword of sgd: momentum, lr",
    ),
    "open-ended": (lambda: Optimizer(f"{OWN}Descent", bend=True), r"Optimizer\.bend: got True; allowed: a keyword of"),
    "missing": (
        lambda: Optimizer(f"{OWN}Needy"),
        r"Optimizer\.horizon: got None; allowed: a value, which .*Needy needs",
    ),
    "no rate": (lambda: Optimizer(f"{OWN}NoRate"), r"allowed: a class with the keyword lr"),
    "of a model": (
        lambda: Optimizer(f"{OWN}NoParameters"),
        r"a class that is made from parameters; .* takes model, lr",
    ),
    "rate of 0": (lambda: Optimizer("sgd", lr=0.0), r"lr: a number > 0, or a space of such; got 0\.0"),
    "rate of True": (lambda: Optimizer("sgd", lr=True), r"lr: a number > 0"),
    "rate of words": (lambda: Optimizer("sgd", lr=Choice(options=("a", "b"))), r"lr: a number > 0"),
    "rates below 0": (lambda: Optimizer("sgd", lr=Uniform(low=-1.0, high=1.0)), r"lr: a number > 0"),
    "an object": (lambda: Optimizer("sgd", momentum=object()), r"Optimizer\.momentum: allowed: a number, a word, True"),
    "infinite": (lambda: Optimizer("sgd", momentum=float("inf")), r"Optimizer\.momentum: got inf; allowed: a number"),
    "huge": (lambda: Optimizer("sgd", momentum=2**60), r"Optimizer\.momentum: got .*; allowed: a number"),
    "long": (lambda: Optimizer("sgd", momentum=(0.1,) * 65), r"Optimizer\.momentum: allowed: a number"),
    "no space": (lambda: Optimizer("sgd", momentum={"kind": "normal"}), r"Optimizer\.momentum: allowed: a number"),
    "no schedule": (
        lambda: Optimizer("sgd", schedule="step"),
        r"schedule: got 'step'; allowed: 'constant', 'linear' or",
    ),
    "no share": (
        lambda: Optimizer("sgd", schedule="linear", warmup=1.0),
        r"warmup: got 1\.0; allowed: a share in \[0, 1",
    ),
    "warm-up alone": (lambda: Optimizer("sgd", warmup=0.1), r"warmup: with a schedule, constant, linear or cosine"),
    "two rates": (
        lambda: Optimizer(f"{OWN}Descent", lr=0.1, bent=Optimizer("sgd", lr=0.1)),
        r"lr: a learning rate, once; got 2",
    ),
    "inner schedule": (
        lambda: Optimizer(f"{OWN}Sharpness", base_optimizer=Optimizer("sgd", schedule="linear")),
        r"a schedule and parameters of the outer optimizer, none of the inner",
    ),
    "one group": (lambda: Groups(rest=ADAMW), r"groups: rest and at least one other"),
    "no rest": (lambda: Groups(matrices=MUON), r"Groups\.rest: got nothing; allowed: a value"),
    "no patterns": (lambda: Groups(head=ADAMW, rest=ADAMW), r"head\.parameters: patterns, such as .*; got None"),
    "patterns of a word": (
        lambda: Groups(matrices=Optimizer("adamw", parameters=("*",)), rest=ADAMW),
        r"matrices\.parameters: no patterns, as its name says what it has",
    ),
    "no optimizer": (lambda: Groups(matrices=3, rest=ADAMW), r"Groups\.matrices: "),
    "arm of a word": (
        lambda: Arm(name="a", optimizer="sgd"),
        r'Arm\.optimizer: got \'sgd\'; allowed: Optimizer\("adamw"',
    ),
    "arm of two rates": (
        lambda: Arm(name="a", optimizer=ADAMW, learning_rate=0.1),
        r"learning_rate: as lr within optimizer, where there is one; got 0\.1",
    ),
    "arm of two decays": (
        lambda: Arm(name="a", optimizer=ADAMW, weight_decay=0.1),
        r"weight_decay: as weight_decay with",
    ),
    "moments": (
        lambda: Arm(name="a", optimizer=ADAMW, perturbation=Perturbation(source="sine", placement="moments")),
        r"perturbation\.placement: update beside an optimizer, whose step is its own; got moments",
    ),
    "preconditioned": (
        lambda: Arm(name="a", optimizer=ADAMW, perturbation=Perturbation(source="sine", direction="preconditioned")),
        r"perturbation\.direction: gradient beside an optimizer",
    ),
    "paper": (
        lambda: Arm(name="a", optimizer=ADAMW, perturbation=Perturbation(source="sine", formula="paper")),
        r"perturbation\.formula: adamw beside an optimizer",
    ),
    "switch for a number": (lambda: Arm(name="a", learning_rate=Choice(options=(True, False))), r"a number > 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(case):
    make, line = REFUSED[case]
    with pytest.raises(InvalidSettings, match=line) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_package_of_the_extra_is_named_with_it(monkeypatch):
    _optimizer_class.cache_clear()
    monkeypatch.setitem(sys.modules, "schedulefree", None)
    with pytest.raises(InvalidSettings, match=r"class that is installed \(pip install qsgd-ray\[optimizers\]\)"):
        Optimizer("schedule-free-sgd")


def test_a_refusal_inside_json_names_the_field():
    tree = a_study(arms=(Arm(name="a", optimizer=ADAMW), Arm(name="adamw"))).model_dump(mode="json")
    tree["arms"][0]["optimizer"]["betas"] = {"kind": "normal"}
    with pytest.raises(StudyError, match=r"arms\.a\.optimizer\.betas: allowed: a number, a word"):
        study_from_tree(tree)
    tree["arms"][0]["optimizer"] = {"name": "sam", "base_optimizer": {"name": "sgd", "lr": -1}}
    with pytest.raises(StudyError, match=r"arms\.a\.optimizer\.base_optimizer: .*a number > 0"):
        study_from_tree(tree)
    del tree["arms"][0]["optimizer"]["base_optimizer"]
    with pytest.raises(StudyError, match=r"arms\.a\.optimizer: .*lr: a learning rate, once; got 0"):
        study_from_tree(tree)


NUMBERS = st.floats(-10, 10) | st.integers(-5, 5) | st.booleans() | st.none() | st.sampled_from(["a", "b"])
SPACES = st.one_of(
    st.floats(1e-6, 1e-3).map(lambda low: LogUniform(low=low, high=10 * low)),
    st.floats(-1, 1).map(lambda low: Uniform(low=low, high=low + 1)),
    st.sampled_from([(True, False), (1, 2, 3), ("a", "b")]).map(lambda options: Choice(options=options)),
)
VALUES = NUMBERS | SPACES | st.lists(NUMBERS | SPACES, min_size=1, max_size=3).map(tuple)
OPTIMIZERS = st.builds(
    lambda lr, momentum, dampening, schedule: Optimizer(
        "sgd", lr=lr, momentum=momentum, dampening=dampening, schedule=schedule
    ),
    lr=st.floats(1e-6, 1.0) | st.just(RATE),
    momentum=VALUES,
    dampening=VALUES,
    schedule=st.sampled_from([None, "cosine", Choice(options=("linear", "constant"))]),
)


@given(OPTIMIZERS, OPTIMIZERS, st.booleans())
def test_optimizers_are_equal_to_themselves_through_json_and_pickle(first, second, grouped):
    optimizer = Groups(matrices=first, rest=second) if grouped else first
    study = a_study(arms=(Arm(name="adamw"), Arm(name="own", optimizer=optimizer)))
    again = study_from_tree(json.loads(study.model_dump_json()))
    assert again == study
    assert repr(again.arm("own")) == repr(study.arm("own"))  # in which True is no 1
    assert pickle.loads(pickle.dumps(study)) == study


@given(OPTIMIZERS, OPTIMIZERS)
def test_every_space_is_searched_and_a_point_sets_them_all(first, second):
    arm = Arm(name="own", optimizer=Groups(matrices=first, rest=second))
    spaces = arm.spaces()
    point = {path: space.edges()[0] for path, space in spaces.items()}
    at = arm.at(point)
    assert not at.spaces()
    assert at.at({}) == at
    text = arm.model_dump_json()
    assert text.count('"kind":') == len(spaces)
    assert at.model_dump_json().count('"kind":') == 0


def test_an_arm_tells_its_rate_and_decay_whatever_it_trains_by():
    inner = Optimizer("sgd", lr=0.3, weight_decay=0.2)
    sharp = Optimizer(f"{OWN}Sharpness", base_optimizer=inner)
    assert (Arm(name="a", optimizer=sharp).rate, Arm(name="a", optimizer=sharp).decay) == (0.3, 0.2)
    assert (Arm(name="a", learning_rate=0.4, weight_decay=0.1).rate, Arm(name="a", weight_decay=0.1).decay) == (
        0.4,
        0.1,
    )
    head = Optimizer("sgd", lr=0.5, parameters=("head.*",))
    groups = Groups(rest=ADAMW, matrices=MUON, head=head)
    assert [name for name, _ in groups.members] == ["head", "matrices", "rest"]
    assert (groups.learning_rate, groups.weight_decay, groups.name) == (0.5, 0, "sgd + torch.optim.Muon + adamw")
    assert Arm(name="a", optimizer=sharp).optimizer_names == (f"{OWN}Sharpness", "sgd")


def test_the_order_of_groups_names_no_other_trial():
    one, other = Groups(rest=ADAMW, matrices=MUON), Groups(matrices=MUON, rest=ADAMW)
    assert one == other
    assert one.members == other.members


def test_an_arm_holds_what_it_trains_by_and_nothing_else():
    assert Arm(name="a").model_dump().keys() == {
        "name",
        "learning_rate",
        "weight_decay",
        "betas",
        "eps",
        "perturbation",
    }
    assert Arm(name="a", optimizer=ADAMW).model_dump().keys() == {"name", "perturbation", "optimizer"}


def test_fields_of_an_optimizer_are_set_by_their_path():
    study = a_study(arms=(Arm(name="adamw"), Arm(name="own", optimizer=Groups(matrices=MUON, rest=ADAMW))))
    changed = with_overrides(study, ["arms.own.optimizer.matrices.lr=0.5", "arms.own.optimizer.rest.schedule=cosine"])
    assert changed.arm("own").optimizer.matrices.learning_rate == 0.5
    assert changed.arm("own").optimizer.rest.schedule == "cosine"
    with pytest.raises(
        StudyError, match=r"--set arms\.own\.optimizer\.rest\.lrr: got 'lrr'; allowed in .*: name, sche"
    ):
        with_overrides(study, ["arms.own.optimizer.rest.lrr=0.5"])


def test_a_map_follows_a_field_of_an_optimizer():
    arms = (Arm(name="adamw", optimizer=ADAMW), Arm(name="muon", optimizer=Optimizer("sgd", lr=0.1)))
    axes = {"optimizer.lr": (0.1, 0.2)}
    study = a_study(arms=arms, map=Map(arm="muon", axes=axes, seeds=(5,), epochs=1))
    assert len(study.map_settings("muon")) == 2
    with pytest.raises(InvalidSettings, match=r"map\.axes: fields of the arm muon .*; got optimizer\.momentum"):
        a_study(arms=arms, map=Map(arm="muon", axes={"optimizer.momentum": (0.1, 0.2)}, seeds=(5,), epochs=1))


@pytest.mark.parametrize(("name", "allowed"), [("sgd", True), ("torch.optim.AdamW", True), ("muon", False)])
def test_shards_are_for_optimizers_of_single_coordinates(name, allowed):
    fields = {
        "arms": (Arm(name="adamw"), Arm(name="b", optimizer=Optimizer(name, lr=0.1))),
        "resources": Resources(sharding="fsdp"),
    }
    if allowed:
        a_study(**fields)
    else:
        with pytest.raises(
            InvalidSettings, match=r"resources\.sharding: ddp with the optimizer muon of arm b, which looks"
        ):
            a_study(**fields)
    a_study(**fields | {"confirm": Confirm(seeds=(11, 12), epochs=2, workers=1)})


def test_reading_a_study_imports_no_class_that_it_names():
    study = a_study(arms=(Arm(name="adamw"), Arm(name="own", optimizer=Optimizer(f"{OWN}Descent", lr=0.1))))
    code = (
        "import sys\nfrom qsgd_ray.config import Study\n"
        "study = Study.model_validate_json(sys.stdin.read())\n"
        "assert study.arm('own').at({}) == study.arm('own')\n"
        "assert 'torch' not in sys.modules and 'support.own_optimizers' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], input=study.model_dump_json(), text=True, check=True)


def test_a_switch_is_no_number():
    switch = Choice(options=(True, False))
    arm = Arm(name="own", optimizer=Optimizer("sgd", lr=0.1, nesterov=switch))
    again = Arm.model_validate_json(arm.model_dump_json())
    assert repr(again) == repr(arm)
    assert again.spaces()["optimizer.nesterov"].options == (True, False)
    assert all(type(option) is bool for option in again.spaces()["optimizer.nesterov"].options)
    assert Choice(options=(1, 0)).options == (1, 0)
    assert all(type(option) is int for option in Choice.model_validate({"options": [1, 0]}).options)
