"""Circuits as data, exact batched simulators for them, and one protocol behind which every backend answers.

- `spec`: `CircuitSpec`, the one definition of a circuit; its Qiskit twin and its drawing.
- `statevector`: 2**n_qubits amplitudes a circuit, any circuit.
- `chain`: `<Z_i>` and amplitudes of shallow circuits in time linear in n_qubits.
- `fourier`: the response of a circuit to one angle that all its layers share.
- `backends`, `aer`, `select`: the protocol, its implementations, and a cost model that chooses one.
"""
