"""Exact simulation of many circuits at once: states, amplitudes, probabilities and <Z_i>.

A circuit is compiled to a program of Pauli rotations (circuits/programs), which C++ runs, or torch on a GPU and
where there is no kernel. Answers are differentiable in reverse mode, to any order; no state between gates is stored.

A `CircuitSpec` takes its angles, shape (b, d, n, r); a `Circuit` the numbers of its slots, shape (b, s), inputs first.

Batching law: the bits of one circuit's answer do not depend on the other circuits of the batch, on its cut or threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from qsgd_ray.circuits.circuit import Circuit
from qsgd_ray.circuits.memory import available_bytes, require_memory
from qsgd_ray.circuits.observables import PauliSum
from qsgd_ray.circuits.programs.frame import PauliString, circuit_instructions, pauli_string, spec_instructions
from qsgd_ray.circuits.programs.program import Program, Reading, compile_program
from qsgd_ray.circuits.programs.run import run
from qsgd_ray.circuits.spec import CircuitSpec

# For states smaller than this the free memory is not looked up: the call would take longer than the simulation.
_SMALL_BYTES = 2**26


def statevector(circuit: CircuitSpec | Circuit, values: Tensor) -> Tensor:
    """Return the final state of every circuit. Differentiable in the values (reverse mode).

    Args:
        circuit: the circuit; n qubits.
        values: real floats: angles in radians, shape (b, d, n, r), or numbers of slots, (b, s).

    Returns:
        Amplitudes, shape (b, 2**n); the index is the basis state with qubit 0 as its least significant bit. complex128
        for float64 values, else complex64.

    Raises:
        ValueError: values of another shape, or no real floats.
        CircuitMemoryError: the states of the batch do not fit into the free memory.

    Example:
        >>> statevector(CircuitSpec(2, depth=1), torch.zeros(1, 1, 2, 2))
        tensor([[0.5000+0.j, 0.5000+0.j, 0.5000+0.j, 0.5000+0.j]])
    """
    rows = _checked(circuit, values, answer_states=len(values))
    return run(_program(circuit, Reading("states", n_read=1 << circuit.n_qubits)), rows)


def first_amplitudes(circuit: CircuitSpec | Circuit, values: Tensor) -> Tensor:
    """Return the amplitudes psi_0 ... psi_{n-1}, which quantum attention reads (arXiv 2511.01918, Eq. 4).

    Args:
        circuit: the circuit; n qubits.
        values: real floats: angles in radians, shape (b, d, n, r), or numbers of slots, (b, s).

    Returns:
        Amplitudes, shape (b, n); complex128 for float64 values, else complex64.

    Raises:
        ValueError: values of another shape, or no real floats.
        CircuitMemoryError: a state does not fit into the free memory.
    """
    rows = _checked(circuit, values)
    return run(_program(circuit, Reading("states", n_read=circuit.n_qubits)), rows)


def probabilities(circuit: CircuitSpec | Circuit, values: Tensor) -> Tensor:
    """Return |psi_x|^2 of every basis state x. Differentiable in the values (reverse mode).

    Args:
        circuit: the circuit; n qubits.
        values: real floats: angles in radians, shape (b, d, n, r), or numbers of slots, (b, s).

    Returns:
        Probabilities, shape (b, 2**n); float64 for float64 values, else float32.

    Raises:
        ValueError: values of another shape, or no real floats.
        CircuitMemoryError: the answer does not fit into the free memory.
    """
    rows = _checked(circuit, values, answer_states=len(values))
    return run(_program(circuit, Reading("probabilities", n_read=1 << circuit.n_qubits)), rows)


def weight_of_first(circuit: CircuitSpec | Circuit, values: Tensor) -> Tensor:
    """Return |psi_0|^2 + ... + |psi_{n-1}|^2, the readout of quantum attention that a device can measure.

    Args:
        circuit: the circuit; n qubits.
        values: real floats: angles in radians, shape (b, d, n, r), or numbers of slots, (b, s).

    Returns:
        Shape (b, 1), in [0, 1]; float64 for float64 values, else float32.

    Raises:
        ValueError: values of another shape, or no real floats.
        CircuitMemoryError: a state does not fit into the free memory.
    """
    rows = _checked(circuit, values)
    first = run(_program(circuit, Reading("probabilities", n_read=circuit.n_qubits)), rows).unbind(1)
    total = first[0]
    for probability in first[1:]:  # in order: a sum over an axis may change its order with the batch
        total = total + probability
    return total[:, None]


def expectations(
    circuit: CircuitSpec | Circuit, values: Tensor, observables: Sequence[PauliSum] | None = None
) -> Tensor:
    """Return expectation values: <Z_i> of every qubit i, or those of sums of Pauli strings. Differentiable.

    Args:
        circuit: the circuit; n qubits.
        values: real floats: angles in radians, shape (b, d, n, r), or numbers of slots, (b, s).
        observables: what is measured. None (default): Z of each qubit. Qubits that they do not see are not simulated.

    Returns:
        Shape (b, n), in [-1, 1] up to rounding, or (b, observables); float64 for float64 values, else float32.

    Raises:
        ValueError: values of another shape, or no real floats; observables of more qubits.
        CircuitMemoryError: the simulation of one circuit does not fit into the free memory.

    Example:
        >>> angles = torch.tensor([0.3, 0.5]).view(1, 1, 2, 1)
        >>> expectations(CircuitSpec(2, depth=1, rotations=("ry",)), angles)  # -sin 0.3, sin 0.3 sin 0.5
        tensor([[-0.2955,  0.1417]])
    """
    reading = _every_z(circuit.n_qubits) if observables is None else _sums(circuit.n_qubits, tuple(observables))
    rows = _checked(circuit, values, readout=reading)
    return run(_program(circuit, reading), rows)


def _checked(
    circuit: CircuitSpec | Circuit, values: Tensor, answer_states: int = 0, readout: Reading | None = None
) -> Tensor:
    """Return the values as (b, slots); refuse those of another circuit, and simulations that do not fit.

    `answer_states`: number of states that the answer holds. `readout`: strings, that may see a part of the qubits.
    """
    if isinstance(circuit, CircuitSpec):
        circuit.check_angles(values)
    else:
        circuit.check_values(values)
    dtype = torch.complex128 if values.dtype == torch.float64 else torch.complex64
    n_qubits = circuit.n_qubits
    if dtype.itemsize * max(1, answer_states) << n_qubits > _SMALL_BYTES:
        if readout is not None:
            n_qubits = _program(circuit, readout).n_qubits
        require_memory(n_qubits, available_bytes(values.device), dtype, answer_states)
    return values.flatten(1)


@lru_cache(maxsize=256)
def _program(circuit: CircuitSpec | Circuit, reading: Reading) -> Program:
    if isinstance(circuit, CircuitSpec):
        n_slots = circuit.depth * circuit.n_qubits * len(circuit.rotations)
        return compile_program(circuit.n_qubits, n_slots, spec_instructions(circuit), reading)
    return compile_program(circuit.n_qubits, circuit.n_slots, circuit_instructions(circuit), reading)


@lru_cache(maxsize=64)
def _every_z(n_qubits: int) -> Reading:
    return Reading("strings", tuple(((1.0, PauliString(0, 1 << qubit, 0)),) for qubit in range(n_qubits)))


@lru_cache(maxsize=64)
def _sums(n_qubits: int, observables: tuple[PauliSum, ...]) -> Reading:
    for number, observable in enumerate(observables):
        if not isinstance(observable, PauliSum):
            raise ValueError(f"observables[{number}]: got {repr(observable)[:100]}; allowed: a PauliSum")
        if observable.n_qubits > n_qubits:
            qubit = observable.n_qubits - 1
            raise ValueError(f"observables[{number}]: got qubit {qubit}; allowed: 0 to {n_qubits - 1}")
    return Reading(
        "strings",
        tuple(
            tuple((weight, pauli_string(letters, qubits)) for weight, letters, qubits in observable.terms)
            for observable in observables
        ),
    )
