"""The mean number of requests at an actor, from the times at which they arrive and leave.

The number of requests is integrated over time. The mean over any span is the difference of two readings of that
integral, divided by the span: however long single requests take, and whether they have ended (Little's law rests on the
same integral).
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import NamedTuple


class Load(NamedTuple):
    """A reading of an actor's meter, by the actor's own clock.

    Attributes:
        request_s: request-seconds since the meter was made: two requests present for 3 s are 6.
        age_s: age of the meter in seconds.
    """

    request_s: float
    age_s: float


class RequestMeter:
    """Integrates the number of requests over time. A request is present inside a `with` block; threads may share it.

    `count`: requests present now, waiting or worked on.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started = self._integrated_until = time.monotonic()
        self._request_s = 0.0
        self.count = 0

    def __enter__(self) -> None:
        self._change(1)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._change(-1)

    def read(self) -> Load:
        """Return the integral up to now."""
        with self._lock:
            self._integrate()
            return Load(self._request_s, self._integrated_until - self._started)

    def _change(self, by: int) -> None:
        with self._lock:
            self._integrate()
            self.count += by

    def _integrate(self) -> None:
        now = time.monotonic()
        self._request_s += self.count * (now - self._integrated_until)
        self._integrated_until = now


def mean_requests(before: Load | None, now: Load) -> float:
    """Return the mean number of requests between two readings. An actor that restarted counts from its start."""
    if before is None or now.age_s <= before.age_s:
        before = Load(0.0, 0.0)
    span_s = now.age_s - before.age_s
    return max(0.0, now.request_s - before.request_s) / span_s if span_s > 0 else 0.0
