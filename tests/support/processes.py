"""Processes that tests start and see end."""

import time

import psutil

# For a test that starts processes of Ray, against a hang: on a busy machine each start may take a minute.
STARTS_RAY_S = 600


def lives(process: psutil.Process) -> bool:
    """Return whether a process runs; one that has ended and that its adopted parent did not reap does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def listening(process: psutil.Process) -> list[tuple[str, int]]:
    """The addresses at which a process listens; none where it has just ended."""
    try:
        return [tuple(c.laddr) for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    except psutil.NoSuchProcess:
        return []


def listening_elsewhere(process: psutil.Process) -> list[tuple[str, int]]:
    """Those beyond loopback."""
    return [address for address in listening(process) if address[0] not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")]


def name_of(process: psutil.Process) -> str:
    """Empty where it has just ended."""
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def wait_until(holds, deadline_s: float, what: str) -> None:
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < deadline_s, what
        time.sleep(0.05)
