"""Faults that a study meets: each is applied to a running driver, and taken back where it lasts."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

# So long one waits for somebody to write.
_WRITE_WITHIN_S = 3.0


@dataclass
class Scene:
    """A study under way.

    Attributes:
        driver: the process of the command.
        storage: the folder of results, a small disk of its own where the system lets it be one.
        clock: the file that holds by how many seconds the study's clock is wrong.
        writer: the file at whose sight the next process that writes dies (site/sitecustomize.py).
        study: the study file.
        output: what the command has printed.
        rng: draws of this campaign.
        env: the environment of the driver.
        problems: what a fault saw that should not be.
    """

    driver: subprocess.Popen[bytes]
    storage: Path
    clock: Path
    writer: Path
    study: Path
    output: Path
    rng: random.Random
    env: dict[str, str]
    problems: list[str] = field(default_factory=list)

    def family(self) -> list[psutil.Process]:
        """Return the living descendants of the driver."""
        with suppress(psutil.NoSuchProcess):
            return [each for each in psutil.Process(self.driver.pid).children(recursive=True) if is_alive(each)]
        return []

    def named(self, *words: str) -> list[psutil.Process]:
        """Return the descendants whose name or title holds one of the words."""
        return [each for each in self.family() if any(word in title(each) for word in words)]


class Fault(ABC):
    """One kind of fault."""

    name: str
    # Faults of a disk need one of their own.
    needs_disk = False

    @abstractmethod
    def apply(self, scene: Scene) -> bool:
        """Apply it; return False where there is nothing yet that it could strike."""

    def undo(self, scene: Scene) -> None:  # noqa: B027
        """Take it back; does nothing where it does not last."""


class Kill(Fault):
    """SIGKILL of one process."""

    def __init__(self, name: str, *words: str) -> None:
        self.name, self._words = f"kill {name}", words

    def apply(self, scene: Scene) -> bool:
        victims = scene.named(*self._words) if self._words else [psutil.Process(scene.driver.pid)]
        if not victims:
            return False
        with suppress(psutil.NoSuchProcess):
            scene.rng.choice(sorted(victims, key=lambda each: each.pid)).kill()
            return True
        return False


class KillWriter(Fault):
    """SIGKILL of whoever writes among the results, between the whole partial file and its place."""

    name = "kill writer in mid-write"

    def apply(self, scene: Scene) -> bool:
        done = scene.writer.with_name(f"{scene.writer.name}.done")
        done.unlink(missing_ok=True)
        scene.writer.touch()
        until = time.monotonic() + _WRITE_WITHIN_S
        while not done.exists() and time.monotonic() < until and scene.driver.poll() is None:
            time.sleep(0.02)
        scene.writer.unlink(missing_ok=True)
        return done.exists()


class Signal(Fault):
    """A signal that ends the command in order, once it has begun; before, it is Python's own to handle."""

    def __init__(self, number: signal.Signals) -> None:
        self.name, self._number = number.name, number

    def apply(self, scene: Scene) -> bool:
        if not scene.output.stat().st_size:
            return False
        try:
            if self._number == signal.SIGTERM:
                os.kill(scene.driver.pid, self._number)
            else:  # a terminal sends these to all processes of its foreground
                os.killpg(scene.driver.pid, self._number)
        except ProcessLookupError:  # another fault of this moment waited until it had ended
            return False
        return True


class FullDisk(Fault):
    """No room where the results lie, for some seconds."""

    name, needs_disk = "full disk", True

    def apply(self, scene: Scene) -> bool:
        with suppress(OSError), self._file(scene).open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        return True

    def undo(self, scene: Scene) -> None:
        self._file(scene).unlink(missing_ok=True)

    def _file(self, scene: Scene) -> Path:
        return scene.storage / "another-user-s.file"


class ReadOnly(Fault):
    """A disk that turns read-only, for some seconds."""

    name, needs_disk = "read-only disk", True

    def apply(self, scene: Scene) -> bool:
        return _remount(scene.storage, "ro")

    def undo(self, scene: Scene) -> None:
        deadline = time.monotonic() + 30
        while not _remount(scene.storage, "rw"):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{scene.storage} stays read-only")
            time.sleep(0.2)


class SecondDriver(Fault):
    """The same command once more, beside the first: refused in one line with exit code 2."""

    name = "two drivers"

    def apply(self, scene: Scene) -> bool:
        if not scene.named("raylet"):  # the first has not yet opened its results
            return False
        words = [sys.executable, "-m", "qsgd_ray.cli", "run", str(scene.study), "--storage", str(scene.storage)]
        try:
            done = subprocess.run(words, env=scene.env, capture_output=True, text=True, timeout=300, check=False)
        except subprocess.TimeoutExpired:  # where the first has ended it goes on with the study, as long as that takes
            if scene.driver.poll() is None:
                scene.problems.append("the second driver was not refused in 300 s")
            return True
        # The first may have ended meanwhile, and then the second rightly goes on with the study.
        refused = done.returncode == 2 and done.stderr.startswith("qsgd-ray: ") and done.stderr.count("\n") == 1
        if not refused and scene.driver.poll() is None:
            scene.problems.append(f"the second driver was not refused: {done.returncode} {done.stderr[-500:]}")
        return True


class ClockJump(Fault):
    """A wall clock that jumps by up to two hours, there or back."""

    name = "clock jump"

    def apply(self, scene: Scene) -> bool:
        scene.clock.write_text(str(scene.rng.uniform(-7200, 7200)))
        return True


class Cut(Fault):
    """A network that drops all connections to a circuit actor."""

    name = "cut connections to the pool"

    def apply(self, scene: Scene) -> bool:
        ports = [
            connection.laddr.port
            for actor in scene.named("CircuitActor")
            for connection in _connections(actor)
            if connection.status == psutil.CONN_LISTEN
        ]
        for port in ports:
            words = ["ss", "-K", "-t", "dport", "=", str(port)]
            subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        return bool(ports)


class Hang(Fault):
    """A circuit actor that answers nothing for some seconds."""

    name = "stopped circuit actor"

    def __init__(self) -> None:
        self._stopped: list[psutil.Process] = []

    def apply(self, scene: Scene) -> bool:
        self._stopped = scene.named("CircuitActor")
        for process in self._stopped:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        return bool(self._stopped)

    def undo(self, scene: Scene) -> None:  # noqa: ARG002
        for process in self._stopped:
            with suppress(psutil.NoSuchProcess):
                process.resume()


def all_faults(has_disk: bool, kinds: Sequence[str] = ()) -> list[Fault]:
    """Return one of every kind that this machine allows.

    Args:
        has_disk: whether the results lie on a file system of their own.
        kinds: the names of those that are wanted, or their beginnings. Empty: all.
    """
    faults: list[Fault] = [
        Kill("driver"),
        Kill("raylet", "raylet"),
        Kill("GCS", "gcs_server"),
        Kill("train worker", "RayTrainWorker"),
        Kill("trial", "ResourceTrainable"),
        Kill("controller", "TrainController"),
        Kill("circuit actor", "CircuitActor"),
        Kill("event queue", "_Queue"),
        Kill("agent", "DashboardAgent", "RuntimeEnvAgent"),
        Kill("watchdog", "_session_processes"),
        KillWriter(),
        *map(Signal, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)),
        SecondDriver(),
        ClockJump(),
        Hang(),
        FullDisk(),
        ReadOnly(),
        *([Cut()] if can_cut() else []),
    ]
    return [
        fault
        for fault in faults
        if (has_disk or not fault.needs_disk) and (not kinds or fault.name.startswith(tuple(kinds)))
    ]


def drawn(faults: list[Fault], struck: Mapping[str, int], rng: random.Random) -> list[Fault]:
    """Return faults in the order in which they are to be tried.

    Those that have struck seldom come into question, so that every kind does in a long campaign: of kinds that have
    struck at most once more than the rarest, all in random order.

    Args:
        faults: those of this machine.
        struck: how often each has struck in the campaign, by name.
        rng: draws the order.
    """
    rarest = min(struck.get(fault.name, 0) for fault in faults)
    seldom = [fault for fault in faults if struck.get(fault.name, 0) <= rarest + 1]
    return rng.sample(seldom, len(seldom))


def can_cut() -> bool:
    """Return whether the system lets this process close the connections of others."""
    with suppress(OSError):
        words = ["ss", "-K", "-t", "dport", "=", "1"]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
    return False


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process runs; one that was not reaped does not."""
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def title(process: psutil.Process) -> str:
    """Return the name and the command line of a process; empty where it has ended."""
    with suppress(psutil.Error):
        words = process.cmdline()
        # The raylet has the words of its agents among its own, and a shell those of everything.
        return " ".join([process.name(), *(words[:3] if words and not words[0].endswith("raylet") else [])])
    return ""


def _connections(process: psutil.Process) -> list[psutil._common.pconn]:
    with suppress(psutil.Error):
        return process.net_connections("inet")
    return []


def _remount(place: Path, mode: str) -> bool:
    words = ["mount", "-o", f"remount,{mode}", str(place)]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0
