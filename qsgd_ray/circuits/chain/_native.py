"""<Z_i> and their gradients by the kernel native/chain.cpp, on a CPU.

The gradient is a sweep of its own, which computes the forward sweep again: a block of circuits stays in the cache, so
this is quicker than reading back what could have been stored. Second derivatives are the derivatives of both sweeps
along a direction, by the same kernel on pairs of numbers; further ones are autograd's, of the twin.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from qsgd_ray.circuits.chain import _twin
from qsgd_ray.circuits.derivatives import has_tangent
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.native.compiler import library, source

MOST_LAYERS = {"chain": 4, "all": 4, "ring": 3, "none": 1}  # deeper circuits are the twin's
_KINDS = ("chain", "ring", "all", "none")
_AXES = ("rx", "ry", "rz")
_REAL = {torch.float32: "float", torch.float64: "double"}
# Carries of all circuits from which on a second thread is worth its start.
_THREADS_FROM = 2**15


def answers(spec: CircuitSpec, angles: Tensor) -> bool:
    """Return True where the kernel can: for circuits and angles as of `prepare_angles`."""
    return (
        angles.device.type == "cpu"
        and spec.depth <= MOST_LAYERS[spec.entangle]
        and not torch._C._functorch.is_functorch_wrapped_tensor(angles)
        and not has_tangent(angles)
        and _library(angles.dtype, spec.depth) is not None
    )


def expectations(spec: CircuitSpec, angles_bdrn: Tensor, memory_bytes: int) -> Tensor:
    """Return <Z_i>, (b, n), from angles as of `prepare_angles`, at least one circuit; twice differentiable and more."""
    z: Tensor = _Expectations.apply(angles_bdrn.transpose(2, 3), spec, memory_bytes)
    return z


class _Expectations(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, angles: Tensor, spec: CircuitSpec, memory_bytes: int) -> Tensor:
        ctx.save_for_backward(angles)
        ctx.options = spec, memory_bytes
        return _sweep(spec, angles, memory_bytes)[0]

    @staticmethod
    def backward(ctx: Any, z_bar: Tensor) -> Any:
        (angles,) = ctx.saved_tensors
        return _Gradient.apply(angles, z_bar, *ctx.options), None, None


class _Gradient(torch.autograd.Function):
    """The derivatives of the sum of z_bar * z by the angles."""

    @staticmethod
    def forward(ctx: Any, angles: Tensor, z_bar: Tensor, spec: CircuitSpec, memory_bytes: int) -> Tensor:
        ctx.save_for_backward(angles, z_bar)
        ctx.options = spec, memory_bytes
        return _sweep(spec, angles, memory_bytes, z_bar)[1]

    @staticmethod
    def backward(ctx: Any, along: Tensor) -> Any:
        angles, z_bar = ctx.saved_tensors
        spec, memory_bytes = ctx.options
        if torch.is_grad_enabled() or _library(angles.dtype, spec.depth, "DUAL") is None:
            with torch.enable_grad():
                z = _twin.expectations(spec, angles.transpose(2, 3), memory_bytes)
                (gradient,) = torch.autograd.grad(z, angles, z_bar, create_graph=True)
                by_both = torch.autograd.grad(gradient, (angles, z_bar), along, create_graph=True, allow_unused=True)
            return *by_both, None, None
        by_z_bar, by_angles = _sweep(spec, angles, memory_bytes, z_bar, along)
        return by_angles, by_z_bar, None, None


def _library(dtype: torch.dtype, depth: int, *definitions: str) -> ctypes.CDLL | None:
    return library(source("chain.cpp"), f"REAL={_REAL[dtype]}", f"DEPTH={depth}", *definitions)


@lru_cache(maxsize=256)
def _axes(spec: CircuitSpec) -> ctypes.Array[ctypes.c_int32]:
    return (ctypes.c_int32 * len(spec.rotations))(*map(_AXES.index, spec.rotations))


def _sweep(
    spec: CircuitSpec, angles: Tensor, memory_bytes: int, z_bar: Tensor | None = None, along: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return z, (b, n), and the gradient of the sum of z_bar * z; or the derivatives of both along a direction.

    `angles` and `along` have the shape (b, d, n, r). Without `z_bar` the gradient is empty.
    """
    kernel = _library(angles.dtype, spec.depth, *(() if along is None else ("DUAL",)))
    assert kernel is not None
    batch, n, kind = len(angles), spec.n_qubits, _KINDS.index(spec.entangle)
    inputs = [x if x is None else x.resolve_neg().contiguous() for x in (angles, along, z_bar)]
    z, gradient = angles.new_empty(batch, n), angles.new_empty(angles.shape if z_bar is not None else 0)
    work = batch * n * 4 ** (spec.depth - 1)
    threads = max(1, min(torch.get_num_threads(), work // _THREADS_FROM + 1, batch))
    shape = ctypes.c_int64(n), ctypes.c_int64(len(spec.rotations))
    kernel.scratch_bytes.restype = ctypes.c_int64
    recorded, budget = ctypes.c_int(z_bar is not None), ctypes.c_int64(memory_bytes // threads)
    scratch = kernel.scratch_bytes(*shape, kind, recorded, budget)
    threads = max(1, min(threads, 8 * memory_bytes // scratch))
    space = torch.empty(scratch * threads, dtype=torch.uint8)
    pointers = [None if x is None else ctypes.c_void_p(x.data_ptr()) for x in (*inputs, z, gradient, space)]
    if z_bar is None:
        pointers[-2] = None
    kernel.sweep(*shape, ctypes.c_int64(batch), kind, _axes(spec), *pointers, budget, threads)
    return z, gradient
