"""Processes that tests start and see end."""

import psutil


def lives(process: psutil.Process) -> bool:
    """Does it run? What has ended and was not buried by whoever adopted it (a container's first process) does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
