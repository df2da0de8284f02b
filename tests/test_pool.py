"""Circuits on Ray actors: the same answers as at home, errors in one line, and no hang when an actor dies."""

import os
import signal

import psutil
import pytest
import ray
import torch

from qsgd_ray.circuits.auto import AutoBackend
from qsgd_ray.circuits.backends import CircuitError, CircuitsLost, Sampling
from qsgd_ray.circuits.in_process import TorchBackend
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.pool import CircuitActor, CircuitPool

SPEC = CircuitSpec(3, depth=2)


def angles(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(
        n, SPEC.depth, SPEC.n_qubits, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


@pytest.fixture(scope="module")
def pool(cluster):
    pool = CircuitPool(n_actors=2, cpus_per_actor=0.5, timeout_s=60)
    pool.wait_until_ready(timeout_s=60)
    yield pool
    pool.close()


def test_the_pool_answers_as_a_local_backend_does_bit_for_bit(pool):
    backend, local = pool.backend(), TorchBackend()
    pending = [(backend.submit(SPEC, angles(5, seed)), local.submit(SPEC, angles(5, seed))) for seed in range(6)]
    for far, near in pending:
        assert torch.equal(far.result(), near.result())


def test_the_pool_samples_as_a_local_backend_does_bit_for_bit(pool):
    sampling, keys_b = Sampling(50, None), torch.arange(5)
    far = pool.backend().sampled(sampling)
    near = AutoBackend().sampled(sampling).submit(SPEC, angles(5), "z", keys_b).result()
    for _ in range(3):  # whichever actor answers
        assert torch.equal(far.submit(SPEC, angles(5), "z", keys_b).result(), near)
    assert not torch.equal(pool.backend().submit(SPEC, angles(5)).result(), near)


def test_a_backend_travels_to_other_processes(pool):
    @ray.remote(num_cpus=0)
    def ask(backend):
        return backend.submit(SPEC, angles(4)).result().numpy()

    assert (ray.get(ask.remote(pool.backend())) == TorchBackend().submit(SPEC, angles(4)).result().numpy()).all()


def test_what_the_backend_refuses_is_one_clear_error(pool):
    poisoned = angles(2)
    poisoned[0, 0, 0, 0] = float("nan")
    with pytest.raises(CircuitError, match=r"a circuit actor failed: .*finite"):
        pool.backend().submit(SPEC, poisoned).result()


def test_a_circuit_beyond_the_nodes_memory_is_refused_by_the_actor():
    actor = CircuitActor(threads=torch.get_num_threads())
    with pytest.raises(CircuitError, match="bytes"):
        actor.answer(CircuitSpec(60, depth=30), torch.zeros(1, 30, 60, 2, dtype=torch.float64).numpy())


def test_an_actor_killed_before_its_answer_is_restarted_and_answers(cluster):
    pool = CircuitPool(n_actors=1, cpus_per_actor=0.5, timeout_s=60)
    pool.wait_until_ready(timeout_s=60)
    backend = pool.backend()
    process = ray.get(backend.actors[0].__ray_call__.remote(lambda _: os.getpid()))
    os.kill(process, signal.SIGKILL)
    assert torch.equal(backend.submit(SPEC, angles(3)).result(), TorchBackend().submit(SPEC, angles(3)).result())
    assert not psutil.pid_exists(process)
    pool.close()


def test_a_pool_that_was_closed_is_one_clear_error(cluster):
    pool = CircuitPool(n_actors=1, cpus_per_actor=0.5, timeout_s=60)
    pool.wait_until_ready(timeout_s=60)
    backend = pool.backend()
    pool.close()
    with pytest.raises(CircuitsLost, match="a circuit actor was lost"):
        backend.submit(SPEC, angles(1)).result()


def test_an_answer_that_does_not_come_in_time_is_one_clear_error(pool):
    slow = pool.backend()
    slow.timeout_s = 1e-9
    with pytest.raises(CircuitsLost, match="did not answer within 1e-09 s"):
        slow.submit(CircuitSpec(14, depth=2), torch.zeros(64, 2, 14, 2, dtype=torch.float64)).result()


def test_a_pool_that_the_cluster_cannot_hold_says_so(cluster):
    pool = CircuitPool(n_actors=1, cpus_per_actor=10_000, timeout_s=60)
    with pytest.raises(CircuitsLost, match=r"1 of 1 circuit actors did not start within 0\.5 s"):
        pool.wait_until_ready(timeout_s=0.5)
    pool.close()
