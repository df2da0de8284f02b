"""Runs of a program whose answers wait to be collected: exact ones of a batch, sampled ones of each circuit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qsgd_ray.circuits.aer._programs import Binding, Job, Program
from qsgd_ray.circuits.backends.shots import generator
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config.circuit import Readout

# In a batch and alone, Aer gave the same bits; another order of the same sums would stay far below this.
_TOLERANCE = 1e-9


class ExactRuns:
    """Exact runs: the first chunk of the batch is started at once, the others as they are collected.

    `width`: numbers in a circuit's answer. `read`: turns what a chunk saved, and the chunk, into its answers.
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

    def _start(self, index: int) -> tuple[Job, Binding]:
        binding = self._program.bindings[0]
        return self._program.run(self._flat_bp[self._chunks[index]], binding), binding

    def _saved(self, index: int) -> Tensor:
        program, rows = self._program, self._flat_bp[self._chunks[index]]
        job, binding = self._jobs.pop(index) if index in self._jobs else self._start(index)
        saved = program.collect(job, len(rows))
        if not program.verified and (len(rows) > 1 or binding == "assembled"):
            while binding != "bound beforehand" and not self._agrees(binding, rows[-1:], saved[-1:]):
                program.reject(binding)
                binding = program.bindings[0]
                saved = program.collect(program.run(rows, binding), len(rows))
            program.verified = True
        # Also where another batch was found to differ while this one was under way.
        if binding not in program.bindings:
            return program.collect(program.run(rows, program.bindings[0]), len(rows))
        return saved

    def _agrees(self, binding: Binding, row: NDArray[np.float64], saved: Tensor) -> bool:
        """Return True if one circuit alone gives the same answer, and an assembled one also at its second run."""
        others: list[Binding] = ["bound beforehand", "assembled"] if binding == "assembled" else ["bound beforehand"]
        answers = [self._program.collect(self._program.run(row, other), 1) for other in others]
        return all(torch.allclose(saved, answer, rtol=0, atol=_TOLERANCE) for answer in answers)


class Trajectories:
    """Shots of noisy statevectors, or of a matrix-product state: a run a circuit, since Aer has one seed a run.

    (`seed`, a circuit's key, `stream`) name its draws as in circuits/backends/shots.py.
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
        self._binding = program.bindings[0]
        self._jobs = [self._start(index, self._binding) for index in range(len(flat_bp))]

    def result(self) -> Tensor:
        if self._answer is None:
            counts = [self._program.counts(job) for job in self._jobs]
            width = self._spec.answer_width(self._readout)
            if counts and not self._program.verified:
                if self._binding != "bound beforehand" and counts[-1] != self._bound_beforehand(len(counts) - 1):
                    self._program.reject(self._binding)
                self._program.verified = True
            if self._binding not in self._program.bindings:
                counts = [self._bound_beforehand(index) for index in range(len(counts))]
            answer = [self._means(each) for each in counts]
            self._answer = torch.tensor(answer, dtype=torch.float64).reshape(len(answer), width)
            self._jobs = []
        return self._answer

    def _start(self, index: int, binding: Binding) -> Job:
        row = self._rows[index : index + 1]
        return self._program.run(row, binding, shots=self._shots, seed_simulator=self._seeds[index])

    def _bound_beforehand(self, index: int) -> dict[str, int]:
        return self._program.counts(self._start(index, "bound beforehand"))

    def _means(self, counts: dict[str, int]) -> list[float]:
        """Return a circuit's answer. Integers of Python: there may be more qubits than an integer of numpy has bits."""
        n = self._spec.n_qubits
        outcomes = {int(outcome, 16): count for outcome, count in counts.items()}
        if self._readout == "probability":
            return [sum(count for outcome, count in outcomes.items() if outcome < n) / self._shots]
        ones = [sum(count for outcome, count in outcomes.items() if outcome >> qubit & 1) for qubit in range(n)]
        return [(self._shots - 2 * one) / self._shots for one in ones]
