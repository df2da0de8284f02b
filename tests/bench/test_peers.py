"""Every peer simulates the circuits that qsgd-ray does: the same states, qubit 0 least significant."""

import warnings
from importlib.util import find_spec
from typing import get_args

import numpy as np
import pytest
import torch

from qsgd_ray.bench import _peers as peers
from qsgd_ray.bench.circuits import _some_angles
from qsgd_ray.circuits.chain import expectations as chain
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector.simulate import statevector
from qsgd_ray.config.circuit import Entangle

MAKERS = {
    "qiskit": peers.qiskit_statevector,
    "qiskit_aer": peers.aer_runtime_binding,
    "pennylane": peers.pennylane_batched,
    "qulacs": peers.qulacs_loop,
}
SPECS = [
    *(CircuitSpec(4, 2, entangle) for entangle in get_args(Entangle)),
    *(CircuitSpec(3, 1, "ring", rotations) for rotations in (("rx",), ("rz", "rx", "ry"), ("ry", "ry"))),
    CircuitSpec(2, 3, "ring"),
    CircuitSpec(1, 1, "chain", ("rz", "rx")),
]


def peer(package):
    """The maker of this peer; the test is skipped where the package is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a package warns of when it is imported is its own affair
        pytest.importorskip(package)
    return MAKERS[package]


@pytest.mark.parametrize("package", MAKERS)
@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_peer_gives_the_same_states(package, spec, batch):
    angles = 4 * _some_angles(spec, batch)
    states = peer(package)(spec, angles)()
    assert states.shape == (batch, 2**spec.n_qubits)
    assert states.dtype == np.complex128
    assert np.abs(states - statevector(spec, angles).numpy()).max() < 1e-10


@pytest.mark.parametrize("package", MAKERS)
def test_a_call_can_be_repeated_and_gives_the_same_again(package):
    spec = CircuitSpec(3)
    call = peer(package)(spec, _some_angles(spec, 2))
    assert np.abs(call() - call()).max() < 1e-14


@pytest.mark.parametrize("spec", [CircuitSpec(12), CircuitSpec(5, 3, "chain", ("rx", "rz")), CircuitSpec(1)], ids=str)
def test_aers_matrix_product_state_gives_the_same_expectations(spec):
    pytest.importorskip("qiskit_aer")
    angles = _some_angles(spec, 3)
    found = peers.aer_matrix_product_state(spec, angles)()
    assert found.shape == (3, spec.n_qubits)
    assert np.abs(found - chain.expectations(spec, angles).numpy()).max() < 1e-10


def test_the_values_of_a_parameter_run_along_the_batch():
    spec = CircuitSpec(2, 2, rotations=("ry", "rz", "rx"))
    angles = _some_angles(spec, 3)
    values = {parameter.name: found for parameter, found in peers.parameter_values(spec.to_qiskit(), angles).items()}
    assert len(values) == 2 * 2 * 3
    assert values["b[1,0]"] == angles[:, 1, 0, 1].tolist()
    assert values["c[0,1]"] == angles[:, 0, 1, 2].tolist()


def test_peers_are_compared_without_a_gradient_and_leave_the_angles_alone():
    spec = CircuitSpec(3)
    angles = _some_angles(spec, 2)
    before = angles.clone()
    with torch.inference_mode():
        for package in MAKERS:
            if find_spec(package) is not None:
                MAKERS[package](spec, angles)()
    assert torch.equal(angles, before)
