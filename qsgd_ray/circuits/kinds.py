"""The words for circuits: rotations, kinds of entanglement, readouts; shared by configuration and simulators."""

from __future__ import annotations

from typing import Any, Literal

Rotation = Literal["rx", "ry", "rz"]
# CNOTs between neighbours; those and one from the last qubit to the first; between every pair; none. spec.py has the
# order in which they act.
Entangle = Literal["chain", "ring", "all", "none"]
# What may be asked of a circuit behind the protocol of backends.py: every <Z_i>, or |psi_0|^2 + ... + |psi_{n-1}|^2,
# the weight of the first n_qubits basis states (the readout of quantum attention).
Readout = Literal["z", "probability"]


def entangle_by_name(entangle: Any) -> Any:
    """True is the paper's chain, False is none; anything else stays what it is."""
    return ("none", "chain")[entangle] if isinstance(entangle, bool) else entangle
