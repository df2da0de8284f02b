"""What a wire does to the carries of its CNOTs: rotation angles in, sparse linear maps from carries to carries out.

A CNOT is a sum over a carry j of (a map C_j of the control) x (a map T_j of the target), so a chain of CNOTs hands one
carry a layer from wire to wire, and a wire is a linear map from the carries that come in to the carries that go out.
Two algebras have this form, and the wire is a real 4-vector in both:

- BLOCH, for expectation values: the Pauli components (I, X, Y, Z) of the wire; four carries (r, s, d, i).
- AMPLITUDE, for amplitudes: (Re 0, Re 1, Im 0, Im 1) of the wire's state; the carry is the control's bit.

A rotation turns planes of the 4-vector. Its matrix is kept as symbols, of which 0 and 1 are known exactly, so what is
always zero for the rotations at hand (the Y of a Z measured behind an Ry) never enters a map. The maps follow from
products of C, T and the symbols; none is written out by hand.

Arrays have the batch as their last axis and may be torch tensors (autograd, CUDA) or numpy arrays (a third of the
overhead an operation). Both round each +, -, * as IEEE 754 says, so the bits agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qsgd_ray.circuits.kinds import Rotation

Array = Any  # a torch tensor or a numpy array
Symbol = Tensor | float  # (site, batch), or exactly 0.0 or 1.0
Vector = tuple[float, float, float, float]
Matrices = NDArray[np.int64]

# What a map consists of. "scalar" and "whole" are wires of one and two layers in one map; "first", "middle", "last" are
# a deeper wire's layers: into a wire vector, from one layer to the next, out to the last carry. "..._traced" end in the
# wire's identity component. "closing ..." are the layers of the wire whose CNOT as a control comes before that as a
# target: the first wire of a ring.
Kind = Literal[
    "scalar",
    "whole",
    "first",
    "middle",
    "last",
    "first traced",
    "middle traced",
    "closing first",
    "closing middle",
    "end",
    "product",
]


@dataclass(frozen=True, eq=False)
class Algebra:
    """`control`, `target`: (carry, 4, 4). `units`: what the scalars of the algebra do to a wire vector. `planes`: the
    planes (p, q) that a rotation turns, p' = p cos - q sin, q' = q cos + p sin, by `scale` times its angle."""

    control: Matrices
    target: Matrices
    units: Matrices
    planes: dict[Rotation, tuple[tuple[int, int], ...]]
    scale: float


def _matrices(*entries: dict[tuple[int, int], int]) -> Matrices:
    """Each {(row, column): value} as a 4 x 4 matrix."""
    stack = np.zeros((len(entries), 4, 4), dtype=np.int64)
    for matrix, values in zip(stack, entries, strict=True):
        for place, value in values.items():
            matrix[place] = value
    return stack


_I, _X, _Y, _Z = range(4)
BLOCH = Algebra(
    # r: keeps X and Y | s: keeps I and Z | d: swaps I and Z | i: X -> Y, Y -> -X
    control=_matrices(
        {(_X, _X): 1, (_Y, _Y): 1}, {(_I, _I): 1, (_Z, _Z): 1}, {(_I, _Z): 1, (_Z, _I): 1}, {(_Y, _X): 1, (_X, _Y): -1}
    ),
    # r: swaps I and X | s: keeps I and X | d: keeps Y and Z | i: Y -> Z, Z -> -Y
    target=_matrices(
        {(_X, _I): 1, (_I, _X): 1}, {(_I, _I): 1, (_X, _X): 1}, {(_Y, _Y): 1, (_Z, _Z): 1}, {(_Z, _Y): 1, (_Y, _Z): -1}
    ),
    units=np.eye(4, dtype=np.int64)[None],
    planes={"rx": ((_Y, _Z),), "ry": ((_Z, _X),), "rz": ((_X, _Y),)},
    scale=1.0,
)
_KEEP = {(k, k): 1 for k in range(4)}
AMPLITUDE = Algebra(
    control=_matrices({(0, 0): 1, (2, 2): 1}, {(1, 1): 1, (3, 3): 1}),
    target=_matrices(_KEEP, {(0, 1): 1, (1, 0): 1, (2, 3): 1, (3, 2): 1}),
    units=_matrices(_KEEP, {(2, 0): 1, (3, 1): 1, (0, 2): -1, (1, 3): -1}),  # 1 and the imaginary unit
    planes={"rx": ((3, 0), (2, 1)), "ry": ((0, 1), (2, 3)), "rz": ((2, 0), (1, 3))},
    scale=0.5,
)


class Term(NamedTuple):
    row: int
    column: int
    symbol: int
    sign: int


class Table:
    """A sparse linear map, rows from columns, as gather, multiply and add in a fixed order.

    Every row takes `depth` products; the rows of `block` (a rectangle of the grid of rows) take `extra` more.
    """

    def __init__(self, terms: list[Term], grid: tuple[int, ...], columns: int) -> None:
        self.grid, self.columns = grid, columns
        self.rows = int(np.prod(grid))
        of_row = [[term for term in terms if term.row == row] for row in range(self.rows)]
        self.depth = max(1, min(map(len, of_row)))
        self.extra = max(0, max(map(len, of_row)) - self.depth)
        long = [row for row in range(self.rows) if len(of_row[row]) > self.depth]
        self.block = tuple(_span(axis) for axis in np.unravel_index(long, grid)) if long else ()
        block = np.arange(self.rows).reshape(grid)[self.block] if long else np.zeros(0, dtype=np.int64)
        self.block_grid, self.block_rows = block.shape, block.size
        slots = [(row, slot) for slot in range(self.depth) for row in range(self.rows)]
        slots += [(row, self.depth + slot) for slot in range(self.extra) for row in block.reshape(-1).tolist()]
        # A row with fewer products than slots is filled up with zero times some column.
        self.factors = [of_row[row][slot] if slot < len(of_row[row]) else Term(row, 0, -1, 1) for row, slot in slots]
        self.source = np.array([term.column for term in self.factors], dtype=np.int64)
        # The map of a two-layer wire without an Rx reads (r, s), (d, i) and writes (r, d), (s, i): a view, no gather.
        self.is_pairs = self.source.tolist() == [0, 2, 0, 2, 1, 3, 1, 3]
        self._sources: dict[torch.device, Tensor] = {}

    def source_on(self, device: torch.device) -> Tensor:
        if device not in self._sources:
            with torch.inference_mode(False):
                self._sources[device] = torch.from_numpy(self.source).to(device)
        return self._sources[device]

    def apply(self, x: Array, coefficients: Array) -> Array:
        """(lead, columns, rest, *tail) -> (lead, rows, rest, *tail), with `coefficients` (slots, 1, *tail)."""
        lead, tail, on_numpy = x.shape[0], x.shape[2:], isinstance(x, np.ndarray)
        if self.is_pairs:
            products = x.reshape(lead, 2, 2, *tail).swapaxes(1, 2)[:, :, None]
            products = products * coefficients.reshape(2, 2, 2, *coefficients.shape[1:])
            low, high = (products[:, 0], products[:, 1]) if on_numpy else products.unbind(1)
            return (low + high).reshape(x.shape)
        if on_numpy:
            products = np.take(x, self.source, 1)
            np.multiply(products, coefficients, out=products)
        else:
            products = x.index_select(1, self.source_on(x.device)) * coefficients
        out, *more = (products[:, slot * self.rows : (slot + 1) * self.rows] for slot in range(self.depth))
        for term in more:
            out = np.add(out, term, out=out) if on_numpy else out + term
        if self.extra:
            start, size = self.depth * self.rows, self.block_rows
            term, *more = (products[:, start + slot * size : start + (slot + 1) * size] for slot in range(self.extra))
            for another in more:
                term = term + another
            out = out.reshape(lead, *self.grid, *tail)
            out[(slice(None), *self.block)] += term.reshape(lead, *self.block_grid, *tail)
        return out.reshape(lead, self.rows, *tail)


def _span(places: NDArray[np.int64]) -> slice:
    """The narrowest slice that holds the places."""
    different = sorted(set(places.tolist()))
    steps = np.diff(different)
    return slice(different[0], different[-1] + 1, int(np.gcd.reduce(steps)) if len(steps) else 1)


@lru_cache(maxsize=256)
def _table(algebra: Algebra, kind: Kind, nonzero: tuple[bool, ...], transposed: bool) -> Table:
    """The map of `kind` with the symbols that are `nonzero`; `transposed`: from what goes out to what comes in."""
    signs, grid, columns = _signs(algebra, kind)
    rows, inputs = int(np.prod(grid)), int(np.prod(columns))
    signs = signs.reshape(rows, inputs, -1)
    if transposed:
        signs, grid, inputs = signs.swapaxes(0, 1), columns, rows
    terms = [Term(row, column, symbol, int(signs[row, column, symbol])) for row, column, symbol in np.argwhere(signs)]
    return Table([term for term in terms if nonzero[term.symbol]], grid, inputs)


def _signs(algebra: Algebra, kind: Kind) -> tuple[Matrices, tuple[int, ...], tuple[int, ...]]:
    """(rows..., columns..., symbols...) in {-1, 0, 1}, with the shapes of rows and of columns."""
    c, t, units = algebra.control, algebra.target, algebra.units
    carries, one, outs = len(c), np.eye(4, dtype=np.int64), np.eye(len(units), dtype=np.int64)
    match kind:
        case "scalar":
            return np.ones((1, 1, 1), dtype=np.int64), (1,), (1,)
        case "whole":
            return np.einsum("jaw,kwb->jkab", c, t), (carries,), (carries,)
        case "product":
            return np.einsum("qwb->wqb", units), (4,), (len(units),)
        case "first":
            return np.einsum("jwa,qab->wqjb", t, units), (4,), (len(units), carries)
        case "first traced":
            return np.einsum("jwa,qab->wqjb", t, units)[:1], (1,), (len(units), carries)
        case "middle":
            return np.einsum("kva,jbw->jvwkab", t, c), (carries, 4), (4, carries)
        case "middle traced":
            return np.einsum("kva,jbw->jvwkab", t, c)[:, :1], (carries, 1), (4, carries)
        case "last":
            return np.einsum("jaw,qp->jqwpa", c, outs), (carries, len(units)), (4,)
        case "closing first":
            return np.einsum("kwv,jva,qab->jwqkb", t, c, units), (carries, 4), (len(units), carries)
        case "closing middle":
            return np.einsum("kvw,jwa,bx->jvxkab", t, c, one), (carries, 4), (4, carries)
        case "end":
            return np.einsum("aw,qp->qwpa", one, outs), (len(units),), (4,)


class Map(NamedTuple):
    """One layer of some neighbouring wires. `lead`: the number of values of the carries that stand before those that
    the map reads. `coefficients`: (sites, slots, 1, *tail), the axis of length 1 for the carries that stand behind."""

    table: Table
    lead: int
    coefficients: Array


def at_site(maps: list[Map], site: int) -> list[Map]:
    return [Map(table, lead, coefficients[site]) for table, lead, coefficients in maps]


def across_sites(maps: list[Map], start: int, stop: int) -> list[Map]:
    """The sites as one more axis of the tail: all of them at once."""
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
            table = _table(self.algebra, kind, tuple(not _is_zero(symbol) for symbol in symbols), transposed)
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
        """A row vector after the last rotations, as that before them; a single layer is all in the opening."""
        return list(vector) if self.depth == 1 else self._rotated(self.depth, vector, as_row=True)

    def filled(self, symbol: Symbol) -> Tensor:
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


UNIT_VECTORS: tuple[Vector, ...] = ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))
PLUS: Vector = (1, 1, 0, 0)  # |+> as Pauli components


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
