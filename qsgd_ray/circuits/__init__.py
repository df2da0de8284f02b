"""Circuits as data, exact batched simulators for them, and one protocol behind which every backend answers.

- `spec`: `CircuitSpec`, the one definition of a circuit; its Qiskit twin and its drawing.
- `circuit`, `gates`, `angles`: `Circuit`, any circuit of Pauli rotations and fixed gates.
- `qiskit_circuits`: `Circuit`s of Qiskit's circuits and of OpenQASM.
- `statevector`: 2**n_qubits amplitudes a circuit, any circuit.
- `chain`: `<Z_i>` and amplitudes of shallow circuits in time linear in n_qubits.
- `fourier`: the response of a circuit to one angle that all its layers share.
- `backends`, `aer`, `select`: the protocol, its implementations, and a cost model that chooses one.
"""

from qsgd_ray.circuits.gates import (
    cp,
    crx,
    cry,
    crz,
    cx,
    cy,
    cz,
    h,
    p,
    pauli_rotation,
    phase,
    rx,
    rxx,
    ry,
    ryy,
    rz,
    rzz,
    s,
    sdg,
    su4,
    swap,
    sx,
    sxdg,
    t,
    tdg,
    u,
    x,
    y,
    z,
)

__all__ = [
    "cp",
    "crx",
    "cry",
    "crz",
    "cx",
    "cy",
    "cz",
    "h",
    "p",
    "pauli_rotation",
    "phase",
    "rx",
    "rxx",
    "ry",
    "ryy",
    "rz",
    "rzz",
    "s",
    "sdg",
    "su4",
    "swap",
    "sx",
    "sxdg",
    "t",
    "tdg",
    "u",
    "x",
    "y",
    "z",
]
