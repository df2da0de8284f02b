"""Circuits in the gates and on the qubits that their noise is attached to, and the errors that can strike there."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qsgd_ray.circuits.aer.noise import DeviceNoise, Noise, _device_name, _relaxes
from qsgd_ray.circuits.errors import CircuitError
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config.errors import one_line


class Placed(NamedTuple):
    """A circuit in gates that its noise knows.

    Attributes:
        circuit: the parametrised Qiskit circuit.
        qubits: the circuit's qubit on which each qubit of the spec ends.
        used: the circuit's qubits that a gate touches; Aer leaves idle ones out.
    """

    circuit: Any
    qubits: tuple[int, ...]
    used: frozenset[int]


@lru_cache(maxsize=64)
def place(spec: CircuitSpec, noise: Noise | DeviceNoise | None) -> Placed:
    """Return the circuit in the gates that the noise is attached to by name: to Aer, no other gate is noisy.

    CircuitError: more qubits than the device has, or a circuit that cannot be written in its gates and couplings.
    """
    circuit, qubits = spec.to_qiskit(), range(spec.n_qubits)
    if isinstance(noise, DeviceNoise) and noise.device is not None:
        from qiskit import QiskitError, transpile

        largest = noise.device.num_qubits
        if largest is not None and spec.n_qubits > largest:
            raise CircuitError(f"n_qubits: got {spec.n_qubits}; allowed on this device: at most {largest}")
        try:
            circuit = transpile(circuit, noise.device, optimization_level=1, seed_transpiler=0)
        except QiskitError as error:
            reason = one_line(getattr(error, "message", error), part="first", limit=80)
            raise CircuitError(
                f"noise: got {_device_name(noise.device)}, which cannot run {spec.n_qubits} qubits, entangle "
                f"{spec.entangle} ({reason}); allowed: a device with such gates and so many connected qubits"
            ) from error
        if circuit.layout is not None:  # a device whose qubits are all coupled leaves them where they are
            qubits = circuit.layout.final_index_layout()
    elif isinstance(noise, DeviceNoise):
        from qiskit import transpile

        gates = {*Noise.gates_1q, *Noise.gates_2q, "measure", "reset", "id"}
        if not gates.issuperset(noise.noise_model.noise_instructions):
            circuit = transpile(circuit, basis_gates=noise.noise_model.basis_gates, optimization_level=0)
    used = {circuit.find_bit(qubit).index for instruction in circuit.data for qubit in instruction.qubits}
    return Placed(circuit, tuple(qubits), frozenset(used))


def model_on(placed: Placed, noise: Noise | DeviceNoise) -> Any:
    """Return Aer's model of the noise that can strike a circuit.

    Without the errors of other qubits, since every run writes its whole model out: 0.1 s for a device of 8 qubits.
    CircuitError: numbers of the device that are no noise, such as negative times.
    """
    if isinstance(noise, Noise) or noise.noise_model is not None:
        return noise.model()
    from qiskit import QiskitError
    from qiskit_aer.noise import NoiseModel, ReadoutError
    from qiskit_aer.noise.device import basic_device_gate_errors

    gates, target = placed.circuit.count_ops(), noise.device.target
    model = NoiseModel(basis_gates=sorted(gates))
    try:
        errors = basic_device_gate_errors(target=target, thermal_relaxation=_relaxes(target))
    except QiskitError as error:
        reason = one_line(getattr(error, "message", error), part="first", limit=120)
        raise CircuitError(
            f"noise: got {_device_name(noise.device)} with numbers that are no noise ({reason}); allowed: "
            "probabilities and positive times"
        ) from error
    for gate, qubits, channel in errors:
        if gate in gates and placed.used.issuperset(qubits):
            model.add_quantum_error(channel, gate, qubits)
    measured = target["measure"] if "measure" in target.operation_names else None
    for qubit in sorted(placed.used):
        properties = (measured or {}).get((qubit,))
        both = getattr(properties, "error", None)
        p01, p10 = (getattr(properties, name, both) for name in ("prob_meas1_prep0", "prob_meas0_prep1"))
        if p01 is not None and p10 is not None:
            model.add_readout_error(ReadoutError([[1 - p01, p01], [p10, 1 - p10]]), [qubit])
    return model


def confusion_matrices(model: Any, qubits: tuple[int, ...]) -> dict[int, NDArray[np.float64]]:
    """Return ((P(0|0), P(1|0)), (P(0|1), P(1|1))) of each of `qubits` that is misread, by its index among them.

    Aer misreads at a measurement only, so exact answers have to be misread afterwards. A qubit's own error takes
    precedence over that of all qubits. `model`: None is no noise. CircuitError: the model has errors at measurement
    that are no readout errors of single qubits.
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
        matrix = np.asarray(error["probabilities"], dtype=np.float64)
        if targets is None:
            everywhere = matrix
        else:
            by_qubit.update({target[0]: matrix for target in targets})
    matrices = {index: by_qubit.get(qubit, everywhere) for index, qubit in enumerate(qubits)}
    return {index: matrix for index, matrix in matrices.items() if matrix is not None}
