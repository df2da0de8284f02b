"""Circuits on Ray actors: the same answers as at home, errors in one line, and no hang when an actor dies."""

import os
import signal
import socket
import time
from dataclasses import replace

import numpy as np
import psutil
import pytest
import ray
import torch

from qsgd_ray.circuits.auto import AutoBackend
from qsgd_ray.circuits.backends import CircuitError, CircuitsLost, Sampling
from qsgd_ray.circuits.in_process import TorchBackend
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config import Resources
from qsgd_ray.distributed import group_timeout_s
from qsgd_ray.pool.actor import CircuitActor
from qsgd_ray.pool.asked import Asked
from qsgd_ray.pool.backend import IN_FLIGHT, Member, PoolBackend, longest_wait_s
from qsgd_ray.pool.circuit_pool import CircuitPool
from qsgd_ray.pool.door import Address, Line, LineBroken

SPEC = CircuitSpec(3, depth=2)
KIND = Asked(SPEC, np.zeros(SPEC.angles_shape(1)), "z", None, None, 1).kind


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
    actor = CircuitActor(torch.get_num_threads(), "auto", b"secret")
    with pytest.raises(CircuitError, match="bytes"):
        actor.answer(Asked(CircuitSpec(60, depth=30), np.zeros((1, 30, 60, 2)), "z", None, None, 1))


def test_an_actor_killed_before_its_answer_is_restarted_and_answers(cluster):
    pool = CircuitPool(n_actors=1, cpus_per_actor=0.5, timeout_s=60)
    pool.wait_until_ready(timeout_s=60)
    backend = pool.backend()
    process = ray.get(backend.roster.members()[0].__ray_call__.remote(lambda _: os.getpid()))
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


def hanging(mark, always=False):
    """An actor that never answers a batch of seven; once only, unless always."""

    class Hanging(CircuitActor):
        def answer(self, asked):
            if asked.of == 7 and (always or not mark.exists()):
                mark.touch()
                self._began = time.monotonic()
                time.sleep(3600)
            return super().answer(asked)

    return Hanging


@pytest.fixture
def made(cluster):
    """Pools that are closed again."""
    pools = []

    def make(n_actors=1, timeout_s=60, **options):
        pools.append(CircuitPool(n_actors, 0.1, timeout_s, **options))
        pools[-1].wait_until_ready(timeout_s=60)
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def test_an_actor_that_hangs_is_ended_and_another_answers(made, tmp_path):
    backend = made(2, timeout_s=8, actor=hanging(tmp_path / "mark")).backend()
    began = time.monotonic()
    assert torch.equal(backend.submit(SPEC, angles(7)).result(), TorchBackend().submit(SPEC, angles(7)).result())
    assert 8 < time.monotonic() - began < 30
    assert (tmp_path / "mark").exists()


def test_actors_that_always_hang_are_one_clear_error_in_bounded_time(made, tmp_path):
    backend = made(1, timeout_s=1, actor=hanging(tmp_path / "mark", always=True)).backend()
    began = time.monotonic()
    with pytest.raises(CircuitsLost, match=r" 1 s \(tried for at most 64 s\)$"):
        backend.submit(SPEC, angles(7)).result()
    assert time.monotonic() - began < 60
    patient = replace(backend, timeout_s=60)
    assert torch.equal(patient.submit(SPEC, angles(3)).result(), TorchBackend().submit(SPEC, angles(3)).result())


def test_an_actor_that_is_long_in_coming_back_holds_nothing_up_while_another_is_there(made, tmp_path):
    """As with a node that is gone: the actor starts again only when there is a new one."""

    class Late(CircuitActor):
        def __init__(self, *arguments):
            with (tmp_path / "starts").open("a") as starts:
                starts.write("x")
            if (tmp_path / "starts").stat().st_size > 2:
                time.sleep(25)
            super().__init__(*arguments)

    pool = made(2, timeout_s=60, actor=Late)
    backend = pool.backend()
    members = list(pool._roster.members.values())
    for batch in range(1, 4):
        backend.submit(SPEC, angles(batch)).result()
    pending = [backend.submit(SPEC, angles(batch)) for batch in (4, 5)]
    ray.kill(members[0], no_restart=False)
    began = time.monotonic()
    for batch, asked in zip((4, 5), pending, strict=True):
        assert torch.equal(asked.result(), TorchBackend().submit(SPEC, angles(batch)).result())
    for batch in range(6, 20):
        assert torch.equal(
            backend.submit(SPEC, angles(batch)).result(), TorchBackend().submit(SPEC, angles(batch)).result()
        )
    assert time.monotonic() - began < 15


def test_an_actor_that_others_keep_busy_is_no_hang(made):
    class Slow(CircuitActor):
        def answer(self, asked):
            self._began = time.monotonic()
            time.sleep(2)
            return super().answer(asked)

    backend = made(1, timeout_s=3, actor=Slow).backend()
    pending = [backend.submit(SPEC, angles(2, seed)) for seed in range(4)]  # the last waits for 8 s
    for seed, own in enumerate(pending):
        assert torch.equal(own.result(), TorchBackend().submit(SPEC, angles(2, seed)).result())


@pytest.mark.parametrize("sampling", [None, Sampling(30, None)])
def test_a_batch_is_cut_over_the_actors_and_the_bits_stay(made, sampling):
    backend = made(3).backend()
    keys_b = torch.arange(50)
    near = AutoBackend() if sampling is None else AutoBackend().sampled(sampling)
    far = backend if sampling is None else backend.sampled(sampling)
    kind = Asked(SPEC, angles(50).numpy(), "z", keys_b.numpy(), sampling, 50).kind
    far._seconds[kind] = 0.1  # so long a circuit, that every actor gets its share
    pending = far.submit(SPEC, angles(50), "z", keys_b)
    assert len(pending._parts) == 3
    assert torch.equal(pending.result(), near.submit(SPEC, angles(50), "z", keys_b).result())
    assert far._seconds[kind] != 0.1  # measured


def test_small_batches_go_to_one_actor_and_large_ones_to_all(pool):
    backend = pool.backend()
    began = time.monotonic()
    while len(backend.roster.newest()) < 2:  # on a busy machine one may be late
        assert time.monotonic() - began < 60
    few = backend.submit(SPEC, angles(4))
    large = CircuitSpec(12, depth=6, entangle="all")
    many = backend.submit(large, torch.zeros(large.angles_shape(64), dtype=torch.float64))
    assert [len(pending._parts) for pending in (few, many)] == [1, 2]
    assert backend.submit(SPEC, angles(0)).result().shape == (0, 3)


def test_exact_answers_are_kept_and_not_asked_for_again(pool, monkeypatch):
    backend = pool.backend()
    first = backend.submit(SPEC, angles(5)).result()
    monkeypatch.setattr(PoolBackend, "next_member", lambda *_: pytest.fail("it was asked"))
    again = backend.submit(SPEC, angles(5)).result()
    assert torch.equal(again, first)
    again.zero_()
    assert torch.equal(backend.submit(SPEC, angles(5)).result(), first)


ROOM = 5 * (2 * 3 * 2 + 3) * 8  # angles and answers of five circuits


def test_the_cache_is_bounded_and_tells_circuits_apart(pool, monkeypatch):
    monkeypatch.setattr("qsgd_ray.pool.answer_cache.CACHE_BYTES", ROOM)
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


def test_no_more_than_some_calls_are_under_way(pool):
    backend = pool.backend()
    pending = [backend.submit(SPEC, angles(3, seed)) for seed in range(40)]
    assert all(line.under_way <= IN_FLIGHT for line in backend._lines.values())
    for seed, own in enumerate(pending):
        assert torch.equal(own.result(), TorchBackend().submit(SPEC, angles(3, seed)).result())
    assert all(line.under_way == 0 for line in backend._lines.values())


def test_without_a_line_ray_s_own_calls_answer(pool, monkeypatch):
    monkeypatch.setattr(PoolBackend, "line", lambda *_: None)
    backend = pool.backend()
    pending = [backend.submit(SPEC, angles(3, seed)) for seed in range(40)]
    assert len(backend._in_flight) <= 2 * IN_FLIGHT
    for seed, own in enumerate(pending):
        assert torch.equal(own.result(), TorchBackend().submit(SPEC, angles(3, seed)).result())
    assert backend._in_flight == []


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


@pytest.fixture
def silent():
    """The address of somebody who listens and never answers, as a machine that is gone does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Address("127.0.0.1", listener.getsockname()[1])


def test_an_actor_that_moved_without_a_word_is_asked_again_where_it_is_now(made, silent):
    """The line still leads to where it was; nobody there says that it is gone, and it is not killed where it is."""
    backend = made(1, timeout_s=2).backend()
    backend.submit(SPEC, angles(2)).result()
    born = ray.get(backend.roster.members()[0].__ray_call__.remote(lambda actor: actor._born))
    backend._lines[0] = Line(silent, b"any")
    assert torch.equal(backend.submit(SPEC, angles(3)).result(), TorchBackend().submit(SPEC, angles(3)).result())
    assert ray.get(backend.roster.members()[0].__ray_call__.remote(lambda actor: actor._born)) == born


def test_a_door_that_cannot_be_reached_is_not_tried_at_every_step(made, monkeypatch, caplog):
    backend, tried = made(1).backend(), []

    def unreachable(*_):
        tried.append(1)
        raise LineBroken("timed out")

    monkeypatch.setattr("qsgd_ray.pool.backend.Line", unreachable)
    for seed in range(5):
        near = TorchBackend().submit(SPEC, angles(3, seed)).result()
        assert torch.equal(backend.submit(SPEC, angles(3, seed)).result(), near)
    assert len(tried) == 1
    assert [record.message for record in caplog.records if "no direct line to circuit actor 0" in record.message]


def test_a_long_batch_is_cut_so_that_no_part_is_taken_to_hang(pool):
    backend = replace(pool.backend(), timeout_s=10)
    backend._seconds[KIND] = 0.5  # 20 s in all, of which one part may take 1
    assert len(backend.submit(SPEC, angles(40))._parts) == 20


def test_an_old_lines_failure_leaves_the_new_line_alone(pool, silent):
    backend = pool.backend()
    backend.submit(SPEC, angles(2)).result()
    ((number, line),) = backend._lines.items()
    member = Member(number, backend.roster.members()[number])
    backend.hang_up(member, Line(silent, b"old"))
    assert backend._lines == {number: line}
    backend.hang_up(member, line)
    assert backend._lines == {}


def test_what_is_asked_and_not_collected_does_not_stay(pool):
    backend = pool.backend()
    backend.submit(SPEC, angles(2)).result()
    for seed in range(20):
        backend.submit(SPEC, angles(2, 100 + seed))
    backend.submit(SPEC, angles(2, 500)).result()
    backend.submit(SPEC, angles(2, 501)).result()
    assert sum(len(line._arrived) + len(line._unwanted) for line in backend._lines.values()) <= IN_FLIGHT


def test_an_actor_that_cannot_be_made_is_one_clear_line(cluster):
    class Broken(CircuitActor):
        def __init__(self, *made):
            raise OSError("no engine here")

    pool = CircuitPool(1, 0.1, timeout_s=60, actor=Broken)
    with pytest.raises(CircuitsLost, match=r"a circuit actor does not start: .*no engine here") as error:
        pool.wait_until_ready(timeout_s=60)
    assert "\n" not in str(error.value)
    pool.close()


def test_whatever_happens_an_answer_or_an_error_comes_before_the_replicas_give_up():
    """Rank 0 asks, the others wait for it in a collective."""
    assert longest_wait_s(60) == 300
    for timeout_s in (1, 60, 3600):
        assert group_timeout_s(Resources(circuit_timeout_s=timeout_s)) > longest_wait_s(timeout_s) + 60


def test_the_secret_is_not_told(pool):
    assert "secret" not in repr(pool.backend())
