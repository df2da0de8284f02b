"""What one CNOT hands on, as data: a kind of layer and the symbols that are not zero in, a sparse integer table out.

A CNOT is a sum over a carry j of (a map C_j of the control) x (a map T_j of the target). Two algebras have this form,
with a real 4-vector for a wire in both:

- BLOCH, for expectation values: the Pauli components (I, X, Y, Z) of the wire; four carries (r, s, d, i).
- AMPLITUDE, for amplitudes: (Re 0, Re 1, Im 0, Im 1) of the wire's state; the carry is the control's bit.

What a layer of a wire makes of the carries that come in follows from products of C, T and the layer's symbols, the
entries of its rotations' matrix; no table is written out by hand. Tables know neither angles nor qubits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qsgd_ray.config.circuit import Rotation

Array = Any  # a torch tensor or a numpy array
Matrices = NDArray[np.int64]

# What a map consists of. "scalar" and "whole" are wires of one and two layers in one map; "first", "middle", "last" are
# a deeper wire's layers: into a wire vector, from one layer to the next, out to the last carry. "... traced" end in the
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
    """What the matrices of CNOTs and of rotations are made of.

    `control`, `target`: (carry, 4, 4). `units`: what the scalars of the algebra do to a wire vector. `planes`: the
    planes (p, q) that a rotation turns, p' = p cos - q sin, q' = q cos + p sin, by `scale` times its angle.
    """

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
    """A product of a sparse map: sign * symbol * x[column], which goes into the given row."""

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
        is_square = self.rows == self.columns == 4
        self.is_pairs = is_square and self.source.tolist() == [0, 2, 0, 2, 1, 3, 1, 3]
        self._sources: dict[torch.device, Tensor] = {}

    def source_on(self, device: torch.device) -> Tensor:
        """The columns gathered, as an index that autograd may keep even if inference mode was first to ask."""
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
def table_of(algebra: Algebra, kind: Kind, nonzero: tuple[bool, ...], transposed: bool) -> Table:
    """Which symbols are `nonzero` in, the map of `kind` out; `transposed`: from what goes out to what comes in."""
    signs, grid, columns = _signs(algebra, kind)
    rows, inputs = int(np.prod(grid)), int(np.prod(columns))
    signs = signs.reshape(rows, inputs, -1)
    if transposed:
        signs, grid, inputs = signs.swapaxes(0, 1), columns, rows
    terms = [Term(row, column, symbol, int(signs[row, column, symbol])) for row, column, symbol in np.argwhere(signs)]
    return Table([term for term in terms if nonzero[term.symbol]], grid, inputs)


def _signs(algebra: Algebra, kind: Kind) -> tuple[Matrices, tuple[int, ...], tuple[int, ...]]:
    """A kind in; (rows..., columns..., symbols...) in {-1, 0, 1} out, with the shapes of rows and of columns."""
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
