"""A training whose circuit actors are killed again and again ends with the bits of an undisturbed one."""

import os
import random
import signal
import threading
import time
from itertools import accumulate
from pathlib import Path

import psutil
import pytest
import ray
from ray.exceptions import RayError
from ray.util import placement_group_table
from support.run_contexts import CIRCUIT, make_context, numbered_trial, rows_of, timeless

from qsgd_ray.execution.train_group import run_trials
from qsgd_ray.outcome import Ending
from qsgd_ray.pool.pool import CircuitPool
from qsgd_ray.study._stages import POOL_START_TIMEOUT_S

pytestmark = [pytest.mark.ray, pytest.mark.kill, pytest.mark.slow]

KILLS, LONGEST_S = 10, 30
# From one kill to the next, in submissions of the training, and from the submission to the kill.
MOST_SUBMISSIONS, MOST_S = 100, 0.005


def pid_of(actor) -> int:
    """Of the process that it has now, or has soon."""
    patience = time.monotonic() + POOL_START_TIMEOUT_S
    while True:
        try:
            return ray.get(actor.__ray_call__.remote(lambda _: os.getpid()), timeout=5)
        except RayError:
            assert time.monotonic() < patience, "a killed actor did not start again"
            time.sleep(0.1)


class Killing:
    """Asks the pool for a training, and kills an actor amid a question that was drawn before: the kills fall into the
    training however fast the machine is. Writes down who was killed, and how long the longest answer took."""

    def __init__(self, inner, folder: Path, kills: int) -> None:
        self.inner, self.folder, self.longest_s, self.n_submitted, self.killer = inner, folder, 0.0, 0, None
        self.draws = random.Random(2511)
        self.amid = set(accumulate(self.draws.randint(1, MOST_SUBMISSIONS) for _ in range(kills)))

    def submit(self, *arguments):
        self.n_submitted += 1
        pid = self.drawn() if self.n_submitted in self.amid else None
        began, pending = time.monotonic(), self.inner.submit(*arguments)
        if pid is not None:
            self.killer = threading.Timer(self.draws.uniform(0, MOST_S), self.kill, [pid])
            self.killer.start()

        class Pending:
            def result(own):
                answer = pending.result()
                if (took := time.monotonic() - began) > self.longest_s:
                    self.longest_s = took
                    (self.folder / "longest").write_text(f"{took}")
                return answer

        return Pending()

    def drawn(self) -> int:
        if self.killer is not None:
            self.killer.join()
        members = self.inner.router.membership.members()
        return pid_of(members[self.draws.choice(sorted(members))])

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        with (self.folder / "killed").open("a") as killed:
            killed.write(f"{pid}\n")


def run_one(cluster, folder, kills: int):
    folder.mkdir()
    (folder / "killed").touch()
    pool = CircuitPool(n_actors=2, cpus_per_actor=0.5, timeout_s=20)
    pool.wait_until_ready(timeout_s=POOL_START_TIMEOUT_S)
    actors = [*pool.backend().router.membership.members().values()]
    trial = numbered_trial(0, CIRCUIT, epochs=250)
    context = make_context(folder / "small", cluster, circuits=Killing(pool.backend(), folder, kills))
    try:
        run_trials([trial], context)
        last = [pid_of(actor) for actor in actors]
    finally:
        pool.close()
    killed = [int(pid) for pid in (folder / "killed").read_text().split()]
    return timeless(rows_of(context)[trial.trial_id]), killed, last, float((folder / "longest").read_text())


def test_ten_killed_actors_change_no_bit_and_leave_nothing_behind(cluster, tmp_path):
    expected, _, _, _ = run_one(cluster, tmp_path / "undisturbed", kills=0)
    disturbed, killed, last, longest_s = run_one(cluster, tmp_path / "disturbed", KILLS)
    assert expected["ending"] == Ending.COMPLETED
    assert disturbed["error"] is None
    assert disturbed == expected
    assert len(killed) == KILLS
    assert longest_s < LONGEST_S

    def left() -> tuple[list[int], list[str]]:
        processes = [pid for pid in (*killed, *last) if psutil.pid_exists(pid)]
        return processes, [name for name, group in placement_group_table().items() if group["state"] != "REMOVED"]

    patience = time.monotonic() + 20
    while any(left()) and time.monotonic() < patience:
        time.sleep(0.1)
    assert left() == ([], [])
