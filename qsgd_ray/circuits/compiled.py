"""Functions of tensors as one kernel each by torch.compile; where that has no compiler, the caller does without."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

log = logging.getLogger(__name__)

_kernels: dict[Callable[..., Any], Callable[..., Any]] = {}


def compiled_answer(function: Callable[..., Any], *arguments: Any) -> Any:
    """function(*arguments) by a kernel made for it; None, and one line in the log, where that cannot be made.

    The first call takes seconds.
    """
    if function not in _kernels:
        _kernels[function] = torch.compile(function)
    try:
        return _kernels[function](*arguments)
    except RuntimeError as error:  # a missing compiler shows itself at the first call, under several names
        reason = str(error).strip().splitlines()
        log.warning("torch.compile failed, evaluated without it: %s", reason[0] if reason else type(error).__name__)
        _kernels[function] = lambda *_: None
        return None
