"""Exact response of circuits to one angle x that all their layers share, as a Fourier series in x.

The angle x is added to the first rotation of every layer on every qubit: N = n_qubits * depth rotations. Each is
exp(-i (a + x) G / 2) with G = X, Y or Z, whose eigenvalues are 1 and -1. So an amplitude is a sum of waves e^{i w x}
with w = -N/2, -N/2 + 1, ..., N/2, and a probability is one with w = -N, -N + 1, ..., N (Schuld, Sweke and Meyer,
arXiv 2008.08605): T = N + 1 or T = 2 N + 1 frequencies, with steps of 1. On the T points x_j = 2 pi j / T these waves
are orthogonal, whether w is an integer or a half-integer (amplitudes with odd N: period 4 pi), since any two differ by
less than T. So T circuits give the real f exactly, at every x:

    f(x) = sum over w >= 0 of a_w cos(w x) + b_w sin(w x),    (a_w, b_w) = 2/T sum_j f(x_j) (cos(w x_j), sin(w x_j))

with 1/T at w = 0. T is small, so the transform is one product with a constant matrix; an FFT would give the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from qsgd_ray.circuits.fourier import _evaluate as waves
from qsgd_ray.circuits.fourier._bases import frequencies
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector.simulate import first_amplitudes, weight_of_first

if TYPE_CHECKING:
    from qsgd_ray.circuits.backends.protocol import CircuitBackend

SeriesReadout = Literal["amplitude", "probability"]


@dataclass(frozen=True, eq=False)
class FourierSeries:
    """Real Fourier series, one for each attention head: f(x) = sum_w a_w cos(w x) + b_w sin(w x).

    The frequencies w are 0, 1, ..., (T - 1) / 2 where T is odd, and 1/2, 3/2, ..., (T - 1) / 2 where T is even.

    Attributes:
        coefficients: float64, shape (n_heads, T): the a_w by rising frequency, then the b_w (b_0 left out).

    Example:
        >>> f = FourierSeries(torch.tensor([[1.0, 2.0, 0.5]], dtype=torch.float64))  # 1 + 2 cos x + 0.5 sin x
        >>> f(torch.tensor([0.0, 0.5]))
        tensor([3.0000, 2.9949])
    """

    coefficients: Tensor

    def __call__(self, x: Tensor, *, scale: float = 1.0, compiled: bool = False) -> Tensor:
        """Return f(scale * x), elementwise. Differentiable once, in x and in the coefficients.

        Args:
            x: real floats in radians, shape (..., n_heads, i, j); any shape where there is one head. Lower precision
                than float32 is computed in float32.
            scale: factor of x; default 1.
            compiled: evaluate in one pass over memory by torch.compile, whose first call takes seconds. Where no
                compiler works, one line is logged and the evaluation goes on without it. Else (default) slab by slab;
                cos x and sin x are stored between the passes.

        Returns:
            The shape of x; float64 for float64, else float32.

        Raises:
            ValueError: the heads do not fit, or x has no real floats.
        """
        n_heads = self.coefficients.shape[0]
        if n_heads != 1 and (x.dim() < 3 or x.shape[-3] != n_heads):
            raise ValueError(f"x: got shape {tuple(x.shape)}; allowed: (..., {n_heads}, i, j), a series a head")
        if not x.is_floating_point():
            raise ValueError(f"x: got {x.dtype}; allowed: a real floating-point tensor")
        if x.dtype not in (torch.float32, torch.float64):
            x = x.float()
        shape = (1, 1, -1) if n_heads == 1 else (math.prod(x.shape[:-3]), n_heads, x.shape[-2] * x.shape[-1])
        return waves.evaluate(self.coefficients, x.reshape(shape), scale, compiled).view(x.shape)


def fourier_series(
    spec: CircuitSpec,
    angles_hdnr: Tensor,
    readout: SeriesReadout = "amplitude",
    *,
    backend: CircuitBackend | None = None,
) -> FourierSeries:
    """Return the response of each head's circuit to x, f(x).

    It takes `n_frequencies` circuits a head, however many x there are.

    Args:
        spec: the circuit; n qubits, depth d, r rotations.
        angles_hdnr: real floats, shape (n_heads, d, n, r), in radians; x is added to the first of the r rotations.
        readout: f is "amplitude" (default), the real part of psi_0 + ... + psi_{n-1} (arXiv 2511.01918, Eq. 4), or
            "probability", |psi_0|^2 + ... + |psi_{n-1}|^2.
        backend: answers the circuits, with shots, noise or a QPU where it has them; "probability" only. None (default):
            exact simulation on the device of the angles.

    Returns:
        A series with coefficients that are differentiable in the angles, to any order; with a backend as `answer` of
        circuits/backends/gradients.py says.

    Raises:
        ValueError: angles of another shape, an unknown readout, or "amplitude" with a backend.
        CircuitError: the backend's.

    Example:
        >>> spec = CircuitSpec(1, depth=1, rotations=("ry",))  # psi_0 = cos((x + pi / 2) / 2)
        >>> f = fourier_series(spec, torch.zeros(spec.angles_shape(1)))
        >>> f(torch.tensor([0.0, math.pi], dtype=torch.float64))
        tensor([ 0.7071, -0.7071], dtype=torch.float64)
    """
    spec.check_angles(angles_hdnr)
    if readout not in get_args(SeriesReadout):
        raise ValueError(f"readout: got {readout!r}; allowed: {', '.join(get_args(SeriesReadout))}")
    angles = angles_hdnr.double()
    n_points = n_frequencies(spec, readout)
    points, transform = _points(n_points, angles.device)
    shifted = _shifted(angles, points)
    if backend is not None:
        if readout != "probability":
            raise ValueError("readout: got 'amplitude' with a backend; allowed: 'probability', which can be measured")
        from qsgd_ray.circuits.backends.gradients import answer

        values = answer(backend, spec, shifted, "probability").to(angles)
    elif readout == "amplitude":
        values = first_amplitudes(spec, shifted).real.sum(1)
    else:
        values = weight_of_first(spec, shifted)
    return FourierSeries(values.view(-1, n_points) @ transform.t())


def n_frequencies(spec: CircuitSpec, readout: SeriesReadout) -> int:
    """Return T, the number of coefficients of the response and of the circuits that a head takes.

    Args:
        spec: the circuit.
        readout: "amplitude", n_qubits * depth + 1, or "probability", 2 * n_qubits * depth + 1.
    """
    return spec.n_qubits * spec.depth * (1 if readout == "amplitude" else 2) + 1


@lru_cache(maxsize=32)
def _points(n_points: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the points x_j (T,) and the matrix (T, T) from the values there to the coefficients, both float64."""
    with torch.inference_mode(False):
        points = torch.arange(n_points, dtype=torch.float64) * (2 * math.pi / n_points)
        phases = torch.outer(torch.tensor(frequencies(n_points), dtype=torch.float64), points)
        rows = torch.cat((torch.cos(phases), torch.sin(phases[n_points % 2 :])))
        weights = torch.full((n_points, 1), 2 / n_points, dtype=torch.float64)
        if n_points % 2:
            weights[0] = 1 / n_points
        return points.to(device), (weights * rows).to(device)


def _shifted(angles_hdnr: Tensor, points: Tensor) -> Tensor:
    """Return the angles of all heads and points, (n_heads * T, d, n, r), with x_j added to the first rotation."""
    first = torch.zeros(angles_hdnr.shape[-1], dtype=points.dtype, device=points.device)
    first[0] = 1
    return (angles_hdnr[:, None] + points[:, None, None, None] * first).flatten(0, 1)
