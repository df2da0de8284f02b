"""Exact <Z_i> and amplitudes of shallow circuits in time linear in the number of qubits (docs/chain_engine.md)."""
