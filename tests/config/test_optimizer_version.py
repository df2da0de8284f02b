"""The version of the package of an optimizer is part of a trial's name; torch's is not, and old folders have none."""

import importlib.metadata
import json
import sys

import pytest
from support.own_tasks import write_study
from support.small_study import a_study

from qsgd_ray.config import Arm, Groups, InvalidSettings, LogUniform, Optimizer, study_from_tree
from qsgd_ray.config.loading import load_study
from qsgd_ray.config.optimizer_version import unversioned, version_of, with_versions
from qsgd_ray.config.trial import confirm_trials, search_key, search_trial

ADAMW = Optimizer("adamw", lr=1e-3)
OWN = '''"""An optimizer of one's own."""

import torch


class Halving(torch.optim.SGD):
    def step(self, closure=None):
        # half a step
        for group in self.param_groups:
            group["lr"] *= 0.5
        return super().step(closure)
'''


def study_of(optimizer, **fields):
    return a_study(arms=(Arm(name="adamw"), Arm(name="own", optimizer=optimizer)), **fields)


def names(study):
    """Return the names of an arm's first search trial, its search and its first confirmation."""
    return (
        search_trial(study, "own", 0, {}).trial_id,
        search_key(study, "own", None),
        confirm_trials(study, "own", {})[0].trial_id,
    )


@pytest.fixture
def installed(monkeypatch):
    """Let a function say which version of pytorch-optimizer is installed."""
    pytest.importorskip("pytorch_optimizer")
    real = importlib.metadata.version

    def install(version):
        monkeypatch.setattr(
            importlib.metadata, "version", lambda name: version if name == "pytorch-optimizer" else real(name)
        )

    return install


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Write a module with an optimizer, as it is or changed, and return the study that names it."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(change=lambda text: text):
        from qsgd_ray.config.optimizer_class import _optimizer_class

        sys.modules.pop("halving", None)
        _optimizer_class.cache_clear()
        (tmp_path / "halving.py").write_text(change(OWN))
        return with_versions(study_of(Optimizer("halving.Halving", lr=0.1)))

    yield write
    sys.modules.pop("halving", None)


@pytest.mark.parametrize("name", ["quick", "paper_text", "paper_llm"])
def test_shipped_studies_and_torch_s_classes_have_no_version(name):
    study = load_study(f"studies/{name}.py")
    assert with_versions(study) is study
    grouped = study_of(Groups(matrices=Optimizer("muon", lr=0.02), rest=ADAMW))
    assert with_versions(grouped) is grouped
    assert not unversioned(grouped)


def test_another_version_of_the_package_is_another_trial(installed):
    study = study_of(Groups(matrices=Optimizer("soap", lr=LogUniform(low=1e-3, high=1e-2)), rest=ADAMW))
    installed("4.1.0")
    first = with_versions(study)
    assert dict(first.arm("own").optimizer.members)["matrices"].version == "pytorch-optimizer 4.1.0"
    assert first.arm("adamw") == study.arm("adamw")
    assert study_from_tree(json.loads(first.model_dump_json())) == first
    assert with_versions(first, first) == first
    installed("4.2.0")
    assert search_key(with_versions(first, first), "own", None) != search_key(first, "own", None)


def test_an_optimizer_inside_another_has_its_version_too(installed):
    installed("4.1.0")
    sam = with_versions(study_of(Optimizer("sam", base_optimizer=Optimizer("lion", lr=0.1)))).arm("own").optimizer
    assert [one.version for one in (sam, *sam.inner)] == ["pytorch-optimizer 4.1.0"] * 2


def test_a_folder_from_before_goes_on_with_the_names_that_it_has(installed):
    installed("4.1.0")
    old = study_of(Optimizer("lion", lr=1e-3))
    assert '"version"' not in old.model_dump_json()
    going_on = with_versions(old, before=old)
    assert names(going_on) == names(old) != names(with_versions(old))
    assert unversioned(going_on) == ("own",)
    assert not unversioned(with_versions(old))
    other = study_of(Optimizer("soap", lr=1e-3))  # another class in that arm is new there
    assert with_versions(other, before=old).arm("own").optimizer.version == "pytorch-optimizer 4.1.0"


def test_a_class_of_the_user_s_is_named_by_its_code(own):
    first = own()
    assert first.arm("own").optimizer.version.startswith("code ")
    assert names(own(lambda text: text.replace("# half a step", "# halved"))) == names(first)
    assert names(own(lambda text: text.replace("0.5", "0.4"))) != names(first)


def test_what_has_no_version_has_none():
    assert version_of("no_such_package.A") is None
    assert version_of("support.own_optimizers.no_class") is None


def test_a_version_is_not_the_user_s_to_write():
    with pytest.raises(InvalidSettings, match=r"Optimizer\.version: got '1'; allowed: a keyword of sgd"):
        Optimizer("sgd", lr=0.1, version="1")


def test_a_class_of_the_user_s_travels_with_the_task_s(own, tmp_path, monkeypatch):
    from qsgd_ray.execution.user_modules import runtime_env_of

    study = own()
    with runtime_env_of(study) as env:
        assert env == {"py_modules": [str(tmp_path / "halving.py")]}
    monkeypatch.setattr(sys, "path", [*sys.path])
    task = load_study(write_study(tmp_path)).workload
    with runtime_env_of(study.model_copy(update={"workload": task})) as env:
        assert len(env["py_modules"]) == 3
    for name in ("rings_study", "hidden_width"):
        sys.modules.pop(name, None)
