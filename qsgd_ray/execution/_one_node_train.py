"""Ray Train on the one node of a private cluster: no dashboard to wait for, no port beyond loopback."""

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
from ray.util import placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup


class PrivateTrainer(TorchTrainer):
    """A trainer for a cluster without dashboard and without datasets.

    Ray's own cleaner of placement groups asks the dashboard's state API. Where there is none it cleans nothing and
    holds up the end of every fit for 12 s (measured 2026-11-22 with Ray 2.60; the leak itself is ray issue 54305).
    A private cluster ends with its driver, and where a search may leave a group behind, `groups_given_back` cleans.
    The callback for datasets starts an actor, which takes 0.6 s a fit.
    """

    def _create_default_callbacks(self) -> list[Any]:
        from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
        from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

        unwanted = (DatasetsCallback, PlacementGroupCleanerCallback)
        return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, unwanted)]


@contextmanager
def groups_given_back() -> Iterator[None]:
    """What workers hold that were started within, and are left at the end, is free again; they end with it.

    Tune kills the actors of a search 5 s after its last trial has ended (ray/tune/execution/tune_controller.py, 2.60).
    The one of a trial that was stopped may still be waiting for its workers, and their placement group stays with the
    driver, not with who made it: the next stage would wait for its CPUs for ever.
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
                    # By place: `rank` is a name of Ray's own here.
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
        """The processes end with their group, the file with the cluster's scratch folder."""


def _join(backend: str, url: str, rank: int, world_size: int, timeout_s: int) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        backend, init_method=url, rank=rank, world_size=world_size, timeout=timedelta(seconds=timeout_s)
    )
