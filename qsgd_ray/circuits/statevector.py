"""Exact simulation of many circuits at once in torch: a CircuitSpec and angles in, states or <Z_i> out.

How it is quick. Amplitudes live as real planes (plane, 2**n, batch): plane 0 the real parts, plane 1 the imaginary
parts, the batch contiguous. H and Ry are real; an Rz layer is one diagonal of phases, which is held back until the next
Ry needs it, so the last one is never computed where only probabilities are asked. Until the first CNOT the state is a
product and one operation serves all qubits. A CNOT chain is one permutation of indices.

Batching law: the bits of one circuit's answer do not depend on what else is in the batch, nor on chunks or threads.
Every operation is elementwise along the batch, and the arithmetic is +, -, * in separate operations, each correctly
rounded by IEEE 754 in vector and scalar code alike (no matmul, no sum over an axis, no fused multiply-add: their
order or rounding may change with the batch size). cos and sin alone are the library's; torch's CPU kernels give the
same bits at every position (checked with AVX2 in float32 and float64, torch 2.13; tests/circuits/test_statevector.py
guards it).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from qsgd_ray.circuits.spec import RY, RZ, CircuitSpec, Layer

# Memory for the states of one chunk, in bytes. More is not quicker: chunks that stay in the cache are.
CHUNK_BYTES = 2**20
# Amplitudes that a turn of phases takes at a time: its scratch space.
SLAB = 2**16


def statevector(spec: CircuitSpec, angles_bdn2: Tensor, *, memory_bytes: int = CHUNK_BYTES) -> Tensor:
    """The final states: (batch, 2**n_qubits) complex128 for float64 angles (radians), complex64 for float32.

    Differentiable (reverse mode). `memory_bytes` bounds the states of a chunk of the batch (one circuit at least).
    ValueError: angles of the wrong shape or not real floats.
    """
    chunks = [_state(spec, chunk) for chunk in _chunks(spec, angles_bdn2, memory_bytes)]
    return chunks[0] if len(chunks) == 1 else torch.cat(chunks)


def expectations(spec: CircuitSpec, angles_bdn2: Tensor, *, memory_bytes: int = CHUNK_BYTES) -> Tensor:
    """<Z_i> of every qubit: (batch, n_qubits) real, of the dtype of the angles (radians).

    Differentiable (reverse mode). `memory_bytes` bounds the states of a chunk of the batch (one circuit at least).
    ValueError: angles of the wrong shape or not real floats.
    """
    chunks = [_expectations(spec, chunk) for chunk in _chunks(spec, angles_bdn2, memory_bytes)]
    return chunks[0] if len(chunks) == 1 else torch.cat(chunks)


def _chunks(spec: CircuitSpec, angles_bdn2: Tensor, memory_bytes: int) -> list[Tensor]:
    spec.check_angles(angles_bdn2)
    if angles_bdn2.dtype not in (torch.float32, torch.float64):
        angles_bdn2 = angles_bdn2.to(torch.float32)
    circuits = max(1, memory_bytes // (2 * angles_bdn2.element_size() << spec.n_qubits))
    batch = angles_bdn2.shape[0]
    return [angles_bdn2] if batch <= circuits else list(angles_bdn2.split(circuits))


def _state(spec: CircuitSpec, angles_bdn2: Tensor) -> Tensor:
    planes = _run(spec, angles_bdn2).planes()
    zero = torch.zeros_like(planes[0])
    return torch.complex(planes[0], planes[1] if len(planes) == 2 else zero).t()


def _expectations(spec: CircuitSpec, angles_bdn2: Tensor) -> Tensor:
    return _run(spec, angles_bdn2).expectations()


def _run(spec: CircuitSpec, angles_bdn2: Tensor) -> _States:
    states = _States(spec.n_qubits, angles_bdn2.permute(3, 1, 2, 0).contiguous() * 0.5)
    for layer in spec.layers():
        states.apply(layer)
    return states


class _States:
    """A batch of states under way.

    `x`: real planes, (plane, n, 2, batch) with one pair of amplitudes a qubit while `product`, then
    (plane, 2**n, batch). `pending`: layers that only turn phases or permute, not applied yet.
    """

    def __init__(self, n_qubits: int, half_2dnb: Tensor) -> None:
        self.n = n_qubits
        self.product = True
        self.pending: list[Layer] = []
        ry_dnb, self.rz_dnb = half_2dnb[RY], half_2dnb[RZ]
        self.constants = _constants(half_2dnb.dtype, half_2dnb.device)
        self.cos_dnb = torch.cos(ry_dnb)
        self.sin_dn2b = torch.sin(ry_dnb)[:, :, None] * self.constants.signs

    def apply(self, layer: Layer) -> None:
        if layer.gate == "h":  # opens the circuit: |0> -> (|0> + |1>) / sqrt(2) on every qubit
            self.x = self.constants.plus
        elif layer.gate == "ry":
            self._flush()
            self._rotate(_level(layer))
        else:
            self.pending.append(layer)

    def planes(self) -> Tensor:
        """(plane, 2**n, batch), every gate applied."""
        self._flush()
        return _outer(self.x) if self.product else self.x

    def expectations(self) -> Tensor:
        """(batch, n): <Z_i>. Phases still pending do not change a probability and are dropped."""
        chains = [layer for layer in self.pending if layer.gate == "cx"]
        p = self.x * self.x
        if len(p) == 2:
            p = p[:1] + p[1:]
        if self.product and not chains:
            p0, p1 = p[0].unbind(1)
            return (p0 - p1).t().contiguous()
        if self.product:
            p = _outer(p)
        for layer in chains:
            p = p.index_select(1, _permutation(self.n, layer.targets, p.device))
        # Halve from the top qubit down. Rows: <Z> of the qubits already halved, and last the plain sum.
        for _ in range(self.n):
            low, high = p.chunk(2, 1)
            p = torch.cat(((low - high)[-1:], low + high))
        return p[:-1, 0].t().contiguous()

    def _flush(self) -> None:
        if self.product and any(layer.gate == "cx" for layer in self.pending):
            self.x, self.product = _outer(self.x), False
        for layer in self.pending:
            if layer.gate == "cx":
                self.x = self.x.index_select(1, _permutation(self.n, layer.targets, self.x.device))
            else:
                phases_n2b = self.rz_dnb[_level(layer)][:, None] * self.constants.signs
                self.x = _turn(self.x, phases_n2b if self.product else _outer_sum(phases_n2b))
        self.pending.clear()

    def _rotate(self, level: int) -> None:
        """Ry on every qubit: (x0, x1) -> (x0 cos - x1 sin, x1 cos + x0 sin)."""
        cos_nb, sin_n2b, swap = self.cos_dnb[level], self.sin_dn2b[level], self.constants.swap
        if self.product:
            self.x = self.x * cos_nb[:, None] + self.x.index_select(2, swap) * sin_n2b
            return
        x, (planes, states, batch) = self.x, self.x.shape
        in_place = not _recorded(x, cos_nb)
        for qubit, (cos_b, sin_2b) in enumerate(zip(cos_nb.unbind(0), sin_n2b[:, :, None].unbind(0), strict=True)):
            x = x.view(planes * states >> (qubit + 1), 2, 1 << qubit, batch)
            x = _mix(x, x.index_select(1, swap), cos_b, sin_2b, in_place)
        self.x = x.view(planes, states, batch)


def _level(layer: Layer) -> int:
    assert layer.angle is not None
    return layer.angle[0]


def _mix(x: Tensor, swapped: Tensor, cos: Tensor, sin: Tensor, in_place: bool) -> Tensor:
    return x.mul_(cos).add_(swapped.mul_(sin)) if in_place else x * cos + swapped * sin


def _recorded(*tensors: Tensor) -> bool:
    """Does autograd follow these? If not, their memory may be used again, which is what keeps the peak low."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _turn(x: Tensor, phases: Tensor) -> Tensor:
    """e^{i phases} x on planes; `phases` has the shape of one plane. Overwrites x where autograd does not follow."""
    if _recorded(x, phases):
        cos, sin = torch.cos(phases), torch.sin(phases)
        re, im = x.unbind(0) if len(x) == 2 else (x[0], None)
        if im is None:
            return torch.stack((re * cos, re * sin))
        return torch.stack((re * cos - im * sin, im * cos + re * sin))
    if len(x) == 1:
        y = x.new_empty(2, *phases.shape)
        torch.cos(phases, out=y[0])
        torch.sin(phases, out=y[1])
        return y.mul_(x)
    for x_slab, phases_slab in zip(x.split(SLAB, 1), phases.split(SLAB), strict=True):
        re, im = x_slab.unbind(0)
        cos, sin = torch.cos(phases_slab), torch.sin(phases_slab)
        re_sin = re * sin
        re.mul_(cos).sub_(im * sin)
        im.mul_(cos).add_(re_sin)
    return x


def _outer(x_pn2b: Tensor) -> Tensor:
    """The product state of single qubits, (plane, n, 2, batch) -> (plane, 2**n, batch)."""
    planes, n, _, batch = x_pn2b.shape
    qubits = x_pn2b.view(planes, n, 2, 1, batch).unbind(1)
    x = qubits[0].flatten(1, 2)
    for qubit in qubits[1:]:
        low = x[:, None]
        if planes == 1:
            x = qubit * low
        else:
            (re, im), (low_re, low_im) = qubit.unbind(0), low.unbind(0)
            x = torch.stack((re * low_re - im * low_im, re * low_im + im * low_re))
        x = x.flatten(1, 2)
    return x


def _outer_sum(x_n2b: Tensor) -> Tensor:
    """Sums in place of the products of `_outer`: (n, 2, batch) -> (2**n, batch)."""
    n, _, batch = x_n2b.shape
    qubits = x_n2b.view(n, 2, 1, batch).unbind(0)
    x = qubits[0].flatten(0, 1)
    for qubit in qubits[1:]:
        x = (qubit + x).flatten(0, 1)
    return x


class _Constants(NamedTuple):
    plus: Tensor  # |+>, as (plane, qubit, 2, batch)
    signs: Tensor  # (-1, 1), as (2, batch)
    swap: Tensor


# Made once, for callers under inference_mode and callers who differentiate alike.


@lru_cache(maxsize=8)
def _constants(dtype: torch.dtype, device: torch.device) -> _Constants:
    with torch.inference_mode(False):
        plus = torch.full((1, 1, 2, 1), math.sqrt(0.5), dtype=dtype, device=device)
        signs = torch.tensor(((-1.0,), (1.0,)), dtype=dtype, device=device)
        return _Constants(plus, signs, torch.tensor((1, 0), device=device))


@lru_cache(maxsize=64)
def _kept_permutation(n_qubits: int, chain: tuple[tuple[int, ...], ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return _new_permutation(n_qubits, chain, device)


def _permutation(n_qubits: int, chain: tuple[tuple[int, ...], ...], device: torch.device) -> Tensor:
    """Where each amplitude comes from under CNOTs (control, target) applied in order: (2**n,) int32."""
    if n_qubits > 16:  # not kept: 4 bytes an amplitude for as long as the process lives
        return _new_permutation(n_qubits, chain, device)
    return _kept_permutation(n_qubits, chain, device)


def _new_permutation(n_qubits: int, chain: tuple[tuple[int, ...], ...], device: torch.device) -> Tensor:
    source = np.arange(1 << n_qubits, dtype=np.int32)
    for control, target in reversed(chain):  # a CNOT is its own inverse, so the inverse is the chain backwards
        source ^= ((source >> control) & 1) << target
    return torch.from_numpy(source).to(device)
