"""The state of a training as checkpoints have it: its parts in, named tensors and numbers for JSON out; and back.

Frozen weights are no part of it: the workload loads them anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any

import torch
from torch import Tensor, nn

from qsgd_ray.optimizer import DrivenOptimizer, SuperpositionalAdamW
from qsgd_ray.storage import StorageError
from qsgd_ray.training._manifest import Manifest, StoredTensor
from qsgd_ray.training._optimizer_state import encode_optimizers, restore_optimizers
from qsgd_ray.training._state import Parts, Progress
from qsgd_ray.training.replica import Replica

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")
_OF_A_REPLICA = ("loss_sum", "generator", "cuda_generator")
_COUNTS = ("step", "wall_s", "evaluation_s", "n_tokens", "model_flops", "measurements")


def state_tensors(parts: Parts, known: Mapping[str, StoredTensor] | None = None, tree: Any = None) -> dict[str, Any]:
    """Return trained parameters, buffers and moments, by name.

    Args:
        parts: the training's objects. The tensors are their own, not copies.
        known: the tensors in a checkpoint, so that a new optimizer gets tensors for moments that it does not have yet;
            None: it has its moments.
        tree: all else of the checkpoint's optimizers, where they are of other classes than AdamW; it is put into them.

    Raises:
        StorageError: the tree is none of these optimizers.
        UnsavableState: an optimizer keeps something that no checkpoint can have.
    """
    tensors = {f"model.{name}": parameter.detach() for name, parameter in _trained(parts.model)}
    persistent = parts.model.state_dict()  # without buffers that are not to be saved
    tensors |= {f"model.{name}": buffer for name, buffer in parts.model.named_buffers() if name in persistent}
    if isinstance(parts.optimizer, DrivenOptimizer):
        if known is None:
            return tensors | encode_optimizers(parts.optimizer, _names(parts.model))[1]
        return tensors | restore_optimizers(parts.optimizer, tree, known, dict(_trained(parts.model)))
    states, in_checkpoint = parts.optimizer.state, {*(known or ())}
    for name, parameter in _trained(parts.model):
        if f"optimizer.{name}.step" in in_checkpoint:
            states[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        if states.get(parameter):
            tensors |= {f"optimizer.{name}.{part}": states[parameter][part].detach() for part in _MOMENTS}
    return tensors


def _trained(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def _names(model: nn.Module) -> dict[int, str]:
    return {id(parameter): name for name, parameter in _trained(model)}


def share_of(tensors: dict[str, Any], replica: Replica) -> dict[str, Any]:
    """Return the tensors that a replica writes: its shards, and a part of those that every replica has whole."""
    whole = [name for name, tensor in tensors.items() if not hasattr(tensor, "to_local")]
    others = {name for number, name in enumerate(whole) if number % replica.world_size != replica.rank}
    return {name: tensor for name, tensor in tensors.items() if name not in others}


def replica_tensors(replica: Replica, loss_sum: Tensor) -> dict[str, Tensor]:
    """Return the tensors that each replica has for itself: its sum of losses and its generators, which are copies."""
    tensors = {"loss_sum": loss_sum, "generator": torch.get_rng_state()}
    if replica.device_type == "cuda":
        tensors["cuda_generator"] = torch.cuda.get_rng_state(replica.device)
    return {f"rank{replica.rank}.{name}": tensor for name, tensor in tensors.items()}


def check_names(manifest: Manifest, tensors: Iterable[str]) -> None:
    """Raise StorageError where a manifest has tensors that are neither among these nor those of a replica."""
    for name in manifest.tensors.keys() - {*tensors}:
        rank, _, part = name.removeprefix("rank").partition(".")
        if not (name.startswith("rank") and rank.isdecimal() and part in _OF_A_REPLICA):
            raise StorageError(f"tensors: got {name!r:.60}; allowed: those of the training")


def check_generators(tensors: dict[str, Tensor]) -> None:
    """Raise RuntimeError where a tensor of `replica_tensors` is no state of a generator."""
    for name, state in tensors.items():
        if name.endswith("generator"):
            torch.Generator("cuda" if "cuda" in name else "cpu").set_state(state)


def restore_generators(tensors: dict[str, Tensor], replica: Replica, device: str | torch.device) -> None:
    """Put the generators of this process into their state in `tensors`; where they have none, leave them as they are.

    Args:
        tensors: those of `replica_tensors`, or none.
        replica: this process.
        device: device of this replica.
    """
    if (state := tensors.get(f"rank{replica.rank}.generator")) is not None:
        torch.set_rng_state(state)
    if (state := tensors.get(f"rank{replica.rank}.cuda_generator")) is not None:
        torch.cuda.set_rng_state(state, device)


def numbers_of(parts: Parts, progress: Progress) -> dict[str, Any]:
    """Return all state that is no tensor, as fields of a `Manifest`: floats come back bit for bit."""
    optimizer = parts.optimizer
    tree = encode_optimizers(optimizer, _names(parts.model))[0] if isinstance(optimizer, DrivenOptimizer) else None
    return {
        **{name: getattr(progress, name) for name in _COUNTS},
        # Of other classes than AdamW, groups may hold more than numbers: they are in the optimizers' own tree.
        "groups": [] if tree is not None else [_group_numbers(group) for group in optimizer.param_groups],
        "optimizer": tree,
        "schedules": [schedule.state_dict() for schedule in parts.schedules],
        "scaler": parts.scaler.state_dict(),
        "telemetry": optimizer.telemetry_state() if isinstance(optimizer, _Reporting) else None,
    }


_Reporting = SuperpositionalAdamW | DrivenOptimizer


def _group_numbers(group: dict[str, Any]) -> dict[str, bool | int | float]:
    return {name: value for name, value in group.items() if isinstance(value, int | float)}


def restore_numbers(parts: Parts, manifest: Manifest) -> None:
    """Put the numbers of a checkpoint into a training, after its tensors.

    Args:
        parts: the training's objects.
        manifest: the checkpoint's, which `check_numbers` has passed.
    """
    optimizer = parts.optimizer
    if not isinstance(optimizer, DrivenOptimizer):  # which has its groups already, with its tensors
        for group, values in zip(optimizer.param_groups, manifest.groups, strict=True):
            group.update(values)
    for schedule, state in zip(parts.schedules, manifest.schedules, strict=True):
        schedule.load_state_dict(state)
    if manifest.scaler:
        parts.scaler.load_state_dict(manifest.scaler)
    if isinstance(optimizer, _Reporting) and manifest.telemetry is not None:
        optimizer.load_telemetry_state(manifest.telemetry.model_dump())


def check_numbers(parts: Parts, manifest: Manifest) -> None:
    """Raise StorageError unless numbers have the form of those that the training itself would save.

    Names and types are compared; torch's schedulers would take any attribute from their state.
    """
    now = numbers_of(parts, Progress(torch.zeros(())))
    for field in ("groups", "schedules", "scaler"):
        _check_alike(field, getattr(manifest, field), now[field])
    if (manifest.optimizer is None) != (now["optimizer"] is None):
        came = "none" if manifest.optimizer is None else "some"
        raise StorageError(f"optimizer: got {came}; allowed: the state of the arm's own class of optimizers")
    telemetry = manifest.telemetry
    if (telemetry is None) != (now["telemetry"] is None):
        raise StorageError(f"telemetry: got {'none' if telemetry is None else 'some'}; allowed: as the optimizer has")
    if telemetry is not None:
        means, most = telemetry.means, len(parts.optimizer.param_groups)
        lengths = {len(means.n_of_group), *map(len, means.groups)}
        if len(lengths) > 1 or max(lengths) > most:
            raise StorageError(f"telemetry.means: got groups of {sorted(lengths)}; allowed: at most {most}, all alike")


def _check_alike(path: str, value: Any, pattern: Any) -> None:
    """Raise StorageError where a value of JSON has other names, lengths or types than a pattern."""
    if isinstance(pattern, dict) and isinstance(value, dict):
        if odd := sorted(value.keys() ^ pattern.keys()):
            state = "missing" if odd[0] in pattern else "unknown"
            raise StorageError(f"{path}: got {odd[0]!r:.40} {state}; allowed: {', '.join(sorted(pattern))}")
        for name in pattern:
            _check_alike(f"{path}.{name}", value[name], pattern[name])
    elif isinstance(pattern, list | tuple) and isinstance(value, list):
        if len(value) != len(pattern):
            raise StorageError(f"{path}: got {len(value)} values; allowed: {len(pattern)}")
        for number, (item, like) in enumerate(zip(value, pattern, strict=True)):
            _check_alike(f"{path}.{number}", item, like)
    elif not isinstance(value, int | float if type(pattern) is float else type(pattern)) or (
        isinstance(value, bool) and not isinstance(pattern, bool)
    ):
        raise StorageError(f"{path}: got {value!r:.40}; allowed: a value of the type {type(pattern).__name__}")


def progress_of(manifest: Manifest, loss_sum: Tensor, moved: bool) -> Progress:
    """Return the progress at the step of a checkpoint.

    Args:
        manifest: the checkpoint's.
        loss_sum: float64 scalar, this replica's sum of losses.
        moved: True where another number of processes has written it.
    """
    names = {field.name for field in fields(Progress)} - {"loss_sum", "moved"}
    return Progress(loss_sum=loss_sum, moved=moved, **{name: getattr(manifest, name) for name in names})


def started_at(manifest: Manifest) -> datetime:
    """Return the time at which the trial began."""
    return datetime.fromisoformat(manifest.started_at)
