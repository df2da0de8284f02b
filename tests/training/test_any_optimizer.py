"""Trainings by optimizers of any class: cut off anywhere, on any number of processes, they end with the same bits."""

import json
import logging
import shutil
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.checkpoint_runs import Run, go, work
from support.replicas import spawn
from support.small_study import SMALL_TASK
from support.small_tasks import a_language_task
from support.trainings import small_trial, without_times

from qsgd_ray.circuits.select.auto import make_backend
from qsgd_ray.config import Arm, Groups, Optimizer, Perturbation, StudyError
from qsgd_ray.config.optimizer import _ELEMENTWISE
from qsgd_ray.config.optimizer_class import module_of
from qsgd_ray.outcome import Ending, Outcome
from qsgd_ray.storage import StorageError, storage_at
from qsgd_ray.training import _manifest as manifests
from qsgd_ray.training._evaluations import Evaluations
from qsgd_ray.training.loop import run, train
from qsgd_ray.training.replica import _SINGLE_PROCESS
from qsgd_ray.workloads import make_workload

pytestmark = pytest.mark.usefixtures("one_thread")

OWN = "support.own_optimizers."
DROPOUT = SMALL_TASK.model_copy(
    update={"batch_size": 16, "model": SMALL_TASK.model.model_copy(update={"dropout": 0.5})}
)
SCHEDULED = {"schedule": "cosine", "warmup": 0.2}
CLASSES = {
    "sgd": Optimizer("sgd", lr=0.1, momentum=0.9, **SCHEDULED),
    "adam": Optimizer("adam", lr=1e-2, amsgrad=True),
    "adamw": Optimizer("adamw", lr=1e-2, schedule="linear"),
    "nadam": Optimizer("nadam", lr=1e-2),
    "adafactor": Optimizer("adafactor", lr=1e-2),
    "muon": Groups(
        matrices=Optimizer("muon", lr=0.02, **SCHEDULED), rest=Optimizer("adamw", lr=1e-2, schedule="constant")
    ),
    "lbfgs": Optimizer("lbfgs", lr=0.5, max_iter=3, line_search_fn="strong_wolfe"),
    "two passes": Optimizer(f"{OWN}Sharpness", base_optimizer=Optimizer("sgd", lr=0.1, momentum=0.9)),
    "switched": Optimizer(f"{OWN}Averaging", lr=0.1),
    "drawing": Optimizer(f"{OWN}Drawing", lr=0.1),
    "remembering": Optimizer(f"{OWN}Remembering", lr=0.1),
}
PACKAGED = {
    "schedule-free-adamw": {"lr": 1e-2, "warmup_steps": 3},
    "schedule-free-sgd": {"lr": 0.5},
    "lion": {"lr": 1e-3, "cautious": True},
    "soap": {"lr": 1e-2, "precondition_frequency": 2},
    "prodigy": {},
    "psgd": {"lr": 1e-2},
    "sam": {"rho": 0.1},
}
CIRCUIT = Perturbation(source="circuit", lambda_=5.0, n_qubits=3, schedule="cosine")


def comparable(outcome: Outcome) -> Outcome:
    measurements = tuple(map(without_times, outcome.measurements))
    return replace(outcome, measurements=measurements, test_s=None)


def trial_of(optimizer, perturbation=None, task=DROPOUT, **fields):
    arm = Arm(name="a", optimizer=optimizer, perturbation=perturbation)
    return small_trial(workload=task, epochs=3, arm=arm, **fields)


def packaged(name):
    pytest.importorskip(module_of(name))
    keywords = PACKAGED[name]
    return Optimizer(name, **keywords, **({"base_optimizer": Optimizer("adamw", lr=1e-2)} if name == "sam" else {}))


@pytest.fixture(scope="module")
def undisturbed():
    """Outcomes of trainings that were not cut off, by name and perturbation, made when they are asked for."""
    known = {}

    def outcome_of(name, optimizer, perturbation):
        key = name, perturbation is None
        if key not in known:
            known[key] = comparable(go(Run("", trial_of(optimizer, perturbation)), None, _SINGLE_PROCESS))
        return known[key]

    return outcome_of


@settings(max_examples=15, deadline=None)
@given(
    name=st.sampled_from(sorted(CLASSES)),
    perturbation=st.sampled_from([None, CIRCUIT]),
    every=st.integers(1, 4),
    cuts=st.lists(st.integers(1, 9), max_size=2),
)
def test_cut_off_anywhere_it_ends_with_the_same_bits(name, perturbation, every, cuts, undisturbed, tmp_path_factory):
    whole = undisturbed(name, CLASSES[name], perturbation)
    one = Run("", trial_of(CLASSES[name], perturbation), tuple(cuts), every=every)
    assert whole.ending is Ending.COMPLETED
    assert comparable(go(one, storage_at(tmp_path_factory.mktemp("cut")), _SINGLE_PROCESS)) == whole


@pytest.mark.parametrize("perturbation", [None, CIRCUIT], ids=["alone", "perturbed"])
@pytest.mark.parametrize("name", PACKAGED)
def test_of_other_packages_it_ends_with_the_same_bits(name, perturbation, undisturbed, tmp_path):
    optimizer = packaged(name)
    one = Run("", trial_of(optimizer, perturbation), (6, 5), every=2)
    assert comparable(go(one, storage_at(tmp_path), _SINGLE_PROCESS)) == undisturbed(name, optimizer, perturbation)


@pytest.mark.parametrize("perturbation", [None, CIRCUIT.model_copy(update={"lambda_": 0.0})])
def test_adamw_by_name_ends_with_the_bits_of_adamw_by_the_arms_fields(perturbation):
    named = Optimizer("adamw", lr=1e-2, weight_decay=0.1, betas=(0.8, 0.99), fused=True)
    fields = Arm(name="a", learning_rate=1e-2, weight_decay=0.1, betas=(0.8, 0.99))
    theirs = go(Run("", small_trial(workload=DROPOUT, arm=fields)), None, _SINGLE_PROCESS)
    ours = go(Run("", trial_of(named, perturbation)), None, _SINGLE_PROCESS)
    assert ours.parameters_sha256 == theirs.parameters_sha256


def test_each_evaluation_of_a_step_counts_its_tokens(undisturbed):
    plain = undisturbed("sgd", CLASSES["sgd"], None).measurements[-1].n_tokens
    assert undisturbed("two passes", CLASSES["two passes"], None).measurements[-1].n_tokens == 2 * plain
    assert undisturbed("lbfgs", CLASSES["lbfgs"], None).measurements[-1].n_tokens > 2 * plain


def test_all_evaluations_of_a_step_have_the_same_dropout_and_leave_the_generator_as_one_does():
    def drawn():
        return torch.rand(3)

    torch.manual_seed(5)
    first, after = drawn(), drawn()
    torch.manual_seed(5)
    evaluations = Evaluations(drawn, _SINGLE_PROCESS)
    torch.manual_seed(6)  # an optimizer draws meanwhile
    of_optimizer = [drawn()]
    assert torch.equal(evaluations(), first)
    assert torch.equal(evaluations(), first)
    of_optimizer.append(drawn())
    torch.manual_seed(6)
    assert torch.equal(torch.stack(of_optimizer), torch.stack([drawn(), drawn()]))
    evaluations.finish()
    assert torch.equal(drawn(), after)
    assert evaluations.n == 2
    assert torch.equal(evaluations.first_loss, first)


def test_switched_optimizers_are_evaluated_at_their_mean(undisturbed):
    switched = undisturbed("switched", CLASSES["switched"], None)
    plain = comparable(go(Run("", trial_of(Optimizer(f"{OWN}Descent", lr=0.1))), None, _SINGLE_PROCESS))
    assert switched.measurements[0].train_loss == plain.measurements[0].train_loss
    assert switched.measurements[0].validation_loss != plain.measurements[0].validation_loss


def test_without_a_schedule_of_its_own_an_optimizer_follows_the_workload(tmp_path):
    recipe = {"batch_size": 2, "steps_per_epoch": 4, "n_answers": 0, "max_new_tokens": 2}
    shapes = {"bare": {}, "falling": {"warmup_steps": 3, "decay": "linear"}}
    tasks = {name: a_language_task(tmp_path, **recipe, **shape) for name, shape in shapes.items()}

    def digest(task, **settings):
        optimizer = Optimizer("sgd", lr=0.1, **settings)
        return go(Run("", trial_of(optimizer, task=tasks[task])), None, _SINGLE_PROCESS).parameters_sha256

    assert digest("falling") != digest("bare")
    assert digest("falling", schedule="constant") == digest("bare") == digest("bare", schedule="constant")
    assert digest("bare", **SCHEDULED) == digest("falling", **SCHEDULED) != digest("bare")


def test_float16_is_for_optimizers_of_one_gradient(tmp_path):
    task = a_language_task(tmp_path, batch_size=2, steps_per_epoch=2, autocast="float16", n_answers=0)
    line = r"arms\.a\.optimizer: got one that evaluates the model itself, with float16.*; allowed: with bfloat16"
    with pytest.raises(StudyError, match=line):
        go(Run("", trial_of(CLASSES["lbfgs"], task=task)), None, _SINGLE_PROCESS)
    outcome = go(Run("", trial_of(CLASSES["sgd"], CIRCUIT, task)), None, _SINGLE_PROCESS)
    assert outcome.ending is Ending.COMPLETED


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("WithGenerator", "attributes.generator: got a generator of random numbers; allowed: the global ones"),
        ("WithObject", "object: got a object; allowed: tensors, numbers, texts and lists of such"),
        ("OfTensors", "got state of a tensor that is no parameter; allowed: of parameters"),
    ],
)
def test_what_no_checkpoint_can_have_is_said_once_and_the_training_ends(name, line, tmp_path, caplog):
    trial = trial_of(Optimizer(f"{OWN}{name}", lr=0.1))
    with caplog.at_level(logging.WARNING):
        outcome = go(Run("", trial, every=2), storage_at(tmp_path), _SINGLE_PROCESS)
    assert outcome.ending is Ending.COMPLETED
    assert [line in record.getMessage() for record in caplog.records] == [True]
    assert not [*tmp_path.glob("checkpoints/*/*.json")]


def resealed(folder, change):
    """Change the newest manifest in a folder and give it a checksum that is right."""
    path = sorted(folder.glob("checkpoints/*/*.json"))[-1]
    tree = json.loads(path.read_bytes())["checkpoint"]
    change(tree)
    digest = manifests.hashlib.sha256(manifests._text(tree)).hexdigest()
    path.write_bytes(manifests._text({"checkpoint": tree, "sha256": digest}))


def put(*path, value):
    def change(tree):
        for word in path[:-1]:
            tree = tree[word]
        tree[path[-1]] = value

    return change


def deep(levels):
    tree = []
    for _ in range(levels):
        tree = [tree]
    return tree


ONE = ("optimizer", "optimizers", 0)
HOSTILE = {
    "none": (lambda tree: tree.pop("optimizer"), r"optimizer: got none; allowed: the state of the arm's own class"),
    "another form": (put("optimizer", value=[1]), r"optimizer: got another state; allowed: that of 1 optimizers"),
    "more optimizers": (put("optimizer", "optimizers", value=[{}, {}]), r"optimizer: got another state"),
    "no parts": (put(*ONE, value={"state": {}}), r"optimizer\.0: got \{'state': \{\}\}; allowed: groups, state"),
    "more groups": (put(*ONE, "groups", value=[{}, {}]), r"optimizer\.0\.groups: got 2; allowed: 1"),
    "parameters": (put(*ONE, "groups", 0, value={"params": [1]}), r"optimizer\.0\.groups\.0: got .*without params"),
    "no parameter": (
        put(*ONE, "state", "x", value={"dict": []}),
        r"optimizer\.0\.state: got 'x'; allowed: the trained",
    ),
    "no pairs": (put(*ONE, "other", value=[[1]]), r"optimizer\.0\.other: got \[1\]; allowed: pairs"),
    "a method": (put(*ONE, "attributes", "step", value=1), r"attributes: got 'step'; allowed: attributes of the opt"),
    "hooks": (put(*ONE, "attributes", "state", value=1), r"attributes: got .*without "),
    "inside": (put(*ONE, "inside", "x", value={}), r"optimizer\.0\.inside: got 'x'; allowed: optimizers inside"),
    "code": (
        put(*ONE, "groups", 0, "lr", value={"call": "os.system"}),
        r"lr: got \{'call': .*; allowed: a value of an",
    ),
    "a type": (put(*ONE, "groups", 0, "lr", value={"dtype": "load"}), r"lr: got \{'dtype': 'load'\}; allowed"),
    "no tensor": (put(*ONE, "groups", 0, "lr", value={"tensor": "cpu"}), r"lr: got no tensor of this name"),
    "deep": (put(*ONE, "groups", 0, "lr", value=deep(60)), r"got more than 32 levels; allowed: fewer"),
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Folders with checkpoints of trials that were cut off, copied anew for each change."""
    trial = trial_of(CLASSES["sgd"])
    folder = tmp_path_factory.mktemp("kept")
    go(Run("", trial, (6,), every=2, ends=False), storage_at(folder), _SINGLE_PROCESS)
    return trial, folder


def copied(folder, target):
    shutil.copytree(folder, target, dirs_exist_ok=True)
    return target


@pytest.mark.parametrize("case", HOSTILE)
def test_a_made_up_state_is_refused_in_one_line(case, kept, tmp_path):
    change, line = HOSTILE[case]
    trial, folder = kept
    resealed(copied(folder, tmp_path), change)
    with pytest.raises(StorageError, match=line) as caught:
        go(Run("", trial), storage_at(tmp_path), _SINGLE_PROCESS)
    assert "\n" not in str(caught.value)


def test_an_order_of_dimensions_that_is_none_is_refused(tmp_path):
    trial = trial_of(CLASSES["remembering"])
    go(Run("", trial, (6,), every=2, ends=False), storage_at(tmp_path), _SINGLE_PROCESS)

    def change(tree):
        for _, state in next(iter(tree["optimizer"]["optimizers"][0]["state"].values()))["dict"]:
            if isinstance(state, dict) and "order" in state:
                state["order"] = [0, 0]

    resealed(tmp_path, change)
    with pytest.raises(StorageError, match=r"turned: got the order \[0, 0\]; allowed: each dimension once"):
        go(Run("", trial), storage_at(tmp_path), _SINGLE_PROCESS)


def test_bytes_that_are_named_twice_are_refused(kept, tmp_path):
    trial, folder = kept

    def change(tree):
        name = max(tree["tensors"], key=lambda each: len(tree["tensors"][each]["shape"]))
        for number in range(1000):
            tree["tensors"][f"again{number}"] = tree["tensors"][name]

    resealed(copied(folder, tmp_path), change)
    with pytest.raises(StorageError, match=r"tensors: got \d+ bytes; allowed: \d+, as the files have"):
        go(Run("", trial), storage_at(tmp_path), _SINGLE_PROCESS)


def test_a_checkpoint_of_adamw_is_as_it_was(tmp_path):
    trial = small_trial(workload=DROPOUT)
    go(Run("", trial, (6,), every=2, ends=False), storage_at(tmp_path), _SINGLE_PROCESS)
    manifest = json.loads(sorted(tmp_path.glob("checkpoints/*/*.json"))[-1].read_bytes())["checkpoint"]
    assert "optimizer" not in manifest


def test_what_the_class_raises_is_raised_by_the_training():
    trial = trial_of(Optimizer(f"{OWN}Failing", lr=0.1))
    with pytest.raises(NotImplementedError, match="no step"):
        run(train(trial, make_workload(DROPOUT), make_backend("auto")), lambda _: False)


@pytest.mark.slow
def test_several_processes_go_on_and_end_as_one_would(tmp_path):
    plain = SMALL_TASK.model_copy(update={"model": SMALL_TASK.model.model_copy(update={"dropout": 0.0})})
    trials = {name: trial_of(CLASSES[name], CIRCUIT, plain) for name in ("sgd", "muon", "lbfgs", "two passes")}
    runs = [Run(f"ddp-{name}", trial, (5, 2), "ddp", every=1) for name, trial in trials.items()]
    runs += [
        Run(f"fsdp-{name}", trial_of(Optimizer(name, lr=1e-3), CIRCUIT, plain), (5, 2), "fsdp", every=1)
        for name in sorted(_ELEMENTWISE)
        if find_spec(module_of(name)) is not None
    ]
    spawn(work, (2, str(tmp_path), runs), 2)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2)]
    for one in runs:
        alone = go(Run("", one.trial), None, _SINGLE_PROCESS)
        whole, cut = ranks[0][one.name]
        assert comparable(cut) == comparable(whole), one.name
        assert comparable(ranks[1][one.name][1]) == comparable(whole), one.name
        for theirs, ours in zip(whole.measurements, alone.measurements, strict=True):
            assert theirs.train_loss == pytest.approx(ours.train_loss, rel=1e-3), one.name
            assert theirs.n_tokens == ours.n_tokens
