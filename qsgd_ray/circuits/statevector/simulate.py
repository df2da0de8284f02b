"""Exact simulation of many circuits at once in torch: states, amplitudes, probabilities and <Z_i>.

There are two ways to a final state, and the one with fewer multiplications is taken: _contraction.py for shallow open
chains (the paper's circuit), _gates.py for every other circuit. Both keep amplitudes as real planes and simulate a
batch in chunks that stay in the processor's cache. Both are differentiable in reverse mode, and neither stores the
states between the gates.

Batching law: the bits of one circuit's answer do not depend on the other circuits of the batch, on chunks or threads.
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

# Memory of one chunk, in bytes: its states, and the tensors that prepare them. Chunks that stay near the cache are the
# fastest (0.25 to 16 MiB compared, 2026-11-22).
CHUNK_BYTES = 2**22
_PREPARING_BYTES_A_QUBIT = 400
# From this number of qubits on, half a state is long enough to be the inner loop; below, the batch is.
_BATCH_FIRST_FROM = 9
# For states smaller than this the free memory is not looked up: the call would take longer than the simulation.
_SMALL_BYTES = 2**26


def statevector(spec: CircuitSpec, angles_bdnr: Tensor, *, memory_bytes: int = CHUNK_BYTES) -> Tensor:
    """Return the final state of every circuit. Differentiable in the angles (reverse mode).

    Args:
        spec: the circuit; n qubits.
        angles_bdnr: real floats, shape (b, d, n, r), in radians.
        memory_bytes: upper bound on the states of one chunk of the batch; a chunk has at least one circuit.

    Returns:
        Amplitudes, shape (b, 2**n); the index is the basis state with qubit 0 as its least significant bit. complex128
        for float64 angles, else complex64.

    Raises:
        ValueError: angles of another shape, or no real floats.
        CircuitMemoryError: the states of the batch do not fit into the free memory.

    Example:
        >>> statevector(CircuitSpec(2, depth=1), torch.zeros(1, 1, 2, 2))
        tensor([[0.5000+0.j, 0.5000+0.j, 0.5000+0.j, 0.5000+0.j]])
    """
    angles_bdnr = _checked(spec, angles_bdnr, answer_states=angles_bdnr.shape[0])
    chunks = [_state(spec, chunk) for chunk in _chunks(spec, angles_bdnr, memory_bytes)]
    return chunks[0] if len(chunks) == 1 else torch.cat(chunks)


def first_amplitudes(spec: CircuitSpec, angles_bdnr: Tensor) -> Tensor:
    """Return the amplitudes psi_0 ... psi_{n-1}, which quantum attention reads (arXiv 2511.01918, Eq. 4).

    Far cheaper than `statevector` where `prefers_contraction` holds: the other amplitudes are never computed.

    Args:
        spec: the circuit; n qubits.
        angles_bdnr: real floats, shape (b, d, n, r), in radians.

    Returns:
        Amplitudes, shape (b, n); complex128 for float64 angles, else complex64.

    Raises:
        ValueError: angles of another shape, or no real floats.
        CircuitMemoryError: a state does not fit into the free memory.
    """
    if not prefers_contraction(spec):
        return statevector(spec, angles_bdnr)[:, : spec.n_qubits]
    angles_bdnr = _checked(spec, angles_bdnr)
    return torch.complex(*contraction.first_planes(spec, _half(angles_bdnr)).unbind(0)).t()


def probabilities(spec: CircuitSpec, angles_bdnr: Tensor, *, memory_bytes: int = CHUNK_BYTES) -> Tensor:
    """Return |psi_x|^2 of every basis state x. Differentiable in the angles (reverse mode).

    Args:
        spec: the circuit; n qubits.
        angles_bdnr: real floats, shape (b, d, n, r), in radians.
        memory_bytes: upper bound on the states of one chunk of the batch; a chunk has at least one circuit.

    Returns:
        Probabilities, shape (b, 2**n); float64 for float64 angles, else float32.

    Raises:
        ValueError: angles of another shape, or no real floats.
        CircuitMemoryError: the answer does not fit into the free memory.
    """
    angles_bdnr = _checked(spec, angles_bdnr, answer_states=angles_bdnr.shape[0])
    chunks = [_probabilities(spec, chunk) for chunk in _chunks(spec, angles_bdnr, memory_bytes)]
    return chunks[0] if len(chunks) == 1 else torch.cat(chunks)


def weight_of_first(spec: CircuitSpec, angles_bdnr: Tensor, *, memory_bytes: int = CHUNK_BYTES) -> Tensor:
    """Return |psi_0|^2 + ... + |psi_{n-1}|^2, the readout of quantum attention that a device can measure.

    Args:
        spec: the circuit; n qubits.
        angles_bdnr: real floats, shape (b, d, n, r), in radians.
        memory_bytes: upper bound on the states of one chunk of the batch; a chunk has at least one circuit.

    Returns:
        Shape (b, 1), in [0, 1]; float64 for float64 angles, else float32.

    Raises:
        ValueError: angles of another shape, or no real floats.
        CircuitMemoryError: a state does not fit into the free memory.
    """
    circuits = memory_bytes // needed_bytes(spec.n_qubits)
    chunks = [first_amplitudes(spec, chunk) for chunk in angles_bdnr.split(max(1, circuits))] or [
        first_amplitudes(spec, angles_bdnr)
    ]
    psi_bn = torch.cat(chunks)
    weights = (psi_bn.real * psi_bn.real + psi_bn.imag * psi_bn.imag).unbind(1)
    return _summed(weights)[:, None]


def expectations(spec: CircuitSpec, angles_bdnr: Tensor, *, memory_bytes: int = CHUNK_BYTES) -> Tensor:
    """Return <Z_i> of every qubit i. Differentiable in the angles (reverse mode).

    Args:
        spec: the circuit; n qubits.
        angles_bdnr: real floats, shape (b, d, n, r), in radians.
        memory_bytes: upper bound on the states of one chunk of the batch; a chunk has at least one circuit.

    Returns:
        Shape (b, n), in [-1, 1] up to rounding; float64 for float64 angles, else float32.

    Raises:
        ValueError: angles of another shape, or no real floats.
        CircuitMemoryError: the simulation of one circuit does not fit into the free memory.

    Example:
        >>> angles = torch.tensor([0.3, 0.5]).view(1, 1, 2, 1)
        >>> expectations(CircuitSpec(2, depth=1, rotations=("ry",)), angles)  # -sin 0.3, sin 0.3 sin 0.5
        tensor([[-0.2955,  0.1417]])
    """
    angles_bdnr = _checked(spec, angles_bdnr)
    chunks = [_expectations(spec, chunk) for chunk in _chunks(spec, angles_bdnr, memory_bytes)]
    return chunks[0] if len(chunks) == 1 else torch.cat(chunks)


def _checked(spec: CircuitSpec, angles_bdnr: Tensor, answer_states: int = 0) -> Tensor:
    """Return the angles in float32 or float64; refuse those of another spec and simulations that do not fit.

    `answer_states`: number of states that the answer holds.
    """
    spec.check_angles(angles_bdnr)
    if angles_bdnr.dtype not in (torch.float32, torch.float64):
        angles_bdnr = angles_bdnr.to(torch.float32)
    state = 2 * angles_bdnr.element_size() << spec.n_qubits
    if state * max(1, answer_states) > _SMALL_BYTES:
        dtype = torch.complex128 if angles_bdnr.dtype == torch.float64 else torch.complex64
        require_memory(spec.n_qubits, available_bytes(angles_bdnr.device), dtype, answer_states)
    return angles_bdnr


def _chunks(spec: CircuitSpec, angles_bdnr: Tensor, memory_bytes: int) -> Iterator[Tensor]:
    circuits = circuits_per_chunk(spec.n_qubits, memory_bytes, angles_bdnr.element_size())
    return iter((angles_bdnr,) if angles_bdnr.shape[0] <= circuits else angles_bdnr.split(circuits))


def circuits_per_chunk(n_qubits: int, memory_bytes: int = CHUNK_BYTES, element_size: int = 8) -> int:
    """Return the number of circuits that are simulated together.

    Args:
        n_qubits: number of qubits of a circuit.
        memory_bytes: memory of the chunk.
        element_size: bytes of a real number of the angles' dtype: 8 for float64, 4 for float32.

    Returns:
        At least 1.
    """
    return max(1, memory_bytes // ((2 * element_size << n_qubits) + _PREPARING_BYTES_A_QUBIT * n_qubits))


def _half(angles_bdnr: Tensor) -> Tensor:
    """Return half the angles, shape (r, d, n, b)."""
    return angles_bdnr.permute(3, 1, 2, 0).contiguous() * 0.5


def _planes(spec: CircuitSpec, angles_bdnr: Tensor) -> tuple[Tensor, bool]:
    """Return the final states, (plane, b, 2**n) where the flag is True, else (plane, 2**n, b), and the flag."""
    half_rdnb = _half(angles_bdnr)
    if not prefers_contraction(spec):
        return gates.final_planes(spec, half_rdnb), False
    batch_first = spec.n_qubits >= _BATCH_FIRST_FROM
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
    """Return |psi|^2, written over the planes where autograd does not record them."""
    re, im = planes.unbind(0)
    squared = re * re if planes.requires_grad else re.mul_(re)
    return squared.addcmul_(im, im), batch_first


def _summed(parts: tuple[Tensor, ...]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
