"""Circuits on a Qiskit estimator: any BaseEstimatorV2, from a simulator to a QPU in a session.

One submission is one PUB: the parametrised circuit, its observables, and the angles of the whole batch broadcast
against them. So every estimator gets the same question, once.

Letters of shapes: b circuits, d layers, n qubits, r rotations a layer.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qsgd_ray.circuits.backends.protocol import Answered, Pending, checked_angles
from qsgd_ray.circuits.errors import CircuitError
from qsgd_ray.circuits.spec import CircuitSpec, parameter_columns
from qsgd_ray.config.circuit import Readout
from qsgd_ray.config.errors import one_line

# The weight of the first basis states is a sum of 2**n Pauli strings, all measured in one basis.
_MAX_QUBITS_OF_A_WEIGHT = 12


class EstimatorBackend:
    """Circuits on a Qiskit estimator: `submit` calls its `run`, `result()` waits for the job.

    Keys of draws are not read: a primitive draws as it does.

    Args:
        estimator: a BaseEstimatorV2, such as qiskit.primitives.StatevectorEstimator, qiskit_aer.primitives.EstimatorV2
            or qiskit_ibm_runtime.EstimatorV2.
        precision: wanted standard error of each answer, >= 0; None: the estimator's own.
        backend: a Qiskit backend to whose gates and coupling map circuits are transpiled; None: circuits as they are.
        pass_manager: a Qiskit pass manager that transpiles in place of `backend`.

    Raises:
        ValueError: no estimator; a negative precision; a backend and a pass manager.
        CircuitError: from `submit` and `result`: angles of the wrong shape or not finite; readout "probability" on more
            than 12 qubits; an exception of `run` or of the job.

    Example:
        >>> from qiskit.primitives import StatevectorEstimator
        >>> spec = CircuitSpec(1, depth=1)
        >>> angles = torch.tensor([[[[-torch.pi / 6, 0.0]]]])
        >>> EstimatorBackend(StatevectorEstimator()).submit(spec, angles).result()
        tensor([[0.5000]], dtype=torch.float64)
    """

    differentiable = False

    def __init__(
        self, estimator: Any, *, precision: float | None = None, backend: Any = None, pass_manager: Any = None
    ) -> None:
        if not callable(getattr(estimator, "run", None)):
            raise ValueError(f"backend estimator: got {estimator!r}; allowed: a Qiskit BaseEstimatorV2")
        if precision is not None and not precision >= 0:
            raise ValueError(f"backend estimator: got precision {precision!r}; allowed: a number >= 0, or None")
        if backend is not None and pass_manager is not None:
            raise ValueError("backend estimator: got a backend and a pass manager; allowed: one of them")
        self.estimator = estimator
        self.precision = precision
        self._backend, self._pass_manager = backend, pass_manager
        self._programs: dict[tuple[CircuitSpec, Readout], _Program] = {}

    def submit(
        self,
        spec: CircuitSpec,
        angles_bdnr: Tensor,
        readout: Readout = "z",
        keys_b: Tensor | None = None,  # noqa: ARG002
    ) -> Pending:
        angles_bdnr = checked_angles(spec, angles_bdnr)
        batch, width = angles_bdnr.shape[0], spec.answer_width(readout)
        if batch == 0:
            return Answered(torch.zeros(0, width, dtype=torch.float64))
        if readout == "probability" and spec.n_qubits > _MAX_QUBITS_OF_A_WEIGHT:
            raise CircuitError(
                f"backend estimator: got readout 'probability' on {spec.n_qubits} qubits; "
                f"allowed: at most {_MAX_QUBITS_OF_A_WEIGHT}"
            )
        try:
            program = self._program(spec, readout)
            values_bp = angles_bdnr.flatten(1).numpy()[:, program.columns]
            job = self.estimator.run([(program.circuit, program.observables, values_bp)], precision=self.precision)
        except Exception as error:
            raise _circuit_error(error) from error
        return _Job(job, (batch, width))

    def _program(self, spec: CircuitSpec, readout: Readout) -> _Program:
        if (spec, readout) not in self._programs:
            circuit = spec.to_qiskit()
            if self._backend is not None:
                from qiskit import transpile

                circuit = transpile(circuit, self._backend, optimization_level=1, seed_transpiler=0)
            elif self._pass_manager is not None:
                circuit = self._pass_manager.run(circuit)
            observables = _observables(spec, readout)
            if circuit.layout is not None:
                observables = [observable.apply_layout(circuit.layout) for observable in observables]
            columns = [column for _, column in parameter_columns(spec, circuit)]
            # A column of observables is broadcast against a row of circuits.
            self._programs[spec, readout] = _Program(circuit, [[each] for each in observables], columns)
        return self._programs[spec, readout]


class _Program(NamedTuple):
    """A circuit ready to run. `columns`: for each of its parameters, the column of the flattened angles."""

    circuit: Any
    observables: list[list[Any]]
    columns: list[int]


class _Job:
    """The job of one submission."""

    def __init__(self, job: Any, shape: tuple[int, int]) -> None:
        self._job, self._shape = job, shape
        self._answer: Tensor | None = None

    def result(self) -> Tensor:
        if self._answer is None:
            try:
                values = np.asarray(self._job.result()[0].data.evs, dtype=np.float64)
            except Exception as error:
                raise _circuit_error(error) from error
            batch, width = self._shape
            if values.shape != (width, batch):
                raise CircuitError(f"backend estimator: got values of shape {values.shape}; allowed: {(width, batch)}")
            self._answer = torch.from_numpy(values.T.copy())
        return self._answer


def _circuit_error(error: Exception) -> CircuitError:
    return CircuitError(f"backend estimator: {type(error).__name__}: {one_line(str(error), part='first')}")


def _observables(spec: CircuitSpec, readout: Readout) -> list[Any]:
    from qiskit.quantum_info import SparsePauliOp

    n = spec.n_qubits
    if readout == "z":
        return [SparsePauliOp.from_sparse_list([("Z", [qubit], 1.0)], n) for qubit in range(n)]
    zs = [[qubit for qubit in range(n) if mask >> qubit & 1] for mask in range(1 << n)]
    terms = [("Z" * len(z), z, c) for z, c in zip(zs, _weight_coefficients(n).tolist(), strict=True) if c]
    return [SparsePauliOp.from_sparse_list(terms, n)]


@lru_cache(maxsize=16)
def _weight_coefficients(n_qubits: int) -> NDArray[np.float64]:
    """Return |0><0| + ... + |n-1><n-1| as coefficients of Z strings: (2**n,), string `mask` has Z where its bit is 1.

    |y><y| is the product of (1 + (-1)^{y_i} Z_i) / 2 over the qubits: a Walsh-Hadamard transform of the indicator.
    """
    x = np.zeros(1 << n_qubits)
    x[:n_qubits] = 1
    for qubit in range(n_qubits):
        pairs = x.reshape(-1, 2, 1 << qubit)
        x = np.stack((pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]), 1).reshape(-1) / 2
    return x
