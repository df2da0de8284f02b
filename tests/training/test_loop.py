"""The loop: the same bits for the same trial, paired arms, endings as values, test data read once."""

import pytest
import torch
from support.fake_backends import FlakyBackend, LateBackend
from support.small_study import SMALL_TASK
from support.trainings import small_trial, without_times

from qsgd_ray.circuits.backends.in_process import TorchBackend
from qsgd_ray.circuits.errors import CircuitError
from qsgd_ray.config import Perturbation
from qsgd_ray.config.trial import Trial
from qsgd_ray.outcome import Ending, Outcome
from qsgd_ray.training._state import fingerprint
from qsgd_ray.training.loop import run, train
from qsgd_ray.training.replica import Replica
from qsgd_ray.workloads import make_workload


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run_through(trial: Trial, report=lambda _: False, circuits=None) -> Outcome:
    return run(train(trial, make_workload(trial.workload), circuits), report)


CIRCUIT = Perturbation(source="circuit", lambda_=5.0, n_qubits=3)


@pytest.mark.parametrize("perturbation", [None, Perturbation(source="sine", lambda_=5.0), CIRCUIT])
def test_the_same_trial_gives_the_same_bits(perturbation):
    first, second = (run_through(small_trial(perturbation), circuits=TorchBackend()) for _ in range(2))
    assert first.ending is Ending.COMPLETED
    assert first.parameters_sha256 == second.parameters_sha256
    assert first.test_accuracy == second.test_accuracy
    assert [without_times(m) for m in first.measurements] == [without_times(m) for m in second.measurements]


def test_a_sampled_trial_repeats_bit_for_bit_and_its_lambda_falls():
    sampled = Perturbation(source="sampled", shots=20, lambda_=5.0, n_qubits=3)
    first, second = (run_through(small_trial(sampled)) for _ in range(2))
    assert first.parameters_sha256 == second.parameters_sha256
    falling = run_through(small_trial(sampled.model_copy(update={"schedule": "linear"})))
    assert first.parameters_sha256 != falling.parameters_sha256


def test_what_went_on_before_in_the_process_does_not_matter():
    first = run_through(small_trial())
    torch.manual_seed(1)
    torch.randn(100)
    assert run_through(small_trial()).parameters_sha256 == first.parameters_sha256


def test_seeds_and_perturbations_make_a_difference():
    outcomes = [
        run_through(small_trial()),
        run_through(small_trial(seed=8)),
        run_through(small_trial(Perturbation(source="sine", lambda_=5.0))),
        run_through(small_trial(CIRCUIT), circuits=TorchBackend()),
    ]
    assert len({outcome.parameters_sha256 for outcome in outcomes}) == 4


@pytest.mark.parametrize("source", ["zero", "sine", "circuit"])
def test_an_arm_with_lambda_zero_is_the_baseline_bit_for_bit(source):
    """So arms with the same seed share weights, data order and dropout (protocol, rules 4 and 10)."""
    perturbed = run_through(small_trial(Perturbation(source=source, lambda_=0.0)), circuits=TorchBackend())
    assert perturbed.parameters_sha256 == run_through(small_trial()).parameters_sha256


def test_an_epoch_is_measured_whole():
    outcome = run_through(small_trial(CIRCUIT), circuits=TorchBackend())
    steps = SMALL_TASK.train_size // SMALL_TASK.batch_size
    assert [(m.epoch, m.step) for m in outcome.measurements] == [(1, steps), (2, 2 * steps), (3, 3 * steps)]
    clocks = [m.wall_s for m in outcome.measurements]
    assert clocks == sorted(clocks)
    assert all(0 < m.circuit_wait_s < m.wall_s and m.n_circuits > 0 for m in outcome.measurements)
    assert all(0 < m.circuit_s <= m.circuit_wait_s for m in outcome.measurements), "in process they are waited for"
    assert all(m.evaluation_s > 0 for m in outcome.measurements)
    assert outcome.test_s > 0


def test_the_perturbation_is_measured_in_every_epoch_however_short():
    outcome = run_through(small_trial(Perturbation(source="sine")))
    assert all(0 < m.perturbation_norm < m.adam_step_norm for m in outcome.measurements)
    assert all(m.perturbation_norm is None for m in run_through(small_trial()).measurements)


def test_circuits_whose_engine_does_not_say_how_long_it_took_are_null_seconds():
    outcome = run_through(small_trial(CIRCUIT), circuits=LateBackend())
    assert [m.circuit_s for m in outcome.measurements] == [None] * 3
    assert run_through(small_trial()).measurements[-1].circuit_s == 0.0


def test_a_stop_ends_the_trial_at_that_epoch():
    outcome = run_through(small_trial(), report=lambda measurement: measurement.epoch == 2)
    assert outcome.ending is Ending.STOPPED_EARLY
    assert len(outcome.measurements) == 2
    assert outcome.test_accuracy is None


def test_a_stop_after_the_last_epoch_is_a_completed_trial():
    assert run_through(small_trial(), report=lambda m: m.epoch == 3).ending is Ending.COMPLETED


@pytest.mark.parametrize("source", ["sine", "circuit"])
def test_a_trial_that_diverges_keeps_what_it_measured_and_reads_no_test_data(source):
    far_too_much = Perturbation(source=source, lambda_=1e38, scope="all")
    outcome = run_through(small_trial(far_too_much), circuits=TorchBackend())
    assert outcome.ending is Ending.DIVERGED
    assert len(outcome.measurements) < 3
    assert outcome.test_accuracy is None
    assert outcome.error is None


def test_what_the_circuits_raise_is_raised():
    with pytest.raises(CircuitError, match="submission 3 failed"):
        run_through(small_trial(CIRCUIT), circuits=FlakyBackend(fail_on=3, at="result"))


def test_test_data_is_read_only_where_the_trial_says_so():
    read = []
    workload = make_workload(SMALL_TASK)
    evaluate = workload.evaluate
    workload.evaluate = lambda model, split, *place: read.append(split) or evaluate(model, split, *place)
    run(train(small_trial(reads_test=False), workload, None), lambda _: False)
    assert set(read) == {"validation"}
    run(train(small_trial(), workload, None), lambda _: False)
    assert read.count("test") == 1


def test_a_fingerprint_sees_one_bit():
    model = torch.nn.Linear(2, 2)
    before = fingerprint(model)
    with torch.no_grad():
        model.bias[0] = torch.nextafter(model.bias[0], torch.tensor(10.0))
    assert fingerprint(model) != before


def test_a_single_replica_sums_to_itself_and_decides_for_itself():
    assert Replica().all_reduce_sum(1.5, 2.0) == [1.5, 2.0]
    assert Replica().broadcast(True)
    assert not Replica().broadcast(False)
