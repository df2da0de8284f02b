import io
import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit, qpy
from qiskit.quantum_info import Operator, Pauli, Statevector
from support import reference_circuits as reference
from support.circuits import angles_of, dtypes, rotation_tuples, seeds, specs
from support.peak_memory import PeakMemory

from qsgd_ray.circuits.chain._cnot_tables import AMPLITUDE, BLOCH, table_of
from qsgd_ray.circuits.chain.expectations import cost, expectations
from qsgd_ray.circuits.spec import CircuitSpec

ENTANGLE = ("chain", "ring", "all", "none")


def qiskit_state(spec, angles_dnr):
    return Statevector(spec.to_qiskit(angles_dnr)).data


def z_values(psi):
    n_qubits = len(psi).bit_length() - 1
    signs = 1 - 2 * (np.arange(len(psi))[:, None] >> np.arange(n_qubits) & 1)
    return np.abs(psi) ** 2 @ signs


def assert_qiskit_agrees(spec, seed, batch=1):
    angles = angles_of(spec, batch, seed)
    z = expectations(spec, angles).numpy()
    for one in range(batch):
        assert np.abs(z_values(qiskit_state(spec, angles[one])) - z[one]).max() < 1e-12


# The mathematics.


def test_the_carries_add_up_to_a_cnot():
    # Pauli components: entry (P, Q) of the CNOT's superoperator is tr(P CNOT Q CNOT) / 4. Qiskit puts qubit 1 first.
    cnot = np.array([[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0]])
    labels = [(control, target) for control in "IXYZ" for target in "IXYZ"]
    paulis = [Operator(Pauli(target + control)).data for control, target in labels]
    exact = [[np.trace(p @ cnot @ q @ cnot).real / 4 for q in paulis] for p in paulis]
    added = sum(np.kron(c, t) for c, t in zip(BLOCH.control, BLOCH.target, strict=True))
    assert np.array_equal(added, np.array(exact))
    real = sum(np.kron(c[:2, :2], t[:2, :2]) for c, t in zip(AMPLITUDE.control, AMPLITUDE.target, strict=True))
    assert np.array_equal(real, np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]))


@pytest.mark.parametrize("n_qubits", [2, 3, 6])
def test_all_pairs_in_order_are_one_descending_chain(n_qubits):
    pairs, chain = QuantumCircuit(n_qubits), QuantumCircuit(n_qubits)
    for control, target in CircuitSpec(n_qubits, 1, "all").cnots():
        pairs.cx(control, target)
    for control in reversed(range(n_qubits - 1)):
        chain.cx(control, control + 1)
    assert np.array_equal(Operator(pairs).data, Operator(chain).data)


# Against Qiskit, Aer and a Kronecker product.


@settings(deadline=None, max_examples=200)
@given(specs(8, 3), seeds)
def test_expectations_are_those_of_qiskit(spec, seed):
    assert_qiskit_agrees(spec, seed, batch=2)


@pytest.mark.parametrize("entangle", ["chain", "ring", "all"])
@pytest.mark.parametrize("depth", [2, 3])
def test_every_choice_of_rotations_is_that_of_qiskit(depth, entangle):
    for count in (1, 2, 3):
        for rotations in itertools.product(("rx", "ry", "rz"), repeat=count):
            assert_qiskit_agrees(CircuitSpec(3, depth, entangle, rotations), count)


@settings(deadline=None, max_examples=25)
@given(st.builds(CircuitSpec, st.integers(2, 8), st.integers(4, 5), st.sampled_from(["chain", "all"])), seeds)
def test_deep_chains_are_those_of_qiskit(spec, seed):
    assert_qiskit_agrees(spec, seed)


@pytest.mark.parametrize("n_qubits", [2, 5, 7])
def test_a_ring_of_depth_four_is_that_of_qiskit(n_qubits):
    assert_qiskit_agrees(CircuitSpec(n_qubits, 4, "ring", ("rz", "rx")), n_qubits)


@pytest.mark.parametrize("entangle", ENTANGLE)
@pytest.mark.parametrize("n_qubits", [12, 16])
def test_wider_circuits_are_those_of_qiskit(n_qubits, entangle):
    assert_qiskit_agrees(CircuitSpec(n_qubits, 2, entangle), n_qubits)


@settings(deadline=None, max_examples=30)
@given(specs(4, 3), seeds)
def test_expectations_are_those_of_the_naive_twin(spec, seed):
    angles = angles_of(spec, 1, seed)
    psi = reference.state(spec.n_qubits, spec.depth, spec.entangle, angles[0].numpy(), spec.rotations)
    assert np.abs(reference.z_values(psi) - expectations(spec, angles)[0].numpy()).max() < 1e-12


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


# Closed forms, with a = -pi theta and b = pi theta.


def theta_angles(spec, theta):
    return (torch.stack((-theta, theta), -1) * math.pi)[:, None].expand(spec.angles_shape(len(theta)))


CLOSED_FORMS = {
    (1, "none"): lambda s, theta: s,
    (1, "chain"): lambda s, theta: torch.cumprod(s, 1),
    (1, "all"): lambda s, theta: torch.cat((s[:, :1], s[:, 1:] * s[:, :-1]), 1),
    (1, "ring"): lambda s, theta: torch.cat((s[:, 1:].prod(1, keepdim=True), torch.cumprod(s, 1)[:, 1:]), 1),
    (2, "none"): lambda s, theta: 0.5 * torch.sin(2 * math.pi * theta) * (1 + torch.cos(math.pi * theta)),
}


@pytest.mark.parametrize(("depth", "entangle"), CLOSED_FORMS)
@settings(deadline=None, max_examples=20)
@given(n_qubits=st.integers(2, 300), seed=seeds)
def test_closed_forms_hold_at_any_width(depth, entangle, n_qubits, seed):
    spec = CircuitSpec(n_qubits, depth, entangle)
    theta = torch.randn(2, n_qubits, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    exact = CLOSED_FORMS[depth, entangle](torch.sin(math.pi * theta), theta)
    assert (expectations(spec, theta_angles(spec, theta)) - exact).abs().max() < 1e-12


# What depends on what.


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 40), st.integers(1, 4), rotation_tuples, seeds, st.data())
def test_a_qubit_of_a_chain_depends_on_no_wire_beyond_the_next_depth_minus_one(n_qubits, depth, rotations, seed, data):
    spec = CircuitSpec(n_qubits, depth, "chain", rotations)
    angles = angles_of(spec, 1, seed)
    wire = data.draw(st.integers(0, n_qubits - 1))
    other = angles.clone()
    other[:, :, wire] += 1
    before = max(0, wire - depth + 1)
    assert torch.equal(expectations(spec, angles)[:, :before], expectations(spec, other)[:, :before])


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 40), st.integers(1, 4), rotation_tuples, seeds, st.data())
def test_a_qubit_of_all_pairs_depends_on_no_wire_before_the_last_depth(n_qubits, depth, rotations, seed, data):
    spec = CircuitSpec(n_qubits, depth, "all", rotations)
    angles = angles_of(spec, 1, seed)
    wire = data.draw(st.integers(0, n_qubits - 1))
    other = angles.clone()
    other[:, :, wire] += 1
    behind = wire + depth + 1
    assert torch.equal(expectations(spec, angles)[:, behind:], expectations(spec, other)[:, behind:])


# The batching law.


@settings(deadline=None, max_examples=100)
@given(specs(8, 3), seeds, dtypes, st.integers(1, 70), st.data())
def test_splitting_and_permuting_the_batch_changes_no_bit(spec, seed, dtype, batch, data):
    angles = angles_of(spec, batch, seed, dtype)
    z = expectations(spec, angles)
    order = torch.randperm(batch, generator=torch.Generator().manual_seed(seed))
    cut = data.draw(st.integers(0, batch))
    assert torch.equal(expectations(spec, angles[order]), z[order])
    assert torch.equal(torch.cat((expectations(spec, angles[:cut]), expectations(spec, angles[cut:]))), z)


@settings(deadline=None, max_examples=30)
@given(
    specs(20, 3),
    seeds,
    dtypes,
    st.integers(1, 6),
    st.integers(1, 200_000),
)
def test_neither_the_memory_budget_nor_recording_gradients_changes_a_bit(spec, seed, dtype, batch, memory_bytes):
    angles = angles_of(spec, batch, seed, dtype)
    z = expectations(spec, angles)
    assert torch.equal(expectations(spec, angles, memory_bytes=memory_bytes), z)
    tracked = expectations(spec, angles.clone().requires_grad_(), memory_bytes=memory_bytes)
    assert torch.equal(tracked.detach(), z)


@pytest.mark.parametrize("entangle", ENTANGLE)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_whatever_the_rotations_blocks_of_one_wire_give_the_bits_of_all_wires_at_once(depth, entangle):
    # Which terms of a map are known to be zero depends on the rotations, and must not on the block.
    for count in (1, 2, 3):
        for rotations in itertools.product(("rx", "ry", "rz"), repeat=count):
            spec = CircuitSpec(4, depth, entangle, rotations)
            angles = angles_of(spec, 2, count, torch.float32)
            assert torch.equal(expectations(spec, angles, memory_bytes=1), expectations(spec, angles))


@pytest.mark.parametrize("entangle", ENTANGLE)
def test_one_circuit_alone_has_the_bits_it_has_among_thousands(entangle):
    spec = CircuitSpec(30, 2, entangle)
    angles = angles_of(spec, 3001, 1)
    z = expectations(spec, angles)
    for one in (0, 1, 1023, 1024, 2999, 3000):
        assert torch.equal(expectations(spec, angles[one : one + 1])[0], z[one])


# Gradients.


@pytest.mark.parametrize("entangle", ENTANGLE)
@pytest.mark.parametrize(("n_qubits", "depth"), [(1, 2), (2, 2), (4, 1), (4, 2), (3, 3)])
def test_gradients_are_those_of_finite_differences(n_qubits, depth, entangle):
    spec = CircuitSpec(n_qubits, depth, entangle)
    angles = angles_of(spec, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: expectations(spec, a), (angles,), fast_mode=True)
    assert torch.autograd.gradcheck(lambda a: expectations(spec, a, memory_bytes=1), (angles,), fast_mode=True)


@settings(deadline=None, max_examples=15)
@given(specs(4, 3), seeds, st.sampled_from([1, 2**24]))
def test_gradients_follow_the_parameter_shift_rule_on_qiskit(spec, seed, memory_bytes):
    angles = angles_of(spec, 1, seed).requires_grad_()
    weights = torch.arange(1, spec.n_qubits + 1, dtype=torch.float64)
    (expectations(spec, angles, memory_bytes=memory_bytes) @ weights).sum().backward()
    place = tuple(seed % size for size in angles.shape)
    shift = torch.zeros_like(angles)
    shift[place] = math.pi / 2
    with torch.no_grad():
        up, down = (z_values(qiskit_state(spec, angles + sign * shift)) for sign in (1, -1))
    assert abs(float(angles.grad[place]) - (up - down) @ weights.numpy() / 2) < 1e-12


@pytest.mark.parametrize("entangle", ENTANGLE)
def test_gradients_do_not_depend_on_the_blocks_they_are_computed_in(entangle):
    spec = CircuitSpec(50, 2, entangle)
    gradients = []
    for memory_bytes in (2**14, 2**16, 2**24):
        angles = angles_of(spec, 9, 5).requires_grad_()
        expectations(spec, angles, memory_bytes=memory_bytes).square().sum().backward()
        gradients.append(angles.grad)
    assert all((one - gradients[-1]).abs().max() < 1e-14 for one in gradients)


def test_gradients_flow_when_inference_mode_was_first_to_use_a_map():
    table_of.cache_clear()
    for spec in (CircuitSpec(4, 3, "ring"), CircuitSpec(4, 2, "all")):
        angles = angles_of(spec, 2, 1)
        with torch.inference_mode():
            z = expectations(spec, angles)
        tracked = angles.clone().requires_grad_()
        z_tracked = expectations(spec, tracked)
        assert torch.equal(z_tracked, z)
        z_tracked.sum().backward()
        assert tracked.grad.isfinite().all()


# Memory.


@pytest.mark.parametrize(("entangle", "depth"), [("chain", 3), ("ring", 2), ("all", 2), ("none", 2)])
def test_the_memory_budget_bounds_what_the_work_takes(entangle, depth):
    spec, memory_bytes = CircuitSpec(1000, depth, entangle), 2**18
    angles = angles_of(spec, 40, 1)
    with torch.no_grad(), PeakMemory() as memory:
        z = expectations(spec, angles, memory_bytes=memory_bytes)
    kept = 8 * memory_bytes if entangle == "ring" else 0
    assert memory.peak <= 3 * angles.nbytes + 2 * z.nbytes + kept + memory_bytes


@pytest.mark.parametrize(("entangle", "depth", "kept"), [("all", 4, 0), ("ring", 2, 16)])
def test_gradients_keep_carries_at_the_edges_of_blocks_alone(entangle, depth, kept):
    spec, memory_bytes = CircuitSpec(500, depth, entangle), 2**18
    angles = angles_of(spec, 8, 1).requires_grad_()
    with PeakMemory() as memory:
        z = expectations(spec, angles, memory_bytes=memory_bytes)
    # The carries of every site would be 4**(depth-1) numbers a qubit more; a ring's, twice 16**(depth-1).
    assert memory.peak <= 3 * angles.nbytes + (4 + kept) * z.nbytes + 3 * memory_bytes


# Amplitudes.


# Precision, width, edges.


@settings(deadline=None, max_examples=40)
@given(specs(8, 3), seeds)
def test_float32_is_close(spec, seed):
    angles = angles_of(spec, 3, seed)
    z = expectations(spec, angles.float())
    assert z.dtype == torch.float32
    assert (z - expectations(spec, angles)).abs().max() < 1e-4


def test_half_precision_angles_are_simulated_in_float32():
    spec = CircuitSpec(3)
    angles = angles_of(spec, 2, 0, torch.bfloat16)
    assert torch.equal(expectations(spec, angles), expectations(spec, angles.float()))


@pytest.mark.parametrize("entangle", ENTANGLE)
def test_thousands_of_qubits_have_finite_expectations_and_gradients(entangle):
    spec = CircuitSpec(4096, 2, entangle)
    z = expectations(spec, angles_of(spec, 2, 7))
    assert z.shape == (2, 4096)
    assert z.isfinite().all()
    assert z.abs().max() <= 1 + 1e-12
    angles = angles_of(spec, 1, 7).requires_grad_()
    expectations(spec, angles).sum().backward()
    assert angles.grad.isfinite().all()


@pytest.mark.parametrize("entangle", ENTANGLE)
def test_an_empty_batch_has_an_empty_answer_and_gradient(entangle):
    spec = CircuitSpec(3, 2, entangle)
    assert expectations(spec, torch.zeros(0, 2, 3, 2)).shape == (0, 3)
    angles = torch.zeros(0, 2, 3, 2, requires_grad=True)
    expectations(spec, angles).sum().backward()
    assert angles.grad.shape == angles.shape


@pytest.mark.parametrize("entangle", ENTANGLE)
def test_cost_grows_linearly_with_the_number_of_qubits(entangle):
    for depth in (1, 2, 3):
        one, many = (cost(CircuitSpec(n_qubits, depth, entangle)) for n_qubits in (1, 50))
        assert many == 50 * one > 0
    if entangle != "none":
        assert cost(CircuitSpec(8, 3, entangle)) > 4 * cost(CircuitSpec(8, 2, entangle))


def test_angles_of_another_shape_or_kind_are_refused():
    with pytest.raises(ValueError, match="angles: got shape"):
        expectations(CircuitSpec(3), torch.zeros(1, 2, 4, 2))
    with pytest.raises(ValueError, match="angles: got torch"):
        expectations(CircuitSpec(3), torch.zeros(1, 2, 3, 2, dtype=torch.int64))
