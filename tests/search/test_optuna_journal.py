"""What optuna-dashboard shows is what the rows say, live and made anew, and never costs a search anything."""

import json
import os
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from support.outcomes import measured
from support.processes import wait_until
from support.searches import CONDITIONAL, shown
from support.small_study import a_study

from qsgd_ray.commands import dashboard as command
from qsgd_ray.config import Arm, LogUniform, Search, Study, StudyError
from qsgd_ray.config.trial import search_trials
from qsgd_ray.outcome import Ending, Outcome
from qsgd_ray.results import Results
from qsgd_ray.search._arm_search import ArmSearch
from qsgd_ray.search.optuna_journal import FILE, SearchJournal, is_readable, open_journal

optuna.logging.set_verbosity(optuna.logging.WARNING)
STUDY = a_study(
    arms=(Arm(name="adamw", learning_rate=LogUniform(low=1e-4, high=1e-1)), CONDITIONAL, Arm(name="fixed")),
    search=Search(trials_per_arm=6, epochs=2, grace_epochs=1, seeds=(0, 1)),
)
# Per number: how each seed's run ended.
ENDINGS = [
    (Ending.COMPLETED, Ending.COMPLETED),
    (Ending.STOPPED_EARLY, Ending.STOPPED_EARLY),
    (Ending.FAILED, Ending.DIVERGED),
    (Ending.COMPLETED, Ending.DIVERGED),
]


def outcome(ending: Ending, seed: int) -> Outcome:
    epochs = {Ending.COMPLETED: 2, Ending.STOPPED_EARLY: 1, Ending.DIVERGED: 1, Ending.FAILED: 0}[ending]
    return Outcome(ending, tuple(measured(epoch, (epoch + seed) / 4) for epoch in range(1, epochs + 1)))


def told(results: Results, view: SearchJournal | None, until: int = len(ENDINGS), study: Study = STUDY) -> None:
    """A search as search/tune.py goes through it, one trial at a time, with the endings above."""
    for index, arm in enumerate(study.arms):
        if not arm.spaces():
            continue
        search = ArmSearch(study, index, {})
        for endings in ENDINGS[:until]:
            number, point = search.ask()
            if view:
                view.begin(arm, number, point)
            trials = search_trials(study, arm.name, number, point)
            runs = [outcome(ending, trial.seed) for trial, ending in zip(trials, endings, strict=True)]
            for epoch in range(1, max(len(run.measurements) for run in runs) + 1):
                reached = [
                    run.measurements[epoch - 1].validation_accuracy if epoch <= len(run.measurements) else 0.0
                    for run in runs
                ]
                if view:
                    view.add_quality(arm, number, epoch, sum(reached) / 2)
            for trial, run in zip(trials, runs, strict=True):
                results.write(trial, run)
            usable = endings[0] is not Ending.FAILED
            alive = [r.measurements[-1].validation_accuracy if r.ending is endings[0] and usable else 0.0 for r in runs]
            search.tell(number, [sum(alive) / 2])
            if view:
                view.end(arm, number, endings[0] if usable else None, [sum(alive) / 2])


@pytest.fixture
def results(tmp_path) -> Results:
    results = Results(tmp_path / "small")
    results.open(STUDY, {})
    return results


@pytest.fixture
def path(results) -> Path:
    return results.path / FILE


def test_there_is_a_study_for_every_searched_arm_and_its_trials_end_as_the_rows_say(results, path):
    told(results, open_journal(results.tables(STUDY), path))
    seen = shown(path)
    assert set(seen) == {"adamw", "q"}
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.COMPLETE]
    assert [trial[1] for trial in seen["q"]] == [trial[1] for trial in seen["adamw"]] == states
    assert [trial[3] for trial in seen["adamw"]] == [[0.625], None, None, [0.25]]
    assert [trial[4] for trial in seen["adamw"]] == [{1: 0.375, 2: 0.625}, {1: 0.375}, {1: 0.25}, {1: 0.375, 2: 0.25}]


def test_a_view_made_anew_from_the_rows_is_the_one_that_was_kept_live(results, path):
    told(results, open_journal(results.tables(STUDY), path))
    live = shown(path)
    path.unlink()
    open_journal(results.tables(STUDY), path)
    assert shown(path) == live


@pytest.mark.parametrize("cut", [1, 7, 200])
def test_a_torn_journal_is_made_anew(results, path, cut):
    told(results, open_journal(results.tables(STUDY), path))
    live = shown(path)
    content = path.read_bytes()
    path.write_bytes(content[:-cut])
    open_journal(results.tables(STUDY), path)
    assert shown(path) == live
    path.write_bytes(b"\x00 no journal\n" + content)
    assert not is_readable(path)
    open_journal(results.tables(STUDY), path)
    assert shown(path) == live


def test_a_journal_that_contradicts_the_rows_is_made_anew(results, path, tmp_path):
    other = Results(tmp_path / "other")
    other.open(STUDY, {})
    told(other, open_journal(other.tables(STUDY), path), until=2)
    open_journal(results.tables(STUDY), path)
    assert shown(path) == {"adamw": [], "q": []}


def test_a_search_that_was_cut_off_goes_on_in_the_same_journal(results, path):
    told(results, open_journal(results.tables(STUDY), path), until=2)
    view = open_journal(results.tables(STUDY), path)
    number, point = 2, ArmSearch(STUDY, 0, {}).ask()[1]
    view.begin(STUDY.arm("adamw"), number, point)
    before = path.read_bytes()

    again = open_journal(results.tables(STUDY), path)
    again.begin(STUDY.arm("adamw"), number, point)
    assert path.read_bytes() == before, "the same point is the same trial"
    again.begin(STUDY.arm("adamw"), number, {"learning_rate": 0.05})
    assert [trial[:2] for trial in shown(path)["adamw"]][2:] == [(2, TrialState.FAIL), (2, TrialState.RUNNING)]
    assert path.read_bytes().startswith(before), "a dashboard that is open goes on reading"


def test_a_trial_that_has_its_rows_and_was_not_told_of_is_added(results, path):
    view = open_journal(results.tables(STUDY), path)
    told(results, None)
    open_journal(results.tables(STUDY), path)
    assert [len(trials) for trials in shown(path).values()] == [4, 4]
    assert view is not None


def test_a_view_that_cannot_be_written_is_given_up_and_the_search_goes_on(results, path, caplog, monkeypatch):
    view = open_journal(results.tables(STUDY), path)

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(JournalFileBackend, "append_logs", full)
    told(results, view)
    assert [record.message for record in caplog.records] == [f"{FILE} is no longer written: no space left"]


def test_several_objectives_are_shown_with_their_names(results, path):
    study = STUDY.model_copy(
        update={"search": STUDY.search.model_copy(update={"objectives": ("quality", "circuits"), "seeds": (0,)})}
    )
    for number in range(2):
        (trial,) = search_trials(study, "adamw", number, {"learning_rate": 0.01})
        results.write(trial, outcome((Ending.COMPLETED, Ending.FAILED)[number], 0))
    open_journal(results.tables(study), path)
    assert [trial[1:4:2] for trial in shown(path)["adamw"]] == [
        (TrialState.COMPLETE, [0.5, 0.0]),
        (TrialState.FAIL, None),
    ]
    one = optuna.load_study(study_name="adamw", storage=JournalStorage(JournalFileBackend(str(path))))
    assert one.metric_names == ["quality", "circuits"]


@contextmanager
def served(journal: Path) -> Iterator[str]:
    """The address of a dashboard."""
    lines: list[str] = []
    there = threading.Event()
    servers = []

    class Told:
        def print(self, line: str, **_: object) -> None:
            lines.append(line)
            there.set()

    make = command.make_server

    def kept(*words, **named):
        servers.append(make(*words, **named))
        return servers[0]

    command.make_server = kept
    thread = threading.Thread(target=command._serve, args=(journal, 0, Told()))
    thread.start()
    try:
        assert there.wait(60)
        yield lines[0].split("/dashboard")[0]
    finally:
        command.make_server = make
        servers[0].shutdown()
        thread.join()


def asked(address: str, what: str) -> dict:
    with urllib.request.urlopen(f"{address}{what}", timeout=20) as answer:
        return json.load(answer)


def test_the_dashboard_shows_a_running_search(results, path):
    view = open_journal(results.tables(STUDY), path)
    told(results, view, until=1)
    with served(path) as address:
        studies = {one["study_name"]: one["study_id"] for one in asked(address, "/api/studies")["study_summaries"]}
        assert set(studies) == {"adamw", "q"}
        trials = asked(address, f"/api/studies/{studies['adamw']}?after=0")["trials"]
        assert [(trial["state"], trial["values"]) for trial in trials] == [("Complete", [0.625])]
        view.begin(STUDY.arm("adamw"), 1, {"learning_rate": 0.02})

        def states() -> list[str]:
            return [trial["state"] for trial in asked(address, f"/api/studies/{studies['adamw']}?after=0")["trials"]]

        # It looks into the storage every few seconds.
        wait_until(lambda: states() == ["Complete", "Running"], 60, "the running trial is not shown")


def test_the_command_makes_a_missing_journal_anew_and_leaves_one_that_is_being_written(results, path, tmp_path):
    told(results, open_journal(results.tables(STUDY), path), until=1)
    before = path.read_bytes()
    assert command._journal(str(results.path), tmp_path) == path
    assert path.read_bytes() == before
    path.unlink()
    assert command._journal(str(results.path), tmp_path) == path
    assert [len(trials) for trials in shown(path).values()] == [1, 1]


def test_a_dashboard_that_cannot_be_is_one_line(results, path, tmp_path, monkeypatch):
    open_journal(results.tables(STUDY), path)
    with served(path) as address, pytest.raises(StudyError, match=r"^--port: got \d+; allowed: a free port \("):
        command._serve(path, int(address.rpartition(":")[2]), None)
    with pytest.raises(StudyError, match="DIR: got "):
        command.dashboard(str(tmp_path / "nothing"))
    monkeypatch.setattr(command, "find_spec", lambda _: None)
    with pytest.raises(
        StudyError, match=r"^dashboard: got no package optuna-dashboard; allowed: with it \(pip install"
    ):
        command.dashboard(str(results.path))


def test_a_folder_in_which_no_journal_can_be_written_is_one_line(results, path, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("qsgd_ray.search.optuna_journal.open_journal", full)
    with pytest.raises(StudyError, match=r"allowed: a folder in which optuna.log can be written \(no space left\)"):
        command._journal(str(results.path), tmp_path)


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_journal_that_is_a_link_out_or_a_pipe_is_not_written(results, path, tmp_path, kind):
    outside = tmp_path / "outside.log"
    outside.write_text("kept")
    if kind == "link":
        path.symlink_to(outside)
    else:
        os.mkfifo(path)
    with pytest.raises(StudyError, match="a link that leads out" if kind == "link" else "which is no file"):
        command._journal(str(results.path), tmp_path)
    assert outside.read_text() == "kept"
