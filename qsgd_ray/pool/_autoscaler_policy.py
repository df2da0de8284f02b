"""The number of actors that a pool should have, from the number of requests at them. Plain numbers, no Ray.

An actor works on one request at a time: n actors are busy with n requests, and further ones wait. The pool grows once
requests have waited for seconds, and shrinks once fewer actors would have done for `idle_s`: a node that comes takes
longer, and costs more, than a short wait.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

# An actor that works for more than this share of its time will soon have requests waiting.
BUSY = 0.8
# Requests must wait for so long before another actor is started.
PATIENCE_S = 2.0

_History = deque[tuple[float, int]]  # times in seconds, and numbers of actors


@dataclass
class ScalingPolicy:
    """A rule that turns requests into a number of actors.

    Attributes:
        min_actors: smallest size of the pool.
        max_actors: largest size, >= `min_actors`.
        idle_s: seconds for which the newest actors must have been superfluous before they go.
    """

    min_actors: int
    max_actors: int
    idle_s: float
    _needed: _History = field(default_factory=deque)  # actors that each moment would have needed
    _lasting: _History = field(default_factory=deque)  # the need that had lasted for PATIENCE_S at each moment

    def target(self, now_s: float, requests: float) -> int:
        """Return the wanted number of actors. `requests`: their mean number at all actors since the last call."""
        needed = min(self.max_actors, max(self.min_actors, math.ceil(requests / BUSY)))
        _append(self._needed, now_s, needed, PATIENCE_S)
        began = self._needed[0][0]
        lasting = min(n for _, n in self._needed) if now_s - began >= PATIENCE_S else self.min_actors
        _append(self._lasting, now_s, lasting, self.idle_s)
        return max(n for _, n in self._lasting)


def _append(history: _History, now_s: float, value: int, span_s: float) -> None:
    """Append a value and drop those older than `span_s`, except the last of these: it held until the next one came."""
    history.append((now_s, value))
    while len(history) > 1 and history[1][0] <= now_s - span_s:
        history.popleft()
