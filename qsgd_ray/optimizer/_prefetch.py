"""Submit the circuits of the next step as soon as theta is known; collect them when its gradient is there.

theta at a step is known when the step before has ended, and circuits depend on theta alone. So they run during the
forward and backward pass, and their answers are exact: where theta has changed meanwhile they are submitted again.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor

from qsgd_ray.circuits.backends.protocol import Pending, busy_s
from qsgd_ray.circuits.errors import CircuitError
from qsgd_ray.optimizer._layout import Layout
from qsgd_ray.optimizer._local_blocks import LocalBlocks
from qsgd_ray.optimizer.signals import CircuitSignal, Signal
from qsgd_ray.random_keys import block_keys


class _PendingSignals(NamedTuple):
    """Signals that were submitted for one theta and step, and are of use for these only.

    Attributes:
        theta: coordinates of all blocks, end to end.
        step: steps taken before the one that the signals are for.
        pending: the answers, one for each width of blocks.
        n_circuits: circuits in all of them.
    """

    theta: Tensor
    step: int
    pending: list[Pending]
    n_circuits: int


class Prefetch:
    """Signals submitted a step ahead, and their cost.

    Attributes:
        wait_s: seconds that were spent submitting and waiting for circuits.
        busy_s: seconds that engines worked on collected circuits, wherever they run; None once one did not report it.
        n_circuits: circuits submitted.
    """

    def __init__(self, signal: Signal, seed: int) -> None:
        self.wait_s = 0.0
        self.busy_s: float | None = 0.0
        self.n_circuits = 0
        self._signal = signal
        self._seed = seed
        self._next: _PendingSignals | None = None

    @property
    def under_way(self) -> bool:
        """True where circuits of the next step were submitted and not collected yet."""
        return self._next is not None and self._next.n_circuits > 0

    def discard(self) -> None:
        """Drop the signals of the next step; it will submit its own."""
        self._next = None

    def submit_next(self, layout: Layout, step: int) -> None:
        """Submit the circuits of the next step, where there are any; `step` counts the steps taken."""
        if not isinstance(self._signal, CircuitSignal) or layout.blocks is None:
            return
        theta, before = layout.blocks.theta(), self._next
        if before is not None and not self._signal.keyed and torch.equal(before.theta, theta):
            return  # they were not collected, and theta has not moved
        # A failure here is not raised: the next step submits again, and raises if that fails too. So the last step of
        # a training does not fail for circuits that no step would have used.
        with suppress(CircuitError):
            self._next = self._submit(layout.blocks, theta, step)

    def collect(self, blocks: LocalBlocks, step: int) -> Tensor:
        """Return the signals of all blocks, end to end, at their present theta; `step` counts the steps taken.

        Raises:
            CircuitError: the backend's.
        """
        return self._result(self._current(blocks, step))

    def _current(self, blocks: LocalBlocks, step: int) -> _PendingSignals:
        """Return the signals that were submitted ahead, or submit them now if they are for another theta or step."""
        ahead, self._next = self._next, None
        if ahead is not None and ahead.step != step and self._signal.keyed:
            ahead = None
        theta = blocks.changed_theta(None if ahead is None else ahead.theta)
        if theta is not None:
            return self._submit(blocks, theta, step)
        assert ahead is not None
        return ahead

    def _result(self, submitted: _PendingSignals) -> Tensor:
        started = time.perf_counter()
        signals = [pending.result().reshape(-1) for pending in submitted.pending]
        self._count_wait(started)
        if isinstance(self._signal, CircuitSignal):
            for pending in submitted.pending:
                worked_s = busy_s(pending)
                self.busy_s = None if self.busy_s is None or worked_s is None else self.busy_s + worked_s
        return signals[0] if len(signals) == 1 else torch.cat(signals)

    def _submit(self, blocks: LocalBlocks, theta: Tensor, step: int) -> _PendingSignals:
        started = time.perf_counter()
        pending, n_circuits = [], 0
        for same_width, theta_bw in zip(blocks.blocks, blocks.by_width(theta), strict=True):
            keys_b = block_keys(self._seed, step, same_width.starts()) if self._signal.keyed else None
            pending.append(self._signal.submit(theta_bw, keys_b))
            if isinstance(self._signal, CircuitSignal):
                n_circuits += len(theta_bw)
        self.n_circuits += n_circuits
        self._count_wait(started)
        return _PendingSignals(theta, step, pending, n_circuits)

    def _count_wait(self, started: float) -> None:
        if isinstance(self._signal, CircuitSignal):
            self.wait_s += time.perf_counter() - started

    def __getstate__(self) -> dict[str, object]:
        """Leave pending answers out of pickles and copies."""
        return {**self.__dict__, "_next": None}
