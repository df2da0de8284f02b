"""Run a program in torch: on any device, where no kernel is, and as the kernel's obvious twin.

States are complex tensors (b, 2**n). The gradient is that of the adjoint method (Jones and Gacon, arXiv 2009.02823):
gates are undone on the way back, so no state between them is stored.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from qsgd_ray.circuits.programs.frame import PauliString, _parities
from qsgd_ray.circuits.programs.program import Program


def execute(
    program: Program, values_bs: Tensor, cotangent: Tensor | None, want_answer: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Run a program; as `_native.execute`, on any device."""
    return _Simulation(program, values_bs).run(cotangent, want_answer)


class _Simulation:
    def __init__(self, program: Program, values_bs: Tensor) -> None:
        self.program, self.values = program, values_bs
        self.dtype = torch.complex128 if values_bs.dtype == torch.float64 else torch.complex64
        half_br = 0.5 * (values_bs.double() @ factors(program, values_bs.device).T)
        offsets_r = torch.tensor([rotation.offset / 2 for rotation in program.rotations], dtype=torch.float64)
        # An offset is added to what is left of large angles less their turns.
        turns_br = torch.polar(torch.ones_like(half_br), half_br) * torch.polar(
            torch.ones_like(offsets_r), offsets_r
        ).to(half_br.device)
        self.cos_br, self.sin_br = turns_br.real.to(self.dtype), turns_br.imag.to(self.dtype)

    def run(self, cotangent: Tensor | None, want_answer: bool) -> tuple[Tensor | None, Tensor | None]:
        program, reading = self.program, self.program.reading
        order = [index for qubit in program.opening for index in qubit]
        order += [index for _, group in program.groups for index in group]
        state = torch.zeros((len(self.values), 1 << program.n_qubits), dtype=self.dtype, device=self.values.device)
        state[:, 0] = 1
        for index in order:
            state = self._turned(state, index, 1)
        source = torch.from_numpy(program.source).long().to(state.device)
        powers = torch.from_numpy(1j**program.powers).to(state.device, self.dtype)
        read = state[:, source]
        answer = None
        if reading.kind == "strings":
            applied = [self._applied(output, state) for output in reading.outputs] if reading.outputs else []
            if want_answer:
                answer = torch.stack([(state.conj() * x).sum(1).real for x in applied], 1)
        elif want_answer:
            answer = read.abs().square() if reading.kind == "probabilities" else read * powers
        if cotangent is None:
            return answer, None
        adjoint = torch.zeros_like(state)
        if reading.kind == "strings":
            for number, x in enumerate(applied):
                adjoint += 2 * cotangent[:, number, None] * x
        else:
            adjoint[:, source] = 2 * cotangent * read if reading.kind == "probabilities" else cotangent * powers.conj()
        slope_br = torch.zeros_like(self.cos_br.real)
        for index in reversed(order):
            derivative = -0.5j * _acted(state, program.rotations[index].string)
            slope_br[:, index] = (adjoint.conj() * derivative).sum(1).real
            state, adjoint = self._turned(state, index, -1), self._turned(adjoint, index, -1)
        matrix = factors(program, slope_br.device)
        return answer, (slope_br.double() @ matrix).to(self.values.dtype)

    def _turned(self, state: Tensor, index: int, direction: int) -> Tensor:
        cos, sin = self.cos_br[:, index, None], self.sin_br[:, index, None]
        return cos * state - 1j * direction * sin * _acted(state, self.program.rotations[index].string)

    def _applied(self, output: tuple[tuple[float, PauliString], ...], state: Tensor) -> Tensor:
        total = torch.zeros_like(state)
        for weight, string in output:
            total = total + weight * _acted(state, string)
        return total


def factors(program: Program, device: torch.device) -> Tensor:
    """Return what each slot contributes to each rotation's angle, float64 (rotations, s)."""
    matrix = np.zeros((len(program.rotations), program.n_slots))
    for index, rotation in enumerate(program.rotations):
        for slot, factor in rotation.terms:
            matrix[index, slot] += factor
    return torch.from_numpy(matrix).to(device)


def _acted(state: Tensor, string: PauliString) -> Tensor:
    """Return a Pauli string times states, (b, 2**n)."""
    source, phases = _string_action(string, state.shape[1].bit_length() - 1, state.dtype, state.device)
    return state[:, source] * phases


@lru_cache(maxsize=256)
def _string_action(
    string: PauliString, n_qubits: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the amplitude that each comes from, and its factor: (P psi)_k = i^power (-1)^(j.z) psi_j, j = k ^ x."""
    k = np.arange(1 << n_qubits)
    signs = 1.0 - 2.0 * _parities(string.z, n_qubits)[k ^ string.x]
    with torch.inference_mode(False):
        return torch.from_numpy(k ^ string.x).to(device), torch.from_numpy(signs * 1j**string.power).to(device, dtype)
