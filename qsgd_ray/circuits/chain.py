"""Exact simulation in time linear in the number of qubits: a CircuitSpec and angles in, <Z_i> or amplitudes out.

A CNOT hands one carry from its control to its target (carries.py), and all entangling layers reduce to CNOTs between
neighbours, so a circuit is one sweep over its wires (influence.py) with 4**(depth-1) real numbers (2**(depth-1) complex
ones for amplitudes) in hand. The last entangling layer is never applied: it permutes basis states, and so turns <Z_k>
into a product of Zs, and a basis state into another one, both before it.

- chain: y_k = x_k xor y_{k-1}, so <Z_k> = <Z_0 ... Z_k> before the last chain. What stands to the right of k matters
  only through the next depth-1 wires, each a layer shallower than the one before: those are taken for all k at once.
- all: every pair i < j in order gives y_k = x_k xor x_{k-1}, the chain (n-2,n-1), ..., (0,1). Seen through H on every
  wire, and from the last wire to the first, that is the ascending chain, with X in place of Z. <Z_k> = <Z_{k-1} Z_k>.
- ring: the chain whose last carry of each layer comes in at its first wire. Both environments are swept, for each of
  the 4**(depth-1) values of those carries. <Z_0> = <Z_1 ... Z_{n-1}>.
- none: one wire at a time.

Batching law, as in statevector.py: the bits of one circuit's answer do not depend on what else is in the batch, nor on
chunks. Along the batch there are only +, -, * in separate operations and the library's cos and sin. Without gradients
on a CPU the sweep runs in numpy, at a third of torch's overhead an operation, to the same bits.

Gradients: autograd. Where there is more than one block of sites of a chunk of the batch, each is computed again on the
way back (torch.utils.checkpoint): kept are the angles, the answers and the carries at the block's edge; a ring also
keeps its right environment.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from qsgd_ray.circuits.carries import AMPLITUDE, BLOCH
from qsgd_ray.circuits.influence import (
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
from qsgd_ray.circuits.kinds import Rotation
from qsgd_ray.circuits.spec import CircuitSpec

# Working memory of one block of sites of a chunk of the batch, in bytes. With 2**21 the operations are so short that
# their overhead doubles the time; 2**23 to 2**26 are equal within the noise (2026-11, 1 MiB of L2 and 32 MiB of L3).
CHUNK_BYTES = 2**24
# Circuits of a chunk: rows of 8 KiB amortise an operation's overhead.
CHUNK_CIRCUITS = 1024

# Bloch vectors (I, X, Y, Z), and observables as row vectors in the same order.
ZERO: Vector = (1, 0, 0, 1)
IDENTITY: Vector = (1, 0, 0, 0)
X: Vector = (0, 1, 0, 0)
Z: Vector = (0, 0, 0, 1)
ROOT_HALF = math.sqrt(0.5)


def expectations(spec: CircuitSpec, angles_bdnr: Tensor, *, memory_bytes: int = CHUNK_BYTES) -> Tensor:
    """<Z_i> of every qubit: (batch, n_qubits), float64 for float64 angles (radians), float32 for any others.

    Differentiable (reverse mode). `memory_bytes` is what a block of sites of a chunk of the batch works in (one site of
    one circuit at least). A ring keeps up to eight times as much, and 16**(depth-1) numbers a qubit at least; with
    gradients it keeps 16**(depth-1) numbers a qubit of every circuit.
    ValueError: angles of the wrong shape or not real floats.
    """
    spec, angles = _checked(spec, angles_bdnr)
    if not len(angles):
        return angles.flatten(1)[:, :1].expand(-1, spec.n_qubits)  # empty, and yet a function of the angles
    values = 4 ** (spec.depth - 1)
    kept = values**2 if spec.entangle == "ring" else 0
    numbers = 16 * len(spec.rotations) * spec.depth + 6 * (kept or values)
    return _by_blocks(_expectations, spec, angles, numbers, kept, memory_bytes)


def amplitudes(spec: CircuitSpec, angles_bdnr: Tensor, basis_states_ms: Tensor) -> Tensor:
    """<x|psi> of the given basis states: (batch, m) complex128 for float64 angles (radians), else complex64.

    `basis_states_ms`: (m, n_qubits) integers or booleans, 0 or 1; column i is qubit i. The same for every circuit.
    Differentiable (reverse mode). An amplitude is of the order of 2**(-n_qubits/2): beyond about 2,000 qubits float64
    no longer holds it, and what comes out is 0 or near it. Time: m sweeps, whatever the basis states have in common.
    Memory: CHUNK_BYTES (one site of one circuit with all m at least) beside what goes in and comes out.
    ValueError: angles of the wrong shape or not real floats; basis states of another shape, or neither 0 nor 1.
    """
    n = spec.n_qubits
    bits = basis_states_ms
    if bits.ndim != 2 or bits.shape[1] != n:
        raise ValueError(f"basis_states: got shape {tuple(bits.shape)}; allowed for {n} qubits: (m, {n})")
    if bits.is_floating_point() or bits.is_complex() or bool(((bits != 0) & (bits != 1)).any()):
        raise ValueError(f"basis_states: got {bits.dtype} values; allowed: integers or booleans, each 0 or 1")
    spec, angles = _checked(spec, angles_bdnr)
    bits = _before_the_last_layer(spec, bits.to(angles.device, torch.int64))
    if not len(angles) or not len(bits):
        empty = angles.flatten(1)[:, :1].expand(-1, len(bits))
        return torch.complex(empty, empty)
    passive = 2 ** (spec.depth - 1) if spec.entangle == "ring" else 1
    numbers = 64 * spec.depth + len(bits) * (8 + 8 * passive * 2 ** (spec.depth - 1))
    planes = _by_blocks(partial(_amplitudes, bits), spec, angles, numbers, 0, CHUNK_BYTES)
    return torch.complex(*planes.reshape(len(angles), 2, len(bits)).unbind(1))


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


def _checked(spec: CircuitSpec, angles_bdnr: Tensor) -> tuple[CircuitSpec, Tensor]:
    """Angles as the caller gives them in; the spec they now belong to and (batch, depth, rotation, site) angles out.

    Layers without CNOTs between them are one layer of more rotations.
    """
    spec.check_angles(angles_bdnr)
    angles = angles_bdnr if angles_bdnr.dtype in (torch.float32, torch.float64) else angles_bdnr.to(torch.float32)
    angles = angles.transpose(2, 3)
    if spec.entangle == "none" or spec.n_qubits == 1:
        merged = CircuitSpec(spec.n_qubits, 1, "none", spec.rotations * spec.depth)
        return merged, angles.reshape(len(angles), 1, len(merged.rotations), spec.n_qubits)
    return spec, angles


def _before_the_last_layer(spec: CircuitSpec, bits: Tensor) -> Tensor:
    """(m, n) bits in; the bits of the basis states that the last entangling layer maps to these out."""
    if spec.entangle == "none":
        return bits
    if spec.entangle == "all":
        return bits.cumsum(1) % 2
    first = bits[:, :1] ^ bits[:, -1:] if spec.entangle == "ring" else bits[:, :1]
    bits = torch.cat((first, bits[:, 1:]), 1)
    return torch.cat((first, bits[:, 1:] ^ bits[:, :-1]), 1)


# How a block of sites is run: its function and its arguments in, its answer out.
Run = Callable[..., Any]


def _by_blocks(
    compute: Callable[[CircuitSpec, Tensor, int, Run], Tensor],
    spec: CircuitSpec,
    angles: Tensor,
    numbers: int,
    kept: int,
    memory_bytes: int,
) -> Tensor:
    """(batch, answers) of `compute`, which answers (answers, batch) for (depth, rotation, site, batch) and a number of
    sites at a time. `numbers`: what a site of a circuit takes while it is worked on, `kept`: what it takes throughout.
    """
    n, numbers_held = spec.n_qubits, memory_bytes // angles.element_size()
    # A block computes the wires just behind it as well, about `depth`: so eight times as many first, then circuits. Not
    # so a ring's, where few circuits at a time would make every operation's rows too short.
    first = 1 if spec.entangle == "ring" else min(n, 8 * spec.depth)
    circuits = min(CHUNK_CIRCUITS, len(angles), max(1, numbers_held // (numbers * first)))
    if kept:
        circuits = min(circuits, max(1, 8 * numbers_held // (kept * n)))
    sites = max(1, numbers_held // (numbers * circuits))
    run = _at_once if circuits >= len(angles) and sites >= n else _recomputed
    answers = [compute(spec, chunk.permute(1, 2, 3, 0), sites, run).t() for chunk in angles.split(circuits)]
    whole = torch.cat(answers) if len(answers) > 1 else answers[0].contiguous()
    if torch.is_grad_enabled() and angles.requires_grad and not whole.requires_grad:
        return whole + angles.flatten(1)[:, :1] * 0  # what depends on no angle has the gradient zero, not none
    return whole


def _at_once(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def _recomputed(function: Callable[..., Any], *arguments: Any) -> Any:
    """function(*arguments), which keeps nothing for the way back but its arguments."""
    if torch.is_grad_enabled() and any(isinstance(one, Tensor) and one.requires_grad for one in arguments):
        return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
    return function(*arguments)


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
    return torch.cat((_added(left * plain, 0)[None], *z))


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
    return _added(left * right, 1), left[-1].clone()


def _amplitudes(bits: Tensor, spec: CircuitSpec, angles: Tensor, sites: int, run: Run) -> Tensor:
    """(2 * m, batch): the real parts, then the imaginary ones, of the basis states before the last entangling layer."""
    n, depth, rotations = spec.n_qubits, spec.depth, spec.rotations
    is_mirrored, values, m = spec.entangle == "all", 2 ** (depth - 1), len(bits)
    if is_mirrored:
        (rotations, angles), bits = mirrored(rotations, angles), bits.flip(1)
    passive = values if spec.entangle == "ring" else 1
    # No carry comes into the first wire of a chain: bit 0 in every layer. Axes: passive, plane, carries, m, batch.
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
        return _added(carries.diagonal(0, 0, 2), -1).reshape(2 * m, -1)
    return _added(carries[0], 1).reshape(2 * m, -1)


def _amplitudes_block(
    rotations: tuple[Rotation, ...],
    angles: Tensor,
    bits: Tensor,
    carries: Tensor,
    is_mirrored: bool,
    is_ring_start: bool,
) -> Tensor:
    """Angles, (site, m, 1) bits and the carries before the block in, the carries after it out."""
    depth, sites = len(angles), angles.shape[2]
    start: Vector = (1, 0, 0, 0) if is_mirrored else (ROOT_HALF, ROOT_HALF, 0, 0)
    wires = Wires(AMPLITUDE, rotations, angles[:, :, :, None], start)
    # <0| and <1|, and through H (<0| + <1|) / sqrt 2 and (<0| - <1|) / sqrt 2: real part, then imaginary part.
    a, b = (ROOT_HALF, ROOT_HALF) if is_mirrored else (1.0, 0.0)
    c, d = (ROOT_HALF, -ROOT_HALF) if is_mirrored else (0.0, 1.0)
    zero: list[Vector] = [(a, b, 0, 0), (0, 0, a, b)]
    one: list[Vector] = [(c, d, 0, 0), (0, 0, c, d)]
    passive = len(carries) // (2 * 2 ** (depth - 1))
    if is_ring_start:
        closing = wires.maps(closing_layers(depth, AMPLITUDE), zero, choice=(bits, one))
        carries = apply(at_site(closing, 0), carries, passive, planes=2)
    maps = wires.maps(wire_layers(depth, AMPLITUDE), zero, choice=(bits, one))
    return sweep(maps, carries, range(int(is_ring_start), sites), passive, planes=2, last_only=True)


def _added(terms: Tensor, dim: int) -> Tensor:
    """The sum along `dim`, by pairs: in an order that only their number decides."""
    terms = terms.movedim(dim, 0)
    while (n := len(terms)) > 1:
        pairs = terms[: n - 1 : 2] + terms[1::2]
        terms = torch.cat((pairs, terms[n - 1 :])) if n % 2 else pairs
    return terms[0]
