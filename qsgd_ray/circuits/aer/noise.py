"""Noise for Aer: depolarizing, relaxation and readout errors, a device's noise, or a noise model as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from qsgd_ray.circuits.aer.executor import import_aer
from qsgd_ray.config.circuit import NoiseSettings
from qsgd_ray.config.errors import one_line


class Noise(NoiseSettings):
    """Noise settings that know Aer's model of them. `of_backend` and `of_model` give other kinds of noise.

    Every gate of one qubit is followed by a depolarizing channel of probability `depolarizing_1q` and, with `t1_us` and
    `t2_us`, by thermal relaxation for `gate_1q_ns`; gates of two qubits alike. `p01` is the probability to read 1 where
    the qubit is 0, `p10` the other way round. Fields, units and ranges: `NoiseSettings`.

    Example:
        >>> Noise(depolarizing_2q=0.01, p01=0.02).p01
        0.02
    """

    # All gates of a `CircuitSpec`, by Qiskit's names.
    gates_1q: ClassVar[tuple[str, ...]] = ("h", "rx", "ry", "rz")
    gates_2q: ClassVar[tuple[str, ...]] = ("cx",)

    @staticmethod
    def of_backend(device: Any) -> DeviceNoise:
        """Return the noise of a Qiskit backend, on its gates and its coupling map.

        Args:
            device: a fake device; a real one as of its last calibration; or an AerSimulator with a noise model, which
                is then the noise, on the simulator's coupling map where it has one.

        Returns:
            The noise. Circuits that the device cannot run are refused by the backend's `submit`.

        Raises:
            ValueError: no BackendV2; one that tells no errors of its gates and measurements, or such as are none.
            CircuitError: Aer is not installed.
        """
        import_aer()
        from qiskit.providers import BackendV2

        if not isinstance(device, BackendV2) or device.target is None:
            raise ValueError(f"noise: got {one_line(repr(device), limit=100)}; allowed: a Qiskit BackendV2")
        model = getattr(device.options, "noise_model", None)
        if not (_has_errors(device) if model is None else model.to_dict()["errors"]):
            raise ValueError(
                f"noise: got {_device_name(device)}, of whose gates no error is known; allowed: a device with errors, "
                "or a simulator with a noise model"
            )
        if model is not None and device.coupling_map is None:
            return DeviceNoise(model, None)
        return DeviceNoise(model, device)

    @staticmethod
    def of_model(model: Any) -> DeviceNoise:
        """Return a qiskit_aer.noise.NoiseModel as noise. ValueError: no such model. CircuitError: no Aer here."""
        import_aer()
        from qiskit_aer.noise import NoiseModel

        if not isinstance(model, NoiseModel):
            raise ValueError(f"noise: got {model!r}; allowed: a qiskit_aer.noise.NoiseModel")
        return DeviceNoise(model, None)

    def model(self) -> Any:
        """Return the settings as a qiskit_aer.noise.NoiseModel. CircuitError: Aer is not installed."""
        import_aer()
        from qiskit_aer.noise import NoiseModel, ReadoutError, depolarizing_error, thermal_relaxation_error

        model = NoiseModel()
        for gates, qubits, p, time_ns in (
            (self.gates_1q, 1, self.depolarizing_1q, self.gate_1q_ns),
            (self.gates_2q, 2, self.depolarizing_2q, self.gate_2q_ns),
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
    """The noise of a device, or a noise model. Made by `Noise.of_backend` and `Noise.of_model`.

    Compared and hashed by identity.

    Attributes:
        noise_model: a qiskit_aer.noise.NoiseModel, or None: that of the device.
        device: a BackendV2, whose gates and coupling map circuits are transpiled to; None: circuits stay as they are.
    """

    noise_model: Any
    device: Any

    def model(self) -> Any:
        """Return the noise as a qiskit_aer.noise.NoiseModel. For a device, of all its qubits: that takes a while."""
        if self.noise_model is not None:
            return self.noise_model
        from qiskit_aer.noise import NoiseModel

        return NoiseModel.from_backend(self.device)


def _device_name(device: Any) -> str:
    """Return how a device is called in messages."""
    return one_line(getattr(device, "name", None) or type(device).__name__, limit=60)


def _relaxes(target: Any) -> bool:
    """Return True where a Qiskit target says of every qubit how it _relaxes."""
    return bool(target.qubit_properties) and all(qubit is not None for qubit in target.qubit_properties)


def _has_errors(device: Any) -> bool:
    """Return True where a device tells an error of a gate or a measurement, or relaxation while a gate lasts.

    ValueError: an error that is no probability.
    """
    target, known = device.target, False
    for name in target.operation_names:
        for qubits, properties in (target[name] or {}).items():
            error = None if properties is None else properties.error
            if error is not None and not 0 <= error <= 1:
                raise ValueError(
                    f"noise: got {_device_name(device)} with an error of {error} for {name} on {qubits}; "
                    "allowed: 0 to 1"
                )
            lasts = _relaxes(target) and properties is not None and bool(properties.duration)
            known = known or bool(error) or (lasts and any(target.qubit_properties[qubit].t1 for qubit in qubits or ()))
    return known
