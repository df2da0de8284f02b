"""`qsgd-ray new` writes a study that runs as it is, and overwrites nothing."""

import ast
import os
import runpy
import sys

import pytest
from support.command_line import command_output, said_by

from qsgd_ray.config.loading import load_study, with_overrides
from qsgd_ray.config.trial import confirm_trials
from qsgd_ray.outcome import Ending
from qsgd_ray.training.loop import run, train
from qsgd_ray.workloads import make_workload
from qsgd_ray.workloads.determinism import require_repeatable


@pytest.fixture
def forgotten(monkeypatch):
    """Forget the modules of study files that a test loads."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = {*sys.modules}
    yield
    for name in ("my_study", "study_2d", "study_json"):
        if name not in before:
            sys.modules.pop(name, None)


@pytest.mark.parametrize("template", ["own", "text"])
def test_new_writes_a_study_that_loads_and_says_how_to_run_it(forgotten, monkeypatch, capsys, tmp_path, template):
    words = ("new", "my-study", "--in", tmp_path / "mine", "--template", template)
    told = command_output(monkeypatch, capsys, *words, columns=200)
    file = tmp_path / "mine" / "my_study.py"
    assert told.splitlines() == [f"Wrote {file}. Look through it, then:", f"    qsgd-ray run {file}"]
    study = load_study(file)
    assert study.name == "my-study"
    assert len(study.confirm.seeds) >= 5
    assert f"qsgd-ray run {file}" in ast.get_docstring(ast.parse(file.read_text()))
    assert "{name}" not in file.read_text()


def test_the_study_of_a_class_trains_each_of_its_arms(forgotten, one_thread, monkeypatch, capsys, tmp_path):
    """The same on Ray, from the wheel: tests/end_to_end/test_wheel.py."""
    monkeypatch.chdir(tmp_path)
    command_output(monkeypatch, capsys, "new", "my-study")
    study = load_study("my_study.py")
    assert study.workload.kind == "my_study:Spirals"
    require_repeatable([study.workload])
    for arm in study.arms:
        point = dict.fromkeys(arm.spaces(), 0.01)
        (trial, *_) = confirm_trials(with_overrides(study, ["confirm.epochs=6"]), arm.name, point)
        outcome = run(train(trial, make_workload(trial.workload), None), lambda _: False)
        assert outcome.ending is Ending.COMPLETED
        assert [*outcome.test_metrics] == ["brier"]
        assert outcome.test_accuracy > 0.55


@pytest.mark.parametrize(("name", "file"), [("2d", "study_2d.py"), ("json", "study_json.py")])
def test_a_file_bears_a_name_by_which_its_class_is_imported(forgotten, monkeypatch, capsys, tmp_path, name, file):
    monkeypatch.chdir(tmp_path)
    assert f"qsgd-ray run {file}" in command_output(monkeypatch, capsys, "new", name)
    assert load_study(file).workload.kind == f"{file[:-3]}:Spirals"


def test_new_overwrites_nothing_and_refuses_names_that_no_study_has(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept.py").write_text("kept")
    (tmp_path / "file").write_text("")
    for words, said in (
        (("kept",), "NAME: got 'kept', but kept.py is there already; allowed: a new name"),
        (("My",), "NAME: got 'My'; allowed: a letter or digit, then up to 39 letters"),
        (("../x",), "NAME: got '../x'; allowed: a letter or digit"),
        (("x", "--in", "file"), "--in: got file; allowed: a folder that can be written (File exists)"),
        (("x", "--in", "file/y"), "--in: got file/y; allowed: a folder that can be written (Not a directory)"),
    ):
        code, told = said_by(monkeypatch, capsys, "new", *words)
        assert code == 2
        assert said in told
    assert (tmp_path / "kept.py").read_text() == "kept"
    assert sorted(os.listdir(tmp_path)) == ["file", "kept.py"]
    command_output(monkeypatch, capsys, "new", "x", "--in", 'a"""b\\', "--template", "text")
    assert runpy.run_path('a"""b\\/x.py')["STUDY"].name == "x"
