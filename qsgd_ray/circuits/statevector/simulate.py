"""Exact simulation of many circuits at once in torch: a CircuitSpec and angles in; states, probabilities or <Z_i> out.

Two ways to a final state, chosen by counting multiplications: contraction.py for shallow open chains (the paper's
circuit), _gates.py for every other circuit. Both keep amplitudes as real planes and simulate a batch in chunks that
stay in the processor's cache; gradients flow backwards through both without keeping the states in between.

Batching law: the bits of one circuit's answer do not depend on what else is in the batch, nor on chunks or threads.
Every operation is elementwise along the batch, and the arithmetic is +, -, * and torch.addcmul, each of which rounds
the same in vector and scalar code (no matmul, no sum over an axis: their order may change with the batch size). cos and
sin are the library's; torch's CPU kernels give the same bits at every position (checked with AVX2 in float32 and
float64, torch 2.13; tests/circuits/statevector guards all three).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from qsgd_ray.circuits.memory import available_bytes, needed_bytes, require_memory
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector import _contraction as contraction
from qsgd_ray.circuits.statevector import _gates as gates
from qsgd_ray.circuits.statevector._contraction import prefers_contraction

__all__ = [
    "CHUNK_BYTES",
    "circuits_per_chunk",
    "expectations",
    "first_amplitudes",
    "prefers_contraction",
    "probabilities",
    "statevector",
    "weight_of_first",
]

# Memory for one chunk, in bytes: its states, and what prepares them. More is not quicker: chunks that stay near the
# cache are (0.25 to 16 MiB tried, 2026-11-22).
CHUNK_BYTES = 2**22
PREPARING_BYTES_A_QUBIT = 400
# From here on half a state is long enough to be the inner loop; below, the batch is.
BATCH_FIRST_FROM = 9
# States smaller than this are not worth asking the system how much memory is there.
SMALL_BYTES = 2**26


def statevector(spec: CircuitSpec, angles_bdnr: Tensor, *, memory_bytes: int = CHUNK_BYTES) -> Tensor:
    """The final states: (batch, 2**n_qubits) complex128 for float64 angles (radians), complex64 for float32.

    Differentiable (reverse mode). `memory_bytes` bounds the states of a chunk of the batch (one circuit at least).
    ValueError: angles of the wrong shape or not real floats. CircuitMemoryError: what it needs is not there.
    """
    angles_bdnr = _checked(spec, angles_bdnr, kept=angles_bdnr.shape[0])
    chunks = [_state(spec, chunk) for chunk in _chunks(spec, angles_bdnr, memory_bytes)]
    return chunks[0] if len(chunks) == 1 else torch.cat(chunks)


def first_amplitudes(spec: CircuitSpec, angles_bdnr: Tensor) -> Tensor:
    """psi_0 ... psi_{n-1}, what quantum attention reads (Eq. 4): (batch, n_qubits) complex.

    As `statevector`, and far cheaper where the state contracts: the other amplitudes are never made.
    """
    if not prefers_contraction(spec):
        return statevector(spec, angles_bdnr)[:, : spec.n_qubits]
    angles_bdnr = _checked(spec, angles_bdnr)
    return torch.complex(*contraction.first_planes(spec, _half(angles_bdnr)).unbind(0)).t()


def probabilities(spec: CircuitSpec, angles_bdnr: Tensor, *, memory_bytes: int = CHUNK_BYTES) -> Tensor:
    """|psi_x|^2 of every basis state: (batch, 2**n_qubits) real, of the dtype of the angles. As `statevector`."""
    angles_bdnr = _checked(spec, angles_bdnr, kept=angles_bdnr.shape[0])
    chunks = [_probabilities(spec, chunk) for chunk in _chunks(spec, angles_bdnr, memory_bytes)]
    return chunks[0] if len(chunks) == 1 else torch.cat(chunks)


def weight_of_first(spec: CircuitSpec, angles_bdnr: Tensor, *, memory_bytes: int = CHUNK_BYTES) -> Tensor:
    """|psi_0|^2 + ... + |psi_{n-1}|^2, the measurable readout of quantum attention: (batch, 1) real."""
    chunk = memory_bytes // needed_bytes(spec.n_qubits)
    parts = [first_amplitudes(spec, part) for part in angles_bdnr.split(max(1, chunk))] or [
        first_amplitudes(spec, angles_bdnr)
    ]
    psi_bn = torch.cat(parts)
    weights = (psi_bn.real * psi_bn.real + psi_bn.imag * psi_bn.imag).unbind(1)
    return _summed(weights)[:, None]


def expectations(spec: CircuitSpec, angles_bdnr: Tensor, *, memory_bytes: int = CHUNK_BYTES) -> Tensor:
    """<Z_i> of every qubit: (batch, n_qubits) real, of the dtype of the angles (radians).

    Differentiable (reverse mode). `memory_bytes` bounds the states of a chunk of the batch (one circuit at least).
    ValueError: angles of the wrong shape or not real floats. CircuitMemoryError: one state is not there.
    """
    angles_bdnr = _checked(spec, angles_bdnr)
    chunks = [_expectations(spec, chunk) for chunk in _chunks(spec, angles_bdnr, memory_bytes)]
    return chunks[0] if len(chunks) == 1 else torch.cat(chunks)


def _checked(spec: CircuitSpec, angles_bdnr: Tensor, kept: int = 0) -> Tensor:
    """The angles in float32 or float64. `kept`: how many states stay alive besides the one that is simulated."""
    spec.check_angles(angles_bdnr)
    if angles_bdnr.dtype not in (torch.float32, torch.float64):
        angles_bdnr = angles_bdnr.to(torch.float32)
    state = 2 * angles_bdnr.element_size() << spec.n_qubits
    if state * max(1, kept) > SMALL_BYTES:
        dtype = torch.complex128 if angles_bdnr.dtype == torch.float64 else torch.complex64
        require_memory(spec.n_qubits, available_bytes(angles_bdnr.device), dtype, kept)
    return angles_bdnr


def _chunks(spec: CircuitSpec, angles_bdnr: Tensor, memory_bytes: int) -> Iterator[Tensor]:
    circuits = circuits_per_chunk(spec.n_qubits, memory_bytes, angles_bdnr.element_size())
    return iter((angles_bdnr,) if angles_bdnr.shape[0] <= circuits else angles_bdnr.split(circuits))


def circuits_per_chunk(n_qubits: int, memory_bytes: int = CHUNK_BYTES, element_size: int = 8) -> int:
    """How many circuits a chunk holds: one at least."""
    return max(1, memory_bytes // ((2 * element_size << n_qubits) + PREPARING_BYTES_A_QUBIT * n_qubits))


def _half(angles_bdnr: Tensor) -> Tensor:
    """Half the angles as (rotation, depth, qubit, batch)."""
    return angles_bdnr.permute(3, 1, 2, 0).contiguous() * 0.5


def _planes(spec: CircuitSpec, angles_bdnr: Tensor) -> tuple[Tensor, bool]:
    """Final states on planes, (plane, batch, 2**n) where the second says so, else (plane, 2**n, batch)."""
    half_rdnb = _half(angles_bdnr)
    if not prefers_contraction(spec):
        return gates.final_planes(spec, half_rdnb), False
    batch_first = spec.n_qubits >= BATCH_FIRST_FROM
    return contraction.final_planes(spec, half_rdnb, batch_first=batch_first), batch_first


def _state(spec: CircuitSpec, angles_bdnr: Tensor) -> Tensor:
    planes, batch_first = _planes(spec, angles_bdnr)
    states = torch.complex(*planes.unbind(0))
    return states if batch_first else states.t()


def _probabilities(spec: CircuitSpec, angles_bdnr: Tensor) -> Tensor:
    p, batch_first = _weights(*_planes(spec, angles_bdnr))
    return p if batch_first else p.t()


def _expectations(spec: CircuitSpec, angles_bdnr: Tensor) -> Tensor:
    p, batch_first = _weights(*_planes(spec, angles_bdnr))
    return gates.qubit_sums(p.t() if batch_first else p).t().contiguous()


def _weights(planes: Tensor, batch_first: bool) -> tuple[Tensor, bool]:
    """|psi|^2, in the place of the planes where autograd does not follow them."""
    re, im = planes.unbind(0)
    squared = re * re if planes.requires_grad else re.mul_(re)
    return squared.addcmul_(im, im), batch_first


def _summed(parts: tuple[Tensor, ...]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
