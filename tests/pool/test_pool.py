"""Circuits on Ray actors: the same answers as at home, cut over the actors, kept, and errors in one line."""

import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import ray
import torch
from support.pool_requests import KIND, SPEC, angles

from qsgd_ray.circuits.backends.in_process import TorchBackend
from qsgd_ray.circuits.backends.protocol import Sampling
from qsgd_ray.circuits.errors import CircuitError, CircuitsLost
from qsgd_ray.circuits.select.auto import AutoBackend
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.pool._actor import CircuitActor
from qsgd_ray.pool._request import CircuitRequest
from qsgd_ray.pool.pool import CircuitPool
from qsgd_ray.pool.router import Router
from qsgd_ray.study._stages import POOL_START_TIMEOUT_S


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


def test_angles_of_another_shape_are_refused_where_they_are_asked(pool):
    """The actor would see only their number."""
    with pytest.raises(CircuitError, match=r"^angles: got shape \(4, 3, 2, 2\)"):
        pool.backend().submit(SPEC, angles(4).transpose(1, 2))


def test_keys_that_change_after_they_were_asked_change_no_draw(pool):
    sampling, keys_b = Sampling(50, None), torch.arange(5)
    pending = pool.backend().sampled(sampling).submit(SPEC, angles(5), "z", keys_b)
    assert not any(np.shares_memory(part.request.keys_b, keys_b.numpy()) for part in pending._parts)


def test_a_circuit_beyond_the_nodes_memory_is_refused_by_the_actor():
    actor = CircuitActor(torch.get_num_threads(), "auto", b"secret")
    with pytest.raises(CircuitError, match="bytes"):
        actor.answer(CircuitRequest(CircuitSpec(60, depth=30), np.zeros((1, 30, 60, 2)), "z", None, None, 1))


@pytest.mark.parametrize("sampling", [None, Sampling(30, None)])
def test_a_batch_is_cut_over_the_actors_and_the_bits_stay(made, sampling):
    backend = made(3).backend()
    keys_b = torch.arange(50)
    near = AutoBackend() if sampling is None else AutoBackend().sampled(sampling)
    far = backend if sampling is None else backend.sampled(sampling)
    kind = CircuitRequest(SPEC, angles(50).numpy(), "z", keys_b.numpy(), sampling, 50).kind
    far._circuit_s[kind] = 0.1  # so long a circuit, that every actor gets its share
    pending = far.submit(SPEC, angles(50), "z", keys_b)
    assert len(pending._parts) == 3
    assert torch.equal(pending.result(), near.submit(SPEC, angles(50), "z", keys_b).result())
    assert far._circuit_s[kind] != 0.1  # measured


def test_small_batches_go_to_one_actor_and_large_ones_to_all(pool):
    backend = pool.backend()
    began = time.monotonic()
    while len(backend.router.membership.refresh()) < 2:  # on a busy machine one may be late
        assert time.monotonic() - began < 60
    few = backend.submit(SPEC, angles(4))
    large = CircuitSpec(16, depth=6, entangle="all")
    many = backend.submit(large, torch.zeros(large.angles_shape(64), dtype=torch.float64))
    assert [len(pending._parts) for pending in (few, many)] == [1, 2]
    assert backend.submit(SPEC, angles(0)).result().shape == (0, 3)


def test_exact_answers_are_kept_and_not_asked_for_again(pool, monkeypatch):
    backend = pool.backend()
    first = backend.submit(SPEC, angles(5)).result()
    monkeypatch.setattr(Router, "next_member", lambda *_: pytest.fail("it was asked"))
    again = backend.submit(SPEC, angles(5)).result()
    assert torch.equal(again, first)
    again.zero_()
    assert torch.equal(backend.submit(SPEC, angles(5)).result(), first)


ROOM = 5 * (2 * 3 * 2 + 3) * 8  # angles and answers of five circuits


def test_the_cache_is_bounded_and_tells_circuits_apart(pool, monkeypatch):
    monkeypatch.setattr("qsgd_ray.pool._cache._CACHE_BYTES", ROOM)
    backend = pool.backend()
    for spec, seed, readout in ((SPEC, 0, "z"), (SPEC, 1, "z"), (replace(SPEC, entangle="ring"), 0, "z")):
        expected = TorchBackend().submit(spec, angles(5, seed), readout).result()
        torch.testing.assert_close(backend.submit(spec, angles(5, seed), readout).result(), expected)
        assert backend._cache.n_bytes == ROOM
        assert len(backend._cache) == 1


def test_sampled_answers_are_not_kept(pool):
    backend = pool.backend().sampled(Sampling(50, None))
    backend.submit(SPEC, angles(5), "z", torch.arange(5)).result()
    assert len(backend._cache) == 0


def test_a_pool_of_another_engine_answers_by_it_and_does_not_sample(made):
    pytest.importorskip("qiskit_aer")
    backend = made(1, engine="aer").backend()
    near = TorchBackend().submit(SPEC, angles(3)).result()
    torch.testing.assert_close(backend.submit(SPEC, angles(3)).result(), near, rtol=0, atol=1e-12)
    with pytest.raises(CircuitError, match="got AerBackend, which does not sample"):
        backend.sampled(Sampling(5, None)).submit(SPEC, angles(3), "z", torch.arange(3)).result()


def test_a_pool_that_the_cluster_cannot_hold_says_so(cluster):
    pool = CircuitPool(n_actors=1, cpus_per_actor=10_000, timeout_s=60)
    with pytest.raises(CircuitsLost, match=r"1 of 1 circuit actors did not start within 0\.5 s"):
        pool.wait_until_ready(timeout_s=0.5)
    pool.close()


def test_an_actor_that_is_killed_at_its_first_answer_starts_again(made, tmp_path):
    class Mortal(CircuitActor):
        def answer(self, request):
            with (tmp_path / "answers").open("a") as written:
                written.write("x")
            if (tmp_path / "answers").stat().st_size == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().answer(request)

    backend = made(1, actor=Mortal).backend()
    assert (tmp_path / "answers").read_text() == "xx"
    assert torch.equal(backend.submit(SPEC, angles(3)).result(), TorchBackend().submit(SPEC, angles(3)).result())


def test_actors_that_die_of_every_answer_are_one_clear_line(cluster):
    class Dying(CircuitActor):
        def answer(self, request):
            os.kill(os.getpid(), signal.SIGKILL)

    pool = CircuitPool(1, 0.1, timeout_s=60, actor=Dying)
    with pytest.raises(CircuitsLost, match=r"^a circuit actor does not start: .*") as error:
        pool.wait_until_ready(timeout_s=POOL_START_TIMEOUT_S)
    assert "\n" not in str(error.value)
    pool.close()


def test_a_long_batch_is_cut_so_that_no_part_is_taken_to_hang(pool):
    backend = pool.backend()
    backend.router.timeout_s = 10
    backend._circuit_s[KIND] = 0.5  # 20 s in all, of which one part may take 1
    assert len(backend.submit(SPEC, angles(40))._parts) == 20


def test_an_actor_that_cannot_be_made_is_one_clear_line(cluster):
    class Broken(CircuitActor):
        def __init__(self, *made):
            raise OSError("no engine here")

    pool = CircuitPool(1, 0.1, timeout_s=60, actor=Broken)
    with pytest.raises(CircuitsLost, match=r"a circuit actor does not start: .*no engine here") as error:
        pool.wait_until_ready(timeout_s=POOL_START_TIMEOUT_S)
    assert "\n" not in str(error.value)
    pool.close()
