"""Exact <Z_i> of shallow circuits in time linear in the number of qubits (derivation: docs/chain_engine.md).

A CNOT passes one carry from its control to its target (_cnot_tables.py), and all entangling layers reduce to CNOTs
between neighbours. So a circuit is one sweep over its wires (_transfer.py) that holds 4**(depth-1) real numbers. The
last entangling layer is never applied: it permutes basis states, so it turns Z_k into a product of Zs before it.

- chain: y_k = x_k xor y_{k-1}, so <Z_k> = <Z_0 ... Z_k> before the last chain. The wires behind k matter only through
  the next depth-1 of them, each a layer shallower than the one before; these are applied to all k together.
- all: every pair i < j in order gives y_k = x_k xor x_{k-1}, the chain (n-2,n-1), ..., (0,1). Conjugated by H on every
  wire, and read from the last wire to the first, that is the ascending chain, with X in place of Z.
  <Z_k> = <Z_{k-1} Z_k>.
- ring: a chain whose last carry of each layer enters its first wire. Both environments are swept, for each of the
  4**(depth-1) values of those carries. <Z_0> = <Z_1 ... Z_{n-1}>.
- none: each wire alone.

The sweep is a kernel (_native.py), with gradients of its own; _twin.py is the same in Python, for where that can't be.
An answer's bits depend on neither the batch, its cut, the memory nor the threads.
"""

from __future__ import annotations

from torch import Tensor

from qsgd_ray.circuits.chain import _native, _twin
from qsgd_ray.circuits.chain._blocks import CHUNK_BYTES, CHUNK_CIRCUITS, prepare_angles
from qsgd_ray.circuits.spec import CircuitSpec

__all__ = ["CHUNK_BYTES", "CHUNK_CIRCUITS", "cost", "expectations", "has_kernel", "needed_bytes"]


def expectations(spec: CircuitSpec, angles_bdnr: Tensor, *, memory_bytes: int = CHUNK_BYTES) -> Tensor:
    """Return <Z_i> of every qubit i. Differentiable in the angles.

    Time grows like n d 4**d (chain, all), n d 16**d (ring) or n d (none); see `cost`.

    Args:
        spec: the circuit; n qubits, depth d.
        angles_bdnr: real floats, shape (b, d, n, r), in radians.
        memory_bytes: working memory of a block of sites of one chunk of the batch; a block has at least one site of one
            circuit (the kernel: of 8 in float64, 16 in float32). A ring stores up to eight times as much besides, and
            at least 16**(d-1) numbers a qubit, with gradients twice that.

    Returns:
        Shape (b, n), in [-1, 1] up to rounding; float64 for float64 angles, else float32.

    Raises:
        ValueError: angles of another shape, or no real floats.

    Example:
        >>> import torch
        >>> spec = CircuitSpec(4096, depth=2)  # a statevector would have 2**4096 amplitudes
        >>> expectations(spec, torch.zeros(spec.angles_shape(1))).shape
        torch.Size([1, 4096])
    """
    spec, angles = prepare_angles(spec, angles_bdnr)
    if not len(angles):
        return angles.flatten(1)[:, :1].expand(-1, spec.n_qubits)  # empty, yet a function of the angles
    if _native.answers(spec, angles):
        return _native.expectations(spec, angles, memory_bytes)
    return _twin.expectations(spec, angles, memory_bytes)


def cost(spec: CircuitSpec) -> float:
    """Return the multiplications that all <Z_i> of one circuit take, up to one common factor.

    Linear in n: n d (4 r + c 4**d) for r rotations a layer, with c = 1 for "chain" and "all", 4**(d-1) for "ring" and 0
    for "none".
    """
    depth = spec.depth
    rotations = 4.0 * depth * len(spec.rotations)
    carries = {"none": 0.0, "chain": 1.0, "all": 1.0, "ring": 4.0 ** (depth - 1)}[spec.entangle] * depth * 4.0**depth
    return spec.n_qubits * (rotations + carries)


def has_kernel(spec: CircuitSpec) -> bool:
    """Return True where the kernel sweeps such a circuit, on a CPU; deeper ones are swept in Python."""
    return spec.depth <= _native.MOST_LAYERS[spec.entangle] or spec.entangle == "none"


def needed_bytes(spec: CircuitSpec) -> int:
    """Return the bytes that one circuit takes: 4**(depth-1) numbers at a time, for a ring 2 * 16**(depth-1) a qubit.

    Up to _native.MOST_LAYERS seven more are simulated beside it.
    """
    if spec.entangle == "none" or spec.n_qubits == 1:
        return 0
    bond = 4 ** (spec.depth - 1)
    working, stored = (6 * bond * bond, 2 * bond * bond * spec.n_qubits) if spec.entangle == "ring" else (6 * bond, 0)
    angles = 16 * len(spec.rotations) * spec.depth  # of one site: each rotation as a matrix
    circuits = 8 if spec.depth <= _native.MOST_LAYERS[spec.entangle] else 1
    return 8 * circuits * ((working + angles) * min(spec.n_qubits, 8 * spec.depth) + stored)
