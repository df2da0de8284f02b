"""Values and slopes of short real Fourier series: coefficients and many x in, f(x) and its gradients out.

f(x) = sum over w >= 0 of a_w cos(w x) + b_w sin(w x), frequencies one apart, from 0 or from 1/2. Evaluated slab by slab
in the rows of _bases.py, memory that the cache holds; or by a compiled kernel (_fused.py).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qsgd_ray.circuits.fourier._bases import SPARE_ROWS, Polynomials, Scratch, basis_of, derivative
from qsgd_ray.circuits.fourier._fused import compiled_answer, fused_gradients, fused_values

# What the evaluation works on at a time, in bytes.
SLAB_BYTES = 2**23
DEVICE_SLAB_BYTES = 2**28  # on a GPU: enough to fill it
# A thread keeps so many scratches of SLAB_BYTES at most: whole slabs and the rest, in training and evaluation.
KEPT_SCRATCHES = 4


def evaluate(coefficients: Tensor, x: Tensor, times: float = 1.0, compiled: bool = False) -> Tensor:
    """f(times * x) of each head: coefficients (h, T) float64, x (outer, h, length) float32 or float64 -> as x.

    Differentiable once, in both; between the passes its cosines and sines are kept (compiled: x).
    """
    if torch.compiler.is_compiling():  # inside a compiled model: leave it all to the compiler
        return fused_values(coefficients.to(x.dtype), x * times)
    values: Tensor = _Evaluate.apply(coefficients, x, times, compiled)
    return values


class _Evaluate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, coefficients: Tensor, x: Tensor, times: float, compiled: bool) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.compiled, ctx.times = compiled, times
        if compiled and (values := compiled_answer(fused_values, coefficients.to(x.dtype), x * times)) is not None:
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
            slopes = coefficients @ derivative(coefficients.shape[1], grad.device)
            fused = compiled_answer(fused_gradients, slopes.to(grad.dtype), x * ctx.times, grad)
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
    basis = basis_of(n_waves, x_hm)
    if isinstance(basis, Polynomials) and basis.in_powers is not None:
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
    basis = basis_of(coefficients.shape[1], grad_hm)
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


_kept = threading.local()


def _slabs(x_hm: Tensor, n_rows: int) -> Iterator[tuple[slice | None, Scratch]]:
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


def _scratch(n_rows: int, heads: int, columns: int, like: Tensor) -> Scratch:
    """On the CPU a thread keeps some: fresh pages cost."""
    if like.device.type != "cpu":
        return Scratch(n_rows, heads, columns, like)
    kept: dict[Any, Scratch] = _kept.__dict__
    key = (n_rows, heads, columns, like.dtype)
    if key not in kept:
        if len(kept) >= KEPT_SCRATCHES:
            kept.clear()
        kept[key] = Scratch(n_rows, heads, columns, like)
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
