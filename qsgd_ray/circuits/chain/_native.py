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
from qsgd_ray.native.compiler import kernel

MOST_LAYERS = {"chain": 4, "all": 4, "ring": 3, "none": 1}  # deeper circuits are the twin's
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
        and _library(spec, angles.dtype) is not None
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
        spec, memory_bytes = ctx.options
        if torch.is_grad_enabled():  # a derivative of the gradient may follow
            return _Gradient.apply(angles, z_bar, spec, memory_bytes), None, None
        return _sweep(spec, angles, memory_bytes, z_bar)[1], None, None


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
        if torch.is_grad_enabled() or _library(spec, angles.dtype, "DUAL") is None:
            return *_twins_derivatives(ctx, along), None, None
        by_z_bar, by_angles = _sweep(spec, angles, memory_bytes, z_bar, along)
        return by_angles, by_z_bar, None, None


def _twins_derivatives(ctx: Any, along: Tensor) -> tuple[Tensor | None, ...]:
    """Return the derivatives of the gradient's inner product with `along`, with graphs of their own."""
    angles, z_bar = ctx.saved_tensors
    spec, memory_bytes = ctx.options
    with torch.enable_grad():
        tracked = angles if angles.requires_grad else angles.detach().requires_grad_()
        z = _twin.expectations(spec, tracked.transpose(2, 3), memory_bytes)
        (gradient,) = torch.autograd.grad(z, tracked, z_bar, create_graph=True)
        wanted = [x for x in (angles, z_bar) if x.requires_grad]
        derivatives = iter(torch.autograd.grad(gradient, wanted, along, create_graph=True, allow_unused=True))
    return tuple(next(derivatives) if x.requires_grad else None for x in (angles, z_bar))


def _library(spec: CircuitSpec, dtype: torch.dtype, *definitions: str) -> ctypes.CDLL | None:
    kind = f"KIND={spec.entangle.upper()}"
    loaded = kernel("chain.cpp", f"REAL={_REAL[dtype]}", f"DEPTH={spec.depth}", kind, *definitions)
    if loaded is not None and not loaded.sweep.argtypes:
        long, pointer = ctypes.c_int64, ctypes.c_void_p
        loaded.scratch_bytes.restype = long
        loaded.scratch_bytes.argtypes = long, long, ctypes.c_int, long
        loaded.sweep.argtypes = long, long, long, *[pointer] * 7, long, ctypes.c_int
    return loaded


@lru_cache(maxsize=256)
def _axes(spec: CircuitSpec) -> ctypes.Array[ctypes.c_int32]:
    return (ctypes.c_int32 * len(spec.rotations))(*map(_AXES.index, spec.rotations))


def _sweep(
    spec: CircuitSpec, angles: Tensor, memory_bytes: int, z_bar: Tensor | None = None, along: Tensor | None = None
) -> Any:
    """Return (z, None); with `z_bar` (None, gradient of the sum of z_bar * z); with `along` both derivatives along it.

    Shapes: (b, d, n, r) of angles, gradient and direction; (b, n) of z.
    """
    loaded = _library(spec, angles.dtype, *(() if along is None else ("DUAL",)))
    assert loaded is not None
    batch, n = len(angles), spec.n_qubits
    inputs = [x if x is None else x.resolve_neg().contiguous() for x in (angles, along, z_bar)]
    recorded = z_bar is not None
    z = None if recorded and along is None else angles.new_empty(batch, n)
    gradient = angles.new_empty(angles.shape) if recorded else None
    work = batch * n * 4 ** (spec.depth - 1)
    threads = max(1, min(torch.get_num_threads(), work // _THREADS_FROM + 1, batch))
    rotations = len(spec.rotations)
    scratch = loaded.scratch_bytes(n, rotations, recorded, memory_bytes // threads)
    threads, budget = max(1, min(threads, 8 * memory_bytes // scratch)), memory_bytes // threads
    space = torch.empty(scratch * threads, dtype=torch.uint8)
    pointers = [None if x is None else x.data_ptr() for x in (*inputs, z, gradient, space)]
    loaded.sweep(n, rotations, batch, _axes(spec), *pointers, budget, threads)
    return z, gradient
