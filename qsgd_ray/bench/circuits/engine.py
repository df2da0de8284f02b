"""The protocol of everything that is measured, ours or a peer: circuits in, a call that answers them out.

A method of an engine prepares all that its users would prepare once a circuit, and moves the numbers to where it
computes. Only the call is timed. It returns arrays of the engine's own kind that numpy can read, complete when it
returns. The engine's package is imported inside the methods; `bring` imports it before a first call is timed.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from qsgd_ray.circuits.spec import CircuitSpec

What = Literal["states", "z", "gradient"]
Call = Callable[[], Any]


@dataclass(frozen=True)
class Circuits:
    """The numbers that an engine gets: one circuit, and angles and cotangents of a batch.

    Attributes:
        spec: the circuit that all share.
        angles_bdnr: radians, float64 or float32.
        cotangent_bn: of the same dtype; the gradient wanted is that of sum(cotangent * <Z>).
    """

    spec: CircuitSpec
    angles_bdnr: NDArray[Any]
    cotangent_bn: NDArray[Any]

    @property
    def double(self) -> bool:
        """True for float64."""
        return bool(self.angles_bdnr.dtype == np.float64)

    def torch_angles(self) -> torch.Tensor:
        """Return the angles as a tensor of its own memory."""
        return torch.tensor(self.angles_bdnr)


class Engine:
    """An engine that answers nothing; others override what they can do.

    Attributes:
        name: at most 20 characters, for the table.
        needs: the package that it imports, or nothing.
        distribution: the name by which pip knows that package.
        most_circuits: circuits in one call; engines that take one circuit after the other are given fewer, as the time
            of a circuit does not depend on how many they are.
        most_amplitudes: complex numbers of all states of a call. 2**22 are 64 MiB.
        tape: its gradient stores the state after every gate; then they count, too.
        chain_qubits: it is measured on chains of so many qubits and up to three layers alone, whose states it does not
            hold; None: on all circuits.
    """

    name = ""
    needs = ""
    distribution = ""
    most_circuits = 2**20
    most_amplitudes = 2**22
    tape = False
    chain_qubits: range | None = None

    def states(self, circuits: Circuits) -> Call | None:  # noqa: ARG002
        """Return a call for the amplitudes (b, 2**n), qubit 0 least significant; None: it has none."""
        return None

    def z(self, circuits: Circuits) -> Call | None:  # noqa: ARG002
        """Return a call for every <Z_i>, (b, n); None: it cannot."""
        return None

    def z_and_gradient(self, circuits: Circuits) -> Call | None:  # noqa: ARG002
        """Return a call for every <Z_i> and the gradient, (b, n) and (b, d, n, r); None: it cannot."""
        return None

    def call(self, circuits: Circuits, what: What) -> Call | None:
        """Return the call for this answer; None: it cannot.

        Args:
            circuits: the numbers.
            what: the answer.
        """
        makers = {"states": self.states, "z": self.z, "gradient": self.z_and_gradient}
        return makers[what](circuits)

    def share(self, spec: CircuitSpec, batch: int, what: What) -> int:
        """Return how many circuits of the batch one call takes; 0 where one circuit is too large.

        Args:
            spec: the circuit.
            batch: circuits of the case.
            what: the answer.
        """
        if self.chain_qubits is not None:
            fits = spec.n_qubits in self.chain_qubits and spec.entangle == "chain" and spec.depth <= 3
            return min(batch, self.most_circuits) if fits else 0
        amplitudes, most = 2**spec.n_qubits, self.most_amplitudes
        if self.tape and what == "gradient":
            # Some three states a gate are kept; 2**26 of them are a GiB.
            amplitudes, most = 3 * amplitudes * len(gates(spec)), 2**28
        return min(batch, self.most_circuits, most // amplitudes)

    def bring(self) -> None:
        """Import the package that it needs."""
        if self.needs:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                importlib.import_module(self.needs)

    def missing(self) -> bool:
        """Return True where the package is not installed."""
        return bool(self.needs) and find_spec(self.needs) is None

    def version(self) -> str:
        """Return the version of the package, or "not installed"."""
        if self.missing():
            return "not installed"
        try:
            return version(self.distribution or self.needs or "qsgd-ray")
        except PackageNotFoundError:
            return "version unknown"


class Gate(NamedTuple):
    """A gate of a circuit in the order in which they act.

    Attributes:
        name: "h", "ry", "rz", "rx" or "cx".
        wires: (qubit,) or (control, target).
        angle: index (layer, qubit, rotation) of its angle in `angles_dnr`; None: it has none.
    """

    name: str
    wires: tuple[int, ...]
    angle: tuple[int, int, int] | None


def gates(spec: CircuitSpec, first_wire_most_significant: bool = False) -> list[Gate]:
    """Return the gates of a circuit.

    Args:
        spec: the circuit.
        first_wire_most_significant: number the wires from the other end, as most packages want them.
    """
    found = []
    for layer in spec.layers():
        for targets in layer.targets:
            wires = tuple(spec.n_qubits - 1 - q for q in targets) if first_wire_most_significant else targets
            angle = None if layer.angle is None else (layer.angle[0], targets[0], layer.angle[1])
            found.append(Gate(layer.gate, wires, angle))
    return found


def angle_columns(spec: CircuitSpec) -> tuple[list[int], list[int], list[int]]:
    """Return the indices (layers, qubits, rotations) of all angles in the order in which their gates act."""
    layers, qubits, rotations = zip(*(gate.angle for gate in gates(spec) if gate.angle is not None), strict=True)
    return list(layers), list(qubits), list(rotations)
