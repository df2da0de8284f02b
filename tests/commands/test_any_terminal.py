"""Commands on a terminal that knows ASCII alone, with brackets in the study's question, its paths and its errors."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support import synthetic_limits
from support.synthetic_results import made, runs

from qsgd_ray.config.loading import with_overrides

pytestmark = pytest.mark.slow

ASCII = {"PYTHONIOENCODING": "ascii", "LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
NUMBERS = [0.8, 0.81, 0.82, 0.79, 0.8, 0.83]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A finished study and a study of limits in folders whose names have brackets and a Greek letter."""
    place = tmp_path_factory.mktemp("places") / "[/b] λ"
    study = made({"adamw": runs(NUMBERS), "sine": runs([x + 0.01 for x in NUMBERS])})
    study = type(study)(with_overrides(study.study, ["question=Is [/b] λ [bold]ok[/bold]"]), study.trials)
    study.write(place / "study")
    synthetic_limits.made(place / "limits")
    return place


@pytest.mark.parametrize(
    "words",
    [
        ("report", "{}/study"),
        ("report", "{}/limits"),
        ("report", "{}/none"),
        ("compare", "{}/study", "{}/study"),
        ("plan", "--from", "{}/limits"),
        ("circuit",),
        ("track", "{}/study", "--to", "tensorboard"),
        ("replay", "{}/study", "[/b] λ"),
        ("run", "{}/[/none] λ.py"),
        ("run", "--help"),
        ("frob [/b] λ",),
    ],
    ids=" ".join,
)
def test_a_command_prints_on_an_ascii_terminal_and_takes_brackets_for_text(folders, words):
    done = subprocess.run(
        [sys.executable, "-m", "qsgd_ray.cli", *(word.format(folders) for word in words)],
        env=os.environ | ASCII | {"COLUMNS": "200"},
        capture_output=True,
        check=False,
        timeout=300,
    )
    text, errors = done.stdout.decode("ascii"), done.stderr.decode("ascii")
    assert "Traceback" not in errors
    assert done.returncode in (0, 2)
    assert bool(done.returncode) == bool(errors), errors
    # Of the folder's name this terminal knows two bytes, and no letter; of the tables every sign.
    assert "?" not in text.replace("[/b] ??", "")
    if words == ("report", "{}/study"):
        assert "Report: " in text
        assert "Is [/b] lambda [bold]ok[/bold]" in text
