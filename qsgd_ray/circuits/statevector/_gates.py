"""Final states of any circuit gate by gate, and their gradients by the adjoint method.

Amplitudes are real planes (plane, 2**n, batch): plane 0 the real parts, plane 1 the imaginary parts, the batch
contiguous. Few passes over memory:

- H and Ry are real: until the first Rx or Rz there is one plane.
- Before the first CNOT the state is a product, and one operation serves all qubits.
- An Rz layer is one diagonal of phases; the CNOTs of a layer are one permutation of indices. Both wait, in their order,
  until the next Rx or Ry or the end.

Arithmetic is +, -, * in separate operations, elementwise along the batch (the batching law of simulate.py).

The adjoint method (Jones and Gacon, arXiv 2009.02823) stores the last state of the forward pass alone. Gates are
unitary, so the state before a gate follows by undoing it, and <adjoint| dU |state> gives the derivative of each angle
on the way back.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qsgd_ray.circuits.derivatives import once
from qsgd_ray.circuits.spec import CircuitSpec, Layer

# Number of amplitudes whose phases are turned at a time: it bounds the scratch space.
_SLAB = 2**14
# Phases beyond this lose whole turns before they are summed: in float64 the sum of smaller ones is good to 1e-12.
_LARGE = {torch.float32: math.pi, torch.float64: 1e4}
# 2 pi as a number of 33 bits, so that up to 2**20 turns are exact in float64, and the rest of it.
_TURN = (6.2831853069365025, 2.430840202602477e-10)


def final_planes(spec: CircuitSpec, half_rdnb: Tensor) -> Tensor:
    """Return the final states, (plane, 2**n, b). `half_rdnb`: half the angles in radians, shape (r, d, n, b)."""
    return _Final.apply(half_rdnb, spec)


class _Final(torch.autograd.Function):
    """Final planes from half the angles; backward is the adjoint method."""

    @staticmethod
    def forward(ctx: Any, half_rdnb: Tensor, spec: CircuitSpec) -> Tensor:
        planes = _run(spec, half_rdnb)
        ctx.spec = spec
        ctx.save_for_backward(half_rdnb, planes)
        return planes

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        half_rdnb, planes = ctx.saved_tensors
        with torch.no_grad():
            gradient = _adjoint(ctx.spec, half_rdnb, planes, grad)
        return once(gradient, "statevector gate by gate", grad, half_rdnb), None


def _run(spec: CircuitSpec, half_rdnb: Tensor) -> Tensor:
    """Apply all layers."""
    states = _States(spec, half_rdnb)
    for layer in spec.layers():
        states.apply(layer)
    return states.planes()


class _States:
    """A batch of states between two gates.

    `x`: real planes, (plane, n, 2, batch) with one pair of amplitudes a qubit while `is_product`, then
    (plane, 2**n, batch). `pending`: layers that only turn phases or permute, not applied yet.
    """

    def __init__(self, spec: CircuitSpec, half_rdnb: Tensor) -> None:
        self.n = spec.n_qubits
        self.is_product = True
        self.pending: list[Layer] = []
        self.half_rdnb = half_rdnb
        self.constants = _constants(half_rdnb.dtype, half_rdnb.device)
        self.x = self.constants.plus

    def apply(self, layer: Layer) -> None:
        """Apply a layer; Rz and CNOT layers wait in `pending` until the next Rx or Ry or the end."""
        if layer.gate == "h":  # the first layer: x starts in |+> on every qubit
            return
        if layer.gate in ("rx", "ry"):
            self._flush()
            self._rotate(layer)
        else:
            self.pending.append(layer)

    def planes(self) -> Tensor:
        """Return (2, 2**n, batch) with every gate applied."""
        self._flush()
        x = self._outer() if self.is_product else self.x
        x = x.expand(*x.shape[:2], self.half_rdnb.shape[-1])
        return torch.cat((x, torch.zeros_like(x))) if len(x) == 1 else x.contiguous()

    def _outer(self) -> Tensor:
        return _outer(self.x.expand(-1, self.n, -1, -1))

    def _angles(self, layer: Layer) -> Tensor:
        """Return half the angles of a layer, (n, batch)."""
        assert layer.angle is not None
        level, index = layer.angle
        return self.half_rdnb[index, level]

    def _flush(self) -> None:
        """Apply the pending layers."""
        for layer in self.pending:
            if layer.gate == "cx":
                if self.is_product:
                    self.x, self.is_product = self._outer(), False
                self.x = self.x.index_select(1, _permutation(self.n, layer.targets, self.x.device))
            else:
                phases_n2b = self._angles(layer)[:, None] * self.constants.signs
                self.x = _turn(self.x, phases_n2b if self.is_product else _outer_sum(phases_n2b))
        self.pending.clear()

    def _rotate(self, layer: Layer) -> None:
        """Apply a layer of Ry or Rx.

        Ry: (x0, x1) -> (x0 cos - x1 sin, x1 cos + x0 sin). Rx: x -> x cos - i sin (x1, x0), and -i swaps the planes.
        """
        angles_nb, swap = self._angles(layer), self.constants.swap
        cos_nb, sin_nb = torch.cos(angles_nb), torch.sin(angles_nb)
        if layer.gate == "rx" and len(self.x) == 1:
            self.x = torch.cat((self.x, torch.zeros_like(self.x)))
        if self.is_product:
            sin_n2b = sin_nb[:, None] * self.constants.signs if layer.gate == "ry" else sin_nb[:, None]
            self.x = self.x * cos_nb[:, None] + self._other_plane(layer, self.x.index_select(2, swap)) * sin_n2b
            return
        x, (planes, states, batch) = self.x, self.x.shape
        for qubit in range(self.n):
            x = x.view(planes, states >> (qubit + 1), 2, 1 << qubit, batch)
            swapped = self._other_plane(layer, x.index_select(2, swap))
            sin = sin_nb[qubit] * self.constants.signs[:, None] if layer.gate == "ry" else sin_nb[qubit]
            x = x.mul_(cos_nb[qubit]).add_(swapped.mul_(sin))
            del swapped  # else the next qubit's would be a third state in memory
        self.x = x.view(planes, states, batch)

    def _other_plane(self, layer: Layer, x: Tensor) -> Tensor:
        """Return -i x for Rx, x itself for Ry."""
        if layer.gate == "ry":
            return x
        return torch.stack((x[1], -x[0]))


def _turn(x: Tensor, phases: Tensor) -> Tensor:
    """Return e^{i phases} x on planes; `phases` has the shape of one plane. Overwrite x where it has both planes."""
    if len(x) == 1:
        y = x.new_empty(2, *torch.broadcast_shapes(phases.shape, x.shape[1:]))
        torch.cos(phases, out=y[0])
        torch.sin(phases, out=y[1])
        return y.mul_(x)
    for x_slab, phases_slab in zip(x.split(_SLAB, 1), phases.split(_SLAB), strict=True):
        re, im = x_slab.unbind(0)
        cos, sin = torch.cos(phases_slab), torch.sin(phases_slab)
        re_sin = re * sin
        re.mul_(cos).sub_(im * sin)
        im.mul_(cos).add_(re_sin)
    return x


def _outer(x_pn2b: Tensor) -> Tensor:
    """Return the product state of single qubits, (plane, n, 2, batch) -> (plane, 2**n, batch)."""
    planes = len(x_pn2b)
    qubits = x_pn2b[..., None, :].unbind(1)
    x = qubits[0].flatten(1, 2)
    for qubit in qubits[1:]:
        low = x[:, None]
        if planes == 1:
            x = qubit * low
        else:
            (re, im), (low_re, low_im) = qubit.unbind(0), low.unbind(0)
            x = low.new_empty(2, *torch.broadcast_shapes(re.shape, low_re.shape))
            torch.mul(re, low_re, out=x[0]).sub_(im * low_im)
            torch.mul(re, low_im, out=x[1]).add_(im * low_re)
        x = x.flatten(1, 2)
    return x


def _outer_sum(x_n2b: Tensor) -> Tensor:
    """Return sums in place of the products of `_outer`, (n, 2, batch) -> (2**n, batch), up to whole turns."""
    qubits = _within_a_turn(x_n2b)[..., None, :].unbind(0)
    x = qubits[0].flatten(0, 1)
    for qubit in qubits[1:]:
        x = (qubit + x).flatten(0, 1)
    return x


def _within_a_turn(phases: Tensor) -> Tensor:
    """Return phases less whole turns where they are large: the sum of large ones would lose the digits behind a turn.

    Each is looked at alone, and small ones keep their bits, so a circuit's bits do not depend on the others.
    """
    large = phases.abs() > _LARGE[phases.dtype]
    if phases.device.type == "cpu" and not large.any():
        return phases
    exact = phases.double()
    turns = torch.round(exact / (2 * math.pi))
    rest = exact - turns * _TURN[0] - turns * _TURN[1]
    return torch.where(large, rest.to(phases.dtype), phases)


def _adjoint(spec: CircuitSpec, half_rdnb: Tensor, planes: Tensor, grad: Tensor) -> Tensor:
    """Return the gradient in `half_rdnb` of a loss whose gradient in the final planes is `grad`.

    dL = Re<adjoint|d state>. A rotation by half an angle h about P is exp(-i h P), so dL/dh = Im<adjoint|P state>,
    taken behind the layer, as all its gates commute.
    """
    n = spec.n_qubits
    both = torch.stack((planes, grad), 1)  # (plane, state or adjoint, 2**n, batch)
    gradient = torch.zeros_like(half_rdnb)
    signs, swap = _constants(half_rdnb.dtype, half_rdnb.device)[1:]
    for layer in reversed(list(spec.layers())[1:]):
        if layer.angle is None:
            both = both.index_select(2, _permutation(n, layer.targets[::-1], both.device))
            continue
        level, index = layer.angle
        angles_nb = half_rdnb[index, level]
        if layer.gate == "rz":
            state, adjoint = both.unbind(1)
            gradient[index, level] = qubit_sums(adjoint[0] * state[1] - adjoint[1] * state[0])
            phases = _outer_sum(-angles_nb[:, None] * signs)
            for one_state in both.unbind(1):
                _turn(one_state, phases)
            continue
        cos_nb, sin_nb = torch.cos(angles_nb), torch.sin(angles_nb)
        x, shape = both, both.shape
        for qubit in range(n):
            x = x.view(2, 2, shape[2] >> (qubit + 1), 2, 1 << qubit, shape[3])
            swapped = x.index_select(3, swap)
            if layer.gate == "rx":
                swapped = torch.stack((swapped[1], -swapped[0]))
            else:
                swapped.mul_(signs[:, None])
            # swapped is -i P x: its overlap with the adjoint is the derivative; x cos - swapped sin undoes the gate.
            gradient[index, level, qubit] = (swapped[:, 0] * x[:, 1]).sum((0, 1, 2, 3))
            x = x.mul_(cos_nb[qubit]).sub_(swapped.mul_(sin_nb[qubit]))
            del swapped
        both = x.view(shape)
    return gradient


def qubit_sums(p: Tensor) -> Tensor:
    """Return sum_x (-1)^{x_i} p(x) of every qubit i, (2**n, batch) -> (n, batch): <Z_i> where p are probabilities."""
    # Halve from the top qubit down. Rows: the sums of the qubits already halved, and last the plain sum.
    p = p[None]
    while p.shape[1] > 1:
        low, high = p.chunk(2, 1)
        p = torch.cat(((low - high)[-1:], low + high))
    return p[:-1, 0]


class _Constants(NamedTuple):
    """Small tensors of one dtype on one device."""

    plus: Tensor  # |+>, as (plane, qubit, 2, batch)
    signs: Tensor  # (-1, 1), as (2, batch)
    swap: Tensor  # (1, 0), the index that exchanges the amplitudes of a qubit


# Cached outside inference mode, so that autograd may use them whichever caller came first.


@lru_cache(maxsize=8)
def _constants(dtype: torch.dtype, device: torch.device) -> _Constants:
    with torch.inference_mode(False):
        plus = torch.full((1, 1, 2, 1), math.sqrt(0.5), dtype=dtype, device=device)
        signs = torch.tensor(((-1.0,), (1.0,)), dtype=dtype, device=device)
        return _Constants(plus, signs, torch.tensor((1, 0), device=device))


@lru_cache(maxsize=64)
def _cached_permutation(n_qubits: int, cnots: tuple[tuple[int, ...], ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return _new_permutation(n_qubits, cnots, device)


def _permutation(n_qubits: int, cnots: tuple[tuple[int, ...], ...], device: torch.device) -> Tensor:
    """Return the index that each amplitude comes from under CNOTs (control, target) applied in order: (2**n,) int32."""
    if n_qubits > 16:  # not cached: 4 bytes an amplitude for as long as the process lives
        return _new_permutation(n_qubits, cnots, device)
    return _cached_permutation(n_qubits, cnots, device)


def _new_permutation(n_qubits: int, cnots: tuple[tuple[int, ...], ...], device: torch.device) -> Tensor:
    """Build the table by doubling: CNOTs are linear over GF(2)."""
    source = torch.zeros(1 << n_qubits, dtype=torch.int32, device=device)
    for bit in range(n_qubits):
        size = 1 << bit
        torch.bitwise_xor(source[:size], _source(size, cnots), out=source[size : 2 * size])
    return source


def _source(basis_state: int, cnots: tuple[tuple[int, ...], ...]) -> int:
    """Return the basis state that the CNOTs map to `basis_state`."""
    for control, target in reversed(cnots):  # a CNOT is its own inverse, so the inverse is the list backwards
        basis_state ^= ((basis_state >> control) & 1) << target
    return basis_state
