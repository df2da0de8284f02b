"""<Z_i> by sweeps in Python (derivation: docs/chain_engine.md): the twin of the kernel of _native.py.

It answers where there is no compiler, on other devices, for deeper circuits and for forward-mode differentiation.

The batching law of circuits/statevector/simulate.py holds: along the batch there are only +, -, * in separate
operations and the library's cos and sin. Memory and gradients: _blocks.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qsgd_ray.circuits.chain._blocks import BlockRunner, map_blocks, pairwise_sum
from qsgd_ray.circuits.chain._cnot_tables import BLOCH
from qsgd_ray.circuits.chain._transfer import (
    PLUS,
    Vector,
    Wires,
    across_sites,
    apply,
    at_site,
    closing_layers,
    mirrored,
    sweep,
    traced_layers,
    wire_layers,
)
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config.circuit import Rotation

# Pauli components (I, X, Y, Z) of |0>, and observables as row vectors in the same order.
_ZERO: Vector = (1, 0, 0, 1)
_IDENTITY: Vector = (1, 0, 0, 0)
_X: Vector = (0, 1, 0, 0)
_Z: Vector = (0, 0, 0, 1)


def expectations(spec: CircuitSpec, angles_bdrn: Tensor, memory_bytes: int) -> Tensor:
    """Return <Z_i>, (b, n), from angles as of `prepare_angles`, at least one circuit; any derivative is autograd's."""
    values = 4 ** (spec.depth - 1)
    stored = values**2 if spec.entangle == "ring" else 0
    numbers = 16 * len(spec.rotations) * spec.depth + 6 * (stored or values)
    return map_blocks(_expectations, spec, angles_bdrn, numbers, stored, memory_bytes)


def _expectations(spec: CircuitSpec, angles: Tensor, sites: int, run: BlockRunner) -> Tensor:
    """Return <Z_i>, (n, b), from angles (d, r, n, b), `sites` wires at a time."""
    if spec.entangle == "none":
        return torch.cat([run(_single, spec.rotations, block.contiguous()) for block in angles.split(sites, 2)])
    return (_ring if spec.entangle == "ring" else _open)(spec, angles, sites, run)


def _single(rotations: tuple[Rotation, ...], angles: Tensor) -> Tensor:
    """Return <Z>, (site, b), of wires without CNOTs from the angles of their one layer."""
    wires = Wires(BLOCH, rotations, angles, PLUS)
    return wires.filled(wires.opening()[3])


def _open(spec: CircuitSpec, angles: Tensor, sites: int, run: BlockRunner) -> Tensor:
    """Return <Z_k>, (n, b), of a chain; all pairs are the mirrored chain."""
    n, depth, rotations = spec.n_qubits, spec.depth, spec.rotations
    is_mirrored = spec.entangle == "all"
    if is_mirrored:
        rotations, angles = mirrored(rotations, angles)
    halo = depth if is_mirrored else depth - 1
    blocks = []
    # The first wire is no target: the carries s and d together, as T_s + T_d is the identity.
    carries = angles.new_zeros((4,) * (depth - 1))
    carries[(slice(1, 3),) * (depth - 1)] = 1
    carries = carries.reshape(-1, 1).expand(-1, angles.shape[-1])
    for start in range(0, n, sites):
        stop = min(start + sites, n)
        block = angles[:, :, start : stop + halo].contiguous()
        z, carries = run(_open_block, rotations, is_mirrored, block, stop - start, carries)
        blocks.append(z)
    z = torch.cat(blocks)
    return z.flip(0) if is_mirrored else z


def _open_block(
    rotations: tuple[Rotation, ...], is_mirrored: bool, angles: Tensor, sites: int, carries: Tensor
) -> tuple[Tensor, Tensor]:
    """Return <Z_k>, (sites, b), of a block and the carries behind it, from the carries in front of it.

    The angles reach beyond the block by the halo, as far as the circuit has wires.
    """
    depth = len(angles)
    idle = sites + (depth if is_mirrored else depth - 1) - angles.shape[2]
    wires = Wires(BLOCH, rotations, angles, _ZERO if is_mirrored else PLUS, idle)
    if is_mirrored:
        passed = wires.maps(wire_layers(depth), [_IDENTITY])
        swept = sweep(passed, carries, range(sites))
        observed = wires.maps(wire_layers(depth), [_X])
        x = torch.cat((carries[None], swept[:-1])).transpose(0, 1)
        for shift in range(2):
            x = apply(across_sites(observed, shift, shift + sites), x)
    else:
        swept = sweep(wires.maps(wire_layers(depth), [_Z]), carries, range(sites))
        x, shift = swept.transpose(0, 1), 0
    for layers in range(depth - 1, 0, -1):
        shift += 1
        x = apply(across_sites(wires.maps(traced_layers(layers)), shift, shift + sites), x)
    return x[0], swept[-1].clone()  # a view would store the carries of every site for the way back


def _ring(spec: CircuitSpec, angles: Tensor, sites: int, run: BlockRunner) -> Tensor:
    """Return <Z_k>, (n, b), of a ring, cut between the wires 0 and 1.

    Both environments have an axis for the carries that cross the cut.
    """
    n, rotations, values = spec.n_qubits, spec.rotations, 4 ** (spec.depth - 1)
    cut = angles.new_zeros(values * values)
    cut[:: values + 1] = 1
    left = cut[:, None].expand(-1, angles.shape[-1])
    blocks = [slice(start, min(start + sites, n)) for start in range(1, n, sites)]
    # Wire 0 follows wire n-1: right[k] has the wires k+1 ... n-1 without an observable, then wire 0 with Z.
    carries, unmeasured = run(_closing_wire, rotations, angles[:, :, :1].contiguous(), left)
    right = []
    for block in reversed(blocks):
        swept = run(_ring_right, rotations, angles[:, :, block].contiguous(), carries)
        right.append(torch.cat((swept[:-1].flip(0), carries[None])))
        carries = swept[-1].clone()
    z = []
    for block in blocks:
        z_block, left = run(_ring_left, rotations, angles[:, :, block].contiguous(), left, right.pop())
        z.append(z_block)
    return torch.cat((pairwise_sum(left * unmeasured, 0)[None], *z))


def _closing_wire(rotations: tuple[Rotation, ...], angles: Tensor, cut: Tensor) -> list[Tensor]:
    """Return wire 0 of a ring as a transposed matrix of carries, (values * values, b): with Z measured, and without."""
    depth, batch = len(angles), angles.shape[-1]
    wires, values = Wires(BLOCH, rotations, angles, PLUS), 4 ** (depth - 1)
    maps = [at_site(wires.maps(closing_layers(depth), [observable]), 0) for observable in (_Z, _IDENTITY)]
    matrices = [apply(layers, cut, values).reshape(values, values, batch) for layers in maps]
    return [matrix.transpose(0, 1).reshape(-1, batch) for matrix in matrices]


def _ring_right(rotations: tuple[Rotation, ...], angles: Tensor, carries: Tensor) -> Tensor:
    """Return the right environment of each wire of a block, from the last wire to the first, (sites, values, b).

    `carries`: the right environment of the block.
    """
    depth = len(angles)
    maps = Wires(BLOCH, rotations, angles, PLUS).maps(wire_layers(depth), [_IDENTITY], transposed=True)
    return sweep(maps, carries, range(angles.shape[2] - 1, -1, -1), 4 ** (depth - 1))


def _ring_left(
    rotations: tuple[Rotation, ...], angles: Tensor, carries: Tensor, right: Tensor
) -> tuple[Tensor, Tensor]:
    """Return <Z_k>, (sites, b), of a block and the left environment behind it, from both its environments."""
    depth = len(angles)
    maps = Wires(BLOCH, rotations, angles, PLUS).maps(wire_layers(depth), [_Z])
    left = sweep(maps, carries, range(angles.shape[2]), 4 ** (depth - 1))
    return pairwise_sum(left * right, 1), left[-1].clone()
