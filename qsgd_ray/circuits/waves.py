"""Values and slopes of short real Fourier series: coefficients and many x in, f(x) and its gradients out.

f(x) = sum over w >= 0 of a_w cos(w x) + b_w sin(w x), frequencies one apart, from 0 or from 1/2. With c = cos x and
s = sin x it is P(c) + s Q(c) (half-integers: cos(x/2) P(c) + sin(x/2) Q(c)), and so is its slope. The polynomials are
written in Chebyshev's T_k(c): one multiplication a row, then P and Q of all x, and backwards the sums that the
coefficients' gradients are, are products with a matrix of a few rows. An error of c is an error of k^2 times that in
T_k(c), at most, so series of many waves turn cos(w x), sin(w x) by x from wave to wave instead, whose error grows as w.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

# What the evaluation works on at a time, in bytes.
SLAB_BYTES = 2**23
DEVICE_SLAB_BYTES = 2**28  # on a GPU: enough to fill it
# Up to here by polynomials: degree^2 roundings are below 1e-5 in float32 and below 1e-12 in float64.
POLYNOMIAL_DEGREE = {torch.float32: 8, torch.float64: 32}

# Up to here values are computed in powers of u, which costs (1 + sqrt 2)^degree roundings at most (the sum of a
# Chebyshev polynomial's coefficients): 34 at degree 4, 1,155 at degree 8.
POWER_DEGREE = {torch.float32: 4, torch.float64: 8}
# Rows besides those of a basis: two to work in, two for cos and sin.
SPARE_ROWS = 4
# A thread keeps so many scratches of SLAB_BYTES at most: whole slabs and the rest, in training and evaluation.
KEPT_SCRATCHES = 4

Array = NDArray[Any]
_log = logging.getLogger(__name__)


def frequencies(n_waves: int) -> list[float]:
    """The frequencies w >= 0 of a series of `n_waves` coefficients."""
    return [k + (0 if n_waves % 2 else 0.5) for k in range((n_waves + 1) // 2)]


def evaluate(coefficients: Tensor, x: Tensor, times: float = 1.0, compiled: bool = False) -> Tensor:
    """f(times * x) of each head: coefficients (h, T) float64, x (outer, h, length) float32 or float64 -> as x.

    Differentiable once, in both; between the passes x, its cosines and its sines are kept.
    """
    if torch.compiler.is_compiling():  # inside a compiled model: leave it all to the compiler
        return _fused_values(coefficients.to(x.dtype), x * times)
    values: Tensor = _Evaluate.apply(coefficients, x, times, compiled)
    return values


class _Evaluate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, coefficients: Tensor, x: Tensor, times: float, compiled: bool) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.compiled, ctx.times = compiled, times
        if compiled and (values := _compiled(_fused_values, coefficients.to(x.dtype), x * times)) is not None:
            ctx.save_for_backward(coefficients, x)
            return values
        ctx.compiled = False
        circle = _room_for_circle(x) if any(ctx.needs_input_grad) else None
        if circle is not None:
            ctx.save_for_backward(coefficients, circle)
        return _as(_values(coefficients, _by_head(x), times, circle), x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, Tensor | None, None, None]:
        if grad is None:
            return None, None, None, None
        coefficients, circle = ctx.saved_tensors
        if ctx.compiled:
            x = circle
            slopes = coefficients @ _derivative(coefficients.shape[1], grad.device)
            fused = _compiled(_fused_gradients, slopes.to(grad.dtype), x * ctx.times, grad)
            if fused is not None:
                return fused[0].double(), fused[1] * ctx.times, None, None
            circle = _room_for_circle(x)
            _values(coefficients, _by_head(x), ctx.times, circle)
        wants_sums, wants_x, *_ = ctx.needs_input_grad
        sums, grad_hm = _gradients(coefficients, circle, _by_head(grad), ctx.times, wants_sums, wants_x)
        return sums, None if grad_hm is None else _as(grad_hm, grad), None, None


def _room_for_circle(x: Tensor) -> Tensor:
    """For cos and sin, (2, h, outer * length)."""
    outer, heads, length = x.shape
    return x.new_empty(2, heads, outer * length)


def _by_head(x: Tensor) -> Tensor:
    """(outer, h, length) -> (h, outer * length); a view where there is one head."""
    return x.reshape(1, -1) if x.shape[1] == 1 else x.transpose(0, 1).reshape(x.shape[1], -1)


def _as(x_hm: Tensor, like: Tensor) -> Tensor:
    outer, heads, length = like.shape
    return x_hm.view(like.shape) if heads == 1 else x_hm.view(heads, outer, length).transpose(0, 1)


def _values(coefficients: Tensor, x_hm: Tensor, times: float, circle: Tensor | None) -> Tensor:
    """f(times * x), (h, m); and what `_circle` says of x into `circle`, where it is wanted later."""
    n_waves, out = coefficients.shape[1], torch.empty_like(x_hm)
    basis = _basis(n_waves, x_hm)
    if isinstance(basis, _Polynomials) and basis.in_powers is not None:
        p, q = basis.power_weights(coefficients)
        for part, scratch in _slabs(x_hm, SPARE_ROWS):
            c, s = scratch.rows[-2:] if circle is None else _part(circle, part).unbind(0)
            _circle(_part(x_hm, part), times, n_waves % 2 == 1, c, s)
            basis.combine_powers(p, q, c, s, scratch, _part(out, part))
        return out
    weights = basis.weights(coefficients)
    for part, scratch in _slabs(x_hm, basis.n_rows + SPARE_ROWS):
        c, s = scratch.rows[-2:] if circle is None else _part(circle, part).unbind(0)
        _circle(_part(x_hm, part), times, n_waves % 2 == 1, c, s)
        basis.fill(c, s, scratch)
        basis.combine(weights, scratch, c, s, _part(out, part))
    return out


def _part(x: Tensor, part: slice | None) -> Tensor:
    return x if part is None else x[..., part]


def _gradients(
    coefficients: Tensor, circle: Tensor, grad_hm: Tensor, times: float, wants_sums: bool, wants_x: bool
) -> tuple[Tensor | None, Tensor | None]:
    """sum of grad * wave per head and wave, (h, T) float64, and grad * times * f'(times * x), (h, m)."""
    basis = _basis(coefficients.shape[1], grad_hm)
    grad_x = torch.empty_like(grad_hm) if wants_x else None
    weights = basis.weights(coefficients, slopes=times)
    sums = None
    for part, scratch in _slabs(grad_hm, basis.n_rows + SPARE_ROWS):
        (c, s), grad = _part(circle, part).unbind(0), _part(grad_hm, part)
        basis.fill(c, s, scratch)
        if grad_x is not None:
            grad_part = _part(grad_x, part)
            basis.combine(weights, scratch, c, s, grad_part)
            grad_part.mul_(grad)
        if wants_sums:
            more = basis.sums(grad, scratch, c, s)
            sums = more if sums is None else sums + more
    if wants_sums:
        sums = torch.zeros_like(coefficients) if sums is None else basis.of_waves(sums)
    return sums, grad_x


class _Polynomials:
    """f = P + s Q (half-integers: c P + s Q, of x / 2), P and Q in the rows +-T_k(cos x), k from 0.

    The signs + + - - + + - - ... make each row one addcmul of the two before it.
    """

    def __init__(self, n_waves: int, dtype: torch.dtype, device: torch.device) -> None:
        self.whole = n_waves % 2 == 1
        self.n_rows = (n_waves + 1) // 2
        self.dtype = dtype
        self.matrix = _to_chebyshev(n_waves).to(device)  # (T, 2 * n_rows)
        self.back = self.matrix.t().contiguous()
        self.slopes_matrix = _derivative(n_waves, device) @ self.matrix
        self._times: dict[float, Tensor] = {}
        self.in_powers: Tensor | None = None  # (T, 2 * n_rows): P and Q in powers of u
        if self.n_rows - 1 <= POWER_DEGREE[dtype]:
            powers = np.zeros((self.n_rows, self.n_rows))
            for k in range(self.n_rows):
                powers[k, : k + 1] = (1, 1, -1, -1)[k % 4] * np.polynomial.chebyshev.cheb2poly(np.eye(k + 1)[k])
            in_rows = self.matrix.cpu().view(n_waves, 2, self.n_rows)
            self.in_powers = (in_rows @ torch.from_numpy(powers)).reshape(n_waves, -1).to(device)

    def weights(self, coefficients: Tensor, slopes: float | None = None) -> Tensor:
        """(h, 2, n_rows): P and Q of f, or of so many times its slope."""
        matrix = self.matrix
        if slopes is not None:
            if slopes not in self._times:
                self._times = {slopes: slopes * self.slopes_matrix}
            matrix = self._times[slopes]
        found = coefficients @ matrix
        return found.to(self.dtype).view(-1, 2, self.n_rows)

    def power_weights(self, coefficients: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """The powers of P and of Q, lowest first, (h, 1) each."""
        assert self.in_powers is not None
        found = (coefficients @ self.in_powers).to(self.dtype).view(-1, 2, self.n_rows, 1)
        p, q = found[:, 0].unbind(1), found[:, 1].unbind(1)
        return p, q[: max(1, len(q) - self.whole)]

    def combine_powers(
        self, p: tuple[Tensor, ...], q: tuple[Tensor, ...], c: Tensor, s: Tensor, scratch: _Scratch, out: Tensor
    ) -> None:
        """f into `out` (h, m) by Horner's rule: fewer passes over memory than the rows take."""
        scratch.has_ones = False
        u, of_q = scratch.rows[:2]
        u = c if self.whole else torch.mul(c, c, out=u).mul_(2).sub_(1)
        for powers, found in ((p, out), (q, of_q)):
            if len(powers) == 1:
                found.copy_(powers[0].expand_as(found))
                continue
            torch.addcmul(powers[-2], powers[-1], u, out=found)
            for power in powers[-3::-1]:
                torch.addcmul(power, found, u, out=found)
        if not self.whole:
            out.mul_(c)
        out.addcmul_(of_q, s)

    def fill(self, c: Tensor, s: Tensor, scratch: _Scratch) -> None:
        """The rows, from cos and sin: of x, or of x / 2 for half-integers."""
        rows = scratch.rows
        if not scratch.has_ones:
            rows[0].fill_(1)
            scratch.has_ones = True
        if self.n_rows > 1:
            if self.whole:
                rows[1].copy_(c)
            else:
                torch.mul(s, s, out=rows[1]).mul_(-2).add_(1)
        for k in range(2, self.n_rows):
            torch.addcmul(rows[k - 2], rows[1], rows[k - 1], value=2 if k % 2 else -2, out=rows[k])

    def combine(self, weights: Tensor, scratch: _Scratch, c: Tensor, s: Tensor, out: Tensor) -> None:
        """f, or its slope, into `out` (h, m)."""
        p, q = scratch.rows[self.n_rows : self.n_rows + 2]
        for head, pq in enumerate(scratch.heads(self.n_rows, self.n_rows + 2)):
            torch.mm(weights[head], scratch.heads(0, self.n_rows)[head], out=pq)
        torch.addcmul(p if self.whole else p.mul_(c), q, s, out=out)

    def sums(self, grad: Tensor, scratch: _Scratch, c: Tensor, s: Tensor) -> Tensor:
        """What grad says of P and Q: (h, 2 * n_rows) float64."""
        of_p, of_q = scratch.rows[self.n_rows : self.n_rows + 2]
        if self.whole:
            of_p.copy_(grad)
        else:
            torch.mul(grad, c, out=of_p)
        torch.mul(grad, s, out=of_q)
        rows, both = scratch.heads(0, self.n_rows), scratch.heads(self.n_rows, self.n_rows + 2)
        if len(rows) == 1:
            return torch.mm(both[0], rows[0].t()).view(1, -1).double()
        return torch.stack([torch.mm(g, row.t()) for g, row in zip(both, rows, strict=True)]).flatten(1).double()

    def of_waves(self, sums: Tensor) -> Tensor:
        return sums @ self.back


class _Turned:
    """f is a sum over the rows cos(w x), then sin(w x) without sin(0 x)."""

    def __init__(self, n_waves: int, dtype: torch.dtype, device: torch.device) -> None:
        self.n_waves, self.dtype = n_waves, dtype
        self.n_rows = n_waves
        self.derivative = _derivative(n_waves, device)

    def weights(self, coefficients: Tensor, slopes: float | None = None) -> Tensor:
        found = coefficients if slopes is None else coefficients @ (slopes * self.derivative)
        return found.to(self.dtype)[:, None]

    def fill(self, c: Tensor, s: Tensor, scratch: _Scratch) -> None:
        scratch.has_ones = False  # polynomials may have had it before
        _fill_waves(c, s, self.n_waves, scratch.rows)

    def combine(self, weights: Tensor, scratch: _Scratch, c: Tensor, s: Tensor, out: Tensor) -> None:  # noqa: ARG002
        for head, rows in enumerate(scratch.heads(0, self.n_rows)):
            out[head] = torch.mm(weights[head], rows)[0]

    def sums(self, grad: Tensor, scratch: _Scratch, c: Tensor, s: Tensor) -> Tensor:  # noqa: ARG002
        rows = scratch.heads(0, self.n_rows)
        return torch.stack([torch.mv(row, g) for row, g in zip(rows, grad.unbind(0), strict=True)]).double()

    def of_waves(self, sums: Tensor) -> Tensor:
        return sums


def _basis(n_waves: int, x: Tensor) -> _Polynomials | _Turned:
    return _known_basis(n_waves, x.dtype, x.device)


@lru_cache(maxsize=64)
def _known_basis(n_waves: int, dtype: torch.dtype, device: torch.device) -> _Polynomials | _Turned:
    with torch.inference_mode(False):
        kind = _Polynomials if (n_waves - 1) // 2 <= POLYNOMIAL_DEGREE[dtype] else _Turned
        return kind(n_waves, dtype, device)


class _Scratch:
    """Memory for so many rows of (h, m) numbers, and its parts, made once: a view costs as much as a small sum."""

    def __init__(self, n_rows: int, heads: int, m: int, like: Tensor) -> None:
        with torch.inference_mode(False):
            self.whole = like.new_empty(n_rows, heads, m)
        self.rows = self.whole.unbind(0)
        self.has_ones = False  # in row 0
        self._by_head: dict[tuple[int, int], tuple[Tensor, ...]] = {}

    def heads(self, start: int, stop: int) -> tuple[Tensor, ...]:
        """Rows start to stop of each head, (stop - start, m)."""
        if (start, stop) not in self._by_head:
            self._by_head[start, stop] = self.whole[start:stop].unbind(1)
        return self._by_head[start, stop]


_kept = threading.local()


def _slabs(x_hm: Tensor, n_rows: int) -> Iterator[tuple[slice | None, _Scratch]]:
    """Columns of x (h, m) that fit the cache (None: all), and scratch for them."""
    heads, length = x_hm.shape
    if not x_hm.numel():
        return
    memory = SLAB_BYTES if x_hm.device.type == "cpu" else DEVICE_SLAB_BYTES
    n_slabs = -(-length * x_hm.element_size() * n_rows * heads // memory)
    columns = max(256, -(-length // n_slabs))
    if columns >= length:
        yield None, _scratch(n_rows, heads, length, x_hm)
        return
    for start in range(0, length, columns):
        stop = min(length, start + columns)
        yield slice(start, stop), _scratch(n_rows, heads, stop - start, x_hm)


def _scratch(n_rows: int, heads: int, columns: int, like: Tensor) -> _Scratch:
    """On the CPU a thread keeps some: fresh pages cost."""
    if like.device.type != "cpu":
        return _Scratch(n_rows, heads, columns, like)
    kept: dict[Any, _Scratch] = _kept.__dict__
    key = (n_rows, heads, columns, like.dtype)
    if key not in kept:
        if len(kept) >= KEPT_SCRATCHES:
            kept.clear()
        kept[key] = _Scratch(n_rows, heads, columns, like)
    return kept[key]


def _circle(x: Tensor, times: float, whole: bool, cos: Tensor, sin: Tensor) -> None:
    """cos and sin of times * x, or of half of it for half-integer frequencies, into the two given."""
    times = times if whole else times / 2
    if x.device.type == "cpu" and x.dtype == torch.float32:
        # numpy's are in vectors for float32, and take half of the time of torch's.
        scaled = x if times == 1 else torch.mul(x, times, out=sin)
        with np.errstate(invalid="ignore"):  # inf becomes nan, as in torch
            np.cos(scaled.numpy(), out=cos.numpy())
            np.sin(scaled.numpy(), out=sin.numpy())
    elif x.device.type == "cpu" and _numpy_has_a_vector_tangent():
        # With t = tan(y / 2): cos y = 2 / (1 + t^2) - 1 and sin y = 2 t / (1 + t^2), errors below a few roundings of 1
        # everywhere, since t^2 cannot overflow. One tangent of numpy's takes a fifth of torch's sine and cosine.
        tangent = torch.mul(x, times / 2, out=sin).numpy()  # the same memory
        with np.errstate(invalid="ignore"):
            np.tan(tangent, out=tangent)
        torch.addcmul(_half_of(x.dtype), sin, sin, value=0.5, out=cos).reciprocal_()
        sin.mul_(cos)
        cos.sub_(1)
    else:
        scaled = x if times == 1 else x * times
        torch.cos(scaled, out=cos)
        torch.sin(scaled, out=sin)


@lru_cache(maxsize=1)
def _numpy_has_a_vector_tangent() -> bool:
    """numpy computes it in vectors with AVX-512, called X86_V4 from numpy 2.4 on."""
    found = np.show_config(mode="dicts")["SIMD Extensions"]["found"]
    return bool({"X86_V4", "AVX512_SKX"} & set(found))


@lru_cache(maxsize=2)
def _half_of(dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(0.5, dtype=dtype)


def _fill_waves(cos: Tensor, sin: Tensor, n_waves: int, scratch: Sequence[Tensor]) -> None:
    """cos(w x) by rising w, then sin(w x) without sin(0 x), in the first T of T + 2 buffers.

    `cos` and `sin`: from `_circle`. Each pair is the one before it turned by x: an error of a few roundings times w.
    """
    n_cosines = (n_waves + 1) // 2
    cosines, sines = list(scratch[:n_cosines]), list(scratch[n_cosines:n_waves])
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


@lru_cache(maxsize=32)
def _to_chebyshev(n_waves: int) -> Tensor:
    """The matrix (T, 2 * rows) from the coefficients to those of P and Q in the rows of `_Polynomials`.

    Whole frequencies: cos kx = T_k(c) and sin kx = s U_{k-1}(c). Half-integer: Chebyshev polynomials of the third and
    fourth kind. Each follows from p_{k+1} = 2 c p_k - p_{k-1}, and 2 c T_j = T_{j+1} + T_{|j-1|}.
    """
    n_rows, whole = (n_waves + 1) // 2, n_waves % 2
    matrix = np.zeros((n_waves, 2, n_rows))

    def times_2c(p: Array) -> Array:
        found = np.zeros_like(p)
        for j in np.flatnonzero(p):
            found[abs(j - 1)] += p[j]
            if j + 1 < len(p):
                found[j + 1] += p[j]
        return found

    for half, rows in enumerate((range(n_rows), range(n_rows, n_waves))):
        before, now = np.zeros(n_rows + 1), np.eye(1, n_rows + 1)[0]
        if whole:  # T_{-1} = c, so that T_1 = 2 c - c; U_{-1} = 0
            before[1] = 1 - half
        else:  # V_{-1} = 1, W_{-1} = -1
            before[0] = 1 - 2 * half
        for row in rows:
            matrix[row, half] = now[:n_rows]
            before, now = now, times_2c(now) - before
    signs = np.array([1.0, 1.0, -1.0, -1.0])[np.arange(n_rows) % 4]
    with torch.inference_mode(False):
        return torch.from_numpy((matrix * signs).reshape(n_waves, 2 * n_rows))


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
