"""Clock of a trial in one process: the time at which it began, by a clock that nobody sets."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta


class TrialClock:
    """Clock that starts when it is made.

    Attributes:
        began_at: what the clock on the wall said then, UTC.
    """

    def __init__(self) -> None:
        self.began_at = datetime.now(UTC)
        self._began_s = time.monotonic()

    def started_at(self, restored: datetime | None = None) -> datetime:
        """Return when the trial began, by the present clock on the wall: its age is right though that clock was set.

        Args:
            restored: the beginning as the trial's checkpoints know it. Of a trial that an earlier process began, only
                the clock on the wall tells; None, or `began_at`: this process began it.
        """
        if restored is not None and restored != self.began_at:
            return restored
        return datetime.now(UTC) - timedelta(seconds=time.monotonic() - self._began_s)
