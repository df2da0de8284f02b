"""Words for circuits, and their noise in numbers; circuits/aer/noise.py makes models of Aer of it."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from qsgd_ray.config._numbers import Real
from qsgd_ray.config._problems import refusal
from qsgd_ray.config._settings import Settings

Rotation = Literal["rx", "ry", "rz"]
# CNOTs between neighbours; those and one from the last qubit to the first; between every pair; none. circuits/spec.py
# has the order in which they act.
Entangle = Literal["chain", "ring", "all", "none"]
# Numbers that a backend (circuits/backends/protocol.py) computes of a circuit: every <Z_i>, or
# |psi_0|^2 + ... + |psi_{n-1}|^2, the weight of the first n_qubits basis states (the readout of quantum attention).
Readout = Literal["z", "probability"]


def entangle_by_name(entangle: Any) -> Any:
    """Return `chain`, the paper's, for True and `none` for False; anything else as it is."""
    return ("none", "chain")[entangle] if isinstance(entangle, bool) else entangle


class NoiseSettings(Settings):
    """Noise of every gate and every measurement; all off by default. Hashable, comparable, and JSON.

    After each gate on k = 1 or 2 qubits the state is depolarized, rho -> (1 - p) rho + p I / 2^k; then each of its
    qubits relaxes towards |0> for the gate's time t: the weight of |1> shrinks by exp(-t / T1), the coherence between
    |0> and |1> by exp(-t / T2). A qubit that waits for others does not relax. Readout errors strike last, each qubit
    by itself. Source: the channels of qiskit_aer.noise.

    Attributes:
        depolarizing_1q: probability p after a gate on one qubit, 0 to 1; default 0.
        depolarizing_2q: probability p after a gate on two qubits, 0 to 1; default 0.
        p01: probability that a 0 is read as 1, 0 to 1; default 0.
        p10: probability that a 1 is read as 0, 0 to 1; default 0.
        t1_us: relaxation time T1 in microseconds, > 0, together with `t2_us`. None (default): no relaxation.
        t2_us: dephasing time T2 in microseconds, > 0, at most 2 * t1_us. None (default): no relaxation.
        gate_1q_ns: time t of a gate on one qubit in nanoseconds, >= 0; default 35. Without `t1_us` it does nothing.
        gate_2q_ns: time t of a gate on two qubits in nanoseconds, >= 0; default 300. Without `t1_us` it does nothing.

    Raises:
        InvalidSettings: a value outside its range, an unknown field, one of `t1_us` and `t2_us` alone, or
            t2_us > 2 * t1_us.

    Example:
        >>> NoiseSettings(depolarizing_1q=0.001, depolarizing_2q=0.01, p01=0.02, p10=0.02).t1_us is None
        True
        >>> NoiseSettings(t1_us=100, t2_us=80).gate_2q_ns
        300.0
        >>> NoiseSettings(t1_us=100)
        Traceback (most recent call last):
            ...
        qsgd_ray.config.errors.InvalidSettings: NoiseSettings: t1_us and t2_us together
    """

    depolarizing_1q: Real = Field(0.0, ge=0, le=1)
    depolarizing_2q: Real = Field(0.0, ge=0, le=1)
    p01: Real = Field(0.0, ge=0, le=1)
    p10: Real = Field(0.0, ge=0, le=1)
    t1_us: Real | None = Field(None, gt=0)
    t2_us: Real | None = Field(None, gt=0)
    gate_1q_ns: Real = Field(35.0, ge=0)
    gate_2q_ns: Real = Field(300.0, ge=0)

    @model_validator(mode="after")
    def _physical(self) -> Self:
        if (self.t1_us is None) != (self.t2_us is None):
            raise refusal("t1_us and t2_us together")
        if self.t1_us is not None and self.t2_us is not None and self.t2_us > 2 * self.t1_us:
            raise refusal("t2_us <= 2 * t1_us")
        return self
