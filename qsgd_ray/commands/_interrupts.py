"""Signals that end a study's command: rows are kept, Ray is ended, one line says so, the exit code is the signal's.

Ctrl-C, SIGTERM (`ray job stop`, a batch system's limit) and SIGHUP (a terminal that is closed) end it alike, with exit
code 130, 143 or 129.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console

from qsgd_ray.commands._exit_guard import ExitGuard, StartingCore
from qsgd_ray.commands.errors import complain
from qsgd_ray.storage import StorageError

if TYPE_CHECKING:
    from qsgd_ray.execution.connection import Cluster
    from qsgd_ray.results import Results
    from qsgd_ray.study.run import Interrupts

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# One thread says goodbye: the main thread, or the guard where that one hangs.
_LEAVING = threading.Lock()


class Interrupted(KeyboardInterrupt):
    """One of the ending signals has come."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__()
        self.exit_code = 128 + number


class EndingSignals:
    """The ending signals of this process, and the first of them that came.

    Attributes:
        received: its number; None while none has come. What is raised may get lost on its way, when a library turns it
            into an error of its own; the number does not.
    """

    def __init__(self) -> None:
        self.received: int | None = None

    @contextmanager
    def raised(self) -> Iterator[None]:
        """Raise `Interrupted` in the block when an ending signal comes. A second Ctrl-C ends the process at once."""
        terminals = [stream for stream in (1, 2) if os.isatty(stream)]

        def interrupt(number: int, _frame: Any) -> None:
            if self.received is not None:
                os._exit(128 + number)  # the watchdog ends Ray
            self.received = number
            _pass_over(signal.SIGTERM, signal.SIGHUP)  # one is enough: the study ends from here on
            for stream in terminals:
                if not os.isatty(stream):  # its terminal is gone, and every write would raise
                    os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
            raise Interrupted(number)

        # nohup lets SIGHUP be ignored and a shell SIGINT of what it starts in the background, and that stays so.
        taken = [each for each in _ENDING if signal.getsignal(each) not in (signal.SIG_IGN, None)]
        before = {each: signal.signal(each, interrupt) for each in taken}
        hook = sys.unraisablehook

        def unraisable(told: Any) -> None:
            # Raised in a callback, as after a fork, it is lost; what would be printed of it is a traceback. So is what
            # the handler of ray.init raises, until the next block takes its place.
            error = told.exc_value
            if isinstance(error, SystemExit) and error.code == signal.SIGTERM:
                self.received = self.received or signal.SIGTERM
            elif not isinstance(error, Interrupted):
                hook(told)

        sys.unraisablehook = unraisable
        try:
            yield
        except SystemExit as left:
            if left.code != signal.SIGTERM:
                raise
            self.received = signal.SIGTERM  # ray.init has a handler of its own, which this one met
            _pass_over(signal.SIGTERM, signal.SIGHUP)
            raise Interrupted(signal.SIGTERM) from None
        finally:
            sys.unraisablehook = hook
            # Where one has come, the process takes its leave, and the usual handlers would cut that short.
            if self.received is None:
                for each, handler in before.items():
                    signal.signal(each, handler)
            else:
                atexit.register(_ignore_all)

    def exit_code(self) -> int:
        """Return the exit code of the signal that came; that of Ctrl-C where only the exception is known."""
        return 128 + (self.received or signal.SIGINT)


def _pass_over(*numbers: int) -> None:
    """Let signals do nothing from here on; those that are ignored stay so.

    Of a signal that waits for its handler when SIG_IGN takes the place, Python prints an OSError (signalmodule.c).
    """
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def _ignore_all() -> None:
    """Ignore the ending signals while Python ends, when its own handlers give way to the system's."""
    _pass_over(*_ENDING)
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)


def command_interrupts(signals: EndingSignals, console: Console) -> Interrupts:
    """Return the contexts in which an ending signal keeps the rows, says so and ends this process.

    Where the main thread hangs in a call of Ray, a guard does it, and also where Ray's core is gone meanwhile.

    Args:
        signals: the signals of this process.
        console: where the line goes that says what is kept.
    """
    from qsgd_ray.execution.connection import keep_start_watched, leave_process
    from qsgd_ray.execution.errors import RayLost
    from qsgd_ray.study.run import Interrupts

    class CommandInterrupts(Interrupts):
        def __init__(self) -> None:
            self._cluster: Cluster | None = None
            self._starting = StartingCore()
            self._ends = False

        @contextmanager
        def starting(self, results: Results) -> Iterator[None]:
            try:
                with self._guard(results).watching(), signals.raised():
                    yield
            except BaseException as error:
                # The end of a Ray that was just starting raises errors of its own, which take the signal's place.
                if signals.received is None and not isinstance(error, KeyboardInterrupt):
                    raise
                leave(signals, results, console)

        @contextmanager
        def running(self, results: Results, cluster: Cluster) -> Iterator[None]:
            self._cluster = cluster
            try:
                # ray.init has put a handler of its own in the place of the first, which knows nothing of rows.
                with signals.raised():
                    yield
                self._ends = True  # from here on Ray is ended in order
            except KeyboardInterrupt:
                # `ray job stop` kills after 3 s, and taking leave of Ray amid a fit can take longer. A cluster clears
                # away by itself what a driver leaves behind.
                leave(signals, results, console, self._cluster)

        def _guard(self, results: Results) -> ExitGuard:
            def on_signal(number: int) -> None:
                signals.received = signals.received or number
                leave(signals, results, console, self._cluster)

            def on_loss() -> None:
                with _LEAVING:
                    complain(self._loss() or RayLost.ended("gcs_server"))
                    results.release()
                    leave_process(1, self._cluster)

            return ExitGuard(_ENDING, on_signal, on_loss, self._is_lost)

        def _is_lost(self) -> bool:
            if self._ends:
                return False
            if self._cluster is not None:
                return self._loss() is not None
            keep_start_watched()
            return self._starting.is_lost()

        def _loss(self) -> RayLost | None:
            try:
                if self._cluster is not None:
                    self._cluster.require_alive()
            except RayLost as lost:
                return lost
            return None

    return CommandInterrupts()


def leave(signals: EndingSignals, results: Results, console: Console, cluster: Cluster | None = None) -> NoReturn:
    """Say what is stored, and end this process at once.

    Args:
        signals: the signals of this process, for its exit code.
        results: where the rows are.
        console: where the line goes.
        cluster: the Ray of this process; a private one is ended. None: there is none.
    """
    with _LEAVING:
        if threading.current_thread() is threading.main_thread():
            _pass_over(*_ENDING)
            # The process that follows by exec has this mask; handlers it has not.
            signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        try:
            stored = f"{results.count()} finished trials are"
        except (StorageError, OSError) as error:
            stored = f"What is finished is (how many: {error})"
        results.release()
        with suppress(OSError, ValueError):  # nobody reads it any more
            line = f"Interrupted. {stored} kept in {results.path}; the same command goes on from there."
            console.print(line, soft_wrap=True, highlight=False, markup=False)
            sys.stdout.flush()
        from qsgd_ray.execution.connection import leave_process

        leave_process(signals.exit_code(), cluster)
