"""Feed trackers beside a running study, on a thread of their own: events in; at the end, their failures out.

Nothing waits for a tracker while a study runs, and none can fail it: one that raises gets no more events.
"""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import asdict, dataclass, field

from qsgd_ray.config.errors import one_line
from qsgd_ray.execution.events import Event
from qsgd_ray.outcome import REPEATED
from qsgd_ray.results import Results, StudyTables
from qsgd_ray.tracking._records import numbers
from qsgd_ray.tracking.selection import TrackerChoice
from qsgd_ray.tracking.tracker import Tracker, _record, record_all

# A tracker that makes no progress for this long at the end of a study is given up.
PATIENCE_S = 60.0


@dataclass
class _Tracked:
    """A tracker and the number of epochs that it has of each running trial; None while it is not open."""

    choice: TrackerChoice
    tracker: Tracker | None = None
    n_logged: dict[str, int] = field(default_factory=dict)


class Tracking:
    """The trackers of a running study: `tell` events while it runs, then `finish`.

    After `finish` every tracker has every trial of the study, unless it failed.
    """

    def __init__(self, choices: list[TrackerChoice], results: Results, patience_s: float = PATIENCE_S) -> None:
        self._results, self._patience_s = results, patience_s
        self._all = [_Tracked(one) for one in choices]
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._failures: dict[str, str] = {}
        self._moved_at = time.monotonic()
        self._tables: StudyTables | None = None
        self._thread = threading.Thread(target=self._work, name="trackers", daemon=True)
        if choices:
            self._thread.start()

    def tell(self, event: Event) -> None:
        """Pass an event on, without waiting for any tracker."""
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
                late = [one.choice.name for one in self._all if one.choice.name not in self._failures]
                return [*self._failures.values(), _failure(" and ".join(late), f"no answer for {self._patience_s:g} s")]
        return [*self._failures.values()]

    def _work(self) -> None:
        for one in self._all:
            self._try(one, _open)
        while (event := self._events.get()) is not None:
            for one in self._all:
                self._try(one, self._log, event)
        for one in self._all:
            self._try(one, self._complete)

    def _try(self, one: _Tracked, action, *words) -> None:  # type: ignore[no-untyped-def]
        if one.choice.name in self._failures:
            return
        try:
            action(one, *words)
        except Exception as error:  # another package's, and no result depends on it
            self._failures[one.choice.name] = _failure(one.choice.name, f"{type(error).__name__}: {error}")
        self._moved_at = time.monotonic()

    def _log(self, one: _Tracked, event: Event) -> None:
        assert one.tracker is not None
        trial, trial_id = event.trial, event.trial.trial_id
        if event.measurement is not None:
            if trial_id not in one.n_logged:
                one.tracker.begin(trial)
                one.n_logged[trial_id] = 0
            # A group of workers that is started again repeats epochs.
            if event.measurement.epoch > one.n_logged[trial_id]:
                one.tracker.log_epoch(trial, event.measurement.epoch, numbers(asdict(event.measurement), trial))
                one.n_logged[trial_id] = event.measurement.epoch
        if event.ending is not None and event.ending not in REPEATED:
            # The row has more than the event, and events may have been dropped.
            row, measurements = self._results.row(trial_id), self._results.trajectory(trial_id)
            _record(one.tracker, row, measurements, one.n_logged.pop(trial_id, 0))

    def _complete(self, one: _Tracked) -> None:
        assert one.tracker is not None
        record_all(one.tracker, self._tables or self._results.tables())
        one.tracker.close()


def _open(one: _Tracked) -> None:
    one.tracker = one.choice.open()


def _failure(name: str, why: str) -> str:
    return f"--track {name}: {one_line(why)}; no row is missing for that"
