"""Circuits made ready for Aer: a placed circuit and its noise in; runs of it, whose answers wait to be collected, out.

What is quick (Aer 0.18.2, one core, 2026-11-22): one parametrised circuit bound at run time (half of what binding
beforehand takes at 4 qubits); all probabilities, from which <Z_i> follow in torch (20 to 25 % less than n times
save_expectation_value from 8 qubits on); gate fusion as Aer sets it, but for density matrices of 6 and 7 qubits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qsgd_ray.circuits.aer_import import import_aer
from qsgd_ray.circuits.errors import CircuitError
from qsgd_ray.circuits.kinds import Readout
from qsgd_ray.circuits.noise import DeviceNoise, Noise, Placed, confusions, model_on
from qsgd_ray.circuits.shots import generator
from qsgd_ray.circuits.spec import CircuitSpec

# Of each circuit: the numbers that are asked for; the probabilities of all basis states; how often each was measured.
Saves = Literal["answer", "weights", "counts"]
# Batched and alone, Aer gave the same bits; another order of the same sums would stay far below this.
AGREE = 1e-9

log = logging.getLogger(__name__)


@dataclass
class Program:
    """A circuit made ready for Aer. `columns`: which of the flattened angles each of its parameters takes."""

    circuit: Any
    columns: list[tuple[Any, int]]
    saves: Saves
    labels: list[str]
    confusions: dict[int, NDArray[np.float64]]
    options: dict[str, Any]
    # None: not compared yet with the same circuit alone. False: they differed, so angles are bound beforehand.
    batches: bool | None = None
    simulators: dict[bool, Any] = field(default_factory=dict)

    def run(self, flat_bp: NDArray[np.float64], *, at_run_time: bool, **more: Any) -> Any:
        """Start it: an Aer job. CircuitError: Aer has no such device here."""
        if at_run_time not in self.simulators:
            self.simulators[at_run_time] = _simulator(**self.options, runtime_parameter_bind_enable=at_run_time)
        values = {parameter: flat_bp[:, column].tolist() for parameter, column in self.columns}
        return self.simulators[at_run_time].run(self.circuit, parameter_binds=[values], **more)

    def collect(self, job: Any, batch: int) -> Tensor:
        """What a job saved: (batch, numbers). CircuitError: it failed."""
        result = _result(job)
        saved = [[result.data(index)[label] for label in self.labels] for index in range(batch)]
        return torch.from_numpy(np.asarray(saved, dtype=np.float64).reshape(batch, -1))

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

    CircuitError: Aer is not there; saves "weights" and the noise misreads otherwise than qubit by qubit.
    """
    import_aer()  # which teaches circuits to save
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
    return Program(
        circuit=circuit,
        columns=parameter_columns(spec, circuit),
        saves=saves,
        labels=labels,
        confusions=confusions(model, placed.qubits) if saves == "weights" else {},
        # Aer's own decomposition has left errors of 5e-11 on rings of 5 qubits where LAPACK leaves 1e-15.
        options=options | {"noise_model": model, "mps_lapack": True},
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

    def _start(self, index: int) -> tuple[Any, bool]:
        """A job, and whether its angles are bound at run time."""
        at_run_time = self._program.batches is not False
        return self._program.run(self._flat_bp[self._chunks[index]], at_run_time=at_run_time), at_run_time

    def _saved(self, index: int) -> Tensor:
        rows = self._flat_bp[self._chunks[index]]
        job, at_run_time = self._jobs.pop(index) if index in self._jobs else self._start(index)
        saved = self._program.collect(job, len(rows))
        # Binding at run time has lost noise (qiskit-aer issue 2207: not so with 0.18.2, whose answers are the same bits
        # either way). So each circuit's first batch is compared with its last row, bound beforehand and run alone.
        if self._program.batches is None and len(rows) > 1:
            alone = self._program.collect(self._program.run(rows[-1:], at_run_time=False), 1)
            self._program.batches = torch.allclose(saved[-1:], alone, rtol=0, atol=AGREE)
            if not self._program.batches:
                log.warning("Aer answers a batch otherwise than one circuit; angles are bound beforehand from now on")
        # Also where another batch was found to differ while this one was under way.
        if at_run_time and self._program.batches is False:
            return self._program.collect(self._program.run(rows, at_run_time=False), len(rows))
        return saved


class Trajectories:
    """Shots of noisy statevectors, or of a matrix-product state: a run a circuit, since Aer has one seed a run.

    (`seed`, a circuit's key, `stream`) names its draws as in shots.py.
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
        seeds = [int(generator(seed, key, stream).integers(2**62)) for key in keys.tolist()]
        self._jobs = [
            program.run(row[None], at_run_time=False, shots=shots, seed_simulator=own)
            for row, own in zip(flat_bp, seeds, strict=True)
        ]

    def result(self) -> Tensor:
        if self._answer is None:
            answer = [self._mean(_result(job).data(0)["counts"]) for job in self._jobs]
            width = self._spec.answer_width(self._readout)
            self._answer = torch.tensor(answer, dtype=torch.float64).reshape(len(answer), width)
            self._jobs = []
        return self._answer

    def _mean(self, counts: dict[str, int]) -> list[float]:
        """Of outcomes such as {"0x2": 17}: there may be more qubits than an integer of numpy has bits."""
        n = self._spec.n_qubits
        outcomes = {int(outcome, 16): count for outcome, count in counts.items()}
        if self._readout == "probability":
            return [sum(count for outcome, count in outcomes.items() if outcome < n) / self._shots]
        ones = [sum(count for outcome, count in outcomes.items() if outcome >> qubit & 1) for qubit in range(n)]
        return [(self._shots - 2 * one) / self._shots for one in ones]


def parameter_columns(spec: CircuitSpec, circuit: Any) -> list[tuple[Any, int]]:
    """Each parameter of a twin of `spec`, in the circuit's order, and the flattened angle (depth, qubit, rotation)."""
    columns = []
    for parameter in circuit.parameters:
        level, qubit = map(int, parameter.name[2:-1].split(","))  # a[level,qubit], b[level,qubit]: spec.to_qiskit
        rotation = ord(parameter.name[0]) - ord("a")
        columns.append((parameter, (level * spec.n_qubits + qubit) * len(spec.rotations) + rotation))
    return columns


def _simulator(**options: Any) -> Any:
    from qiskit_aer import AerSimulator

    devices = _devices()
    if options["device"] not in devices:
        raise CircuitError(f"backend aer: got device {options['device']!r}; allowed here: {', '.join(devices)}")
    return AerSimulator(**options)


@cache
def _devices() -> tuple[str, ...]:
    from qiskit_aer import AerSimulator

    return tuple(AerSimulator().available_devices())


def _result(job: Any) -> Any:
    """CircuitError in one line unless the job's circuits were all answered."""
    try:
        result = job.result()
    except Exception as error:
        told = str(error).strip().splitlines()
        raise CircuitError(f"backend aer: {type(error).__name__}: {told[0] if told else ''}") from error
    if not result.success:
        why = next((one.status for one in result.results if not one.success), result.status)
        raise CircuitError(f"backend aer: {' '.join(str(why).split())}")
    return result
