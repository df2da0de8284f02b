"""Meter of a run of a study: seconds and nodes in; the study's spending, stored while it runs and at its end, out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from qsgd_ray.config import StudyError
from qsgd_ray.results import StudyTables
from qsgd_ray.results.spending import RunSpending, Spending, write_spending
from qsgd_ray.storage import Lease, Storage, StorageError

# So much time at most is not counted of a run that is killed.
_STORE_S = 10.0
# A cluster that grows or shrinks is noticed after so long.
_COUNT_S = 5.0

# Returns the number of nodes by kind; None where nobody answers.
_Count = Callable[[], Mapping[str, int] | None]


class Meter:
    """The meter of one run. It begins with what earlier runs took, and only counts up.

    Args:
        tables: the study and what its earlier runs took.
        storage: where the spending is stored.
        lease: of this run; one that another process has taken over stores nothing.
        clock: seconds that never go back; only their differences count.
    """

    def __init__(
        self, tables: StudyTables, storage: Storage, lease: Lease, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._budget, self._before = tables.study.budget, tables.spending
        self._storage, self._lease, self._clock = storage, lease, clock
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._seconds = 0.0
        self._node_seconds: dict[str, float] = {}
        self._nodes: Mapping[str, int] = {}
        self._last_s = self._clock()
        self._stored_s = self._counted_s = -float("inf")

    @property
    def spending(self) -> Spending:
        """The spending of all runs, up to the last tick."""
        return self._before.with_run(RunSpending(self._started_at, self._seconds, dict(self._node_seconds)))

    @property
    def is_spent(self) -> bool:
        """True where the study has a budget, and a limit of it is reached."""
        spending = self.spending
        return self._budget is not None and self._budget.is_spent(spending.seconds, spending.node_seconds)

    @contextmanager
    def counting(self, count: _Count) -> Iterator[Meter]:
        """Count nodes in the block, and store the spending at its end, however it is left.

        Args:
            count: returns the number of nodes by kind.
        """
        try:
            self.tick(count)
            yield self
        finally:
            self.tick()
            self._store()

    def tick(self, count: _Count | None = None) -> None:
        """Add the time since the last tick.

        Args:
            count: returns the number of nodes by kind, and is asked every few seconds. None: they are as they were.
        """
        now_s = self._clock()
        if count is not None and now_s - self._counted_s >= _COUNT_S:
            self._counted_s = now_s
            if (nodes := count()) is not None:
                self._nodes = nodes
        passed_s = max(0.0, now_s - self._last_s)
        self._last_s = max(self._last_s, now_s)
        self._seconds += passed_s
        for kind, n_nodes in self._nodes.items():
            self._node_seconds[kind] = self._node_seconds.get(kind, 0.0) + n_nodes * passed_s
        if now_s - self._stored_s >= _STORE_S:
            self._stored_s = now_s
            self._store()

    def _store(self) -> None:
        """Store the spending; a store that fails now is asked again later, and what failed shows in its rows."""
        with suppress(StudyError, StorageError):
            self._lease.check()
            write_spending(self._storage, self.spending)
