"""A part of a batch whose actor dies, hangs or moves: the same answer, or one clear error within a bounded time."""

import itertools
import os
import signal
import threading
import time
from contextlib import suppress

import psutil
import pytest
import ray
import torch
from ray.exceptions import RayActorError
from support.pool_requests import KIND, SPEC, angles

from qsgd_ray.circuits.backends.in_process import TorchBackend
from qsgd_ray.circuits.errors import CircuitsLost
from qsgd_ray.config import Resources
from qsgd_ray.execution.train_group import _group_timeout_s
from qsgd_ray.pool._actor import CircuitActor
from qsgd_ray.pool._connection import Connection
from qsgd_ray.pool._pending import PendingPart, longest_wait_s
from qsgd_ray.pool.pool import CircuitPool
from qsgd_ray.study._stages import POOL_START_TIMEOUT_S


def hanging(mark, always=False):
    """An actor that never answers a batch of seven; once only, unless always."""

    class Hanging(CircuitActor):
        def answer(self, request):
            if request.batch_size == 7 and (always or not mark.exists()):
                mark.touch()
                self._call_began = time.monotonic()
                time.sleep(3600)
            return super().answer(request)

    return Hanging


def late(starts, after, seconds):
    """Actors that are long in starting, but for the first few starts; each writes a letter."""

    class Late(CircuitActor):
        def __init__(self, *arguments):
            with starts.open("a") as written:
                written.write("x")
            if starts.stat().st_size > after:
                time.sleep(seconds)
            super().__init__(*arguments)

    return Late


def test_an_actor_killed_before_its_answer_is_restarted_and_answers(cluster):
    pool = CircuitPool(n_actors=1, cpus_per_actor=0.5, timeout_s=60)
    pool.wait_until_ready(timeout_s=POOL_START_TIMEOUT_S)
    backend = pool.backend()
    process = ray.get(backend.router.membership.members()[0].__ray_call__.remote(lambda _: os.getpid()))
    os.kill(process, signal.SIGKILL)
    assert torch.equal(backend.submit(SPEC, angles(3)).result(), TorchBackend().submit(SPEC, angles(3)).result())
    assert not psutil.pid_exists(process)
    pool.close()


def wait_until_it_ended(actor):
    """Ray ends an actor in its own time."""
    began = time.monotonic()
    with suppress(RayActorError):
        while time.monotonic() - began < 60:
            ray.get(actor.load.remote(), timeout=60)
            time.sleep(0.02)


def test_a_pool_that_was_closed_is_one_clear_error(cluster):
    pool = CircuitPool(n_actors=1, cpus_per_actor=0.5, timeout_s=60)
    pool.wait_until_ready(timeout_s=POOL_START_TIMEOUT_S)
    backend = pool.backend()
    actor = backend.router.membership.members()[0]
    pool.close()
    wait_until_it_ended(actor)
    with pytest.raises(CircuitsLost, match="a circuit actor was lost"):
        backend.submit(SPEC, angles(1)).result()


def test_an_actor_that_hangs_is_ended_and_another_answers(made, tmp_path):
    backend = made(2, timeout_s=8, actor=hanging(tmp_path / "mark")).backend()
    began = time.monotonic()
    assert torch.equal(backend.submit(SPEC, angles(7)).result(), TorchBackend().submit(SPEC, angles(7)).result())
    assert 8 < time.monotonic() - began < 30
    assert (tmp_path / "mark").exists()


def test_actors_that_always_hang_are_one_clear_error_in_bounded_time(made, tmp_path):
    backend = made(1, timeout_s=1, actor=hanging(tmp_path / "mark", always=True)).backend()
    began = time.monotonic()
    with pytest.raises(CircuitsLost, match=r"was at one call for over 1 s.*\(tried for at most 64 s\)$"):
        backend.submit(SPEC, angles(7)).result()
    assert time.monotonic() - began < 60
    backend.router.timeout_s = 60
    assert torch.equal(backend.submit(SPEC, angles(3)).result(), TorchBackend().submit(SPEC, angles(3)).result())


def test_an_actor_that_is_long_in_coming_back_holds_nothing_up_while_another_is_there(made, tmp_path):
    """As with a node that is gone: the actor starts again only when there is a new one."""
    pool = made(2, timeout_s=60, actor=late(tmp_path / "starts", after=2, seconds=25))
    backend = pool.backend()
    members = list(pool._membership.members.values())
    for batch in range(1, 4):
        backend.submit(SPEC, angles(batch)).result()
    pending = [backend.submit(SPEC, angles(batch)) for batch in (4, 5)]
    ray.kill(members[0], no_restart=False)
    began = time.monotonic()
    for batch, each in zip((4, 5), pending, strict=True):
        assert torch.equal(each.result(), TorchBackend().submit(SPEC, angles(batch)).result())
    for batch in range(6, 20):
        assert torch.equal(
            backend.submit(SPEC, angles(batch)).result(), TorchBackend().submit(SPEC, angles(batch)).result()
        )
    assert time.monotonic() - began < 15


def test_an_actor_that_others_keep_busy_is_no_hang(made, monkeypatch):
    """The last request waits longer than the timeout, for calls that each take a third of it."""

    class Slow(CircuitActor):
        def _simulate(self, request):
            time.sleep(2)
            return super()._simulate(request)

    read = []
    call_s = PendingPart._call_s
    monkeypatch.setattr(PendingPart, "_call_s", lambda *own: read.append(call_s(*own)) or read[-1])
    pool = made(1, timeout_s=6, actor=Slow)
    born = ray.get(pool._membership.members[0].__ray_call__.remote(lambda actor: actor._started_at))
    backends = [pool.backend() for _ in range(8)]
    pending = [backend.submit(SPEC, angles(2, seed)) for seed, backend in enumerate(backends)]
    for seed in reversed(range(8)):
        assert torch.equal(pending[seed].result(), TorchBackend().submit(SPEC, angles(2, seed)).result())
    assert read, "its status was never read"
    assert ray.get(pool._membership.members[0].__ray_call__.remote(lambda actor: actor._started_at)) == born


def test_a_batch_as_a_whole_has_its_time(made, monkeypatch):
    """Its parts are collected one after the other, and do not each have the time of a batch."""
    monkeypatch.setattr("qsgd_ray.pool.backend.longest_wait_s", lambda _: 1.0)

    class Slow(CircuitActor):
        def _simulate(self, request):
            time.sleep(1)
            return super()._simulate(request)

    backend = made(1, timeout_s=60, actor=Slow).backend()
    backend._circuit_s[KIND] = 1e3  # a part a circuit
    began = time.monotonic()
    with pytest.raises(CircuitsLost, match="circuit actor 0 had not answered"):
        backend.submit(SPEC, angles(8)).result()
    assert time.monotonic() - began < 30


def test_an_actor_that_moved_without_a_word_is_asked_again_where_it_is_now(made, silent):
    """The connection leads to its old place, where nothing says that it is gone. It is not killed at its new one."""
    backend = made(1, timeout_s=2).backend()
    backend.submit(SPEC, angles(2)).result()
    born = ray.get(backend.router.membership.members()[0].__ray_call__.remote(lambda actor: actor._started_at))
    backend.router._connections[0] = Connection(silent, b"any")
    assert torch.equal(backend.submit(SPEC, angles(3)).result(), TorchBackend().submit(SPEC, angles(3)).result())
    assert ray.get(backend.router.membership.members()[0].__ray_call__.remote(lambda actor: actor._started_at)) == born


def test_an_actor_that_moved_without_a_word_and_is_busy_there_is_asked_again_too(made, silent):
    """Its work for others says nothing of a request that never reached it."""

    class Slow(CircuitActor):
        def _simulate(self, request):
            time.sleep(0.2)
            return super()._simulate(request)

    pool = made(1, timeout_s=2, actor=Slow)
    backend, other = pool.backend(), pool.backend()
    backend.submit(SPEC, angles(2)).result()
    backend.router._connections[0] = Connection(silent, b"any")
    pending, ended = backend.submit(SPEC, angles(3)), threading.Event()

    def keep_busy():
        under_way = []
        for seed in itertools.takewhile(lambda _: not ended.is_set(), itertools.count()):
            under_way.append(other.submit(SPEC, angles(2, seed)))
            if len(under_way) > 2:
                under_way.pop(0).result()

    busy = threading.Thread(target=keep_busy)
    busy.start()
    began = time.monotonic()
    try:
        assert torch.equal(pending.result(), TorchBackend().submit(SPEC, angles(3)).result())
    finally:
        ended.set()
        busy.join()
    assert time.monotonic() - began < 15


def test_an_actor_that_starts_again_elsewhere_is_not_ended_in_the_midst_of_it(made, silent, tmp_path):
    """The connection leads to its old place, and starting takes longer than a hanging actor is given."""
    backend = made(1, timeout_s=4, actor=late(tmp_path / "starts", after=1, seconds=12)).backend()
    backend.submit(SPEC, angles(2)).result()
    backend.router._connections[0] = Connection(silent, b"any")
    pending = backend.submit(SPEC, angles(3))
    ray.kill(backend.router.membership.members()[0], no_restart=False)
    assert torch.equal(pending.result(), TorchBackend().submit(SPEC, angles(3)).result())
    assert (tmp_path / "starts").read_text() == "xx"


def test_whatever_happens_an_answer_or_an_error_comes_before_the_replicas_give_up():
    """Rank 0 asks, the others wait for it in a collective."""
    assert longest_wait_s(60) == 300
    for timeout_s in (1, 60, 3600):
        assert _group_timeout_s(Resources(circuit_timeout_s=timeout_s)) > longest_wait_s(timeout_s) + 60
