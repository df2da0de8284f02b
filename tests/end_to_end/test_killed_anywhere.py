"""SIGKILL of drivers, workers, trials and circuit actors at random, and of whoever writes in mid-write: the same
command again and again ends with the rows of an undisturbed study, each once.

What is killed, after how many more files and with what delay, is drawn from a seed; where a trial is by then, the
machine decides. What a killed driver leaves behind is not waited for: its workers may still write while the next
driver runs.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from support.places import TESTS
from support.processes import lives
from support.run_contexts import timeless

from qsgd_ray.results import read
from qsgd_ray.storage import Folder

pytestmark = [
    pytest.mark.ray,
    pytest.mark.kill,
    pytest.mark.slow,
    pytest.mark.xdist_group("killed"),
    pytest.mark.timeout(1800),
]

STUDY = """
from support.small_study import a_study
from qsgd_ray.config import Arm, Confirm, LogUniform, Perturbation, Search

rate = LogUniform(low=1e-3, high=1e-2)
STUDY = a_study(
    arms=(
        Arm(name="adamw", learning_rate=rate),
        Arm(name="circuit", learning_rate=rate, perturbation=Perturbation(source="circuit", n_qubits=2)),
    ),
    search=Search(trials_per_arm=3, epochs=9, grace_epochs=3, reduction_factor=2),
    confirm=Confirm(seeds=(11, 12), epochs=20, workers=2),
)
"""
PLANNED = 10
STARTS, START_TIMEOUT_S = 8, 300
SEEDS = (7, 9)  # together they draw every kind of kill
KILLS_A_ROUND = 3
# Victims by the names of Ray's processes; a group of workers that dies three times at one trial gives it up.
VICTIMS = {"worker": ("RayTrainWorker", "ResourceTrainable"), "actor": ("CircuitActor",)}
KILLS = ("writer", "driver", "writer", "worker", "actor")


@dataclass
class Round:
    """A study and what became of it: kinds of kills that found their victim, files whose writers died."""

    results: Path
    killed: list[str] = field(default_factory=list)
    writers: list[str] = field(default_factory=list)
    starts: int = 0


class Killer:
    """Goes through its kills, one after the other, on a thread beside the study."""

    def __init__(self, seed: int, notes: Path, driver: Callable[[], subprocess.Popen | None]) -> None:
        self._draws, self._notes, self._driver = random.Random(seed), notes, driver
        self.killed: list[str] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> "Killer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _puts(self) -> int:
        puts = self._notes / "puts"
        return len(puts.read_text().splitlines()) if puts.exists() else 0

    def _wait(self, holds: Callable[[], bool]) -> bool:
        while not holds():
            if self._ended.wait(0.05):
                return False
        return True

    def _work(self) -> None:
        # The first file of all is the driver's, and so are the next three.
        self._arm(self._draws.randint(1, 4))
        for kind in self._draws.sample(KILLS, KILLS_A_ROUND):
            at, delay_s = self._puts() + self._draws.randint(2, 6), self._draws.uniform(0, 0.7)
            if kind == "writer":
                self._arm(at)
            elif not self._wait(lambda at=at: self._puts() >= at):
                return
            elif not self._ended.wait(delay_s):
                self._kill(kind)

    def _arm(self, at: int) -> None:
        armed = self._notes / "armed"
        partial = armed.with_name("arming")
        partial.write_text(str(at))
        os.replace(partial, armed)
        if self._wait(lambda: not armed.exists()):
            self.killed.append("writer")
        armed.unlink(missing_ok=True)

    def _kill(self, kind: str) -> None:
        """The driver, or one of the processes of its Ray that are of this kind, as soon as there is one."""

        def find() -> bool:
            driver = self._driver()
            if driver is None or driver.poll() is not None:
                return False
            try:
                found = [psutil.Process(driver.pid)]
                if kind != "driver":
                    found = [p for p in found[0].children(recursive=True) if is_a(kind, p)]
                if found:
                    self._draws.choice(found).send_signal(signal.SIGKILL)
                    self.killed.append(kind)
            except psutil.NoSuchProcess:
                return False
            return bool(found)

        self._wait(find)


def is_a(kind: str, process: psutil.Process) -> bool:
    try:
        title = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return lives(process) and title.startswith("ray::") and any(word in title for word in VICTIMS[kind])


def go(study_file: Path, storage: Path, seed: int | None) -> Round:
    """The command again and again until it succeeds; without a seed nothing is killed."""
    done = Round(storage / "small")
    notes = storage / "notes"
    notes.mkdir(parents=True)
    running: list[subprocess.Popen] = []
    # The path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="a-", dir="/tmp", ignore_cleanup_errors=True) as temporary:
        words = {
            "args": [sys.executable, "-m", "qsgd_ray.cli", "run", str(study_file), "--storage", str(storage)],
            "env": os.environ
            | {
                "PYTHONPATH": os.pathsep.join(
                    [str(TESTS / "support" / "killing_site"), str(TESTS), os.environ.get("PYTHONPATH", "")]
                ),
                "QSGD_TEST_RESULTS": str(done.results.resolve()),
                "QSGD_TEST_NOTES": str(notes.resolve()),
                "TMPDIR": temporary,
            },
            "start_new_session": True,
        }
        killer = Killer(seed, notes, lambda: running[-1] if running else None) if seed is not None else None
        if killer:
            killer.__enter__()
        try:
            while done.starts < STARTS:
                done.starts += 1
                # A pipe would stay open until the last of a killed driver's Ray is gone.
                said = notes / f"said-{done.starts}"
                with said.open("w") as out:
                    running.append(subprocess.Popen(**words, stdout=out, stderr=subprocess.STDOUT))
                try:
                    code = running[-1].wait(START_TIMEOUT_S)
                finally:
                    running[-1].kill()
                told = said.read_text()
                assert "Traceback" not in told, told
                if code == 0:
                    break
                assert code == -signal.SIGKILL or "The same command tries them again" in told, (code, told)
        finally:
            if killer:
                killer.__exit__()
                done.killed = killer.killed
        assert code == 0, told
    if (notes / "killed").exists():
        done.writers = (notes / "killed").read_text().splitlines()
    return done


@pytest.fixture(scope="module")
def rounds(tmp_path_factory):
    """One at a time: Ray gives itself half a minute to start, which two Rays beside other tests do not keep."""
    folder = tmp_path_factory.mktemp("anywhere")
    study_file = folder / "small.py"
    study_file.write_text(STUDY)
    with ThreadPoolExecutor(1) as pool:
        yield {seed: pool.submit(go, study_file, folder / str(seed), seed) for seed in (SEEDS[0], None, *SEEDS[1:])}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_study_that_was_killed_anywhere_ends_with_the_rows_of_an_undisturbed_one(rounds: dict[int, Future], seed):
    killed, undisturbed = rounds[seed].result(), rounds[None].result()
    assert len(killed.killed) >= 3, "kills that found nobody test nothing"
    assert {"driver", "writer"} & set(killed.killed)
    assert undisturbed.starts == 1 < killed.starts
    here, there = read(killed.results), read(undisturbed.results)
    assert there.trials.num_rows == PLANNED
    for table in ("trials", "measurements"):
        rows = [timeless(row) for row in getattr(here, table).to_pylist()]
        assert rows == [timeless(row) for row in getattr(there, table).to_pylist()]
    epochs = Counter((row["trial_id"], row["epoch"]) for row in here.measurements.to_pylist())
    assert set(epochs.values()) == {1}
    assert (here.n_others, here.changes) == (0, ())


def test_writers_died_in_mid_write_of_rows_and_of_notes_and_everyone_else_too(rounds: dict[int, Future]):
    assert {kind for seed in SEEDS for kind in rounds[seed].result().killed} == {*KILLS}
    files = [name for seed in SEEDS for name in rounds[seed].result().writers]
    assert any(name.endswith(".json") or name.endswith(".py") for name in files), files
    assert any(name.endswith(".parquet") for name in files), files
    for seed in SEEDS:
        results = rounds[seed].result().results
        # An opening removes what killed writers left; some may have died after the last one.
        Folder(results).remove_abandoned("", "trials", "measurements", "studies")
        assert not [*results.rglob(".*")]
