"""End a study's command by a thread where its main thread hangs in a call of Ray.

Python runs handlers of signals in the main thread, between two of its instructions. A call of Ray that waits for a GCS
that is gone returns for a minute to none, and then ends the process in a way of its own (rpc_client.h, 2.60): Ctrl-C
would do nothing, and no line would say what is kept.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress

import psutil

# The main thread gets so long to leave by itself; Ray's own end of a start that is interrupted takes seconds.
PATIENCE_S = 15.0
_POLL_S = 0.5
_GCS = "gcs_server"  # the program's name


class ExitGuard:
    """A thread that watches for ending signals and for the end of Ray's core, while a block runs.

    Args:
        signals: the numbers of the signals to watch for; handlers of Python must be installed for them.
        on_signal: called with the number of a signal after which the block has not ended in time; called in the guard's
            thread, and ends the process.
        on_loss: called where the core has ended and the block has not, alike.
        is_lost: returns whether Ray's core has ended.
        patience_s: seconds that the block gets to end by itself.
    """

    def __init__(
        self,
        signals: Collection[int],
        on_signal: Callable[[int], object],
        on_loss: Callable[[], object],
        is_lost: Callable[[], bool],
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._signals, self._on_signal, self._on_loss, self._is_lost = signals, on_signal, on_loss, is_lost
        self._patience_s = patience_s
        self._left = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch while the block runs; does nothing outside the main thread, where signals are somebody else's."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        wakes, woken = os.pipe()
        for end in (wakes, woken):
            os.set_blocking(end, False)
        before = signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        thread = threading.Thread(target=self._watch, args=(wakes,), name="exit guard", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._left.set()
            signal.set_wakeup_fd(before)
            os.close(woken)  # wakes the thread
            thread.join()
            os.close(wakes)

    def _watch(self, wakes: int) -> None:
        received: int | None = None
        until = lost_until = float("inf")
        while not self._left.is_set():
            readable, _, _ = select.select([wakes], [], [], _POLL_S)
            now = time.monotonic()
            for number in os.read(wakes, 64) if readable else b"":
                if number in self._signals:
                    # Ctrl-C again: at once.
                    until = now if received is not None and number == signal.SIGINT else now + self._patience_s
                    received = received or number
            if received is None:
                lost_until = min(lost_until, now + self._patience_s) if self._is_lost() else float("inf")
            if now < min(until, lost_until) or self._left.is_set():
                continue
            # The process that follows by exec inherits this thread's mask: a second signal does not end it half-way.
            signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
            if received is not None:
                self._on_signal(received)
            else:
                self._on_loss()
            return


class StartingCore:
    """Tells whether the GCS of a private Ray, a child of this process, has been there and is gone."""

    def __init__(self) -> None:
        self._pid: int | None = None

    def is_lost(self) -> bool:
        """Return whether a GCS was seen and none runs now; a start that is repeated has another one soon."""
        if self._pid is not None and _runs(self._pid):
            return False
        seen, self._pid = self._pid is not None, _gcs()
        if self._pid is None and seen:
            self._pid = -1  # none, and there was one
        return self._pid == -1


def _runs(pid: int) -> bool:
    with suppress(psutil.Error, ValueError):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def _gcs() -> int | None:
    with suppress(psutil.Error):
        for process in psutil.Process().children():
            with suppress(psutil.Error):
                if process.name() == _GCS and process.status() != psutil.STATUS_ZOMBIE:
                    return process.pid
    return None
