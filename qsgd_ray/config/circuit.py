"""What a circuit is asked, in words, and its noise in numbers; circuits/aer/noise.py makes models of Aer of it."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from qsgd_ray.config.base import Frozen
from qsgd_ray.config.errors import refusal

Rotation = Literal["rx", "ry", "rz"]
# CNOTs between neighbours; those and one from the last qubit to the first; between every pair; none. circuits/spec.py
# has the order in which they act.
Entangle = Literal["chain", "ring", "all", "none"]
# What a backend (circuits/backends/protocol.py) is asked of a circuit: every <Z_i>, or |psi_0|^2 + ... + |psi_{n-1}|^2,
# the weight of the first n_qubits basis states (the readout of quantum attention).
Readout = Literal["z", "probability"]


def entangle_by_name(entangle: Any) -> Any:
    """True is the paper's chain, False is none; anything else stays what it is."""
    return ("none", "chain")[entangle] if isinstance(entangle, bool) else entangle


class NoiseSettings(Frozen):
    """Noise of every gate and every measurement; all off by default. Hashable, comparable, and JSON.

    After each gate on one (two) qubits, depolarizing with probability `depolarizing_1q` (`depolarizing_2q`):
    rho -> (1 - p) rho + p I/2**k; then, where `t1_us` and `t2_us` are given, thermal relaxation to |0> of each of its
    qubits over `gate_1q_ns` (`gate_2q_ns`). `p01`: a 0 is read as 1; `p10`: a 1 is read as 0. A qubit that waits for
    others does not relax. Source: the channels of qiskit_aer.noise.
    """

    depolarizing_1q: float = Field(0.0, ge=0, le=1)
    depolarizing_2q: float = Field(0.0, ge=0, le=1)
    p01: float = Field(0.0, ge=0, le=1)
    p10: float = Field(0.0, ge=0, le=1)
    t1_us: float | None = Field(None, gt=0)
    t2_us: float | None = Field(None, gt=0)
    gate_1q_ns: float = Field(35.0, ge=0)
    gate_2q_ns: float = Field(300.0, ge=0)

    @model_validator(mode="after")
    def _physical(self) -> Self:
        if (self.t1_us is None) != (self.t2_us is None):
            raise refusal("t1_us and t2_us together")
        if self.t1_us is not None and self.t2_us is not None and self.t2_us > 2 * self.t1_us:
            raise refusal("t2_us <= 2 * t1_us")
        return self
