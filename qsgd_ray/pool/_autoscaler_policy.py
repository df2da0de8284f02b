"""How many circuit actors are wanted: how many requests there are in, a number of actors out. Knows no Ray.

An actor works on one request at a time, so n actors are busy with n requests, and more than that wait. Grown is when
that lasts for seconds, shrunk when for `idle_s` fewer would have done: a node that comes takes longer and costs more
than a moment's wait.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

# An actor with more than this share of its time at work is one that others soon wait for.
BUSY = 0.8
# So long must requests wait before another actor is asked for.
PATIENCE_S = 2.0


@dataclass
class PoolSize:
    """From `least` to `most` actors. `idle_s`: for how long the last actors must have been of no use."""

    least: int
    most: int
    idle_s: float
    _needed: deque[tuple[float, int]] = field(default_factory=deque)  # what each moment would have needed
    _lasting: deque[tuple[float, int]] = field(default_factory=deque)  # what lasted for PATIENCE_S up to it

    def wanted(self, now_s: float, requests: float) -> int:
        """After a moment at which so many requests were at the actors, on the mean."""
        needed = min(self.most, max(self.least, math.ceil(requests / BUSY)))
        _note(self._needed, now_s, needed, PATIENCE_S)
        began = self._needed[0][0]
        lasting = min(n for _, n in self._needed) if now_s - began >= PATIENCE_S else self.least
        _note(self._lasting, now_s, lasting, self.idle_s)
        return max(n for _, n in self._lasting)


def _note(seen: deque[tuple[float, int]], now_s: float, value: int, keep_s: float) -> None:
    """Keep the values of the last `keep_s` seconds, and the one before them: it held until they came."""
    seen.append((now_s, value))
    while len(seen) > 1 and seen[1][0] <= now_s - keep_s:
        seen.popleft()
