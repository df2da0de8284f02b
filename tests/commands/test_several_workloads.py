"""Commands on the folder of a study of several workloads: each does what it can, or names the folder of a part."""

import csv
import io
import json

import pytest
from support.command_line import command_output, said_by
from support.pages import files_in
from support.several import BASE, a_whole, write
from support.without_ray import replace_ray

from qsgd_ray.storage import Folder, Lease

WORSE = [value - 0.015 for value in BASE]
ROWS = {
    "easy": {"adamw": BASE, "sine": WORSE},
    "hard": {"adamw": BASE, "sine": [*BASE[:4], None, BASE[5]]},
}
FILE = """
from support.small_study import SMALL_TASK, a_study
from qsgd_ray.config import Study

of_one = {name: value for name, value in a_study() if name not in ("workload", "workloads")}
STUDY = Study(**of_one | {"workloads": {"easy": SMALL_TASK, "hard": SMALL_TASK}})
"""


@pytest.fixture
def folder(tmp_path):
    return write(a_whole(), ROWS, tmp_path / "results" / "made")


def test_run_prints_a_line_a_part_and_the_joint_verdict_first(monkeypatch, capsys, tmp_path):
    replace_ray(monkeypatch)
    file = tmp_path / "two.py"
    file.write_text(FILE)
    setting = "workloads.hard.difficulty=0.25"
    told = command_output(
        monkeypatch, capsys, "run", file, "--set", setting, "--storage", tmp_path / "out", columns=100
    )
    for line in ("Workload easy, 1 of 2", "easy: Of one arm", "Workload hard, 2 of 2", "over 2 workloads"):
        assert line in told
    assert told.index("over 2 workloads") < told.index("Each workload") < told.index("Report: ")
    stored = json.loads((tmp_path / "out" / "small" / "study.json").read_text())
    assert stored["workloads"]["hard"]["difficulty"] == 0.25
    assert (tmp_path / "out" / "small" / "study.py").read_text() == FILE


def test_report_writes_all_pages_and_prints_the_joint_verdict(monkeypatch, capsys, folder):
    told = command_output(monkeypatch, capsys, "report", folder, columns=120)
    assert "joint score" in told
    assert "it says nothing of workloads that are not in the study" in " ".join(told.split())
    for page in ("report.html", "easy/report.html", "hard/report.html", "verdict.json", "hard/verdict.json"):
        assert (folder / page).exists()
    part = command_output(monkeypatch, capsys, "report", folder / "hard", columns=120)
    assert "joint score" not in part


def test_formats_have_the_joint_verdicts_and_those_of_each_workload(monkeypatch, capsys, folder):
    tree = json.loads(command_output(monkeypatch, capsys, "report", folder, "--format", "json"))
    assert (tree["version"], [w["workload"] for w in tree["workloads"]]) == (2, ["easy", "hard"])
    text = command_output(monkeypatch, capsys, "report", folder, "--format", "csv")
    lines = [*csv.DictReader(io.StringIO(text))]
    assert [(line["workload"], line["arm"]) for line in lines] == [("", "sine"), ("easy", "sine"), ("hard", "sine")]
    assert [line["metric"] for line in lines] == ["joint score", "test accuracy", "test accuracy"]
    assert [float(line["margin"]) for line in lines] == [1.0, 0.01, 0.01]
    assert float(lines[1]["difference"]) == tree["workloads"][0]["verdicts"][0]["difference"]
    markdown = command_output(monkeypatch, capsys, "report", folder, "--format", "markdown")
    assert markdown.splitlines()[0].startswith("| arm | easy (points) | hard (points) | joint score (margins) |")
    assert "−1.50, worse" in markdown
    latex = command_output(monkeypatch, capsys, "report", folder, "--format", "latex")
    assert latex.count(r" \\") == 2
    assert latex.startswith("% Over 2 workloads, of one arm against adamw: ")


@pytest.mark.parametrize(("word", "codes"), [("worse", (0, 3)), ("inconclusive", (3, 3))])
def test_fail_on_asks_the_joint_verdict_and_a_parts_own_in_its_folder(monkeypatch, capsys, folder, word, codes):
    told = [said_by(monkeypatch, capsys, "report", where, "--fail-on", word) for where in (folder, folder / "easy")]
    assert tuple(code for code, _ in told) == codes


def test_status_and_list_tell_all_parts_and_write_nothing(monkeypatch, capsys, folder):
    before = files_in(folder)
    tree = json.loads(command_output(monkeypatch, capsys, "status", folder, "--format", "json"))
    assert (tree["study"], tree["state"], tree["stage"]) == ("made", "stopped", "search")
    assert (tree["ended"], tree["planned"]) == (24, 24 + 8)
    assert {entry["workload"] for entry in tree["stages"]} == {"easy", "hard"}
    assert tree["verdicts"] == {"sine": "inconclusive"}
    assert tree["workloads"] == {"easy": {"sine": "worse"}, "hard": {"sine": "inconclusive"}}
    told = command_output(monkeypatch, capsys, "status", folder, columns=100)
    assert "Verdicts over 2 workloads so far: sine inconclusive." in told
    assert "easy: sine worse." in told
    with Lease(Folder(folder)):
        assert "Running: process" in command_output(monkeypatch, capsys, "status", folder, columns=100)
    above = json.loads(command_output(monkeypatch, capsys, "list", folder.parent, "--format", "json"))
    assert [study["study"] for study in above["studies"]] == ["made"]
    inside = json.loads(command_output(monkeypatch, capsys, "list", folder, "--format", "json"))
    assert [study["study"] for study in inside["studies"]] == ["made", "made/easy", "made/hard"]
    assert files_in(folder) == before


@pytest.mark.parametrize(
    "words",
    [
        ("replay", "DIR", "confirm-adamw"),
        ("compare", "DIR", "DIR"),
        ("track", "DIR", "--to", "tensorboard"),
        ("dashboard", "DIR"),
    ],
)
def test_what_asks_for_rows_of_one_study_names_the_folders_of_the_parts(monkeypatch, capsys, folder, words):
    if words[0] == "dashboard":
        pytest.importorskip("optuna_dashboard")
    code, told = said_by(monkeypatch, capsys, *(folder if word == "DIR" else word for word in words))
    assert code == 2
    assert told.count("\n") == 1
    assert told.endswith("which is a study of several workloads; allowed: the folder of a part in it: easy, hard\n")


def test_compare_takes_parts(monkeypatch, capsys, folder):
    told = command_output(monkeypatch, capsys, "compare", folder / "easy", folder / "hard", columns=120)
    assert "workload.difficulty" in told
