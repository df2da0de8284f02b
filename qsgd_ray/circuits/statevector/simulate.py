"""Exact simulation of many circuits at once: states, amplitudes, probabilities and <Z_i>.

A spec is compiled to a program of Pauli rotations (circuits/programs), which a C++ kernel runs, or torch on a GPU and
where there is no kernel. Answers are differentiable in reverse mode, to any order; no state between gates is stored.

Batching law: the bits of one circuit's answer do not depend on the other circuits of the batch, on its cut or threads.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from qsgd_ray.circuits.memory import available_bytes, require_memory
from qsgd_ray.circuits.programs.frame import PauliString, spec_instructions
from qsgd_ray.circuits.programs.program import Program, Reading, compile_program
from qsgd_ray.circuits.programs.run import run
from qsgd_ray.circuits.spec import CircuitSpec

# For states smaller than this the free memory is not looked up: the call would take longer than the simulation.
_SMALL_BYTES = 2**26


def statevector(spec: CircuitSpec, angles_bdnr: Tensor) -> Tensor:
    """Return the final state of every circuit. Differentiable in the angles (reverse mode).

    Args:
        spec: the circuit; n qubits.
        angles_bdnr: real floats, shape (b, d, n, r), in radians.

    Returns:
        Amplitudes, shape (b, 2**n); the index is the basis state with qubit 0 as its least significant bit. complex128
        for float64 angles, else complex64.

    Raises:
        ValueError: angles of another shape, or no real floats.
        CircuitMemoryError: the states of the batch do not fit into the free memory.

    Example:
        >>> statevector(CircuitSpec(2, depth=1), torch.zeros(1, 1, 2, 2))
        tensor([[0.5000+0.j, 0.5000+0.j, 0.5000+0.j, 0.5000+0.j]])
    """
    values = _checked(spec, angles_bdnr, answer_states=len(angles_bdnr))
    return run(_program(spec, Reading("states", n_read=1 << spec.n_qubits)), values)


def first_amplitudes(spec: CircuitSpec, angles_bdnr: Tensor) -> Tensor:
    """Return the amplitudes psi_0 ... psi_{n-1}, which quantum attention reads (arXiv 2511.01918, Eq. 4).

    Args:
        spec: the circuit; n qubits.
        angles_bdnr: real floats, shape (b, d, n, r), in radians.

    Returns:
        Amplitudes, shape (b, n); complex128 for float64 angles, else complex64.

    Raises:
        ValueError: angles of another shape, or no real floats.
        CircuitMemoryError: a state does not fit into the free memory.
    """
    values = _checked(spec, angles_bdnr)
    return run(_program(spec, Reading("states", n_read=spec.n_qubits)), values)


def probabilities(spec: CircuitSpec, angles_bdnr: Tensor) -> Tensor:
    """Return |psi_x|^2 of every basis state x. Differentiable in the angles (reverse mode).

    Args:
        spec: the circuit; n qubits.
        angles_bdnr: real floats, shape (b, d, n, r), in radians.

    Returns:
        Probabilities, shape (b, 2**n); float64 for float64 angles, else float32.

    Raises:
        ValueError: angles of another shape, or no real floats.
        CircuitMemoryError: the answer does not fit into the free memory.
    """
    values = _checked(spec, angles_bdnr, answer_states=len(angles_bdnr))
    return run(_program(spec, Reading("probabilities", n_read=1 << spec.n_qubits)), values)


def weight_of_first(spec: CircuitSpec, angles_bdnr: Tensor) -> Tensor:
    """Return |psi_0|^2 + ... + |psi_{n-1}|^2, the readout of quantum attention that a device can measure.

    Args:
        spec: the circuit; n qubits.
        angles_bdnr: real floats, shape (b, d, n, r), in radians.

    Returns:
        Shape (b, 1), in [0, 1]; float64 for float64 angles, else float32.

    Raises:
        ValueError: angles of another shape, or no real floats.
        CircuitMemoryError: a state does not fit into the free memory.
    """
    values = _checked(spec, angles_bdnr)
    first = run(_program(spec, Reading("probabilities", n_read=spec.n_qubits)), values).unbind(1)
    total = first[0]
    for probability in first[1:]:  # in order: a sum over an axis may change its order with the batch
        total = total + probability
    return total[:, None]


def expectations(spec: CircuitSpec, angles_bdnr: Tensor) -> Tensor:
    """Return <Z_i> of every qubit i. Differentiable in the angles (reverse mode).

    Args:
        spec: the circuit; n qubits.
        angles_bdnr: real floats, shape (b, d, n, r), in radians.

    Returns:
        Shape (b, n), in [-1, 1] up to rounding; float64 for float64 angles, else float32.

    Raises:
        ValueError: angles of another shape, or no real floats.
        CircuitMemoryError: the simulation of one circuit does not fit into the free memory.

    Example:
        >>> angles = torch.tensor([0.3, 0.5]).view(1, 1, 2, 1)
        >>> expectations(CircuitSpec(2, depth=1, rotations=("ry",)), angles)  # -sin 0.3, sin 0.3 sin 0.5
        tensor([[-0.2955,  0.1417]])
    """
    values = _checked(spec, angles_bdnr)
    return run(_program(spec, _every_z(spec.n_qubits)), values)


def _checked(spec: CircuitSpec, angles_bdnr: Tensor, answer_states: int = 0) -> Tensor:
    """Return the angles as (b, d * n * r); refuse those of another spec, and simulations that do not fit.

    `answer_states`: number of states that the answer holds.
    """
    spec.check_angles(angles_bdnr)
    dtype = torch.complex128 if angles_bdnr.dtype == torch.float64 else torch.complex64
    if dtype.itemsize * max(1, answer_states) << spec.n_qubits > _SMALL_BYTES:
        require_memory(spec.n_qubits, available_bytes(angles_bdnr.device), dtype, answer_states)
    return angles_bdnr.flatten(1)


@lru_cache(maxsize=256)
def _program(spec: CircuitSpec, reading: Reading) -> Program:
    n_slots = spec.depth * spec.n_qubits * len(spec.rotations)
    return compile_program(spec.n_qubits, n_slots, spec_instructions(spec), reading)


@lru_cache(maxsize=64)
def _every_z(n_qubits: int) -> Reading:
    return Reading("strings", tuple(((1.0, PauliString(0, 1 << qubit, 0)),) for qubit in range(n_qubits)))
