"""Transfer maps of wires: each wire takes the carries of its CNOTs, one a layer, from one neighbour to the next.

A CNOT chain passes one carry a layer from wire to wire (_cnot_tables.py), so a wire is a linear map from the incoming
carries to the outgoing ones. It is applied layer by layer, as a product of sparse maps.

A rotation turns planes of the wire's 4-vector. Its matrix is stored as symbols, where 0 and 1 are exact, so entries
that are zero for all angles (the Y component of a Z measured behind an Ry) never enter a map.

Arrays have the batch as their last axis. They are torch tensors (autograd, CUDA) or numpy arrays (a third of the
overhead an operation). Both round each +, -, * as IEEE 754 says, so the bits agree.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from qsgd_ray.circuits.chain._cnot_tables import BLOCH, Algebra, Array, Kind, Table, map_table
from qsgd_ray.circuits.derivatives import has_tangent
from qsgd_ray.config.circuit import Rotation

_Symbol = Tensor | float  # (site, batch), or exactly 0.0 or 1.0
Vector = tuple[float, float, float, float]

_UNIT_VECTORS: tuple[Vector, ...] = ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))
PLUS: Vector = (1, 1, 0, 0)  # |+> as Pauli components (I, X, Y, Z)


def wire_layers(depth: int, algebra: Algebra = BLOCH) -> list[tuple[Kind, int]]:
    """Return the maps of a wire of a chain, as (kind, layer)."""
    if algebra is BLOCH and depth <= 2:
        return [("scalar", 1)] if depth == 1 else [("whole", 1)]
    if depth == 1:
        return [("product", 1), ("end", 1)]
    return [("first", 1), *(("middle", layer) for layer in range(2, depth)), ("last", depth)]


def traced_layers(depth: int) -> list[tuple[Kind, int]]:
    """Return the maps of a wire without an observable, as (kind, layer): they end at its last CNOT as a target."""
    if depth == 1:
        return [("first traced", 1)]
    return [("first", 1), *(("middle", layer) for layer in range(2, depth)), ("middle traced", depth)]


def closing_layers(depth: int, algebra: Algebra = BLOCH) -> list[tuple[Kind, int]]:
    """Return the maps of the first wire of a ring, as (kind, layer): in each layer it is a control, then a target."""
    if depth == 1:
        return wire_layers(1, algebra)
    return [("closing first", 1), *(("closing middle", layer) for layer in range(2, depth)), ("end", depth)]


class _Map(NamedTuple):
    """One layer of some neighbouring wires.

    `lead`: number of values of the carries in front of those that the map reads. `coefficients`: (sites, slots, 1,
    *tail); the axis of length 1 is that of the carries behind them.
    """

    table: Table
    lead: int
    coefficients: Array


def at_site(maps: list[_Map], site: int) -> list[_Map]:
    """Return the maps of one of the wires."""
    return [_Map(table, lead, coefficients[site]) for table, lead, coefficients in maps]


def across_sites(maps: list[_Map], start: int, stop: int) -> list[_Map]:
    """Return the maps of the wires `start` to `stop` for one common call: the site is the first axis of the tail."""
    return [
        _Map(table, lead, coefficients[start:stop].swapaxes(0, 1).swapaxes(1, 2)) for table, lead, coefficients in maps
    ]


def apply(maps: list[_Map], x: Array, passive: int = 1, planes: int = 1) -> Array:
    """Apply the maps to carries x, (passive * planes * values, *tail).

    `passive`: number of values of carries that no map reads. `planes`: real numbers in one number of the algebra.
    """
    tail = x.shape[1:]
    for table, lead, coefficients in maps:
        x = table.apply(x.reshape(passive * lead, table.columns, -1, *tail), coefficients)
    if planes > 1:  # the last map leaves the planes behind the carries
        x = x.reshape(passive, -1, planes, *tail).swapaxes(1, 2)
    return x.reshape(-1, *tail)


def mirrored(rotations: tuple[Rotation, ...], angles: Tensor) -> tuple[tuple[Rotation, ...], Tensor]:
    """Return rotations and angles conjugated by H (X and Z swapped, Y reversed), the wires from last to first."""
    swapped: dict[Rotation, Rotation] = {"rx": "rz", "ry": "ry", "rz": "rx"}
    signs = torch.tensor([-1 if name == "ry" else 1 for name in rotations], dtype=angles.dtype, device=angles.device)
    return tuple(swapped[name] for name in rotations), (angles * signs[:, None, None]).flip(2)


def sweep(
    maps: list[_Map], carries: Tensor, sites: range, passive: int = 1, *, planes: int = 1, last_only: bool = False
) -> Tensor:
    """Apply the maps of one site after another, the only loop over sites.

    Args:
        maps: of all sites.
        carries: in front of the first site, (values, *tail).
        sites: in the order of the sweep.
        passive: number of values of carries that no map reads.
        planes: real numbers in one number of the algebra.
        last_only: return the carries behind the last site alone.

    Returns:
        The carries behind each site, (sites, values, *tail), or behind the last one, (values, *tail).
    """
    inputs = (carries, *(layer.coefficients for layer in maps))
    tracked = (torch.is_grad_enabled() and any(x.requires_grad for x in inputs)) or has_tangent(*inputs)
    if tracked or carries.device.type != "cpu":
        swept: list[Tensor] = []
        by_site = [_Map(table, lead, coefficients.unbind(0)) for table, lead, coefficients in maps]
        for site in sites:
            carries = apply(at_site(by_site, site), carries, passive, planes)
            swept.append(carries)
        return carries if last_only else torch.stack(swept)
    x = carries.detach().numpy()
    by_site = [_Map(table, lead, coefficients.detach().numpy()) for table, lead, coefficients in maps]
    if last_only:
        for site in sites:
            x = apply(at_site(by_site, site), x, passive, planes)
        return torch.from_numpy(x)
    swept_x = np.empty((len(sites), *x.shape), dtype=x.dtype)
    for site, out in zip(sites, swept_x, strict=True):
        x = apply(at_site(by_site, site), x, passive, planes)
        out[:] = x
    return torch.from_numpy(swept_x)


class Wires:
    """Some neighbouring wires of a batch of circuits: their rotations as symbols, and the maps made of them.

    Args:
        algebra: BLOCH for expectation values, AMPLITUDE for amplitudes.
        rotations: of each layer.
        angles: shape (d, r, site, *tail), in radians.
        start: 4-vector before the first rotation.
        idle: number of wires appended behind the circuit's own, in |+> and without rotations, so that a CNOT does
            nothing to them. They close a chain. None: no chain is closed, and no symbol has to allow for them.
    """

    def __init__(
        self, algebra: Algebra, rotations: tuple[Rotation, ...], angles: Tensor, start: Vector, idle: int | None = None
    ) -> None:
        self.algebra, self.rotations, self.start, self.idle, self.depth = algebra, rotations, start, idle, len(angles)
        no_rotation = angles.new_zeros(*angles.shape[:2], idle or 0, *angles.shape[3:])
        self.angles = torch.cat((angles, no_rotation), 2) if idle else angles
        self._symbol_cache: dict[tuple[str, int], list[_Symbol]] = {}
        self._cos_sin_cache: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def maps(
        self,
        layers: list[tuple[Kind, int]],
        observables: list[Vector] | None = None,
        *,
        choice: tuple[Tensor, list[Vector]] | None = None,
        transposed: bool = False,
    ) -> list[_Map]:
        """Return the maps of the layers, in the order in which `apply` takes them.

        Args:
            layers: (kind, layer), from the first on.
            observables: row vectors behind the last rotation that the wires end in.
            choice: a mask and other row vectors, which the wires end in where the mask is True.
            transposed: map outgoing carries to incoming ones.
        """
        ends = [self._before_last_rotations(vector) for vector in observables or []]
        if choice:
            mask, vectors = choice
            others = [self._before_last_rotations(vector) for vector in vectors]
            ends = [
                [self._select(mask, a, b) for a, b in zip(end, other, strict=True)]
                for end, other in zip(ends, others, strict=True)
            ]
        lead, maps = 1, []
        for kind, layer in layers:
            symbols = self._symbols(kind, layer, ends)
            table = map_table(self.algebra, kind, tuple(not _is_zero(symbol) for symbol in symbols), transposed)
            maps.append(_Map(table, lead, self._coefficients(table, symbols)))
            if kind in ("middle", "closing first", "closing middle"):
                lead *= len(self.algebra.control)
        return maps[::-1] if transposed else maps

    def opening(self) -> list[_Symbol]:
        """Return the 4-vector behind the first layer's rotations."""
        if ("opening", 1) not in self._symbol_cache:
            x = self._rotated(1, self.start)
            if self.idle is not None:
                x = [self._with_idle(symbol, value, self.idle) for symbol, value in zip(x, PLUS, strict=True)]
            self._symbol_cache["opening", 1] = x
        return self._symbol_cache["opening", 1]

    def _before_last_rotations(self, vector: Vector) -> list[_Symbol]:
        """Move a row vector from behind the last rotations to in front of them; a single layer is all in `opening`."""
        return list(vector) if self.depth == 1 else self._rotated(self.depth, vector, as_row=True)

    def filled(self, symbol: _Symbol) -> Tensor:
        """Return the values of a symbol, (site, *tail)."""
        return symbol if isinstance(symbol, Tensor) else torch.full_like(self.angles[0, 0].detach(), symbol)

    def _symbols(self, kind: Kind, layer: int, ends: list[list[_Symbol]]) -> list[_Symbol]:
        """Return the symbols that the table of a kind multiplies, in its order (see _cnot_tables.py)."""
        match kind:
            case "scalar":
                total: _Symbol = 0.0
                for a, b in zip(ends[0], self.opening(), strict=True):
                    total = _sum(total, _times(a, b))
                return [total]
            case "whole":
                return [_times(a, b) for a in ends[0] for b in self.opening()]
            case "product" | "first" | "first traced" | "closing first":
                return self.opening()
            case "middle" | "middle traced" | "closing middle":
                if ("matrix", layer) not in self._symbol_cache:
                    columns = [self._rotated(layer, unit) for unit in _UNIT_VECTORS]
                    self._symbol_cache["matrix", layer] = [column[row] for row in range(4) for column in columns]
                return self._symbol_cache["matrix", layer]
            case "last" | "end":
                return [symbol for row in ends for symbol in row]

    def _rotated(self, layer: int, vector: Vector, *, as_row: bool = False) -> list[_Symbol]:
        """Apply a layer's rotations (layers count from 1); `as_row`: to a row vector, from behind them to in front."""
        x: list[_Symbol] = list(vector)
        order = list(enumerate(self.rotations))
        for index, rotation in reversed(order) if as_row else order:
            for plane in self.algebra.planes[rotation]:
                p, q = plane[::-1] if as_row else plane
                if not _is_zero(x[p]) or not _is_zero(x[q]):
                    cos, sin = self._cos_sin(layer, index)
                    x[p], x[q] = (
                        _sum(_times(x[p], cos), _times(x[q], sin), -1),
                        _sum(_times(x[q], cos), _times(x[p], sin)),
                    )
        return x

    def _with_idle(self, symbol: _Symbol, idle_value: float, idle: int) -> _Symbol:
        """Return the symbol with `idle_value` at the idle wires.

        A symbol that is exactly zero must be so whether or not a block has idle wires: terms that come and go would
        change the order of additions, and with it the bits.
        """
        if not isinstance(symbol, Tensor) and symbol == idle_value:
            return symbol
        filled = self.filled(symbol)
        return torch.cat((filled[: len(filled) - idle], torch.full_like(filled[:idle].detach(), idle_value)))

    def _cos_sin(self, layer: int, index: int) -> tuple[Tensor, Tensor]:
        if (layer, index) not in self._cos_sin_cache:
            angle = self.angles[layer - 1, index]
            if self.algebra.scale != 1:
                angle = angle * self.algebra.scale
            self._cos_sin_cache[layer, index] = torch.cos(angle), torch.sin(angle)
        return self._cos_sin_cache[layer, index]

    def _select(self, mask: Tensor, a: _Symbol, b: _Symbol) -> _Symbol:
        """Return b where the mask is True, else a."""
        return 0.0 if _is_zero(a) and _is_zero(b) else torch.where(mask, self.filled(b), self.filled(a))

    def _coefficients(self, table: Table, symbols: list[_Symbol]) -> Tensor:
        """Return the signed symbol of each product of a table, (site, slots, 1, *tail)."""
        signed: dict[tuple[int, int], Tensor] = {}
        for _, _, symbol, sign in table.factors:
            if (symbol, sign) not in signed:
                value = self.filled(symbols[symbol] if symbol >= 0 else 0.0)
                signed[symbol, sign] = value if sign > 0 else -value
        shape = max((value.shape for value in signed.values()), key=torch.Size.numel)
        return torch.stack([signed[symbol, sign].expand(shape) for _, _, symbol, sign in table.factors], 1).unsqueeze(2)


def _is_zero(a: _Symbol) -> bool:
    return not isinstance(a, Tensor) and a == 0


def _times(a: _Symbol, b: _Symbol) -> _Symbol:
    if _is_zero(a) or _is_zero(b):
        return 0.0
    if not isinstance(a, Tensor) and a == 1:
        return b
    return a if not isinstance(b, Tensor) and b == 1 else a * b


def _sum(a: _Symbol, b: _Symbol, sign: int = 1) -> _Symbol:
    if _is_zero(b):
        return a
    if _is_zero(a):
        return b if sign > 0 else -b
    return a + b if sign > 0 else a - b
