"""Circuits made ready for Aer: a placed circuit and its noise in; a program that runs batches of angles out.

Measured choices (Aer 0.18.2, one core, 2026-11-22): one parametrised circuit, bound at run time, takes half of the time
of binding beforehand at 4 qubits; circuits of few qubits are kept as Aer's C++ takes them (_assembled.py). All
probabilities are saved, from which <Z_i> follow in torch: 20 to 25 % less time than n times save_expectation_value from
8 qubits on. Gates are fused as Aer sets it, except for density matrices of 6 and 7 qubits (backend.py).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qsgd_ray.circuits.aer._assembled import AssembledCircuit, assemble
from qsgd_ray.circuits.aer._placement import Placed, confusion_matrices, model_on
from qsgd_ray.circuits.aer.executor import import_aer
from qsgd_ray.circuits.aer.noise import DeviceNoise, Noise
from qsgd_ray.circuits.errors import CircuitError
from qsgd_ray.circuits.spec import CircuitSpec, parameter_columns
from qsgd_ray.config.circuit import Readout
from qsgd_ray.config.errors import one_line

# What Aer saves of each circuit: the wanted numbers, the probabilities of all basis states, or counts of outcomes.
Saves = Literal["answer", "weights", "counts"]
# How angles enter a run: into the assembled circuit (_assembled.py), or by AerSimulator.run in one of its two ways.
Binding = Literal["assembled", "bound at run time", "bound beforehand"]
# Circuits are kept assembled up to so many qubits of a state (a density matrix of n counts 2 n): beyond, the simulation
# takes many times as long as what that saves.
_ASSEMBLED_UP_TO = 14

_log = logging.getLogger(__name__)


class Job(Protocol):
    """A run of Aer's, under way or done."""

    def result(self) -> Any:
        """Wait for the run and return Aer's result."""
        ...


@dataclass
class Program:
    """A circuit made ready for Aer.

    Binding at run time has lost noise (qiskit-aer issue 2207; with 0.18.2 the bits are the same either way). So the
    first answers are compared with those of a circuit whose angles were bound beforehand, and where they differ the
    next binding is used.

    Attributes:
        circuit: the Qiskit circuit with its saving instructions.
        columns: each parameter, and the column of the flattened angles that it takes.
        saves: what each circuit saves.
        labels: the labels of the saved data, in the order of the answer.
        confusion_matrices: of each misread qubit, where exact probabilities must be misread afterwards.
        options: of the AerSimulator.
        assembled: the circuit as Aer's C++ takes it, or None.
        bindings: those still trusted, the quickest first.
        verified: True once answers have been compared.
    """

    circuit: Any
    columns: list[tuple[Any, int]]
    saves: Saves
    labels: list[str]
    confusion_matrices: dict[int, NDArray[np.float64]]
    options: dict[str, Any]
    assembled: AssembledCircuit | None
    bindings: list[Binding]
    verified: bool = False
    _simulators: dict[Binding, Any] = field(default_factory=dict)

    def run(self, flat_bp: NDArray[np.float64], binding: Binding, **options: Any) -> Job:
        """Start a circuit for each row of angles. `options`: `shots` and `seed_simulator`, of counts."""
        if binding == "assembled":
            assert self.assembled is not None
            return self.assembled.start(flat_bp, **options)
        if binding not in self._simulators:
            from qiskit_aer import AerSimulator

            at_run_time = binding == "bound at run time"
            self._simulators[binding] = AerSimulator(**self.options, runtime_parameter_bind_enable=at_run_time)
        values = {parameter: flat_bp[:, column].tolist() for parameter, column in self.columns}
        job: Job = self._simulators[binding].run(self.circuit, parameter_binds=[values], **options)
        return job

    def collect(self, job: Job, batch: int) -> Tensor:
        """Return the numbers that a job saved: (batch, numbers). CircuitError: it failed."""
        saved = [[data[label] for label in self.labels] for data in _saved_data(job)]
        return torch.from_numpy(np.asarray(saved, dtype=np.float64).reshape(batch, -1))

    def counts(self, job: Job) -> dict[str, int]:
        """Return the counts of one circuit's outcomes, such as {"0x2": 17}. CircuitError: the job failed."""
        (data,) = _saved_data(job)
        counts: dict[str, int] = data["counts"]
        return counts

    def reject(self, binding: Binding) -> None:
        """Stop using a binding whose answers differed."""
        if binding in self.bindings:
            self.bindings.remove(binding)
            _log.warning(
                "Aer answers a batch %s otherwise than one circuit alone; angles are %s from now on",
                binding,
                self.bindings[0],
            )

    def apply_readout_errors(self, weights_bs: Tensor) -> Tensor:
        """Return the probabilities of what is read, from those of what is there."""
        for qubit, ((p00, p01), (p10, p11)) in self.confusion_matrices.items():
            zero, one = weights_bs.view(len(weights_bs), -1, 2, 1 << qubit).unbind(2)
            read = (zero * p00 + one * p10, zero * p01 + one * p11)
            weights_bs = torch.stack(read, 2).reshape(weights_bs.shape)
        return weights_bs


def compile_program(
    spec: CircuitSpec,
    readout: Readout,
    placed: Placed,
    noise: Noise | DeviceNoise | None,
    saves: Saves,
    options: dict[str, Any],
) -> Program:
    """Append what the circuit saves, and prepare its noise and bindings. `options`: of the AerSimulator, but for noise.

    CircuitError: Aer is not installed or has no such device; or saves is "weights", and the noise misreads otherwise
    than qubit by qubit.
    """
    import_aer()  # importing it teaches circuits to save
    _check_device(options["device"])
    from qiskit import ClassicalRegister
    from qiskit.quantum_info import Pauli

    model = None if noise is None else model_on(placed, noise)
    circuit, qubits, labels = placed.circuit.copy(), list(placed.qubits), ["s0"]
    if saves == "weights":
        circuit.save_probabilities(qubits, label="s0")
    elif saves == "counts":
        circuit.add_register(ClassicalRegister(spec.n_qubits))
        circuit.measure(qubits, range(spec.n_qubits))
    elif readout == "z":
        labels = [f"s{qubit}" for qubit in qubits]
        for qubit, label in zip(qubits, labels, strict=True):
            circuit.save_expectation_value(Pauli("Z"), [qubit], label=label)
    else:
        circuit.save_amplitudes_squared(range(spec.n_qubits), label="s0")
    # Aer's own decomposition has left errors of 5e-11 on rings of 5 qubits where LAPACK leaves 1e-15.
    options = options | {"noise_model": model, "mps_lapack": True}
    columns = parameter_columns(spec, circuit)
    width = len(placed.used) * (2 if options["method"] == "density_matrix" else 1)
    assembled = assemble(circuit, columns, options) if width <= _ASSEMBLED_UP_TO else None
    # Bound at run time, each circuit of a batch would take its seed from the batch's.
    slower: list[Binding] = ["bound beforehand"] if saves == "counts" else ["bound at run time", "bound beforehand"]
    return Program(
        circuit=circuit,
        columns=columns,
        saves=saves,
        labels=labels,
        confusion_matrices=confusion_matrices(model, placed.qubits) if saves == "weights" else {},
        options=options,
        assembled=assembled,
        bindings=slower if assembled is None else ["assembled", *slower],
    )


def _check_device(device: str) -> None:
    if device not in (devices := _devices()):
        raise CircuitError(f"backend aer: got device {device!r}; allowed here: {', '.join(devices)}")


@cache
def _devices() -> tuple[str, ...]:
    from qiskit_aer import AerSimulator

    return tuple(AerSimulator().available_devices())


def _saved_data(job: Job) -> list[dict[str, Any]]:
    """Return the data that each circuit of a job saved, by label. CircuitError in one line unless all succeeded."""
    try:
        result = job.result()
    except Exception as error:
        raise CircuitError(f"backend aer: {type(error).__name__}: {one_line(str(error), part='first')}") from error
    # AerSimulator.run returns an object, Aer's C++ a dictionary of the same names.
    output = result if isinstance(result, dict) else result.to_dict()
    if not output["success"]:
        status = next((each["status"] for each in output["results"] if not each["success"]), output["status"])
        raise CircuitError(f"backend aer: {one_line(status)}")
    return [each["data"] for each in output["results"]]
