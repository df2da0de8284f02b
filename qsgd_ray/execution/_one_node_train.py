"""Run Ray Train on the single node of a private cluster: no dashboard, no port beyond loopback."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import ray
import ray.train
import torch.distributed as dist
from ray._raylet import PlacementGroupID
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.util import placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup


class PrivateTrainer(TorchTrainer):
    """A trainer for a cluster without dashboard and without datasets.

    Ray's own cleaner of placement groups asks the dashboard's state API. Where there is none it cleans nothing and
    holds up the end of every fit for 12 s (measured 2026-11-22 with Ray 2.60; the leak itself is ray issue 54305).
    A private cluster ends with its driver; where a search may leave a group behind, `release_placement_groups` cleans.
    The callback for datasets starts an actor, which takes 0.6 s a fit, and so does the client of the autoscaler.
    """

    def _create_default_callbacks(self) -> list[Any]:
        from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
        from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

        unwanted = (DatasetsCallback, PlacementGroupCleanerCallback)
        return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, unwanted)]

    def _initialize_and_run_controller(self, **parts: Any) -> Any:
        if type(parts["scaling_policy"]) is FixedScalingPolicy:
            parts["scaling_policy"] = _FixedSize(self.scaling_config)
        return super()._initialize_and_run_controller(**parts)


class _FixedSize(FixedScalingPolicy):
    """So many workers, and no request to the autoscaler, of which a single node has none."""

    def after_controller_start(self, train_run_context: Any) -> None:
        """Ask for nothing."""

    def _maybe_send_resource_request(self) -> None:
        """Ask for nothing."""


@contextmanager
def release_placement_groups() -> Iterator[None]:
    """Remove the placement groups that were made within the block and are left at its end.

    Tune kills the actors of a search 5 s after its last trial has ended (ray/tune/execution/tune_controller.py, 2.60).
    The actor of a trial that was stopped may still wait for its workers then. Their placement group belongs to the
    driver, not to that actor, so the next stage would wait for its CPUs for ever.
    """
    before = set(placement_group_table())
    yield
    # After an error the cluster ends, and what is held with it.
    for name, group in placement_group_table().items():
        if name not in before and group["state"] != "REMOVED":
            remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(name))))


class OneNodeTorchConfig(TorchConfig):
    """A process group that meets in a file below `folder`: torch's TCPStore would listen on every interface."""

    def __init__(self, folder: str, timeout_s: int) -> None:
        super().__init__(timeout_s=timeout_s)
        self.folder = folder

    @property
    def backend_cls(self) -> type[ray.train.backend.Backend]:
        return _OneNodeBackend


class _OneNodeBackend(ray.train.backend.Backend):
    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: OneNodeTorchConfig) -> None:
        folder = tempfile.mkdtemp(prefix="group-", dir=backend_config.folder)
        gpus = worker_group.get_resources_per_worker().get("GPU", 0)
        ray.get(
            [
                worker_group.execute_single_async(
                    rank,
                    _join,
                    # Positional: `rank` is also the name of a parameter of Ray's own.
                    "nccl" if gpus else "gloo",
                    f"file://{os.path.join(folder, 'store')}",
                    rank,
                    len(worker_group),
                    backend_config.timeout_s,
                )
                for rank in range(len(worker_group))
            ]
        )

    def on_shutdown(self, worker_group: Any, backend_config: OneNodeTorchConfig) -> None:
        """Leave all as it is: the processes end with their group, the file with the cluster's scratch folder."""


def _join(backend: str, url: str, rank: int, world_size: int, timeout_s: int) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        backend, init_method=url, rank=rank, world_size=world_size, timeout=timedelta(seconds=timeout_s)
    )
