"""The cluster descriptions, against the schemas of what reads them; the local one is started for real."""

import copy
import importlib.util
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import psutil
import pytest
import yaml

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "cluster"
SCHEMAS = ROOT.parent / "shared" / "schemas" / "kuberay"
# What a person who uses it fills in (README.md says so), and what Python leaves behind.
FILES = sorted(file for file in CLUSTER.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
RAY_UP = [CLUSTER / "aws.yaml", CLUSTER / "gcp.yaml"]
KUBERAY = [CLUSTER / "kuberay" / "raycluster.yaml", CLUSTER / "kuberay" / "rayjob.yaml"]
SBATCH = CLUSTER / "slurm" / "study.sbatch"
RAY = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]


def names(files: list[Path]) -> list[str]:
    return [str(file.relative_to(CLUSTER)) for file in files]


def up() -> ModuleType:
    spec = importlib.util.spec_from_file_location("up", CLUSTER / "local" / "up.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def autoscaling(described: dict[str, Any]):
    """As Ray's second autoscaler reads it: defaults filled in, validated by ray-schema.json, node types built."""
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

    return AutoscalingConfig(copy.deepcopy(described), skip_content_hash=True)


# The head, training workers, circuit actors


def check_groups(config, head: str, sims: tuple[str, ...] = ("sim",)) -> None:
    types = config.get_node_type_configs()
    assert config.get_head_node_type() == head
    assert set(types) == {head, "train", *sims}
    assert types[head].resources.get("CPU") == 0, "no trial and no circuit on the head"
    for group in ("train", *sims):
        assert types[group].min_worker_nodes == 0 < types[group].max_worker_nodes
        resource = "train" if group == "train" else "sim"
        assert types[group].resources[resource] >= 1
        assert types[group].labels["group"] == resource
    assert sum(types[group].max_worker_nodes for group in ("train", *sims)) <= config.get_max_num_worker_nodes()


@pytest.mark.parametrize("file", RAY_UP, ids=names(RAY_UP))
def test_ray_up_reads_its_files(file):
    config = autoscaling(yaml.safe_load(file.read_text()))
    check_groups(config, "head")
    types = config.get_node_type_configs()
    assert types["train"].resources["GPU"] >= 1
    assert "GPU" not in types["sim"].resources


@pytest.mark.parametrize("file", RAY_UP, ids=names(RAY_UP))
def test_ray_up_refuses_what_its_schema_does_not_know(file):
    described = yaml.safe_load(file.read_text())
    described["idle_minutes"] = 5
    with pytest.raises(jsonschema.ValidationError, match="idle_minutes"):
        autoscaling(described)


@pytest.mark.parametrize("file", RAY_UP, ids=names(RAY_UP))
def test_sim_nodes_of_a_cloud_are_spot_and_the_others_are_not(file):
    types = yaml.safe_load(file.read_text())["available_node_types"]
    spot = {name: "spot" in json.dumps(kind["node_config"]).lower() for name, kind in types.items()}
    assert spot == {"head": False, "train": False, "sim": True}


@pytest.mark.parametrize("file", RAY_UP, ids=names(RAY_UP))
def test_cloud_nodes_have_a_token_and_an_installation_with_the_tested_versions(file):
    described = yaml.safe_load(file.read_text())
    mounts = described["file_mounts"]
    assert mounts["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"
    missing = [local for local in mounts.values() if not local.startswith("~") and not (ROOT / local).exists()]
    assert not missing
    assert any("--constraint constraints.txt" in command for command in described["setup_commands"])
    starts = [described["head_start_ray_commands"][-1], described["worker_start_ray_commands"][-1]]
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    for command in starts:
        check_ray_start(command.partition("ray start ")[2].split())


def check_ray_start(words: list[str]) -> None:
    """`ray start` knows the options; nothing is started."""
    from ray.scripts.scripts import start

    start.make_context("start", list(words))


@pytest.mark.parametrize("file", RAY_UP, ids=names(RAY_UP))
def test_setup_commands_are_bash(file):
    described = yaml.safe_load(file.read_text())
    commands = [line for key in described if key.endswith("_commands") for line in described[key]]
    assert len(commands) >= 8
    for command in commands:
        subprocess.run(["bash", "-n", "-c", command], check=True)


# What Ray's second autoscaler would start for what waits, decided by Ray itself on the files


def started(config, *waiting: dict[str, float]) -> dict[str, int]:
    """Node types and how many of them, for resource requests on a cluster that has only its head."""
    from ray.autoscaler.v2.event_logger import AutoscalerEventLogger
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil

    requests = [ResourceRequestUtil.make(resources) for resources in waiting]
    reply = ResourceDemandScheduler(AutoscalerEventLogger(logging.getLogger("events"))).schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=config.get_node_type_configs(),
            max_num_nodes=config.get_max_num_nodes(),
            resource_requests=ResourceRequestUtil.group_by_count(requests),
        )
    )
    assert not reply.infeasible_resource_requests
    head = config.get_head_node_type()
    return {launch.instance_type: launch.count for launch in reply.to_launch if launch.instance_type != head}


@pytest.mark.parametrize("file", RAY_UP, ids=names(RAY_UP))
def test_circuits_bring_sim_nodes_and_gpus_bring_train_nodes(file):
    config = autoscaling(yaml.safe_load(file.read_text()))
    assert started(config, *[{"CPU": 1.0}] * 8) == {"sim": 1}
    assert started(config, *[{"CPU": 1.0}] * 9) == {"sim": 2}
    assert started(config, *[{"CPU": 1.0, "GPU": 1.0}] * 2) == {"train": 2}
    assert started(config, {"sim": 1.0}, {"train": 1.0}) == {"sim": 1, "train": 1}


# Kubernetes


def resource_schema(kind: str) -> dict[str, Any]:
    file = SCHEMAS / {"RayCluster": "ray.io_rayclusters.yaml", "RayJob": "ray.io_rayjobs.yaml"}[kind]
    if not file.exists():
        pytest.skip(f"needs {file.name} of the KubeRay project")
    definition = yaml.load(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (served,) = [version for version in definition["spec"]["versions"] if version["name"] == "v1"]
    return structural(served["schema"]["openAPIV3Schema"])


def structural(schema: Any) -> Any:
    """A structural schema as JSON Schema: what it does not name is refused, as `kubectl --validate=strict` does.

    The API server itself knows `metadata`, which the schema leaves open.
    """
    if isinstance(schema, list):
        return [structural(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: structural(value) for key, value in schema.items() if key not in ("properties", "pattern")}
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("anyOf", None)
        made["type"] = ["integer", "string"]
    if "pattern" in schema:
        # Of a quantity; numbers have none.
        made["pattern"] = schema["pattern"]
    if "properties" in schema:
        made["properties"] = {name: structural(value) for name, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in schema:
            made["additionalProperties"] = False
    if schema.get("nullable"):
        made["type"] = [schema["type"], "null"]
    return made


@pytest.fixture(scope="module")
def schemas():
    return {kind: jsonschema.Draft202012Validator(resource_schema(kind)) for kind in ("RayCluster", "RayJob")}


@pytest.mark.parametrize("file", KUBERAY, ids=names(KUBERAY))
def test_kuberay_takes_its_manifests(file, schemas):
    manifest = yaml.safe_load(file.read_text())
    assert manifest["apiVersion"] == "ray.io/v1"
    problems = [f"{error.json_path}: {error.message}" for error in schemas[manifest["kind"]].iter_errors(manifest)]
    assert not problems


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (("spec",), "enableAutoscaling"),
        (("spec", "autoscalerOptions"), "idleTimeoutMinutes"),
        (("spec", "workerGroupSpecs", 0), "minReplica"),
        (("spec", "workerGroupSpecs", 0, "template", "spec"), "nodeselector"),
        (("spec", "workerGroupSpecs", 0, "template", "spec", "containers", 0), "limits"),
    ],
)
def test_the_check_sees_a_field_that_kuberay_does_not_know(path, field, schemas):
    manifest = yaml.safe_load(KUBERAY[0].read_text())
    place = manifest
    for step in path:
        place = place[step]
    place[field] = 1
    (problem,) = schemas["RayCluster"].iter_errors(manifest)
    assert field in problem.message


def cluster_specs() -> dict[str, dict[str, Any]]:
    cluster, job = (yaml.safe_load(file.read_text()) for file in KUBERAY)
    return {"RayCluster": cluster["spec"], "RayJob": job["spec"]["rayClusterSpec"]}


def test_a_job_describes_its_cluster_as_the_standing_one_is_described():
    specs = cluster_specs()
    assert specs["RayCluster"] == specs["RayJob"]


def autoscaling_of_kuberay():
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    return autoscaling(_derive_autoscaling_config_from_ray_cr(yaml.safe_load(KUBERAY[0].read_text())))


def test_circuits_bring_spot_pods_first():
    config = autoscaling_of_kuberay()
    assert started(config, {"CPU": 1.0}) == {"sim-spot": 1}
    assert started(config, {"CPU": 1.0, "GPU": 1.0}) == {"train": 1}
    assert started(config, *[{"CPU": 8.0}] * 9) == {"sim-spot": 8, "sim": 1}


def test_rays_autoscaler_reads_the_groups_of_kuberay():
    config = autoscaling_of_kuberay()
    check_groups(config, "headgroup", sims=("sim", "sim-spot"))
    types = config.get_node_type_configs()
    assert types["train"].resources["GPU"] == 1
    assert types["sim"].resources == types["sim-spot"].resources
    assert types["sim-spot"].priority > types["sim"].priority
    assert all(types[group].idle_timeout_s for group in ("train", "sim", "sim-spot"))


def test_kuberay_has_a_token_the_second_autoscaler_and_fixed_shares():
    spec = cluster_specs()["RayCluster"]
    assert spec["authOptions"]["mode"] == "token"
    assert spec["authOptions"]["secretName"]
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["autoscalerOptions"]["version"] == "v2"
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    shares = [group["template"]["spec"]["containers"][0]["resources"] for group in groups]
    for share in (*shares, spec["autoscalerOptions"]["resources"]):
        assert share["requests"] == share["limits"]
    assert all(group["template"]["spec"]["restartPolicy"] == "Never" for group in groups)
    images = {group["template"]["spec"]["containers"][0]["image"] for group in groups}
    assert len(images) == 1


def test_spot_pods_go_to_spot_nodes_alone_and_bear_their_taint():
    groups = {
        group["groupName"]: group["template"]["spec"] for group in cluster_specs()["RayCluster"]["workerGroupSpecs"]
    }
    (label,) = groups["sim-spot"]["nodeSelector"]
    assert [toleration["key"] for toleration in groups["sim-spot"]["tolerations"]] == [label]
    assert "nodeSelector" not in groups["sim"]


# Slurm


def test_shell_scripts_are_bash():
    scripts = [file for file in FILES if file.suffix in (".sh", ".sbatch")]
    assert scripts
    for script in scripts:
        subprocess.run(["bash", "-n", str(script)], check=True)
        first, text = script.read_text().split("\n", 1)
        assert first == "#!/bin/bash"
        assert "set -euo pipefail" in text


FAKE_SLURM = {
    # srun: its own options away, the rest is run; once, as this node.
    "srun": 'while [[ $1 == --* ]]; do shift; done\nexec "$@"\n',
    "scontrol": "echo node1; echo node2\n",
    "hostname": "echo 192.0.2.1 192.0.2.2\n",
    # ray: what it is told is kept; what comes after -- is run, as the launcher does on the first node.
    "ray": 'printf "%s\\n" "$@" > "$SEEN/ray"\n'
    'if [[ -e $SEEN/broken ]]; then exit 0; fi\nwhile [[ $1 != -- ]]; do shift; done\nshift\n"$@"\nexit 0\n',
    "qsgd-ray": 'printf "%s\\n" "$@" > "$SEEN/qsgd-ray"\n'
    'echo "$RAY_AUTH_MODE $RAY_AUTH_TOKEN" > "$SEEN/token"\nexit 7\n',
}


@pytest.fixture
def allocation(tmp_path):
    """A made-up allocation of two nodes: Slurm, Ray and qsgd-ray are scripts that tell what they were asked."""
    venv = tmp_path / "venv" / "bin"
    venv.mkdir(parents=True)
    (venv / "activate").write_text(f'PATH="{venv}:$PATH"\n')
    for name, text in FAKE_SLURM.items():
        (venv / name).write_text(f"#!/bin/bash\n{text}")
        (venv / name).chmod(0o755)
    env = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "SEEN": str(tmp_path),
        "QSGD_RAY_VENV": str(tmp_path / "venv"),
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_ON_NODE": "6",
    }

    def submit(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run(["bash", str(SBATCH), *words], env=env, capture_output=True, text=True, timeout=60)

    return submit


def test_slurm_runs_one_study_on_all_nodes_and_ends_as_it_ended(allocation, tmp_path):
    done = allocation("studies/a study.py", "s3://bucket/results", "--set", "confirm.epochs=2")
    assert done.returncode == 7, done.stderr
    told = (tmp_path / "ray").read_text().splitlines()
    address = told[told.index("--address") + 1]
    assert told[0] == "symmetric-run"
    assert address.startswith("192.0.2.1:")
    assert told[told.index("--min-nodes") + 1] == "2"
    starts = [word for word in told[: told.index("--")] if word.startswith("--") and "=" in word]
    check_ray_start([*starts, "--disable-usage-stats"])
    assert '--resources={"sim": 6}' in starts
    asked = (tmp_path / "qsgd-ray").read_text().splitlines()
    assert asked[:2] == ["run", "studies/a study.py"]
    assert asked[asked.index("--address") + 1] == address
    assert asked[asked.index("--storage") + 1] == "s3://bucket/results"
    assert asked[-2:] == ["--set", "confirm.epochs=2"]
    mode, token = (tmp_path / "token").read_text().split()
    assert mode == "token"
    assert len(token) == 64


def test_slurm_fails_where_ray_did_not_start(allocation, tmp_path):
    (tmp_path / "broken").touch()
    done = allocation("studies/quick.py", "results")
    assert done.returncode == 1
    assert "Ray did not start" in done.stderr


def test_slurm_says_how_it_is_used(allocation):
    done = allocation("studies/quick.py")
    assert done.returncode == 2
    assert done.stderr.startswith("usage: sbatch")


def test_rays_launcher_has_the_options_that_the_slurm_script_uses():
    from ray.scripts.symmetric_run import symmetric_run

    options = {option for parameter in symmetric_run.params for option in parameter.opts}
    assert {"--address", "--min-nodes"} <= options


# All of them


def test_readme_names_every_file_and_every_file_it_names_is_there():
    text = (CLUSTER / "README.md").read_text()
    for file in names(FILES):
        assert file == "README.md" or file in text, f"the README does not name {file}"
    # In the text's own words, from the root or from cluster/.
    named = set(re.findall(r"(?<![\w./:-])((?:cluster|studies|qsgd_ray)/[\w./-]+\.\w+)", text))
    links = set(re.findall(r"\]\((?!https?:)([^)#]+)\)", text))
    assert named
    assert links
    missing = [name for name in named if not (ROOT / name).exists()]
    missing += [name for name in links if not (CLUSTER / name).exists()]
    assert not missing


@pytest.mark.parametrize("file", FILES, ids=names(FILES))
def test_no_science_lies_in_the_clusters(file):
    text = file.read_text()
    science = r"lambda_|learning_rate|\bseeds?\b|n_qubits|weight_decay|\bepochs\b|\bmargin\b|trials_per_arm"
    assert not re.findall(science, text if file.suffix != ".md" else ""), "that belongs in a study"


def test_one_version_of_ray_everywhere():
    found = {}
    for file in FILES:
        patterns = (
            r"rayproject/ray:(\d[\w.]*)",
            r"qsgd-ray:(\d[\w.]*)",
            r'rayVersion: "([^"]+)"',
            r"ray\[\w+\]==([\d.]+)",
        )
        for version in (hit for pattern in patterns for hit in re.findall(pattern, file.read_text())):
            found.setdefault(version, set()).add(str(file.relative_to(CLUSTER)))
    assert set(found) == {RAY}, found
    assert len(found[RAY]) >= 5


# The local one


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
    assert up().environment({})["RAY_AUTH_MODE"] == "disabled"
    kept = up().environment({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64, "RAY_ADDRESS": "elsewhere:1"})
    assert (kept["RAY_AUTH_MODE"], kept["RAY_AUTH_TOKEN"]) == ("token", "0" * 64)
    assert "RAY_ADDRESS" not in kept


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


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

print(json.dumps(groups()), flush=True)
actors = [Simulator.options(name=f"sim{i}", lifetime="detached").remote() for i in range(2)]
where = ray.get([actor.node.remote() for actor in actors], timeout=60)
print(json.dumps([groups(), len(set(where))]), flush=True)
for actor in actors:
    ray.kill(actor)
deadline = time.monotonic() + 60
while groups() != ["head"] and time.monotonic() < deadline:
    time.sleep(0.2)
print(json.dumps(groups()), flush=True)
"""


def lives(process: psutil.Process) -> bool:
    """Does it run? What has ended and was not buried by whoever adopted it (a container's first process) does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.xdist_group("local-cluster")
def test_local_nodes_come_with_work_and_go_without_and_nothing_is_left():
    port, dashboard_port = free_port(), free_port()
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    words = ("--port", port, "--dashboard-port", dashboard_port, "--sim-cpus", 1, "--idle-minutes", 0.02)
    launch = [sys.executable, str(CLUSTER / "local" / "up.py"), *map(str, words)]
    driver_env = env | {"RAY_AUTH_MODE": "disabled", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    drive = [sys.executable, "-c", DRIVER, f"127.0.0.1:{port}"]
    seen: set[psutil.Process] = set()
    lines = []
    with subprocess.Popen(launch, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as launched:
        try:
            told = "".join(iter(lambda: line if "Ctrl-C" not in (line := launched.stdout.readline()) else "", ""))
            assert f"--address http://127.0.0.1:{dashboard_port}" in told
            with subprocess.Popen(drive, env=driver_env, stdout=subprocess.PIPE, text=True) as driver:
                for line in driver.stdout:
                    lines.append(json.loads(line))
                    seen |= set(psutil.Process(launched.pid).children(recursive=True))
            assert driver.returncode == 0
            assert lines == [["head"], [["head", "sim", "sim"], 2], ["head"]]
            running = {process for process in seen if lives(process)}
            assert sum(process.name() == "raylet" for process in running) == 1
            listening = {c.laddr.ip for p in running for c in p.net_connections("tcp") if c.status == "LISTEN"}
            assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}
        finally:
            launched.send_signal(signal.SIGTERM)
            _, errors = launched.communicate(timeout=60)
    assert (launched.returncode, errors) == (128 + signal.SIGTERM, "")
    assert len(seen) > 5
    assert not [process for process in seen if lives(process)]
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=1)
