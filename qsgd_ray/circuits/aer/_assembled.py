"""An Aer circuit as Aer's C++ takes it, made once and kept: a batch's angles in, what each circuit saved out.

`AerSimulator.run` translates its circuit anew at every call, in Python: with 26 circuits of 4 qubits that is 3 of its
4.6 ms (Aer 0.18.2, one core, 2026-11-27). What it would hand to C++ is taken here from a run that goes no further. From
call to call only the angles differ, and of sampled circuits the seeds; the bits are those of `AerSimulator.run`.
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

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Assembled:
    """`circuits`, `noise` and `config`: what `controller`, Aer's C++, is called with. `angles`: of each place of the
    circuit that takes one, the place and the column of the flattened angles."""

    controller: Any
    circuits: list[Any]
    noise: dict[str, Any]
    config: Any
    angles: list[tuple[Any, int]]
    _one_at_a_time: Lock = field(default_factory=Lock)

    def start(self, flat_bp: NDArray[np.float64], **options: int) -> Future[dict[str, Any]]:
        """A circuit for each row of angles. `options`: shots, and a `seed_simulator`.

        In Aer's thread; at once, in this one, where Aer is to use no more: it lets no other run Python meanwhile, so
        that nothing is gained by a thread, and a start of one lost.
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
        with self._one_at_a_time:  # whose angles are in `config` when it starts?
            self.config.parameterizations = [[(place, columns[column]) for place, column in self.angles]]
            for name, value in options.items():
                setattr(self.config, name, value)
            output: dict[str, Any] = self.controller.execute(self.circuits, self.noise, self.config)
        return output


def assembled(circuit: Any, columns: Sequence[tuple[Any, int]], options: dict[str, Any]) -> Assembled | None:
    """`columns`: each parameter and the flattened angle that it takes. `options`: of the AerSimulator.

    None where some place takes no angle as it is, as of circuits transpiled to a device; and, with one line in the log,
    where this version of Aer goes another way to its C++.
    """
    try:
        return _taken(circuit, columns, options)
    except Exception as error:
        log.info("Aer circuits are not kept assembled: %s: %s", type(error).__name__, error)
        return None


class _Taken(Exception):
    """What a run was about to hand to C++."""


def _taken(circuit: Any, columns: Sequence[tuple[Any, int]], options: dict[str, Any]) -> Assembled | None:
    from qiskit_aer import AerSimulator
    from qiskit_aer.backends.backend_utils import LIBRARY_DIR

    class Taker(AerSimulator):
        def _execute_circuits(self, aer_circuits: Any, noise_model: Any, config: Any) -> Any:
            raise _Taken(self._controller, aer_circuits, noise_model, config)

    # Numbers that no gate has by itself, each another: they tell which place takes which angle.
    width = 1 + max(column for _, column in columns)
    probes = {float(number): column for column, number in enumerate(np.random.default_rng(0).random(width))}
    numbers = list(probes)
    values = {parameter: [numbers[column]] for parameter, column in columns}
    try:
        Taker(**options, runtime_parameter_bind_enable=True).run(circuit, parameter_binds=[values]).result()
    except _Taken as taken:
        controller, circuits, noise_model, config = taken.args
    else:
        return None
    (places,) = config.parameterizations
    if not all(value in probes for _, (value,) in places):
        return None
    config.library_dir = LIBRARY_DIR
    noise = noise_model.to_dict(serializable=True) if noise_model else {}
    return Assembled(controller, circuits, noise, config, [(place, probes[value]) for place, (value,) in places])
