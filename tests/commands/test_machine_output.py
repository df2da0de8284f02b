"""Verdicts for programs: `qsgd-ray report` and `judge` with `--format` and `--fail-on`, and the pages of `judge`."""

import csv
import json
import sys

import pytest
from support.command_line import command_output, said_by
from support.pages import files_in, whole_study
from support.scores import EFFECTS, RULE, score_rows
from support.synthetic_limits import made as made_limits
from support.synthetic_results import Run, made, runs

from qsgd_ray.reporting.verdict_document import as_json
from qsgd_ray.study.reading import read_results


@pytest.fixture
def folder(tmp_path):
    return whole_study().write(tmp_path / "results" / "made", {"commit": None})


def test_report_prints_a_format_and_nothing_else(monkeypatch, capsys, folder):
    told = command_output(monkeypatch, capsys, "report", folder, "--format", "json", columns=20)
    assert told == as_json(read_results(folder).document) == (folder / "verdict.json").read_text()
    for name in ("csv", "markdown", "latex"):
        told = command_output(monkeypatch, capsys, "report", folder, "--format", name, columns=20)
        assert told == read_results(folder).format(name)


def test_report_fails_on_a_verdict_with_code_3_and_prints_it_nevertheless(monkeypatch, capsys, folder, tmp_path):
    code, told = said_by(monkeypatch, capsys, "report", folder, "--fail-on", "inconclusive")
    assert (code, told) == (3, "")
    assert said_by(monkeypatch, capsys, "report", folder, "--fail-on", "worse") == (0, "")
    base = [0.9, 0.91, 0.92, 0.9, 0.91, 0.92]
    worse = made({"adamw": runs(base), "sine": [Run(x - 0.1) for x in base]}).write(tmp_path / "worse")
    monkeypatch.setattr(sys, "argv", ["qsgd-ray", "report", str(worse), "--fail-on", "worse", "--format", "csv"])
    from qsgd_ray import cli

    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 3
    assert next(csv.DictReader(capsys.readouterr().out.splitlines()))["verdict"] == "worse"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--format", "xml"), "--format: got 'xml'; allowed: json, csv, markdown, latex"),
        (("--fail-on", "better"), "--fail-on: got 'better'; allowed: worse, inconclusive"),
    ],
)
def test_a_wrong_option_of_report_is_one_line(monkeypatch, capsys, folder, words, said):
    before = files_in(folder)
    assert said_by(monkeypatch, capsys, "report", folder, *words) == (2, f"qsgd-ray: {said}\n")
    assert files_in(folder) == before


def test_a_study_of_limits_has_no_verdict_to_print_or_to_fail_on(monkeypatch, capsys, tmp_path):
    limits = made_limits(tmp_path / "limits").storage.path
    for words in (("--format", "json"), ("--fail-on", "worse")):
        code, told = said_by(monkeypatch, capsys, "report", limits, *words)
        assert code == 2
        assert f"{words[0]}: got '{words[1]}'; allowed: none, as {limits} is a study of limits" in told
    code, told = said_by(monkeypatch, capsys, "status", limits)
    assert (code, told) == (
        2,
        f"qsgd-ray: DIR: got {limits}, a study of limits; allowed: a study with arms (qsgd-ray list)\n",
    )


@pytest.fixture
def runs_csv(tmp_path):
    path = tmp_path / "runs.csv"
    with path.open("w") as file:
        writer = csv.DictWriter(file, ["arm", "seed", "score", "stage"])
        writer.writeheader()
        writer.writerows(row | {"stage": "confirm"} for row in score_rows(EFFECTS))
        writer.writerow({"arm": "lion", "seed": 1, "score": 0.0, "stage": "search"})
    return path


OPTIONS = ("--baseline", "adamw", "--margin", 0.05, "--direction", "min", "--where", "stage=confirm")


def test_judge_prints_verdicts_with_their_reasons_and_writes_a_page(monkeypatch, capsys, runs_csv, tmp_path):
    page = tmp_path / "new" / "page.html"
    told = command_output(
        monkeypatch, capsys, "judge", runs_csv, *OPTIONS, "--unit", "nats", "--page", page, columns=120
    )
    assert "Of 3 arms against adamw: 1 better, 1 worse, 1 equivalent." in told
    assert "muon: Over 8 pairs the score of muon is 0.199 nats lower than that of adamw (lower is better)" in told
    assert "Differences to adamw in nats; lower is better; margin 0.050 nats, alpha 0.05." in told
    assert "1 of 33 rows were left out by where." in told
    assert f"Report: {page}" in told.replace("\n", "")
    assert page.exists()
    tree = json.loads(
        command_output(monkeypatch, capsys, "judge", runs_csv, *OPTIONS, "--unit", "nats", "--format", "json")
    )
    assert tree == json.loads((page.parent / "verdict.json").read_text())
    assert {v["arm"]: v["verdict"] for v in tree["verdicts"]} == {
        "muon": "better",
        "same": "equivalent",
        "lion": "worse",
    }


def test_judge_fails_on_a_worse_arm_with_code_3(monkeypatch, capsys, runs_csv):
    assert said_by(monkeypatch, capsys, "judge", runs_csv, *OPTIONS, "--fail-on", "worse") == (3, "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--where", "stage"), "--where: got 'stage'; allowed: COLUMN=VALUE"),
        (("--where", "=x"), "--where: got '=x'; allowed: COLUMN=VALUE"),
        (("--where", "phase=x"), "--where: got 'phase'; allowed: a column (arm, seed, score, stage)"),
        (("--margin", "-1"), "--margin: got -1.0; allowed: a number above 0"),
        (("--kind", "loss"), "--kind: got 'loss'; allowed: 'mean', 'share'"),
        (("--score", "loss"), "--score: got 'loss'; allowed: a column (arm, seed, score, stage)"),
        (("--baseline", "x"), "--baseline: got 'x'; allowed: an arm of the table (adamw, muon, same, lion)"),
        (("--format", "xml"), "--format: got 'xml'; allowed: json, csv, markdown, latex"),
        (("--fail-on", "x"), "--fail-on: got 'x'; allowed: worse, inconclusive"),
        (("--page", "/dev/null/x.html"), "--page: got /dev/null/x.html; allowed: a file that can be written ("),
    ],
)
def test_a_wrong_option_of_judge_is_one_line(monkeypatch, capsys, runs_csv, words, said):
    code, told = said_by(monkeypatch, capsys, "judge", runs_csv, *OPTIONS, *words)
    assert (code, told.count("\n")) == (2, 1)
    assert told.startswith(f"qsgd-ray: {said}")


def test_judge_names_a_file_that_is_none(monkeypatch, capsys):
    code, told = said_by(monkeypatch, capsys, "judge", "none.csv", *OPTIONS)
    assert (code, told) == (
        2,
        "qsgd-ray: TABLE: got none.csv; allowed: a csv file that can be read (No such file or directory)\n",
    )


def test_the_rule_of_the_tests_is_that_of_the_command():
    assert dict(zip(OPTIONS[:6:2], OPTIONS[1:6:2], strict=True)) == {f"--{name}": RULE[name] for name in RULE}
