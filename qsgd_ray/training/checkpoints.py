"""Checkpoints of a training: its parameters, moments and counts go to the study's storage, and come back.

    checkpoints/<trial_id>/00000200/       tensors, by torch.distributed.checkpoint: each process writes what it holds
    checkpoints/<trial_id>/00000200.json   numbers; put into place last, so a checkpoint is there whole or not at all

A save copies tensors before it returns, and writes them in the background while the training continues. A restore gives
the state at that step bit for bit, with the random generators; on another number of processes, all but these.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save

from qsgd_ray.config.errors import one_line
from qsgd_ray.optimizer import SuperpositionalAdamW
from qsgd_ray.outcome import Measurement
from qsgd_ray.storage import Storage, StorageError
from qsgd_ray.training._checkpoint_store import reader_at, writer_at
from qsgd_ray.training._state import Parts, Progress
from qsgd_ray.training.checkpoint_index import (
    FOLDER,
    WRITE_TIMEOUT_S,
    _mark_unread,
    _prune_checkpoints,
    newest_step,
    remove_checkpoints,
)
from qsgd_ray.training.replica import _SINGLE_PROCESS, Replica

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")

_log = logging.getLogger(__name__)
# torch warns that there is one process, and that half a checkpoint is there, which is then written anew.
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
warnings.filterwarnings("ignore", message="Detected an existing checkpoint")


class Checkpoints:
    """The checkpoints of one trial. All replicas call the same methods in the same order.

    Args:
        storage: the study's storage.
        trial_id: name of the trial.
        every: steps between two checkpoints, >= 1.
        keep: newest checkpoints that stay, >= 1.
        replica: this process among those that train together; default: it trains alone.
        group: a process group on the CPU for checkpoints alone, needed for more than one replica.
        started_at: time at which the trial began; default: now. A restore sets it to that of the first process.

    Attributes:
        started_at: time at which the trial first began, UTC.
        n_failed: number of checkpoints that could not be written.
    """

    def __init__(
        self,
        storage: Storage,
        trial_id: str,
        *,
        every: int,
        keep: int = 2,
        replica: Replica = _SINGLE_PROCESS,
        group: dist.ProcessGroup | None = None,
        started_at: datetime | None = None,
    ) -> None:
        self.started_at = started_at or datetime.now(UTC)
        self._storage, self._trial_id, self._folder = storage, trial_id, f"{FOLDER}/{trial_id}"
        self.n_failed = 0
        self._every, self._keep = every, keep
        self._replica, self._group = replica, group
        self._writing: Future[None] | None = None

    def is_due(self, step: int) -> bool:
        """Return True if a checkpoint is to be saved after this step."""
        return step % self._every == 0

    def save(self, parts: Parts, progress: Progress) -> None:
        """Copy the state and write it in the background, once the checkpoint before it has been written.

        If it cannot be written, that is logged and counted, and the training continues.

        Args:
            parts: the training's objects.
            progress: its counts, which name the checkpoint.

        Raises:
            StorageError: the checkpoint before it was not written within half an hour.
        """
        self.finish()
        name = f"{progress.step:08d}"
        numbers = _numbers(parts, progress) | {
            "world_size": self._replica.world_size,
            "started_at": self.started_at.isoformat(),
        }
        if self._replica.rank == 0:
            self._storage.create_folders(self._folder)
        # The writer's own stager copies no tensor of the CPU, and the next step would change it.
        stager = DefaultStager(StagingOptions(False, False, False, False))
        written = async_save(
            self._share(_tensors(parts)) | {self._key: _replica_tensors(self._replica, progress)},
            storage_writer=writer_at(self._storage / self._folder / name),
            async_stager=stager,
            process_group=self._group,
            no_dist=self._replica.world_size == 1,
        )
        published: Future[None] = Future()
        self._writing = published

        def publish(upload: Future[Any]) -> None:
            try:
                upload.result()
                if self._replica.rank == 0:
                    self._storage.put(f"{self._folder}/{name}.json", json.dumps(numbers).encode())
                    _prune_checkpoints(self._storage, self._trial_id, self._keep)
            except BaseException as error:
                _log.warning("%s: the checkpoint of step %s could not be written: %s", self._folder, name, error)
                self.n_failed += 1
                if self._replica.rank == 0:  # half of it would only take up space
                    with suppress(OSError):
                        self._storage.remove(f"{self._folder}/{name}")
            finally:
                stager.close()
                published.set_result(None)

        written.add_done_callback(publish)  # type: ignore[union-attr]

    def finish(self) -> None:
        """Wait until the last save has been written.

        Raises:
            StorageError: it was not within half an hour.
        """
        if self._writing is not None:
            try:
                self._writing.result(WRITE_TIMEOUT_S)
            except TimeoutError:
                raise StorageError(f"{self._storage}: a checkpoint was not written in {WRITE_TIMEOUT_S} s") from None
            self._writing = None

    def restore(self, parts: Parts, device: str | torch.device) -> Progress | None:
        """Restore the newest checkpoint.

        Args:
            parts: objects into which the state is written.
            device: device of this replica, for its sums and its generator.

        Returns:
            The progress at that step; None: there is no checkpoint.

        Raises:
            StorageError: the checkpoint cannot be read. The second time it is also removed, so that the next attempt
                takes the one before it.
        """
        # Rank 0 decides for all: replicas look at different times, and a write of a group that died may end in between.
        seen = newest_step(self._storage, self._trial_id) if self._replica.rank == 0 else 0
        newest = int(self._replica.all_reduce_sum(seen)[0])
        if not newest:
            return None
        name = f"{newest:08d}"
        try:
            numbers = json.loads(self._storage.read(f"{self._folder}/{name}.json"))
            progress = self._read(name, numbers, parts, device)
        except (Exception, CheckpointException) as error:  # CheckpointException is no Exception
            if self._replica.rank == 0:
                _mark_unread(self._storage, self._trial_id, name)
            reason = one_line(error)[:300]
            raise StorageError(
                f"{self._storage.location(f'{self._folder}/{name}')}: broken checkpoint ({reason})"
            ) from error
        if self._replica.rank == 0:
            self._storage.remove(f"{self._folder}/{name}.unread")
        self.started_at = datetime.fromisoformat(numbers["started_at"])
        return progress

    def _read(self, name: str, numbers: dict[str, Any], parts: Parts, device: str | torch.device) -> Progress:
        reader = reader_at(self._storage / self._folder / name)
        known = set(reader.read_metadata().state_dict_metadata)
        moved = numbers["world_size"] != self._replica.world_size
        by_rank = {f"rank{rank}": _empty_replica_tensors(device) for rank in range(numbers["world_size"])}
        if not moved:
            by_rank = {self._key: by_rank[self._key]}
        state = _tensors(parts, known) | by_rank
        load(state, storage_reader=reader, process_group=self._group, no_dist=self._replica.world_size == 1)
        _restore_numbers(parts, numbers)
        losses = torch.stack([part["loss_sum"] for part in by_rank.values()])
        if moved:
            _log.warning(
                "%s: going on with %s processes, not %s", self._folder, self._replica.world_size, numbers["world_size"]
            )
        else:
            _restore_generators(by_rank[self._key], device)
        return Progress(
            loss_sum=losses.mean(),
            moved=moved,
            measurements=tuple(Measurement(**fields) for fields in numbers["measurements"]),
            **{name: numbers[name] for name in ("step", "wall_s", "evaluation_s", "n_tokens", "model_flops")},
        )

    def remove(self) -> None:
        """Remove all checkpoints of the trial, once the last save has been written; one process calls it."""
        self.finish()
        remove_checkpoints(self._storage, self._trial_id)

    def _share(self, tensors: dict[str, Any]) -> dict[str, Any]:
        """Return the tensors that this replica writes: its shards, or a part of those that every replica has whole."""
        if self._replica.sharding != "ddp":
            return tensors
        rank, world_size = self._replica.rank, self._replica.world_size
        return {kind: dict(list(named.items())[rank::world_size]) for kind, named in tensors.items()}

    @property
    def _key(self) -> str:
        """Return the name under which this replica's own tensors are written."""
        return f"rank{self._replica.rank}"


def _trained(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def _tensors(parts: Parts, known: set[str] | None = None) -> dict[str, Any]:
    """Return trained parameters, buffers and moments, by name; frozen weights are loaded anew by the workload.

    `known` has the names in a checkpoint, so that a new optimizer gets tensors for moments that it does not have yet.
    """
    states = parts.optimizer.state
    moments = {}
    for name, parameter in _trained(parts.model):
        if known is not None and f"optimizer.{name}.step" in known:
            states[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        if states.get(parameter):
            moments[name] = {part: states[parameter][part].detach() for part in _MOMENTS}
    persistent = parts.model.state_dict()  # without buffers that are not to be saved
    buffers = {name: buffer for name, buffer in parts.model.named_buffers() if name in persistent}
    return {
        "model": {name: parameter.detach() for name, parameter in _trained(parts.model)} | buffers,
        "optimizer": moments,
    }


def _replica_tensors(replica: Replica, progress: Progress) -> dict[str, Tensor]:
    """Return the tensors that each replica has for itself: its sum of losses and its generators."""
    tensors = {"loss_sum": progress.loss_sum, "generator": torch.get_rng_state()}
    if replica.device_type == "cuda":
        tensors["cuda_generator"] = torch.cuda.get_rng_state(replica.device)
    return tensors


def _empty_replica_tensors(device: str | torch.device) -> dict[str, Tensor]:
    tensors = {
        "loss_sum": torch.zeros((), dtype=torch.float64, device=device),
        "generator": torch.empty_like(torch.get_rng_state()),
    }
    if torch.device(device).type == "cuda":
        tensors["cuda_generator"] = torch.empty_like(torch.cuda.get_rng_state(device))
    return tensors


def _restore_generators(tensors: dict[str, Tensor], device: str | torch.device) -> None:
    torch.set_rng_state(tensors["generator"])
    if "cuda_generator" in tensors:
        torch.cuda.set_rng_state(tensors["cuda_generator"], device)


def _numbers(parts: Parts, progress: Progress) -> dict[str, Any]:
    """Return all state that is no tensor, for JSON: floats come back bit for bit."""
    optimizer = parts.optimizer
    return {
        "step": progress.step,
        "wall_s": progress.wall_s,
        "evaluation_s": progress.evaluation_s,
        "n_tokens": progress.n_tokens,
        "model_flops": progress.model_flops,
        "measurements": [asdict(measurement) for measurement in progress.measurements],
        "groups": [
            {name: value for name, value in group.items() if isinstance(value, int | float)}
            for group in optimizer.param_groups
        ],
        "schedules": [schedule.state_dict() for schedule in parts.schedules],
        "scaler": parts.scaler.state_dict(),
        "telemetry": optimizer.telemetry_state() if isinstance(optimizer, SuperpositionalAdamW) else None,
    }


def _restore_numbers(parts: Parts, numbers: dict[str, Any]) -> None:
    optimizer = parts.optimizer
    for group, values in zip(optimizer.param_groups, numbers["groups"], strict=True):
        group.update(values)
    for schedule, state in zip(parts.schedules, numbers["schedules"], strict=True):
        schedule.load_state_dict(state)
    if numbers["scaler"]:
        parts.scaler.load_state_dict(numbers["scaler"])
    if isinstance(optimizer, SuperpositionalAdamW):
        optimizer.load_telemetry_state(numbers["telemetry"])
