"""Circuits for the tests of Aer, and their answers by Qiskit's statevector."""

import numpy as np
import torch
from qiskit.quantum_info import Statevector

from qsgd_ray.circuits.aer.noise import Noise
from qsgd_ray.circuits.spec import CircuitSpec
from support.circuits import angles_of
from support.reference_circuits import z_values

SPEC = CircuitSpec(3)
METHODS = ["automatic", "statevector", "density_matrix", "matrix_product_state"]
READOUTS = ["z", "probability"]
EVERYTHING = Noise(depolarizing_1q=0.02, depolarizing_2q=0.07, p01=0.03, p10=0.08, t1_us=40, t2_us=55)


def angles(spec=SPEC, batch=5, seed=0):
    return angles_of(spec, batch, seed)


def exact(spec, angles_bdnr, readout="z"):
    states = [Statevector(spec.to_qiskit(one)).data for one in angles_bdnr]
    weights = [[(np.abs(psi[: spec.n_qubits]) ** 2).sum()] for psi in states]
    return torch.tensor(np.array([z_values(psi) for psi in states] if readout == "z" else weights))
