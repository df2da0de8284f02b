"""Circuits made ready for Aer: a placed circuit and its noise in; runs of it, whose answers wait to be collected, out.

What is quick (Aer 0.18.2, one core, 2026-11-22): one parametrised circuit bound at run time (half of what binding
beforehand takes at 4 qubits), and of few qubits kept as Aer's C++ takes it (_assembled.py); all probabilities, from
which <Z_i> follow in torch (20 to 25 % less than n times save_expectation_value from 8 qubits on); gate fusion as Aer
sets it, but for density matrices of 6 and 7 qubits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qsgd_ray.circuits.aer._assembled import Assembled, assembled
from qsgd_ray.circuits.aer.executor import import_aer
from qsgd_ray.circuits.aer.noise import DeviceNoise, Noise, Placed, confusions, model_on
from qsgd_ray.circuits.backends.shots import generator
from qsgd_ray.circuits.errors import CircuitError
from qsgd_ray.circuits.spec import CircuitSpec, parameter_columns
from qsgd_ray.config.circuit import Readout
from qsgd_ray.config.errors import one_line

# Of each circuit: the numbers that are asked for; the probabilities of all basis states; how often each was measured.
Saves = Literal["answer", "weights", "counts"]
# How a run comes by its angles: the circuit is kept as Aer's C++ takes it (_assembled.py), or AerSimulator.run binds
# them.
Way = Literal["assembled", "bound at run time", "bound beforehand"]
# Batched and alone, Aer gave the same bits; another order of the same sums would stay far below this.
AGREE = 1e-9
# Up to so many qubits of a state (a density matrix of n has 2 n) a circuit is kept assembled: beyond, the simulation
# takes many times as long as what that saves.
ASSEMBLED_UP_TO = 14

log = logging.getLogger(__name__)


class Job(Protocol):
    """A run of Aer's, under way or done."""

    def result(self) -> Any:
        """What Aer says of it."""
        ...


@dataclass
class Program:
    """A circuit made ready for Aer. `columns`: which of the flattened angles each of its parameters takes.

    `ways`: those still trusted, the quickest first. Binding at run time has lost noise (qiskit-aer issue 2207: not so
    with 0.18.2, whose answers are the same bits either way). So the first answers are compared with those of a circuit
    whose angles were bound beforehand (`tried`), and where they differ the next way is taken.
    """

    circuit: Any
    columns: list[tuple[Any, int]]
    saves: Saves
    labels: list[str]
    confusions: dict[int, NDArray[np.float64]]
    options: dict[str, Any]
    assembled: Assembled | None
    ways: list[Way]
    tried: bool = False
    simulators: dict[Way, Any] = field(default_factory=dict)

    def run(self, flat_bp: NDArray[np.float64], way: Way, **more: Any) -> Job:
        """Start it."""
        if way == "assembled":
            assert self.assembled is not None
            return self.assembled.start(flat_bp, **more)
        if way not in self.simulators:
            from qiskit_aer import AerSimulator

            at_run_time = way == "bound at run time"
            self.simulators[way] = AerSimulator(**self.options, runtime_parameter_bind_enable=at_run_time)
        values = {parameter: flat_bp[:, column].tolist() for parameter, column in self.columns}
        job: Job = self.simulators[way].run(self.circuit, parameter_binds=[values], **more)
        return job

    def collect(self, job: Job, batch: int) -> Tensor:
        """What a job saved: (batch, numbers). CircuitError: it failed."""
        saved = [[data[label] for label in self.labels] for data in _saved(job)]
        return torch.from_numpy(np.asarray(saved, dtype=np.float64).reshape(batch, -1))

    def counts(self, job: Job) -> dict[str, int]:
        """How often each outcome, such as "0x2", was measured of one circuit. CircuitError: it failed."""
        (data,) = _saved(job)
        found: dict[str, int] = data["counts"]
        return found

    def distrust(self, way: Way) -> None:
        """Its answers differed."""
        if way in self.ways:
            self.ways.remove(way)
            log.warning(
                "Aer answers a batch %s otherwise than one circuit alone; angles are %s from now on", way, self.ways[0]
            )

    def misread(self, weights_bs: Tensor) -> Tensor:
        """What is read where these are the probabilities of what is there."""
        for qubit, ((p00, p01), (p10, p11)) in self.confusions.items():
            zero, one = weights_bs.view(len(weights_bs), -1, 2, 1 << qubit).unbind(2)
            read = (zero * p00 + one * p10, zero * p01 + one * p11)
            weights_bs = torch.stack(read, 2).reshape(weights_bs.shape)
        return weights_bs


def compiled(
    spec: CircuitSpec,
    readout: Readout,
    placed: Placed,
    noise: Noise | DeviceNoise | None,
    saves: Saves,
    options: dict[str, Any],
) -> Program:
    """The circuit with what it saves at its end. `options`: of the AerSimulator, besides its noise.

    CircuitError: Aer is not there, or has no such device; saves "weights", and the noise misreads otherwise than qubit
    by qubit.
    """
    import_aer()  # which teaches circuits to save
    _refuse_missing(options["device"])
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
    kept = assembled(circuit, columns, options) if width <= ASSEMBLED_UP_TO else None
    # Bound at run time, each circuit of a batch would take its seed from the batch's.
    slower: list[Way] = ["bound beforehand"] if saves == "counts" else ["bound at run time", "bound beforehand"]
    return Program(
        circuit=circuit,
        columns=columns,
        saves=saves,
        labels=labels,
        confusions=confusions(model, placed.qubits) if saves == "weights" else {},
        options=options,
        assembled=kept,
        ways=slower if kept is None else ["assembled", *slower],
    )


class Runs:
    """Exact runs under way: the first chunk of the batch in Aer's thread, the others as they are collected.

    `width`: how many numbers a circuit answers. `read`: what a chunk saved, and which chunk, to its answers.
    """

    def __init__(
        self,
        program: Program,
        flat_bp: NDArray[np.float64],
        chunks: list[slice],
        width: int,
        read: Callable[[Tensor, slice], Tensor],
    ) -> None:
        self._program, self._flat_bp, self._chunks, self._width, self._read = program, flat_bp, chunks, width, read
        self._answer: Tensor | None = None
        self._jobs = {0: self._start(0)} if chunks else {}

    def result(self) -> Tensor:
        if self._answer is None:
            answer = torch.empty(len(self._flat_bp), self._width, dtype=torch.float64)
            for index, chunk in enumerate(self._chunks):
                answer[chunk] = self._read(self._saved(index), chunk)
            self._answer = answer
        return self._answer

    def _start(self, index: int) -> tuple[Job, Way]:
        way = self._program.ways[0]
        return self._program.run(self._flat_bp[self._chunks[index]], way), way

    def _saved(self, index: int) -> Tensor:
        program, rows = self._program, self._flat_bp[self._chunks[index]]
        job, way = self._jobs.pop(index) if index in self._jobs else self._start(index)
        saved = program.collect(job, len(rows))
        if not program.tried and (len(rows) > 1 or way == "assembled"):
            while way != "bound beforehand" and not self._agrees(way, rows[-1:], saved[-1:]):
                program.distrust(way)
                way = program.ways[0]
                saved = program.collect(program.run(rows, way), len(rows))
            program.tried = True
        # Also where another batch was found to differ while this one was under way.
        if way not in program.ways:
            return program.collect(program.run(rows, program.ways[0]), len(rows))
        return saved

    def _agrees(self, way: Way, row: NDArray[np.float64], saved: Tensor) -> bool:
        """Is it what one circuit answers alone, also at a second run of what the first has left?"""
        others: list[Way] = ["bound beforehand", "assembled"] if way == "assembled" else ["bound beforehand"]
        answers = [self._program.collect(self._program.run(row, other), 1) for other in others]
        return all(torch.allclose(saved, answer, rtol=0, atol=AGREE) for answer in answers)


class Trajectories:
    """Shots of noisy statevectors, or of a matrix-product state: a run a circuit, since Aer has one seed a run.

    (`seed`, a circuit's key, `stream`) names its draws as in circuits/backends/shots.py.
    """

    def __init__(
        self,
        program: Program,
        spec: CircuitSpec,
        readout: Readout,
        flat_bp: NDArray[np.float64],
        shots: int,
        seed: int,
        keys: NDArray[np.uint64],
        stream: int,
    ) -> None:
        self._spec, self._readout, self._shots = spec, readout, shots
        self._answer: Tensor | None = None
        # Aer takes seeds below 2**63.
        self._seeds = [int(generator(seed, key, stream).integers(2**62)) for key in keys.tolist()]
        self._rows = flat_bp
        self._program = program
        self._way = program.ways[0]
        self._jobs = [self._start(index) for index in range(len(flat_bp))]

    def result(self) -> Tensor:
        if self._answer is None:
            counts = [self._program.counts(job) for job in self._jobs]
            width = self._spec.answer_width(self._readout)
            if counts and not self._program.tried:
                if self._way != "bound beforehand" and counts[-1] != self._alone(len(counts) - 1):
                    self._program.distrust(self._way)
                self._program.tried = True
            if self._way not in self._program.ways:
                counts = [self._alone(index) for index in range(len(counts))]
            answer = [self._mean(one) for one in counts]
            self._answer = torch.tensor(answer, dtype=torch.float64).reshape(len(answer), width)
            self._jobs = []
        return self._answer

    def _start(self, index: int, way: Way | None = None) -> Job:
        row, own = self._rows[index : index + 1], self._seeds[index]
        return self._program.run(row, way or self._way, shots=self._shots, seed_simulator=own)

    def _alone(self, index: int) -> dict[str, int]:
        return self._program.counts(self._start(index, "bound beforehand"))

    def _mean(self, counts: dict[str, int]) -> list[float]:
        """Of outcomes such as {"0x2": 17}: there may be more qubits than an integer of numpy has bits."""
        n = self._spec.n_qubits
        outcomes = {int(outcome, 16): count for outcome, count in counts.items()}
        if self._readout == "probability":
            return [sum(count for outcome, count in outcomes.items() if outcome < n) / self._shots]
        ones = [sum(count for outcome, count in outcomes.items() if outcome >> qubit & 1) for qubit in range(n)]
        return [(self._shots - 2 * one) / self._shots for one in ones]


def _refuse_missing(device: str) -> None:
    if device not in (devices := _devices()):
        raise CircuitError(f"backend aer: got device {device!r}; allowed here: {', '.join(devices)}")


@cache
def _devices() -> tuple[str, ...]:
    from qiskit_aer import AerSimulator

    return tuple(AerSimulator().available_devices())


def _saved(job: Job) -> list[dict[str, Any]]:
    """What each circuit of a job saved, by label. CircuitError in one line unless all were answered."""
    try:
        result = job.result()
    except Exception as error:
        raise CircuitError(f"backend aer: {type(error).__name__}: {one_line(str(error), part='first')}") from error
    # AerSimulator.run tells it in an object, Aer's C++ in a dictionary of the same names.
    output = result if isinstance(result, dict) else result.to_dict()
    if not output["success"]:
        told = next((one["status"] for one in output["results"] if not one["success"]), output["status"])
        raise CircuitError(f"backend aer: {one_line(told)}")
    return [one["data"] for one in output["results"]]
