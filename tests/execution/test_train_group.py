"""Under Ray Train: equal replicas, rows at once, failed and lost trials told apart, nothing open to the network."""

import os
import pickle
import signal

import psutil
import pytest
from ray.train import ControllerError, WorkerGroupError
from support.outcomes import measured
from support.processes import listening_elsewhere, name_of
from support.run_contexts import CIRCUIT, make_context, numbered_trial, quiet, rows_of, timeless
from support.small_study import a_study

from qsgd_ray.circuits.backends.in_process import TorchBackend
from qsgd_ray.config import StudyError
from qsgd_ray.config.loading import with_overrides
from qsgd_ray.execution.preflight import _logical_cpus, require_runnable, shortage
from qsgd_ray.execution.train_group import ATTEMPTS, _require_equal_replicas, run_trials
from qsgd_ray.outcome import Ending, Outcome
from qsgd_ray.pool.pool import CircuitPool
from qsgd_ray.study._stages import POOL_START_TIMEOUT_S
from qsgd_ray.training.loop import run, train
from qsgd_ray.training.replica import Replica
from qsgd_ray.workloads import make_workload

TRIALS = [numbered_trial(0), numbered_trial(1, CIRCUIT)]


@pytest.fixture(scope="module")
def circuits(cluster):
    pool = CircuitPool(n_actors=1, cpus_per_actor=0.5, timeout_s=60)
    pool.wait_until_ready(timeout_s=POOL_START_TIMEOUT_S)
    yield pool.backend()
    pool.close()


@pytest.fixture(scope="module")
def undisturbed(cluster, circuits, tmp_path_factory) -> dict[str, dict]:
    context = make_context(tmp_path_factory.mktemp("undisturbed") / "small", cluster, circuits=circuits)
    run_trials(TRIALS, context)
    return {trial_id: timeless(row) for trial_id, row in rows_of(context).items()}


def test_two_replicas_end_with_equal_bits_and_train_what_one_trains(undisturbed):
    """`_require_equal_replicas` compares every bit inside the workers: a completed row says that they were equal."""
    for trial in TRIALS:
        row = undisturbed[trial.trial_id]
        assert row["ending"] == Ending.COMPLETED
        alone = run(train(trial, make_workload(trial.workload), TorchBackend()), quiet)
        assert row["train_loss"] == pytest.approx(alone.measurements[-1].train_loss, rel=1e-4)
        assert row["test_loss"] == pytest.approx(alone.test_loss, rel=1e-4)
        assert row["n_circuits"] == alone.measurements[-1].n_circuits


class Grudging:
    """Circuits of the usual depth are answered, others raise."""

    def __init__(self, inner) -> None:
        self.inner = inner

    def submit(self, spec, angles_bdnr, readout="z", keys_b=None):
        if spec.depth != CIRCUIT.depth:
            raise ZeroDivisionError("planted")
        return self.inner.submit(spec, angles_bdnr, readout, keys_b)


def test_failed_and_lost_trials_are_told_apart_and_the_others_end_as_if_undisturbed(
    cluster, circuits, undisturbed, tmp_path
):
    """The second trial loses a process once, the third diverges on both replicas, the last one's circuits raise."""
    died, seen = tmp_path / "died", tmp_path / "listening"

    def die_once(trial, measurement):
        seen.write_text("\n".join(listening_elsewhere(psutil.Process())) or "loopback only")
        if trial.number == 1 and not died.exists():
            died.write_text("once")
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    diverging = numbered_trial(2, CIRCUIT.model_copy(update={"lambda_": 1e38}))
    broken = numbered_trial(3, CIRCUIT.model_copy(update={"depth": 3}))
    context = make_context(tmp_path / "small", cluster, circuits=Grudging(circuits), report=die_once)
    run_trials([*TRIALS, diverging, broken], context)
    rows = {trial_id: timeless(row) for trial_id, row in rows_of(context).items()}
    failed, diverged = rows.pop(broken.trial_id), rows.pop(diverging.trial_id)
    assert died.exists()
    assert rows == undisturbed
    assert (diverged["ending"], diverged["error"], diverged["test_accuracy"]) == (Ending.DIVERGED, None, None)
    assert failed["ending"] == Ending.FAILED
    assert "ZeroDivisionError: planted" in failed["error"]
    assert "in submit" in failed["error"], "the traceback is kept"
    assert seen.read_text() == "loopback only"


def test_a_failed_trial_does_not_keep_the_next_from_running(cluster, tmp_path, monkeypatch):
    from qsgd_ray.execution import train_group as distributed

    error = distributed._TrialError("Traceback ...", measurements=(measured(1, 0.5), measured(2, 0.6)))

    def fit(trials, context):
        if trials[0].number == 0:
            raise WorkerGroupError("raised", {0: error})
        context.results.write(trials[0], Outcome(Ending.COMPLETED))

    monkeypatch.setattr(distributed, "_fit", fit)
    context = make_context(tmp_path / "small", cluster)
    run_trials([numbered_trial(0), numbered_trial(1)], context)
    failed, completed = rows_of(context).values()
    assert (failed["ending"], completed["ending"]) == (Ending.FAILED, Ending.COMPLETED)
    assert (failed["epochs_run"], failed["error"]) == (2, "rank 0: Traceback ..."), "what was measured is kept"


def gone(kind: str) -> Exception:
    from qsgd_ray.execution import train_group as distributed

    if kind == "circuits":
        return WorkerGroupError("raised", {1: distributed._TrialError("CircuitsLost: ...", lost=True)})
    return ControllerError(RuntimeError("no placement group"))


@pytest.mark.parametrize("kind", ["circuits", "controller"])
def test_a_trial_that_lost_its_circuits_or_its_controller_is_tried_again(cluster, tmp_path, monkeypatch, kind):
    from qsgd_ray.execution import train_group as distributed

    fits = []

    def fit(trials, context):
        fits.append(trials)
        if len(fits) < ATTEMPTS:
            raise gone(kind)
        context.results.write(trials[0], Outcome(Ending.COMPLETED))

    monkeypatch.setattr(distributed, "_fit", fit)
    context = make_context(tmp_path / "small", cluster)
    run_trials([numbered_trial(0)], context)
    (row,) = rows_of(context).values()
    assert row["ending"] == Ending.COMPLETED


def test_what_a_trial_raised_survives_the_way_to_the_driver():
    from qsgd_ray.execution.train_group import _TrialError

    sent = _TrialError("told", True, (measured(1, 0.5),))
    came = pickle.loads(pickle.dumps(sent))
    assert (str(came), came.lost, came.measurements) == ("told", True, sent.measurements)


def test_a_trial_that_dies_every_time_is_lost_and_gets_its_row(cluster, tmp_path, monkeypatch):
    from qsgd_ray.execution import train_group as distributed

    fits = []

    def die(trials, context):
        fits.append(trials)
        raise WorkerGroupError(
            "died", {0: distributed.RayActorError(), 1: distributed._TrialError("connection closed")}
        )

    monkeypatch.setattr(distributed, "_fit", die)
    context = make_context(tmp_path / "small", cluster)
    run_trials([numbered_trial(0)], context)
    assert len(fits) == ATTEMPTS
    (row,) = rows_of(context).values()
    assert row["ending"] == Ending.LOST


def test_rows_that_are_there_are_left_alone(cluster, tmp_path, monkeypatch):
    from qsgd_ray.execution import train_group as distributed

    context = make_context(tmp_path / "small", cluster)
    context.results.write(numbered_trial(0), Outcome(Ending.COMPLETED))
    fits = []

    def finish(trials, context):
        fits.append([trial.number for trial in trials])
        context.results.write(trials[0], Outcome(Ending.COMPLETED))

    monkeypatch.setattr(distributed, "_fit", finish)
    run_trials([numbered_trial(0), numbered_trial(1), numbered_trial(2)], context, trials_per_fit=1)
    assert fits == [[1], [2]]


class Drifting(Replica):
    """Three replicas of which the last has other bits."""

    def all_reduce_sum(self, *values):
        return [2 * values[0] + 1]


def test_replicas_that_drift_apart_are_refused():
    outcome = Outcome(Ending.COMPLETED, parameters_sha256="ff" * 32)
    _require_equal_replicas(outcome, Replica())
    with pytest.raises(RuntimeError, match="replica 0 ended with parameters that differ"):
        _require_equal_replicas(outcome, Drifting(0, 3))


def test_the_private_cluster_listens_on_loopback_only(cluster):
    everybody = psutil.Process().children(recursive=True)
    names = {name_of(process) for process in everybody}
    assert {"gcs_server", "raylet"} <= names
    assert not [address for process in everybody for address in listening_elsewhere(process)]


def test_a_private_cluster_announces_what_the_study_needs():
    sine = a_study()
    circuit = with_overrides(sine, ["arms.sine.perturbation.source=circuit"])
    assert _logical_cpus(sine, cores=2) == 2
    assert _logical_cpus(circuit, cores=2) == 3
    assert _logical_cpus(with_overrides(circuit, ["confirm.workers=8"]), cores=2) == 9
    # Tune's own share of a trial must fit beside the trial's group.
    assert _logical_cpus(with_overrides(sine, ["search.workers=2"]), cores=2) == 3
    assert _logical_cpus(with_overrides(circuit, ["resources.circuit_actors=null"]), cores=2) == 2
    assert _logical_cpus(with_overrides(circuit, ["resources.max_circuit_actors=3"]), cores=2) == 3


def test_what_a_cluster_lacks_is_told_with_the_kind_of_node(cluster):
    study = with_overrides(a_study(), ["arms.sine.perturbation.source=circuit", "confirm.workers=32"])
    assert shortage(study).startswith("The study waits for the cluster to grow: it needs 33 CPU (has ")
    on_nodes = with_overrides(study, ["resources.circuit_nodes=sim", "resources.worker_nodes=train"])
    assert "a node of the kind train, a node of the kind sim" in shortage(on_nodes)


def test_an_engine_that_is_not_installed_is_refused_in_one_line(monkeypatch):
    study = with_overrides(a_study(), ["arms.sine.perturbation.source=circuit", "resources.circuit_engine=aer"])
    require_runnable(study, None)
    monkeypatch.setattr("qsgd_ray.execution.requirements.find_spec", lambda name: None if name == "qiskit_aer" else 1)
    with pytest.raises(
        StudyError, match=r"resources\.circuit_engine: got a study that needs qiskit-aer, which this mac"
    ):
        require_runnable(study, None)
