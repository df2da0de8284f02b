"""Evaluation of short real Fourier series at many x, with gradients in x and in the coefficients.

f(x) = sum over w >= 0 of a_w cos(w x) + b_w sin(w x), with frequencies 0, 1, ... or 1/2, 3/2, ... . The evaluation goes
slab by slab of x, in rows of memory that the cache holds (_bases.py), or by a compiled kernel (_fused.py).

Letters of shapes: h heads, m all x of a head, T coefficients of a head.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qsgd_ray.circuits.derivatives import once
from qsgd_ray.circuits.fourier._bases import SPARE_ROWS, ChebyshevBasis, Scratch, basis_of, derivative
from qsgd_ray.circuits.fourier._fused import fused_gradients, fused_values, run_compiled

# Working memory of a slab on a CPU, in bytes.
_SLAB_BYTES = 2**23
_DEVICE_SLAB_BYTES = 2**28  # on a GPU: enough to fill it
# Largest number of scratches that a thread caches: of whole slabs and of the rest, in training and in evaluation.
_CACHED_SCRATCHES = 4


def evaluate(coefficients: Tensor, x: Tensor, scale: float = 1.0, compiled: bool = False) -> Tensor:
    """Return f(scale * x) of each head, of the shape and dtype of x.

    Differentiable once, in x and the coefficients; cos x and sin x are stored between the passes (compiled: x).

    Args:
        coefficients: float64, shape (h, T).
        x: float32 or float64, shape (outer, h, length), in radians.
        scale: factor of x.
        compiled: use the kernels of _fused.py where they can be compiled and round as little: in float32 with a power
            of two for `scale`.
    """
    if torch.compiler.is_compiling():  # inside a compiled model: leave it all to the compiler
        if x.dtype == torch.float32 and not _is_exact(scale):
            return fused_values(coefficients, x.double() * scale).to(x.dtype)
        return fused_values(coefficients.to(x.dtype), x * scale)
    # For the graph alone: an empty copy leads back to x, which need not be stored for that.
    link = x.flatten()[:0].clone() if x.requires_grad else None
    values: Tensor = _Evaluate.apply(coefficients, x, scale, compiled, link)
    return values


class _Evaluate(torch.autograd.Function):
    """f(scale * x) with gradients by hand: backward makes f' and the rows again from cos x and sin x."""

    @staticmethod
    def forward(ctx: Any, coefficients: Tensor, x: Tensor, scale: float, compiled: bool, link: Tensor | None) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.scale = scale
        compiled = ctx.compiled = compiled and (x.dtype == torch.float64 or _is_exact(scale))
        if compiled and (values := run_compiled(fused_values, coefficients.to(x.dtype), x * scale)) is not None:
            ctx.save_for_backward(coefficients, x, link)
            return values
        ctx.compiled = False
        cos_sin = _empty_cos_sin(x) if any(ctx.needs_input_grad) else None
        if cos_sin is not None:
            ctx.save_for_backward(coefficients, cos_sin, link)
        return _from_head_first(_values(coefficients, _by_head(x), scale, cos_sin), x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        if grad is None:
            return None, None, None, None, None
        # Once: torch's activation checkpoints give what was saved a single time.
        coefficients, cos_sin, link = ctx.saved_tensors
        with torch.no_grad():
            sums, grad_x = _Evaluate._by_hand(ctx, coefficients, cos_sin, grad)
        if sums is not None:
            sums = once(sums, "Fourier series", grad, link)
        if grad_x is not None:
            grad_x = once(grad_x, "Fourier series", grad, coefficients, link)
        return sums, grad_x, None, None, None

    @staticmethod
    def _by_hand(ctx: Any, coefficients: Tensor, cos_sin: Tensor, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients in the coefficients and in x."""
        if ctx.compiled:
            x = cos_sin
            slopes = coefficients @ derivative(coefficients.shape[1], grad.device)
            fused = run_compiled(fused_gradients, slopes.to(grad.dtype), x * ctx.scale, grad)
            if fused is not None:
                return fused[0].double(), fused[1] * ctx.scale
            cos_sin = _empty_cos_sin(x)
            _values(coefficients, _by_head(x), ctx.scale, cos_sin)
        needs_sums, needs_x, *_ = ctx.needs_input_grad
        sums, grad_hm = _gradients(coefficients, cos_sin, _by_head(grad), ctx.scale, needs_sums, needs_x)
        return sums, None if grad_hm is None else _from_head_first(grad_hm, grad)


def _empty_cos_sin(x: Tensor) -> Tensor:
    """Return memory for cos and sin, (2, h, m)."""
    outer, heads, length = x.shape
    return x.new_empty(2, heads, outer * length)


def _by_head(x: Tensor) -> Tensor:
    """Return (outer, h, length) as (h, m); a view where there is one head."""
    return x.reshape(1, -1) if x.shape[1] == 1 else x.transpose(0, 1).reshape(x.shape[1], -1)


def _from_head_first(x_hm: Tensor, like: Tensor) -> Tensor:
    """Return (h, m) in the shape (outer, h, length) of `like`."""
    outer, heads, length = like.shape
    return x_hm.view(like.shape) if heads == 1 else x_hm.view(heads, outer, length).transpose(0, 1)


def _values(coefficients: Tensor, x_hm: Tensor, scale: float, cos_sin: Tensor | None) -> Tensor:
    """Return f(scale * x), (h, m); write cos and sin of x into `cos_sin`, where it is given."""
    n_waves, out = coefficients.shape[1], torch.empty_like(x_hm)
    basis = basis_of(n_waves, x_hm)
    if isinstance(basis, ChebyshevBasis) and basis.in_powers is not None:
        p, q = basis.power_weights(coefficients)
        for part, scratch in _slabs(x_hm, SPARE_ROWS):
            c, s = scratch.rows[-2:] if cos_sin is None else _part(cos_sin, part).unbind(0)
            _fill_cos_sin(_part(x_hm, part), scale, n_waves % 2 == 1, c, s)
            basis.combine_powers(p, q, c, s, scratch, _part(out, part))
        return out
    weights = basis.weights(coefficients)
    for part, scratch in _slabs(x_hm, basis.n_rows + SPARE_ROWS):
        c, s = scratch.rows[-2:] if cos_sin is None else _part(cos_sin, part).unbind(0)
        _fill_cos_sin(_part(x_hm, part), scale, n_waves % 2 == 1, c, s)
        basis.fill(c, s, scratch)
        basis.combine(weights, scratch, c, s, _part(out, part))
    return out


def _part(x: Tensor, part: slice | None) -> Tensor:
    """Return the columns of a slab; None: all."""
    return x if part is None else x[..., part]


def _gradients(
    coefficients: Tensor, cos_sin: Tensor, grad_hm: Tensor, scale: float, needs_sums: bool, needs_x: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Return the sums of grad * wave, (h, T) float64, and grad * scale * f'(scale * x), (h, m)."""
    basis = basis_of(coefficients.shape[1], grad_hm)
    grad_x = torch.empty_like(grad_hm) if needs_x else None
    weights = basis.weights(coefficients, slopes=scale)
    sums = None
    for part, scratch in _slabs(grad_hm, basis.n_rows + SPARE_ROWS):
        (c, s), grad = _part(cos_sin, part).unbind(0), _part(grad_hm, part)
        basis.fill(c, s, scratch)
        if grad_x is not None:
            grad_part = _part(grad_x, part)
            basis.combine(weights, scratch, c, s, grad_part)
            grad_part.mul_(grad)
        if needs_sums:
            slab_sums = basis.sums(grad, scratch, c, s)
            sums = slab_sums if sums is None else sums + slab_sums
    if needs_sums:
        sums = torch.zeros_like(coefficients) if sums is None else basis.to_waves(sums)
    return sums, grad_x


_thread_cache = threading.local()


def _slabs(x_hm: Tensor, n_rows: int) -> Iterator[tuple[slice | None, Scratch]]:
    """Yield columns of x (h, m) that fit the cache (None: all), and scratch for them."""
    heads, length = x_hm.shape
    if not x_hm.numel():
        return
    memory = _SLAB_BYTES if x_hm.device.type == "cpu" else _DEVICE_SLAB_BYTES
    n_slabs = -(-length * x_hm.element_size() * n_rows * heads // memory)
    columns = max(256, -(-length // n_slabs))
    if columns >= length:
        yield None, _scratch(n_rows, heads, length, x_hm)
        return
    for start in range(0, length, columns):
        stop = min(length, start + columns)
        yield slice(start, stop), _scratch(n_rows, heads, stop - start, x_hm)


def _scratch(n_rows: int, heads: int, columns: int, like: Tensor) -> Scratch:
    """Return scratch memory; on the CPU each thread reuses its own, as fresh pages cost time."""
    if like.device.type != "cpu":
        return Scratch(n_rows, heads, columns, like)
    cache: dict[Any, Scratch] = _thread_cache.__dict__
    key = (n_rows, heads, columns, like.dtype)
    if key not in cache:
        if len(cache) >= _CACHED_SCRATCHES:
            cache.clear()
        cache[key] = Scratch(n_rows, heads, columns, like)
    return cache[key]


def _fill_cos_sin(x: Tensor, scale: float, integer: bool, cos: Tensor, sin: Tensor) -> None:
    """Write cos and sin of scale * x into `cos` and `sin`; half-integer frequencies: of half of it."""
    scale = scale if integer else scale / 2
    if x.dtype == torch.float32 and not _is_exact(scale):
        scaled = x.double() * scale
        cos.copy_(torch.cos(scaled))
        sin.copy_(torch.sin(scaled))
        return
    if x.device.type == "cpu" and x.dtype == torch.float32:
        # numpy computes them in vectors for float32, in half of torch's time.
        scaled = x if scale == 1 else torch.mul(x, scale, out=sin)
        with np.errstate(invalid="ignore"):  # inf gives nan, as in torch
            np.cos(scaled.numpy(), out=cos.numpy())
            np.sin(scaled.numpy(), out=sin.numpy())
    elif x.device.type == "cpu" and _numpy_has_a_vector_tangent():
        # With t = tan(y / 2): cos y = 2 / (1 + t^2) - 1 and sin y = 2 t / (1 + t^2), errors below a few roundings of 1
        # everywhere, since t^2 cannot overflow. A tangent of numpy takes a fifth of torch's sine and cosine.
        tangent = torch.mul(x, scale / 2, out=sin).numpy()  # the same memory
        with np.errstate(invalid="ignore"):
            np.tan(tangent, out=tangent)
        torch.addcmul(_half_of(x.dtype), sin, sin, value=0.5, out=cos).reciprocal_()
        sin.mul_(cos)
        cos.sub_(1)
    else:
        scaled = x if scale == 1 else x * scale
        torch.cos(scaled, out=cos)
        torch.sin(scaled, out=sin)


def _is_exact(scale: float) -> bool:
    """Return True where a product with `scale` is not rounded: a power of two. Else large x would lose digits."""
    return abs(math.frexp(scale)[0]) == 0.5


@lru_cache(maxsize=1)
def _numpy_has_a_vector_tangent() -> bool:
    """Return True where numpy computes tangents in vectors: with AVX-512, called X86_V4 from numpy 2.4 on."""
    features = np.show_config(mode="dicts")["SIMD Extensions"]["found"]
    return bool({"X86_V4", "AVX512_SKX"} & set(features))


@lru_cache(maxsize=2)
def _half_of(dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(0.5, dtype=dtype)
