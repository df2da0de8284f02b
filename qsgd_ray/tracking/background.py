"""Trackers beside a study that runs, on a thread of their own: events in; at the end, what went wrong with them out.

Nothing waits for a tracker while a study runs, and none can fail it: one that raises hears no more.
"""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import asdict, dataclass, field

from qsgd_ray.config.errors import one_line
from qsgd_ray.execution.events import Event
from qsgd_ray.outcome import Ending
from qsgd_ray.results import Results, StudyTables
from qsgd_ray.tracking.selection import TrackerChoice
from qsgd_ray.tracking.tracker import Tracker, numbers, record, record_all

# A tracker that is silent for so long at the end of a study is left behind.
PATIENCE_S = 60.0


@dataclass
class _Tracked:
    """A tracker and how many epochs it was told of the trials under way. None: it is not open, or is given up."""

    asked: TrackerChoice
    tracker: Tracker | None = None
    told: dict[str, int] = field(default_factory=dict)


class Tracking:
    """`tell` it events, `finish` it after the last; then every trial of the study is with every tracker."""

    def __init__(self, asked: list[TrackerChoice], results: Results, patience_s: float = PATIENCE_S) -> None:
        self._results, self._patience_s = results, patience_s
        self._all = [_Tracked(one) for one in asked]
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._complaints: dict[str, str] = {}
        self._moved_at = time.monotonic()
        self._tables: StudyTables | None = None
        self._thread = threading.Thread(target=self._work, name="trackers", daemon=True)
        if asked:
            self._thread.start()

    def tell(self, event: Event) -> None:
        """Not waited for."""
        if self._all:
            self._events.put(event)

    def finish(self, tables: StudyTables | None = None) -> list[str]:
        """Give every tracker the trials that it lacks, and return what went wrong, one line a tracker.

        `tables`: the study's rows after its last trial; None: they are read again.
        """
        self._tables = tables
        self._events.put(None)
        self._moved_at = time.monotonic()
        while self._all and self._thread.is_alive():
            self._thread.join(0.2)
            if time.monotonic() - self._moved_at > self._patience_s:
                late = [one.asked.name for one in self._all if one.asked.name not in self._complaints]
                return [*self._complaints.values(), _told(" and ".join(late), f"no answer for {self._patience_s:g} s")]
        return [*self._complaints.values()]

    def _work(self) -> None:
        for one in self._all:
            self._try(one, _open)
        while (event := self._events.get()) is not None:
            for one in self._all:
                self._try(one, self._hear, event)
        for one in self._all:
            self._try(one, self._complete)

    def _try(self, one: _Tracked, action, *words) -> None:  # type: ignore[no-untyped-def]
        if one.asked.name in self._complaints:
            return
        try:
            action(one, *words)
        except Exception as error:  # of a package that is none of ours, about what no result depends on
            self._complaints[one.asked.name] = _told(one.asked.name, f"{type(error).__name__}: {error}")
        self._moved_at = time.monotonic()

    def _hear(self, one: _Tracked, event: Event) -> None:
        assert one.tracker is not None
        trial, trial_id = event.trial, event.trial.trial_id
        if event.measurement is not None:
            if trial_id not in one.told:
                one.tracker.begin(trial)
                one.told[trial_id] = 0
            # Whoever is started again tells its epochs again.
            if event.measurement.epoch > one.told[trial_id]:
                one.tracker.measured(trial, event.measurement.epoch, numbers(asdict(event.measurement)))
                one.told[trial_id] = event.measurement.epoch
        if event.ending is not None and event.ending is not Ending.LOST:
            # The row says more than the event, and nobody may have read some event in time.
            row, measurements = self._results.row(trial_id), self._results.trajectory(trial_id)
            record(one.tracker, row, measurements, one.told.pop(trial_id, 0))

    def _complete(self, one: _Tracked) -> None:
        assert one.tracker is not None
        record_all(one.tracker, self._tables or self._results.tables())
        one.tracker.close()


def _open(one: _Tracked) -> None:
    one.tracker = one.asked.open()


def _told(name: str, why: str) -> str:
    return f"--track {name}: {one_line(why)}; no row is missing for that"
