"""What the sweeps of the chain engine share: angles as they take them, block by block of sites within a memory.

Gradients: autograd. Where there is more than one block of sites of a chunk of the batch, each is computed again on the
way back (torch.utils.checkpoint): kept are the angles, the answers and the carries at the block's edge; a ring also
keeps its right environment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from qsgd_ray.circuits.spec import CircuitSpec

# Working memory of one block of sites of a chunk of the batch, in bytes. With 2**21 the operations are so short that
# their overhead doubles the time; 2**23 to 2**26 are equal within the noise (2026-11, 1 MiB of L2 and 32 MiB of L3).
CHUNK_BYTES = 2**24
# Circuits of a chunk: rows of 8 KiB amortise an operation's overhead.
CHUNK_CIRCUITS = 1024


def checked(spec: CircuitSpec, angles_bdnr: Tensor) -> tuple[CircuitSpec, Tensor]:
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


# How a block of sites is run: its function and its arguments in, its answer out.
Run = Callable[..., Any]


def by_blocks(
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


def added(terms: Tensor, dim: int) -> Tensor:
    """The sum along `dim`, by pairs: in an order that only their number decides."""
    terms = terms.movedim(dim, 0)
    while (n := len(terms)) > 1:
        pairs = terms[: n - 1 : 2] + terms[1::2]
        terms = torch.cat((pairs, terms[n - 1 :])) if n % 2 else pairs
    return terms[0]
