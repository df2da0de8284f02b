"""Take Adam's step with its perturbation in one pass over memory, by a C++ kernel (native/adam_step.cpp).

Fused AdamW costs its seven floats a parameter, read and written; torch's operations for Q and Adam's direction would
make them thirty. The kernel has every formula, placement and direction, with s = sin(pi theta), s = 1 or s as given.
Float32 on the CPU only, where there is a C++ compiler. Its rounding is not that of torch's kernels, but depends neither
on how coordinates are cut into pieces nor on the number of threads.
"""

from __future__ import annotations

import ctypes
import itertools
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from qsgd_ray.config import Direction, Formula, Placement
from qsgd_ray.native.compiler import kernel
from qsgd_ray.optimizer._adam import Piece
from qsgd_ray.optimizer.signals import KernelSignal

# The structures Piece and Settings of the C++ source.
_PIECE = struct.Struct("@5P2q")
_SETTINGS = struct.Struct("@10f")


class Rule(NamedTuple):
    """The variant of the step; each is compiled when it is first used.

    With g the gradient (its sign turned under `maximize`) and d Adam's direction, m_hat / (sqrt(v_hat) + eps), or
    m / sqrt(v + eps) in the formula `paper`:

    Attributes:
        s: the signal: "sine", sin(pi theta); "gradient", 1; "given", tensors that come with the pieces.
        formula: "adamw" or "paper".
        placement: "update" adds lambda * Q to d; "moments" adds it to what m and v are fed.
        direction: "gradient", Q = s * g; "preconditioned", Q = s * d of the plain gradient.
    """

    s: KernelSignal
    formula: Formula = "adamw"
    placement: Placement = "update"
    direction: Direction = "gradient"


class _Squares(NamedTuple):
    """Sums of squares over each piece: (pieces,) float64, within 1e-6; (0,) where they were not wanted.

    Attributes:
        q: of Q, before lambda.
        adam: of Adam's direction as the moments stand after the step.
    """

    q: Tensor
    adam: Tensor


def one_pass_step(
    pieces: Sequence[Piece], rule: Rule, given: Sequence[Tensor] | None = None, norms: bool = False
) -> _Squares | None:
    """Take one step of all pieces in place, with their groups' settings.

    Beyond its memory traffic a call takes some 12 microseconds, and 2.5 a piece; the first of a rule half a second.

    Args:
        pieces: what to step; step counts are not touched.
        rule: the variant.
        given: s of each piece, as long as its theta; only with rule.s "given".
        norms: True to sum squares.

    Returns:
        The sums of squares; None, with nothing done, where there is no compiler or a piece is not such as
        `is_native_piece` describes.

    Raises:
        ValueError: `given` without rule.s "given", or the reverse.
    """
    if (rule.s == "given") != (given is not None):
        came = "none" if given is None else "tensors"
        raise ValueError(f"given: got {came} for s = {rule.s}; allowed: tensors for s = given, else none")
    if not all(map(is_native_piece, pieces, given or itertools.repeat(None))):
        return None
    kernel = _kernel("step", rule)
    if kernel is None:
        return None
    addresses = [0] * len(pieces) if given is None else [s.data_ptr() for s in given]
    squares = _call(kernel, pieces, [piece.n_steps + 1 for piece in pieces], addresses, norms)
    increment_version([x for theta, _, m, v, *_ in pieces for x in (theta, m, v)])
    return squares


def direction_squares(pieces: Sequence[Piece], formula: Formula) -> Tensor | None:
    """Return the sum of squares of Adam's direction as each piece's m and v stand: (pieces,) float64.

    They have taken `n_steps` steps, at least 1. None in the cases in which `one_pass_step` returns None. Reads two
    floats a coordinate.
    """
    if not all(map(is_native_piece, pieces)):
        return None
    kernel = _kernel("directions", Rule("gradient", formula))
    if kernel is None:
        return None
    return _call(kernel, pieces, [piece.n_steps for piece in pieces], [0] * len(pieces), True).adam


def is_native_piece(piece: Piece, s: Tensor | None = None) -> bool:
    """Return True where a piece, and its s, are float32, on the CPU, and each tensor in one stretch of memory."""
    theta, gradient, m, v, n_steps, _ = piece
    size = theta.numel()
    return (
        _is_plain(theta, size)
        and _is_plain(gradient, size)
        and _is_plain(m, size)
        and _is_plain(v, size)
        and (s is None or _is_plain(s, size))
        and not isinstance(n_steps, Tensor)  # on a GPU
    )


def _is_plain(x: Tensor, size: int) -> bool:
    # A subclass may have no memory of its own; a gradient that was expanded is one number many times; and of some
    # tensors the numbers in memory are not negated yet, or not there at all, being zero.
    plain = type(x) is Tensor and x.dtype == torch.float32 and x.is_cpu and x.numel() == size and x.is_contiguous()
    return plain and not x.is_neg() and not x._is_zerotensor()


def _kernel(name: str, rule: Rule) -> Callable[..., None] | None:
    loaded = kernel("adam_step.cpp", *sorted(word.upper() for word in rule))
    return None if loaded is None else getattr(loaded, name)


def _call(
    kernel: Callable[..., None], pieces: Sequence[Piece], n_steps: Sequence[Any], addresses: Sequence[int], norms: bool
) -> _Squares:
    """Call the kernel. `n_steps`: of the moments that make the direction. `addresses`: of each piece's s."""
    packed, settings = bytearray(), bytearray()
    numbers: dict[tuple[int, int], int] = {}
    for (theta, gradient, m, v, _, group), count, s in zip(pieces, n_steps, addresses, strict=True):
        key = (id(group), count)
        if key not in numbers:
            numbers[key] = len(numbers)
            settings += _settings(group, count)
        packed += _PIECE.pack(
            theta.data_ptr(), gradient.data_ptr(), m.data_ptr(), v.data_ptr(), s, theta.numel(), numbers[key]
        )
    squares = torch.empty((len(pieces) if norms else 0, 2), dtype=torch.float64)
    kernel(
        bytes(packed),
        ctypes.c_int64(len(pieces)),
        bytes(settings),
        ctypes.c_int(torch.get_num_threads()),
        ctypes.c_void_p(squares.data_ptr() if norms else None),
    )
    return _Squares(*squares.unbind(1))


def _settings(group: dict[str, Any], n_steps: int) -> bytes:
    """Pack a group's settings and its bias corrections after `n_steps` steps."""
    beta1, beta2 = (float(beta) for beta in group["betas"])
    lr = float(group["lr"])
    return _SETTINGS.pack(
        -1.0 if group["maximize"] else 1.0,
        1 - beta1,
        beta2,
        1 - beta2,
        1 / (1 - beta1**n_steps),
        (1 - beta2**n_steps) ** -0.5,
        float(group["eps"]),
        1 - lr * float(group["weight_decay"]),
        lr,
        float(group["lambda_"]),
    )
