"""A real study on a cluster that grows for it and shrinks after it: a head without CPUs, and nodes that come and go."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from qsgd_ray.results import read

pytestmark = [pytest.mark.xdist_group("local-cluster"), pytest.mark.timeout(300)]

UP = Path(__file__).parents[1] / "cluster" / "local" / "up.py"
STUDY = """
from qsgd_ray.config import *

rate = LogUniform(low=1e-3, high=1e-2)
model = Transformer(d_model=8, n_heads=2, d_feedforward=8, n_layers=1)
STUDY = Study(
    name="small",
    question="Does it run where it is told to?",
    workload=TextTask(train_size=64, validation_size=64, test_size=64, model=model),
    arms=(
        Arm(name="adamw", learning_rate=rate),
        Arm(name="circuit", learning_rate=rate, perturbation=Perturbation(source="circuit", n_qubits=2)),
    ),
    baseline="adamw",
    search=Search(trials_per_arm=1, epochs=1, grace_epochs=1),
    confirm=Confirm(seeds=(11, 12), epochs=2, workers=2),
    decision=Decision(margin=0.05),
    resources=Resources(worker_nodes="train", circuit_nodes="sim", circuit_actors=2),
)
"""
# In a process of its own, since the tests' own may have another Ray: what Ray's API says of the nodes, whenever it is
# something else, and on which of them actors and workers run.
WATCHER = """
import json, sys, time
import ray
from ray.util.state import list_actors

ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
before = None
while True:
    nodes = {node["NodeID"]: node["Labels"].get("group", "head") for node in ray.nodes() if node["Alive"]}
    where = {}
    for actor in list_actors(address=sys.argv[2], limit=1000):
        if actor.state == "ALIVE" and actor.class_name in ("CircuitActor", "RayTrainWorker"):
            where.setdefault(actor.class_name, set()).add(nodes.get(actor.node_id))
    now = [sorted(nodes.values()), {name: sorted(map(str, groups)) for name, groups in sorted(where.items())}]
    if now != before:
        print(json.dumps(now), flush=True)
        before = now
    time.sleep(0.2)
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_a_study_brings_a_train_node_and_two_sim_nodes_and_leaves_the_head_alone(tmp_path):
    port, dashboard = free_port(), free_port()
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    words = ("--port", port, "--dashboard-port", dashboard, "--idle-minutes", 0.05)
    sizes = ("--train-cpus", 2, "--sim-cpus", 1)
    launch = [sys.executable, str(UP), *map(str, (*words, *sizes))]
    here = env | {"RAY_AUTH_MODE": "disabled", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    address = f"127.0.0.1:{port}"
    (tmp_path / "small.py").write_text(STUDY)
    run = [sys.executable, "-m", "qsgd_ray.cli", "run", str(tmp_path / "small.py"), "--address", address]
    seen = []

    with subprocess.Popen(launch, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as launched:
        try:
            while "Ctrl-C" not in launched.stdout.readline():
                assert launched.poll() is None
            watch = [sys.executable, "-c", WATCHER, address, f"http://127.0.0.1:{dashboard}"]
            with subprocess.Popen(watch, env=here, stdout=subprocess.PIPE, text=True) as watcher:
                reader = threading.Thread(target=lambda: seen.extend(map(json.loads, watcher.stdout)))
                reader.start()
                try:
                    done = subprocess.run(
                        [*run, "--storage", str(tmp_path)], env=here, capture_output=True, text=True, timeout=200
                    )
                    patience = time.monotonic() + 60
                    while (not seen or seen[-1][0] != ["head"]) and time.monotonic() < patience:
                        time.sleep(0.2)
                finally:
                    watcher.kill()
                    reader.join()
        finally:
            launched.send_signal(signal.SIGTERM)
            launched.communicate(timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The study waits for the cluster to grow: it needs" in done.stdout
    assert "a node of the kind train, a node of the kind sim" in " ".join(done.stdout.split())
    nodes = [groups for groups, _ in seen]
    assert nodes[0] == ["head"]
    assert max(nodes, key=len) == ["head", "sim", "sim", "train"]
    assert nodes[-1] == ["head"]
    ran = [(name, group) for _, where in seen for name, groups in where.items() for group in groups]
    expected = {("CircuitActor", "sim"), ("RayTrainWorker", "train")}
    assert {place for place in ran if place[1] != "None"} == expected, "None: on a node that was just taken away"
    rows = read(tmp_path / "small").trials.to_pylist()
    assert len(rows) == 6
    assert {row["ending"] for row in rows} == {"completed"}
