"""Ray's fake nodes, each with a folder of its own; Ray's autoscaler loads this module by its name (up.py).

In: what the autoscaler asks for, a node type with its resources and labels. Out: a raylet on this machine.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ray._private.node import Node
from ray._private.parameter import RayParams
from ray._private.ray_constants import LABELS_ENVIRONMENT_VARIABLE, RESOURCES_ENVIRONMENT_VARIABLE
from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider
from ray.autoscaler.tags import (
    NODE_KIND_WORKER,
    STATUS_UP_TO_DATE,
    TAG_RAY_NODE_KIND,
    TAG_RAY_NODE_NAME,
    TAG_RAY_NODE_STATUS,
    TAG_RAY_USER_NODE_TYPE,
)


class LocalNodes(FakeMultiNodeProvider):  # type: ignore[misc]
    """As its parent, except that nodes share no folder.

    Ray 2.60 unpacks a job's working directory anew on every node that comes to use it, over the one that is there. In a
    folder shared with the head, each new node thus took the job's current directory away from under it.
    """

    def _create_node_with_resources_and_labels(
        self,
        node_config: dict[str, Any],  # noqa: ARG002
        tags: dict[str, str],
        count: int,  # noqa: ARG002
        resources: dict[str, float],
        labels: dict[str, str],
    ) -> None:
        left = dict(resources)
        with self.lock:
            node_id = self._next_hex_node_id()
            node_type = tags[TAG_RAY_USER_NODE_TYPE]
            folder = Path(self.provider_config["nodes_folder"], str(self._next_node_id))
            node = Node(
                RayParams(
                    gcs_address=self._gcs_address,
                    redis_address=self._gcs_address,
                    temp_dir=str(folder),
                    min_worker_port=0,
                    max_worker_port=0,
                    dashboard_port=None,
                    dashboard_agent_listen_port=0,
                    num_cpus=left.pop("CPU", 0),
                    num_gpus=left.pop("GPU", 0),
                    object_store_memory=left.pop("object_store_memory", None),
                    resources=left,
                    labels=labels,
                    env_vars={
                        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": node_id,
                        "RAY_CLOUD_INSTANCE_ID": node_id,
                        "RAY_NODE_TYPE_NAME": node_type,
                        RESOURCES_ENVIRONMENT_VARIABLE: json.dumps(left),
                        LABELS_ENVIRONMENT_VARIABLE: json.dumps(labels),
                    },
                ),
                head=False,
                shutdown_at_exit=False,
                spawn_reaper=False,
            )
            ours = {
                TAG_RAY_NODE_KIND: NODE_KIND_WORKER,
                TAG_RAY_USER_NODE_TYPE: node_type,
                TAG_RAY_NODE_NAME: node_id,
                TAG_RAY_NODE_STATUS: STATUS_UP_TO_DATE,
            }
            self._nodes[node_id] = {"tags": ours | tags, "node": node}
