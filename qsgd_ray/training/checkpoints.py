"""A training that can go on: its parameters, moments and counts in; a place in the study's storage out, and back.

    checkpoints/<trial_id>/00000200/       tensors, by torch.distributed.checkpoint: each process writes what it holds
    checkpoints/<trial_id>/00000200.json   numbers; put into place last, so a checkpoint either is there whole or is not

Tensors are copied at once and written in the background while the training goes on. What is read back is the state at
that step bit for bit, with the random generators; on another number of processes the same but for the latter.
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
from qsgd_ray.training.checkpoint_index import FOLDER, WRITE_TIMEOUT_S, newest_step, remove_checkpoints, step_names
from qsgd_ray.training.replica import SINGLE_PROCESS, Replica

STATE_OF_A_PARAMETER = ("exp_avg", "exp_avg_sq", "step")

log = logging.getLogger(__name__)
# torch's ways of saying that there is one process, and that half a checkpoint is there, which is written anew.
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
warnings.filterwarnings("ignore", message="Detected an existing checkpoint")


class Checkpoints:
    """The checkpoints of one trial below `storage`, one after each `every` steps, of which the newest `keep` stay.

    `group`: a process group on the CPU that nobody else uses, for more than one replica. All replicas call the same
    methods in the same order. `started_at`: when the trial began, in whichever process that was. `n_failed`: how many
    could not be written.
    """

    def __init__(
        self,
        storage: Storage,
        trial_id: str,
        *,
        every: int,
        keep: int = 2,
        replica: Replica = SINGLE_PROCESS,
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
        """Is there to be one after this step?"""
        return step % self._every == 0

    def save(self, parts: Parts, progress: Progress) -> None:
        """Copy the state now and write it in the background; waits for the one before, if that still is written.

        StorageError: it is not within half an hour. What cannot be written is logged, and the training goes on.
        """
        self.finish()
        name = f"{progress.step:08d}"
        numbers = _numbers(parts, progress) | {
            "world_size": self._replica.world_size,
            "started_at": self.started_at.isoformat(),
        }
        if self._replica.rank == 0:
            self._storage.create_folders(self._folder)
        # Not by the writer's own stager, which leaves tensors of the CPU where the next step changes them.
        stager = DefaultStager(StagingOptions(False, False, False, False))
        written = async_save(
            self._share(_tensors(parts)) | {self._own_key(): _own_tensors(self._replica, progress)},
            storage_writer=writer_at(self._storage / self._folder / name),
            async_stager=stager,
            process_group=self._group,
            no_dist=self._replica.world_size == 1,
        )
        published: Future[None] = Future()
        self._writing = published

        def publish(of: Future[Any]) -> None:
            try:
                of.result()
                if self._replica.rank == 0:
                    self._storage.put(f"{self._folder}/{name}.json", json.dumps(numbers).encode())
                    self._prune()
            except BaseException as error:
                log.warning("%s: the checkpoint of step %s could not be written: %s", self._folder, name, error)
                self.n_failed += 1
                if self._replica.rank == 0:  # half of it would only take the room of the next
                    with suppress(OSError):
                        self._storage.remove(f"{self._folder}/{name}")
            finally:
                stager.close()
                published.set_result(None)

        written.add_done_callback(publish)  # type: ignore[union-attr]

    def finish(self) -> None:
        """Wait for what is being written. StorageError: not within half an hour."""
        if self._writing is not None:
            try:
                self._writing.result(WRITE_TIMEOUT_S)
            except TimeoutError:
                raise StorageError(f"{self._storage}: a checkpoint was not written in {WRITE_TIMEOUT_S} s") from None
            self._writing = None

    def restore(self, parts: Parts, device: str | torch.device) -> Progress | None:
        """The state of the newest checkpoint put into `parts`; None: there is none.

        StorageError: it cannot be read. The second time it is removed, so that the next attempt takes the one before: a
        store may fail once, and a process may die while it reads.
        """
        # The replicas look one after the other, while a write of a group that died may just end: the first decides.
        own = newest_step(self._storage, self._trial_id) if self._replica.rank == 0 else 0
        newest = int(self._replica.all_reduce_sum(own)[0])
        if not newest:
            return None
        name = f"{newest:08d}"
        try:
            numbers = json.loads(self._storage.read(f"{self._folder}/{name}.json"))
            progress = self._read(name, numbers, parts, device)
        except (Exception, CheckpointException) as error:  # torch's is no Exception
            if self._replica.rank == 0:
                self._mark_unread(name)
            told = one_line(error)[:300]
            raise StorageError(
                f"{self._storage.location(f'{self._folder}/{name}')}: broken checkpoint ({told})"
            ) from error
        if self._replica.rank == 0:
            self._storage.remove(f"{self._folder}/{name}.unread")
        self.started_at = datetime.fromisoformat(numbers["started_at"])
        return progress

    def _mark_unread(self, name: str) -> None:
        mark = f"{name}.unread"
        if mark in self._storage.names(self._folder, ".unread"):
            self._storage.remove(f"{self._folder}/{name}.json")
        self._storage.put(f"{self._folder}/{mark}", b"")

    def _read(self, name: str, numbers: dict[str, Any], parts: Parts, device: str | torch.device) -> Progress:
        reader = reader_at(self._storage / self._folder / name)
        known = set(reader.read_metadata().state_dict_metadata)
        moved = numbers["world_size"] != self._replica.world_size
        own = {f"rank{rank}": _room_for_own(device) for rank in range(numbers["world_size"])}
        if not moved:
            own = {self._own_key(): own[self._own_key()]}
        state = _tensors(parts, known) | own
        load(state, storage_reader=reader, process_group=self._group, no_dist=self._replica.world_size == 1)
        _take_numbers(parts, numbers)
        losses = torch.stack([part["loss_sum"] for part in own.values()])
        if moved:
            log.warning(
                "%s: going on with %s processes, not %s", self._folder, self._replica.world_size, numbers["world_size"]
            )
        else:
            _take_generators(own[self._own_key()], device)
        return Progress(
            loss_sum=losses.mean(),
            moved=moved,
            measurements=tuple(Measurement(**one) for one in numbers["measurements"]),
            **{name: numbers[name] for name in ("step", "wall_s", "evaluation_s", "n_tokens", "model_flops")},
        )

    def remove(self) -> None:
        """See `remove_checkpoints`; by one process, after what is being written."""
        self.finish()
        remove_checkpoints(self._storage, self._trial_id)

    def _share(self, tensors: dict[str, Any]) -> dict[str, Any]:
        """What this replica copies and writes: of what all have whole, its part of the names."""
        if self._replica.sharding != "ddp":
            return tensors
        rank, world_size = self._replica.rank, self._replica.world_size
        return {kind: dict(list(named.items())[rank::world_size]) for kind, named in tensors.items()}

    def _prune(self) -> None:
        for name in step_names(self._storage, self._folder)[: -self._keep]:
            self._storage.remove(f"{self._folder}/{name}.json")
            self._storage.remove(f"{self._folder}/{name}")

    def _own_key(self) -> str:
        return f"rank{self._replica.rank}"


def _trained(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def _tensors(parts: Parts, known: set[str] | None = None) -> dict[str, Any]:
    """Trained parameters, buffers and moments, by name: what is frozen comes anew from where it came from.

    `known`: the names in a checkpoint, to make room for moments that a new optimizer does not have yet.
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
            moments[name] = {part: states[parameter][part].detach() for part in STATE_OF_A_PARAMETER}
    kept = parts.model.state_dict()  # without what is not to be kept
    buffers = {name: buffer for name, buffer in parts.model.named_buffers() if name in kept}
    return {
        "model": {name: parameter.detach() for name, parameter in _trained(parts.model)} | buffers,
        "optimizer": moments,
    }


def _own_tensors(replica: Replica, progress: Progress) -> dict[str, Tensor]:
    """What each replica has for itself."""
    own = {"loss_sum": progress.loss_sum, "generator": torch.get_rng_state()}
    if replica.device_type == "cuda":
        own["cuda_generator"] = torch.cuda.get_rng_state(replica.device)
    return own


def _room_for_own(device: str | torch.device) -> dict[str, Tensor]:
    room = {
        "loss_sum": torch.zeros((), dtype=torch.float64, device=device),
        "generator": torch.empty_like(torch.get_rng_state()),
    }
    if torch.device(device).type == "cuda":
        room["cuda_generator"] = torch.empty_like(torch.cuda.get_rng_state(device))
    return room


def _take_generators(own: dict[str, Tensor], device: str | torch.device) -> None:
    torch.set_rng_state(own["generator"])
    if "cuda_generator" in own:
        torch.cuda.set_rng_state(own["cuda_generator"], device)


def _numbers(parts: Parts, progress: Progress) -> dict[str, Any]:
    """All that is no tensor, as JSON has it: floats come back bit for bit."""
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


def _take_numbers(parts: Parts, numbers: dict[str, Any]) -> None:
    optimizer = parts.optimizer
    for group, kept in zip(optimizer.param_groups, numbers["groups"], strict=True):
        group.update(kept)
    for schedule, kept in zip(parts.schedules, numbers["schedules"], strict=True):
        schedule.load_state_dict(kept)
    if numbers["scaler"]:
        parts.scaler.load_state_dict(numbers["scaler"])
    if isinstance(optimizer, SuperpositionalAdamW):
        optimizer.load_telemetry_state(numbers["telemetry"])
