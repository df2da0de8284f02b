"""The exact response of circuits to one angle that all their layers share: learned angles in, a Fourier series out.

The angle x is added to the first rotation of every layer on every qubit, N = n_qubits * depth rotations. Each is
exp(-i (a + x) G / 2) with G = X, Y or Z, whose eigenvalues are 1 and -1; so an amplitude is a sum of waves e^{i w x}
with w = -N/2, -N/2 + 1, ..., N/2, and a probability one with w = -N, -N + 1, ..., N (Schuld, Sweke and Meyer,
arXiv 2008.08605): T = N + 1 or T = 2 N + 1 frequencies, one apart. On the T points x_j = 2 pi j / T these waves are
orthogonal, whole frequencies and half-integer ones (amplitudes, N odd: period 4 pi) alike, since any two differ by
less than T. So T circuits give the real f exactly, wherever it is wanted:

    f(x) = sum over w >= 0 of a_w cos(w x) + b_w sin(w x),    (a_w, b_w) = 2/T sum_j f(x_j) (cos(w x_j), sin(w x_j))

with 1/T at w = 0. T is small, so the transform is one product with a constant matrix; an FFT would equal it.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector import first_amplitudes, weight_of_first

if TYPE_CHECKING:
    from qsgd_ray.circuits.backends import CircuitBackend

SeriesReadout = Literal["amplitude", "probability"]
Array = NDArray[Any]

# Up to so many complex numbers in their layers, circuits are products of dense matrices (nine circuits of 4 qubits
# and depth 2 with their Jacobian: 0.12 ms, against 1.1 ms of autograd through the simulator, 2026-11-22).
DENSE_NUMBERS = 2**17
# What the evaluation works on at a time, in bytes: smaller slabs cost more calls than the cache gives back.
SLAB_BYTES = 2**22
DEVICE_SLAB_BYTES = 2**28  # on a GPU: enough to fill it
# A polynomial in cos x written in powers of it is evaluated in half the passes over memory that the waves take. What
# that costs is (1 + sqrt 2)^degree roundings at most (the sum of a Chebyshev polynomial's coefficients): 34 at degree
# 4, 1,155 at degree 8, below 1e-5 in float32 and below 1e-12 in float64.
POWER_DEGREE = {torch.float32: 4, torch.float64: 8}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class FourierSeries:
    """f(x) for every head: `coefficients` (n_heads, T), the a_w by rising frequency, then the b_w (b_0 left out).

    T odd: the frequencies 0, 1, ..., (T - 1) / 2. T even: 1/2, 3/2, ..., (T - 1) / 2.
    """

    coefficients: Tensor

    def __call__(self, x: Tensor, *, compiled: bool = False) -> Tensor:
        """f(x), elementwise; x is (..., n_heads, i, j) in radians, or anything at all where there is one head.

        float32 and float64 are computed as such, x of lower precision in float32, which is then what comes out.
        Differentiable in x and in the coefficients (once); between the passes cos x and sin x are kept. `compiled`: by
        torch.compile in one pass over memory, which takes seconds at first; one logged line where no compiler works.
        ValueError: heads that do not fit, or x that is no real float.
        """
        n_heads = self.coefficients.shape[0]
        if n_heads != 1 and (x.dim() < 3 or x.shape[-3] != n_heads):
            raise ValueError(f"x: got shape {tuple(x.shape)}; allowed: (..., {n_heads}, i, j), a series a head")
        if not x.is_floating_point():
            raise ValueError(f"x: got {x.dtype}; allowed: a real floating-point tensor")
        if x.dtype not in POWER_DEGREE:
            x = x.float()
        shape = (1, 1, -1) if n_heads == 1 else (math.prod(x.shape[:-3]), n_heads, x.shape[-2] * x.shape[-1])
        if torch.compiler.is_compiling():  # inside a compiled model: leave it all to the compiler
            value = _fused_values(self.coefficients.to(x.dtype), x.reshape(shape))
        else:
            value = _Evaluate.apply(self.coefficients, x.reshape(shape), compiled)
        return value.view(x.shape)


def fourier_series(
    spec: CircuitSpec,
    angles_hdnr: Tensor,
    readout: SeriesReadout = "amplitude",
    *,
    backend: CircuitBackend | None = None,
) -> FourierSeries:
    """The response of each head's circuit to x, as float64 coefficients that are differentiable in the angles (once).

    `angles_hdnr`: (n_heads, depth, n_qubits, len(rotations)), radians. `readout`: "amplitude", the real part of
    psi_0 + ... + psi_{n-1}, or "probability", |psi_0|^2 + ... + |psi_{n-1}|^2. `backend` answers the T circuits a head,
    with shots, noise or a QPU where it has them; None simulates exactly on the device of the angles. ValueError:
    angles of another shape, an unknown readout, or amplitudes asked of a backend. CircuitError: the backend's.
    """
    spec.check_angles(angles_hdnr)
    if readout not in get_args(SeriesReadout):
        raise ValueError(f"readout: got {readout!r}; allowed: {', '.join(get_args(SeriesReadout))}")
    angles = angles_hdnr.double()
    if backend is None and _is_dense(spec, angles, readout):
        coefficients: Tensor = _DenseSeries.apply(angles, spec, readout)
        return FourierSeries(coefficients)
    n_points = n_frequencies(spec, readout)
    points, transform = _points(n_points, angles.device)
    shifted = _shifted(angles, points)
    if backend is not None:
        if readout != "probability":
            raise ValueError("readout: got 'amplitude' with a backend; allowed: 'probability', which can be measured")
        from qsgd_ray.circuits.gradients import answer

        values = answer(backend, spec, shifted, "probability").to(angles)
    elif readout == "amplitude":
        values = first_amplitudes(spec, shifted).real.sum(1)
    else:
        values = weight_of_first(spec, shifted)
    return FourierSeries(values.view(-1, n_points) @ transform.t())


def n_frequencies(spec: CircuitSpec, readout: SeriesReadout) -> int:
    """T: how many waves the response has, and how many circuits a head therefore takes."""
    return spec.n_qubits * spec.depth * (1 if readout == "amplitude" else 2) + 1


def frequencies(n_waves: int) -> list[float]:
    """The frequencies w >= 0 of a series of T = `n_waves` coefficients."""
    return [k + (0 if n_waves % 2 else 0.5) for k in range((n_waves + 1) // 2)]


@lru_cache(maxsize=32)
def _points(n_points: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The angles x_j (T,) and the matrix (T, T) that takes the values there to the coefficients; both float64."""
    with torch.inference_mode(False):
        points = torch.arange(n_points, dtype=torch.float64) * (2 * math.pi / n_points)
        phases = torch.outer(torch.tensor(frequencies(n_points), dtype=torch.float64), points)
        rows = torch.cat((torch.cos(phases), torch.sin(phases[n_points % 2 :])))
        weights = torch.full((n_points, 1), 2 / n_points, dtype=torch.float64)
        if n_points % 2:
            weights[0] = 1 / n_points
        return points.to(device), (weights * rows).to(device)


def _shifted(angles_hdnr: Tensor, points: Tensor) -> Tensor:
    """One circuit a head and point, (n_heads * T, depth, n_qubits, rotations), x added to the first rotation."""
    first = torch.zeros(angles_hdnr.shape[-1], dtype=points.dtype, device=points.device)
    first[0] = 1
    return (angles_hdnr[:, None] + points[:, None, None, None] * first).flatten(0, 1)


# Small circuits on the CPU as products of dense matrices, with their Jacobian. In numpy, whose calls cost a third of
# torch's, and here there is nothing but calls.


def _is_dense(spec: CircuitSpec, angles_hdnr: Tensor, readout: SeriesReadout) -> bool:
    numbers = angles_hdnr.shape[0] * n_frequencies(spec, readout) * spec.depth * 4**spec.n_qubits
    return angles_hdnr.device.type == "cpu" and numbers <= DENSE_NUMBERS


class _Dense(NamedTuple):
    """The constants of `_DenseSeries` for one ansatz and readout."""

    generators: Array  # g = -i G of each rotation: exp(-i a G / 2) = cos(a / 2) + sin(a / 2) g
    half_points: Array  # what half the first angle gains: (T, 1, rotations)
    source: Array  # where each amplitude comes from under the CNOTs, and where it goes
    target: Array
    split: Array  # (qubit, 2, rest): the basis states by the value of a qubit
    transform: Array


@lru_cache(maxsize=32)
def _dense(spec: CircuitSpec, readout: SeriesReadout) -> _Dense:
    n, dim = spec.n_qubits, 2**spec.n_qubits
    paulis = {"rx": [[0, 1], [1, 0]], "ry": [[0, -1j], [1j, 0]], "rz": [[1, 0], [0, -1]]}
    points, transform = _points(n_frequencies(spec, readout), torch.device("cpu"))
    half_points = np.zeros((len(points), 1, len(spec.rotations)))
    half_points[:, 0, 0] = points.numpy() / 2
    source = np.arange(dim)
    for control, target in reversed(spec.cnots()):
        source ^= ((source >> control) & 1) << target
    states = np.arange(dim)
    split = np.stack([np.stack([states[(states >> q) & 1 == bit] for bit in (0, 1)]) for q in range(n)])
    generators = np.array([paulis[rotation] for rotation in spec.rotations]) * -1j
    return _Dense(generators, half_points, source, np.argsort(source), split, transform.numpy())


class _DenseSeries(torch.autograd.Function):
    """Angles (n_heads, depth, n_qubits, rotations), float64 -> coefficients (n_heads, T)."""

    @staticmethod
    def forward(ctx: Any, angles: Tensor, spec: CircuitSpec, readout: SeriesReadout) -> Tensor:
        coefficients, jacobian = _dense_series(spec, readout, angles.detach().numpy(), ctx.needs_input_grad[0])
        ctx.jacobian, ctx.shape = jacobian, angles.shape
        return torch.from_numpy(coefficients)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return torch.from_numpy(grad.numpy()[:, None] @ ctx.jacobian).view(ctx.shape), None, None


def _dense_series(
    spec: CircuitSpec, readout: SeriesReadout, angles: Array, wants_jacobian: bool
) -> tuple[Array, Array | None]:
    """Coefficients (n_heads, T), and their Jacobian (n_heads, T, depth * n_qubits * rotations)."""
    known = _dense(spec, readout)
    (heads, depth, n, rotations), n_points, dim = angles.shape, len(known.transform), 2**spec.n_qubits
    circuits = heads * n_points
    half = (0.5 * angles.transpose(1, 0, 2, 3)[:, :, None] + known.half_points).reshape(depth, circuits, n, -1, 1, 1)
    gates = np.cos(half) * np.eye(2) + np.sin(half) * known.generators
    products = [gates[:, :, :, 0]]  # of the rotations so far on each qubit
    for index in range(1, rotations):
        products.append(gates[:, :, :, index] @ products[-1])
    layers = products[-1][:, :, 0]
    for qubit in range(1, n):  # Kronecker products; qubit 0 is the least significant bit
        layers = products[-1][:, :, qubit, :, None, :, None] * layers[:, :, None, :, None, :]
        layers = layers.reshape(depth, circuits, 2 << qubit, 2 << qubit)
    state = np.full((circuits, dim, 1), dim**-0.5, dtype=complex)
    states = []
    for layer in layers:
        states.append(state)
        state = (layer @ state)[:, known.source]
    read = state[:, :n, 0]
    values = read.real.sum(1) if readout == "amplitude" else (read.real**2 + read.imag**2).sum(1)
    coefficients = values.reshape(heads, n_points) @ known.transform.T
    if not wants_jacobian:
        return coefficients, None
    # df = Re(row . d state): the row of ones, and 2 conj(psi) for |psi|^2, taken back through the layers. A rotation's
    # derivative is its layer times V = W^-1 (g / 2) W on its qubit, W the rotations before it.
    row = np.zeros((circuits, 1, dim), dtype=complex)
    row[:, 0, :n] = 1 if readout == "amplitude" else 2 * read.conj()
    rows = []
    for layer in layers[::-1]:
        row = row[:, :, known.target] @ layer
        rows.append(row)
    # All qubits but one summed over: (depth, circuit, qubit, 2, 2). Many small products, none that numpy's library
    # would divide among threads: on a busy machine these wait for each other fifty times as long as it takes.
    left = np.stack(rows[::-1])[:, :, 0, known.split]
    reduced = left @ np.stack(states)[:, :, known.split, 0].swapaxes(-1, -2)
    slopes = np.empty((depth, circuits, n, rotations))
    for index, generator in enumerate(known.generators):
        v = generator / 2
        if index:
            before = products[index - 1]
            v = before.conj().swapaxes(-1, -2) @ v @ before
        slopes[..., index] = (reduced * v).sum((-1, -2)).real
    return coefficients, known.transform @ slopes.swapaxes(0, 1).reshape(heads, n_points, -1)


# Evaluation.


class _Evaluate(torch.autograd.Function):
    """Coefficients (h, T) float64 and x (outer, h, length) -> f(x)."""

    @staticmethod
    def forward(ctx: Any, coefficients: Tensor, x: Tensor, compiled: bool) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.compiled = compiled
        if compiled and (values := _compiled(_fused_values, coefficients.to(x.dtype), x)) is not None:
            ctx.save_for_backward(coefficients, x)
            return values
        ctx.compiled = False
        circle = (torch.empty_like(x), torch.empty_like(x)) if any(ctx.needs_input_grad) else None
        if circle is not None:
            ctx.save_for_backward(coefficients, *circle)
        return _values(coefficients, x, circle)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, Tensor | None, None]:
        if grad is None:
            return None, None, None
        coefficients, *circle = ctx.saved_tensors
        slopes = coefficients @ _derivative(coefficients.shape[1], grad.device)
        if ctx.compiled:
            sums, grad_x = _compiled(_fused_gradients, slopes.to(grad.dtype), circle[0], grad) or (None, None)
            if sums is not None:
                return sums.double(), grad_x, None
            circle = [torch.empty_like(grad), torch.empty_like(grad)]
            _circle(ctx.saved_tensors[1], coefficients.shape[1], *circle)
        wants_sums, wants_x, _ = ctx.needs_input_grad
        return *_gradients(slopes, circle[0], circle[1], grad, wants_sums, wants_x), None


def _values(coefficients: Tensor, x: Tensor, circle: tuple[Tensor, Tensor] | None) -> Tensor:
    """f(x); and what `_circle` says of x into `circle`, where it is wanted later."""
    n_waves, out = coefficients.shape[1], torch.empty_like(x)
    by_powers = (n_waves - 1) // 2 <= POWER_DEGREE[x.dtype]
    if by_powers:
        even, odd = _powers(n_waves, x.device)
        evens, odds = (coefficients @ even).to(x.dtype), (coefficients @ odd).to(x.dtype)
        powers = [(e.unbind(0), o.unbind(0)) for e, o in zip(evens.unbind(0), odds.unbind(0), strict=True)]
    local = coefficients.to(x.dtype)
    for head, part, scratch in _slabs(x, 4 if by_powers else n_waves + 4):
        c, s = scratch[:2].unbind(0) if circle is None else (circle[0][part], circle[1][part])
        _circle(x[part], n_waves, c, s)
        value = out[part]
        if not by_powers:
            waves = _fill_waves(c, s, n_waves, scratch[2:])
            value.copy_((local[head] @ waves.flatten(1)).view(value.shape))
            continue
        (p_even, p_odd), q = powers[head], scratch[2]
        if n_waves % 2:
            _horner(p_even, c, value)
            _horner(p_odd, c, q)
        else:  # c and s belong to x / 2
            u = torch.mul(c, c, out=scratch[3]).mul_(2).sub_(1)
            _horner(p_even, u, value)
            _horner(p_odd, u, q)
            value.mul_(c)
        value.addcmul_(q, s)
    return out


def _gradients(
    slopes: Tensor, cos: Tensor, sin: Tensor, grad: Tensor, wants_sums: bool, wants_x: bool
) -> tuple[Tensor | None, Tensor | None]:
    """sum of grad * wave per head and wave, (h, T) float64, and grad * f'(x); `slopes`: the coefficients of f'."""
    n_waves = slopes.shape[1]
    sums = torch.zeros_like(slopes) if wants_sums else None
    grad_x = torch.empty_like(cos) if wants_x else None
    slopes = slopes.to(cos.dtype)
    for head, part, scratch in _slabs(cos, n_waves + 2):
        waves, grad_part = _fill_waves(cos[part], sin[part], n_waves, scratch).flatten(1), grad[part]
        if grad_x is not None:
            torch.mul((slopes[head] @ waves).view(grad_part.shape), grad_part, out=grad_x[part])
        if sums is not None:
            sums[head] += waves @ grad_part.reshape(-1)
    return sums, grad_x


def _slabs(x: Tensor, n_buffers: int) -> Iterator[tuple[int, tuple[slice, int, slice], Tensor]]:
    """Parts of x (outer, h, length) that fit a core's cache: the head, the index, buffers (n_buffers, rows, length)."""
    outer, n_heads, length = x.shape
    if x.numel() == 0:
        return
    memory = SLAB_BYTES if x.device.type == "cpu" else DEVICE_SLAB_BYTES
    size = max(1024, memory // (x.element_size() * (n_buffers + 2)))
    rows, columns = min(outer, max(1, size // length)), min(length, size)
    buffers = _scratch(x, n_buffers * rows * columns).view(n_buffers, rows * columns)
    for head in range(n_heads):
        for o in range(0, outer, rows):
            for start in range(0, length, columns):
                shape = (min(rows, outer - o), min(columns, length - start))
                part = (slice(o, o + rows), head, slice(start, start + columns))
                yield head, part, buffers[:, : shape[0] * shape[1]].view(n_buffers, *shape)


_kept = threading.local()


def _scratch(x: Tensor, n: int) -> Tensor:
    """n numbers like x's, of no value. On the CPU a thread keeps them, some SLAB_BYTES at most: fresh pages cost."""
    if x.device.type != "cpu":
        return x.new_empty(n)
    kept: Tensor | None = getattr(_kept, str(x.dtype), None)
    if kept is None or len(kept) < n:
        with torch.inference_mode(False):
            kept = x.new_empty(n)
        setattr(_kept, str(x.dtype), kept)
    return kept[:n]


def _circle(x: Tensor, n_waves: int, cos: Tensor, sin: Tensor) -> None:
    """cos x and sin x, or those of x / 2 for half-integer frequencies, into the two given."""
    whole = n_waves % 2
    if x.device.type == "cpu" and _numpy_has_a_vector_tangent():
        # With t = tan(y / 2): cos y = 2 / (1 + t^2) - 1 and sin y = 2 t / (1 + t^2), errors below a few roundings of 1
        # everywhere, since t^2 cannot overflow. One tangent of numpy's takes a fifth of torch's sine and cosine.
        torch.mul(x, 0.5 if whole else 0.25, out=sin)
        tangent = sin.numpy()  # the same memory
        with np.errstate(invalid="ignore"):  # inf becomes nan, as in torch
            np.tan(tangent, out=tangent)
        torch.addcmul(_half_of(x.dtype), sin, sin, value=0.5, out=cos).reciprocal_()
        sin.mul_(cos)
        cos.sub_(1)
    elif whole:
        torch.cos(x, out=cos)
        torch.sin(x, out=sin)
    else:
        torch.mul(x, 0.5, out=sin)
        torch.cos(sin, out=cos)
        sin.sin_()


@lru_cache(maxsize=1)
def _numpy_has_a_vector_tangent() -> bool:
    """numpy computes it in vectors with AVX-512, called X86_V4 from numpy 2.4 on."""
    found = np.show_config(mode="dicts")["SIMD Extensions"]["found"]
    return bool({"X86_V4", "AVX512_SKX"} & set(found))


@lru_cache(maxsize=2)
def _half_of(dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(0.5, dtype=dtype)


def _horner(powers: tuple[Tensor, ...], c: Tensor, out: Tensor) -> None:
    """The polynomial with these coefficients (0-dim), lowest power first, at c."""
    if len(powers) == 1:
        out.copy_(powers[0])
        return
    torch.mul(c, powers[-1], out=out).add_(powers[-2])
    for power in powers[-3::-1]:
        torch.addcmul(power, out, c, out=out)


def _fill_waves(cos: Tensor, sin: Tensor, n_waves: int, scratch: Tensor) -> Tensor:
    """cos(w x) by rising w, then sin(w x) without sin(0 x), in the first T of T + 2 buffers; these are returned.

    `cos` and `sin`: from `_circle`. Each pair is the one before it turned by x: an error of a few roundings times w.
    """
    n_cosines = (n_waves + 1) // 2
    cosines, sines = list(scratch[:n_cosines].unbind(0)), list(scratch[n_cosines:n_waves].unbind(0))
    if n_waves % 2:
        cosines.pop(0).fill_(1)
        c, s = cos, sin
    else:
        c = torch.mul(sin, sin, out=scratch[n_waves]).mul_(-2).add_(1)
        s = torch.mul(sin, cos, out=scratch[n_waves + 1]).mul_(2)
    cosines[0].copy_(cos)
    sines[0].copy_(sin)
    for k in range(1, len(cosines)):
        torch.mul(cosines[k - 1], c, out=cosines[k]).addcmul_(sines[k - 1], s, value=-1)
        torch.mul(sines[k - 1], c, out=sines[k]).addcmul_(cosines[k - 1], s)
    return scratch[:n_waves]


@lru_cache(maxsize=32)
def _powers(n_waves: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Matrices from the coefficients to those of p and q, lowest power of c = cos x first.

    Whole frequencies: f = p(c) + sin x q(c), since cos kx = T_k(c) and sin kx = sin x U_{k-1}(c).
    Half-integer: f = cos(x / 2) p(c) + sin(x / 2) q(c), with Chebyshev polynomials of the third and fourth kind.
    """
    n_cosines, whole = (n_waves + 1) // 2, n_waves % 2
    matrices = []
    for rows, second in (
        (range(n_cosines), (0.0, 1.0) if whole else (-1.0, 2.0)),
        (range(n_cosines, n_waves), (0.0, 2.0) if whole else (1.0, 2.0)),
    ):
        polynomials = [np.eye(1, len(rows) + 1)[0], np.array([*second, *[0.0] * (len(rows) - 1)])]
        for _ in rows:
            polynomials.append(2 * np.roll(polynomials[-1], 1) - polynomials[-2])
        matrix = np.zeros((n_waves, len(rows)))
        for row, polynomial in zip(rows, polynomials, strict=False):
            matrix[row] = polynomial[: len(rows)]
        matrices.append(matrix)
    with torch.inference_mode(False):
        even, odd = (torch.from_numpy(matrix).to(device) for matrix in matrices)
        return even, odd


@lru_cache(maxsize=32)
def _derivative(n_waves: int, device: torch.device) -> Tensor:
    """The matrix from the coefficients of f to those of f'."""
    with torch.inference_mode(False):
        matrix = torch.zeros(n_waves, n_waves, dtype=torch.float64)
        for k, frequency in enumerate(frequencies(n_waves)):
            sine = (n_waves + 1) // 2 + k - n_waves % 2
            if frequency:
                matrix[sine, k], matrix[k, sine] = frequency, -frequency
        return matrix.to(device)


# The same in expressions that torch.compile makes one kernel of.


def _waves(x: Tensor, n_waves: int) -> list[Tensor]:
    y = x if n_waves % 2 else 0.5 * x
    c, s = torch.cos(y), torch.sin(y)
    cosines, sines = [c], [s]
    if n_waves % 2 == 0:
        c, s = 1 - 2 * s * s, 2 * s * c
    while len(sines) < n_waves // 2:
        cos, sin = cosines[-1], sines[-1]
        cosines.append(cos * c - sin * s)
        sines.append(sin * c + cos * s)
    return [*([torch.ones_like(x)] if n_waves % 2 else []), *cosines, *sines]


def _fused_values(coefficients: Tensor, x: Tensor) -> Tensor:
    columns = coefficients[:, :, None].unbind(1)
    value = torch.zeros_like(x)
    for column, wave in zip(columns, _waves(x, len(columns)), strict=True):
        value = value + column * wave
    return value


def _fused_gradients(slopes: Tensor, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    waves = _waves(x, slopes.shape[1])
    sums = torch.stack([(grad * wave).sum((0, 2)) for wave in waves], 1)
    return sums, grad * _fused_values(slopes, x)


_compilers: dict[Callable[..., Any], Callable[..., Any]] = {}


def _compiled(function: Callable[..., Any], *arguments: Tensor) -> Any:
    """function(*arguments) by a kernel made for it; None, and one line in the log, where that cannot be made."""
    if function not in _compilers:
        _compilers[function] = torch.compile(function)
    try:
        return _compilers[function](*arguments)
    except RuntimeError as error:  # a missing compiler shows itself at the first call, under several names
        reason = str(error).strip().splitlines()
        _log.warning("torch.compile failed, evaluated without it: %s", reason[0] if reason else type(error).__name__)
        _compilers[function] = lambda *_: None
        return None
