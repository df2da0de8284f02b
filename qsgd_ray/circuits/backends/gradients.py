"""Answers that autograd can follow, from any backend.

Exact simulators in this process are differentiated by autograd. All others, with shots, with noise or on a QPU, are
differentiated by the parameter-shift rule. It is exact for expectation values and unbiased for their estimates: a
rotation exp(-i a P / 2) with P*P = 1 makes every answer f(a) = A + B cos(a) + C sin(a) of its angle, so

    df/da = (f(a + pi/2) - f(a - pi/2)) / 2

(Mitarai et al., arXiv 1803.00745; Schuld et al., arXiv 1811.11184).

Letters of shapes: b circuits, d layers, n qubits, r rotations a layer, p = d * n * r angles, w numbers in an answer.
"""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from qsgd_ray.circuits.backends.protocol import CircuitBackend, checked_angles
from qsgd_ray.circuits.derivatives import has_tangent, once
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config.circuit import Readout
from qsgd_ray.random_keys import derived_keys


@runtime_checkable
class _Differentiable(Protocol):
    """A backend whose answers autograd can follow while `differentiable` is True."""

    differentiable: bool

    def differentiate(self, spec: CircuitSpec, angles_bdnr: Tensor, readout: Readout = "z") -> Tensor:
        """Answer as `submit` does, followed by autograd back to `angles_bdnr` (float64 on the CPU)."""
        ...


def answer(
    backend: CircuitBackend,
    spec: CircuitSpec,
    angles_bdnr: Tensor,
    readout: Readout = "z",
    keys_b: Tensor | None = None,
) -> Tensor:
    """Answer circuits, differentiable in the angles by autograd (reverse mode).

    Second derivatives are those of the engine, or a RuntimeError; so is forward mode.

    Where no gradient is wanted, this is `submit` and `result`. By the parameter-shift rule, a backward pass is one
    submission of 2 * d * n * r circuits for each circuit; their keys follow from `keys_b` and the shift.

    Args:
        backend: any backend, such as one of `make_backend`.
        spec: the circuit.
        angles_bdnr: any real dtype and device, shape (b, d, n, r); radians. Gradients have its dtype and device.
        readout: "z", every <Z_i>, or "probability", the weight of the first n basis states.
        keys_b: int64, shape (b,): names of the circuits' draws; None: a sampling backend counts.

    Returns:
        float64, shape (b, spec.answer_width(readout)), on the CPU.

    Raises:
        CircuitError: as the backend.

    Example:
        >>> from qsgd_ray.circuits.backends.in_process import TorchBackend
        >>> angles = torch.zeros(1, 1, 1, 2, requires_grad=True)
        >>> answer(TorchBackend(), CircuitSpec(1, depth=1), angles).sum().backward()
        >>> angles.grad.flatten()  # <Z> = -sin(a) at Ry's angle a
        tensor([-1.,  0.])
    """
    if not (torch.is_grad_enabled() and angles_bdnr.requires_grad) and not has_tangent(angles_bdnr):
        return backend.submit(spec, angles_bdnr, readout, keys_b).result()
    if isinstance(backend, _Differentiable) and backend.differentiable:
        checked_angles(spec, angles_bdnr)
        return backend.differentiate(spec, angles_bdnr.to("cpu", torch.float64), readout)
    shifted: Tensor = _ParameterShift.apply(angles_bdnr, backend, spec, readout, keys_b)
    return shifted


def _shifted_angles(angles_bdnr: Tensor) -> Tensor:
    """Return every circuit with each of its angles once +pi/2 and once -pi/2: shape (b * 2 * p, d, n, r)."""
    batch, shape = angles_bdnr.shape[0], angles_bdnr.shape[1:]
    n_angles = math.prod(shape)
    shifts = torch.eye(n_angles, dtype=angles_bdnr.dtype) * (math.pi / 2)
    both = torch.stack((shifts, -shifts), 1).view(1, 2 * n_angles, *shape)
    return (angles_bdnr[:, None] + both).view(batch * 2 * n_angles, *shape)


class _ParameterShift(torch.autograd.Function):
    """An answer whose backward pass submits the shifted circuits."""

    @staticmethod
    def forward(
        ctx: Any,
        angles_bdnr: Tensor,
        backend: CircuitBackend,
        spec: CircuitSpec,
        readout: Readout,
        keys_b: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(angles_bdnr)
        ctx.request = backend, spec, readout, keys_b
        return backend.submit(spec, angles_bdnr, readout, keys_b).result()

    @staticmethod
    def backward(ctx: Any, grad_bw: Tensor) -> tuple[Tensor, None, None, None, None]:
        (angles_bdnr,) = ctx.saved_tensors
        with torch.no_grad():
            gradient = _ParameterShift._gradient(ctx, angles_bdnr, grad_bw)
        return once(gradient, "parameter-shift rule", grad_bw, angles_bdnr), None, None, None, None

    @staticmethod
    def _gradient(ctx: Any, angles_bdnr: Tensor, grad_bw: Tensor) -> Tensor:
        backend, spec, readout, keys_b = ctx.request
        batch, n_angles = angles_bdnr.shape[0], math.prod(angles_bdnr.shape[1:])
        keys = None if keys_b is None else derived_keys(keys_b, 2 * n_angles)
        shifted = _shifted_angles(checked_angles(spec, angles_bdnr))
        shape = (batch, n_angles, 2, spec.answer_width(readout))
        answer_bp2w = backend.submit(spec, shifted, readout, keys).result().view(shape)
        jacobian_bpw = (answer_bp2w[:, :, 0] - answer_bp2w[:, :, 1]) / 2
        grad = (jacobian_bpw * grad_bw.to("cpu", torch.float64)[:, None]).sum(-1)
        return grad.view(angles_bdnr.shape).to(angles_bdnr)
