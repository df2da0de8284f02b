"""Make calls from functions of JAX: compiled by jit at the first call, complete when they return."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qsgd_ray.bench.circuits.engine import Call, Circuits, Engine


def import_jax() -> Any:
    """Return jax, set to keep float64 where it gets float64."""
    import jax

    jax.config.update("jax_enable_x64", True)
    return jax


class JaxEngine(Engine):
    """An engine given as functions of angles (b, d, n, r)."""

    needs = "jax"
    tape = True

    def states_of(self, circuits: Circuits) -> Callable[[Any], Any] | None:  # noqa: ARG002
        """Return the function from angles to amplitudes (b, 2**n); None: there is none."""
        return None

    def z_of(self, circuits: Circuits) -> Callable[[Any], Any] | None:  # noqa: ARG002
        """Return the function from angles to every <Z_i>, (b, n); None: there is none."""
        return None

    def states(self, circuits: Circuits) -> Call | None:
        """Return a call for the amplitudes."""
        return _call(self.states_of(circuits), circuits)

    def z(self, circuits: Circuits) -> Call | None:
        """Return a call for every <Z_i>."""
        return _call(self.z_of(circuits), circuits)

    def z_and_gradient(self, circuits: Circuits) -> Call | None:
        """Return a call for every <Z_i> and the gradient, by reverse mode."""
        function = self.z_of(circuits)
        if function is None:
            return None
        jax = import_jax()

        def pulled_back(angles: Any, cotangent: Any) -> Any:
            z, back = jax.vjp(function, angles)
            return z, back(cotangent.astype(z.dtype))[0]

        compiled = jax.jit(pulled_back)
        angles, cotangent = jax.numpy.asarray(circuits.angles_bdnr), jax.numpy.asarray(circuits.cotangent_bn)
        return lambda: jax.block_until_ready(compiled(angles, cotangent))


def _call(function: Callable[[Any], Any] | None, circuits: Circuits) -> Call | None:
    if function is None:
        return None
    jax = import_jax()
    compiled, angles = jax.jit(function), jax.numpy.asarray(circuits.angles_bdnr)
    return lambda: jax.block_until_ready(compiled(angles))


def z_of_states(states: Any, n_qubits: int, batch_last: bool = False) -> Any:
    """Return every <Z_i>, (b, n), of states by one matrix of signs, or by halving where that matrix is large.

    Args:
        states: (b, 2**n), or (2**n, b).
        n_qubits: n.
        batch_last: the axes are (2**n, b).
    """
    jnp = import_jax().numpy
    p = states.real**2 + states.imag**2
    if n_qubits <= 12:
        bits = (jnp.arange(2**n_qubits)[:, None] >> jnp.arange(n_qubits)) & 1
        signs = (1 - 2 * bits).astype(p.dtype)
        return (signs.T @ p).T if batch_last else p @ signs
    sums = (p if batch_last else p.T)[None]
    # Row 0 holds the sums over the qubits above; each other row a difference that is summed further on.
    for _ in range(n_qubits):
        low, high = sums.reshape(len(sums), 2, -1, sums.shape[-1]).swapaxes(0, 1)
        sums = jnp.concatenate([low + high, (low - high)[:1]])
    # The topmost qubit came first.
    return sums[1:, 0][::-1].T
