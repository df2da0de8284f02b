"""Values and gradients of a short Fourier series in one pass over x, as kernels that torch.compile makes.

`fused_values` and `fused_gradients` are plain expressions: elementwise, so that a compiler fuses each into one kernel.
`run_compiled` compiles them on first use. Where no compiler works, it says so once and answers None; the caller then
takes the rows of _bases.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qsgd_ray.config.errors import one_line

_log = logging.getLogger(__name__)

# The kernel of each expression that was called; one that returns None where it cannot be compiled.
_kernels: dict[Callable[..., Any], Callable[..., Any]] = {}


def run_compiled(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return function(*arguments) by its compiled kernel, or None, with one line in the log, where compiling fails.

    The first call takes seconds.
    """
    if function not in _kernels:
        _kernels[function] = torch.compile(function)
    try:
        return _kernels[function](*arguments)
    except RuntimeError as error:  # a missing compiler raises at the first call, under several names
        _log.warning("torch.compile failed, evaluated without it: %s", one_line(error, part="first"))
        _kernels[function] = lambda *_: None
        return None


def fused_values(coefficients: Tensor, x: Tensor) -> Tensor:
    """Return f(x), (outer, h, length), for coefficients (h, T) and x alike, of one dtype."""
    columns = coefficients[:, :, None].unbind(1)
    value = torch.zeros_like(x)
    for column, wave in zip(columns, _waves(x, len(columns)), strict=True):
        value = value + column * wave
    return value


def fused_gradients(slopes: Tensor, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients in the coefficients, (h, T), and in x.

    `slopes`: coefficients of f', (h, T). `grad`: gradient in f(x), of the shape of x.
    """
    waves = _waves(x, slopes.shape[1])
    sums = torch.stack([(grad * wave).sum((0, 2)) for wave in waves], 1)
    return sums, grad * fused_values(slopes, x)


def _waves(x: Tensor, n_waves: int) -> list[Tensor]:
    """Return cos(w x) by rising w, then sin(w x) without sin(0 x); each pair is the one before it rotated by x."""
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
