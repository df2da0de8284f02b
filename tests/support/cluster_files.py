"""The cluster descriptions as Ray reads them, and what all of them promise."""

import copy
import logging
from pathlib import Path
from typing import Any

from support.places import ROOT

CLUSTER = ROOT / "cluster"
# All but what Python leaves behind.
FILES = sorted(file for file in CLUSTER.rglob("*") if file.is_file() and "__pycache__" not in file.parts)


def names(files: list[Path]) -> list[str]:
    return [str(file.relative_to(CLUSTER)) for file in files]


def autoscaling(described: dict[str, Any]):
    """As Ray's second autoscaler reads it: defaults filled in, validated by ray-schema.json, node types built."""
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

    return AutoscalingConfig(copy.deepcopy(described), skip_content_hash=True)


def check_groups(config, head: str, sims: tuple[str, ...] = ("sim",)) -> None:
    """There is a head without CPUs, and training workers and circuit actors have nodes that come and go."""
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


def started(config, *waiting: dict[str, float]) -> dict[str, int]:
    """Node types and how many of them, for resource requests on a cluster that has only its head; Ray decides."""
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


def check_ray_start(words: list[str]) -> None:
    """`ray start` knows the options; nothing is started."""
    from ray.scripts.scripts import start

    start.make_context("start", list(words))
