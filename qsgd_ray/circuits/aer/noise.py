"""Noise: probabilities and times, a device or a model in; Aer's model of it, and the circuits that it strikes, out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qsgd_ray.circuits.aer.executor import import_aer
from qsgd_ray.circuits.errors import CircuitError
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config.circuit import NoiseSettings

GATES_1Q, GATES_2Q = ("h", "rx", "ry", "rz"), ("cx",)


class Noise(NoiseSettings):
    """NoiseSettings with Aer's model of them; or a device's noise, or a model as it is."""

    @staticmethod
    def of_backend(device: Any) -> DeviceNoise:
        """A Qiskit backend's noise, on its gates and its coupling map: a fake device, or a real one's last report.

        ValueError: no BackendV2. CircuitError: Aer is not there.
        """
        import_aer()
        if getattr(device, "target", None) is None:
            raise ValueError(f"noise: got {device!r}; allowed: a Qiskit BackendV2")
        return DeviceNoise(None, device)

    @staticmethod
    def of_model(model: Any) -> DeviceNoise:
        """A qiskit_aer.noise.NoiseModel as it is. ValueError: no such model. CircuitError: Aer is not there."""
        import_aer()
        from qiskit_aer.noise import NoiseModel

        if not isinstance(model, NoiseModel):
            raise ValueError(f"noise: got {model!r}; allowed: a qiskit_aer.noise.NoiseModel")
        return DeviceNoise(model, None)

    def model(self) -> Any:
        """As a qiskit_aer.noise.NoiseModel. CircuitError: Aer is not there."""
        import_aer()
        from qiskit_aer.noise import NoiseModel, ReadoutError, depolarizing_error, thermal_relaxation_error

        model = NoiseModel()
        for gates, qubits, p, time_ns in (
            (GATES_1Q, 1, self.depolarizing_1q, self.gate_1q_ns),
            (GATES_2Q, 2, self.depolarizing_2q, self.gate_2q_ns),
        ):
            error = depolarizing_error(p, qubits)
            if self.t1_us is not None and self.t2_us is not None:
                relaxation = thermal_relaxation_error(1e3 * self.t1_us, 1e3 * self.t2_us, time_ns)
                error = error.compose(relaxation if qubits == 1 else relaxation.expand(relaxation))
            if not error.ideal():
                model.add_all_qubit_quantum_error(error, list(gates))
        if self.p01 or self.p10:
            model.add_all_qubit_readout_error(ReadoutError([[1 - self.p01, self.p01], [self.p10, 1 - self.p10]]))
        return model


@dataclass(frozen=True, eq=False)
class DeviceNoise:
    """A device, whose gates and coupling map circuits are transpiled to, or a noise model for circuits as they are.

    Made by Noise.of_backend and Noise.of_model. Compared and hashed by identity.
    """

    noise_model: Any
    device: Any

    def model(self) -> Any:
        """As a qiskit_aer.noise.NoiseModel: of a device, all of its qubits, which takes its time."""
        if self.device is None:
            return self.noise_model
        from qiskit_aer.noise import NoiseModel

        return NoiseModel.from_backend(self.device)


class Placed(NamedTuple):
    """A circuit in gates that its noise knows.

    `qubits`: on which of its qubits each qubit of the spec ends. `used`: those that a gate touches; Aer leaves idle
    ones out.
    """

    circuit: Any
    qubits: tuple[int, ...]
    used: frozenset[int]


@lru_cache(maxsize=64)
def place(spec: CircuitSpec, noise: Noise | DeviceNoise | None) -> Placed:
    """The parametrised circuit in the gates that the noise is attached to by name: no other gate is noisy to Aer.

    CircuitError: more qubits than the device has.
    """
    circuit, qubits = spec.to_qiskit(), range(spec.n_qubits)
    if isinstance(noise, DeviceNoise) and noise.device is not None:
        from qiskit import transpile

        if spec.n_qubits > noise.device.num_qubits:
            raise CircuitError(
                f"n_qubits: got {spec.n_qubits}; allowed on this device: at most {noise.device.num_qubits}"
            )
        circuit = transpile(circuit, noise.device, optimization_level=1, seed_transpiler=0)
        qubits = circuit.layout.final_index_layout()
    elif isinstance(noise, DeviceNoise):
        from qiskit import transpile

        ours = {*GATES_1Q, *GATES_2Q, "measure", "reset", "id"}
        if not ours.issuperset(noise.noise_model.noise_instructions):
            circuit = transpile(circuit, basis_gates=noise.noise_model.basis_gates, optimization_level=0)
    used = {circuit.find_bit(qubit).index for instruction in circuit.data for qubit in instruction.qubits}
    return Placed(circuit, tuple(qubits), frozenset(used))


def model_on(placed: Placed, noise: Noise | DeviceNoise) -> Any:
    """The noise that can strike a circuit. Every run writes its whole model out, 0.1 s for a device of 8 qubits."""
    if isinstance(noise, Noise) or noise.device is None:
        return noise.model()
    from qiskit_aer.noise import NoiseModel
    from qiskit_aer.noise.device import basic_device_gate_errors, basic_device_readout_errors

    gates, target = placed.circuit.count_ops(), noise.device.target
    model = NoiseModel(basis_gates=sorted(gates))
    for gate, qubits, error in basic_device_gate_errors(target=target):
        if gate in gates and placed.used.issuperset(qubits):
            model.add_quantum_error(error, gate, qubits)
    for qubits, error in basic_device_readout_errors(target=target):
        if placed.used.issuperset(qubits):
            model.add_readout_error(error, qubits)
    return model


def confusions(model: Any, qubits: tuple[int, ...]) -> dict[int, NDArray[np.float64]]:
    """((P(0|0), P(1|0)), (P(0|1), P(1|1))) of each of `qubits` that is misread, by its index among them.

    Aer misreads at a measure only, so exact answers have to be misread afterwards. A qubit's own error goes before that
    of all qubits. `model`: None is no noise. CircuitError: errors at a measure that are none of single qubits' readout.
    """
    if model is None:
        return {}
    everywhere, by_qubit = None, {}
    for error in model.to_dict()["errors"]:
        if "measure" not in error["operations"]:
            continue
        targets = error.get("gate_qubits")
        if error["type"] != "roerror" or any(len(target) != 1 for target in targets or ()):
            raise CircuitError("noise: got a quantum or joint error at measure; allowed: readout errors of one qubit")
        confusion = np.asarray(error["probabilities"], dtype=np.float64)
        if targets is None:
            everywhere = confusion
        else:
            by_qubit.update({target[0]: confusion for target in targets})
    found = {index: by_qubit.get(qubit, everywhere) for index, qubit in enumerate(qubits)}
    return {index: confusion for index, confusion in found.items() if confusion is not None}
