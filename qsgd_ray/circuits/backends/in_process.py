"""Exact engines in this process, in float64 on the CPU: statevectors, and the chain in linear time.

Letters of shapes: b circuits, d layers, n qubits, r rotations a layer.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from qsgd_ray.circuits.backends.protocol import Answered, Pending, checked_angles
from qsgd_ray.circuits.chain import expectations as chain
from qsgd_ray.circuits.errors import CircuitError, CircuitMemoryError
from qsgd_ray.circuits.memory import format_bytes, require_memory
from qsgd_ray.circuits.plain_numbers import whole_number
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector import simulate as statevector
from qsgd_ray.config.circuit import Readout


class InProcess(ABC):
    """A backend that simulates during `submit`.

    Args:
        memory_bytes: memory that one circuit may take; a batch is simulated in chunks far below it.

    Raises:
        CircuitError: from `submit`: angles of the wrong shape or not finite; a readout that the engine does not have.
        CircuitMemoryError: from `submit`: one circuit does not fit.
    """

    differentiable = True

    def __init__(self, memory_bytes: int = 2**30) -> None:
        self.memory_bytes = whole_number("memory_bytes", memory_bytes, 0)

    def submit(
        self,
        spec: CircuitSpec,
        angles_bdnr: Tensor,
        readout: Readout = "z",
        keys_b: Tensor | None = None,  # noqa: ARG002  exact answers draw nothing
    ) -> Pending:
        began = time.perf_counter()
        with torch.inference_mode():
            answer = self.differentiate(spec, checked_angles(spec, angles_bdnr), readout)
        # A copy made outside of inference mode is an ordinary tensor.
        return Answered(answer.clone(), time.perf_counter() - began)

    @abstractmethod
    def differentiate(self, spec: CircuitSpec, angles_bdnr: Tensor, readout: Readout = "z") -> Tensor:
        """Simulate circuits; autograd follows the answers back to the angles.

        Args:
            spec: the circuit.
            angles_bdnr: floats, shape (b, d, n, r); radians.
            readout: "z" or "probability", as of `CircuitBackend.submit`.

        Returns:
            Of the angles' dtype and device, shape (b, spec.answer_width(readout)).
        """


class TorchBackend(InProcess):
    """Whole states, simulated by circuits/statevector/simulate.py. Memory: 2.5 states of 16 * 2**n bytes.

    Example:
        >>> spec = CircuitSpec(1, depth=1)  # H, then Ry and Rz: <Z> = -sin(a) at Ry's angle a
        >>> TorchBackend().submit(spec, torch.tensor([[[[-torch.pi / 6, 0.0]]]])).result()
        tensor([[0.5000]], dtype=torch.float64)
    """

    def differentiate(self, spec: CircuitSpec, angles_bdnr: Tensor, readout: Readout = "z") -> Tensor:
        require_memory(spec.n_qubits, self.memory_bytes)
        simulate = statevector.expectations if readout == "z" else statevector.weight_of_first
        return simulate(spec, angles_bdnr)


class ChainBackend(InProcess):
    """Every <Z_i> by circuits/chain/expectations.py: linear in qubits, exponential in depth. Readout "z" only.

    Example:
        >>> spec = CircuitSpec(1000, depth=2)
        >>> ChainBackend().submit(spec, torch.zeros(spec.angles_shape(1))).result().shape
        torch.Size([1, 1000])
    """

    def differentiate(self, spec: CircuitSpec, angles_bdnr: Tensor, readout: Readout = "z") -> Tensor:
        if readout != "z":
            raise CircuitError(f"backend chain: got readout {readout!r}; allowed: z")
        if (needed := chain.needed_bytes(spec)) > self.memory_bytes:
            raise CircuitMemoryError(
                f"depth: got {spec.depth}, a chain that needs {format_bytes(needed)} with {self.memory_bytes:,} there; "
                f"allowed: less depth"
            )
        return chain.expectations(spec, angles_bdnr, memory_bytes=min(self.memory_bytes, chain.CHUNK_BYTES))
