"""The circuits' kernel gives the same bits for every instruction set that a wheel is built for."""

import ctypes

import pytest
import torch
from support.any_circuits import N_INPUTS, N_WEIGHTS, random_circuit
from support.optimizers import NEEDS_COMPILER

from qsgd_ray.circuits.programs import _native
from qsgd_ray.circuits.statevector.simulate import expectations, statevector
from qsgd_ray.native import _build

SETS = [level for level in _build.levels() if level != "v4" or _build.level_here() == "v4"]


@NEEDS_COMPILER
@pytest.mark.slow
@pytest.mark.skipif(len(SETS) < 2, reason="this machine has one instruction set of those that are built")
def test_bits_are_the_same_for_every_instruction_set(tmp_path, monkeypatch):
    answers = []
    for level in SETS:
        binary = tmp_path / f"{level}.so"
        _build.compile_source(_build.source("program.cpp"), (), binary, _build.levels()[level])
        monkeypatch.setattr(_native, "_library", lambda binary=binary: ctypes.CDLL(str(binary)))
        found = []
        for n_qubits in (1, 4, 8, 9, 11, 17):
            for dtype in (torch.float32, torch.float64):
                circuit = random_circuit(n_qubits, n_qubits, 30)
                values = (
                    torch.randn(5, N_INPUTS + N_WEIGHTS, generator=torch.Generator().manual_seed(0)).to(dtype) * 100
                )
                leaf = values.clone().requires_grad_()
                z = expectations(circuit, leaf)
                found += [z.detach(), torch.autograd.grad(z.sum(), leaf)[0]]
                if n_qubits < 12:
                    found.append(statevector(circuit, values))
        answers.append(found)
    for others in answers[1:]:
        assert all(map(torch.equal, others, answers[0]))
