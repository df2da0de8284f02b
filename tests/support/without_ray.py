"""The stages of a study in this process, without Ray: every trial is a row that is written at once."""

from __future__ import annotations

import signal
from collections import deque
from contextlib import contextmanager

from qsgd_ray.config.trial import search_trial
from qsgd_ray.execution import connection, events
from qsgd_ray.execution.connection import Cluster
from qsgd_ray.execution.events import Event
from qsgd_ray.outcome import Ending, Outcome
from qsgd_ray.study import _stages as stages
from support.outcomes import OUTCOME, measured

RATES = (1e-3, 2e-3)


class Board:
    """The events of this process."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()

    def post(self, event: Event) -> None:
        self._events.append(event)

    def drain(self) -> list[Event]:
        return [self._events.popleft() for _ in range(len(self._events))]


def search(tables, context) -> None:
    """Give every search trial its row."""
    for arm in tables.study.arms:
        for number in range(tables.study.points(arm)):
            trial = search_trial(tables.study, arm.name, number, {"learning_rate": RATES[number]})
            context.results.write(trial, Outcome(Ending.COMPLETED, (measured(1, 0.5 + 0.1 * number),)))
            context.ended(trial, Ending.COMPLETED)


def confirm(study, context, trials, **_) -> None:
    """Give every confirmation trial its row."""
    for trial in trials:
        if not context.results.has(trial.trial_id):
            context.results.write(trial, OUTCOME)
            context.ended(trial, Ending.COMPLETED)


def handler_of_ray(*_: object) -> None:
    """Stand in for the handler that ray.init leaves behind."""


def replace_ray(monkeypatch) -> list[Cluster]:
    """Put these stages in the place of Ray's, and return the list to which every connection is added."""
    connections: list[Cluster] = []

    @contextmanager
    def connect(*_):
        signal.signal(signal.SIGTERM, handler_of_ray)
        connections.append(Cluster(private=True, scratch=""))
        yield connections[-1]

    monkeypatch.setattr(connection, "connect", connect)
    monkeypatch.setattr(events, "EventQueue", Board)
    monkeypatch.setattr(stages, "run_search", search)
    monkeypatch.setattr(stages, "run_fixed_trials", confirm)
    return connections
