import math
import sys

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from support.reference_circuits import ROTATIONS, H, cnot, on_qubits

pytest.importorskip("qiskit_aer")

from qiskit.providers.fake_provider import GenericBackendV2
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel, ReadoutError, amplitude_damping_error, depolarizing_error

from qsgd_ray.circuits.aer._placement import confusion_matrices, model_on, place
from qsgd_ray.circuits.aer.backend import AerBackend
from qsgd_ray.circuits.aer.noise import Noise
from qsgd_ray.circuits.backends.in_process import TorchBackend
from qsgd_ray.circuits.errors import CircuitError
from qsgd_ray.circuits.spec import CircuitSpec

SPEC = CircuitSpec(3)
READOUTS = ["z", "probability"]
EVERYTHING = Noise(depolarizing_1q=0.02, depolarizing_2q=0.07, p01=0.03, p10=0.08, t1_us=40, t2_us=55)
# Fails with odds below 2e-9 an answer (normal tail).
SIGMAS = 6
PAULIS = (np.eye(2), np.array([[0, 1], [1, 0]]), np.array([[0, -1j], [1j, 0]]), np.diag([1, -1]))


def angles(spec=SPEC, batch=5, seed=0):
    return torch.rand(spec.angles_shape(batch), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 6


def answers(p, n):
    """Both readouts of probabilities."""
    z = [sum(p[y] * (-1) ** (y >> i & 1) for y in range(2**n)) for i in range(n)]
    return {"z": np.array(z), "probability": np.array([p[:n].sum()])}


def exact(spec, angles_bdnr, readout="z"):
    return TorchBackend().submit(spec, angles_bdnr, readout).result()


def at(n, qubit, matrix):
    return on_qubits([matrix if i == qubit else np.eye(2) for i in range(n)])


def noisy_probabilities(spec, angles_dnr, noise):
    """The density matrix gate by gate, by Kraus operators: an independent twin of Aer's noise."""
    n = spec.n_qubits

    def after(rho, qubits, p, time_ns):
        kraus = [np.eye(2**n)]
        for qubit in qubits:
            kraus = [at(n, qubit, pauli) @ one for one in kraus for pauli in PAULIS]
        mixed = sum(k @ rho @ k.conj().T for k in kraus) / len(kraus)  # over all Paulis: I/2**k on these qubits
        rho = (1 - p) * rho + p * mixed
        if noise.t1_us is None:
            return rho
        decay = math.exp(-time_ns / (1e3 * noise.t1_us))
        kept = math.exp(-time_ns / (1e3 * noise.t2_us)) / math.sqrt(decay)  # of the coherence, besides the decay
        for qubit in qubits:
            stays, falls = np.diag([1, math.sqrt(decay)]), np.array([[0, math.sqrt(1 - decay)], [0, 0]])
            rho = sum(at(n, qubit, k) @ rho @ at(n, qubit, k).conj().T for k in (stays, falls))
            z = at(n, qubit, PAULIS[3])
            rho = (1 + kept) / 2 * rho + (1 - kept) / 2 * z @ rho @ z
        return rho

    rho = np.zeros((2**n, 2**n), dtype=complex)
    rho[0, 0] = 1
    for layer in spec.layers():
        for targets in layer.targets:
            if layer.gate == "cx":
                gate, p, time_ns = cnot(n, *targets), noise.depolarizing_2q, noise.gate_2q_ns
            else:
                (qubit,) = targets
                one = H
                if layer.angle is not None:
                    one = ROTATIONS[layer.gate](angles_dnr[layer.angle[0], qubit, layer.angle[1]])
                gate, p, time_ns = at(n, qubit, one), noise.depolarizing_1q, noise.gate_1q_ns
            rho = after(gate @ rho @ gate.conj().T, targets, p, time_ns)
    read = np.array([[1 - noise.p01, noise.p10], [noise.p01, 1 - noise.p10]])
    return on_qubits([read] * n) @ rho.diagonal().real


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("entangle", ["chain", "ring", "all", "none"])
def test_the_twin_without_noise_is_the_circuit(entangle, readout):
    spec = CircuitSpec(3, 2, entangle)
    twin = answers(noisy_probabilities(spec, angles(spec)[0].numpy(), Noise()), 3)[readout]
    np.testing.assert_allclose(twin, exact(spec, angles(spec)[:1], readout)[0], atol=1e-12)


def test_noise_is_a_value():
    assert Noise(p01=0.1) == Noise(p01=0.1)
    assert len({Noise(p01=0.1), Noise(p01=0.1), Noise()}) == 2
    assert Noise.model_validate_json(EVERYTHING.model_dump_json()) == EVERYTHING
    device = Noise.of_model(NoiseModel())
    assert device != Noise.of_model(NoiseModel())
    assert len({device, device}) == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"depolarizing_1q": -0.1}, "greater than or equal to 0"),
        ({"p01": 1.5}, "less than or equal to 1"),
        ({"t1_us": 3.0}, "t1_us and t2_us together"),
        ({"t1_us": 3.0, "t2_us": 7.0}, r"t2_us <= 2 \* t1_us"),
        ({"p": 0.1}, r"^Noise\.p: got 0\.1; allowed: no field of this name; there are "),
    ],
)
def test_noise_that_is_none_is_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        Noise(**wrong)


@pytest.mark.parametrize(
    "noise",
    [
        Noise(depolarizing_1q=0.1),
        Noise(depolarizing_2q=0.2),
        Noise(p01=0.1, p10=0.25),
        Noise(t1_us=30, t2_us=20, gate_1q_ns=500, gate_2q_ns=2000),
        Noise(t1_us=30, t2_us=55, gate_1q_ns=500, gate_2q_ns=2000),
        EVERYTHING,
    ],
    ids=["depolarizing_1q", "depolarizing_2q", "readout", "relaxation", "relaxation, T2 > T1", "everything"],
)
@pytest.mark.parametrize("entangle", ["chain", "all"])
def test_noisy_answers_are_those_of_the_density_matrix(noise, entangle):
    spec = CircuitSpec(3, 2, entangle, ("ry", "rz", "rx"))
    theta = angles(spec, 2)
    every = [answers(noisy_probabilities(spec, one.numpy(), noise), 3) for one in theta]
    for readout in READOUTS:
        twin = torch.tensor(np.array([one[readout] for one in every]))
        answer = AerBackend(noise=noise).submit(spec, theta, readout).result()
        torch.testing.assert_close(answer, twin, rtol=0, atol=1e-12)
        assert (answer - exact(spec, theta, readout)).abs().max() > 1e-3


@pytest.mark.parametrize("n", [6, 7])
def test_fused_gates_are_as_noisy_as_one_after_the_other(n, monkeypatch):
    spec = CircuitSpec(n, 2, "ring")
    theta = angles(spec, 2)
    fused = AerBackend(noise=EVERYTHING).submit(spec, theta).result()
    monkeypatch.setattr("qsgd_ray.circuits.aer.backend._FUSED_BEYOND", n)
    torch.testing.assert_close(fused, AerBackend(noise=EVERYTHING).submit(spec, theta).result(), rtol=0, atol=1e-12)


def line(n):
    return [[i, i + 1] for i in range(n - 1)] + [[i + 1, i] for i in range(n - 1)]


def misread(p, device, qubits):
    """Probabilities of a device's `qubits` as they are read."""
    errors = [device.target["measure"][(qubit,)].error for qubit in qubits]
    return on_qubits([np.array([[1 - e, e], [e, 1 - e]]) for e in errors]) @ p


@pytest.mark.parametrize("device", [GenericBackendV2(4, seed=1), GenericBackendV2(9, coupling_map=line(9), seed=2)])
@pytest.mark.parametrize("readout", READOUTS)
def test_a_device_is_asked_in_its_gates_and_answers_in_our_qubit_order(device, readout):
    from qiskit import transpile

    spec = CircuitSpec(4, 2, "all")
    theta = angles(spec, 3)
    answer = AerBackend(noise=Noise.of_backend(device)).submit(spec, theta, readout).result()
    model, every = NoiseModel.from_backend(device), []
    for one in theta:
        circuit = transpile(spec.to_qiskit(one), device, optimization_level=1, seed_transpiler=0)
        where = circuit.layout.final_index_layout()
        circuit.save_density_matrix(where, label="rho")
        run = AerSimulator(method="density_matrix", noise_model=model).run(circuit)
        p = np.asarray(run.result().data(0)["rho"]).diagonal().real
        every.append(answers(misread(p, device, where), 4)[readout])
    # The twin's angles are bound before it is transpiled, so its gates may be merged further: its noise is near, not
    # the same.
    noise_is = (answer - exact(spec, theta, readout)).abs().max()
    assert 1e-4 < noise_is < 0.2
    assert (answer - torch.tensor(np.array(every))).abs().max() < 0.1 * noise_is


def test_a_device_draws_shots_from_its_own_answers():
    noise = Noise.of_backend(GenericBackendV2(4, seed=1))
    expected = AerBackend(noise=noise).submit(SPEC, angles(batch=2)).result()
    for method in ("density_matrix", "statevector"):
        answer = AerBackend(noise=noise, shots=4000, method=method).submit(SPEC, angles(batch=2)).result()
        assert ((answer - expected).abs() < SIGMAS / math.sqrt(4000)).all()


def test_the_noise_on_the_qubits_in_use_is_all_that_strikes():
    device = GenericBackendV2(6, coupling_map=line(6), seed=4)
    noise = Noise.of_backend(device)
    whole = AerBackend(noise=noise).submit(SPEC, angles()).result()
    assert noise.model() == NoiseModel.from_backend(device)
    placed = place(SPEC, noise)
    assert len(placed.used) < 6
    assert {*model_on(placed, noise).noise_qubits} <= placed.used
    # Without the device, Aer looks at the names of gates only: of the same circuit in the same gates, the same noise.
    circuit = placed.circuit.assign_parameters(dict(bind(placed.circuit, angles()[0])))
    circuit.save_density_matrix(list(placed.qubits), label="rho")
    run = AerSimulator(method="density_matrix", noise_model=noise.model()).run(circuit)
    p = np.asarray(run.result().data(0)["rho"]).diagonal().real
    twin = answers(misread(p, device, placed.qubits), 3)["z"]
    np.testing.assert_allclose(whole[0], twin, rtol=0, atol=1e-12)


def bind(circuit, angles_dnr):
    for parameter in circuit.parameters:
        level, qubit = map(int, parameter.name[2:-1].split(","))
        yield parameter, float(angles_dnr[level, qubit, "ab".index(parameter.name[0])])


def test_a_device_that_is_too_small_is_refused():
    with pytest.raises(CircuitError, match=r"^n_qubits: got 3; allowed on this device: at most 2$"):
        AerBackend(noise=Noise.of_backend(GenericBackendV2(2, seed=0))).submit(SPEC, angles())


def test_a_model_that_was_givenis_the_same_noise():
    given = AerBackend(noise=Noise.of_model(EVERYTHING.model())).submit(SPEC, angles()).result()
    assert torch.equal(given, AerBackend(noise=EVERYTHING).submit(SPEC, angles()).result())


def test_a_model_in_other_gates_strikes_the_circuit_in_those_gates():
    model = NoiseModel()
    model.add_all_qubit_quantum_error(depolarizing_error(0.05, 1), ["sx"])
    answer = AerBackend(noise=Noise.of_model(model)).submit(SPEC, angles()).result()
    assert (answer - exact(SPEC, angles())).abs().max() > 1e-3


def joint():
    model = NoiseModel()
    model.add_readout_error(ReadoutError(0.9 * np.eye(4) + 0.1 / 4), [0, 1])
    return model


def damped():
    model = NoiseModel()
    model.add_all_qubit_quantum_error(amplitude_damping_error(0.1), ["measure"])
    return model


@pytest.mark.parametrize("model", [joint(), damped()], ids=["joint", "quantum"])
def test_errors_at_measure_that_are_no_readout_of_one_qubit_are_refused(model):
    with pytest.raises(CircuitError, match=r"^noise: got a quantum or joint error at measure; allowed: readout errors"):
        AerBackend(noise=Noise.of_model(model)).submit(SPEC, angles())
    # Shots of statevectors do measure.
    AerBackend(noise=Noise.of_model(model), shots=10, method="statevector").submit(SPEC, angles()).result()


def test_a_qubit_s_own_readout_error_goes_before_that_of_all():
    model, shots = NoiseModel(), 4000
    model.add_all_qubit_readout_error(ReadoutError([[0.9, 0.1], [0.2, 0.8]]))
    model.add_readout_error(ReadoutError([[0.6, 0.4], [0.3, 0.7]]), [1])
    matrices = {index: matrix.tolist() for index, matrix in confusion_matrices(model, (2, 1)).items()}
    assert matrices == {0: [[0.9, 0.1], [0.2, 0.8]], 1: [[0.6, 0.4], [0.3, 0.7]]}
    # So it is where Aer itself measures.
    expected = AerBackend(noise=Noise.of_model(model)).submit(SPEC, angles(batch=2)).result()
    sampled = AerBackend(noise=Noise.of_model(model), shots=shots, method="statevector")
    drawn = sampled.submit(SPEC, angles(batch=2)).result()
    assert ((drawn - expected).abs() < SIGMAS / math.sqrt(shots)).all()


def test_what_is_never_misread_is_not_confused():
    assert confusion_matrices(None, (0, 1)) == {}
    model = NoiseModel()
    model.add_readout_error(ReadoutError([[0.6, 0.4], [0.3, 0.7]]), [1])
    assert list(confusion_matrices(model, (0, 1))) == [1]


def test_what_is_no_device_and_no_model_is_refused():
    with pytest.raises(ValueError, match=r"^noise: got 'athens'; allowed: a Qiskit BackendV2$"):
        Noise.of_backend("athens")
    with pytest.raises(ValueError, match=r"^noise: got 'athens'; allowed: a qiskit_aer.noise.NoiseModel$"):
        Noise.of_model("athens")


def test_without_aer_it_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "qiskit_aer", None)
    for make in (lambda: Noise.of_backend(None), lambda: Noise.of_model(None), EVERYTHING.model):
        with pytest.raises(CircuitError, match=r"^backend aer: needs qiskit-aer \(pip install qiskit-aer\)$"):
            make()
