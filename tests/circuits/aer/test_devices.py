"""Noise of Qiskit's backends and of Aer's simulators: theirs, or an error of one line."""

import numpy as np
import pytest
import torch
from support.reference_circuits import on_qubits

pytest.importorskip("qiskit_aer")

from qiskit import transpile
from qiskit.circuit import Measure, Parameter
from qiskit.circuit.library import CXGate, RZGate, SXGate, XGate
from qiskit.providers import BackendV2, Options, QubitProperties
from qiskit.providers.basic_provider import BasicSimulator
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.transpiler import InstructionProperties, Target
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel

from qsgd_ray.circuits.aer.backend import AerBackend
from qsgd_ray.circuits.aer.noise import Noise
from qsgd_ray.circuits.backends.in_process import TorchBackend
from qsgd_ray.circuits.errors import CircuitError
from qsgd_ray.circuits.select.auto import make_backend
from qsgd_ray.circuits.spec import CircuitSpec

SPEC = CircuitSpec(3)
LINE = [[0, 1], [1, 0], [1, 2], [2, 1]]
MODEL = Noise(depolarizing_1q=0.05, depolarizing_2q=0.08, p01=0.02, p10=0.1).model()
READ = np.array([[0.98, 0.1], [0.02, 0.9]])


def angles(spec=SPEC, batch=2):
    return torch.rand(spec.angles_shape(batch), generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 6


class Device(BackendV2):
    """A backend of a target and nothing else."""

    def __init__(self, target):
        super().__init__(name="device")
        self.its_target = target

    target = property(lambda self: self.its_target)
    max_circuits = None

    @classmethod
    def _default_options(cls):
        return Options()

    def run(self, *_, **__):
        raise NotImplementedError


def device(error=0.01, *, n=3, couplings=((0, 1), (1, 0), (1, 2), (2, 1)), gates=True, measure=True, **properties):
    """A device with gates of one qubit, CNOTs and measurements, of one error all."""
    relaxation = properties.pop("relaxation", None)
    target = Target(num_qubits=n, qubit_properties=None if relaxation is None else [relaxation] * n)
    each = InstructionProperties(error=error, **properties)
    if gates:
        for gate in (SXGate(), XGate(), RZGate(Parameter("a"))):
            target.add_instruction(gate, {(qubit,): each for qubit in range(n)})
    if couplings:
        target.add_instruction(CXGate(), dict.fromkeys(couplings, each))
    if measure:
        target.add_instruction(Measure(), {(qubit,): each for qubit in range(n)})
    return Device(target)


def asked(noise, spec=SPEC, **options):
    return make_backend("noise", noise=noise, **options).submit(spec, angles(spec)).result()


def z_of(probabilities, n):
    return [sum(p * (-1) ** (y >> i & 1) for y, p in enumerate(probabilities)) for i in range(n)]


@pytest.mark.parametrize("couplings", [None, LINE], ids=["all coupled", "a line"])
def test_the_noise_of_a_simulator_is_its_own_model(couplings):
    simulator = AerSimulator(noise_model=MODEL, coupling_map=couplings, n_qubits=3, method="density_matrix")
    answer, every = asked(Noise.of_backend(simulator)), []
    for one in angles():
        circuit, where = SPEC.to_qiskit(one), range(3)
        if couplings is not None:
            circuit = transpile(SPEC.to_qiskit(), simulator, optimization_level=1, seed_transpiler=0)
            where = circuit.layout.final_index_layout()
            columns = "ab"
            circuit = circuit.assign_parameters(
                {
                    p: one[(*map(int, p.name[2:-1].split(",")), columns.index(p.name[0]))].item()
                    for p in circuit.parameters
                }
            )
        circuit.save_density_matrix(where, label="rho")
        p = np.asarray(simulator.run(circuit).result().data(0)["rho"]).diagonal().real
        every.append(z_of(on_qubits([READ] * 3) @ p, 3))
    np.testing.assert_allclose(answer, every, rtol=0, atol=1e-12)
    assert (answer - TorchBackend().submit(SPEC, angles()).result()).abs().max() > 0.05


def test_a_simulators_own_model_goes_before_the_errors_of_its_device():
    plain = GenericBackendV2(3, coupling_map=LINE, seed=1)
    assert torch.allclose(asked(Noise.of_backend(AerSimulator.from_backend(plain))), asked(Noise.of_backend(plain)))
    louder = Noise(depolarizing_2q=0.5).model()
    noise = Noise.of_backend(AerSimulator.from_backend(plain, noise_model=louder))
    assert noise.model() is louder
    assert (asked(noise) - asked(Noise.of_backend(plain))).abs().max() > 0.05


@pytest.mark.parametrize(
    "made",
    [
        GenericBackendV2(3, seed=1),
        GenericBackendV2(5, coupling_map=[[0, 1], [1, 2], [3, 4]], seed=1),
        GenericBackendV2(3, basis_gates=["ecr", "rz", "sx", "x"], seed=1),
        GenericBackendV2(3, basis_gates=["cz", "rz", "sx", "x"], coupling_map=LINE, seed=1),
        GenericBackendV2(3, control_flow=True, seed=1),
        AerSimulator(noise_model=MODEL),
        AerSimulator.from_backend(GenericBackendV2(3, seed=1)),
        device(),
        device(measure=False),
        device(duration=1e-7),
        device(duration=1e-7, relaxation=QubitProperties()),
        device(error=None, duration=1e-5, relaxation=QubitProperties(t1=1e-4, t2=5e-5)),
        device(error=1.0),
    ],
)
def test_a_device_that_tells_its_errors_is_noisy(made):
    ideal = TorchBackend().submit(SPEC, angles()).result()
    answer = asked(Noise.of_backend(made))
    assert answer.isfinite().all()
    assert (answer - ideal).abs().max() > 1e-3
    assert asked(Noise.of_backend(made), shots=10).shape == (2, 3)


def one_line_of(raised):
    text = str(raised.value)
    assert len(text.splitlines()) == 1
    assert len(text) <= 300
    return text


@pytest.mark.parametrize(
    "made",
    [
        GenericBackendV2(3, noise_info=False),
        BasicSimulator(),
        AerSimulator(),
        AerSimulator(noise_model=NoiseModel()),
        device(error=None),
        device(error=0.0),
        Device(Target()),
    ],
)
def test_a_device_that_tells_no_error_is_refused(made):
    with pytest.raises(ValueError, match=r"^noise: got .*, of whose gates no error is known; allowed: ") as raised:
        Noise.of_backend(made)
    one_line_of(raised)


@pytest.mark.parametrize("made", ["x", None, AerSimulator, Device(None), object()])
def test_what_is_no_backend_is_refused(made):
    with pytest.raises(ValueError, match=r"^noise: got .*; allowed: a Qiskit BackendV2$") as raised:
        Noise.of_backend(made)
    one_line_of(raised)


@pytest.mark.parametrize("error", [1.5, -0.1, float("nan")])
def test_an_error_that_is_no_probability_is_refused(error):
    with pytest.raises(ValueError, match=r"^noise: got device with an error of .* for sx on \(0,\); allowed: 0 to 1$"):
        Noise.of_backend(device(error=error))


@pytest.mark.parametrize(
    "made",
    [
        device(couplings=()),
        device(gates=False),
        device(n=4, couplings=((0, 1), (2, 3))),
        GenericBackendV2(4, coupling_map=[[0, 1], [2, 3]], seed=1),
        GenericBackendV2(3, basis_gates=["rz", "sx", "x"], seed=1),
    ],
)
def test_a_device_that_cannot_run_the_circuit_is_refused(made):
    with pytest.raises(
        CircuitError, match=r"^noise: got .*, which cannot run 3 qubits, entangle chain .*; allowed"
    ) as r:
        asked(Noise.of_backend(made))
    one_line_of(r)


def test_times_that_are_none_are_refused():
    made = device(duration=1e-7, relaxation=QubitProperties(t1=-1e-4, t2=1e-4))
    with pytest.raises(CircuitError, match=r"^noise: got device with numbers that are no noise .*; allowed: prob") as r:
        asked(Noise.of_backend(made))
    one_line_of(r)


def test_a_simulator_with_fewer_qubits_is_refused():
    small = AerSimulator(noise_model=MODEL, coupling_map=[[0, 1]], n_qubits=2)
    with pytest.raises(CircuitError, match=r"^n_qubits: got 3; allowed on this device: at most 2$"):
        AerBackend(noise=Noise.of_backend(small)).submit(SPEC, angles())
