"""A round: one study, started again and again while faults strike it, until it ends; then its rows are compared."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from faults import Fault, Scene, all_faults, drawn, is_alive

from qsgd_ray.results import read
from qsgd_ray.results.schema import TIME_COLUMNS

HERE = Path(__file__).parent
STUDY = HERE / "study.py"
# Longer than Ray needs on a busy machine to start three times.
START_TIMEOUT_S = 400
# Without the watchdog two of Ray's agents try for a minute to reach a head that is gone.
END_TIMEOUT_S, END_WITHOUT_WATCHDOG_S = 40, 90
# The first fault of a start comes within so many seconds, so also while Ray starts; the next within so many more.
FIRST_S, NEXT_S = 22.0, 8.0
# Faults that last, last so long.
LASTS_S = (1.0, 6.0)
# With faults for ever a study never ends.
FAULTS_A_ROUND = 12
DISK_BYTES = 24_000_000
# What Ray and Python print of themselves; where a core process was killed and nothing else, the last line says so.
FOREIGN_WORDS = ("Traceback", "state-dump", "The program will terminate")
CORE_KILLS = (["kill raylet"], ["kill GCS"])
# Of studies with checkpoints: a trial has 18 or 40 steps.
CHECKPOINT_STEPS = 7
MAX_STARTS = 3 * FAULTS_A_ROUND
# SIGKILL, one line, bad input (a disk that is full at the start), and the codes of signals.
EXIT_CODES = {0, -signal.SIGKILL, 1, 2, 130, 143, 129}


@dataclass
class Applied:
    """A fault that found something to strike.

    Attributes:
        fault: its name.
        at_s: seconds after the start of the driver.
        start: the number of the start in its round.
        exit_code: how the driver ended in the end.
    """

    fault: str
    at_s: float
    start: int
    exit_code: int | None = None


@dataclass
class Round:
    """A study and what became of it.

    Attributes:
        number: its number in the campaign.
        applied: the faults.
        starts: how often the command was started.
        problems: everything that should not be, in words; empty: all is well.
        rows: the rows of both tables without seconds, by name.
        wall_s: seconds that it took.
    """

    number: int
    applied: list[Applied] = field(default_factory=list)
    starts: int = 0
    problems: list[str] = field(default_factory=list)
    rows: dict[str, list[dict[str, object]]] = field(default_factory=dict)
    wall_s: float = 0.0


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a small file system at `folder`, where the system lets this process; yields whether it did."""
    folder.mkdir(parents=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(folder)]
    try:
        mounted = subprocess.run(words, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)


def run_round(
    number: int,
    seed: int,
    n_faults: int,
    folder: Path,
    expected: Round | None = None,
    kinds: Sequence[str] = (),
    struck: Counter[str] | None = None,
) -> Round:
    """Run one study to its end; one with an odd number saves checkpoints and goes on from them.

    Args:
        number: the number of the round; with `seed` it decides the faults and their times.
        seed: of the campaign.
        n_faults: faults to apply; 0: an undisturbed study.
        folder: a new folder for results and outputs.
        expected: the undisturbed study, whose rows these must be. None: nothing to compare with.
        kinds: the names of the faults, or their beginnings. Empty: all.
        struck: how often each kind has struck in the campaign; counts on.

    Returns:
        The round.
    """
    began, done, rng = time.monotonic(), Round(number), random.Random(f"{seed}/{number}")
    storage, clock, writer = folder / "results", folder / "clock", folder / "writer"
    struck = Counter() if struck is None else struck
    # The path of a socket must be short.
    with (
        tempfile.TemporaryDirectory(prefix="c-", dir="/tmp", ignore_cleanup_errors=True) as temporary,
        small_disk(storage) as has_disk,
    ):
        path = os.pathsep.join([str(HERE / "site"), os.environ.get("PYTHONPATH", "")])
        env = os.environ | {
            "TMPDIR": temporary,
            "PYTHONPATH": path,
            "QSGD_CHAOS_CLOCK": str(clock),
            "QSGD_CHAOS_WRITER": str(writer),
            "QSGD_CHAOS_RESULTS": str(storage.resolve()),
        }
        env.pop("RAY_ADDRESS", None)
        words = [sys.executable, "-m", "qsgd_ray.cli", "run", str(STUDY), "--storage", str(storage)]
        words += ["--set", f"resources.checkpoint_steps={CHECKPOINT_STEPS}"] if number % 2 else []
        faults, code = all_faults(has_disk, kinds), None
        while code != 0 and not done.problems:
            done.starts += 1
            output = folder / f"output-{done.starts}.txt"
            with output.open("wb") as out:
                driver = subprocess.Popen(
                    words,
                    env=env,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=_with_signals,
                )
            scene = Scene(driver, storage, clock, writer, STUDY, output, rng, env)
            try:
                code = _watch(scene, done, faults, n_faults, struck)
            finally:
                driver.kill()
            _check_end(done, code, output.read_text(errors="replace"))
            done.problems += scene.problems
            if done.starts == MAX_STARTS and code != 0:
                done.problems.append(f"round {done.number} does not end: {output.read_text(errors='replace')[-2000:]}")
        if not done.problems:
            _check_rows(done, storage / "chaos", expected)
    done.wall_s = time.monotonic() - began
    return done


def _with_signals() -> None:
    """Let signals reach the child, also where this was started in the background of a shell or by nohup."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _watch(scene: Scene, done: Round, faults: list[Fault], n_faults: int, struck: Counter[str]) -> int | None:
    """Apply faults until the driver has ended, and return its exit code; None where it did not end."""
    began, lasting = time.monotonic(), []
    at_s, seen = scene.rng.uniform(0, FIRST_S), {}
    mine: list[Applied] = []
    while scene.driver.poll() is None:
        now_s = time.monotonic() - began
        seen.update({process.pid: process for process in scene.family()})
        for until_s, fault in [each for each in lasting if each[0] <= now_s]:
            lasting.remove((until_s, fault))
            fault.undo(scene)
        if now_s >= at_s and len(done.applied) < min(n_faults, FAULTS_A_ROUND):
            others = [each for _, each in lasting]
            for fault in drawn(faults, struck, scene.rng):
                # One fault of the disk at a time: what a full one holds cannot be taken away while it is read-only.
                is_free = fault not in others and not (fault.needs_disk and any(each.needs_disk for each in others))
                if is_free and fault.apply(scene):
                    mine.append(Applied(fault.name, round(now_s, 2), done.starts))
                    done.applied.append(mine[-1])
                    struck[fault.name] += 1
                    lasting.append((time.monotonic() - began + scene.rng.uniform(*LASTS_S), fault))
                    break
            at_s = now_s + scene.rng.uniform(0, NEXT_S)
        if now_s > START_TIMEOUT_S:
            done.problems.append(f"start {done.starts} hangs after {mine}")
            scene.driver.kill()
            break
        time.sleep(0.05)
    for _, fault in lasting:
        fault.undo(scene)
    code = scene.driver.wait()
    for each in mine:
        each.exit_code = code
    is_watched = not any(each.fault == "kill watchdog" for each in mine)
    until = time.monotonic() + (END_TIMEOUT_S if is_watched else END_WITHOUT_WATCHDOG_S)
    while (left := [process for process in seen.values() if is_alive(process)]) and time.monotonic() < until:
        time.sleep(0.1)
    if left:
        done.problems.append(f"start {done.starts} ({mine}) left {[_described(process) for process in left]}")
        for process in left:
            process.kill()
    return code


def _described(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline()[:4])}"
    except psutil.Error:
        return str(process.pid)


def _check_end(done: Round, code: int | None, output: str) -> None:
    where, tail = f"start {done.starts} of round {done.number}", output[-2000:]
    said = output.rstrip().rpartition("\n")[2].startswith(("qsgd-ray: ", "Interrupted. ", "Report: "))
    of_this = [each.fault for each in done.applied if each.start == done.starts]
    # A signal that comes after the last line, while Python ends, has its own way; Ray's core may crash where its raylet
    # or its GCS is killed (2.60), and the watchdog has the last word.
    own_ways = [-signal.SIGINT, -signal.SIGTERM, -signal.SIGHUP]
    own_ways += [-signal.SIGSEGV, -signal.SIGABRT] if {each for (each,) in CORE_KILLS} & {*of_this} else []
    if code not in EXIT_CODES and not (said and code in own_ways):
        done.problems.append(f"{where} ended with {code}: {tail}")
    if odd := [word for word in FOREIGN_WORDS if word in output]:
        done.problems.append(f"{where} printed {odd[0]!r}: {output[-6000:]}")
    last = output.rstrip().rpartition("\n")[2]
    if code in (1, 2) and not last.startswith("qsgd-ray: "):
        done.problems.append(f"{where} ended with {code} and without a line: {tail}")
    # Where Ray's core ends the driver at once, the watchdog has the last word.
    if code == 1 and of_this in CORE_KILLS and not ("Ray" in last and "the same command" in last):
        done.problems.append(f"{where} does not say that Ray has ended, or how to go on: {tail}")


def _check_rows(done: Round, results: Path, expected: Round | None) -> None:
    tables = read(results)
    for name in ("trials", "measurements"):
        rows = getattr(tables, name).to_pylist()
        done.rows[name] = [{key: row[key] for key in row if key not in TIME_COLUMNS} for row in rows]
    counts = Counter(row["trial_id"] for row in done.rows["trials"])
    if twice := [trial for trial, count in counts.items() if count > 1]:
        done.problems.append(f"rows are doubled: {twice}")
    if tables.n_others or tables.changes:
        done.problems.append(f"rows of another study: {tables.n_others}, {tables.changes}")
    if partial := [str(path) for path in results.rglob(".*") if path.is_file() and path.name.count(".") > 2]:
        done.problems.append(f"partial files stay: {partial}")
    if expected is not None and done.rows != expected.rows:
        done.problems.append(_first_difference(done, expected))


def _first_difference(done: Round, expected: Round) -> str:
    """Describe the first row that is not the undisturbed study's."""
    for name, rows in expected.rows.items():
        for here, there in zip(done.rows[name], rows, strict=False):
            if here != there:
                columns = [key for key in there if here.get(key) != there[key] and key != "trial"]
                values = {key: (here.get(key), there[key]) for key in columns}
                return f"another row of {name}: {there['trial_id']}: {values}"
        if len(done.rows[name]) != len(rows):
            return f"{len(done.rows[name])} rows of {name}, not {len(rows)}"
    return "other tables"
