"""Expectation values and amplitudes of shallow circuits in time linear in their qubits."""
