"""Make the wall clock jump in every Python process of a study that runs with this folder in PYTHONPATH.

The file that QSGD_CHAOS_CLOCK names holds the seconds that the clock is wrong by; where it is missing, none.
"""

import os
import time

_FILE = os.environ.get("QSGD_CHAOS_CLOCK")
_time, _time_ns = time.time, time.time_ns


def _wrong_by() -> float:
    try:
        with open(_FILE) as file:
            return float(file.read() or 0)
    except OSError:
        return 0.0


if _FILE:
    time.time = lambda: _time() + _wrong_by()
    time.time_ns = lambda: _time_ns() + int(_wrong_by() * 1e9)
