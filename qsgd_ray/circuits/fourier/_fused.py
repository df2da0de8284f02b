"""Values and gradients of a short Fourier series in expressions that torch.compile makes one kernel of."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qsgd_ray.config.errors import one_line

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
        log.warning("torch.compile failed, evaluated without it: %s", one_line(error, part="first"))
        _kernels[function] = lambda *_: None
        return None


def _waves(x: Tensor, n_waves: int) -> list[Tensor]:
    y = x if n_waves % 2 else 0.5 * x
    c, s = torch.cos(y), torch.sin(y)
    cosines, sines = [c], [s]
    if n_waves % 2 == 0:
        c, s = 1 - 2 * s * s, 2 * s * c
    while len(sines) < n_waves // 2:
        cos, sin = cosines[-1], sines[-1]
        cosines.append(cos * c - sin * s)
        sines.append(sin * c + cos * s)
    return [*([torch.ones_like(x)] if n_waves % 2 else []), *cosines, *sines]


def fused_values(coefficients: Tensor, x: Tensor) -> Tensor:
    columns = coefficients[:, :, None].unbind(1)
    value = torch.zeros_like(x)
    for column, wave in zip(columns, _waves(x, len(columns)), strict=True):
        value = value + column * wave
    return value


def fused_gradients(slopes: Tensor, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    waves = _waves(x, slopes.shape[1])
    sums = torch.stack([(grad * wave).sum((0, 2)) for wave in waves], 1)
    return sums, grad * fused_values(slopes, x)
