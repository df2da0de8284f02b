"""A task of one's own is settings like any other: checked, equal through JSON, read without its class."""

import copy
import importlib.metadata
import json
import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.own_tasks import Line, Rings

from qsgd_ray.config import (
    Arm,
    Choice,
    Confirm,
    Decision,
    LogUniform,
    Map,
    Metric,
    Search,
    Splits,
    StoredTask,
    Study,
    StudyError,
    SupervisedTask,
    Uniform,
    own_task,
    study_from_tree,
)
from qsgd_ray.config.trial import Trial, confirm_trials, map_trials, search_key, search_trial


def a_study(**fields):
    return Study(
        **{
            "name": "rings",
            "question": "Is wide better?",
            "workload": Rings(),
            "arms": (Arm(name="a"), Arm(name="wide", workload={"width": 16, "noise": 1})),
            "baseline": "a",
            "search": Search(trials_per_arm=2, epochs=2),
            "confirm": Confirm(seeds=(101, 102), epochs=2, workers=1),
            "decision": Decision(margin=0.01),
        }
        | fields
    )


def names_of(study):
    points = {arm.name: {path: space.edges()[0] for path, space in arm.spaces().items()} for arm in study.arms}
    trials = [search_trial(study, arm, 0, point) for arm, point in points.items()]
    trials += [trial for arm, point in points.items() for trial in confirm_trials(study, arm, point)]
    return [trial.trial_id for trial in (*trials, *map_trials(study, points))]


@pytest.fixture
def unknown(monkeypatch):
    """No class is known in this process."""
    monkeypatch.setattr(own_task, "_CLASSES", {})


SPACED = {"width": Choice(options=(8, 16)), "noise": Uniform(low=0, high=1), "dropout": 0}
STUDIES = [
    a_study(),
    a_study(arms=(Arm(name="a"), Arm(name="wide", workload=SPACED))),
    a_study(workload=Line(), arms=(Arm(name="a"), Arm(name="wide", workload={"slope": 3}))),
    a_study(map=Map(arm="wide", axes={"workload.width": (4, 8), "learning_rate": (0.1,)}, seeds=(5,), epochs=1)),
]


@pytest.mark.parametrize("study", STUDIES, ids=range(4))
def test_a_study_is_equal_to_itself_through_json(study):
    assert study_from_tree(json.loads(study.model_dump_json())) == study


@pytest.mark.parametrize("study", STUDIES, ids=range(4))
def test_without_its_class_a_study_has_the_same_json_and_its_trials_the_same_names(study, monkeypatch):
    tree, names = json.loads(study.model_dump_json()), names_of(study)
    trial = confirm_trials(study, "a", {})[0]
    monkeypatch.setattr(own_task, "_CLASSES", {})
    stored = study_from_tree(tree)
    assert isinstance(stored.workload, StoredTask)
    assert json.loads(stored.model_dump_json()) == tree
    assert names_of(stored) == names
    assert stored.workload.measured == study.workload.measured
    assert Trial.model_validate_json(trial.model_dump_json()).trial_id == trial.trial_id


@given(
    width=st.integers(1, 99), noise=st.floats(0, 5), batch_size=st.integers(1, 64), clip=st.none() | st.floats(0.1, 9)
)
def test_settings_of_any_value_come_back(width, noise, batch_size, clip):
    study = a_study(workload=Rings(width=width, noise=noise, batch_size=batch_size, clip_norm=clip))
    tree = json.loads(study.model_dump_json())
    assert study_from_tree(tree) == study
    assert names_of(study_from_tree(tree)) == names_of(study)


def test_reading_a_study_imports_nothing(tmp_path):
    tree = json.loads(a_study().model_dump_json())
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    tree["workload"]["kind"] = "trap:Trap"
    script = (
        "import json, sys; from qsgd_ray.config import study_from_tree; "
        "study = study_from_tree(json.loads(sys.argv[1])); assert 'trap' not in sys.modules; print(study.workload.kind)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(tree)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == "trap:Trap\n", done.stderr


def test_other_code_is_another_trial_and_is_read_as_stored(monkeypatch):
    study, names = a_study(), names_of(a_study())
    tree = json.loads(study.model_dump_json())
    real = own_task.code(Rings)
    monkeypatch.setattr(own_task, "code", lambda kind: own_task.Code("0123456789", real.root, real.files, ()))
    assert not {*names_of(a_study())} & {*names}
    stored = study_from_tree(tree)
    assert isinstance(stored.workload, StoredTask)
    assert names_of(stored) == names


def test_settings_keep_their_code_where_they_are_sent(monkeypatch):
    trial = confirm_trials(a_study(), "wide", {})[0]
    sent = pickle.dumps(trial)
    real = own_task.code(Rings)
    monkeypatch.setattr(own_task, "code", lambda kind: own_task.Code("0123456789", real.root, real.files, ()))
    assert pickle.loads(sent).trial_id == trial.trial_id
    assert copy.deepcopy(trial.workload).code == real.digest


def test_an_arm_without_fields_of_the_workload_has_the_json_that_it_always_had():
    assert "workload" not in Arm(name="a").model_dump()
    assert "workload" not in json.loads(Arm(name="a").model_dump_json())


def test_an_arm_trains_on_its_own_workload():
    study = a_study()
    widths = {arm.name: confirm_trials(study, arm.name, {})[0].workload.width for arm in study.arms}
    assert widths == {"a": 8, "wide": 16}
    spaced = a_study(arms=(Arm(name="a"), Arm(name="wide", workload=SPACED)))
    assert list(spaced.arm("wide").spaces()) == ["workload.width", "workload.noise"]
    point = {"workload.width": 16, "workload.noise": 0.5}
    assert search_trial(spaced, "wide", 0, point).workload == Rings(width=16, noise=0.5)
    assert search_key(study, "wide", None) != search_key(spaced, "wide", None)
    nested = Arm(name="a", workload={"model.d_model": 8, "model": {"n_layers": 1}})
    assert nested.workload == {"model": {"d_model": 8, "n_layers": 1}}


REFUSED_ARMS = [
    ({"widht": 3}, "arms.wide.workload: fields of the workload (batch_size, data_seed, target_accuracy, clip_norm, "),
    ({"width": "x"}, "arms.wide.workload: values that a task can have; width: got 'x'; allowed: a valid integer"),
    ({"width": LogUniform(low=1, high=9)}, "arms.wide.workload: values that a task can have; width: got 6.65"),
    ({"batch_size": 0}, "arms.wide.workload: values that a task can have; batch_size: got 0; allowed: greater than"),
    ({"code": "x"}, "Arm.workload: allowed: fields in which arms may differ; got 'code', which is the study's"),
    ({"data_seed": 1}, "Arm.workload: allowed: fields in which arms may differ; got 'data_seed'"),
    ({"": 1}, "Arm.workload: allowed: paths of fields, such as width; got ''"),
    ({"width": 1, "width.x": 1}, "Arm.workload: allowed: each field once; got 'width.x' again"),
    ({"width": {1, 2}}, "Arm.workload: allowed: plain values and spaces; of width got {1, 2}"),
    (3, "Arm.workload: got 3; allowed: values or spaces by the path of a field of the workload"),
]


@pytest.mark.parametrize(("fields", "line"), REFUSED_ARMS, ids=[line[:40] for _, line in REFUSED_ARMS])
def test_fields_that_an_arm_cannot_have_are_refused_in_one_line(fields, line):
    with pytest.raises(StudyError) as error:
        a_study(arms=(Arm(name="a"), Arm(name="wide", workload=fields)))
    assert str(error.value).startswith(line)


def test_workers_divide_the_batch_of_every_arm():
    arms = (Arm(name="a"), Arm(name="wide", workload={"batch_size": 5}))
    with pytest.raises(StudyError, match=r"confirm.workers: a divisor of workload.batch_size \(5\); got 2"):
        a_study(arms=arms, confirm=Confirm(seeds=(101,), epochs=1, workers=2))


REFUSED = [
    (lambda: Rings(width="wide"), "Rings.width: got 'wide'; allowed: a valid integer"),
    (lambda: Rings(widht=3), "Rings.widht: got 3; allowed: no field of this name; there are batch_size, "),
    (lambda: Rings(clip_norm=0), "Rings.clip_norm: got 0; allowed: greater than 0"),
    (lambda: Line(batch_size=0), "Line.batch_size: got 0; allowed: greater than or equal to 1"),
    (lambda: a_study(workload=Rings), "workload: allowed: settings of the class, Rings(...); got the class itself"),
    (lambda: a_study(workload={"kind": "mine:Task"}), "workload: allowed: kind of a class that is loaded, by the"),
    (lambda: a_study(workload={"kind": "own"}), "workload: allowed: kind 'text' or 'llm', or module:Class"),
    (lambda: Rings(**{"kind": "mine:Task"}), "Rings: kind 'support.own_tasks:Rings', as the class cannot be changed"),
    (lambda: Rings(**{"kind": "support.own_tasks:Rings", "code": "x"}), "Rings: code '"),
    (lambda: SupervisedTask(), "SupervisedTask: a class with a method data; SupervisedTask has none"),
]


@pytest.mark.parametrize(("make", "line"), REFUSED, ids=[line[:40] for _, line in REFUSED])
def test_wrong_settings_are_one_line(make, line):
    with pytest.raises(StudyError) as error:
        make()
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


def defined(body):
    """Define a class of a task with this body in a module that has no file."""
    exec(f"from qsgd_ray.config import *\nimport torch\nclass A(SupervisedTask):\n    {body}", {"__name__": "nowhere"})


REFUSED_CLASSES = [
    ("noise = 0.2", "A.noise: got no type; allowed: a type, as in noise: float = 0.2"),
    ("model: int = 2", "A.model: got a field of this name; allowed: another, as every task has its own"),
    ("weight: torch.Tensor = None", "A: got a field that cannot be checked (Unable to generate pydantic-core schema"),
]


@pytest.mark.parametrize(("body", "line"), REFUSED_CLASSES, ids=[body for body, _ in REFUSED_CLASSES])
def test_a_class_that_cannot_be_one_is_refused_in_one_line(body, line):
    with pytest.raises(StudyError) as error:
        defined(body)
    assert str(error.value).startswith(line)


class NoMetrics(Rings):
    @property
    def measured(self):
        return "accuracy"


class MethodOnly(Rings):
    def measured(self):
        return (Metric("accuracy"),)


class Twice(Rings):
    @property
    def measured(self):
        return (Metric("a"), Metric("a"))


def test_metrics_that_are_none_are_refused():
    with pytest.raises(
        StudyError, match=r"NoMetrics: measured: a tuple of Metric\(...\), at least one; got 'accuracy'"
    ):
        NoMetrics()
    with pytest.raises(StudyError, match="MethodOnly: measured: a property, with @property above it; got a method"):
        MethodOnly()
    with pytest.raises(StudyError, match="Twice: measured: each metric once; got a, a"):
        Twice()


class _Changing(Rings):
    steps: tuple = ()


def test_fields_that_json_changes_are_refused():
    with pytest.raises(StudyError, match=r"workload.*fields that come back from JSON as they are; got steps"):
        a_study(workload=_Changing(steps=((1, 2), 3)))


def test_splits_are_read_in_their_order():
    assert [name for name, _ in Splits(1, 2, 3)] == ["train", "validation", "test"]


def test_a_class_of_an_installed_package_is_found_by_its_entry_point(monkeypatch):
    from qsgd_ray.config.installed_tasks import workload_class

    def entry(name, value):
        return importlib.metadata.EntryPoint(name, value, "qsgd_ray.workloads")

    points = [entry("rings", "support.own_tasks:Rings"), entry("odd", "json:loads"), entry("gone", "nowhere_else:A")]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: importlib.metadata.EntryPoints(points))
    assert workload_class("rings") is Rings
    with pytest.raises(StudyError, match="workload_class: got 'other'; allowed: gone, odd, rings"):
        workload_class("other")
    with pytest.raises(
        StudyError, match="workload_class: got 'odd', which is json:loads; allowed: a class derived from"
    ):
        workload_class("odd")
    with pytest.raises(
        StudyError, match=r"workload_class: got 'gone', whose nowhere_else:A cannot be imported \(No mod"
    ):
        workload_class("gone")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: importlib.metadata.EntryPoints([]))
    with pytest.raises(StudyError, match="allowed: none, as no installed package has entry points of the group"):
        workload_class("rings")
