"""A case of the bench as a value, the circuits of it as numbers, and their exact answers.

Letters of shapes: b circuits, d layers, n qubits, r rotations a layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from qsgd_ray.bench.circuits.engine import Circuits, What
from qsgd_ray.circuits.chain import expectations as chain
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector import simulate

Precision = Literal["float64", "float32"]
Arrays = tuple[NDArray[Any], ...]

TOLERANCES: dict[Precision, float] = {"float64": 1e-10, "float32": 1e-4}
_IN_WORDS: dict[What, str] = {"states": "states", "z": "<Z>", "gradient": "<Z> and gradient"}
# From this number of qubits on a chain's exact answers come from the chain engine.
_CHAIN_FROM = 18


@dataclass(frozen=True)
class Case:
    """One thing that is measured: an answer of a batch of circuits in a precision.

    Attributes:
        spec: the circuit.
        batch: number of circuits, 1 or more.
        what: "states"; "z", every <Z_i>; "gradient", every <Z_i> and the gradient of their weighted sum.
        precision: dtype of the angles, and so of the answers.
    """

    spec: CircuitSpec
    batch: int
    what: What
    precision: Precision = "float64"

    def __str__(self) -> str:
        spec = self.spec
        size = f"{spec.n_qubits:,} qubits, batch {self.batch:,}, depth {spec.depth}, {spec.entangle}"
        return f"{_IN_WORDS[self.what]}, {size}, {self.precision}"

    def circuits(self, batch: int | None = None) -> Circuits:
        """Return the first circuits of the batch, the same at every call; None: all of them."""
        generator = torch.Generator().manual_seed(2511)
        angles = torch.randn(self.spec.angles_shape(self.batch), generator=generator, dtype=torch.float64)
        cotangent = torch.randn((self.batch, self.spec.n_qubits), generator=generator, dtype=torch.float64)
        return Circuits(self.spec, *(x[:batch].numpy().astype(self.precision) for x in (angles, cotangent)))

    def exact(self) -> Arrays:
        """Return the answers in float64: (states,), (z,) or (z, gradient)."""
        circuits = self.circuits()
        angles = torch.tensor(circuits.angles_bdnr, dtype=torch.float64)
        if self.what == "states":
            return (simulate.statevector(self.spec, angles).numpy(),)
        expectations = chain.expectations if self.spec.n_qubits >= _CHAIN_FROM else simulate.expectations
        if self.what == "z":
            return (expectations(self.spec, angles).numpy(),)
        z = expectations(self.spec, angles.requires_grad_())
        (gradient,) = torch.autograd.grad(z, angles, torch.tensor(circuits.cotangent_bn, dtype=torch.float64))
        return z.detach().numpy(), gradient.numpy()


def largest_difference(answers: Arrays, exact: Arrays, name: str, tolerance: float) -> float:
    """Return the largest difference of any term.

    Args:
        answers: of an engine, for all circuits of the batch or the first of them.
        exact: those of the whole batch.
        name: the engine's.
        tolerance: the difference that rounding explains.

    Returns:
        The difference, below the tolerance.

    Raises:
        AssertionError: a larger one, NaN, or answers of another shape.
    """
    worst = 0.0
    for answer, all_terms in zip(answers, exact, strict=True):
        terms = all_terms[: len(answer)]
        if answer.shape != terms.shape:
            raise AssertionError(f"{name} answers in shape {answer.shape}, qsgd-ray in {terms.shape}")
        difference = float(np.abs(answer - terms).max())
        if not difference < tolerance:
            raise AssertionError(f"{name} differs from qsgd-ray by {difference:.1e}")
        worst = max(worst, difference)
    return worst


def as_arrays(answers: Any) -> Arrays:
    """Return what a call answered as numpy's arrays, one for each answer."""
    several = answers if isinstance(answers, tuple) else (answers,)
    return tuple(np.asarray(answer) for answer in several)
