"""Aer behind the protocol of circuits: its answers, draws, refusals."""

import math
import pickle
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.aer_answers import EVERYTHING, METHODS, READOUTS, SPEC, angles, exact

pytest.importorskip("qiskit_aer")

from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel

from qsgd_ray.circuits.aer import _programs as aer_programs
from qsgd_ray.circuits.aer import backend as aer_module
from qsgd_ray.circuits.aer.backend import AerBackend
from qsgd_ray.circuits.aer.noise import Noise
from qsgd_ray.circuits.errors import CircuitError, CircuitMemoryError
from qsgd_ray.circuits.spec import CircuitSpec

ENTANGLE = ["chain", "ring", "all", "none"]
# Fails with odds below 2e-9 an answer (normal tail).
SIGMAS = 6


@given(
    n=st.integers(1, 4),
    depth=st.integers(1, 2),
    entangle=st.sampled_from(ENTANGLE),
    rotations=st.lists(st.sampled_from(["rx", "ry", "rz"]), min_size=1, max_size=3),
    method=st.sampled_from(METHODS),
    readout=st.sampled_from(READOUTS),
    seed=st.integers(0, 99),
)
@settings(max_examples=60)
def test_answers_are_those_of_qiskits_statevector(n, depth, entangle, rotations, method, readout, seed):
    spec = CircuitSpec(n, depth, entangle, tuple(rotations))
    theta = angles(spec, 3, seed)
    answer = AerBackend(method).submit(spec, theta, readout).result()
    assert answer.dtype == torch.float64
    torch.testing.assert_close(answer, exact(spec, theta, readout), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("method", "noise", "shots"),
    [(method, None, shots) for method in METHODS for shots in (None, 40)]
    + [("automatic", EVERYTHING, None), ("density_matrix", EVERYTHING, 40), ("statevector", EVERYTHING, 40)],
)
@pytest.mark.parametrize("readout", READOUTS)
def test_batched_is_unbatched_is_permuted(method, noise, shots, readout):
    spec, keys = CircuitSpec(4, 2, "ring"), torch.arange(5)
    backend, theta = AerBackend(method, noise=noise, shots=shots, threads=1), angles(spec)
    whole = backend.submit(spec, theta, readout, keys).result()
    apart = [backend.submit(spec, theta[i : i + 1], readout, keys[i : i + 1]).result() for i in range(5)]
    order = torch.tensor([3, 0, 4, 1, 2])
    assert torch.equal(torch.cat(apart), whole)
    assert torch.equal(backend.submit(spec, theta[order], readout, keys[order]).result(), whole[order])


def test_chunks_are_one_answer(monkeypatch):
    whole = AerBackend().submit(SPEC, angles()).result()
    monkeypatch.setattr(aer_module, "_RESULT_BYTES", 128)
    pending = AerBackend().submit(SPEC, angles())
    assert len(pending._chunks) == 3
    assert torch.equal(pending.result(), whole)
    assert pending.result() is pending.result()


def test_an_empty_batch_is_answered():
    assert AerBackend().submit(SPEC, angles()[:0]).result().shape == (0, 3)
    noisy = AerBackend(noise=EVERYTHING, shots=10, method="statevector")
    assert noisy.submit(SPEC, angles()[:0]).result().shape == (0, 3)


def test_importing_the_backends_loads_no_qiskit_and_a_backend_answers_where_it_was_sent():
    names = ("aer.backend", "backends.shots", "backends.estimator", "select.auto", "backends.gradients")
    script = "import pickle, sys\n" + "".join(f"import qsgd_ray.circuits.{name}\n" for name in names)
    script += "assert not {'qiskit', 'qiskit_aer', 'ray'} & set(sys.modules)\n"
    script += "backend, arguments = pickle.loads(sys.stdin.buffer.read())\n"
    script += "sys.stdout.buffer.write(pickle.dumps(backend.submit(*arguments).result().numpy()))\n"
    backend = AerBackend()
    whole = backend.submit(SPEC, angles()).result()
    sent = pickle.dumps((backend, (SPEC, angles())))
    done = subprocess.run([sys.executable, "-c", script], input=sent, stdout=subprocess.PIPE, check=True)
    assert torch.equal(torch.from_numpy(pickle.loads(done.stdout)), whole)


def test_noise_is_sent_with_its_backend():
    for noise in (EVERYTHING, Noise.of_model(EVERYTHING.model())):
        backend = AerBackend(noise=noise)
        whole = backend.submit(SPEC, angles()).result()
        assert torch.equal(pickle.loads(pickle.dumps(backend)).submit(SPEC, angles()).result(), whole)


@pytest.mark.parametrize(
    ("method", "shots"), [("density_matrix", 4000), ("statevector", 4000), ("matrix_product_state", 1000)]
)
@pytest.mark.parametrize("readout", READOUTS)
def test_noisy_shots_are_drawn_from_the_noisy_circuit(method, shots, readout):
    # 6 or 2 answers a case, 6 cases: false alarms below 1e-7.
    theta = angles(batch=2)
    answer = AerBackend(noise=EVERYTHING, shots=shots, method=method).submit(SPEC, theta, readout).result()
    expected = AerBackend(noise=EVERYTHING).submit(SPEC, theta, readout).result()
    assert ((answer - expected).abs() < SIGMAS / math.sqrt(shots)).all()


@pytest.mark.parametrize("method", ["statevector", "density_matrix", "matrix_product_state"])
def test_noiseless_shots_are_drawn_from_the_circuit(method):
    spec, shots = CircuitSpec(4, 2, "all"), 4000
    answer = AerBackend(method, shots=shots).submit(spec, angles(spec)).result()
    assert ((answer - exact(spec, angles(spec))).abs() < SIGMAS / math.sqrt(shots)).all()


@pytest.mark.parametrize("method", ["density_matrix", "statevector"])
def test_draws_are_named_by_seed_and_key_and_counted_without_keys(method):
    same = angles(batch=1).expand(3, -1, -1, -1)
    backend = AerBackend(noise=EVERYTHING, shots=500, seed=1, method=method)
    first, again = (backend.submit(SPEC, same).result() for _ in range(2))
    assert len(torch.cat((first, again)).unique(dim=0)) == 6
    keyed = backend.submit(SPEC, same, "z", torch.tensor([7, 8, 7])).result()
    assert torch.equal(keyed[0], keyed[2])
    assert not torch.equal(keyed[0], keyed[1])
    other = AerBackend(noise=EVERYTHING, shots=500, seed=2, method=method)
    assert not torch.equal(keyed, other.submit(SPEC, same, "z", torch.tensor([7, 8, 7])).result())


def test_threads_do_not_change_the_draws():
    answer = AerBackend(noise=EVERYTHING, shots=300, method="statevector", threads=2).submit(SPEC, angles(batch=2))
    one = AerBackend(noise=EVERYTHING, shots=300, method="statevector", threads=1).submit(SPEC, angles(batch=2))
    assert torch.equal(answer.result(), one.result())


def test_amplitudes_of_a_permuted_matrix_product_state_are_not_asked_for():
    # qiskit-aer issue 2235.
    for entangle, ordered in (("chain", True), ("ring", False), ("all", False), ("none", True)):
        spec = CircuitSpec(3, 2, entangle)
        backend = AerBackend("matrix_product_state")
        backend.submit(spec, angles(spec), "probability").result()
        assert [program.saves == "answer" for program in backend._programs.values()] == [ordered]
    spec = CircuitSpec(40, 1, "all")
    with pytest.raises(CircuitMemoryError, match=r"^n_qubits: got 40"):
        AerBackend("matrix_product_state", memory_bytes=2**20).submit(spec, angles(spec), "probability")


def test_amplitudes_of_more_than_64_qubits_are_not_asked_for():
    # qiskit-aer issue 2410. Of 64 qubits, the first 64 states are those whose qubits 6 to 63 are 0.
    spec = CircuitSpec(64, 1, "none", ("ry",))
    excess = angles(spec, 1) / 60
    backend = AerBackend("matrix_product_state")
    answer = backend.submit(spec, excess - math.pi / 2, "probability").result()
    expected = (torch.cos(excess.flatten() / 2) ** 2)[6:].prod()
    torch.testing.assert_close(answer, expected.view(1, 1), rtol=0, atol=1e-10)
    spec = CircuitSpec(65, 1, "none")
    with pytest.raises(CircuitMemoryError, match=r"^n_qubits: got 65"):
        backend.submit(spec, angles(spec), "probability")


def test_automatic_takes_what_fits_and_is_less_work():
    spec = CircuitSpec(4)
    assert AerBackend().method_for(spec) == "statevector"
    assert AerBackend(memory_bytes=100).method_for(spec) == "matrix_product_state"
    assert AerBackend(noise=EVERYTHING).method_for(spec) == "density_matrix"
    assert AerBackend(noise=EVERYTHING, shots=1).method_for(spec) == "density_matrix"
    assert AerBackend(noise=EVERYTHING, shots=1, memory_bytes=5000).method_for(spec) == "statevector"
    for shots, method in ((693, "statevector"), (694, "density_matrix")):
        assert AerBackend(noise=EVERYTHING, shots=shots).method_for(CircuitSpec(10)) == method


def test_matrix_product_states_answer_wide_circuits():
    # Depth 1 in closed form: <Z_i> is the product of the sines up to i (method.md, section 2).
    spec = CircuitSpec(70, 1)
    weights = torch.linspace(0.4, 0.6, 70, dtype=torch.float64)
    theta = torch.stack((-math.pi * weights, math.pi * weights), -1)[None, None]
    answer = AerBackend(memory_bytes=2**20).submit(spec, theta).result()
    torch.testing.assert_close(answer[0], torch.sin(math.pi * weights).cumprod(0), rtol=0, atol=1e-10)
    many = AerBackend(memory_bytes=2**20).submit(spec, theta.expand(3, -1, -1, -1))
    assert len(many._chunks) == 1  # its answers are small
    assert torch.equal(many.result(), answer.expand(3, -1))
    sampled = AerBackend("matrix_product_state", shots=400).submit(spec, theta).result()
    assert ((sampled - answer).abs() < SIGMAS / math.sqrt(400)).all()


def test_states_and_density_matrices_that_do_not_fit_are_refused():
    with pytest.raises(CircuitMemoryError, match=r"^n_qubits: got 3, a simulation that needs 320 bytes with 300 there"):
        AerBackend("statevector", memory_bytes=300).submit(SPEC, angles())
    with pytest.raises(CircuitMemoryError) as error:
        AerBackend(noise=EVERYTHING, memory_bytes=700).submit(SPEC, angles())
    assert str(error.value) == (
        "n_qubits: got 3, a density matrix that needs 2,560 bytes with 700 there; allowed: at most 2"
    )
    AerBackend(noise=EVERYTHING, memory_bytes=2560).submit(SPEC, angles())
    with pytest.raises(CircuitMemoryError, match=r"allowed: at most 0$"):
        AerBackend(noise=EVERYTHING, memory_bytes=0).submit(SPEC, angles())
    with pytest.raises(CircuitMemoryError, match=r"^n_qubits: got 40, a density matrix that needs 2\^85 bytes with "):
        AerBackend(noise=EVERYTHING, memory_bytes=700).submit(CircuitSpec(40), angles(CircuitSpec(40)))


def test_a_gpu_that_aer_does_not_have_is_refused():
    if "GPU" in AerSimulator().available_devices():
        pytest.skip("Aer has a GPU here")
    with pytest.raises(CircuitError, match=r"^backend aer: got device 'GPU'; allowed here: CPU$"):
        AerBackend(device="GPU").submit(SPEC, angles())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"method": "stabilizer"}, r"^backend aer: got method 'stabilizer'; allowed: automatic, statevector, "),
        ({"device": "TPU"}, r"^backend aer: got device 'TPU'; allowed: CPU, GPU$"),
        ({"threads": 0}, r"^threads: got 0; allowed: a whole number >= 1, or None$"),
        ({"noise": EVERYTHING, "method": "statevector"}, r"^backend aer: got noise without shots and method"),
        ({"noise": NoiseModel()}, r"^backend aer: got noise <NoiseModel .*; allowed: Noise, Noise.of_backend or Noise"),
        ({"shots": 0}, r"^shots: got 0"),
        ({"seed": -1}, r"^seed: got -1"),
    ],
)
def test_arguments_that_are_none_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        AerBackend(**wrong)


def test_angles_of_another_shape_and_keys_that_are_none_are_refused():
    with pytest.raises(CircuitError, match=r"^angles: got shape"):
        AerBackend().submit(SPEC, angles(CircuitSpec(4)))
    with pytest.raises(CircuitError, match=r"^keys: got \(4,\)"):
        AerBackend(shots=3).submit(SPEC, angles(), "z", torch.arange(4))


class Fails(aer_programs.Program):
    def run(self, flat_bp, way, **more):
        return FailedJob()


class FailedJob:
    error: Exception | None = None

    def result(self):
        if self.error:
            raise self.error
        return self

    def to_dict(self):
        return {"success": False, "results": [], "status": "ERROR: no room\nat all"}


@pytest.mark.parametrize(
    ("error", "message"),
    [(None, "backend aer: ERROR: no room at all"), (OSError("gone\nfar"), "backend aer: OSError: gone")],
)
def test_a_job_that_fails_is_told_in_one_line(monkeypatch, error, message):
    monkeypatch.setattr(aer_programs, "Program", Fails)
    monkeypatch.setattr(FailedJob, "error", error)
    with pytest.raises(CircuitError) as raised:
        AerBackend().submit(SPEC, angles()).result()
    assert str(raised.value) == message


def test_without_aer_it_is_one_line(monkeypatch):
    arrived = pickle.loads(pickle.dumps(AerBackend()))
    monkeypatch.setitem(sys.modules, "qiskit_aer", None)
    for fails in (AerBackend, lambda: arrived.submit(SPEC, angles())):
        with pytest.raises(CircuitError, match=r"^backend aer: needs qiskit-aer \(pip install qiskit-aer\)$"):
            fails()
