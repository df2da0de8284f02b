"""Studies of several workloads run part by part on one connection, go on where they ended, and have a joint result."""

import json
from contextlib import contextmanager

import pytest
from support.own_tasks import Line, Rings
from support.several import BASE, a_whole, write
from support.small_study import SMALL_TASK, a_study
from support.without_ray import confirm, replace_ray

import qsgd_ray.results
from qsgd_ray import StudyError, WorkloadsResult, read_results, run
from qsgd_ray.config import Arm, Confirm, Decision, LogUniform, Search, Study
from qsgd_ray.execution import connection
from qsgd_ray.execution.connection import Cluster
from qsgd_ray.execution.errors import RayLost
from qsgd_ray.results import Results
from qsgd_ray.results.whole import WholeResults
from qsgd_ray.storage import Lease
from qsgd_ray.study import _stages as stages
from qsgd_ray.study.replay import stored_trial

HARDER = SMALL_TASK.model_copy(update={"difficulty": 0.3})


class Broken(Line):
    """A task whose model cannot be made."""

    def model(self, generator):
        raise ValueError("no model")


def small_whole(**fields) -> Study:
    """Return the small study of the tests on two workloads."""
    of_one = {name: value for name, value in a_study() if name not in ("workload", "workloads")}
    return Study(**of_one | {"workloads": {"easy": SMALL_TASK, "hard": HARDER}} | fields)


@pytest.fixture
def connections(monkeypatch) -> list[Cluster]:
    """The connections to a Ray that is not there; trials are rows that are written at once."""
    return replace_ray(monkeypatch)


def test_every_part_is_run_on_one_connection_and_has_its_own_folder(connections, tmp_path, capsys):
    result = run(small_whole(), storage=tmp_path, study_file=__file__)
    assert isinstance(result, WorkloadsResult)
    assert len(connections) == 1
    assert (result.failure, result.warnings, result.is_finished) == (None, (), True)
    assert [*result.parts] == ["easy", "hard"]
    assert [part.trials.num_rows for part in result.parts.values()] == [8, 8]
    assert {*result.trials["study"].to_pylist()} == {"small/easy", "small/hard"}
    assert result.to_pandas()[0].shape[0] == 16
    assert [v.arm for v in result.verdicts] == ["sine"]
    assert [name for name in result.figures if name.startswith("hard/")] == [
        f"hard/{name}" for name in result.parts["hard"].figures
    ]
    root = tmp_path / "small"
    assert sorted(path.name for path in root.iterdir()) == [
        "easy", "hard", "provenance.json", "report.html", "studies", "study.json", "study.py", "verdict.json",
    ]  # fmt: skip
    for name in ("easy", "hard"):
        assert (root / name / "report.html").exists()
        assert f'href="{name}/report.html"' in result.page.read_text()
    out = capsys.readouterr().out
    assert out.startswith("small: Is it a study?\n5 pairs are needed")
    assert out.count("5 pairs are needed") == 1
    lines = ["Workload easy, 1 of 2", "easy: Of one arm against", "Workload hard, 2 of 2", "hard: Of one arm against"]
    assert [out.index(line) for line in lines] == sorted(out.index(line) for line in lines)
    assert json.loads((root / "verdict.json").read_text()) == result.document
    again = run(small_whole(), storage=tmp_path, study_file=__file__)
    assert len(connections) == 1, "nothing was missing"
    assert again.document == result.document


def test_a_part_equals_the_study_of_its_workload_alone(connections, tmp_path):
    whole = run(small_whole(), storage=tmp_path, progress=False)
    alone = run(a_study(workload=HARDER, name="alone"), storage=tmp_path, progress=False)
    part = whole.parts["hard"]
    assert part.trials["trial_id"] == alone.trials["trial_id"]
    assert part.measurements == alone.measurements
    again = run(small_whole().parts()["hard"], storage=tmp_path, progress=False)
    assert again.storage.path == tmp_path / "small" / "hard"
    assert again.trials["trial_id"] == alone.trials["trial_id"]


def test_a_study_that_was_cut_off_goes_on_with_the_part_that_it_was_at(connections, tmp_path, monkeypatch):
    written = []

    def cut_off(study, context, trials, **options) -> None:
        if study.name == "small/hard":
            raise RuntimeError("killed")
        written.append(study.name)
        confirm(study, context, trials, **options)

    monkeypatch.setattr(stages, "run_fixed_trials", cut_off)
    with pytest.raises(RuntimeError, match="killed"):
        run(small_whole(), storage=tmp_path, progress=False)
    halfway = read_results(tmp_path / "small")
    assert not halfway.is_finished
    assert [part.trials.num_rows for part in halfway.parts.values()] == [8, 4]
    files = {path: path.read_bytes() for path in (tmp_path / "small" / "easy").rglob("*.parquet")}
    monkeypatch.setattr(stages, "run_fixed_trials", confirm)
    result = run(small_whole(), storage=tmp_path, progress=False)
    assert result.is_finished
    assert {path: path.read_bytes() for path in files} == files
    assert len(json.loads((tmp_path / "small" / "provenance.json").read_text())["resumed"]) == 1


def test_a_part_that_cannot_go_on_leaves_the_others_to_go_on(connections, tmp_path, monkeypatch):
    search = stages.run_search

    def without_easy(tables, context) -> None:
        if tables.study.name != "small/easy":
            search(tables, context)

    monkeypatch.setattr(stages, "run_search", without_easy)
    result = run(small_whole(), storage=tmp_path, progress=False)
    assert result.failure.startswith("easy: search: trials lost their process or their circuits 3 times")
    assert [part.is_finished for part in result.parts.values()] == [False, True]
    assert result.failure in result._repr_html_()


def test_a_ray_that_is_lost_ends_the_run_with_what_is_there(connections, tmp_path, monkeypatch):
    def lost_after_the_first(self) -> None:
        if (tmp_path / "small" / "easy" / "report.html").exists():
            raise RayLost.ended("gcs_server")

    monkeypatch.setattr(Cluster, "require_alive", lost_after_the_first)
    result = run(small_whole(), storage=tmp_path, progress=False)
    assert "gcs_server" in result.failure
    assert [part.trials.num_rows for part in result.parts.values()] == [8, 0]
    assert result.page.exists()


def test_all_parts_are_checked_before_the_first_one_runs(connections, tmp_path):
    study = small_whole(
        workloads={"rings": Rings(batch_size=16), "broken": Broken()},
        confirm=Confirm(seeds=(11, 12), epochs=2, workers=1),
    )
    with pytest.raises(StudyError, match=r"^workloads\.broken: .*no model"):
        run(study, storage=tmp_path, progress=False)
    assert not connections
    assert not [*tmp_path.rglob("*.parquet")]


def test_a_place_holds_a_study_of_one_workload_or_of_several(connections, tmp_path):
    run(small_whole(), storage=tmp_path, progress=False)
    with pytest.raises(StudyError, match=r"^--storage: got .*small, which holds a study of several workloads; allowed"):
        run(a_study(), storage=tmp_path, progress=False)
    run(a_study(name="single"), storage=tmp_path, progress=False)
    with pytest.raises(StudyError, match=r"^--storage: got .*single, which holds a study of one workload; allowed"):
        run(small_whole(name="single"), storage=tmp_path, progress=False)


def test_one_process_at_a_time_runs_the_whole_or_a_part(connections, tmp_path, monkeypatch):
    run(small_whole(), storage=tmp_path, progress=False)
    for held in ("small", "small/hard"):
        with Lease(Results(tmp_path / held).storage), pytest.raises(StudyError, match=r"in use by process"):
            run(small_whole(), storage=tmp_path, progress=False)


def test_what_was_changed_later_is_said_and_a_further_workload_is_added(connections, tmp_path):
    run(small_whole(), storage=tmp_path, progress=False)
    more = {"easy": SMALL_TASK, "hard": HARDER, "third": HARDER.model_copy(update={"data_seed": 7})}
    result = run(small_whole(workloads=more), storage=tmp_path, progress=False)
    assert [part.trials.num_rows for part in result.parts.values()] == [8, 8, 8]
    assert any("after 16 trials: workloads.third added" in note for note in result.analysis.notes)
    assert not any(part.analysis.notes for part in result.parts.values())
    fewer = run(small_whole(), storage=tmp_path, progress=False)
    assert [*fewer.parts] == ["easy", "hard"]


def test_what_asks_for_one_study_is_refused_with_the_folders_of_its_parts(connections, tmp_path):
    study = a_whole(n := ("adamw", "sine"), 6)
    folder = write(study, {name: dict.fromkeys(n, BASE) for name in ("easy", "hard")}, tmp_path / "made")
    line = (
        rf"^DIR: got {folder}, which is a study of several workloads; allowed: the folder of a part in it: easy, hard$"
    )
    for ask in (qsgd_ray.results.read, lambda where: stored_trial(Results(where), "confirm-adamw")):
        with pytest.raises(StudyError, match=line):
            ask(folder)
    assert qsgd_ray.results.read(folder / "hard").trials.num_rows == 12
    assert WholeResults(folder).count() == 24


def test_a_result_is_read_back_and_written_again(tmp_path):
    values = {"adamw": BASE, "sine": [value + 0.03 for value in BASE]}
    folder = write(a_whole(), {"easy": values, "hard": values}, tmp_path / "made")
    result = read_results(folder)
    assert [v.verdict for v in result.verdicts] == ["better"]
    assert result.report() == folder / "report.html"
    for name in ("easy", "hard"):
        assert json.loads((folder / name / "verdict.json").read_text()) == result.parts[name].document
    assert json.loads((folder / "verdict.json").read_text()) == result.document
    assert "better" in result._repr_html_()
    assert result.report(tmp_path / "elsewhere.html").exists()
    (tmp_path / "taken").mkdir()
    with pytest.raises(StudyError, match=r"^path: got .*taken; allowed: a file that can be written"):
        result.report(tmp_path / "taken")
    with pytest.raises(StudyError, match=r"^DIR: got .*nothing; allowed: a folder that a study was run into"):
        WholeResults(tmp_path / "nothing")


def test_tasks_of_ones_own_are_trained_by_ray_part_by_part(cluster, tmp_path, monkeypatch):
    """Real searches and confirmations, on the Ray that the tests share."""

    @contextmanager
    def connect(*_):
        yield cluster

    monkeypatch.setattr(connection, "connect", connect)
    rate = LogUniform(low=1e-3, high=1e-1)
    study = Study(
        name="own",
        question="Does the rate matter?",
        workloads={"rings": Rings(batch_size=16), "line": Line()},
        arms=(Arm(name="adamw", learning_rate=rate), Arm(name="slow", learning_rate=1e-5)),
        baseline="adamw",
        search=Search(trials_per_arm=2, epochs=2),
        confirm=Confirm(seeds=(101, 102, 103, 104, 105), epochs=2, workers=1),
        decision=Decision(margin=0.01, margins={"line": 0.5}),
    )
    result = run(study, storage=tmp_path, progress=False)
    assert result.failure is None
    assert result.is_finished
    assert {*result.trials["ending"].to_pylist()} <= {"completed", "stopped_early"}
    assert [part.trials.num_rows for part in result.parts.values()] == [12, 12]
    assert [part.study.metric.name for part in result.parts.values()] == ["accuracy", "mse"]
    (verdict,) = result.verdicts
    assert (verdict.n_pairs, verdict.n_pending) == (5, 0)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    again = run(study, storage=tmp_path, progress=False)
    assert again.document == result.document
    assert {path: path.stat().st_mtime_ns for path in before} == before
