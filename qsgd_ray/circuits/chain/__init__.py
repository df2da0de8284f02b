"""Exact <Z_i> and amplitudes of shallow circuits in time linear in the number of qubits (docs/chain_engine.md).

`expectations` has <Z_i> and what they cost; `amplitudes` gives single amplitudes.
"""

from qsgd_ray.circuits.chain._amplitudes import amplitudes

__all__ = ["amplitudes"]
