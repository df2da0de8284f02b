import io
import subprocess
import sys

import numpy as np
import pytest
from qiskit import qpy
from qiskit.quantum_info import Pauli
from support.circuits import angles_of

from qsgd_ray.circuits.chain.expectations import expectations
from qsgd_ray.circuits.spec import CircuitSpec


def aer_z(spec, angles, **options):
    aer = pytest.importorskip("qiskit_aer")
    circuit = spec.to_qiskit(angles)
    for qubit in range(spec.n_qubits):
        circuit.save_expectation_value(Pauli("Z"), [qubit], label=str(qubit))
    answer = aer.AerSimulator(max_parallel_threads=1, **options).run(circuit, shots=1).result()
    assert answer.success, answer.status
    return np.array([answer.data()[str(qubit)] for qubit in range(spec.n_qubits)])


@pytest.mark.parametrize(
    ("n_qubits", "depth", "entangle"),
    [(20, 3, "chain"), (21, 2, "chain"), (20, 3, "ring"), (21, 2, "ring"), (18, 3, "all")],
)
def test_circuits_of_about_twenty_qubits_are_those_of_aers_statevector(n_qubits, depth, entangle):
    spec = CircuitSpec(n_qubits, depth, entangle)
    angles = angles_of(spec, 1, n_qubits)
    exact = aer_z(spec, angles, method="statevector")
    assert np.abs(exact - expectations(spec, angles)[0].numpy()).max() < 1e-12


@pytest.mark.parametrize(
    ("n_qubits", "depth", "entangle"),
    [(40, 2, "chain"), (100, 2, "chain"), (28, 3, "chain"), (24, 4, "chain"), (30, 2, "ring"), (20, 2, "all")],
)
def test_circuits_beyond_a_statevector_are_those_of_aers_matrix_product_state(n_qubits, depth, entangle):
    # Aer's own SVD leaves errors of 1e-11 to 5e-10 at any truncation threshold.
    spec = CircuitSpec(n_qubits, depth, entangle)
    angles = angles_of(spec, 1, n_qubits)
    close = aer_z(spec, angles, method="matrix_product_state", matrix_product_state_truncation_threshold=0.0)
    assert np.abs(close - expectations(spec, angles)[0].numpy()).max() < 1e-8


# A Qiskit program in on stdin, <Z_i> of every qubit out on stdout.
AER_WITH_LAPACK = """
import io, sys
import numpy as np
from qiskit import qpy
from qiskit.quantum_info import Pauli
from qiskit_aer import AerSimulator

(circuit,) = qpy.load(io.BytesIO(sys.stdin.buffer.read()))
for qubit in range(circuit.num_qubits):
    circuit.save_expectation_value(Pauli("Z"), [qubit], label=str(qubit))
simulator = AerSimulator(
    method="matrix_product_state",
    matrix_product_state_truncation_threshold=0.0,
    mps_lapack=True,
    max_parallel_threads=1,
)
answer = simulator.run(circuit, shots=1).result()
if not answer.success:
    sys.exit(answer.status)
sys.stdout.buffer.write(np.array([answer.data()[str(qubit)] for qubit in range(circuit.num_qubits)]).tobytes())
"""


def aer_z_with_lapack(spec, angles, tries=5):
    # Exact to 1e-15, but some runs end with "Wrong SVD calculations" (qiskit-aer #2386) or crash the process.
    pytest.importorskip("qiskit_aer")
    program = io.BytesIO()
    qpy.dump(spec.to_qiskit(angles), program)
    for _ in range(tries):
        run = subprocess.run(
            [sys.executable, "-c", AER_WITH_LAPACK], input=program.getvalue(), capture_output=True, timeout=180
        )
        if run.returncode == 0:
            return np.frombuffer(run.stdout)
    pytest.fail(f"Aer failed {tries} times, last with code {run.returncode}: {run.stderr.decode()[-500:]}")


@pytest.mark.parametrize(("n_qubits", "entangle"), [(24, "chain"), (24, "ring"), (40, "chain"), (100, "chain")])
def test_circuits_beyond_a_statevector_are_exactly_those_of_aer_with_lapack(n_qubits, entangle):
    spec = CircuitSpec(n_qubits, 2, entangle)
    angles = angles_of(spec, 1, n_qubits)
    exact = aer_z_with_lapack(spec, angles)
    assert exact.shape == (n_qubits,)
    assert np.abs(exact - expectations(spec, angles)[0].numpy()).max() < 1e-12
