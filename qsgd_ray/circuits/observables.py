"""Observables: sums of Pauli strings, whose expectation values a circuit is read by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from qsgd_ray.circuits.plain_numbers import _finite_number, whole_number

if TYPE_CHECKING:
    from qiskit.quantum_info import SparsePauliOp


class PauliTerm(NamedTuple):
    """A Pauli string times a number.

    Attributes:
        weight: finite.
        pauli: letters X, Y, Z and I; letter i acts on qubits[i]. The empty string is the identity.
        qubits: distinct, from 0, one a letter.
    """

    weight: float
    pauli: str
    qubits: tuple[int, ...]


@dataclass(frozen=True)
class PauliSum:
    """Sum of Pauli strings with real weights.

    Attributes:
        terms: `PauliTerm`s, or tuples (weight, pauli, qubits).

    Raises:
        ValueError: in one line: a weight that is not finite, an unknown letter, qubits that are negative, repeated, or
            not one a letter.

    Example:
        >>> PauliSum(((0.5, "XX", (0, 1)), (-1.0, "Z", (2,)))).n_qubits
        3
    """

    terms: tuple[PauliTerm, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", tuple(_checked(term) for term in self.terms))

    @classmethod
    def from_qiskit(cls, operator: SparsePauliOp) -> PauliSum:
        """Return the sum that an operator of Qiskit is.

        Args:
            operator: a `SparsePauliOp` with real coefficients.

        Raises:
            ValueError: a coefficient that is not a real number.
        """
        terms = []
        for letters, qubits, weight in operator.to_sparse_list():
            if weight.imag:
                raise ValueError(f"PauliSum.from_qiskit: got the coefficient {weight}; allowed: real numbers")
            terms.append(PauliTerm(float(weight.real), letters, tuple(qubits)))
        return cls(tuple(terms))

    @property
    def n_qubits(self) -> int:
        """Return the number of qubits that a circuit needs at least."""
        return 1 + max((qubit for term in self.terms for qubit in term.qubits), default=0)


def _checked(term: Any) -> PauliTerm:
    try:
        weight, pauli, qubits = term
        given: Iterable[Any] = tuple(qubits)
    except (TypeError, ValueError):
        raise ValueError(f"PauliSum.terms: got {repr(term)[:100]}; allowed: (weight, pauli, qubits)") from None
    numbers = tuple(whole_number("PauliSum.terms: qubit", qubit, 0) for qubit in given)
    if not isinstance(pauli, str) or set(pauli) - set("IXYZ") or len(pauli) != len(numbers):
        allowed = f"letters X, Y, Z and I, one for each of the qubits {numbers}"
        raise ValueError(f"PauliSum.terms: got {repr(pauli)[:100]}; allowed: {allowed}")
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"PauliSum.terms: got qubits {numbers}; allowed: distinct ones")
    return PauliTerm(_finite_number("PauliSum.terms: weight", weight), pauli, numbers)
