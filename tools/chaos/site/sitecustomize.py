"""Give every Python process of a study a wrong clock and deaths in mid-write; found by this folder in PYTHONPATH.

The file that QSGD_CHAOS_CLOCK names holds the seconds that the wall clock is wrong by; where it is missing, none. While
there is a file that QSGD_CHAOS_WRITER names, the next process that has written a file below QSGD_CHAOS_RESULTS in full
dies before it is moved into its place. The name of that file then stands in QSGD_CHAOS_WRITER with the ending `.done`.
"""

import os
import signal
import time

_CLOCK, _WRITER = os.environ.get("QSGD_CHAOS_CLOCK"), os.environ.get("QSGD_CHAOS_WRITER")
_RESULTS = os.environ.get("QSGD_CHAOS_RESULTS", "")
_time, _time_ns, _replace = time.time, time.time_ns, os.replace


def _wrong_by() -> float:
    try:
        with open(_CLOCK) as file:
            return float(file.read() or 0)
    except OSError:
        return 0.0


def _replace_or_die(source, target, **rest):
    if str(target).startswith(_RESULTS + os.sep) and os.path.exists(_WRITER):
        try:
            os.rename(_WRITER, f"{_WRITER}.taken")  # one process alone succeeds
        except FileNotFoundError:
            pass
        else:
            with open(f"{_WRITER}.done", "w") as file:
                file.write(str(target).removeprefix(_RESULTS + os.sep))
            os.kill(os.getpid(), signal.SIGKILL)
    _replace(source, target, **rest)


if _CLOCK:
    time.time = lambda: _time() + _wrong_by()
    time.time_ns = lambda: _time_ns() + int(_wrong_by() * 1e9)
if _WRITER:
    os.replace = _replace_or_die
