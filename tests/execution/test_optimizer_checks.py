"""Optimizers that cannot train a study's model are refused before its first trial, in one line."""

import pytest
import torch
from support.own_tasks import Rings
from support.small_study import SMALL_TASK, a_study
from support.small_tasks import a_language_task

from qsgd_ray.config import Arm, Choice, Groups, Optimizer, Perturbation, StudyError, Uniform, study_from_tree
from qsgd_ray.execution._optimizer_checks import require_optimizers
from qsgd_ray.execution.preflight import require_runnable
from qsgd_ray.execution.requirements import NodeReport, _needed_modules, require_modules_there
from qsgd_ray.workloads import make_workload

OWN = "support.own_optimizers."
SGD = Optimizer("sgd", lr=0.1)
pytestmark = pytest.mark.usefixtures("one_thread")


def study_of(optimizer, **fields):
    return a_study(arms=(Arm(name="adamw"), Arm(name="own", optimizer=optimizer, **fields)))


def check(study):
    require_optimizers(study, make_workload(study.workload))


FINE = {
    "one": SGD,
    "a closure": Optimizer("lbfgs", lr=0.1, max_iter=Choice(options=(2, 4))),
    "two passes": Optimizer(f"{OWN}Sharpness", base_optimizer=SGD),
    "switched": Optimizer(f"{OWN}Averaging", lr=0.1),
    "groups": Groups(
        embeddings=Optimizer("adamw", lr=Uniform(low=0.1, high=0.2)),
        matrices=Optimizer("muon", lr=0.1, nesterov=Choice(options=(True, False))),
        rest=SGD,
    ),
}


@pytest.mark.parametrize("case", FINE)
def test_optimizers_that_can_train_the_model_pass(case):
    check(study_of(FINE[case], perturbation=Perturbation(source="sine", lambda_=Uniform(low=0.1, high=1.0))))


REFUSED = {
    "vectors": (
        Optimizer("muon", lr=0.1),
        r"arms\.own\.optimizer: muon refuses: Muon only supports 2D .*; allowed: Grou",
    ),
    "the end of a range": (
        Optimizer("adam", lr=0.1, betas=(0.9, Uniform(low=0.5, high=1.0))),
        r"arms\.own\.optimizer: adam refuses: Invalid beta parameter at index 1: 1\.0",
    ),
    "the last of a choice": (
        Optimizer("sgd", lr=0.1, momentum=Choice(options=(0.1, 0.5, -0.5))),
        r"arms\.own\.optimizer: sgd refuses: Invalid momentum value: -0\.5",
    ),
    "no step": (
        Optimizer(f"{OWN}Failing", lr=0.1),
        r"arms\.own\.optimizer: .*Failing cannot take a step: NotImplementedError: no step in two lines",
    ),
    "no step of a group": (
        Groups(matrices=Optimizer(f"{OWN}Failing", lr=0.1), rest=SGD),
        r"arms\.own\.optimizer\.matrices: .*Failing cannot take a step",
    ),
    "a group of none": (
        Groups(head=Optimizer("sgd", lr=0.1, parameters=("haed.*",)), rest=SGD),
        r"arms\.own\.optimizer\.head: got a group without parameters",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_others_are_refused_in_one_line(case):
    optimizer, line = REFUSED[case]
    with pytest.raises(StudyError, match=line) as caught:
        check(study_of(optimizer))
    assert "\n" not in str(caught.value)


def changed(change):
    tree = study_of(SGD).model_dump(mode="json")
    change(tree["arms"][1]["optimizer"])
    return study_from_tree(tree)


def test_settings_that_no_class_has_seen_are_checked_then():
    with pytest.raises(
        StudyError, match=r"arms\.own\.optimizer\.momentun: got 0\.9; allowed: a keyword of sgd: momentum,"
    ):
        check(changed(lambda tree: tree.update(momentun=0.9)))
    with pytest.raises(StudyError, match=r"arms\.own\.optimizer\.name: got 'sdg'; allowed: a dotted name"):
        check(changed(lambda tree: tree.update(name="sdg")))


class NoModel(Rings):
    def model(self, generator):
        return None


class NoLayer(Rings):
    def model(self, generator):
        return torch.nn.Liner(2, 2)


@pytest.mark.parametrize(
    ("task", "line"),
    [
        (NoModel, r"^workload: \S+NoModel\.model: got a NoneType; allowed: a torch\.nn\.Module$"),
        (
            NoLayer,
            r"^workload: test_optimizer_checks\.py, line \d+, in model: AttributeError: .* no attribute 'Liner'$",
        ),
    ],
)
def test_a_model_that_cannot_be_made_is_one_line_of_the_users_file(task, line):
    study = a_study(workload=task(), arms=(Arm(name="adamw"), Arm(name="own", optimizer=SGD)))
    with pytest.raises(StudyError, match=line):
        require_runnable(study, None)


def test_a_study_of_adamw_alone_makes_no_model():
    check_nothing = object()  # which has no model to make
    require_optimizers(a_study(), check_nothing)


def test_float16_is_refused_before_the_first_trial(tmp_path):
    task = a_language_task(tmp_path, batch_size=2, steps_per_epoch=2, autocast="float16", n_answers=0)
    study = study_of(Optimizer("lbfgs", lr=0.1)).model_copy(update={"workload": task})
    with pytest.raises(
        StudyError, match=r"arms\.own\.optimizer: got one that evaluates the model itself, with float16"
    ):
        check(study)


def test_it_is_asked_before_a_private_ray_starts(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(StudyError, match=r"arms\.own\.optimizer: muon refuses"):
        require_runnable(study_of(Optimizer("muon", lr=0.1)), None)


def test_packages_of_optimizers_are_asked_of_every_node():
    study = changed(lambda tree: tree.update(name="pytorch_optimizer.Lion"))
    assert _needed_modules(study, "worker")["pytorch_optimizer"] == "arms.own.optimizer"
    assert "pytorch_optimizer" not in _needed_modules(study, "circuits")
    report = NodeReport("n2", "worker", {}, ("pytorch_optimizer",))
    line = r"^arms\.own\.optimizer: got a study that needs pytorch-optimizer, which node n2 lacks; allowed: with it"
    with pytest.raises(StudyError, match=line):
        require_modules_there(study, [report])
    study = changed(lambda tree: tree.update(name="mine.Own"))
    with pytest.raises(StudyError, match=r"needs mine, which node n2 lacks; allowed: with it \(pip install mine\)"):
        require_modules_there(study, [NodeReport("n2", "worker", {}, ("mine",))])
    assert study.workload == SMALL_TASK
