"""A circuit in the form that Aer's C++ takes, made once and used for every batch: angles in, saved data out.

`AerSimulator.run` translates its circuit anew at every call, in Python: with 26 circuits of 4 qubits that is 3 of its
4.6 ms (Aer 0.18.2, one core, 2026-11-27). Here the arguments of the C++ call are captured from a run that goes no
further. From call to call only the angles differ, and the seeds of sampled circuits; the bits are those of
`AerSimulator.run`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AssembledCircuit:
    """A circuit that is ready to run with any angles.

    Attributes:
        controller: Aer's C++, which is called with `circuits`, `noise` and `config`.
        circuits: the circuit as Aer assembled it.
        noise: its noise model as a dictionary; empty without noise.
        config: Aer's configuration; each run writes its angles, shots and seed into it.
        angles: for each place in the circuit that takes an angle, the place and the column of the flattened angles.
    """

    controller: Any
    circuits: list[Any]
    noise: dict[str, Any]
    config: Any
    angles: list[tuple[Any, int]]
    _lock: Lock = field(default_factory=Lock)

    def start(self, flat_bp: NDArray[np.float64], **options: int) -> Future[dict[str, Any]]:
        """Start one circuit for each row of angles. `options`: `shots`, and a `seed_simulator`.

        The circuits run in Aer's thread. Where Aer may use one thread only, they run here before `start` returns: Aer
        then holds Python's lock meanwhile, so another thread would gain nothing and cost its start.
        """
        if self.config.max_parallel_threads == 1:
            done: Future[dict[str, Any]] = Future()
            try:
                done.set_result(self._run(flat_bp, options))
            except Exception as error:
                done.set_exception(error)
            return done
        from qiskit_aer.jobs import utils

        return utils.DEFAULT_EXECUTOR.submit(self._run, flat_bp, options)

    def _run(self, flat_bp: NDArray[np.float64], options: dict[str, int]) -> dict[str, Any]:
        columns = flat_bp.T.tolist()
        with self._lock:  # `config` is shared: another run must not change its angles before this one has started
            self.config.parameterizations = [[(place, columns[column]) for place, column in self.angles]]
            for name, value in options.items():
                setattr(self.config, name, value)
            output: dict[str, Any] = self.controller.execute(self.circuits, self.noise, self.config)
        return output


def assemble(circuit: Any, columns: Sequence[tuple[Any, int]], options: dict[str, Any]) -> AssembledCircuit | None:
    """Return the assembled circuit, or None where it cannot be used.

    That is so where some place takes a function of an angle, as in circuits transpiled to a device; and, with one line
    in the log, where this version of Aer calls its C++ otherwise. `columns`: each parameter and the flattened angle
    that it takes. `options`: of the AerSimulator.
    """
    try:
        return _capture(circuit, columns, options)
    except Exception as error:
        _log.info("Aer circuits are not kept assembled: %s: %s", type(error).__name__, error)
        return None


class _Captured(Exception):
    """The arguments of the C++ call of a run, raised in place of the call."""


def _capture(circuit: Any, columns: Sequence[tuple[Any, int]], options: dict[str, Any]) -> AssembledCircuit | None:
    from qiskit_aer import AerSimulator
    from qiskit_aer.backends.backend_utils import LIBRARY_DIR

    class CapturingSimulator(AerSimulator):
        def _execute_circuits(self, aer_circuits: Any, noise_model: Any, config: Any) -> Any:
            raise _Captured(self._controller, aer_circuits, noise_model, config)

    # Distinct numbers that no gate has by itself: they tell which place takes which angle.
    width = 1 + max(column for _, column in columns)
    probes = {float(number): column for column, number in enumerate(np.random.default_rng(0).random(width))}
    numbers = list(probes)
    values = {parameter: [numbers[column]] for parameter, column in columns}
    try:
        CapturingSimulator(**options, runtime_parameter_bind_enable=True).run(
            circuit, parameter_binds=[values]
        ).result()
    except _Captured as captured:
        controller, circuits, noise_model, config = captured.args
    else:
        return None
    (places,) = config.parameterizations
    if not all(value in probes for _, (value,) in places):
        return None
    config.library_dir = LIBRARY_DIR
    noise = noise_model.to_dict(serializable=True) if noise_model else {}
    angles = [(place, probes[value]) for place, (value,) in places]
    return AssembledCircuit(controller, circuits, noise, config, angles)
