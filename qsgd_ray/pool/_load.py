"""How many requests are at an actor: comings and goings in, their number summed over time out.

The mean number over any span is a difference of two readings over their distance, however long single requests take
and whether they have ended (what Little's law is about).
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import NamedTuple


class Load(NamedTuple):
    """A reading, by the actor's own clock: request-seconds since it was made, and its age in seconds."""

    request_s: float
    age_s: float


class Presence:
    """A request is there from `with` on, waiting or worked on, to the end of the block. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._born = self._counted_until = time.monotonic()
        self._request_s = 0.0
        self.count = 0

    def __enter__(self) -> None:
        self._change(1)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._change(-1)

    def read(self) -> Load:
        """What there is to know now."""
        with self._lock:
            self._count_up()
            return Load(self._request_s, self._counted_until - self._born)

    def _change(self, by: int) -> None:
        with self._lock:
            self._count_up()
            self.count += by

    def _count_up(self) -> None:
        now = time.monotonic()
        self._request_s += self.count * (now - self._counted_until)
        self._counted_until = now


def mean_requests(before: Load | None, now: Load) -> float:
    """How many were there between two readings, on the mean. An actor that started again counts from its start."""
    if before is None or now.age_s <= before.age_s:
        before = Load(0.0, 0.0)
    span_s = now.age_s - before.age_s
    return max(0.0, now.request_s - before.request_s) / span_s if span_s > 0 else 0.0
