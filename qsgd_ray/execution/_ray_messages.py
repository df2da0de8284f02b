"""Shorten what Ray prints on its own: of a message of many lines the first is left."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def first_lines_only() -> Iterator[None]:
    """Within the block, let Ray print one line of each message about its own processes.

    Ray prints such messages on every driver's standard output, whatever `log_to_driver` says, and adds the last lines
    of a log to the loss of a raylet (listen_error_messages in ray/_private/worker.py, 2.60).
    """
    worker: Any = sys.modules.get("ray._private.worker")
    name = "print_to_stdstream"
    if (whole := getattr(worker, name, None)) is None:
        yield
        return

    def first_line(data: dict[str, Any], **options: Any) -> None:
        whole(data | {"lines": [line.partition("\n")[0] for line in data["lines"]]}, **options)

    setattr(worker, name, first_line)
    try:
        yield
    finally:
        setattr(worker, name, whole)
