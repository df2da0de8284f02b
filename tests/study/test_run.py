"""`run` from a script: rows, provenance and report in place, few readings, nothing of the caller's process changed."""

import json
import signal
import threading
from contextlib import contextmanager

import pytest
import ray
from support.small_study import a_study
from support.without_ray import replace_ray

from qsgd_ray import Limits, StudyError, run
from qsgd_ray.config import Arm, CircuitCurve, LogUniform, Optimizer
from qsgd_ray.config.own_task import IMPORTS_ONLY
from qsgd_ray.execution.connection import Cluster
from qsgd_ray.execution.errors import RayLost, is_of_ray
from qsgd_ray.outcome import Ending
from qsgd_ray.results import Results
from qsgd_ray.storage import Lease
from qsgd_ray.study import _stages as stages
from qsgd_ray.study._stages import StudyUnfinished
from qsgd_ray.study.run import Interrupts


@pytest.fixture
def without_ray(monkeypatch):
    """The stages in this process: trials are rows that are written at once."""
    replace_ray(monkeypatch)


@pytest.fixture
def readings(monkeypatch) -> list[int]:
    """One entry for each time that all rows of a study are read."""
    counted, read = [], Results.all_tables

    def all_tables(self):
        counted.append(1)
        return read(self)

    monkeypatch.setattr(Results, "all_tables", all_tables)
    return counted


def test_a_study_is_run_to_its_result_with_its_report_beside_its_rows(without_ray, tmp_path, capsys):
    result = run(a_study(), storage=tmp_path)
    assert (result.failure, result.warnings, result.is_finished) == (None, (), True)
    assert [verdict.arm for verdict in result.verdicts] == ["sine"]
    assert result.trials.num_rows == 8
    assert result.page == tmp_path / "small" / "report.html"
    assert "Is it a study?" in result.page.read_text()
    out = capsys.readouterr().out
    assert out.startswith("small: Is it a study?\n5 pairs are needed for a verdict at alpha 0.05; this study plans 2 ")
    assert out.count("completed") == 8


def test_a_name_that_is_changed_names_the_folder(without_ray, tmp_path):
    assert run(a_study(), storage=tmp_path, overrides=["name=other"], progress=False).study.name == "other"
    assert [folder.name for folder in tmp_path.iterdir()] == ["other"]


def test_a_study_that_can_reach_its_verdict_says_nothing_about_it(without_ray, tmp_path, capsys):
    run(a_study(), storage=tmp_path, overrides=["confirm.seeds=[11,12,13,14,15]"])
    assert "needed for a verdict" not in capsys.readouterr().out


def test_without_a_study_file_none_is_copied_and_provenance_says_so(without_ray, tmp_path):
    result = run(a_study(), storage=str(tmp_path), overrides=["confirm.seeds=[11,12,13]"], progress=False)
    assert result.study.confirm.seeds == (11, 12, 13)
    kept = json.loads((tmp_path / "small" / "provenance.json").read_text())
    assert (kept["study_file"], kept["overrides"]) == (None, ["confirm.seeds=[11,12,13]"])
    assert not (tmp_path / "small" / "study.py").exists()
    mine = tmp_path / "mine.py"
    mine.write_text("# mine")
    run(result.study, storage=tmp_path, study_file=mine, progress=False)
    assert (tmp_path / "small" / "study.py").read_text() == "# mine"


def test_rows_are_read_twice_beyond_the_report_and_once_where_nothing_is_missing(without_ray, readings, tmp_path):
    run(a_study(), storage=tmp_path, progress=False, track=[])
    assert len(readings) <= 2 + 1
    readings.clear()
    run(a_study(), storage=tmp_path, progress=False)
    assert len(readings) <= 1 + 1


def test_a_finished_study_reads_its_rows_without_ray(monkeypatch, tmp_path):
    connections = replace_ray(monkeypatch)
    first = run(a_study(), storage=tmp_path, progress=False)
    (tmp_path / "small" / "checkpoints").mkdir()
    (tmp_path / "small" / "checkpoints" / "left").touch()
    saving = ["resources.checkpoint_steps=5"]
    again = run(a_study(), storage=tmp_path, progress=False, overrides=saving)
    assert len(connections) == 1
    assert again.trials == first.trials
    assert again.is_finished
    assert not (tmp_path / "small" / "checkpoints" / "left").exists()
    run(a_study(), storage=tmp_path, progress=False, overrides=["confirm.seeds=[11,12,13]"])
    assert len(connections) == 2


def test_trackers_are_given_the_rows_that_the_report_has(without_ray, readings, tmp_path):
    pytest.importorskip("mlflow")
    run(a_study(), storage=tmp_path, progress=False, track=["mlflow"])
    assert len(readings) <= 2 + 1


def test_a_function_is_called_with_every_event_and_nothing_is_printed(without_ray, tmp_path, capsys):
    seen = []
    run(a_study(), storage=tmp_path, progress=seen.append)
    assert [event.ending for event in seen] == [Ending.COMPLETED] * 8
    assert capsys.readouterr().out == ""


def test_a_study_that_cannot_go_on_has_a_result_that_says_why(without_ray, tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "run_search", lambda *_: None)
    result = run(a_study(), storage=tmp_path, progress=False)
    assert result.failure.startswith("search: trials lost their process or their circuits 3 times")
    assert not result.is_finished
    assert result.page.exists()
    assert result.failure in result._repr_html_()


def test_a_private_ray_that_dies_is_a_result_that_says_so(without_ray, tmp_path, monkeypatch):
    def dead(_):
        raise RayLost("Ray's raylet has ended")

    monkeypatch.setattr(Cluster, "require_alive", dead)
    result = run(a_study(), storage=tmp_path, progress=False)
    assert result.failure == "Ray's raylet has ended"
    assert result.page.exists()


def test_a_driver_whose_results_were_taken_over_ends_at_once(without_ray, tmp_path, monkeypatch):
    searching, ended = threading.Event(), threading.Event()

    def search(*_):
        searching.set()
        ended.wait(60)

    def taken(_):
        if searching.is_set():
            raise StudyError("--storage: got small in use by process 7 on other")

    monkeypatch.setattr(stages, "run_search", search)
    monkeypatch.setattr(Lease, "check", taken)
    try:
        with pytest.raises(StudyError, match="in use by process 7 on other"):
            run(a_study(), storage=tmp_path, progress=False)
    finally:
        ended.set()


@pytest.mark.parametrize("core", ["dies", "lives on"])
def test_an_error_of_ray_s_own_is_a_result_that_says_so(without_ray, tmp_path, monkeypatch, core):
    """Of a raylet that is about to end, its actors may tell first."""
    failed = threading.Event()

    def fail(*_):
        failed.set()
        raise ray.exceptions.ActorDiedError

    def require_alive(_):
        if failed.is_set() and core == "dies":
            raise RayLost.ended("raylet")

    monkeypatch.setattr(stages, "run_search", fail)
    monkeypatch.setattr(Cluster, "require_alive", require_alive)
    monkeypatch.setattr("qsgd_ray.study.run._END_S", 1.0)
    result = run(a_study(), storage=tmp_path, progress=False)
    told = (
        "Ray's raylet has ended: "
        if core == "dies"
        else "Ray failed (ActorDiedError: The actor died unexpectedly before finishing this task). What"
    )
    assert result.failure.startswith(told)
    assert result.failure.endswith("the same command goes on from there")
    assert "\n" not in result.failure


def test_an_error_of_code_that_ran_in_a_task_is_not_of_ray():
    def of(cause):
        return ray.exceptions.RayTaskError("f", "trace", cause)

    assert not is_of_ray(of(ZeroDivisionError("planted")))
    assert is_of_ray(of(ray.exceptions.WorkerCrashedError()))
    assert not is_of_ray(None)
    assert not is_of_ray(ValueError("planted"))


def test_any_other_error_is_raised(without_ray, tmp_path, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(stages, "run_search", fail)
    with pytest.raises(ZeroDivisionError, match="planted"):
        run(a_study(), storage=tmp_path, progress=False)
    assert not issubclass(ZeroDivisionError, StudyUnfinished)


def test_signal_handlers_stay_the_caller_s_before_during_and_after_a_run(without_ray, tmp_path):
    def mine(*_):
        pass

    there = []
    handlers = (signal.SIGTERM, signal.SIGINT)
    before = signal.signal(signal.SIGTERM, mine)
    expected = [signal.getsignal(number) for number in handlers]
    try:
        run(a_study(), storage=tmp_path, progress=lambda _: there.append([signal.getsignal(n) for n in handlers]))
        assert [signal.getsignal(number) for number in handlers] == expected
    finally:
        signal.signal(signal.SIGTERM, before)
    assert there == [expected] * 8


def test_ctrl_c_ends_ray_and_is_the_caller_s_to_handle(without_ray, tmp_path):
    ends = []

    class Noted(Interrupts):
        @contextmanager
        def starting(self, results):
            try:
                yield
            except KeyboardInterrupt:
                ends.append(("ended", results.count()))
                raise

        @contextmanager
        def running(self, results, cluster):
            try:
                yield
            except KeyboardInterrupt:
                ends.append(("running", cluster.private))
                raise

    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(a_study(), storage=tmp_path, progress=interrupt, interrupts=Noted())
    assert [name for name, _ in ends] == ["running", "ended"]
    assert run(a_study(), storage=tmp_path, progress=False).is_finished, "the same call goes on"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"study": 3}, "study: got int; allowed: a Study"),
        (
            {
                "study": Limits(
                    name="l", question="?", curves=(CircuitCurve(name="c", engine="torch", sizes=(2, 3, 4, 5)),)
                )
            },
            "study: got Limits; allowed: a Study; qsgd-ray run FILE runs a study of limits",
        ),
        ({"storage": 3}, "storage: got 3; allowed: a folder, or a URI such as s3://BUCKET/PREFIX"),
        ({"storage": "ftp://x/y"}, "--storage: got ftp://x/y; allowed: a folder, or a URI that begins with one of"),
        ({"address": 3}, "address: got 3; allowed: the address of a running Ray cluster, or None"),
        ({"overrides": "seed=1"}, "overrides: got 'seed=1'; allowed: a list of path=value"),
        ({"overrides": ["frob=1"]}, "--set frob: got 'frob'; allowed in the study: name, question"),
        ({"track": "mlflow"}, "track: got 'mlflow'; allowed: a list of tensorboard, tensorboard=FOLDER, mlflow or ml"),
        ({"track": ["frob"]}, "--track: got 'frob'; allowed: tensorboard, tensorboard=FOLDER, mlflow, mlflow=URI"),
        ({"progress": 3}, "progress: got 3; allowed: True, False, or a function of an event"),
    ],
)
def test_a_wrong_argument_is_one_line(without_ray, tmp_path, arguments, said):
    with pytest.raises(StudyError) as error:
        run(**{"study": a_study(), "storage": tmp_path, "progress": False} | arguments)
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)
    assert not [*tmp_path.iterdir()]


def test_a_process_that_is_connected_to_ray_is_refused_after_all_that_is_wrong_without_it(monkeypatch, tmp_path):
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    with pytest.raises(StudyError, match=r"^--track: got 'frob'"):
        run(a_study(), storage=tmp_path, track=["frob"])
    with pytest.raises(StudyError, match=r"^--storage: got /dev/null/x/small"):
        run(a_study(), storage="/dev/null/x")
    with pytest.raises(StudyError, match=r"^address: got None in a process that is connected to Ray already; allowed"):
        run(a_study(), storage=tmp_path)


def test_a_script_that_runs_its_study_as_it_is_imported_is_told_where_the_call_belongs(monkeypatch, tmp_path):
    monkeypatch.setenv(IMPORTS_ONLY, "1")
    with pytest.raises(
        StudyError, match=r"run: got a call while its own file is imported; allowed: below if __name__ =="
    ):
        run(a_study(), storage=tmp_path)


def test_a_folder_from_before_versions_of_optimizers_says_so_and_keeps_its_rows(without_ray, tmp_path, capsys):
    pytest.importorskip("pytorch_optimizer")
    rate = LogUniform(low=1e-3, high=1e-2)
    arms = (Arm(name="adamw", learning_rate=rate), Arm(name="lion", optimizer=Optimizer("lion", lr=1e-3)))
    study = a_study(arms=arms)
    first = run(study, storage=tmp_path)
    assert first.study.arm("lion").optimizer.version.startswith("pytorch-optimizer ")
    assert "from before versions" not in capsys.readouterr().out
    old = Results(tmp_path / "old" / "small")
    old.open(study, {})
    result = run(study, storage=tmp_path / "old")
    assert result.study.arm("lion") == study.arm("lion")
    assert result.trials.num_rows == first.trials.num_rows
    assert "of lion another version is no other trial" in " ".join(capsys.readouterr().out.split())
