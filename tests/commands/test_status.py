"""`qsgd-ray status` and `qsgd-ray list` say how far studies are, from any terminal, and write nothing."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from support.command_line import command_output, said_by
from support.pages import files_in, whole_study
from support.synthetic_limits import made as made_limits
from support.synthetic_results import Run, a_study, lost, made, runs

from qsgd_ray.analysis.status import last_end
from qsgd_ray.config import Budget, Map
from qsgd_ray.outcome import Ending
from qsgd_ray.results import Results
from qsgd_ray.results.spending import RunSpending, Spending, write_spending
from qsgd_ray.storage import Folder, Lease, StorageError


@pytest.fixture
def folder(tmp_path):
    return whole_study().write(tmp_path / "results" / "made", {"commit": None})


def status_of(monkeypatch, capsys, folder):
    return json.loads(command_output(monkeypatch, capsys, "status", folder, "--format", "json"))


def test_status_tells_stages_endings_and_verdicts_and_writes_nothing(monkeypatch, capsys, folder):
    before = files_in(folder)
    tree = status_of(monkeypatch, capsys, folder)
    assert (tree["format"], tree["version"], tree["study"]) == ("qsgd-ray status", 2, "made")
    assert (tree["state"], tree["holder"], tree["stage"]) == ("stopped", None, "confirm")
    assert (tree["ended"], tree["planned"]) == (31, 32)
    (wild,) = (entry for entry in tree["stages"] if (entry["stage"], entry["arm"]) == ("confirm", "wild"))
    assert (wild["ended"], wild["planned"]) == (5, 6)
    assert wild["endings"] == {"completed": 2, "diverged": 2, "failed": 1, "lost": 1}
    assert tree["verdicts"] == {"same": "equivalent", "gain": "better", "wild": "inconclusive"}
    told = command_output(monkeypatch, capsys, "status", folder, columns=100)
    assert "Stopped: no process runs it, and trials are missing" in told
    assert "31 of 32 trials ended; the stage is confirm." in told
    assert "Verdicts so far: same equivalent, gain better, wild inconclusive." in told
    assert files_in(folder) == before


def test_status_and_list_tell_what_is_spent_of_a_budget(monkeypatch, capsys, folder):
    assert status_of(monkeypatch, capsys, folder)["budget"] is None
    study = a_study(["adamw", "sine"], 2, budget=Budget(hours=2, cost=50, price_per_node_hour=10))
    path = made({}, study=study).write(folder.parent / "dear")

    def told(hours: float) -> tuple[dict, str, str]:
        write_spending(Folder(path), Spending((RunSpending(None, 3600 * hours, {"": 7200 * hours}),)))
        tree = status_of(monkeypatch, capsys, path)
        text = command_output(monkeypatch, capsys, "status", path, columns=120)
        return tree["budget"], text, command_output(monkeypatch, capsys, "list", folder.parent, columns=300)

    entry, status, listed = told(0.5)
    planned = sum(study.planned(stage, arm) for stage in ("search", "confirm") for arm in study.arms)
    assert entry == {
        **{"hours": 2, "cost": 50, "hours_spent": 0.5, "cost_spent": 10.0, "is_spent": False},
        **{"trials_ended": 0, "trials_planned": planned},
    }
    assert "Budget: 0.5 h of 2 h and 10 of 50 of money spent.\n" in status
    lines = [line.split() for line in listed.splitlines()]
    assert "budget" in next(line for line in lines if line[:1] == ["study"])
    assert "0.5 h of 2 h and 10 of 50 of money" in listed
    assert next(line for line in lines if line[:1] == ["made"])[3] == "–"
    entry, status, _ = told(2.5)
    assert entry["is_spent"]
    assert "Budget: 2.5 h of 2 h and 50 of 50 of money spent; no further trial starts." in status


@pytest.mark.parametrize("stage", ["search", "confirm", "map", None])
def test_status_names_the_stage_that_is_not_complete(monkeypatch, capsys, tmp_path, stage):
    design = Map(arm="sine", axes={"perturbation.n_qubits": (2, 4)}, seeds=(301,), epochs=2) if stage == "map" else None
    study = a_study(["adamw", "sine"], 2, map=design)
    n_confirmed = 0 if stage == "search" else 1 if stage == "confirm" else 2
    whole = made({arm: runs([0.9] * n_confirmed) for arm in ("adamw", "sine")}, study=study, searched=True)
    path = made({}, study=study).write(tmp_path / "made")
    results = Results(path)
    for trial, outcome in whole.trials:
        if stage != "search" or (trial.stage, trial.arm.name) == ("search", "adamw"):
            results.write(trial, outcome)
    assert status_of(monkeypatch, capsys, path)["stage"] == stage
    assert status_of(monkeypatch, capsys, path)["state"] == ("finished" if stage is None else "stopped")


HOLDER = """
import sys, time
from pathlib import Path
from qsgd_ray.results import Results
with Results(Path(sys.argv[1])).held():
    print("held", flush=True)
    time.sleep(120)
"""


def test_status_and_list_name_the_process_that_runs_the_study(monkeypatch, capsys, folder):
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        tree = status_of(monkeypatch, capsys, folder)
        assert (tree["state"], tree["holder"]["pid"], tree["holder"]["lives"]) == ("running", process.pid, True)
        assert f"Running: process {process.pid} on" in command_output(
            monkeypatch, capsys, "status", folder, columns=120
        )
        listed = json.loads(command_output(monkeypatch, capsys, "list", folder.parent, "--format", "json"))
        assert [entry["state"] for entry in listed["studies"]] == ["running"]
        process.kill()
        process.wait()
    tree = status_of(monkeypatch, capsys, folder)
    assert (tree["state"], tree["holder"]["lives"]) == ("stopped", False)


def test_a_process_on_another_machine_is_watched_for_its_renewal(monkeypatch, capsys, folder):
    monkeypatch.setattr(Lease, "beat_s", 0.2)
    owner = {"token": "t", "host": "far\x1b[2J", "machine": "0" * 8, "pid": 7, "started": 1, "since": "2026", "beat": 0}
    (folder / ".driver.json").write_text(json.dumps(owner))
    assert status_of(monkeypatch, capsys, folder)["state"] == "unconfirmed"
    told = command_output(monkeypatch, capsys, "status", folder, columns=150)
    assert "Unconfirmed: process 7 on far\\x1b[2J since 2026, another machine, did not renew its lease" in told
    sleep = time.sleep

    def renewed(seconds):
        owner["beat"] += 1
        Folder(folder).put(".driver.json", json.dumps(owner).encode())
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", renewed)
    assert status_of(monkeypatch, capsys, folder)["state"] == "running"
    monkeypatch.setattr(time, "sleep", lambda _: (folder / ".driver.json").unlink(missing_ok=True))
    assert status_of(monkeypatch, capsys, folder)["state"] == "stopped"


def test_list_has_a_line_a_study_also_of_limits_and_of_a_broken_one(monkeypatch, capsys, folder, tmp_path):
    results = folder.parent
    made_limits(results / "limits")
    (results / "torn").mkdir()
    (results / "torn" / "study.json").write_text("{")
    (results / "notes").mkdir()
    (results / "out").symlink_to(folder)
    before = files_in(results)
    told = command_output(monkeypatch, capsys, "list", results, columns=400)
    lines = [line.split() for line in told.splitlines() if line.strip() and "─" not in line]
    assert lines[0] == ["study", "state", "trials", "verdicts", "last", "trial", "ended", "(UTC)"]
    by_name = {line[0]: line[1:] for line in lines[1:]}
    assert by_name["made"][:2] == ["stopped", "31/32"]
    assert by_name["torn"][:2] == ["broken", "–"]
    assert by_name["limits"][0] == "limits"
    tree = json.loads(command_output(monkeypatch, capsys, "list", results, "--format", "json"))
    assert [entry["state"] for entry in tree["studies"]].count("stopped") == 1
    assert {entry["place"].rpartition("/")[2] for entry in tree["studies"]} == {*by_name}
    alone = json.loads(command_output(monkeypatch, capsys, "list", folder, "--format", "json"))
    assert [entry["place"] for entry in alone["studies"]] == [str(folder)]
    assert files_in(results) == before


def test_a_folder_without_a_study_is_one_line_and_an_empty_list(monkeypatch, capsys, tmp_path):
    for where in (tmp_path, tmp_path / "none"):
        code, told = said_by(monkeypatch, capsys, "list", where)
        assert (code, told.count("\n")) == (2, 1)
        assert f"DIR: got {where}, in which no study is; allowed: a folder that studies were run into" in told
        assert json.loads(command_output(monkeypatch, capsys, "list", where, "--format", "json"))["studies"] == []
        code, told = said_by(monkeypatch, capsys, "status", where)
        assert (code, told.count("\n")) == (2, 1)
    for word in ("list", "status"):
        code, told = said_by(monkeypatch, capsys, word, tmp_path, "--format", "csv")
        assert (code, told) == (2, "qsgd-ray: --format: got 'csv'; allowed: json\n")


def test_a_place_that_cannot_be_read_is_one_line(monkeypatch, capsys, folder):
    def refuse(*_):
        raise StorageError("no answer within 60 s")

    monkeypatch.setattr(Folder, "names", refuse)
    monkeypatch.setattr(Folder, "read", refuse)
    for word in ("list", "status"):
        code, told = said_by(monkeypatch, capsys, word, folder)
        assert code == 2
        assert "that can be read (no answer within 60 s)" in told


def test_a_last_end_is_the_latest_of_the_rows(monkeypatch, capsys, tmp_path):
    study = made({"adamw": runs([0.9, 0.91]), "sine": [Run(0.9), lost(Ending.LOST)]})
    path = made({}, study=study.study).write(tmp_path / "made")
    began = datetime.now(UTC) - timedelta(hours=2)
    for number, (trial, outcome) in enumerate(study.trials):
        Results(path).write(trial, outcome, started_at=began + timedelta(minutes=number))
    tree = status_of(monkeypatch, capsys, path)
    assert abs(datetime.fromisoformat(tree["last_end"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert " s ago." in command_output(monkeypatch, capsys, "status", path, columns=160)
    listed = command_output(monkeypatch, capsys, "list", tmp_path, columns=160)
    assert tree["last_end"].removesuffix("+00:00").replace("T", " ") in listed


def test_a_row_that_ends_after_all_time_ends_nothing(tmp_path):
    tables = made({"adamw": runs([0.9]), "sine": runs([0.9])}).tables()
    began = pa.array([datetime(2026, 11, 30, tzinfo=UTC)] * 2, tables.trials.schema.field("started_at").type)
    names = tables.trials.column_names
    trials = tables.trials.set_column(names.index("started_at"), "started_at", began)
    trials = trials.set_column(names.index("elapsed_s"), "elapsed_s", pa.array([1e300, 60.0]))
    assert last_end(replace(tables, trials=trials)) == datetime(2026, 11, 30, 0, 1, tzinfo=UTC)
