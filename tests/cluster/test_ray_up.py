"""AWS and Google Cloud: the files of `ray up`, against its schema and its own autoscaler."""

import json
import subprocess

import jsonschema
import pytest
import yaml
from support.cluster_files import CLUSTER, ROOT, autoscaling, check_groups, check_ray_start, names, started

FILES = [CLUSTER / "aws.yaml", CLUSTER / "gcp.yaml"]


@pytest.mark.parametrize("file", FILES, ids=names(FILES))
def test_ray_up_reads_its_files(file):
    config = autoscaling(yaml.safe_load(file.read_text()))
    check_groups(config, "head")
    types = config.get_node_type_configs()
    assert types["train"].resources["GPU"] >= 1
    assert "GPU" not in types["sim"].resources


@pytest.mark.parametrize("file", FILES, ids=names(FILES))
def test_ray_up_refuses_what_its_schema_does_not_know(file):
    described = yaml.safe_load(file.read_text())
    described["idle_minutes"] = 5
    with pytest.raises(jsonschema.ValidationError, match="idle_minutes"):
        autoscaling(described)


@pytest.mark.parametrize("file", FILES, ids=names(FILES))
def test_sim_nodes_of_a_cloud_are_spot_and_the_others_are_not(file):
    types = yaml.safe_load(file.read_text())["available_node_types"]
    spot = {name: "spot" in json.dumps(kind["node_config"]).lower() for name, kind in types.items()}
    assert spot == {"head": False, "train": False, "sim": True}


@pytest.mark.parametrize("file", FILES, ids=names(FILES))
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


@pytest.mark.parametrize("file", FILES, ids=names(FILES))
def test_setup_commands_are_bash(file):
    described = yaml.safe_load(file.read_text())
    commands = [line for key in described if key.endswith("_commands") for line in described[key]]
    assert len(commands) >= 8
    for command in commands:
        subprocess.run(["bash", "-n", "-c", command], check=True)


@pytest.mark.parametrize("file", FILES, ids=names(FILES))
def test_circuits_bring_sim_nodes_and_gpus_bring_train_nodes(file):
    config = autoscaling(yaml.safe_load(file.read_text()))
    assert started(config, *[{"CPU": 1.0}] * 8) == {"sim": 1}
    assert started(config, *[{"CPU": 1.0}] * 9) == {"sim": 2}
    assert started(config, *[{"CPU": 1.0, "GPU": 1.0}] * 2) == {"train": 2}
    assert started(config, {"sim": 1.0}, {"train": 1.0}) == {"sim": 1, "train": 1}
