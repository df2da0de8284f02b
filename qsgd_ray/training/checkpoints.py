"""Checkpoints of a training: its parameters, moments and counts go to the study's storage, and come back.

    checkpoints/<trial_id>/00000200/rank0.safetensors  tensors; each process writes what it holds (_tensor_files.py)
    checkpoints/<trial_id>/00000200.json               the manifest (_manifest.py)

The manifest is put into place last, so a checkpoint is there whole or not at all.

A save copies tensors before it returns, and writes them in the background while the training continues. A restore gives
the state at that step bit for bit, with the random generators; on another number of processes, all but these. What is
read is data: nothing in a checkpoint is ever run, and a torn or altered one is refused.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from datetime import UTC, datetime

import torch
import torch.distributed as dist

from qsgd_ray.config.errors import one_line
from qsgd_ray.storage import Storage, StorageError
from qsgd_ray.training._manifest import Manifest, OldFormat, Share, decode, encode, merged_tensors
from qsgd_ray.training._optimizer_state import UnsavableState
from qsgd_ray.training._saved_state import (
    check_generators,
    check_names,
    check_numbers,
    numbers_of,
    progress_of,
    replica_tensors,
    restore_generators,
    restore_numbers,
    share_of,
    started_at,
    state_tensors,
)
from qsgd_ray.training._state import Parts, Progress
from qsgd_ray.training._tensor_files import HeldRows, copy_of, read_tensors, write_share
from qsgd_ray.training.checkpoint_index import (
    FOLDER,
    WRITE_TIMEOUT_S,
    _mark_unread,
    _prune_checkpoints,
    newest_step,
    remove_checkpoints,
)
from qsgd_ray.training.replica import _SINGLE_PROCESS, Replica

_log = logging.getLogger(__name__)


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
        try:
            numbers, tensors = numbers_of(parts, progress), state_tensors(parts)
        except UnsavableState as error:  # on all replicas, which have the same optimizers
            if not self.n_failed:
                _log.warning("%s: no checkpoints of this optimizer: %s", self._folder, error)
            self.n_failed += 1
            return
        unfinished = Manifest(
            **numbers,
            world_size=self._replica.world_size,
            started_at=self.started_at.isoformat(),
            files=(0,) * self._replica.world_size,
            tensors={},
        )
        tensors = share_of(tensors, self._replica) | replica_tensors(self._replica, progress.loss_sum)
        rows = {name: copy_of(tensor) for name, tensor in tensors.items()}
        self._writing = Future()
        threading.Thread(
            target=self._write, args=(name, unfinished, rows, self._writing), name=f"checkpoint {name}"
        ).start()

    def _write(self, name: str, unfinished: Manifest, rows: Mapping[str, HeldRows], written: Future[None]) -> None:
        """Write this replica's tensors, then, if all replicas have written theirs, the manifest."""
        try:
            failure: Exception | None = None
            try:
                payload = self._write_share(name, rows).model_dump_json().encode()
            except Exception as error:
                failure, payload = error, b""
            # A process that failed takes part as well: the others wait for it.
            payloads = self._gathered(payload)
            if failure is not None:
                raise failure
            if not all(payloads):
                raise StorageError("another process could not write its part")
            if self._replica.rank == 0:
                shares = [Share.model_validate_json(payload) for payload in payloads]
                files = tuple(share.size for share in shares)
                manifest = unfinished.model_copy(update={"files": files, "tensors": merged_tensors(shares)})
                self._storage.put(f"{self._folder}/{name}.json", encode(manifest))
                _prune_checkpoints(self._storage, self._trial_id, self._keep)
        except Exception as error:
            _log.warning("%s: the checkpoint of step %s could not be written: %s", self._folder, name, one_line(error))
            self.n_failed += 1
            if self._replica.rank == 0:  # half of it would only take up space
                with suppress(OSError):
                    self._storage.remove(f"{self._folder}/{name}")
        finally:
            written.set_result(None)

    def _write_share(self, name: str, rows: Mapping[str, HeldRows]) -> Share:
        return write_share(self._storage / self._folder / name, self._replica.rank, rows)

    def _gathered(self, payload: bytes) -> list[bytes]:
        """Return what each replica has to say, by rank; all replicas call it."""
        world_size = self._replica.world_size
        if world_size == 1:
            return [payload]
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(world_size)]
        dist.all_gather(sizes, torch.tensor([len(payload)]), group=self._group)
        padded = torch.zeros(max(1, *(int(size) for size in sizes)), dtype=torch.uint8)
        padded.numpy()[: len(payload)] = bytearray(payload)
        texts = [torch.empty_like(padded) for _ in range(world_size)]
        dist.all_gather(texts, padded, group=self._group)
        return [text[: int(size)].numpy().tobytes() for text, size in zip(texts, sizes, strict=True)]

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
                takes the one before it. One that an earlier version has written in torch's format is left alone.
        """
        # Rank 0 decides for all: replicas look at different times, and a write of a group that died may end in between.
        seen = newest_step(self._storage, self._trial_id) if self._replica.rank == 0 else 0
        newest = int(self._replica.all_reduce_sum(seen)[0])
        if not newest:
            return None
        name = f"{newest:08d}"
        failure: Exception | None = None
        try:
            manifest, own, loss_sum = self._read(name, parts, device)
        except Exception as error:
            failure = error
        if self._replica.all_reduce_max(float(failure is not None))[0]:
            raise self._refused(name, failure) from failure
        restore_numbers(parts, manifest)  # all replicas together: circuits that were under way are submitted again
        restore_generators(own, self._replica, device)
        if self._replica.rank == 0:
            self._storage.remove(f"{self._folder}/{name}.unread")
        moved = manifest.world_size != self._replica.world_size
        if moved:
            _log.warning(
                "%s: going on with %s processes, not %s", self._folder, self._replica.world_size, manifest.world_size
            )
        self.started_at = started_at(manifest)
        return progress_of(manifest, loss_sum, moved)

    def _refused(self, name: str, failure: Exception | None) -> StorageError:
        """Return the error of a checkpoint that some replica could not read; None: another one."""
        where = self._storage.location(f"{self._folder}/{name}")
        if isinstance(failure, OldFormat):
            folder = self._storage.location(self._folder)
            return StorageError(f"{where}: {failure}; remove the folder {folder}, and the trial starts anew")
        if self._replica.rank == 0:
            _mark_unread(self._storage, self._trial_id, name)
        reason = one_line(failure or "another process could not read it", limit=200)
        return StorageError(f"{where}: broken checkpoint ({reason})")

    def _read(
        self, name: str, parts: Parts, device: str | torch.device
    ) -> tuple[Manifest, dict[str, torch.Tensor], torch.Tensor]:
        """Read a checkpoint's tensors into the parts.

        Returns:
            Its manifest; this replica's own tensors, none where another number of processes has written it; and this
            replica's sum of losses.
        """
        manifest = decode(self._storage.read(f"{self._folder}/{name}.json"))
        if manifest.step != int(name):
            raise StorageError(f"step: got {manifest.step}; allowed: {int(name)}, as the file is named")
        check_numbers(parts, manifest)
        targets = state_tensors(parts, manifest.tensors, manifest.optimizer)
        check_names(manifest, targets)
        own, ranks = {}, [self._replica.rank]
        if manifest.world_size == self._replica.world_size:
            own = replica_tensors(self._replica, _zero(device))
        else:
            ranks = [*range(manifest.world_size)]
        losses = {f"rank{rank}.loss_sum": _zero(device) for rank in ranks}
        read_tensors(self._storage / self._folder / name, manifest, targets | own | losses)
        check_generators(own)
        return manifest, own, torch.stack([*losses.values()]).mean()

    def remove(self) -> None:
        """Remove all checkpoints of the trial, once the last save has been written; one process calls it."""
        self.finish()
        remove_checkpoints(self._storage, self._trial_id)


def _zero(device: str | torch.device) -> torch.Tensor:
    return torch.zeros((), dtype=torch.float64, device=device)
