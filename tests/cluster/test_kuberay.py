"""Kubernetes: the manifests, against the schemas of KubeRay's resources, an API server and Ray's own autoscaler."""

import re
import shlex
from typing import Any

import pytest
import yaml
from support.cluster_files import CLUSTER, ROOT, autoscaling, check_groups, names, started
from support.fake_kubernetes import fake_kubernetes, send, validator

FILES = [CLUSTER / "kuberay" / "raycluster.yaml", CLUSTER / "kuberay" / "rayjob.yaml"]


@pytest.fixture(scope="module")
def schemas():
    return {kind: validator(kind) for kind in ("RayCluster", "RayJob")}


@pytest.mark.parametrize("file", FILES, ids=names(FILES))
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
    manifest = yaml.safe_load(FILES[0].read_text())
    place = manifest
    for step in path:
        place = place[step]
    place[field] = 1
    (problem,) = schemas["RayCluster"].iter_errors(manifest)
    assert field in problem.message


def cluster_specs() -> dict[str, dict[str, Any]]:
    cluster, job = (yaml.safe_load(file.read_text()) for file in FILES)
    return {"RayCluster": cluster["spec"], "RayJob": job["spec"]["rayClusterSpec"]}


def test_a_job_describes_its_cluster_as_the_standing_one_is_described():
    specs = cluster_specs()
    assert specs["RayCluster"] == specs["RayJob"]


def autoscaling_of_kuberay():
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    return autoscaling(_derive_autoscaling_config_from_ray_cr(yaml.safe_load(FILES[0].read_text())))


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


ACCOUNT = yaml.safe_load((CLUSTER / "kuberay" / "serviceaccount.yaml").read_text())
TOKEN = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "qsgd-ray-token"},
    "stringData": {"auth_token": "0"},
}


def of_command(words: list[str]) -> tuple[str, dict[str, Any]] | None:
    """The request that a command of kubectl makes; None: it changes nothing."""
    options = dict(word.split("=", 1) for word in words if "=" in word)
    if words[1:4] == ["create", "secret", "generic"]:
        values = [
            word.removeprefix("--from-literal=").partition("=") for word in words if word.startswith("--from-lit")
        ]
        secret = TOKEN | {"metadata": {"name": words[4]}, "stringData": {key: value for key, _, value in values}}
        return "PUT", secret
    if words[1] in ("apply", "delete") and "-f" in words:
        file = ROOT / words[words.index("-f") + 1]
        return "PUT" if words[1] == "apply" else "DELETE", yaml.safe_load(file.read_text())
    assert words[1] in ("get", "port-forward", "logs", "exec"), (words, options)
    return None


def test_the_readmes_commands_are_taken_in_their_order_and_leave_no_cluster():
    section = re.search(r"^## Kubernetes\n(.*?)^## ", (CLUSTER / "README.md").read_text(), re.MULTILINE | re.DOTALL)[1]
    commands = re.findall(r"^    (kubectl .*?)(?:\s+# .*)?$", section, re.MULTILINE)
    assert len(commands) >= 8
    with fake_kubernetes() as (state, address):
        most = 0
        for command in commands:
            if request := of_command(shlex.split(command.replace("&", ""))):
                status, message = send(address, *request)
                assert status in (200, 201), (command, message)
            most = max(most, len(state.objects["RayCluster"]) + len(state.objects["RayJob"]))
        assert most == 1
        assert not state.objects["RayCluster"]
        assert not state.objects["RayJob"]
        assert {*state.objects["ServiceAccount"]} == {"qsgd-ray"}
        assert {*state.objects["Secret"]} == {"qsgd-ray-token", "qsgd-ray-storage"}


def change(described: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    *steps, last = path.split(".")
    place = described
    for step in steps:
        place = place[int(step) if step.isdigit() else step]
    place[last] = value
    return described


@pytest.mark.parametrize(
    ("before", "path", "value", "said"),
    [
        ([ACCOUNT, TOKEN], "spec.headGroupSpec.template.spec.serviceAccountName", "nobody", "serviceaccount 'nobody'"),
        ([TOKEN], "spec.rayVersion", "2.60.0", "serviceaccount 'qsgd-ray' not found"),
        ([ACCOUNT], "spec.rayVersion", "2.60.0", "secret 'qsgd-ray-token' with the key 'auth_token' not found"),
        ([ACCOUNT, TOKEN], "spec.authOptions.secretName", "other", "secret 'other' with the key"),
        ([ACCOUNT, TOKEN], "spec.workerGroupSpecs.0.replicas", "none", "'none' is not of type 'integer'"),
        ([ACCOUNT, TOKEN], "spec.workerGroupSpecs.1.rayStartParams", {"num-cpus": 8}, "8 is not of type 'string'"),
        ([ACCOUNT, TOKEN], "spec.authOptions.mode", "secret", "'secret' is not one of"),
        ([ACCOUNT, TOKEN], "apiVersion", "ray.io/v1alpha1", "no kind 'RayCluster' of 'ray.io/v1alpha1'"),
        ([ACCOUNT, TOKEN], "kind", "RayClusters", "no kind 'RayClusters'"),
    ],
)
def test_an_api_server_refuses_what_pods_could_not_start_from(before, path, value, said):
    with fake_kubernetes() as (state, address):
        for described in before:
            assert send(address, "PUT", described)[0] == 201
        status, message = send(address, "PUT", change(yaml.safe_load(FILES[0].read_text()), path, value))
        assert status in (404, 422)
        assert said in message
        assert not state.objects["RayCluster"]


def test_a_job_starts_no_cluster_anew_for_a_study_that_was_refused():
    spec = yaml.safe_load(FILES[1].read_text())["spec"]
    assert spec["backoffLimit"] == 0
    assert spec["entrypoint"].split()[:2] == ["bash", "/home/ray/qsgd-ray/cluster/run_study.sh"]
