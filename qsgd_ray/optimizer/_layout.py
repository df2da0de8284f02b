"""Find where the perturbed coordinates lie: parameter groups in; blocks, runs and the memory behind them out.

A layout is made once and used until a parameter or a group changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.parameter import UninitializedParameter

from qsgd_ray.config import Direction, Formula, Perturbation, Placement, Scope
from qsgd_ray.native.compiler import NATIVE_FROM
from qsgd_ray.optimizer._adam import Piece, local_piece
from qsgd_ray.optimizer._blocks import Blocks, Shard, blocks_of, cut_blocks, origins
from qsgd_ray.optimizer._gather import PLAIN_TYPES
from qsgd_ray.optimizer._local_blocks import LocalBlocks
from qsgd_ray.optimizer._shards import ShardGroup, is_divided, local, shards_of
from qsgd_ray.optimizer.signals import ClosedForm, Signal

# From so many tensors on, a loop in C++ over their few coordinates saves more than half of what torch's take: of 30
# tensors 60 microseconds a step, a hundredth of a small model's (2026-11-24).
NATIVE_TENSORS = 16

Group = dict[str, Any]


class StepOptions(NamedTuple):
    """The perturbation's settings, and what follows from them for a step.

    Attributes:
        scope: which coordinates are perturbed.
        n_qubits: width of a block.
        formula: Adam's step, "adamw" or "paper".
        placement: where Q is added.
        direction: what s multiplies.
        silent: s is 0, so that nothing is touched.
        chunked: the chunked step runs: a closed form at scope `all`.
        pointwise: s of a coordinate depends on that coordinate alone.
        capturable: s needs no draw and no circuit, so that a CUDA graph may capture the step.
    """

    scope: Scope
    n_qubits: int
    formula: Formula
    placement: Placement
    direction: Direction
    silent: bool
    chunked: bool
    pointwise: bool
    capturable: bool

    @classmethod
    def of(cls, perturbation: Perturbation, signal: Signal) -> StepOptions:
        """Return the options of a perturbation whose fields are all values, and of its signal."""
        closed = isinstance(signal, ClosedForm)
        return cls(
            cast(Scope, perturbation.scope),
            cast(int, perturbation.n_qubits),
            cast(Formula, perturbation.formula),
            cast(Placement, perturbation.placement),
            cast(Direction, perturbation.direction),
            silent=perturbation.source == "zero",
            chunked=closed and perturbation.scope == "all",
            pointwise=isinstance(signal, ClosedForm) and signal.pointwise,
            capturable=closed and not signal.keyed,
        )

    def sign(self, group: Group) -> float:
        """Return the sign with which Q enters the update: -1 under `maximize` where Q holds the gradient as it came."""
        return -1.0 if group["maximize"] and self.direction == "gradient" else 1.0

    def moments_sign(self, group: Group) -> float:
        """Return the sign with which Q is added to a gradient whose sign Adam turns afterwards, under `maximize`."""
        return -1.0 if group["maximize"] and self.direction == "preconditioned" else 1.0


class Run(NamedTuple):
    """Coordinates of one parameter that this process holds side by side.

    Attributes:
        parameter: index of the parameter.
        start: first coordinate, counted within this process's memory of the parameter.
        stop: one past the last.
        origin: number of the first coordinate within the model.
    """

    parameter: int
    start: int
    stop: int
    origin: int


@dataclass(frozen=True)
class Layout:
    """The trained parameters, and where the perturbed coordinates lie in them.

    Attributes:
        parameters: those that require a gradient, in the order of the groups.
        numbers: the parameter group of each parameter.
        memory: this process's own part of each parameter, flat.
        shards: each parameter's shard.
        processes: the processes that hold the model together.
        blocks: what the gathered step perturbs; None where it perturbs nothing.
        runs: what the chunked step goes through: all that this process holds.
        cut: the blocks that no run has whole.
        chunked: the chunked step runs.
        key: what the layout was made from (see `_key`).
    """

    parameters: list[Tensor]
    numbers: list[int]
    memory: list[Tensor]
    shards: list[Shard]
    processes: ShardGroup
    blocks: LocalBlocks | None
    runs: tuple[Run, ...]
    cut: tuple[LocalBlocks, ...]
    chunked: bool
    key: tuple[Any, ...]

    @cached_property
    def parts_by_group(self) -> dict[int, list[int]]:
        """For each parameter group, the indices of its parts of `blocks`."""
        indices: dict[int, list[int]] = {}
        for index, part in enumerate(self.blocks.parts if self.blocks is not None else ()):
            indices.setdefault(self.numbers[part.parameter], []).append(index)
        return indices

    @property
    def n_coordinates(self) -> int:
        """Number of coordinates of the model, on whichever process they lie."""
        return sum(shard.size for shard in self.shards)

    def reported(self, parameters: Iterable[Tensor]) -> list[Tensor]:
        """Return those of the parameters whose norms this process reports."""
        return [parameter for parameter in parameters if self.processes.rank == 0 or is_divided(parameter)]

    def reports(self, index: int) -> bool:
        """Return True where this process reports a parameter's norms: its own part, or as the first what all hold."""
        return self.shards[index].divided or self.processes.rank == 0


class Model(NamedTuple):
    """The parameters with their gradients, groups and moments, and where they lie."""

    layout: Layout
    groups: Sequence[Group]
    state: Mapping[Tensor, dict[str, Any]]

    def group(self, index: int) -> Group:
        """Return the parameter group of a parameter, by its index in the layout."""
        return self.groups[self.layout.numbers[index]]

    def not_perturbed(self) -> list[Piece]:
        """Return what is in no layout and has a gradient: parameters that were frozen after their backward pass."""
        perturbed = {id(parameter) for parameter in self.layout.parameters}
        return [
            local_piece(parameter, self.state[parameter], group)
            for group in self.groups
            for parameter in group["params"]
            if parameter.grad is not None and id(parameter) not in perturbed
        ]

    def pieces(self) -> list[Piece | None]:
        """Return what this process holds of each parameter; None where it has no gradient."""
        return [
            None if parameter.grad is None else local_piece(parameter, self.state[parameter], self.group(index))
            for index, parameter in enumerate(self.layout.parameters)
        ]


@torch.no_grad()
def layout_of(groups: Sequence[Group], options: StepOptions, last: Layout | None) -> Layout:
    """Return `last`, or a new layout where it no longer fits.

    While nothing is perturbed, parameters that could not be cut into blocks are left out: torch steps all of them.
    A new one is made where a parameter came, moved in memory or was frozen, or a lambda became 0 or ceased to be.

    Raises:
        ValueError: a parameter that `shards_of` refuses, or a group's option that these options don't allow.
    """
    for group in groups:
        _check(group, options)
    as_adamw = options.formula == "adamw" and (options.silent or all(group["lambda_"] == 0 for group in groups))
    key = _key(groups)
    if last is not None and last.key == key:
        return last
    numbered = [
        (parameter, number)
        for number, group in enumerate(groups)
        for parameter in group["params"]
        if parameter.requires_grad and (not as_adamw or _is_flat(parameter))
    ]
    parameters, numbers = [parameter for parameter, _ in numbered], [number for _, number in numbered]
    lambdas = [group["lambda_"] for group in groups]
    amsgrad = any(group["amsgrad"] for group in groups)
    shards, processes = shards_of(parameters)
    memory = [local(parameter.detach()).view(-1) for parameter in parameters]
    perturbed = [not options.silent and lambdas[number] != 0 for number in numbers]
    chunked = options.chunked and not amsgrad and any(perturbed)
    blocks: tuple[Blocks, ...] = ()
    cut: tuple[Blocks, ...] = ()
    runs: tuple[Run, ...] = ()
    if chunked:
        runs = tuple(_runs(shards))
        cut = () if options.pointwise else cut_blocks(shards, options.n_qubits)
    else:
        every = blocks_of([shard.size for shard in shards], options.scope, options.n_qubits)
        blocks = _perturbed_blocks(every, options, perturbed)
    native = sum(shard.size for shard in shards) >= NATIVE_FROM or len(parameters) >= NATIVE_TENSORS
    local_blocks = LocalBlocks(blocks, shards, memory, processes, native) if blocks else None
    local_cut = tuple(LocalBlocks([same_width], shards, memory, processes, native) for same_width in cut)
    return Layout(parameters, numbers, memory, shards, processes, local_blocks, runs, local_cut, chunked, key)


def _is_flat(parameter: Tensor) -> bool:
    """Return True where a parameter's coordinates lie in its memory one after the other, as numbers that are real."""
    if isinstance(parameter, UninitializedParameter):
        return False
    return local(parameter).is_contiguous() and not parameter.is_complex()


def _key(groups: Sequence[Group]) -> tuple[Any, ...]:
    """Return what a layout is made from, in one pass over the parameters: it is compared at every step."""
    trained = [
        (id(parameter), number)
        if isinstance(parameter, UninitializedParameter)
        else (id(parameter), number, part.data_ptr(), part.is_contiguous(), part.numel(), part.dtype)
        for number, group in enumerate(groups)
        for parameter in group["params"]
        if parameter.requires_grad
        for part in [parameter if type(parameter) in PLAIN_TYPES else local(parameter)]
    ]
    return trained, [(group["lambda_"] != 0, group["amsgrad"]) for group in groups]


def _check(group: Group, options: StepOptions) -> None:
    """Raise ValueError where a group's option is not allowed."""
    if not 0 <= group["lambda_"] < math.inf:
        raise ValueError(f"lambda_: got {group['lambda_']!r}; allowed: a number >= 0")
    if group["amsgrad"] and (options.direction != "gradient" or options.formula != "adamw"):
        raise ValueError("amsgrad: got True; allowed: with direction gradient and formula adamw only")
    if group["capturable"] and not options.capturable:
        raise ValueError("capturable: got True; allowed: with the sources sine, gradient and zero only")
    if group["differentiable"]:
        raise ValueError("differentiable: got True; allowed: False")


def _perturbed_blocks(
    blocks: tuple[Blocks, ...], options: StepOptions, perturbed: Sequence[bool]
) -> tuple[Blocks, ...]:
    """Return the blocks without those in which no parameter is perturbed."""
    if options.scope == "tensor":  # every segment is a block
        blocks = tuple(
            replace(each, segments=tuple(segment for segment in each.segments if perturbed[segment.parameter]))
            for each in blocks
        )
    return tuple(each for each in blocks if any(perturbed[segment.parameter] for segment in each.segments))


def _runs(shards: Sequence[Shard]) -> Iterator[Run]:
    for index, (shard, origin) in enumerate(zip(shards, origins([each.size for each in shards]), strict=False)):
        if shard.start < shard.stop:
            yield Run(index, 0, shard.stop - shard.start, origin + shard.start)
