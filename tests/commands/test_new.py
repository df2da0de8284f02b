"""`qsgd-ray new` writes a study that runs as it is, and overwrites nothing."""

import os
import runpy

from support.command_line import command_output, said_by


def test_new_writes_a_study_that_loads_and_says_how_to_run_it(monkeypatch, capsys, tmp_path):
    from qsgd_ray.config.loading import load_study

    told = command_output(monkeypatch, capsys, "new", "my-study", "--in", tmp_path / "mine", columns=200)
    file = tmp_path / "mine" / "my_study.py"
    assert told.splitlines() == [f"Wrote {file}. Look through it, then:", f"    qsgd-ray run {file}"]
    study = load_study(file)
    assert study.name == "my-study"
    assert len(study.confirm.seeds) >= 5
    assert f"qsgd-ray run {file}" in runpy.run_path(str(file))["__doc__"]
    assert "{" not in file.read_text()


def test_new_overwrites_nothing_and_refuses_names_that_no_study_has(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("mine")
    (tmp_path / "file").write_text("")
    for words, said in (
        (("mine",), "NAME: got 'mine', but mine.py is there already; allowed: a new name"),
        (("My",), "NAME: got 'My'; allowed: a letter or digit, then up to 39 letters"),
        (("../x",), "NAME: got '../x'; allowed: a letter or digit"),
        (("x", "--in", "file"), "--in: got file; allowed: a folder that can be written (File exists)"),
        (("x", "--in", "file/y"), "--in: got file/y; allowed: a folder that can be written (Not a directory)"),
    ):
        code, told = said_by(monkeypatch, capsys, "new", *words)
        assert code == 2
        assert said in told
    assert (tmp_path / "mine.py").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["file", "mine.py"]
    command_output(monkeypatch, capsys, "new", "x", "--in", 'a"""b\\')
    assert runpy.run_path('a"""b\\/x.py')["STUDY"].name == "x"
