"""Noise for Aer: depolarizing, relaxation and readout errors, a device's noise, or a noise model as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from qsgd_ray.circuits.aer.executor import import_aer
from qsgd_ray.config.circuit import NoiseSettings


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

        `device` is a fake device, or a real one as of its last calibration. ValueError: no BackendV2. CircuitError: Aer
        is not installed.
        """
        import_aer()
        if getattr(device, "target", None) is None:
            raise ValueError(f"noise: got {device!r}; allowed: a Qiskit BackendV2")
        return DeviceNoise(None, device)

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
        noise_model: a qiskit_aer.noise.NoiseModel for circuits as they are, or None.
        device: a BackendV2, whose gates and coupling map circuits are transpiled to, or None.
    """

    noise_model: Any
    device: Any

    def model(self) -> Any:
        """Return the noise as a qiskit_aer.noise.NoiseModel. For a device, of all its qubits: that takes a while."""
        if self.device is None:
            return self.noise_model
        from qiskit_aer.noise import NoiseModel

        return NoiseModel.from_backend(self.device)
