"""What a wire does to the carries of its CNOTs: rotation angles and carries in, carries out, wire after wire.

A chain of CNOTs hands one carry a layer from wire to wire (_cnot_tables.py), so a wire is a linear map from the carries
that come in to the carries that go out.

A rotation turns planes of the wire's 4-vector. Its matrix is kept as symbols, of which 0 and 1 are known exactly, so
what is always zero for the rotations at hand (the Y of a Z measured behind an Ry) never enters a map.

Arrays have the batch as their last axis and may be torch tensors (autograd, CUDA) or numpy arrays (a third of the
overhead an operation). Both round each +, -, * as IEEE 754 says, so the bits agree.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from qsgd_ray.circuits.chain._cnot_tables import BLOCH, Algebra, Array, Kind, Table, table_of
from qsgd_ray.config.circuit import Rotation

Symbol = Tensor | float  # (site, batch), or exactly 0.0 or 1.0
Vector = tuple[float, float, float, float]

UNIT_VECTORS: tuple[Vector, ...] = ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))
PLUS: Vector = (1, 1, 0, 0)  # |+> as Pauli components


def wire_layers(depth: int, algebra: Algebra = BLOCH) -> list[tuple[Kind, int]]:
    """Depth in; a wire of a chain out, as the (kind, layer) of its maps."""
    if algebra is BLOCH and depth <= 2:
        return [("scalar", 1)] if depth == 1 else [("whole", 1)]
    if depth == 1:
        return [("product", 1), ("end", 1)]
    return [("first", 1), *(("middle", layer) for layer in range(2, depth)), ("last", depth)]


def traced_layers(depth: int) -> list[tuple[Kind, int]]:
    """Depth in; a wire of a chain without observable out: nothing is left of it from its last CNOT as a target on."""
    if depth == 1:
        return [("first traced", 1)]
    return [("first", 1), *(("middle", layer) for layer in range(2, depth)), ("middle traced", depth)]


def closing_layers(depth: int, algebra: Algebra = BLOCH) -> list[tuple[Kind, int]]:
    """Depth in; the first wire of a ring out: in each layer it is a control before it is a target."""
    if depth == 1:
        return wire_layers(1, algebra)
    return [("closing first", 1), *(("closing middle", layer) for layer in range(2, depth)), ("end", depth)]


class Map(NamedTuple):
    """One layer of some neighbouring wires. `lead`: the number of values of the carries that stand before those that
    the map reads. `coefficients`: (sites, slots, 1, *tail), the axis of length 1 for the carries that stand behind."""

    table: Table
    lead: int
    coefficients: Array


def at_site(maps: list[Map], site: int) -> list[Map]:
    """The maps of some wires in, those of one wire out."""
    return [Map(table, lead, coefficients[site]) for table, lead, coefficients in maps]


def across_sites(maps: list[Map], start: int, stop: int) -> list[Map]:
    """The maps of some wires in, those of `start` to `stop` all at once out: the site is the first axis of the tail."""
    return [
        Map(table, lead, coefficients[start:stop].swapaxes(0, 1).swapaxes(1, 2)) for table, lead, coefficients in maps
    ]


def apply(maps: list[Map], x: Array, passive: int = 1, planes: int = 1) -> Array:
    """Carries in, carries out: (passive * planes * values, *tail), `passive` of carries that no map reads, `planes` of
    the algebra's numbers."""
    tail = x.shape[1:]
    for table, lead, coefficients in maps:
        x = table.apply(x.reshape(passive * lead, table.columns, -1, *tail), coefficients)
    if planes > 1:  # the last map leaves them behind the carries
        x = x.reshape(passive, -1, planes, *tail).swapaxes(1, 2)
    return x.reshape(-1, *tail)


def mirrored(rotations: tuple[Rotation, ...], angles: Tensor) -> tuple[tuple[Rotation, ...], Tensor]:
    """Rotations and angles in, the same seen through H on every wire out: X and Z swapped, Y reversed, and the wires
    from the last to the first."""
    swapped: dict[Rotation, Rotation] = {"rx": "rz", "ry": "ry", "rz": "rx"}
    signs = torch.tensor([-1 if name == "ry" else 1 for name in rotations], dtype=angles.dtype, device=angles.device)
    return tuple(swapped[name] for name in rotations), (angles * signs[:, None, None]).flip(2)


def sweep(
    maps: list[Map], carries: Tensor, sites: range, passive: int = 1, *, planes: int = 1, last_only: bool = False
) -> Tensor:
    """Maps and carries (values, *tail) in; the carries after each site in turn out, (sites, values, *tail), or those
    after the last alone. The one loop over sites."""
    tracked = torch.is_grad_enabled() and (carries.requires_grad or any(one.coefficients.requires_grad for one in maps))
    if tracked or carries.device.type != "cpu":
        swept: list[Tensor] = []
        each = [Map(table, lead, coefficients.unbind(0)) for table, lead, coefficients in maps]
        for site in sites:
            carries = apply(at_site(each, site), carries, passive, planes)
            swept.append(carries)
        return carries if last_only else torch.stack(swept)
    x = carries.detach().numpy()
    each = [Map(table, lead, coefficients.detach().numpy()) for table, lead, coefficients in maps]
    if last_only:
        for site in sites:
            x = apply(at_site(each, site), x, passive, planes)
        return torch.from_numpy(x)
    kept = np.empty((len(sites), *x.shape), dtype=x.dtype)
    if len(each) == 1 and each[0].table.is_pairs:
        # What Table.apply does for pairs, without an allocation or a call more than the two operations.
        coefficients = each[0].coefficients.reshape(-1, 2, 2, 2, x.shape[-1])
        grid = kept.reshape(len(sites), passive, 2, 2, -1)
        x = x.reshape(passive, 2, 2, -1)
        products = np.empty((passive, 2, 2, 2, x.shape[-1]), dtype=x.dtype)
        low, high = products[:, 0], products[:, 1]
        for site, out in zip(sites, grid, strict=True):
            np.multiply(x.swapaxes(1, 2)[:, :, None], coefficients[site], out=products)
            x = np.add(low, high, out=out)
        return torch.from_numpy(kept)
    for site, out in zip(sites, kept, strict=True):
        x = apply(at_site(each, site), x, passive, planes)
        out[:] = x
    return torch.from_numpy(kept)


class Wires:
    """Some neighbouring wires of a batch of circuits: their rotations as symbols, their maps on demand.

    `angles`: (depth, rotation, site, *tail) in radians. `start`: the 4-vector before the first rotation. `idle`: how
    many wires there are behind these that are not the circuit's: |+> left alone, on which a CNOT does nothing. They
    close a chain; None where there is none to close.
    """

    def __init__(
        self, algebra: Algebra, rotations: tuple[Rotation, ...], angles: Tensor, start: Vector, idle: int | None = None
    ) -> None:
        self.algebra, self.rotations, self.start, self.idle, self.depth = algebra, rotations, start, idle, len(angles)
        alone = angles.new_zeros(*angles.shape[:2], idle or 0, *angles.shape[3:])
        self.angles = torch.cat((angles, alone), 2) if idle else angles
        self._kept: dict[tuple[str, int], list[Symbol]] = {}
        self._turns: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def maps(
        self,
        layers: list[tuple[Kind, int]],
        out: list[Vector] | None = None,
        *,
        choice: tuple[Tensor, list[Vector]] | None = None,
        transposed: bool = False,
    ) -> list[Map]:
        """The maps of (kind, layer) in turn. `out`: the row vectors, after the last rotation, that the wires end in;
        with `choice`, those where its first is False, and the others given where it is True."""
        ends = [self.measured(vector) for vector in out or []]
        if choice:
            others = [self.measured(vector) for vector in choice[1]]
            ends = [
                [self._chosen(choice[0], a, b) for a, b in zip(one, other, strict=True)]
                for one, other in zip(ends, others, strict=True)
            ]
        lead, maps = 1, []
        for kind, layer in layers:
            symbols = self._symbols(kind, layer, ends)
            table = table_of(self.algebra, kind, tuple(not _is_zero(symbol) for symbol in symbols), transposed)
            maps.append(Map(table, lead, self._coefficients(table, symbols)))
            if kind in ("middle", "closing first", "closing middle"):
                lead *= len(self.algebra.control)
        return maps[::-1] if transposed else maps

    def opening(self) -> list[Symbol]:
        """The wire vectors after the first rotations."""
        if ("opening", 1) not in self._kept:
            x = self._rotated(1, self.start)
            if self.idle is not None:
                x = [self._closed(symbol, alone, self.idle) for symbol, alone in zip(x, PLUS, strict=True)]
            self._kept["opening", 1] = x
        return self._kept["opening", 1]

    def measured(self, vector: Vector) -> list[Symbol]:
        """A row vector after the last rotations in, that before them out; a single layer is all in the opening."""
        return list(vector) if self.depth == 1 else self._rotated(self.depth, vector, as_row=True)

    def filled(self, symbol: Symbol) -> Tensor:
        """A symbol in, its (site, *tail) values out."""
        return symbol if isinstance(symbol, Tensor) else torch.full_like(self.angles[0, 0].detach(), symbol)

    def _symbols(self, kind: Kind, layer: int, ends: list[list[Symbol]]) -> list[Symbol]:
        match kind:
            case "scalar":
                total: Symbol = 0.0
                for a, b in zip(ends[0], self.opening(), strict=True):
                    total = _sum(total, _times(a, b))
                return [total]
            case "whole":
                return [_times(a, b) for a in ends[0] for b in self.opening()]
            case "product" | "first" | "first traced" | "closing first":
                return self.opening()
            case "middle" | "middle traced" | "closing middle":
                if ("matrix", layer) not in self._kept:
                    columns = [self._rotated(layer, unit) for unit in UNIT_VECTORS]
                    self._kept["matrix", layer] = [column[row] for row in range(4) for column in columns]
                return self._kept["matrix", layer]
            case "last" | "end":
                return [symbol for row in ends for symbol in row]

    def _rotated(self, layer: int, vector: Vector, *, as_row: bool = False) -> list[Symbol]:
        """The 4-vector after a layer's rotations, layers counting from 1; `as_row`: as a row vector before them."""
        x: list[Symbol] = list(vector)
        order = list(enumerate(self.rotations))
        for index, rotation in reversed(order) if as_row else order:
            for plane in self.algebra.planes[rotation]:
                p, q = plane[::-1] if as_row else plane
                if not _is_zero(x[p]) or not _is_zero(x[q]):
                    cos, sin = self._turn(layer, index)
                    x[p], x[q] = (
                        _sum(_times(x[p], cos), _times(x[q], sin), -1),
                        _sum(_times(x[q], cos), _times(x[p], sin)),
                    )
        return x

    def _closed(self, symbol: Symbol, alone: float, idle: int) -> Symbol:
        """The symbol, and `alone` at the idle wires. What is known to be zero must not depend on whether a block has
        idle wires: terms that come and go change the order of additions, and so bits."""
        if not isinstance(symbol, Tensor) and symbol == alone:
            return symbol
        filled = self.filled(symbol)
        return torch.cat((filled[: len(filled) - idle], torch.full_like(filled[:idle].detach(), alone)))

    def _turn(self, layer: int, index: int) -> tuple[Tensor, Tensor]:
        if (layer, index) not in self._turns:
            angle = self.angles[layer - 1, index]
            if self.algebra.scale != 1:
                angle = angle * self.algebra.scale
            self._turns[layer, index] = torch.cos(angle), torch.sin(angle)
        return self._turns[layer, index]

    def _chosen(self, where: Tensor, a: Symbol, b: Symbol) -> Symbol:
        return 0.0 if _is_zero(a) and _is_zero(b) else torch.where(where, self.filled(b), self.filled(a))

    def _coefficients(self, table: Table, symbols: list[Symbol]) -> Tensor:
        signed: dict[tuple[int, int], Tensor] = {}
        for _, _, symbol, sign in table.factors:
            if (symbol, sign) not in signed:
                value = self.filled(symbols[symbol] if symbol >= 0 else 0.0)
                signed[symbol, sign] = value if sign > 0 else -value
        shape = max((value.shape for value in signed.values()), key=torch.Size.numel)
        return torch.stack([signed[symbol, sign].expand(shape) for _, _, symbol, sign in table.factors], 1).unsqueeze(2)


def _is_zero(a: Symbol) -> bool:
    return not isinstance(a, Tensor) and a == 0


def _times(a: Symbol, b: Symbol) -> Symbol:
    if _is_zero(a) or _is_zero(b):
        return 0.0
    if not isinstance(a, Tensor) and a == 1:
        return b
    return a if not isinstance(b, Tensor) and b == 1 else a * b


def _sum(a: Symbol, b: Symbol, sign: int = 1) -> Symbol:
    if _is_zero(b):
        return a
    if _is_zero(a):
        return b if sign > 0 else -b
    return a + b if sign > 0 else a - b
