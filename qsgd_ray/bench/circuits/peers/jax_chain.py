"""Give every <Z_i> of a shallow chain by hand-written JAX: a matrix-product state, scanned from both ends.

Through a chain of CNOTs y_k = x_k xor y_{k-1}: a qubit hands one bit a layer to the next. So the state before its last
chain is a matrix-product state of bond 2**(d-1), and after the last chain <Z_k> is that of Z_0 ... Z_k before it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qsgd_ray.bench.circuits.engine import Circuits
from qsgd_ray.bench.circuits.peers._jax_calls import JaxEngine, import_jax
from qsgd_ray.bench.circuits.peers.jax_dense import _layer_gates

_XOR = np.array([[0, 1], [1, 0]])


def _sites(angles: Any) -> Any:
    """Return the tensors (n, x, out, in, b) of the state before its last chain; x is the qubit's index."""
    jnp = import_jax().numpy
    g = jnp.transpose(_layer_gates(angles), (2, 1, 3, 4, 0))  # (n, d, 2, 2, b)
    n, depth, batch = g.shape[0], g.shape[1], g.shape[-1]
    opening = 0.5**0.5 * g[:, 0].sum(2)  # (n, y, b)
    if depth == 1:
        return opening[:, :, None, None]
    site = opening[:, _XOR]  # (n, out y, in c, b): the qubit was y xor c
    for level in range(1, depth - 1):
        matrix = g[:, level][:, _XOR]  # (n, y, c, y of the layer before, b)
        bond = site.shape[1] // 2
        site = jnp.einsum("noyib,nzcyb->noyzicb", site.reshape(n, bond, 2, -1, batch), matrix)
        site = site.reshape(n, 4 * bond, -1, batch)
    bond = site.shape[1] // 2
    site = site.reshape(n, bond, 2, -1, batch)
    return jnp.einsum("noyib,nxyb->nxoyib", site, g[:, -1]).reshape(n, 2, 2 * bond, -1, batch)


def _expectations(angles: Any) -> Any:
    """Return every <Z_i>, (b, n)."""
    jax = import_jax()
    jnp = jax.numpy
    sites = _sites(angles)
    bond, batch = sites.shape[2], sites.shape[-1]
    # Nothing is handed to the first qubit.
    sites = sites.at[0].multiply((jnp.arange(bond) == 0)[:, None])

    def from_left(environment: Any, site: Any) -> Any:
        joined = jnp.einsum("xoib,ijb->xojb", site, environment)
        terms = jnp.einsum("xojb,xpjb->xopb", joined, site.conj())
        environment = terms[0] - terms[1]
        return environment, environment

    def from_right(environment: Any, site: Any) -> Any:
        joined = jnp.einsum("xoib,opb->xipb", site, environment)
        return jnp.einsum("xipb,xpjb->ijb", joined, site.conj()), environment

    start = jnp.zeros((bond, bond, batch), sites.dtype).at[0, 0].set(1)
    _, left = jax.lax.scan(from_left, start, sites)
    _, right = jax.lax.scan(from_right, jnp.ones_like(start), sites, reverse=True)
    return jnp.einsum("nopb,nopb->bn", left, right).real


class JaxChain(JaxEngine):
    """The scan."""

    name = "jax mps"
    chain_qubits = range(1, 2**20)

    def z_of(self, circuits: Circuits) -> Callable[[Any], Any] | None:
        """Return the scan."""
        return _expectations if circuits.spec.entangle == "chain" else None
