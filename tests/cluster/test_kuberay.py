"""Kubernetes: the manifests, against the schemas of KubeRay's custom resources and Ray's own autoscaler."""

from typing import Any

import jsonschema
import pytest
import yaml
from support.cluster_files import CLUSTER, ROOT, autoscaling, check_groups, names, started

SCHEMAS = ROOT.parent / "shared" / "schemas" / "kuberay"
FILES = [CLUSTER / "kuberay" / "raycluster.yaml", CLUSTER / "kuberay" / "rayjob.yaml"]


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
