"""A training whose circuit actors are killed again and again ends with the bits of an undisturbed one."""

import os
import random
import signal
import threading
import time
from pathlib import Path

import psutil
import ray
from ray.exceptions import RayError
from ray.util import placement_group_table
from test_distributed import CIRCUIT, a_trial, rows_of, site_of, timeless

from qsgd_ray.distributed import run_trials
from qsgd_ray.outcome import Ending
from qsgd_ray.pool.circuit_pool import CircuitPool

KILLS, LONGEST_S = 10, 30


class Timed:
    """Writes down how long the longest answer took."""

    def __init__(self, inner, path: Path) -> None:
        self.inner, self.path, self.longest_s = inner, path, 0.0

    def submit(self, *asked):
        began, pending = time.monotonic(), self.inner.submit(*asked)

        class Pending:
            def result(own):
                answer = pending.result()
                if (took := time.monotonic() - began) > self.longest_s:
                    self.longest_s = took
                    self.path.write_text(f"{took}")
                return answer

        return Pending()


def pid_of(actor, until: threading.Event) -> int | None:
    """Of the process that it has now; None where there is none before the event."""
    while not until.is_set():
        try:
            return ray.get(actor.__ray_call__.remote(lambda _: os.getpid()), timeout=5)
        except RayError:
            time.sleep(0.1)
    return None


def kill_again_and_again(actors, ended: threading.Event, killed: list[int]) -> None:
    draws = random.Random(2511)
    while len(killed) < KILLS and not ended.is_set():
        pid = pid_of(draws.choice(actors), ended)
        time.sleep(draws.uniform(0, 0.5))
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)


def run_one(cluster, folder, disturbed: bool):
    pool = CircuitPool(n_actors=2, cpus_per_actor=0.5, timeout_s=20)
    pool.wait_until_ready(timeout_s=60)
    actors, ended, killed = [*pool.backend().actors.roster.members().values()], threading.Event(), []
    killer = threading.Thread(target=kill_again_and_again, args=(actors, ended, killed))
    trial = a_trial(0, CIRCUIT, epochs=250)
    site = site_of(folder / "small", cluster, circuits=Timed(pool.backend(), folder / "longest"))
    try:
        if disturbed:
            killer.start()
        run_trials([trial], site)
    finally:
        ended.set()
        if disturbed:
            killer.join()
        last = [pid_of(actor, threading.Event()) for actor in actors]
        pool.close()
    return timeless(rows_of(site)[trial.trial_id]), killed, last, float((folder / "longest").read_text())


def test_ten_killed_actors_change_no_bit_and_leave_nothing_behind(cluster, tmp_path):
    folders = [tmp_path / name for name in ("undisturbed", "disturbed")]
    for folder in folders:
        folder.mkdir()
    expected, _, _, _ = run_one(cluster, folders[0], disturbed=False)
    found, killed, last, longest_s = run_one(cluster, folders[1], disturbed=True)
    assert expected["ending"] == Ending.COMPLETED
    assert found["error"] is None
    assert found == expected
    assert len(killed) == KILLS
    assert longest_s < LONGEST_S
    patience = time.monotonic() + 20
    while any(psutil.pid_exists(pid) for pid in [*killed, *last]) and time.monotonic() < patience:
        time.sleep(0.1)
    assert not any(psutil.pid_exists(pid) for pid in [*killed, *last])
    assert {group["state"] for group in placement_group_table().values()} <= {"REMOVED"}
