"""The README's commands and code: each is run here, or by the project's CI script."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support.places import ROOT

README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"^```python\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
OUTSIDE = re.sub(r"^```.*?^```$", "", README, flags=re.DOTALL | re.MULTILINE)
COMMANDS = [line.split("#")[0].strip() for line in re.findall(r"^    (\S.*)$", OUTSIDE, flags=re.MULTILINE)]
CI = (ROOT / ".ci" / "run").read_text()
STUDY, NOTEBOOK, OWN, JUDGE, SCRIPT = PYTHON


def test_there_are_the_blocks_that_are_run_here():
    assert "STUDY = Study(" in STUDY
    assert "qsgd_ray.run(STUDY" in NOTEBOOK
    assert "(SupervisedTask)" in OWN  # tests/workloads/test_own_pages.py runs it
    assert "qsgd_ray.judge(runs" in JUDGE
    assert "SuperpositionalAdamW" in SCRIPT
    assert all(command.startswith(("make ", ".venv/bin/qsgd-ray ")) for command in COMMANDS)


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("make ")])
def test_ci_runs_what_make_is_told(command):
    """`make test` is a part of `make check`."""
    makefile = (ROOT / "Makefile").read_text()
    assert command in CI.splitlines() or (command == "make test" and "$(MAKE) --no-print-directory test\n" in makefile)


@pytest.mark.parametrize("command", [command for command in COMMANDS if not command.startswith("make ")])
def test_ci_runs_every_command_of_the_study_that_make_has_run(command):
    words = shlex.split(command)[1:]
    if words[0] == "run":  # make study types it
        assert f"$(BIN)/qsgd-ray {' '.join(words)}" in (ROOT / "Makefile").read_text()
    else:
        assert command in CI.splitlines()


@pytest.mark.parametrize("script", [JUDGE, SCRIPT], ids=["judge", "optimizer"])
def test_a_script_runs_from_anywhere(tmp_path, script):
    (tmp_path / "script.py").write_text(script)
    subprocess.run([sys.executable, "script.py"], cwd=tmp_path, check=True, timeout=200)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_study_and_the_notebook_run_as_they_are_shown(tmp_path):
    (tmp_path / "notebook.py").write_text(f"{STUDY}\n\nif __name__ == '__main__':\n" + _indented(NOTEBOOK))
    done = subprocess.run(
        [sys.executable, "notebook.py"], cwd=tmp_path, check=True, timeout=580, capture_output=True, text=True
    )
    assert "inconclusive" in done.stdout or "equivalent" in done.stdout
    assert Path(tmp_path, "circuit.html").read_text().startswith("<!doctype html>")


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" if line else "\n" for line in text.splitlines())


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_a_link_leads_to_a_file(link):
    assert link.startswith("https://") or (ROOT / link).exists(), link
