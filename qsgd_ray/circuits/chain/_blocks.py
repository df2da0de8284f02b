"""Blocks of sites and chunks of circuits, which bound the memory of a sweep.

A site is a qubit's wire, a chunk is a part of the batch. Gradients are autograd's. Where a chunk has several blocks of
sites, each block is computed again on the way back (torch.utils.checkpoint): what is stored between the passes are the
angles, the answers and the carries at the edges of blocks, and for a ring its right environment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from qsgd_ray.circuits.spec import CircuitSpec

# Working memory of one block of sites of one chunk, in bytes. At 2**21 the operations are so short that their overhead
# doubles the time; 2**23 to 2**26 are equal within the noise (2026-11, 1 MiB of L2 and 32 MiB of L3).
CHUNK_BYTES = 2**24
# Largest number of circuits in a chunk: rows of 8 KiB amortise an operation's overhead.
CHUNK_CIRCUITS = 1024


def prepare_angles(spec: CircuitSpec, angles_bdnr: Tensor) -> tuple[CircuitSpec, Tensor]:
    """Return the angles as (b, d, r, n) in float32 or float64, and the spec that they belong to.

    Layers without CNOTs between them become one layer of more rotations. ValueError: angles of another spec.
    """
    spec.check_angles(angles_bdnr)
    angles = angles_bdnr if angles_bdnr.dtype in (torch.float32, torch.float64) else angles_bdnr.to(torch.float32)
    angles = angles.transpose(2, 3)
    if spec.entangle == "none" or spec.n_qubits == 1:
        merged = CircuitSpec(spec.n_qubits, 1, "none", spec.rotations * spec.depth)
        return merged, angles.reshape(len(angles), 1, len(merged.rotations), spec.n_qubits)
    return spec, angles


# Calls a function of one block with its arguments, and decides what autograd keeps of it.
BlockRunner = Callable[..., Any]


def map_blocks(
    compute: Callable[[CircuitSpec, Tensor, int, BlockRunner], Tensor],
    spec: CircuitSpec,
    angles: Tensor,
    numbers: int,
    stored: int,
    memory_bytes: int,
) -> Tensor:
    """Return the answers of `compute` for all circuits, chunk by chunk and block by block.

    Args:
        compute: takes the spec, a chunk's angles (d, r, n, b), the number of sites in a block and a `BlockRunner`;
            returns (answers, b).
        spec: the circuit; n qubits.
        angles: shape (b, d, r, n), in radians.
        numbers: working memory of one site of one circuit, in real numbers.
        stored: memory that one site of one circuit takes throughout the sweep, in real numbers.
        memory_bytes: bound on the working memory of a block; eight times as much for what is stored.

    Returns:
        Shape (b, answers).
    """
    n, budget = spec.n_qubits, memory_bytes // angles.element_size()
    # A block also computes the next `depth` wires or so, hence blocks of eight times as many sites come first, more
    # circuits second. In a ring, circuits come first: few of them would make the rows of every operation too short.
    least_sites = 1 if spec.entangle == "ring" else min(n, 8 * spec.depth)
    circuits = min(CHUNK_CIRCUITS, len(angles), max(1, budget // (numbers * least_sites)))
    if stored:
        circuits = min(circuits, max(1, 8 * budget // (stored * n)))
    sites = max(1, budget // (numbers * circuits))
    run = _recorded if circuits >= len(angles) and sites >= n else _recomputed
    answers = [compute(spec, chunk.permute(1, 2, 3, 0), sites, run).t() for chunk in angles.split(circuits)]
    whole = torch.cat(answers) if len(answers) > 1 else answers[0].contiguous()
    if torch.is_grad_enabled() and angles.requires_grad and not whole.requires_grad:
        return whole + angles.flatten(1)[:, :1] * 0  # an answer that depends on no angle has the gradient 0, not None
    return whole


def _recorded(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return function(*arguments), recorded by autograd as usual."""
    return function(*arguments)


def _recomputed(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return function(*arguments); store only the arguments, and compute it again on the way back."""
    if torch.is_grad_enabled() and any(isinstance(value, Tensor) and value.requires_grad for value in arguments):
        return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
    return function(*arguments)


def pairwise_sum(terms: Tensor, dim: int) -> Tensor:
    """Return the sum along `dim`, pair by pair: the order of additions depends on the number of terms alone."""
    terms = terms.movedim(dim, 0)
    while (n := len(terms)) > 1:
        pairs = terms[: n - 1 : 2] + terms[1::2]
        terms = torch.cat((pairs, terms[n - 1 :])) if n % 2 else pairs
    return terms[0]
