"""Exact engines in this process, in float64 on the CPU: the statevector of torch, and the chain in linear time."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from qsgd_ray.circuits.backends.protocol import Answered, Pending, checked_angles
from qsgd_ray.circuits.chain import expectations as chain
from qsgd_ray.circuits.errors import CircuitError, CircuitMemoryError
from qsgd_ray.circuits.memory import format_bytes, require_memory
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector import simulate as statevector
from qsgd_ray.config.circuit import Readout


class InProcess(ABC):
    """Simulates at submit. `memory_bytes`: what one circuit may take; a batch is simulated in chunks far below it.

    CircuitError: angles of the wrong shape or not finite; a readout that the engine does not have. CircuitMemoryError:
    one circuit does not fit.
    """

    differentiable = True

    def __init__(self, memory_bytes: int = 2**30) -> None:
        self.memory_bytes = memory_bytes

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
        # A copy from outside of inference mode is a tensor like any other.
        return Answered(answer.clone(), time.perf_counter() - began)

    @abstractmethod
    def differentiate(self, spec: CircuitSpec, angles_bdnr: Tensor, readout: Readout = "z") -> Tensor:
        """The answers, followed by autograd: (batch, spec.answer_width(readout)), of dtype and device of the angles."""


class TorchBackend(InProcess):
    """Whole states, by circuits/statevector/simulate.py."""

    def differentiate(self, spec: CircuitSpec, angles_bdnr: Tensor, readout: Readout = "z") -> Tensor:
        require_memory(spec.n_qubits, self.memory_bytes)
        simulate = statevector.expectations if readout == "z" else statevector.weight_of_first
        return simulate(spec, angles_bdnr, memory_bytes=min(self.memory_bytes, statevector.CHUNK_BYTES))


class ChainBackend(InProcess):
    """<Z_i> alone, by circuits/chain/expectations.py: linear in n_qubits, exponential in depth."""

    def differentiate(self, spec: CircuitSpec, angles_bdnr: Tensor, readout: Readout = "z") -> Tensor:
        if readout != "z":
            raise CircuitError(f"backend chain: got readout {readout!r}; allowed: z")
        if (needed := chain.needed_bytes(spec)) > self.memory_bytes:
            raise CircuitMemoryError(
                f"depth: got {spec.depth}, a chain that needs {format_bytes(needed)} with {self.memory_bytes:,} there; "
                f"allowed: less depth"
            )
        return chain.expectations(spec, angles_bdnr, memory_bytes=min(self.memory_bytes, chain.CHUNK_BYTES))
