"""Final states of shallow open chains by contraction: angles in, amplitudes out, no gate ever applied to a whole state.

Through a CNOT chain y_k = x_k xor y_{k-1}: what a qubit tells the next is one bit a layer. So before its last chain a
circuit of depth D is a matrix-product state of bond chi = 2**(D-1), and a state is a sum of chi products: of what the
lower half of the qubits does and what the upper half does. Each half grows from its outer end inwards, both ends at
once; one pass over the whole state then multiplies them. At depth 2 that is two complex multiplications an amplitude,
whatever the number of qubits, in place of one gate a qubit.

The last chain costs nothing either: within a half it permutes few numbers, and the bit it hands from the lower half to
the upper one complements the upper half's index.

Arithmetic is real, on planes (plane 0 the real, plane 1 the imaginary parts), elementwise along the batch:
multiplications, and torch.addcmul, whose rounding does not depend on the position in a tensor
(tests/circuits/test_statevector.py guards it). So the batching law of statevector.py holds.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from qsgd_ray.circuits.spec import CircuitSpec

# Left-multiplying a gate (re a, im a, re b, im b) = [[a, -b*], [b, a*]] by a rotation is cos * gate + sin * signs *
# gate[order].
_TURNS = {
    "rx": ((3, 2, 1, 0), (1.0, -1.0, 1.0, -1.0)),
    "ry": ((2, 3, 0, 1), (-1.0, -1.0, 1.0, 1.0)),
    "rz": ((1, 0, 3, 2), (1.0, -1.0, -1.0, 1.0)),
}


def contracts(spec: CircuitSpec) -> bool:
    """Is contraction the cheaper way to the final state? Counted in multiplications."""
    if spec.entangle not in ("chain", "none"):
        return False
    chi = _bond(spec)
    if chi == 1:
        return True
    half = 1 << (spec.n_qubits + 1) // 2
    contraction = 4 * chi * 2**spec.n_qubits + 4 * chi * chi * (spec.n_qubits + 4 * half)
    gates = (spec.depth - 1) * spec.n_qubits * 8 * 2**spec.n_qubits
    return contraction < gates


def contracted_bytes(spec: CircuitSpec, element_size: int) -> int:
    """Bytes of the largest tensors that one circuit's contraction takes besides the final state."""
    chi, half = _bond(spec), 1 << (spec.n_qubits + 1) // 2
    return element_size * (4 * chi * half * 4 + 4 * chi * chi * spec.n_qubits)


def final_planes(spec: CircuitSpec, half_rdnb: Tensor, *, batch_first: bool) -> Tensor:
    """The final states, (plane, batch, 2**n) where `batch_first`, else (plane, 2**n, batch).

    `half_rdnb`: half the angles, (rotation, depth, qubit, batch).
    """
    halves = _halves(spec, half_rdnb)
    if halves.upper is None:
        return halves.lower.transpose(1, 2).contiguous() if batch_first else halves.lower
    lower_jtlb, upper_qjhtb = halves.lower, halves.upper
    # Axes of the product: (plane, upper, carried bit, lower, batch), with the batch in second place where it is first.
    if batch_first:
        lower = lower_jtlb.permute(0, 3, 1, 2).contiguous()[:, None, :, None]
        upper = upper_qjhtb.permute(1, 0, 4, 2, 3)[..., None]
        return _summed(upper, lower).flatten(2)
    return _summed(upper_qjhtb.transpose(0, 1)[:, :, :, :, None], lower_jtlb[:, None, None]).flatten(1, 3)


def first_planes(spec: CircuitSpec, half_rdnb: Tensor) -> Tensor:
    """Only the first n_qubits amplitudes of each state: (plane, n_qubits, batch). They lie in few products."""
    n, halves = spec.n_qubits, _halves(spec, half_rdnb)
    if halves.upper is None:
        return halves.lower[:, :n]
    lower_jtlb, upper_qjhtb = halves.lower, halves.upper
    in_lower = lower_jtlb.shape[1] * lower_jtlb.shape[2]
    upper = upper_qjhtb.transpose(0, 1)[:, :, : -(-n // in_lower), :, None]
    return _summed(upper, lower_jtlb[:, None, None]).flatten(1, 3)[:, :n]


def _summed(left: Tensor, right: Tensor) -> Tensor:
    """sum_j left[j] * right[j], in this order."""
    total = left[0] * right[0]
    for one, other in zip(left[1:].unbind(0), right[1:].unbind(0), strict=True):
        total = torch.addcmul(total, one, other) if total.requires_grad else total.addcmul_(one, other)
    return total


class _Halves(NamedTuple):
    """`lower`: (j, t, lower index without its top bit, batch), t the bit handed on; j runs over planes and bond.

    `upper`: (plane, j, upper index, t, batch), signed so that sum_j upper * lower is a complex product. None: a single
    qubit; then `lower` is its state, (plane, 2, batch).
    """

    lower: Tensor
    upper: Tensor | None


def _halves(spec: CircuitSpec, half_rdnb: Tensor) -> _Halves:
    n, batch = spec.n_qubits, half_rdnb.shape[-1]
    gates_4dnb = single_qubit_gates(spec, half_rdnb)
    opened_p2nb = opened(gates_4dnb[:, 0])
    chained = spec.entangle == "chain" and n > 1
    if not chained or spec.depth == 1:
        for level in range(1, spec.depth):
            opened_p2nb = _applied(_matrix(gates_4dnb[:, level]), opened_p2nb)
        ends = opened_p2nb[:, :, None]  # (plane, x, bond 1, qubit, batch)
        sites = ends[:, :, :, None]
    else:
        sites = _sites(opened_p2nb, [_matrix(gates_4dnb[:, level]) for level in range(1, spec.depth)])
        ends = None
    chi = sites.shape[2]
    if n == 1:
        return _Halves(opened_p2nb[:, :, 0], None)
    # Sites are M[plane, x, bond out, bond in, qubit, batch]. The lower half grows from qubit 0 (nothing comes in), the
    # upper one from qubit n-1 (what goes out is summed); a step handles both, so the upper one's bonds are swapped.
    if ends is None:
        low, high = sites[:, :, :, 0, 0], _sum_of(sites[:, :, :, :, n - 1], 2)
    else:
        low, high = ends[:, :, :, 0], ends[:, :, :, n - 1]
    grown = (
        torch.stack((low, high), 3).transpose(1, 2).reshape(2, chi, 2, 2, batch)
    )  # (plane, bond, index, side, batch)
    n_upper = n // 2
    for step in range(1, n_upper):
        inner = (sites[..., step, :], sites[..., n - 1 - step, :].transpose(2, 3))
        grown = _grow(torch.stack(inner, 4), grown)
    lower, upper = grown.unbind(3)
    if n % 2:
        lower = _grow(sites[..., n_upper, :][:, :, :, :, None], lower[:, :, :, None])[:, :, :, 0]
    lower_index, upper_index = _indices(n - n_upper, n_upper, chained, lower.device)
    carried = 2 if chained else 1
    lower = lower.index_select(2, lower_index).reshape(2 * chi, carried, (1 << n - n_upper) // carried, batch)
    upper = upper.index_select(2, upper_index).reshape(2, chi, 1 << n_upper, carried, batch)
    return _Halves(lower, _signed(upper).reshape(2, 2 * chi, 1 << n_upper, carried, batch))


def _grow(sites: Tensor, grown: Tensor) -> Tensor:
    """One site more: M (plane, x, free, summed, side, batch), T (plane, summed, index, side, batch) -> T."""
    planes, chi = grown.shape[:2]
    left = _signed(sites.permute(0, 3, 2, 1, 4, 5)).flatten(1, 2)  # (plane, j = (plane, summed), free, x, side, batch)
    right = grown.reshape(planes * chi, *grown.shape[2:])
    total = _summed(left.transpose(0, 1)[:, :, :, :, None], right[:, None, None, None])
    return total.flatten(2, 3)  # (plane, free, index with the new bit on top, side, batch)


def _signed(x: Tensor) -> Tensor:
    """(plane, ...) -> (plane, plane', ...): complex multiplication by x as a real matrix on planes."""
    re, im = x.unbind(0)
    return torch.stack((re, -im, im, re)).view(2, 2, *re.shape)


def _sum_of(x: Tensor, axis: int) -> Tensor:
    """A sum in the order of the axis, whatever the batch."""
    first, *others = x.unbind(axis)
    for other in others:
        first = first + other
    return first


def _sites(opened_p2nb: Tensor, matrices: list[Tensor]) -> Tensor:
    """M[plane, x, bond out, bond in, qubit, batch] of every qubit.

    The bond is (y_1 ... y_{D-1}), y_d = x_d xor y_d of the qubit before:
    M[x, y, c] = opened[y_1 ^ c_1] * u_2[y_2 ^ c_2, y_1] * ... * u_D[x, y_{D-1}].
    """
    xor = _xor(opened_p2nb.device)
    site = opened_p2nb.index_select(1, xor).unflatten(1, (2, 2))  # (plane, y_1, c_1, qubit, batch)
    for matrix in matrices[:-1]:
        # (plane, x, y, ...) -> (plane, y_d, c_d, y_{d-1}, ...), then all of the bond so far behind it.
        link = matrix.index_select(1, xor).unflatten(1, (2, 2))
        planes, out, into = site.shape[:3]
        tail = site.shape[3:]
        site = site.view(planes, out // 2, 2, into, *tail)  # y_{d-1} is the last bit of the bond out
        product = _complex(link.view(2, 2, 2, 1, 2, 1, *tail), site.view(planes, 1, 1, out // 2, 2, into, *tail))
        # (plane, y_d, c_d, rest out, y_{d-1}, into) -> out = (rest, y_{d-1}, y_d), in = (into, c_d)
        site = product.permute(0, 3, 4, 1, 5, 2, *range(6, product.dim())).reshape(planes, out * 2, into * 2, *tail)
    planes, out, into = site.shape[:3]
    tail = site.shape[3:]
    last = matrices[-1].view(planes, 2, 1, 2, 1, *tail)
    return _complex(last, site.view(planes, 1, out // 2, 2, into, *tail)).reshape(planes, 2, out, into, *tail)


def _complex(a: Tensor, b: Tensor) -> Tensor:
    """a * b on planes, broadcast."""
    (a_re, a_im), (b_re, b_im) = a.unbind(0), b.unbind(0)
    return torch.stack((torch.addcmul(a_re * b_re, a_im, b_im, value=-1), torch.addcmul(a_re * b_im, a_im, b_re)))


def _applied(matrix: Tensor, state: Tensor) -> Tensor:
    """A gate on each qubit of a product state: (plane, x, y, qubit, batch) and (plane, y, qubit, batch)."""
    return _complex(matrix[:, :, 0], state[:, None, 0]) + _complex(matrix[:, :, 1], state[:, None, 1])


def opened(gates_4nb: Tensor) -> Tensor:
    """The first layer on |+>: (plane, 2, qubit, batch)."""
    a_re, a_im, b_re, b_im = (gates_4nb * math.sqrt(0.5)).unbind(0)
    return torch.stack((a_re - b_re, b_re + a_re, a_im + b_im, b_im - a_im)).unflatten(0, (2, 2))


def _matrix(gates_4nb: Tensor) -> Tensor:
    """[[a, -b*], [b, a*]] on planes: (plane, x, y, qubit, batch)."""
    a_re, a_im, b_re, b_im = gates_4nb.unbind(0)
    return torch.stack((a_re, -b_re, b_re, a_re, a_im, b_im, b_im, -a_im)).unflatten(0, (2, 2, 2))


def single_qubit_gates(spec: CircuitSpec, half_rdnb: Tensor) -> Tensor:
    """A layer's rotations of a qubit as one gate [[a, -b*], [b, a*]]: (re a, im a, re b, im b), depth, n, batch."""
    cos, sin = torch.cos(half_rdnb), torch.sin(half_rdnb)
    gates: Tensor | None = None
    for index, rotation in enumerate(spec.rotations):
        order, signs = _turn(rotation, half_rdnb.dtype, half_rdnb.device)
        if gates is None:
            zero = torch.zeros_like(cos[0])
            parts = [cos[0], zero, zero, zero]
            place = _TURNS[rotation][0].index(0)
            parts[place] = sin[index] if _TURNS[rotation][1][place] > 0 else -sin[index]
            gates = torch.stack(parts)
        else:
            gates = torch.addcmul(gates * cos[index], gates.index_select(0, order) * signs, sin[index])
    assert gates is not None
    return gates


# Made once, for callers under inference_mode and callers who differentiate alike.


@lru_cache(maxsize=16)
def _turn(rotation: str, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):
        order, signs = _TURNS[rotation]
        return torch.tensor(order, device=device), torch.tensor(signs, dtype=dtype, device=device).view(4, 1, 1, 1)


@lru_cache(maxsize=4)
def _xor(device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor((0, 1, 1, 0), device=device)


@lru_cache(maxsize=32)
def _indices(n_lower: int, n_upper: int, chained: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where the final order of each half finds its amplitudes: (2**n_lower,), and (2**n_upper * carried bits,).

    The lower half lies in natural order, the upper one with its bits reversed. The last chain is undone on the index:
    x_k = y_k xor y_{k-1}, where the upper half's first qubit looks at the lower half's last y.
    """
    low, high = np.arange(1 << n_lower), np.arange(1 << n_upper)
    if chained:
        low = low ^ (low << 1) & (1 << n_lower) - 1
        handed = np.arange(2)
        high = (high ^ (high << 1) & (1 << n_upper) - 1)[:, None] ^ handed
    reversed_high = np.zeros_like(high)
    for bit in range(n_upper):
        reversed_high |= (high >> bit & 1) << n_upper - 1 - bit
    with torch.inference_mode(False):
        return torch.from_numpy(low).to(device), torch.from_numpy(reversed_high.reshape(-1)).to(device)


def _bond(spec: CircuitSpec) -> int:
    return 1 << spec.depth - 1 if spec.entangle == "chain" and spec.n_qubits > 1 else 1
