"""Carries of a CNOT as data: sparse integer tables from the incoming carries of a wire to the outgoing ones.

A CNOT is a sum over a carry j of products C_j x T_j, where C_j maps the control's wire and T_j the target's. Two
algebras have this form, each with a real 4-vector for a wire:

- BLOCH, for expectation values: the Pauli components (I, X, Y, Z) of the wire; four carries (r, s, d, i).
- AMPLITUDE, for amplitudes: (Re 0, Re 1, Im 0, Im 1) of the wire's state; the carry is the control's bit.

The map of one layer of a wire is a product of T (the carry in), the layer's symbols (the entries of its rotations'
matrix) and C (the carry out). No table is written by hand. Tables do not depend on angles or on the qubit.
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
_Matrices = NDArray[np.int64]

# The kinds of maps. "scalar" and "whole": a wire of one layer and of two layers in one map. "first", "middle", "last":
# the layers of a deeper wire, from a carry into the wire's vector, from layer to layer, and out to the last carry.
# "... traced": they end in the identity component of the wire. "closing ...": the layers of the first wire of a ring,
# whose CNOT as a control comes before that as a target. "product" and "end": the vector of a wire behind its first
# rotations, and the row vectors that it ends in, where no CNOT is applied.
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
    """Matrices of CNOTs and of rotations on the real 4-vector of a wire.

    Attributes:
        control: C_j, shape (carry, 4, 4).
        target: T_j, shape (carry, 4, 4).
        units: matrices of the units of the algebra's numbers: (1), or (1, the imaginary unit); shape (unit, 4, 4).
        planes: planes (p, q) that each rotation turns: p' = p cos - q sin, q' = q cos + p sin.
        scale: factor from a rotation's angle to that of cos and sin.
    """

    control: _Matrices
    target: _Matrices
    units: _Matrices
    planes: dict[Rotation, tuple[tuple[int, int], ...]]
    scale: float


def _matrices(*entries: dict[tuple[int, int], int]) -> _Matrices:
    """Return 4 x 4 matrices, one for each {(row, column): value}."""
    stack = np.zeros((len(entries), 4, 4), dtype=np.int64)
    for matrix, values in zip(stack, entries, strict=True):
        for entry, value in values.items():
            matrix[entry] = value
    return stack


_I, _X, _Y, _Z = range(4)
BLOCH = Algebra(
    # r: projects on X and Y | s: projects on I and Z | d: swaps I and Z | i: X -> Y, Y -> -X
    control=_matrices(
        {(_X, _X): 1, (_Y, _Y): 1}, {(_I, _I): 1, (_Z, _Z): 1}, {(_I, _Z): 1, (_Z, _I): 1}, {(_Y, _X): 1, (_X, _Y): -1}
    ),
    # r: swaps I and X | s: projects on I and X | d: projects on Y and Z | i: Y -> Z, Z -> -Y
    target=_matrices(
        {(_X, _I): 1, (_I, _X): 1}, {(_I, _I): 1, (_X, _X): 1}, {(_Y, _Y): 1, (_Z, _Z): 1}, {(_Z, _Y): 1, (_Y, _Z): -1}
    ),
    units=np.eye(4, dtype=np.int64)[None],
    planes={"rx": ((_Y, _Z),), "ry": ((_Z, _X),), "rz": ((_X, _Y),)},
    scale=1.0,
)
_ONE = {(k, k): 1 for k in range(4)}
AMPLITUDE = Algebra(
    control=_matrices({(0, 0): 1, (2, 2): 1}, {(1, 1): 1, (3, 3): 1}),
    target=_matrices(_ONE, {(0, 1): 1, (1, 0): 1, (2, 3): 1, (3, 2): 1}),
    units=_matrices(_ONE, {(2, 0): 1, (3, 1): 1, (0, 2): -1, (1, 3): -1}),  # 1 and the imaginary unit
    planes={"rx": ((3, 0), (2, 1)), "ry": ((0, 1), (2, 3)), "rz": ((2, 0), (1, 3))},
    scale=0.5,
)


class _Term(NamedTuple):
    """One product of a sparse map: sign * symbol * x[column], added to the given row."""

    row: int
    column: int
    symbol: int
    sign: int


class Table:
    """A sparse linear map from columns to rows: gather, multiply, add, in a fixed order.

    Each row adds `depth` products; the rows of `block` (a rectangle of the grid of rows) add `extra` more.

    Args:
        terms: all products.
        grid: shape of the rows, one axis a carry or component.
        columns: number of columns.
    """

    def __init__(self, terms: list[_Term], grid: tuple[int, ...], columns: int) -> None:
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
        # A row with fewer products than slots is padded with zero times column 0.
        self.factors = [of_row[row][slot] if slot < len(of_row[row]) else _Term(row, 0, -1, 1) for row, slot in slots]
        self.source = np.array([term.column for term in self.factors], dtype=np.int64)
        self._sources: dict[torch.device, Tensor] = {}

    def source_on(self, device: torch.device) -> Tensor:
        """Return the gathered columns as an index, made outside inference mode, so that autograd may store it."""
        if device not in self._sources:
            with torch.inference_mode(False):
                self._sources[device] = torch.from_numpy(self.source).to(device)
        return self._sources[device]

    def apply(self, x: Array, coefficients: Array) -> Array:
        """Map x (lead, columns, rest, *tail) to (lead, rows, rest, *tail), with `coefficients` (slots, 1, *tail)."""
        lead, tail, on_numpy = x.shape[0], x.shape[2:], isinstance(x, np.ndarray)
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
            for next_term in more:
                term = term + next_term
            out = out.reshape(lead, *self.grid, *tail)
            out[(slice(None), *self.block)] += term.reshape(lead, *self.block_grid, *tail)
        return out.reshape(lead, self.rows, *tail)


def _span(indices: NDArray[np.int64]) -> slice:
    """Return the narrowest slice that has all of the indices."""
    distinct = sorted(set(indices.tolist()))
    steps = np.diff(distinct)
    return slice(distinct[0], distinct[-1] + 1, int(np.gcd.reduce(steps)) if len(steps) else 1)


@lru_cache(maxsize=256)
def map_table(algebra: Algebra, kind: Kind, nonzero: tuple[bool, ...], transposed: bool) -> Table:
    """Return the table of a kind of map.

    Args:
        algebra: of the wire.
        kind: of the map.
        nonzero: for each symbol, False where it is zero for all angles; its products are left out.
        transposed: map outgoing carries to incoming ones.
    """
    signs, grid, columns = _signs(algebra, kind)
    rows, inputs = int(np.prod(grid)), int(np.prod(columns))
    signs = signs.reshape(rows, inputs, -1)
    if transposed:
        signs, grid, inputs = signs.swapaxes(0, 1), columns, rows
    terms = [_Term(row, column, symbol, int(signs[row, column, symbol])) for row, column, symbol in np.argwhere(signs)]
    return Table([term for term in terms if nonzero[term.symbol]], grid, inputs)


def _signs(algebra: Algebra, kind: Kind) -> tuple[_Matrices, tuple[int, ...], tuple[int, ...]]:
    """Return the signs of a kind, (rows..., columns..., symbols...), and the shapes of rows and of columns."""
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
