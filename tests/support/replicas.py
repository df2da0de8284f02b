"""Processes that form a gloo group: how they meet, and how they leave."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
import torch.multiprocessing

TIMEOUT = timedelta(seconds=180)


@contextmanager
def group(meet: str | Path, rank: int, world: int) -> Iterator[None]:
    """Be one of the processes of a group that meets in a file."""
    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=world, timeout=TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def spawn(work: Callable[..., None], args: tuple[Any, ...], n_processes: int, *, join: bool = True) -> Any:
    """Run `work(number, *args)` in so many new processes, which leave without an end of their interpreter.

    A thread of gloo may still hold the last reference to a collective that is over. If it gives it back while the
    interpreter ends, the process aborts ("terminate called without an active exception"): AsyncWork's destructor asks
    for the interpreter's lock. Workers of Ray leave in the same way, so only processes of the tests' own meet it.
    """
    with mock.patch.dict(os.environ, GLOO_SOCKET_IFNAME="lo"):
        return torch.multiprocessing.spawn(_work_and_leave, (work, *args), nprocs=n_processes, join=join)


def in_two_processes(function: Callable[..., Any], folder: Path, *args: Any) -> tuple[Any, Any]:
    """Return what `function(rank, *args)` returns in a group of this process, which is rank 0, and a new one."""
    meet, file = folder / "meet", folder / "1.pt"
    other = spawn(_as_rank_1, (function, str(meet), str(file), *args), 1, join=False)
    try:
        with mock.patch.dict(os.environ, GLOO_SOCKET_IFNAME="lo"), group(meet, 0, 2):
            mine = function(0, *args)
        while not other.join():
            pass
    finally:
        for process in other.processes:
            process.kill()
    return mine, torch.load(file, weights_only=False)


def _work_and_leave(number: int, work: Callable[..., None], *args: Any) -> None:
    work(number, *args)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _as_rank_1(_: int, function: Callable[..., Any], meet: str, file: str, *args: Any) -> None:
    torch.set_num_threads(1)
    with group(meet, 1, 2):
        theirs = function(1, *args)
    torch.save(theirs, file)
