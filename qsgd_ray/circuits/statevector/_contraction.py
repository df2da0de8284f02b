"""Final states of shallow open chains by tensor contraction; no gate is ever applied to a whole state.

A CNOT chain computes y_k = x_k xor y_{k-1}, so each layer passes one bit from a qubit to the next. Before its last
chain, a circuit of depth D is therefore a matrix-product state of bond dimension chi = 2**(D-1): a state is a sum over
the bond of a vector of the lower half of the qubits times a vector of the upper half. Both halves are contracted from
their outer ends inwards, in the same operations, and one pass over the whole state multiplies them. At depth 2 that
takes two complex multiplications an amplitude, whatever n, in place of one gate a qubit.

The last chain is free: within a half it permutes a few numbers, and the bit that it carries from the lower half to the
upper one complements the index of the upper half.

Arithmetic is real, on planes (plane 0 the real parts, plane 1 the imaginary parts), elementwise along the batch:
multiplications, and torch.addcmul, whose rounding does not depend on the position in a tensor
(tests/circuits/statevector checks it). So the batching law of simulate.py holds.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from qsgd_ray.circuits.spec import CircuitSpec

# Left-multiplying a gate (re a, im a, re b, im b) = [[a, -b*], [b, a*]] by a rotation is, component by component,
# cos * gate[k] + sign * sin * gate[order[k]].
_TURNS = {
    "rx": ((3, 2, 1, 0), (1, -1, 1, -1)),
    "ry": ((2, 3, 0, 1), (-1, -1, 1, 1)),
    "rz": ((1, 0, 3, 2), (1, -1, -1, 1)),
}


def prefers_contraction(spec: CircuitSpec) -> bool:
    """Return True where contraction takes fewer multiplications to the final state than gate after gate does."""
    if spec.entangle not in ("chain", "none"):
        return False
    chi = _bond(spec)
    if chi == 1:
        return True
    half = 1 << (spec.n_qubits + 1) // 2
    contraction = 4 * chi * 2**spec.n_qubits + 4 * chi * chi * (spec.n_qubits + 4 * half)
    gates = (spec.depth - 1) * spec.n_qubits * 8 * 2**spec.n_qubits
    return contraction < gates


def final_planes(spec: CircuitSpec, half_rdnb: Tensor, *, batch_first: bool) -> Tensor:
    """Return the final states, (plane, b, 2**n) where `batch_first`, else (plane, 2**n, b).

    `half_rdnb`: half the angles in radians, shape (r, d, n, b).
    """
    halves = _halves(spec, half_rdnb)
    if halves.upper is None:
        return halves.lower.transpose(1, 2).contiguous() if batch_first else halves.lower
    lower_pctlb, upper_pchtb = halves.lower, halves.upper
    # Axes of the product: (plane, upper, carried bit, lower, batch); the batch comes second where `batch_first`.
    if batch_first:
        lower = lower_pctlb.permute(0, 1, 4, 2, 3).contiguous()[:, :, :, None]
        upper = upper_pchtb.permute(0, 1, 4, 2, 3)[..., None]
        return _summed(upper, lower).flatten(2)
    return _summed(upper_pchtb[:, :, :, :, None], lower_pctlb[:, :, None]).flatten(1, 3)


def first_planes(spec: CircuitSpec, half_rdnb: Tensor) -> Tensor:
    """Return the first n amplitudes of each state alone, (plane, n, b): few products of the halves have them all."""
    n, halves = spec.n_qubits, _halves(spec, half_rdnb)
    if halves.upper is None:
        return halves.lower[:, :n]
    in_lower = halves.lower.shape[2] * halves.lower.shape[3]
    upper = halves.upper[:, :, : -(-n // in_lower), :, None]
    return _summed(upper, halves.lower[:, :, None]).flatten(1, 3)[:, :n]


def _summed(a: Tensor, b: Tensor) -> Tensor:
    """Return sum_c a[:, c] * b[:, c] of complex numbers on planes, (plane, c, ...) broadcast, in the order of c."""
    re: Tensor | None = None
    im: Tensor | None = None
    recorded = a.requires_grad or b.requires_grad
    if not recorded:  # write in place: torch.stack would be one more pass over memory
        out = a.new_empty(2, *torch.broadcast_shapes(a.shape[2:], b.shape[2:]))
        re, im = out.unbind(0)
    for c in range(a.shape[1]):
        (a_re, a_im), (b_re, b_im) = a[:, c].unbind(0), b[:, c].unbind(0)
        if recorded:
            re = a_re * b_re if re is None else torch.addcmul(re, a_re, b_re)
            im = a_re * b_im if im is None else torch.addcmul(im, a_re, b_im)
            re, im = torch.addcmul(re, a_im, b_im, value=-1), torch.addcmul(im, a_im, b_re)
        else:
            assert re is not None
            assert im is not None
            if c:
                re.addcmul_(a_re, b_re)
                im.addcmul_(a_re, b_im)
            else:
                torch.mul(a_re, b_re, out=re)
                torch.mul(a_re, b_im, out=im)
            re.addcmul_(a_im, b_im, value=-1)
            im.addcmul_(a_im, b_re)
    assert re is not None
    assert im is not None
    return torch.stack((re, im)) if recorded else out


class _Halves(NamedTuple):
    """Both halves of a state; t is the bit that the last chain carries from the lower half to the upper one.

    `lower`: (plane, bond, t, lower index without its top bit, batch).
    `upper`: (plane, bond, upper index, t, batch). None: a single qubit; then `lower` is its state, (plane, 2, batch).
    """

    lower: Tensor
    upper: Tensor | None


def _halves(spec: CircuitSpec, half_rdnb: Tensor) -> _Halves:
    """Contract both halves of the state from their outer ends."""
    n, batch = spec.n_qubits, half_rdnb.shape[-1]
    gates = _single_qubit_gates(spec, half_rdnb)
    state_p2nb = _on_plus(gates, 0)
    chained = spec.entangle == "chain" and n > 1
    if not chained or spec.depth == 1:
        for level in range(1, spec.depth):
            state_p2nb = _summed(_matrix(gates, level).transpose(1, 2), state_p2nb[:, :, None])
        if n == 1:
            return _Halves(state_p2nb[:, :, 0], None)
        inner = state_p2nb[:, :, None, None, 1:-1]  # (plane, x, bond 1, bond 1, qubit, batch)
        low, high = state_p2nb[:, None, :, 0], state_p2nb[:, None, :, -1]
    else:
        matrices = [_matrix(gates, level) for level in range(1, spec.depth)]
        # No carry comes into qubit 0; the carries out of qubit n-1 are summed.
        first = _sites(state_p2nb[:, :, :1], [matrix[..., :1, :] for matrix in matrices], is_first=True)
        rest = _sites(state_p2nb[:, :, 1:], [matrix[..., 1:, :] for matrix in matrices])
        inner = rest[..., :-1, :]
        low, high = first[:, :, :, 0, 0].transpose(1, 2), _ordered_sum(rest[..., -1, :], 2).transpose(1, 2)
    chi = low.shape[1]
    # The lower half grows from qubit 0, the upper one from qubit n-1 with its bonds swapped: one step extends both.
    grown = torch.stack((low, high), 3)  # (plane, bond, index, side, batch)
    n_upper = n // 2
    for step in range(n_upper - 1):
        both = torch.stack((inner[..., step, :], inner[..., n - 3 - step, :].transpose(2, 3)), 4)
        grown = _grow(both, grown)
    lower, upper = grown.unbind(3)
    if n % 2:
        lower = _grow(inner[..., n_upper - 1, :][:, :, :, :, None], lower[:, :, :, None])[:, :, :, 0]
    lower_index, upper_index = _indices(n - n_upper, n_upper, chained, lower.device)
    carried = 2 if chained else 1
    return _Halves(
        lower.index_select(2, lower_index).view(2, chi, carried, (1 << n - n_upper) // carried, batch),
        upper.index_select(2, upper_index).view(2, chi, 1 << n_upper, carried, batch),
    )


def _grow(sites: Tensor, grown: Tensor) -> Tensor:
    """Extend T (plane, summed, index, side, batch) by one site M (plane, x, free, summed, side, batch)."""
    left = sites.permute(0, 3, 2, 1, 4, 5)[:, :, :, :, None]  # (plane, summed, free, x, index, side, batch)
    # (plane, free, index with the new bit on top, side, batch)
    return _summed(left, grown[:, :, None, None]).flatten(2, 3)


def _ordered_sum(x: Tensor, axis: int) -> Tensor:
    """Return the sum along an axis, added in its order whatever the batch."""
    first, *others = x.unbind(axis)
    for other in others:
        first = first + other
    return first


def _sites(first_p2nb: Tensor, matrices: list[Tensor], is_first: bool = False) -> Tensor:
    """Return M[plane, x, bond out, bond in, qubit, batch] of every qubit; `is_first`: only the bond in 0, of qubit 0.

    The bond is (y_1 ... y_{D-1}), y_d = x_d xor y_d of the qubit before:
    M[x, y, c] = first[y_1 ^ c_1] * u_2[y_2 ^ c_2, y_1] * ... * u_D[x, y_{D-1}].
    """
    bits_in = 1 if is_first else 2

    def linked(x: Tensor) -> Tensor:  # (plane, y ^ c, ...) -> (plane, y, c, ...)
        return x[:, :, None] if is_first else x.index_select(1, _xor(x.device)).unflatten(1, (2, 2))

    site = linked(first_p2nb)  # (plane, y_1, c_1, qubit, batch)
    for matrix in matrices[:-1]:
        # (plane, x, y, ...) -> (plane, y_d, c_d, y_{d-1}, ...), then all of the bond so far behind it.
        link = linked(matrix)
        planes, out, into = site.shape[:3]
        tail = site.shape[3:]
        site = site.view(planes, out // 2, 2, into, *tail)  # y_{d-1} is the last bit of the bond out
        product = _complex(link.view(2, 2, bits_in, 1, 2, 1, *tail), site.view(planes, 1, 1, out // 2, 2, into, *tail))
        # (plane, y_d, c_d, rest out, y_{d-1}, into) -> out = (rest, y_{d-1}, y_d), in = (into, c_d)
        site = product.permute(0, 3, 4, 1, 5, 2, *range(6, product.dim())).reshape(
            planes, out * 2, into * bits_in, *tail
        )
    planes, out, into = site.shape[:3]
    tail = site.shape[3:]
    last = matrices[-1].view(planes, 2, 1, 2, 1, *tail)
    return _complex(last, site.view(planes, 1, out // 2, 2, into, *tail)).reshape(planes, 2, out, into, *tail)


def _complex(a: Tensor, b: Tensor) -> Tensor:
    """Return a * b of complex numbers on planes, broadcast."""
    return _summed(a[:, None], b[:, None])


# re a, im a, re b, im b of the gates [[a, -b*], [b, a*]], (d, n, b) each; None: 0 for all angles.
_Gates = tuple[Tensor | None, ...]


def _single_qubit_gates(spec: CircuitSpec, half_rdnb: Tensor) -> _Gates:
    """Multiply the rotations of each layer and qubit into one gate."""
    cos, sin = torch.cos(half_rdnb), torch.sin(half_rdnb)
    gate: list[Tensor | None] = [None] * 4
    for index, rotation in enumerate(spec.rotations):
        order, signs = _TURNS[rotation]
        if index == 0:
            row = order.index(0)
            gate[0], gate[row] = cos[0], sin[0] if signs[row] > 0 else -sin[0]
            continue
        turned = [None if part is None else part * cos[index] for part in gate]
        for k, (source, sign) in enumerate(zip(order, signs, strict=True)):
            part, before = gate[source], turned[k]
            if part is None:
                continue
            if before is not None:
                turned[k] = torch.addcmul(before, part, sin[index], value=sign)
            else:
                product = part * sin[index]
                turned[k] = product if sign > 0 else -product
        gate = turned
    return tuple(gate)


def _on_plus(gates: _Gates, level: int) -> Tensor:
    """Apply a layer to |+>: (plane, 2, qubit, batch)."""
    a_re, a_im, b_re, b_im = _parts(gates, level)
    scale = math.sqrt(0.5)
    parts = (a_re - b_re, b_re + a_re, a_im + b_im, b_im - a_im)
    return (torch.stack(parts) * scale).unflatten(0, (2, 2))


def _matrix(gates: _Gates, level: int) -> Tensor:
    """Return [[a, -b*], [b, a*]] of a layer on planes: (plane, x, y, qubit, batch)."""
    a_re, a_im, b_re, b_im = _parts(gates, level)
    return torch.stack((a_re, -b_re, b_re, a_re, a_im, b_im, b_im, -a_im)).unflatten(0, (2, 2, 2))


def _parts(gates: _Gates, level: int) -> list[Tensor]:
    """Return the four components of a layer, zeros where they are None."""
    zero = torch.zeros_like(next(part for part in gates if part is not None)[level])
    return [zero if part is None else part[level] for part in gates]


# Cached outside inference mode, so that autograd may use them whichever caller came first.


@lru_cache(maxsize=4)
def _xor(device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor((0, 1, 1, 0), device=device)


@lru_cache(maxsize=32)
def _indices(n_lower: int, n_upper: int, chained: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the index of each half's amplitudes in final order: (2**n_lower,), and (2**n_upper * carried bits,).

    The lower half is stored in natural order, the upper one with its bits reversed. The last chain is undone on the
    index: x_k = y_k xor y_{k-1}, where y_{k-1} of the upper half's first qubit is the lower half's last y.
    """
    low, high = np.arange(1 << n_lower), np.arange(1 << n_upper)
    if chained:  # x = y ^ (y << 1), within each half
        low = low ^ (low << 1) & (1 << n_lower) - 1
        carried = np.arange(2)
        high = (high ^ (high << 1) & (1 << n_upper) - 1)[:, None] ^ carried
    reversed_high = np.zeros_like(high)
    for bit in range(n_upper):
        reversed_high |= (high >> bit & 1) << n_upper - 1 - bit
    with torch.inference_mode(False):
        return torch.from_numpy(low).to(device), torch.from_numpy(reversed_high.reshape(-1)).to(device)


def _bond(spec: CircuitSpec) -> int:
    """Return the bond dimension of the state before its last chain."""
    return 1 << spec.depth - 1 if spec.entangle == "chain" and spec.n_qubits > 1 else 1
