"""Circuits of Qiskit and of OpenQASM as `Circuit`s, the same state with its global phase; the way back is `to_qiskit`.

Gates that circuits/gates.py does not have are taken by their definitions, as deep as needed. A product formula of a sum
of Pauli strings (PauliEvolutionGate) is therefore what its definition runs, not the exact exponential.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsgd_ray.circuits import gates as known
from qsgd_ray.circuits._to_qiskit import split_phase
from qsgd_ray.circuits.angles import Angle, SlotKind, Term, _as_angle
from qsgd_ray.circuits.circuit import Circuit
from qsgd_ray.circuits.gates import Gate, Gates, phase

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

# Qiskit's standard gates that are functions of circuits/gates.py, under another name where one is given.
_SAME = "h x y z s sdg t tdg sx sxdg cx cy cz swap rx ry rz rxx ryy rzz p u crx cry crz cp"
_FUNCTIONS: dict[str, Callable[..., Gates]] = {name: getattr(known, name) for name in _SAME.split()}
_FUNCTIONS |= {"u1": known.p, "u3": known.u, "cu1": known.cp}
_FUNCTIONS["rzx"] = lambda angle, first, second: known.pauli_rotation("ZX", angle, (first, second))


def from_qiskit(circuit: QuantumCircuit, inputs: Any = None, weights: Any = None) -> Circuit:
    """Return a Qiskit circuit as a `Circuit`.

    Every parameter becomes a slot: an input or a weight. Angles must be affine in the parameters, with real
    coefficients. Barriers, delays and measurements at the end are dropped. The global phases of all gates become one,
    at the end.

    Args:
        circuit: on |0...0>, of gates only: no measurement before the end, no reset, no control flow.
        inputs: the parameters that are inputs, in the order of the slots: a Parameter, a ParameterVector, a name, or a
            sequence of these. None (default): none, or all others where `weights` are given.
        weights: the parameters that are weights, likewise. None (default): all others, in the order of
            `circuit.parameters`.

    Raises:
        ValueError: in one line: an instruction that is no gate, a gate without definition, an angle that is not
            affine, or a parameter that is missing, unknown or named twice.
    """
    from qiskit import QuantumCircuit

    if not isinstance(circuit, QuantumCircuit):
        raise ValueError(f"from_qiskit: got {type(circuit).__name__}; allowed: a QuantumCircuit")
    kinds = _kinds(circuit, inputs, weights)
    slots = {
        parameter: Angle(0.0, (Term(kind, slot, 1.0),))
        for kind, parameters in kinds.items()
        for slot, parameter in enumerate(parameters)
    }
    gates, total = split_phase(_gates(circuit, range(circuit.num_qubits), slots, set()))
    end = phase(total) if total != Angle() else ()
    return Circuit(circuit.num_qubits, gates + end, len(kinds["input"]), len(kinds["weight"]))


def from_qasm(text: str | Path, inputs: Any = None, weights: Any = None) -> Circuit:
    """Return a circuit in OpenQASM 2 or 3 as a `Circuit`, through Qiskit.

    Args:
        text: the program, or a Path of a file with it; its first statement is "OPENQASM 2.0;" or "OPENQASM 3.0;".
            Files that it includes are not read, but for the standard ones.
        inputs: as in `from_qiskit`; `input` variables of OpenQASM 3 are parameters of the same name.
        weights: as in `from_qiskit`.

    Raises:
        ValueError: in one line: another version, a program that Qiskit cannot read, or as `from_qiskit`.
        ImportError: in one line: a program in OpenQASM 3, and no package qiskit-qasm3-import.
    """
    from qiskit import qasm2, qasm3
    from qiskit.exceptions import MissingOptionalLibraryError

    program = text.read_text() if isinstance(text, Path) else text
    bare = re.sub(r"//[^\n]*|/\*.*?\*/", " ", program, flags=re.DOTALL).strip()
    version = re.match(r"OPENQASM\s+([23])(\.\d+)?\s*;", bare)
    if not version:
        raise ValueError(f"from_qasm: got {bare[:40]!r}; allowed: a program that begins with OPENQASM 2.0; or 3.0;")
    try:
        if version[1] == "3":
            circuit = qasm3.loads(program)
        else:
            legacy = qasm2.LEGACY_CUSTOM_INSTRUCTIONS
            circuit = qasm2.loads(program, include_path=(), custom_instructions=legacy)
    except MissingOptionalLibraryError:
        raise ImportError("from_qasm: OpenQASM 3 needs qiskit-qasm3-import (pip install qiskit-qasm3-import)") from None
    except Exception as error:  # of packages that are none of ours
        reason = " ".join(str(getattr(error, "message", error)).split()) or type(error).__name__
        raise ValueError(f"from_qasm: got OpenQASM {version[1]} that cannot be read: {reason[:200]}") from None
    return from_qiskit(circuit, inputs, weights)


def _kinds(circuit: Any, inputs: Any, weights: Any) -> dict[SlotKind, list[Any]]:
    """Return the parameters of each kind in the order of their slots; refuse any that has no kind, or two."""
    own = list(circuit.parameters)
    by_name = {parameter.name: parameter for parameter in own}
    kinds: dict[SlotKind, list[Any]] = {
        "input": list(_named("inputs", inputs, by_name)),
        "weight": list(_named("weights", weights, by_name)),
    }
    seen = set()
    for parameter in [*kinds["input"], *kinds["weight"]]:
        if parameter in seen:
            raise ValueError(f"from_qiskit: got parameter {parameter.name} twice; allowed: once, input or weight")
        seen.add(parameter)
    rest = [parameter for parameter in own if parameter not in seen]
    if rest and inputs is not None and weights is not None:
        raise ValueError(f"from_qiskit: got parameter {rest[0].name} as neither; allowed: each an input or a weight")
    kinds["input" if weights is not None else "weight"] += rest
    return kinds


def _named(field: str, given: Any, by_name: Mapping[str, Any]) -> Iterator[Any]:
    """Yield parameters; those of a vector need not occur in the circuit, their slots are then without use."""
    from qiskit.circuit import Parameter, ParameterVectorElement

    if isinstance(given, Parameter | str):
        name = given if isinstance(given, str) else given.name
        unused = isinstance(given, ParameterVectorElement) and name not in by_name
        if not unused and (name not in by_name or (by_name[name] != given and given is not name)):
            raise ValueError(f"from_qiskit: {field} got {name}; allowed: the circuit's own parameters, or their names")
        yield given if unused else by_name[name]
    elif isinstance(given, Iterable):
        for part in given:
            yield from _named(field, part, by_name)
    elif given is not None:
        allowed = "a Parameter, a ParameterVector, a name, or a sequence of these"
        raise ValueError(f"from_qiskit: {field} got {repr(given)[:100]}; allowed: {allowed}")


def _gates(
    circuit: Any, qubits: Sequence[int], slots: Mapping[Any, Angle], measured: set[int], within: str = ""
) -> Iterator[Gate]:
    """Yield the gates of a circuit, or of a gate's definition, and its global phase.

    Args:
        circuit: Qiskit's; its i-th qubit is qubits[i].
        qubits: numbers of the qubits in the outermost circuit.
        slots: the slot of each parameter.
        measured: the qubits whose measurement has come; added to.
        within: the gates whose definition this is, for messages.
    """
    from qiskit.circuit import Barrier, ControlFlowOp, Delay, Measure
    from qiskit.circuit.library import IGate

    numbers = dict(zip(circuit.qubits, qubits, strict=True))
    for instruction in circuit.data:
        operation, targets = instruction.operation, [numbers[bit] for bit in instruction.qubits]
        base, name = getattr(operation, "base_class", type(operation)), f"{within}{instruction.operation.name}"
        if base is Measure:
            measured.update(targets)
        if base in (Measure, Barrier, Delay, IGate):
            continue
        if not measured.isdisjoint(targets):
            qubit = min(measured.intersection(targets))
            raise ValueError(f"from_qiskit: got {name} on qubit {qubit} after measure; allowed: measure at the end")
        gates = _known(operation, base, targets, slots)
        definition = None if isinstance(operation, ControlFlowOp) else getattr(operation, "definition", None)
        if gates is not None:
            yield from gates
        elif definition is not None:
            yield from _gates(definition, targets, slots, measured, f"{name} > ")
        else:
            allowed = "gates with a definition, barriers, and measure at the end"
            raise ValueError(f"from_qiskit: got {name} on qubits {targets}; allowed: {allowed}")
    yield from phase(_angle("global phase", circuit.global_phase, slots))


def _known(operation: Any, base: type, qubits: list[int], slots: Mapping[Any, Angle]) -> Gates | None:
    """Return the gates of an operation that needs no definition; None for any other."""
    from qiskit.circuit.library import PauliEvolutionGate, PauliProductRotationGate
    from qiskit.quantum_info import SparsePauliOp

    if _standard_gates().get(operation.name) is base and operation.name in _FUNCTIONS:
        angles = [_angle(f"{operation.name} on qubits {qubits}", value, slots) for value in operation.params]
        return _FUNCTIONS[operation.name](*angles, *qubits)
    if base is PauliProductRotationGate:
        # Qiskit's labels begin with the last qubit.
        angle = _angle(f"rotation on qubits {qubits}", operation.params[0], slots)
        return known.pauli_rotation(operation.pauli().to_label()[::-1], angle, qubits)
    if base is PauliEvolutionGate and isinstance(operation.operator, SparsePauliOp) and len(operation.operator) == 1:
        coefficient = operation.operator.coeffs[0]
        if isinstance(coefficient, complex) and not coefficient.imag:  # numpy's complex128 is one
            label = operation.operator.paulis[0].to_label()[::-1]
            time = _angle(f"evolution on qubits {qubits}", operation.time, slots)
            return known.pauli_rotation(label, time * (2 * coefficient.real), qubits)
    return None


@cache
def _standard_gates() -> dict[str, type]:
    from qiskit.circuit.library import get_standard_gate_name_mapping

    return {name: gate.base_class for name, gate in get_standard_gate_name_mapping().items()}


def _angle(field: str, value: Any, slots: Mapping[Any, Angle]) -> Angle:
    """Return a number or an expression as an angle; refuse what is not affine with real coefficients."""
    from qiskit.circuit import ParameterExpression
    from qiskit.exceptions import QiskitError

    if not isinstance(value, ParameterExpression):
        return _as_angle(f"from_qiskit: {field}", value)
    if value in slots:  # a parameter itself
        return slots[value]
    parameters = sorted(value.parameters, key=lambda parameter: parameter.name)
    try:
        # A gradient is a number where the expression is affine, for all that Qiskit simplifies; the probe makes sure.
        factors = [_real(value.gradient(parameter)) for parameter in parameters]
        offset = _real(value.bind(dict.fromkeys(parameters, 0.0)))
        point = [0.7 + 0.37 * index for index in range(len(parameters))]
        there = _real(value.bind(dict(zip(parameters, point, strict=True))))
        parts = [factor * number for factor, number in zip(factors, point, strict=True)]
        affine = math.isclose(there, offset + sum(parts), rel_tol=1e-9, abs_tol=1e-9 * sum(map(abs, parts)))
    except (ArithmeticError, RuntimeError, TypeError, ValueError, QiskitError):
        affine = False
    if not affine:
        allowed = "an angle that is affine in the parameters, with real coefficients"
        raise ValueError(f"from_qiskit: {field} got {str(value)[:100]}; allowed: {allowed}")
    terms = [term for p, factor in zip(parameters, factors, strict=True) for term in (slots[p] * factor).terms]
    return Angle(offset, tuple(terms))


def _real(value: Any) -> float:
    """Return the number that an expression without parameters is; TypeError where it has some, or is complex."""
    number = value.numeric() if hasattr(value, "numeric") else value
    if isinstance(number, complex) and not number.imag:
        number = number.real
    return float(number)
