"""This machine, with nodes that come and go: read by Ray, and started for real."""

import importlib.util
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import psutil
import pytest
from support.cluster_files import CLUSTER, autoscaling, check_groups, check_ray_start
from support.processes import STARTS_RAY_S, listening, lives, name_of, wait_until


def up() -> ModuleType:
    spec = importlib.util.spec_from_file_location("up", CLUSTER / "local" / "up.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_local_cluster_is_read_by_ray(tmp_path):
    described = up().config(tmp_path, 6379, train_cpus=3, sim_cpus=1, train_nodes=1, sim_nodes=2, idle_minutes=0.5)
    config = autoscaling(described)
    check_groups(config, "ray.head.default")
    types = config.get_node_type_configs()
    assert (types["train"].max_worker_nodes, types["sim"].max_worker_nodes) == (1, 2)
    assert described["provider"]["gcs_address"] == "127.0.0.1:6379"


def test_the_local_head_is_started_on_loopback_with_a_named_authentication(tmp_path):
    words = up().command(tmp_path, 6379, 8265)
    check_ray_start(words[words.index("start") + 1 :])
    assert {"--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--num-cpus=0"} <= set(words)
    own = up().environment({"RAY_AUTH_TOKEN": "another cluster's"}, tmp_path / "auth_token")
    assert (own["RAY_AUTH_MODE"], own["RAY_AUTH_TOKEN_PATH"]) == ("token", str(tmp_path / "auth_token"))
    assert "RAY_AUTH_TOKEN" not in own
    user = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64, "RAY_ADDRESS": "elsewhere:1"}
    kept = up().environment(user, tmp_path / "auth_token")
    assert "RAY_AUTH_TOKEN_PATH" not in kept
    assert up().environment({"RAY_AUTH_MODE": "disabled"}, tmp_path / "auth_token")["RAY_AUTH_MODE"] == "disabled"
    assert (kept["RAY_AUTH_MODE"], kept["RAY_AUTH_TOKEN"]) == ("token", "0" * 64)
    assert "RAY_ADDRESS" not in kept


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--dashboard-port", "17265"),
            "--dashboard-port: got 17265; allowed: a port outside 10002 to 19999, which",
        ),
        (("--port", "10002"), "--port: got 10002; allowed: a port outside 10002 to 19999"),
        (("--port", "70000"), "--port: got 70000; allowed: 1 to 65535"),
        (("--dashboard-port", "0"), "--dashboard-port: got 0; allowed: 1 to 65535"),
        (("--port", "8265"), "--dashboard-port: got 8265; allowed: another port than that of --port"),
    ],
)
def test_a_port_that_ray_cannot_have_is_one_line_before_anything_starts(monkeypatch, words, said):
    monkeypatch.setattr(sys, "argv", ["up.py", *words])
    with pytest.raises(SystemExit) as end:
        up().main()
    assert str(end.value).startswith(said)
    assert "\n" not in str(end.value)


def test_ray_gives_its_workers_the_ports_that_are_kept():
    from ray.scripts.scripts import start

    defaults = {parameter.name: parameter.default for parameter in start.params}
    kept = up().WORKER_PORTS
    assert (kept.start, kept.stop - 1) == (defaults["min_worker_port"], defaults["max_worker_port"])


def test_a_taken_port_is_refused_in_one_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, CLUSTER / "local" / "up.py", "--port", port], capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 1
    assert done.stderr.startswith(f"port {port} of 127.0.0.1 is taken")
    assert done.stderr.count("\n") == 1


TOLD = "groups "
# A driver in a process of its own: the tests' process may have another Ray. It asks for two sim nodes by a detached
# actor on each, tells the groups of the nodes it sees, ends the actors, and tells again when the nodes are gone.
DRIVER = """
import json, sys, time
import ray

ray.init(address=sys.argv[1], namespace="local", log_to_driver=False, logging_level="ERROR")

def groups():
    return sorted(node["Labels"].get("group", "head") for node in ray.nodes() if node["Alive"])

@ray.remote(num_cpus=1, resources={"sim": 1})
class Simulator:
    def node(self):
        return ray.get_runtime_context().get_node_id()

print("groups", json.dumps(groups()), flush=True)
actors = [Simulator.options(name=f"sim{i}", lifetime="detached").remote() for i in range(2)]
where = ray.get([actor.node.remote() for actor in actors], timeout=180)
print("groups", json.dumps([groups(), len(set(where))]), flush=True)
for actor in actors:
    ray.kill(actor)
deadline = time.monotonic() + 60
while groups() != ["head"] and time.monotonic() < deadline:
    time.sleep(0.2)
print("groups", json.dumps(groups()), flush=True)
"""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.xdist_group("local-cluster")
@pytest.mark.timeout(STARTS_RAY_S)
def test_local_nodes_come_with_work_and_go_without_and_nothing_is_left():
    port, dashboard_port = free_port(), free_port()
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env["RAY_worker_niceness"] = "0"  # as conftest.py says
    words = ("--port", port, "--dashboard-port", dashboard_port, "--sim-cpus", 1, "--idle-minutes", 0.02)
    launch = [sys.executable, str(CLUSTER / "local" / "up.py"), *map(str, words)]
    drive = [sys.executable, "-c", DRIVER, f"127.0.0.1:{port}"]
    seen: set[psutil.Process] = set()
    lines = []
    with subprocess.Popen(launch, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as launched:
        try:
            told = "".join(iter(lambda: line if "Ctrl-C" not in (line := launched.stdout.readline()) else "", ""))
            assert f"--address http://127.0.0.1:{dashboard_port}" in told
            exported = next(line for line in told.splitlines() if line.startswith("  export "))
            driver_env = env | dict(setting.split("=") for setting in exported.split()[1:])
            assert (driver_env["RAY_AUTH_MODE"], driver_env["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"]) == ("token", "0")
            token_file = Path(driver_env["RAY_AUTH_TOKEN_PATH"])
            modes = [stat.S_IMODE(path.stat().st_mode) for path in (token_file, token_file.parent)]
            assert modes == [0o600, 0o700]
            with subprocess.Popen(drive, env=driver_env, stdout=subprocess.PIPE, text=True) as driver:
                for line in driver.stdout:
                    if line.startswith(TOLD):  # Ray prints there too
                        lines.append(json.loads(line.removeprefix(TOLD)))
                    seen |= set(psutil.Process(launched.pid).children(recursive=True))
            assert driver.returncode == 0
            assert lines == [["head"], [["head", "sim", "sim"], 2], ["head"]]

            def raylets():
                return [process for process in seen if lives(process) and name_of(process) == "raylet"]

            # A node's processes end a moment after the node is gone.
            wait_until(lambda: len(raylets()) == 1, 30, "raylets are left of nodes that are gone")
            running = {process for process in seen if lives(process)}
            found = {ip.removeprefix("::ffff:") for process in running for ip, _ in listening(process)}
            assert found == {"127.0.0.1"}
        finally:
            launched.send_signal(signal.SIGTERM)
            _, errors = launched.communicate(timeout=60)
    assert (launched.returncode, errors) == (128 + signal.SIGTERM, "")
    assert len(seen) > 5
    assert not token_file.parent.exists()
    assert not [process for process in seen if lives(process)]
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=1)
