"""Nodes that a study pays for: the connected cluster in; their number by kind out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import ray
from ray.exceptions import RayError

from qsgd_ray.config import Study
from qsgd_ray.config.budget import node_label
from qsgd_ray.config.worker_resources import NODE_KIND
from qsgd_ray.execution.connection import Cluster
from qsgd_ray.execution.worker_requests import _every_resources

# Ray's own resources that are written like a kind.
_OF_RAY = ("memory", "object_store_memory")


def count_nodes(study: Study, cluster: Cluster) -> Counter[str] | None:
    """Return how many nodes the study pays for, by kind; None where Ray does not answer.

    Args:
        study: its resources name the kinds.
        cluster: a private Ray is one node of all these kinds.
    """
    if cluster.private:
        kinds = {kind for resources in _every_resources(study) for kind in resources.worker_node_resources()}
        return Counter([node_label([*kinds | study.resources.circuit_node_resources().keys()])])
    try:
        return _count(study, ray.nodes())
    except (RayError, ConnectionError):
        return None


def _count(study: Study, nodes: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Return the number of nodes that are alive and on which a process of the study may be, by kind.

    Args:
        study: its resources name the kinds; a process without one may be on every node with CPUs.
        nodes: as `ray.nodes` lists them.
    """
    roles = [resources.worker_node_resources() for resources in _every_resources(study)]
    if study.resources.circuit_actors is not None:
        roles.append(study.resources.circuit_node_resources())
    counts: Counter[str] = Counter()
    for node in nodes:
        present = {name for name, amount in node["Resources"].items() if amount}
        if node["Alive"] and any(role.keys() <= present and (role or "CPU" in present) for role in roles):
            counts[node_label([name for name in present if name not in _OF_RAY and re.fullmatch(NODE_KIND, name)])] += 1
    return counts
