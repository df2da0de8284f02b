"""Run several Ray nodes on this machine that come and go with the work; Ctrl-C ends them all.

    python cluster/local/up.py [--port 6379] [--dashboard-port 8265] [--idle-minutes 0.2] ...

Starts a head without CPUs in the foreground, and an autoscaler that adds `train` and `sim` nodes when work waits and
removes them when they idle. The nodes (local_nodes.py) are Ray's fakes: real raylets whose CPUs are on paper. All of it
binds to loopback.

Costs: nothing but this machine's time. Logs: in /tmp/qsgd-*, gone at Ctrl-C; keep_logs.py keeps them. A lost head ends
all of it: start it again and submit the same study, which goes on from its rows.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

HOST = "127.0.0.1"
# `ray start` gives these to its workers (--min-worker-port, --max-worker-port), and ends with a traceback where another
# of its servers is to have one.
WORKER_PORTS = range(10002, 20000)
# What Ray's fake provider calls its head, by identity and by type.
HEAD_ID = "f" * 51 + "00000"
HEAD_TYPE = "ray.head.default"
# Ray asks for at least 78,643,200 bytes a node.
OBJECT_STORE_BYTES = 100 * 2**20
# How long each kind of process may take to end when it is asked to; then it is made to.
PATIENCE_S = 3.0
# What a client must have from the environment of the head.
CLIENT_SETTINGS = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")


def config(
    scratch: Path, port: int, train_cpus: int, sim_cpus: int, train_nodes: int, sim_nodes: int, idle_minutes: float
) -> dict[str, Any]:
    """Return the configuration of the autoscaler.

    Args:
        scratch: folder of the cluster's files.
        port: port of the head.
        train_cpus: CPUs of a `train` node.
        sim_cpus: CPUs of a `sim` node.
        train_nodes: most `train` nodes at a time.
        sim_nodes: most `sim` nodes at a time.
        idle_minutes: minutes after which an idle node is removed.
    """

    def nodes(name: str, cpus: int, at_most: int) -> dict[str, Any]:
        resources = {"CPU": cpus, name: cpus, "object_store_memory": OBJECT_STORE_BYTES}
        return {
            "resources": resources,
            "labels": {"group": name},
            "node_config": {},
            "min_workers": 0,
            "max_workers": at_most,
        }

    # Ray fills in no defaults for a provider from outside, and wants every list.
    lists = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands")
    starts = ("head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files")
    return {
        "cluster_name": "qsgd-ray-local",
        "max_workers": train_nodes + sim_nodes,
        "idle_timeout_minutes": idle_minutes,
        "upscaling_speed": 1.0,
        "provider": {
            "type": "external",
            "module": "local_nodes.LocalNodes",
            "nodes_folder": str(scratch),
            "gcs_address": f"{HOST}:{port}",
            "head_node_id": HEAD_ID,
            "launch_multiple": True,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "head_node_type": HEAD_TYPE,
        "available_node_types": {
            HEAD_TYPE: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "train": nodes("train", train_cpus, train_nodes),
            "sim": nodes("sim", sim_cpus, sim_nodes),
        },
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        **{name: [] for name in (*lists, *starts)},
    }


def environment(inherited: Mapping[str, str], token_file: Path) -> dict[str, str]:
    """Return the environment of the head; its nodes and the jobs that it runs inherit it.

    Args:
        inherited: the environment of this process. Its RAY_AUTH_MODE stays, with the token that belongs to it.
        token_file: the file of the token that counts where RAY_AUTH_MODE is not set.
    """
    env = {name: value for name, value in inherited.items() if name != "RAY_ADDRESS"}
    # Loopback keeps other machines out, a token the other users of this one.
    if not env.get("RAY_AUTH_MODE"):
        env.pop("RAY_AUTH_TOKEN", None)
        env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token_file)}
    return env | {
        # The address 127.0.0.1 is kept as it is only where Ray believes that no other machine can join.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_FAKE_CLUSTER": "1",
        # For local_nodes.py.
        "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parent), inherited.get("PYTHONPATH")])),
        "RAY_enable_autoscaler_v2": "1",
        # Without it the second autoscaler does not recognise the head and never adds a node.
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "AUTOSCALER_UPDATE_INTERVAL_S": inherited.get("AUTOSCALER_UPDATE_INTERVAL_S", "1"),
        "RAY_USAGE_STATS_ENABLED": inherited.get("RAY_USAGE_STATS_ENABLED", "0"),
    }


def command(scratch: Path, port: int, dashboard_port: int) -> list[str]:
    """Return the command `ray start` of the head."""
    # Where grpc is installed Ray also starts a server for remote drivers, and ends with it if its port is taken.
    for_drivers = [f"--ray-client-server-port={_free_port()}"] if importlib.util.find_spec("grpc") else []
    return [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"),
        *(f"--node-ip-address={HOST}", f"--port={port}", "--num-cpus=0", "--num-gpus=0"),
        *(f"--dashboard-host={HOST}", f"--dashboard-port={dashboard_port}", "--dashboard-agent-listen-port=0"),
        *(f"--object-store-memory={OBJECT_STORE_BYTES}", f"--temp-dir={scratch}"),
        f"--autoscaling-config={scratch / 'cluster.json'}",
        *for_drivers,
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Family:
    """A process and all its descendants, also those that outlive their parent: found by session and by parents."""

    def __init__(self, root: subprocess.Popen[bytes]) -> None:
        self._root = root
        self._known: dict[int, psutil.Process] = {}

    def alive(self) -> list[psutil.Process]:
        """Return the living processes; call it before any is ended, so that no link is lost."""
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                if os.getsid(process.pid) == self._root.pid:
                    self._known.setdefault(process.pid, process)
        # Jobs run in sessions of their own; they are found through their parents.
        for process in list(self._known.values()):
            with contextlib.suppress(psutil.Error):
                self._known.update({child.pid: child for child in process.children(recursive=True)})
        return [process for process in self._known.values() if _lives(process)]

    def end(self) -> None:
        """End all of them, politely first; returns when none is left."""
        # The autoscaler before the nodes that it would replace, and the nodes before the head that they take leave of.
        for program in ("monitor.py", "raylet", ""):
            for process in self._running(program):
                with contextlib.suppress(psutil.Error):
                    process.terminate()
            deadline = time.monotonic() + PATIENCE_S
            while self._running(program) and time.monotonic() < deadline:
                self._root.poll()
                time.sleep(0.1)
        while left := self.alive():
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            self._root.poll()
            time.sleep(0.1)
        self._root.wait()

    def _running(self, program: str) -> list[psutil.Process]:
        return [process for process in self.alive() if program in _programs(process)]


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _programs(process: psutil.Process) -> list[str]:
    """Return the names of the files that the process was started with; "" matches anything."""
    try:
        return ["", *(Path(word).name for word in process.cmdline()[:3])]
    except psutil.Error:
        return [""]


def _write_token(file: Path) -> None:
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(secrets.token_hex(32))


def _banner(port: int, dashboard_port: int, settings: Mapping[str, str]) -> str:
    storage = Path.home() / "qsgd-ray-results"
    exported = " ".join(f"{name}={settings[name]}" for name in CLIENT_SETTINGS if name in settings)
    return f"""
In another terminal, first:

  export {exported}

then a study, from the repository's root:

  ray job submit --address http://{HOST}:{dashboard_port} --working-dir . \\
      --runtime-env cluster/runtime-env.yaml -- qsgd-ray run studies/quick.py --storage {storage}

or from a driver of your own:

  qsgd-ray run studies/quick.py --address {HOST}:{port} --storage {storage}

Nodes: ray status --address {HOST}:{port}; dashboard: http://{HOST}:{dashboard_port}
(a browser is asked for the token).
Ctrl-C ends it all.
"""


def _arguments() -> argparse.Namespace:
    cores = os.cpu_count() or 1
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--port", type=int, default=6379, help="where Ray listens")
    parser.add_argument("--dashboard-port", type=int, default=8265, help="where jobs are submitted")
    # A trial's group of two workers and the actor that Tune has beside it fit on one node.
    parser.add_argument("--train-cpus", type=int, default=max(3, cores), help="logical CPUs of a train node")
    parser.add_argument("--sim-cpus", type=int, default=max(1, cores // 2), help="logical CPUs of a sim node")
    parser.add_argument("--train-nodes", type=int, default=1, help="train nodes at most")
    parser.add_argument("--sim-nodes", type=int, default=2, help="sim nodes at most")
    parser.add_argument("--idle-minutes", type=float, default=0.5, help="after so long without work, a node goes")
    return parser.parse_args()


def _refuse_ports(port: int, dashboard_port: int) -> None:
    """End with one line where Ray could not listen on these ports."""
    for option, number in (("--port", port), ("--dashboard-port", dashboard_port)):
        if not 1 <= number <= 65535:
            sys.exit(f"{option}: got {number}; allowed: 1 to 65535")
        if number in WORKER_PORTS:
            kept = f"{WORKER_PORTS.start} to {WORKER_PORTS.stop - 1}"
            sys.exit(f"{option}: got {number}; allowed: a port outside {kept}, which Ray keeps for its workers")
    if port == dashboard_port:
        sys.exit(f"--dashboard-port: got {port}; allowed: another port than that of --port")
    for number in (port, dashboard_port):
        _refuse_taken(number)


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            sys.exit(f"port {port} of {HOST} is taken ({error.strerror}); name others with --port and --dashboard-port")


def _answers(head: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until the port answers; return False where the head ends before."""
    while head.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection((HOST, port), timeout=1).close()
            return True
        time.sleep(0.2)
    return False


def main() -> int:
    """Start the head, wait for it or for a signal, and leave nothing behind."""
    asked = _arguments()
    _refuse_ports(asked.port, asked.dashboard_port)
    # Short: the names of Ray's sockets must stay below 107 characters. Ray opens the folder that it is given to all
    # users of the machine, so that is one within a folder of this user's alone.
    folder = Path(tempfile.mkdtemp(prefix="qsgd-", dir="/tmp"))  # nosec B108 # a new folder of this user's alone
    scratch, token_file = folder / "r", folder / "auth_token"
    scratch.mkdir()
    env = environment(os.environ, token_file)
    described = config(
        scratch, asked.port, asked.train_cpus, asked.sim_cpus, asked.train_nodes, asked.sim_nodes, asked.idle_minutes
    )

    def stop(signum: int, _: object) -> None:
        raise SystemExit(128 + signum)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    family = None
    try:
        _write_token(token_file)
        (scratch / "cluster.json").write_text(json.dumps(described, indent=2))
        # A session of its own: a Ctrl-C comes here alone, and all that starts there can be told by it.
        with (scratch / "head.log").open("wb") as log:
            head = subprocess.Popen(  # nosec B603 # Ray, with arguments that were checked
                command(scratch, asked.port, asked.dashboard_port),
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        family = Family(head)
        if _answers(head, asked.port) and _answers(head, asked.dashboard_port):
            print(_banner(asked.port, asked.dashboard_port, env), flush=True)
        code = head.wait()
        print(f"The head ended by itself ({code}):\n{(scratch / 'head.log').read_text()}", file=sys.stderr)
        return code or 1
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if family is not None:
            family.end()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
