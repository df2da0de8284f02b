"""Keep this process's handler of SIGTERM while Ray is shut down."""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_POLL_S = 0.002

# The handler that the system calls; Python's own list of handlers (signal.getsignal) does not know what C code changes.
_system_handler = ctypes.pythonapi.PyOS_getsig
_system_handler.restype, _system_handler.argtypes = ctypes.c_void_p, (ctypes.c_int,)
_set_system_handler = ctypes.pythonapi.PyOS_setsig
_set_system_handler.restype, _set_system_handler.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)


@contextmanager
def kept_sigterm() -> Iterator[None]:
    """Put the handler of SIGTERM back at once where the block lets C code change it.

    Ray's core restores the system's default when it is torn down (RayLog::UninstallSignalAction, 2.60), and
    ray.shutdown takes seconds more: a SIGTERM ended the process then without a word. What the system calls is looked at
    every two milliseconds.
    """
    own = _system_handler(signal.SIGTERM)
    if own is None:  # the default
        yield
        return
    ended = threading.Event()

    def put_back() -> None:
        if _system_handler(signal.SIGTERM) != own:
            _set_system_handler(signal.SIGTERM, own)

    def keep() -> None:
        while not ended.wait(_POLL_S):
            put_back()

    thread = threading.Thread(target=keep, name="kept SIGTERM", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        put_back()
