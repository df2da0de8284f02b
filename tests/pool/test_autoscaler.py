"""The pool as it grows, shrinks and loses members: seen by those who ask it, whose answers stay the same."""

import os
import signal
import threading
import time
from contextlib import contextmanager

import pytest
import ray
import torch
from ray.exceptions import RayError

from qsgd_ray.circuits.backends.in_process import TorchBackend
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.pool._actor import CircuitActor
from qsgd_ray.study._stages import POOL_START_TIMEOUT_S

SPEC = CircuitSpec(3, depth=2)


def angles(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(SPEC.angles_shape(n), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Slow(CircuitActor):
    """As a large circuit would keep it."""

    def answer(self, request):
        answer, _ = super().answer(request)
        with self._meter, self._lock:
            time.sleep(0.05)
        return answer, 0.05


def wait_until(holds, deadline_s: float) -> None:
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < deadline_s
        time.sleep(0.1)


def ask_until(ended: threading.Event, backend, wrong: list) -> None:
    seed = 0
    while not ended.is_set():
        seed += 1
        pending = [backend.submit(SPEC, angles(2, 10 * seed + n)) for n in range(3)]
        for n, own in enumerate(pending):
            expected = TorchBackend().submit(SPEC, angles(2, 10 * seed + n)).result()
            if not torch.equal(own.result(), expected):
                wrong.append(seed)


@contextmanager
def asking(pool, n_trials: int):
    """So many trials ask all the time; none is answered wrongly."""
    ended, wrong = threading.Event(), []
    trials = [threading.Thread(target=ask_until, args=(ended, pool.backend(), wrong)) for _ in range(n_trials)]
    for trial in trials:
        trial.start()
    try:
        yield
    finally:
        ended.set()
        for trial in trials:
            trial.join()
    assert not wrong


def test_it_grows_while_requests_wait_shrinks_when_idle_and_every_answer_is_right(made):
    pool = made(actor=Slow, max_actors=3, idle_s=3)
    with asking(pool, 3):
        wait_until(lambda: pool.size() == 3, POOL_START_TIMEOUT_S)
        grown = [actor for number, actor in pool._membership.members.items() if number > 0]
    wait_until(lambda: pool.size() == 1, 60)
    assert list(pool._membership.members) == [0], "the newest go first"
    for gone in grown:
        with pytest.raises(RayError):
            wait_until(lambda actor=gone: ray.get(actor.load.remote(), timeout=10) is None, 60)
    assert torch.equal(pool.backend().submit(SPEC, angles(2)).result(), TorchBackend().submit(SPEC, angles(2)).result())


def test_actors_that_no_node_can_hold_wait_and_the_others_answer(made):
    """What waits in Ray is what makes an autoscaler add nodes; it is withdrawn when it is not needed any more."""
    pool = made(actor=Slow, max_actors=4, idle_s=2)
    large = ray.remote(num_cpus=1000, concurrency_groups={"health": 1})(Slow)
    pool._autoscaler.start = lambda: large.remote(1, "auto", pool._secret)
    with asking(pool, 2):
        wait_until(lambda: len(pool._autoscaler._actors) > 1, POOL_START_TIMEOUT_S)
        assert pool.size() == 1
    wait_until(lambda: len(pool._autoscaler._actors) == 1, 60)


def test_a_member_that_is_gone_for_a_while_is_no_member_and_comes_back(made, monkeypatch):
    class SlowToStart(CircuitActor):
        def __init__(self, *made) -> None:
            if ray.get_runtime_context().was_current_actor_reconstructed:
                time.sleep(6)
            super().__init__(*made)

    pool = made(n_actors=2, actor=SlowToStart)
    wait_until(lambda: pool.size() == 2, POOL_START_TIMEOUT_S)
    pid = ray.get(pool._membership.members[1].__ray_call__.remote(lambda _: os.getpid()))
    monkeypatch.setattr("qsgd_ray.pool._autoscaler._SILENT_S", 1.0)  # from now on, or a slow start would do
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: list(pool._membership.members) == [0], 20)
    wait_until(lambda: list(pool._membership.members) == [0, 1], POOL_START_TIMEOUT_S)


def test_an_actor_that_ends_for_good_is_replaced_and_told(made, monkeypatch, caplog):
    monkeypatch.setattr("qsgd_ray.pool._autoscaler._REPLACE_S", 0.1)
    pool = made()
    ray.kill(pool._membership.members[0])  # also from being started again
    wait_until(lambda: list(pool._membership.members) == [1], POOL_START_TIMEOUT_S)
    assert "circuit actor 0 ended for good" in caplog.text
    assert torch.equal(pool.backend().submit(SPEC, angles(2)).result(), TorchBackend().submit(SPEC, angles(2)).result())


def test_readers_go_on_with_the_list_they_have_where_nobody_tells_a_newer_one(made):
    pool = made()
    backend = pool.backend()
    before = dict(backend.router.membership.members())
    ray.kill(pool._membership._list)
    assert backend.router.membership.refresh() == before
    assert torch.equal(backend.submit(SPEC, angles(2)).result(), TorchBackend().submit(SPEC, angles(2)).result())


def test_the_list_lies_on_the_autoscalers_node(made):
    where = made()._membership._list.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id())
    assert ray.get(where) == ray.get_runtime_context().get_node_id()
