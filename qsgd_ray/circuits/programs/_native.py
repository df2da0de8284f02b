"""Run a program by the C++ kernel (native/program.cpp): answers, and gradients of them, in float64 or float32.

A vector of the kernel has one amplitude of 8 circuits (float32: 16), or for more qubits 8 amplitudes of one circuit.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from qsgd_ray.circuits.errors import CircuitMemoryError
from qsgd_ray.circuits.programs._packed import Packed, pack
from qsgd_ray.circuits.programs.program import Program
from qsgd_ray.native.compiler import kernel

# From this number of qubits on a vector has amplitudes of one circuit: those of eight would leave the cache.
WIDE_FROM = 9
_LANE_BITS = {torch.float64: 3, torch.float32: 4}
_READINGS = ("strings", "probabilities", "states")


class _Ready(NamedTuple):
    """A packed program and the address of its C++ structure."""

    header: Any
    packed: Packed
    source: Any
    powers: Any
    wide: int


def is_available() -> bool:
    """Return True where the kernel is there, or can be compiled."""
    return _library() is not None


def execute(
    program: Program, values_bs: Tensor, cotangent: Tensor | None, want_answer: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Run a program.

    Args:
        program: the compiled circuit: s slots.
        values_bs: float64 or float32 on the CPU, shape (b, s).
        cotangent: gradient of a loss in the answer, of the answer's shape and dtype; None: no gradient is wanted.
        want_answer: True for the answer.

    Returns:
        The answer, (b, outputs), (b, read) or complex (b, read), and the gradient in the values, (b, s); None where not
        wanted.

    Raises:
        CircuitMemoryError: there is no memory for the states.
    """
    ready = _ready(program, values_bs.dtype)
    values_bs = values_bs.contiguous()
    batch, dtype = len(values_bs), values_bs.dtype
    reading = program.reading
    width = len(reading.outputs) if reading.kind == "strings" else len(program.source)
    answer_dtype = dtype.to_complex() if reading.kind == "states" else dtype
    answer = torch.empty((batch, width), dtype=answer_dtype) if want_answer else None
    gradient = None
    if cotangent is not None:
        gradient = torch.empty_like(values_bs)
        cotangent = cotangent.to(answer_dtype).resolve_conj().resolve_neg().contiguous()
    run = _library()["run_double" if dtype == torch.float64 else "run_float"]  # type: ignore[index]
    failed = run(
        ready.header,
        ready.wide,
        _READINGS.index(reading.kind),
        ctypes.c_void_p(values_bs.data_ptr()),
        ctypes.c_int64(batch),
        ctypes.c_void_p(None if answer is None else answer.data_ptr()),
        ctypes.c_void_p(None if cotangent is None else cotangent.data_ptr()),
        ctypes.c_void_p(None if gradient is None else gradient.data_ptr()),
        torch.get_num_threads(),
    )
    if failed:
        raise CircuitMemoryError(f"n_qubits: got {program.n_qubits}; there is no memory for their states")
    return answer, gradient


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    return kernel("program.cpp")


@lru_cache(maxsize=256)
def _ready(program: Program, dtype: torch.dtype) -> _Ready:
    wide = program.n_qubits >= WIDE_FROM
    lane_bits = _LANE_BITS[dtype] if wide else 0
    packed = pack(program, lane_bits)
    numbers = [
        program.n_qubits,
        1 << program.n_qubits - lane_bits,
        program.n_slots,
        len(packed.rotations),
        len(packed.blocks),
        len(packed.opened),
        len(packed.strings),
        packed.n_diagonal,
        len(packed.first_strings) - 1,
        len(program.source),
        packed.buffer,
        packed.most_steps,
        packed.most_sets,
    ]
    arrays = [*(part for part in packed if isinstance(part, np.ndarray)), program.source, program.powers]
    header = np.array(numbers + [array.ctypes.data for array in arrays], np.int64)
    return _Ready(ctypes.c_void_p(header.ctypes.data), packed, header, arrays, int(wide))
