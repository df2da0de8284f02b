"""Exact simulation in time linear in the number of qubits: a CircuitSpec and angles in, <Z_i> out.

A CNOT hands one carry from its control to its target (_cnot_tables.py), and all entangling layers reduce to CNOTs
between neighbours, so a circuit is one sweep over its wires (_transfer.py) with 4**(depth-1) real numbers in hand. The
last entangling layer is never applied: it permutes basis states, and so turns <Z_k> into a product of Zs before it.

- chain: y_k = x_k xor y_{k-1}, so <Z_k> = <Z_0 ... Z_k> before the last chain. What stands to the right of k matters
  only through the next depth-1 wires, each a layer shallower than the one before: those are taken for all k at once.
- all: every pair i < j in order gives y_k = x_k xor x_{k-1}, the chain (n-2,n-1), ..., (0,1). Seen through H on every
  wire, and from the last wire to the first, that is the ascending chain, with X in place of Z. <Z_k> = <Z_{k-1} Z_k>.
- ring: the chain whose last carry of each layer comes in at its first wire. Both environments are swept, for each of
  the 4**(depth-1) values of those carries. <Z_0> = <Z_1 ... Z_{n-1}>.
- none: one wire at a time.

Batching law, as in circuits/statevector/simulate.py: the bits of one circuit's answer do not depend on what else is in
the batch, nor on chunks. Along the batch there are only +, -, * in separate operations and the library's cos and sin.
Without gradients on a CPU the sweep runs in numpy, at a third of torch's overhead an operation, to the same bits.
Blocks of sites and gradients: blocks.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qsgd_ray.circuits.chain._blocks import CHUNK_BYTES, CHUNK_CIRCUITS, Run, added, by_blocks, checked
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

__all__ = ["CHUNK_BYTES", "CHUNK_CIRCUITS", "cost", "expectations", "needed_bytes"]

# Bloch vectors (I, X, Y, Z), and observables as row vectors in the same order.
ZERO: Vector = (1, 0, 0, 1)
IDENTITY: Vector = (1, 0, 0, 0)
X: Vector = (0, 1, 0, 0)
Z: Vector = (0, 0, 0, 1)


def expectations(spec: CircuitSpec, angles_bdnr: Tensor, *, memory_bytes: int = CHUNK_BYTES) -> Tensor:
    """<Z_i> of every qubit: (batch, n_qubits), float64 for float64 angles (radians), float32 for any others.

    Differentiable (reverse mode). `memory_bytes` is what a block of sites of a chunk of the batch works in (one site of
    one circuit at least). A ring keeps up to eight times as much, and 16**(depth-1) numbers a qubit at least; with
    gradients it keeps 16**(depth-1) numbers a qubit of every circuit.
    ValueError: angles of the wrong shape or not real floats.
    """
    spec, angles = checked(spec, angles_bdnr)
    if not len(angles):
        return angles.flatten(1)[:, :1].expand(-1, spec.n_qubits)  # empty, and yet a function of the angles
    values = 4 ** (spec.depth - 1)
    kept = values**2 if spec.entangle == "ring" else 0
    numbers = 16 * len(spec.rotations) * spec.depth + 6 * (kept or values)
    return by_blocks(_expectations, spec, angles, numbers, kept, memory_bytes)


def cost(spec: CircuitSpec) -> float:
    """Multiplications a circuit for every <Z_i>, up to one factor: what the time grows like. Linear in n_qubits."""
    depth = spec.depth
    turns = 4.0 * depth * len(spec.rotations)
    sweep = {"none": 0.0, "chain": 1.0, "all": 1.0, "ring": 4.0 ** (depth - 1)}[spec.entangle] * depth * 4.0**depth
    return spec.n_qubits * (turns + sweep)


def needed_bytes(spec: CircuitSpec) -> int:
    """Bytes that one circuit takes: 4**(depth-1) numbers at a time, a ring 16**(depth-1) a qubit."""
    if spec.entangle == "none" or spec.n_qubits == 1:
        return 0
    bond = 4 ** (spec.depth - 1)
    working, kept = (6 * bond * bond, bond * bond * spec.n_qubits) if spec.entangle == "ring" else (6 * bond, 0)
    angles = 16 * len(spec.rotations) * spec.depth  # of a site: every rotation as a matrix
    return 8 * ((working + angles) * min(spec.n_qubits, 8 * spec.depth) + kept)


def _expectations(spec: CircuitSpec, angles: Tensor, sites: int, run: Run) -> Tensor:
    """(qubit, batch) <Z_i> from (depth, rotation, site, batch) angles, `sites` at a time."""
    if spec.entangle == "none":
        return torch.cat([run(_single, spec.rotations, block.contiguous()) for block in angles.split(sites, 2)])
    return (_ring if spec.entangle == "ring" else _open)(spec, angles, sites, run)


def _single(rotations: tuple[Rotation, ...], angles: Tensor) -> Tensor:
    """(site, batch) <Z> of wires without CNOTs from the angles of their one layer."""
    wires = Wires(BLOCH, rotations, angles, PLUS)
    return wires.filled(wires.opening()[3])


def _open(spec: CircuitSpec, angles: Tensor, sites: int, run: Run) -> Tensor:
    """(qubit, batch) <Z_k> of a chain, and of all pairs as the chain that they are, from the angles."""
    n, depth, rotations = spec.n_qubits, spec.depth, spec.rotations
    is_mirrored = spec.entangle == "all"
    if is_mirrored:
        rotations, angles = mirrored(rotations, angles)
    halo = depth if is_mirrored else depth - 1
    blocks = []
    # Nobody's target: T_s + T_d is the identity.
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
    """Angles and the carries before the block in; (sites, batch) <Z_k> and the carries after it out.

    The angles reach beyond the block by the halo, as far as the circuit has wires."""
    depth = len(angles)
    idle = sites + (depth if is_mirrored else depth - 1) - angles.shape[2]
    wires = Wires(BLOCH, rotations, angles, ZERO if is_mirrored else PLUS, idle)
    if is_mirrored:
        passed = wires.maps(wire_layers(depth), [IDENTITY])
        swept = sweep(passed, carries, range(sites))
        observed = wires.maps(wire_layers(depth), [X])
        x = torch.cat((carries[None], swept[:-1])).transpose(0, 1)
        for shift in range(2):
            x = apply(across_sites(observed, shift, shift + sites), x)
    else:
        swept = sweep(wires.maps(wire_layers(depth), [Z]), carries, range(sites))
        x, shift = swept.transpose(0, 1), 0
    for layers in range(depth - 1, 0, -1):
        shift += 1
        x = apply(across_sites(wires.maps(traced_layers(layers)), shift, shift + sites), x)
    return x[0], swept[-1].clone()  # a view would keep the carries of every site for the way back


def _ring(spec: CircuitSpec, angles: Tensor, sites: int, run: Run) -> Tensor:
    """(qubit, batch) <Z_k> of a ring from the angles, cut open between the wires 0 and 1: both environments carry what
    goes through the cut."""
    n, rotations, values = spec.n_qubits, spec.rotations, 4 ** (spec.depth - 1)
    cut = angles.new_zeros(values * values)
    cut[:: values + 1] = 1
    left = cut[:, None].expand(-1, angles.shape[-1])
    blocks = [slice(start, min(start + sites, n)) for start in range(1, n, sites)]
    # Behind wire n-1 stands wire 0: right[k] holds the wires k+1 ... n-1 without observable, then wire 0 with Z.
    carries, plain = run(_closing_wire, rotations, angles[:, :, :1].contiguous(), left)
    right = []
    for block in reversed(blocks):
        swept = run(_ring_right, rotations, angles[:, :, block].contiguous(), carries)
        right.append(torch.cat((swept[:-1].flip(0), carries[None])))
        carries = swept[-1].clone()
    z = []
    for block in blocks:
        z_block, left = run(_ring_left, rotations, angles[:, :, block].contiguous(), left, right.pop())
        z.append(z_block)
    return torch.cat((added(left * plain, 0)[None], *z))


def _closing_wire(rotations: tuple[Rotation, ...], angles: Tensor, cut: Tensor) -> list[Tensor]:
    """Wire 0 of a ring from what comes in to what goes out, transposed: with Z measured, and with nothing."""
    depth, batch = len(angles), angles.shape[-1]
    wires, values = Wires(BLOCH, rotations, angles, PLUS), 4 ** (depth - 1)
    maps = [at_site(wires.maps(closing_layers(depth), [out]), 0) for out in (Z, IDENTITY)]
    matrices = [apply(one, cut, values).reshape(values, values, batch) for one in maps]
    return [matrix.transpose(0, 1).reshape(-1, batch) for matrix in matrices]


def _ring_right(rotations: tuple[Rotation, ...], angles: Tensor, carries: Tensor) -> Tensor:
    """The environment behind the block in, those before each of its wires, from the last to the first, out: (sites,
    values, batch)."""
    depth = len(angles)
    maps = Wires(BLOCH, rotations, angles, PLUS).maps(wire_layers(depth), [IDENTITY], transposed=True)
    return sweep(maps, carries, range(angles.shape[2] - 1, -1, -1), 4 ** (depth - 1))


def _ring_left(
    rotations: tuple[Rotation, ...], angles: Tensor, carries: Tensor, right: Tensor
) -> tuple[Tensor, Tensor]:
    """Both environments of the block in; (sites, batch) <Z_k> and the left environment after the block out."""
    depth = len(angles)
    maps = Wires(BLOCH, rotations, angles, PLUS).maps(wire_layers(depth), [Z])
    left = sweep(maps, carries, range(angles.shape[2]), 4 ** (depth - 1))
    return added(left * right, 1), left[-1].clone()
