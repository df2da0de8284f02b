"""Where the perturbed coordinates lie now: parameter groups in; blocks, runs and the memory behind them out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qsgd_ray.config import Direction, Formula, Placement
from qsgd_ray.optimizer._adam import Piece, piece_of
from qsgd_ray.optimizer._gather import PLAIN
from qsgd_ray.optimizer._shards import HeldBlocks, Ranks, is_divided, own, shards_of
from qsgd_ray.optimizer.coordinates import Blocks, Scope, Shard, coordinates, cut_blocks, origins
from qsgd_ray.optimizer.native.compiler import NATIVE_FROM

# From so many tensors on, a loop in C++ over their few coordinates saves more than half of what torch's take: of 30
# tensors 60 microseconds a step, a hundredth of a small model's (2026-11-24).
NATIVE_TENSORS = 16

Group = dict[str, Any]


class Reading(NamedTuple):
    """How an optimizer reads the paper: the options of config.Perturbation that say where Q goes.

    `silent`: s is 0, so that nothing is touched. `by_runs`: a closed form at scope `all`, that goes through the model
    run by run; with `pointwise`, coordinate by coordinate. `capturable`: s is neither drawn nor asked for.
    """

    scope: Scope
    n_qubits: int
    formula: Formula
    placement: Placement
    direction: Direction
    silent: bool
    by_runs: bool
    pointwise: bool
    capturable: bool

    def sign(self, group: Group) -> float:
        """Of Q, whose direction is the gradient as it came, or one whose sign is turned already."""
        return -1.0 if group["maximize"] and self.direction == "gradient" else 1.0

    def moments_sign(self, group: Group) -> float:
        """Of Q beside a gradient whose sign Adam turns after that."""
        return -1.0 if group["maximize"] and self.direction == "preconditioned" else 1.0


class Run(NamedTuple):
    """The coordinates start ... stop-1 of this process's own memory of a parameter; `origin`: the first of them,
    counted through the model."""

    parameter: int
    start: int
    stop: int
    origin: int


@dataclass(frozen=True)
class Layout:
    """`memory`: this process's own part of each parameter, flat. `blocks`: what is perturbed all at once, if
    anything is. `runs`: where
    it goes run by run, all that this process holds, and `cut`: the blocks that no run has whole."""

    parameters: list[Tensor]
    numbers: list[int]  # the parameter group of each parameter
    memory: list[Tensor]
    shards: list[Shard]
    ranks: Ranks
    blocks: HeldBlocks | None
    runs: tuple[Run, ...]
    cut: tuple[HeldBlocks, ...]
    by_runs: bool
    key: tuple[Any, ...]  # what it was made from

    @cached_property
    def parts_by_group(self) -> dict[int, list[int]]:
        """Of the parts of `blocks`, by the parameter group that each belongs to, their places in the order of parts."""
        found: dict[int, list[int]] = {}
        for index, part in enumerate(self.blocks.parts if self.blocks is not None else ()):
            found.setdefault(self.numbers[part.parameter], []).append(index)
        return found

    @property
    def n_coordinates(self) -> int:
        """Of the model, whoever holds them."""
        return sum(shard.size for shard in self.shards)

    def told(self, parameters: Iterable[Tensor]) -> list[Tensor]:
        """Of these those for which this process speaks."""
        return [parameter for parameter in parameters if self.ranks.rank == 0 or is_divided(parameter)]

    def speaks_for(self, index: int) -> bool:
        """Does this process tell of what it holds of a parameter? Of what all hold, the first does."""
        return self.shards[index].divided or self.ranks.rank == 0


class Model(NamedTuple):
    """The parameters with their gradients, groups and moments, and where they lie."""

    layout: Layout
    groups: Sequence[Group]
    state: Mapping[Tensor, dict[str, Any]]

    def group(self, index: int) -> Group:
        """Of a parameter."""
        return self.groups[self.layout.numbers[index]]

    def not_perturbed(self) -> list[Piece]:
        """What lies in no layout and has a gradient all the same, as a parameter frozen after its backward pass."""
        perturbed = {id(parameter) for parameter in self.layout.parameters}
        return [
            piece_of(parameter, self.state[parameter], group)
            for group in self.groups
            for parameter in group["params"]
            if parameter.grad is not None and id(parameter) not in perturbed
        ]

    def pieces(self) -> list[Piece | None]:
        """Of each parameter what this process holds; None where it has no gradient."""
        return [
            None if parameter.grad is None else piece_of(parameter, self.state[parameter], self.group(index))
            for index, parameter in enumerate(self.layout.parameters)
        ]


@torch.no_grad()
def layout_of(groups: Sequence[Group], reading: Reading, last: Layout | None) -> Layout:
    """`last`, or one made anew where a parameter came, moved in memory or was frozen, or a lambda began or ceased to
    be 0. ValueError in one line: see _shards.py; a group's option that is not allowed with this reading."""
    for group in groups:
        _check(group, reading)
    key = _key(groups)
    if last is not None and last.key == key:
        return last
    numbered = [
        (parameter, number)
        for number, group in enumerate(groups)
        for parameter in group["params"]
        if parameter.requires_grad
    ]
    parameters, numbers = [parameter for parameter, _ in numbered], [number for _, number in numbered]
    lambdas = [group["lambda_"] for group in groups]
    amsgrad = any(group["amsgrad"] for group in groups)
    shards, ranks = shards_of(parameters)
    memory = [own(parameter.detach()).view(-1) for parameter in parameters]
    loud = [not reading.silent and lambdas[number] != 0 for number in numbers]
    by_runs = reading.by_runs and not amsgrad and any(loud)
    blocks: tuple[Blocks, ...] = ()
    cut: tuple[Blocks, ...] = ()
    runs: tuple[Run, ...] = ()
    if by_runs:
        runs = tuple(_runs(shards))
        cut = () if reading.pointwise else cut_blocks(shards, reading.n_qubits)
    else:
        blocks = _loud(coordinates([shard.size for shard in shards], reading.scope, reading.n_qubits), reading, loud)
    native = sum(shard.size for shard in shards) >= NATIVE_FROM or len(parameters) >= NATIVE_TENSORS
    held = HeldBlocks(blocks, shards, memory, ranks, native) if blocks else None
    held_cut = tuple(HeldBlocks([alike], shards, memory, ranks, native) for alike in cut)
    return Layout(parameters, numbers, memory, shards, ranks, held, runs, held_cut, by_runs, key)


def _key(groups: Sequence[Group]) -> tuple[Any, ...]:
    """What a layout is made from, in one pass: it is asked for at every step."""
    trained = [
        (id(parameter), number, here.data_ptr(), here.is_contiguous(), here.numel(), here.dtype)
        for number, group in enumerate(groups)
        for parameter in group["params"]
        if parameter.requires_grad
        for here in [parameter if type(parameter) in PLAIN else own(parameter)]
    ]
    return trained, [(group["lambda_"] != 0, group["amsgrad"]) for group in groups]


def _check(group: Group, reading: Reading) -> None:
    if not 0 <= group["lambda_"] < math.inf:
        raise ValueError(f"lambda_: got {group['lambda_']!r}; allowed: a number >= 0")
    if group["amsgrad"] and (reading.direction != "gradient" or reading.formula != "adamw"):
        raise ValueError("amsgrad: got True; allowed: with direction gradient and formula adamw only")
    if group["capturable"] and not reading.capturable:
        raise ValueError("capturable: got True; allowed: with the sources sine, gradient and zero only")
    if group["differentiable"]:
        raise ValueError("differentiable: got True; allowed: False")


def _loud(blocks: tuple[Blocks, ...], reading: Reading, loud: list[bool]) -> tuple[Blocks, ...]:
    """Without those of parameters that are not perturbed."""
    if reading.scope == "tensor":  # every segment is a block
        blocks = tuple(
            replace(some, segments=tuple(segment for segment in some.segments if loud[segment.parameter]))
            for some in blocks
        )
    return tuple(some for some in blocks if any(loud[segment.parameter] for segment in some.segments))


def _runs(shards: Sequence[Shard]) -> Iterator[Run]:
    for index, (shard, origin) in enumerate(zip(shards, origins([s.size for s in shards]), strict=False)):
        if shard.start < shard.stop:
            yield Run(index, 0, shard.stop - shard.start, origin + shard.start)
