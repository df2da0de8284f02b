"""Amplitudes of single basis states in time linear in the number of qubits (derivation: docs/chain_engine.md).

The sweep is that of expectations.py and holds 2**(depth-1) complex numbers. The last entangling layer maps one basis
state to another, so it is applied to the bits instead of the state. Memory and gradients: _blocks.py.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from qsgd_ray.circuits.chain._blocks import CHUNK_BYTES, BlockRunner, map_blocks, pairwise_sum, prepare_angles
from qsgd_ray.circuits.chain._cnot_tables import AMPLITUDE
from qsgd_ray.circuits.chain._transfer import (
    Vector,
    Wires,
    apply,
    at_site,
    closing_layers,
    mirrored,
    sweep,
    wire_layers,
)
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config.circuit import Rotation

_ROOT_HALF = math.sqrt(0.5)


def amplitudes(spec: CircuitSpec, angles_bdnr: Tensor, basis_states_mn: Tensor) -> Tensor:
    """Return <x|psi> of the given basis states x. Differentiable in the angles (reverse mode).

    Time: m sweeps for m basis states, whatever they have in common. Working memory: CHUNK_BYTES, or one site of one
    circuit with all m states where that is more.

    Args:
        spec: the circuit; n qubits.
        angles_bdnr: real floats, shape (b, d, n, r), in radians.
        basis_states_mn: shape (m, n), integers or booleans, each 0 or 1; column i is qubit i. The same states for every
            circuit.

    Returns:
        Amplitudes, shape (b, m); complex128 for float64 angles, else complex64. Their size is of the order of
        2**(-n/2): beyond about 2,000 qubits float64 cannot hold them, and they underflow to 0.

    Raises:
        ValueError: angles of another shape, or no real floats; basis states of another shape, or neither 0 nor 1.

    Example:
        >>> spec = CircuitSpec(2, depth=1, rotations=("ry",))
        >>> amplitudes(spec, torch.zeros(spec.angles_shape(1)), torch.tensor([[0, 0], [0, 1]]))
        tensor([[0.5000+0.j, 0.5000+0.j]])
    """
    n = spec.n_qubits
    bits = basis_states_mn
    if bits.ndim != 2 or bits.shape[1] != n:
        raise ValueError(f"basis_states: got shape {tuple(bits.shape)}; allowed for {n} qubits: (m, {n})")
    if bits.is_floating_point() or bits.is_complex() or bool(((bits != 0) & (bits != 1)).any()):
        raise ValueError(f"basis_states: got {bits.dtype} values; allowed: integers or booleans, each 0 or 1")
    spec, angles = prepare_angles(spec, angles_bdnr)
    bits = _before_the_last_layer(spec, bits.to(angles.device, torch.int64))
    if not len(angles) or not len(bits):
        empty = angles.flatten(1)[:, :1].expand(-1, len(bits))
        return torch.complex(empty, empty)
    passive = 2 ** (spec.depth - 1) if spec.entangle == "ring" else 1
    numbers = 64 * spec.depth + len(bits) * (8 + 8 * passive * 2 ** (spec.depth - 1))
    planes = map_blocks(partial(_amplitudes, bits), spec, angles, numbers, 0, CHUNK_BYTES)
    return torch.complex(*planes.reshape(len(angles), 2, len(bits)).unbind(1))


def _before_the_last_layer(spec: CircuitSpec, bits: Tensor) -> Tensor:
    """Return the basis states, (m, n), that the last entangling layer maps to `bits`."""
    if spec.entangle == "none":
        return bits
    if spec.entangle == "all":
        return bits.cumsum(1) % 2
    first = bits[:, :1] ^ bits[:, -1:] if spec.entangle == "ring" else bits[:, :1]
    bits = torch.cat((first, bits[:, 1:]), 1)
    return torch.cat((first, bits[:, 1:] ^ bits[:, :-1]), 1)


def _amplitudes(bits: Tensor, spec: CircuitSpec, angles: Tensor, sites: int, run: BlockRunner) -> Tensor:
    """Return the real parts, then the imaginary parts, (2 * m, b), of basis states before the last entangling layer."""
    n, depth, rotations = spec.n_qubits, spec.depth, spec.rotations
    is_mirrored, values, m = spec.entangle == "all", 2 ** (depth - 1), len(bits)
    if is_mirrored:
        (rotations, angles), bits = mirrored(rotations, angles), bits.flip(1)
    passive = values if spec.entangle == "ring" else 1
    # The carry into the first wire of a chain is 0 in every layer. Axes: passive, plane, carries, m, batch.
    carries = angles.new_zeros(passive, 2, values)
    carries[:, 0] = torch.eye(values, dtype=angles.dtype, device=angles.device)[:passive]
    carries = carries.reshape(-1, 1, 1).expand(-1, m, angles.shape[-1])
    bits = bits.t()[:, :, None].bool()
    for start in range(0, n, sites):
        block = slice(start, min(start + sites, n))
        is_ring_start = start == 0 and spec.entangle == "ring"
        wires = (rotations, angles[:, :, block].contiguous(), bits[block])
        carries = run(_amplitudes_block, *wires, carries, is_mirrored, is_ring_start)
    carries = carries.reshape(passive, 2, values, m, -1)
    if passive > 1:
        return pairwise_sum(carries.diagonal(0, 0, 2), -1).reshape(2 * m, -1)
    return pairwise_sum(carries[0], 1).reshape(2 * m, -1)


def _amplitudes_block(
    rotations: tuple[Rotation, ...],
    angles: Tensor,
    bits: Tensor,
    carries: Tensor,
    is_mirrored: bool,
    is_ring_start: bool,
) -> Tensor:
    """Return the carries behind a block from those in front of it, the block's angles and its bits (site, m, 1)."""
    depth, sites = len(angles), angles.shape[2]
    start: Vector = (1, 0, 0, 0) if is_mirrored else (_ROOT_HALF, _ROOT_HALF, 0, 0)
    wires = Wires(AMPLITUDE, rotations, angles[:, :, :, None], start)
    # <0| and <1|, conjugated by H (<0| + <1|) / sqrt 2 and (<0| - <1|) / sqrt 2: real part, then imaginary part.
    a, b = (_ROOT_HALF, _ROOT_HALF) if is_mirrored else (1.0, 0.0)
    c, d = (_ROOT_HALF, -_ROOT_HALF) if is_mirrored else (0.0, 1.0)
    row_0: list[Vector] = [(a, b, 0, 0), (0, 0, a, b)]
    row_1: list[Vector] = [(c, d, 0, 0), (0, 0, c, d)]
    passive = len(carries) // (2 * 2 ** (depth - 1))
    if is_ring_start:
        closing = wires.maps(closing_layers(depth, AMPLITUDE), row_0, choice=(bits, row_1))
        carries = apply(at_site(closing, 0), carries, passive, planes=2)
    maps = wires.maps(wire_layers(depth, AMPLITUDE), row_0, choice=(bits, row_1))
    return sweep(maps, carries, range(int(is_ring_start), sites), passive, planes=2, last_only=True)
