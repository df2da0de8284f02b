"""The local cluster (cluster/local/up.py) for a test: started, watched through Ray's API, bereft of nodes, ended.

What Ray's API says comes from a process of its own, since the tests' process may have another Ray, and through a file:
Ray 2.60 prints what goes wrong in a cluster, as the loss of a node, on every driver's standard output, `log_to_driver`
or not (listen_error_messages in ray/_private/worker.py).
"""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from support.places import ROOT
from support.processes import lives, name_of

UP = ROOT / "cluster" / "local" / "up.py"
RUNTIME_ENV = ROOT / "cluster" / "runtime-env.yaml"
# Writes a line whenever Ray's API says something else than before.
WATCHER = """
import json, sys, time
import ray
from ray.util.state import list_actors, list_placement_groups
from ray.util.state.exception import RayStateApiException

address, dashboard, told = sys.argv[1:]
ray.init(address=address, log_to_driver=False, logging_level="ERROR")
before = None
with open(told, "w") as out:
    while True:
        nodes = {node["NodeID"]: node["Labels"].get("group", "head") for node in ray.nodes() if node["Alive"]}
        try:
            actors = [a for a in list_actors(address=dashboard, limit=1000) if a.state != "DEAD"]
            groups = [g.state for g in list_placement_groups(address=dashboard, limit=1000) if g.state != "REMOVED"]
        except RayStateApiException:  # the dashboard is busy
            actors, groups = None, None
        if actors is not None:
            where = sorted((a.class_name, a.state, a.node_id or "") for a in actors)
            now = {"nodes": nodes, "actors": where, "placement_groups": groups}
            if now != before:
                print(json.dumps(now), file=out, flush=True)
                before = now
        time.sleep(0.2)
"""


@dataclass(frozen=True)
class Seen:
    """State of a cluster: living nodes with their groups, actors by class, state and node, placement groups."""

    nodes: dict[str, str]
    actors: list[tuple[str, str, str]]
    placement_groups: list[str]

    @property
    def groups(self) -> list[str]:
        return sorted(self.nodes.values())

    def runs_on(self, class_name: str) -> set[str]:
        """The nodes on which such actors run; among them may be one that was just taken away."""
        return {node for name, state, node in self.actors if (name, state) == (class_name, "ALIVE")}


@dataclass(frozen=True)
class LocalCluster:
    address: str
    dashboard: str
    env: dict[str, str]  # of whoever connects to it
    session: int  # that all of its processes belong to
    watcher: subprocess.Popen
    told: Path

    def seen(self) -> list[Seen]:
        """Everything so far, in its order."""
        whole, _, _ = self.told.read_text().rpartition("\n") if self.told.exists() else ("", "", "")
        return [Seen(**json.loads(line)) for line in whole.splitlines()]

    def wait_until(self, holds: Callable[[Seen], bool], deadline_s: float, what: str) -> None:
        """`holds`: of what there is now."""
        began = time.monotonic()
        while not (seen := self.seen()) or not holds(seen[-1]):
            assert self.watcher.poll() is None, "the watcher ended"
            assert time.monotonic() - began < deadline_s, f"{what}: {seen[-1:]}"
            time.sleep(0.2)

    @contextmanager
    def study(self, study_file: Path, storage: Path) -> Iterator[subprocess.Popen]:
        """`qsgd-ray run` there, killed at the end if it still runs; what it says goes to `told` in its storage."""
        words = [sys.executable, "-m", "qsgd_ray.cli", "run", study_file, "--address", self.address]
        with (storage / "told").open("w") as told:
            words += ["--storage", storage]
            with subprocess.Popen([*map(str, words)], env=self.env, stdout=told, stderr=subprocess.STDOUT) as running:
                try:
                    yield running
                finally:
                    running.kill()

    def job(self, folder: Path, *words: str | Path) -> str:
        """Return what `qsgd-ray ...` says as a job that is submitted from a folder; it must end well."""
        submit = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", self.dashboard]
        submit += ["--working-dir", ".", "--runtime-env", RUNTIME_ENV, "--", sys.executable, "-m", "qsgd_ray.cli"]
        ended = subprocess.run(
            [*map(str, submit), *map(str, words)], cwd=folder, env=self.env, capture_output=True, text=True, timeout=300
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def family(self) -> list[psutil.Process]:
        """All processes of the head and of its nodes, also those that outlived their parents."""
        found = []
        for process in psutil.process_iter():
            with suppress(OSError):
                if os.getsid(process.pid) == self.session and lives(process):
                    found.append(process)
        return found

    def processes_of(self, node: str) -> list[psutil.Process]:
        """All processes of one node: those that name its folder (local_nodes.py), and their children."""
        folder = f"/{int(node[-5:])}/session_"
        found = {}
        for process in self.family():
            with suppress(psutil.Error):
                if any(folder in word for word in process.cmdline()):
                    found |= {p.pid: p for p in [process, *process.children(recursive=True)]}
        return [process for process in found.values() if lives(process)]

    def lose(self, node: str) -> None:
        """As a machine goes that is switched off: all at once, and nobody says so."""
        processes = self.processes_of(node)
        assert "raylet" in map(name_of, processes)
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def local_cluster(folder: Path, *words: str) -> Iterator[LocalCluster]:
    """A head alone and what it takes to grow; at the end no process of it may be left."""
    port, dashboard = free_port(), free_port()
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env["RAY_worker_niceness"] = "0"  # as in conftest.py
    env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    # Ray asks a node every 3 s whether it lives, and takes it for lost after five times without an answer.
    launch_env = env | {"RAY_health_check_failure_threshold": "2"}
    ours = ("--port", port, "--dashboard-port", dashboard, "--idle-minutes", 0.05)
    launch = [sys.executable, str(UP), *map(str, ours), *words]
    here = env | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    address, told = f"127.0.0.1:{port}", folder / "seen"
    with subprocess.Popen(
        launch, env=launch_env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as launched:
        family: list[psutil.Process] = []
        try:
            while "Ctrl-C" not in launched.stdout.readline():
                assert launched.poll() is None
            of_dashboard = f"http://127.0.0.1:{dashboard}"
            watch = [sys.executable, "-c", WATCHER, address, of_dashboard, str(told)]
            with subprocess.Popen(watch, env=here, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as watcher:
                (head,) = psutil.Process(launched.pid).children()
                cluster = LocalCluster(address, of_dashboard, here, head.pid, watcher, told)
                try:
                    cluster.wait_until(lambda _: True, 60, "the watcher says nothing")
                    yield cluster
                finally:
                    watcher.kill()
                    family = cluster.family()
        finally:
            launched.send_signal(signal.SIGTERM)
            launched.communicate(timeout=60)
    assert not [process for process in family if lives(process)]
