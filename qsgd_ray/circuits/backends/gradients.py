"""Answers that can be differentiated: any backend, circuits and angles in; answers that autograd follows out.

Exact simulators in process are differentiated by autograd; whatever else answers, with shots, with noise or on a QPU,
by the parameter-shift rule, which is exact for expectation values and unbiased for their estimates: a rotation
exp(-i a P / 2) with P*P = 1 makes every answer a + b cos + c sin of its angle, so its derivative is
(f(a + pi/2) - f(a - pi/2)) / 2 (Mitarai et al. 2018, Schuld et al. 2019).
"""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qsgd_ray.circuits.backends.protocol import CircuitBackend, checked_angles
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config.circuit import Readout
from qsgd_ray.random_keys import derived_keys


@runtime_checkable
class Differentiable(Protocol):
    """A backend that autograd can look into, where `differentiable` is True."""

    differentiable: bool

    def differentiate(self, spec: CircuitSpec, angles_bdnr: Tensor, readout: Readout = "z") -> Tensor:
        """What `submit` answers, followed by autograd back to `angles_bdnr`, which are float64 on the CPU."""
        ...


def answer(
    backend: CircuitBackend,
    spec: CircuitSpec,
    angles_bdnr: Tensor,
    readout: Readout = "z",
    keys_b: Tensor | None = None,
) -> Tensor:
    """The answers of `backend`, differentiable (reverse mode, once) in the angles: (batch, answer width) float64, CPU.

    `angles_bdnr`: radians, on any device and of any real dtype; gradients come back as such. Without a derivative to
    follow (no gradients asked) it is submit and result. By the parameter-shift rule a backward pass is one submission
    of 2 * depth * n_qubits * rotations circuits for each circuit; their keys follow from `keys_b` and the shift.
    CircuitError: as the backend.
    """
    if not (torch.is_grad_enabled() and angles_bdnr.requires_grad):
        return backend.submit(spec, angles_bdnr, readout, keys_b).result()
    if isinstance(backend, Differentiable) and backend.differentiable:
        checked_angles(spec, angles_bdnr)
        return backend.differentiate(spec, angles_bdnr.to("cpu", torch.float64), readout)
    followed: Tensor = _ParameterShift.apply(angles_bdnr, backend, spec, readout, keys_b)
    return followed


def shifted_angles(angles_bdnr: Tensor) -> Tensor:
    """Every angle once +pi/2 and once -pi/2: (batch * 2 * angles, depth, n_qubits, rotations), circuit by circuit."""
    batch, one = angles_bdnr.shape[0], angles_bdnr.shape[1:]
    angles = math.prod(one)
    shifts = torch.eye(angles, dtype=angles_bdnr.dtype) * (math.pi / 2)
    both = torch.stack((shifts, -shifts), 1).view(1, 2 * angles, *one)
    return (angles_bdnr[:, None] + both).view(batch * 2 * angles, *one)


class _ParameterShift(torch.autograd.Function):
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
        ctx.asked = backend, spec, readout, keys_b
        return backend.submit(spec, angles_bdnr, readout, keys_b).result()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_bw: Tensor) -> tuple[Tensor, None, None, None, None]:
        (angles_bdnr,) = ctx.saved_tensors
        backend, spec, readout, keys_b = ctx.asked
        batch, angles = angles_bdnr.shape[0], math.prod(angles_bdnr.shape[1:])
        keys = None if keys_b is None else derived_keys(keys_b, 2 * angles)
        shifted = shifted_angles(checked_angles(spec, angles_bdnr))
        shape = (batch, angles, 2, spec.answer_width(readout))
        answer_bp2w = backend.submit(spec, shifted, readout, keys).result().view(shape)
        jacobian_bpw = (answer_bp2w[:, :, 0] - answer_bp2w[:, :, 1]) / 2
        grad = (jacobian_bpw * grad_bw.to("cpu", torch.float64)[:, None]).sum(-1)
        return grad.view(angles_bdnr.shape).to(angles_bdnr), None, None, None, None
