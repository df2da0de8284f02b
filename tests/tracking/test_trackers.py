"""Trials as TensorBoard and MLflow show them: a run each, read back from their own files; a tracker fails no study."""

import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest
from support.command_line import command_output, said_by
from support.outcomes import measured
from support.own_metrics import ScoreTask
from support.places import STUDIES
from support.small_study import a_study

from qsgd_ray.config import StudyError
from qsgd_ray.config.loading import with_overrides
from qsgd_ray.config.trial import Trial, confirm_trials, search_trial
from qsgd_ray.execution.events import Event
from qsgd_ray.outcome import Ending, Outcome
from qsgd_ray.results import Results
from qsgd_ray.storage import storage_at
from qsgd_ray.tracking import selection as asked
from qsgd_ray.tracking._records import metric_names, numbers, parameters
from qsgd_ray.tracking._tensorboard import TensorBoard
from qsgd_ray.tracking.background import Tracking
from qsgd_ray.tracking.selection import TrackerChoice, choose_tracker
from qsgd_ray.tracking.tracker import _record, record_all

STUDY = with_overrides(a_study(), ["arms.sine.perturbation.entangle=ring"])
POINT = {"learning_rate": 2e-3}
SEARCHED = search_trial(STUDY, "sine", 0, POINT)
CONFIRMED, DIVERGED = confirm_trials(STUDY, "adamw", POINT)
CURVE = (measured(1, 0.5, perturbation_norm=0.25), measured(2, 0.75))
ENDS = {
    SEARCHED: Outcome(Ending.STOPPED_EARLY, CURVE[:1]),
    CONFIRMED: Outcome(Ending.COMPLETED, CURVE, test_accuracy=0.625, test_loss=0.5),
    DIVERGED: Outcome(Ending.DIVERGED),
}


@dataclass(frozen=True)
class Shown:
    """What a tracker's own files say of a trial; `curves`: by name the values by epoch."""

    ending: str
    parameters: dict[str, str]
    curves: dict[str, dict[int, float]]


@pytest.fixture
def results(tmp_path) -> Results:
    results = Results(tmp_path / "small")
    results.open(STUDY, {})
    for trial, outcome in ENDS.items():
        results.write(trial, outcome)
    return results


def shown_by_tensorboard(folder: Path) -> dict[str, Shown]:
    from tensorboardX.proto.event_pb2 import Event as Written
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    def records(path: Path):
        """TFRecord: length, its checksum, the record, its checksum."""
        content = path.read_bytes()
        while content:
            n = int.from_bytes(content[:8], "little")
            yield Written.FromString(content[12 : 12 + n])
            content = content[16 + n :]

    found = {}
    for place in (path for path in folder.iterdir() if path.is_dir()):
        (events,) = place.glob("events.out.tfevents.*")
        curves, told, ending = {}, {}, ""
        for event in records(events):
            for value in event.summary.value:
                if value.tag == "_hparams_/session_start_info":
                    data = HParamsPluginData.FromString(value.metadata.plugin_data.content)
                    for name, parameter in data.session_start_info.hparams.items():
                        kind = parameter.WhichOneof("kind")
                        told[name] = getattr(parameter, kind)
                elif value.tag.startswith("ending"):
                    ending = value.tensor.string_val[0].decode()
                elif not value.tag.startswith("_hparams_"):
                    curves.setdefault(value.tag, {})[event.step] = value.simple_value
        found[place.name] = Shown(ending, told, curves)
    return found


def shown_by_mlflow(uri: str) -> dict[str, Shown]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("small").experiment_id
    found = {}
    for run in client.search_runs([experiment]):
        curves = {
            name: {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, name)}
            for name in run.data.metrics
        }
        trial_id = run.data.tags["qsgd_ray.trial_id"]
        assert (run.info.run_name, trial_id in found) == (trial_id, False)
        assert run.info.status in ("FINISHED", "FAILED")
        assert (run.info.status == "FAILED") == (run.data.tags["ending"] in ("diverged", "failed"))
        found[trial_id] = Shown(run.data.tags["ending"], run.data.params, curves)
    return found


@pytest.fixture(params=["tensorboard", "mlflow"])
def shown(request, results):
    """The tracker's name, and how to read what it shows of the results."""
    if request.param == "tensorboard":
        return request.param, lambda: shown_by_tensorboard(results.path / "tensorboard")
    pytest.importorskip("mlflow")
    return request.param, lambda: shown_by_mlflow(f"sqlite:///{results.path}/mlflow.db")


def require_all(found: dict[str, Shown]) -> None:
    """Every trial is there once, with its parameters, its curve and its ending."""
    assert found.keys() == {trial.trial_id for trial in ENDS}
    for trial, outcome in ENDS.items():
        one = found[trial.trial_id]
        assert one.ending == outcome.ending
        assert {name: str(value) for name, value in one.parameters.items()} == {
            name: str(float(value) if isinstance(one.parameters[name], float) else value)
            for name, value in parameters(trial).items()
        }
        accuracies = {m.epoch: m.validation_accuracy for m in outcome.measurements}
        assert one.curves.get("validation_accuracy", {}) == accuracies
        assert one.curves.get("perturbation_norm", {}) == ({1: 0.25} if accuracies else {}), "missing is no zero"
    assert found[CONFIRMED.trial_id].curves["test_accuracy"] == {2: 0.625}
    assert "test_accuracy" not in found[SEARCHED.trial_id].curves


def test_a_study_that_has_run_is_shown_whole_and_once(shown, results, monkeypatch, capsys):
    name, read_back = shown
    assert "3 trials are new in" in command_output(monkeypatch, capsys, "track", results.path, "--to", name)
    assert "0 trials are new in" in command_output(monkeypatch, capsys, "track", results.path, "--to", name)
    require_all(read_back())
    later = confirm_trials(STUDY, "sine", POINT)[0]
    results.write(later, Outcome(Ending.LOST, CURVE[:1]))
    assert "1 trial is new in" in command_output(monkeypatch, capsys, "track", results.path, "--to", name)
    results.write(later, Outcome(Ending.FAILED, CURVE))
    assert "1 trial is new in" in command_output(monkeypatch, capsys, "track", results.path, "--to", name)
    assert read_back()[later.trial_id].curves["validation_accuracy"] == {1: 0.5, 2: 0.75}


def test_events_of_a_running_study_show_the_same_though_some_are_lost_and_some_come_twice(shown, results):
    name, read_back = shown
    tracking = Tracking([choose_tracker(name, "--track", "small", results.storage)], results)
    for event in (
        Event(CONFIRMED, measurement=CURVE[0]),
        Event(SEARCHED, measurement=CURVE[0]),
        Event(CONFIRMED, ending=Ending.LOST),
        Event(CONFIRMED, measurement=CURVE[0]),
        Event(SEARCHED, ending=Ending.STOPPED_EARLY),
        Event(CONFIRMED, ending=Ending.COMPLETED),
    ):
        tracking.tell(event)
    assert tracking.finish() == []
    require_all(read_back())


def test_what_a_killed_study_left_of_a_trial_goes_when_it_is_run_again(shown, results):
    name, read_back = shown
    killed = choose_tracker(name, "--track", "small", results.storage).open()
    killed.begin(CONFIRMED)
    killed.log_epoch(CONFIRMED, 1, {"validation_accuracy": 0.125, "gone": 1.0})
    killed.close()
    tracking = Tracking([choose_tracker(name, "--track", "small", results.storage)], results)
    tracking.tell(Event(CONFIRMED, measurement=CURVE[0]))
    tracking.tell(Event(CONFIRMED, ending=Ending.COMPLETED))
    assert tracking.finish() == []
    require_all(read_back())
    assert "gone" not in read_back()[CONFIRMED.trial_id].curves


@dataclass
class Fragile:
    """Raises where it is told to; `waits`: never answers instead."""

    at: str
    heard: list[str] = field(default_factory=list)
    waits: threading.Event | None = None

    def _do(self, what: str) -> bool:
        if what == self.at:
            if self.waits:
                self.waits.wait()
            raise ValueError("planted\nin two lines")
        self.heard.append(what)
        return False

    def has(self, trial_id):
        return self._do("has")

    def begin(self, trial):
        self._do("begin")

    def log_epoch(self, trial, epoch, numbers):
        self._do("measured")

    def end(self, trial, ending, numbers):
        self._do("ended")

    def close(self):
        self._do("close")


@pytest.mark.parametrize("at", ["open", "has", "begin", "measured", "ended", "close"])
def test_a_tracker_that_raises_is_one_line_at_the_end_and_the_others_go_on(results, at):
    fragile, sound = Fragile(at), Fragile("never")
    both = [
        TrackerChoice("fragile", (lambda: fragile) if at != "open" else lambda: 1 / 0),
        TrackerChoice("sound", lambda: sound),
    ]
    tracking = Tracking(both, results)
    tracking.tell(Event(CONFIRMED, measurement=CURVE[0]))
    tracking.tell(Event(CONFIRMED, ending=Ending.COMPLETED))
    (told,) = tracking.finish()
    why = "ZeroDivisionError: division by zero" if at == "open" else "ValueError: planted in two lines"
    assert told == f"--track fragile: {why}; no row is missing for that"
    assert sound.heard[:4] == ["begin", "measured", "measured", "ended"]
    assert sound.heard[-1] == "close"


def test_a_tracker_that_never_answers_is_left_behind(results):
    waits = threading.Event()
    tracking = Tracking([TrackerChoice("mute", lambda: Fragile("begin", waits=waits))], results, patience_s=0.3)
    tracking.tell(Event(CONFIRMED, measurement=CURVE[0]))
    assert tracking.finish() == ["--track mute: no answer for 0.3 s; no row is missing for that"]
    waits.set()
    tracking._thread.join()


def test_nobody_asked_is_nothing_done(results):
    before = threading.active_count()
    tracking = Tracking([], results)
    tracking.tell(Event(CONFIRMED, measurement=CURVE[0]))
    assert (tracking.finish(), threading.active_count()) == ([], before)


@pytest.mark.parametrize(
    ("word", "place", "said"),
    [
        ("wandb", "here", "--track: got 'wandb'; allowed: tensorboard, tensorboard=FOLDER, mlflow, mlflow=URI"),
        ("tensorboard", "s3://b/x", "--track: got 'tensorboard' with results at s3://b/x; allowed: tensorboard=FOLDER"),
        ("mlflow", "s3://b/x", "--track: got 'mlflow' with results at s3://b/x; allowed: mlflow=URI"),
    ],
)
def test_a_tracker_that_is_none_or_has_no_place_is_one_line(monkeypatch, word, place, said):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(asked, "find_spec", lambda _: object())
    with pytest.raises(StudyError) as error:
        choose_tracker(word, "--track", "small", storage_at(place))
    assert str(error.value) == said


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_package_that_is_missing_is_one_line_before_anything_runs(monkeypatch, capsys, tmp_path, name):
    monkeypatch.setattr(asked, "find_spec", lambda _: None)
    study = STUDIES / "quick.py"
    code, told = said_by(monkeypatch, capsys, "run", study, "--storage", tmp_path, "--track", name)
    said = f"got '{name}'; allowed: a tracker that is installed (pip install 'qsgd-ray[{name}]')"
    assert (code, told) == (2, f"qsgd-ray: --track: {said}\n")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_one_line(results, monkeypatch, capsys):
    code, told = said_by(monkeypatch, capsys, "track", results.path, "--to", "tensorboard=/dev/null/x")
    assert (code, told.count("\n")) == (2, 1)
    assert told.startswith("qsgd-ray: --to tensorboard: allowed: a place that can be written (")


def test_mlflow_takes_its_uri_from_where_its_own_tools_do(monkeypatch, tmp_path):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/own.db")
    choose_tracker("mlflow", "--track", "small", storage_at("s3://b/x")).open()
    assert (tmp_path / "own.db").exists()


def test_parameters_are_what_a_trial_was_asked_for_and_nothing_that_is_off():
    told = parameters(SEARCHED)
    assert (told["arm.learning_rate"], told["arm.perturbation.rotations"], told["seed"]) == (2e-3, "ry,rz", 0)
    assert told["workload.model.d_model"] == 8
    assert "arm.perturbation.shots" not in told
    assert all(isinstance(value, str | int | float | bool) for value in told.values())


def test_numbers_are_what_is_there():
    row = asdict(CURVE[1]) | {"trial_id": "x", "number": 1, "seed": 2}
    assert numbers(row, SEARCHED)["validation_accuracy"] == 0.75
    assert not {"perturbation_norm", "trial_id", "number", "seed", "epoch"} & numbers(row, SEARCHED).keys()


def test_metrics_without_a_column_are_numbers_too():
    trial = SEARCHED.model_copy(update={"workload": ScoreTask(**SEARCHED.workload.model_dump())})
    assert metric_names(SEARCHED) == ["validation_accuracy", "test_accuracy", "validation_loss", "test_loss"]
    assert metric_names(trial) == ["validation_score", "test_score"]
    text = '{"validation": {"score": 3.5}, "test": {"score": null}}'
    row = {"trial_id": "x", "epoch": 2, "train_loss": 0.5, "metrics": text}
    assert numbers(row, trial) == {"train_loss": 0.5, "validation_score": 3.5}
    assert numbers(row, trial, ("elapsed_s",)) == {}
    assert numbers(row | {"metrics": '{"test": {"score": 2.0}}'}, trial, ("elapsed_s",)) == {"test_score": 2.0}
    assert numbers({"epoch": 2, "metrics": {"score": 3.0, "energy": None}}, trial) == {"validation_score": 3.0}


def test_rows_that_do_not_tell_their_trial_are_passed_over(tmp_path, results):
    import pyarrow.parquet as pq

    for file in (results.path / "trials").iterdir():
        pq.write_table(pq.read_table(file).drop_columns(["trial"]), file)
    assert record_all(TensorBoard(tmp_path / "none"), results.tables()) == 0


def test_a_record_goes_on_after_the_epochs_that_were_told(results):
    heard = Fragile("never")
    trial = Trial.model_validate_json(results.row(CONFIRMED.trial_id)["trial"])
    _record(heard, results.row(trial.trial_id), results.trajectory(trial.trial_id), n_logged=1)
    assert heard.heard == ["measured", "ended"]


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_tracker_beside_the_rows_follows_no_link_out(tmp_path, monkeypatch, name):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(asked, "find_spec", lambda _: object())
    place = tmp_path / "small"
    place.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (place / ("tensorboard" if name == "tensorboard" else "mlflow.db")).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StudyError, match="a link that leads out of the folder"):
        choose_tracker(name, "--track", "small", storage_at(place))


def test_tensorboard_writes_and_removes_nothing_behind_a_trials_link(tmp_path):
    pytest.importorskip("tensorboardX")
    outside = tmp_path / "outside"
    outside.mkdir()
    for file in ("events.out.tfevents.1", "ended.txt"):
        (outside / file).write_text("kept")
    tracker = TensorBoard(tmp_path / "tensorboard")
    trial = confirm_trials(a_study(), "adamw", {"learning_rate": 1e-3})[0]
    (tmp_path / "tensorboard" / trial.trial_id).symlink_to(outside)
    for use in (lambda: tracker.has(trial.trial_id), lambda: tracker.begin(trial)):
        with pytest.raises(StudyError, match="a link that leads out of the folder"):
            use()
    assert {file.name: file.read_text() for file in outside.iterdir()} == dict.fromkeys(
        ("events.out.tfevents.1", "ended.txt"), "kept"
    )
