"""Adam's step with its perturbation in one pass over memory: pieces in, the same one step further, by a C++ kernel.

What fused AdamW costs is its seven floats a parameter, read and written; torch's operations for Q and D would make
them thirty. Every formula, placement and direction; s = sin(pi theta), s = 1, or s as given. Float32 on the CPU only,
where there is a C++ compiler. Its rounding is not that of torch's kernels, but does not depend on how coordinates are
cut into pieces, nor on the number of threads.
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
from qsgd_ray.optimizer._adam import Piece
from qsgd_ray.optimizer.native.compiler import library, source
from qsgd_ray.optimizer.signals import KernelSignal

_PIECE = struct.Struct("@5P2q")
_SETTINGS = struct.Struct("@10f")


class Rule(NamedTuple):
    """What the step is, with g the gradient (of the other sign: maximize) and d Adam's direction m_hat / (sqrt(v_hat) +
    eps), or m / sqrt(v + eps) in the formula `paper`.

    `s`: sin(pi theta), 1, or tensors that come with the pieces. `direction`: Q is s * g, or s * d of the plain
    gradient. `placement`: lambda * Q is added to d, or to what m and v are fed.
    """

    s: KernelSignal
    formula: Formula = "adamw"
    placement: Placement = "update"
    direction: Direction = "gradient"


class Squares(NamedTuple):
    """Sums of squares over each piece: (pieces,) float64, within 1e-6; (0,) where they were not asked for.

    `q`: of Q, before lambda. `adam`: of Adam's direction as the moments stand after the step.
    """

    q: Tensor
    adam: Tensor


def one_pass(
    pieces: Sequence[Piece], rule: Rule, given: Sequence[Tensor] | None = None, norms: bool = False
) -> Squares | None:
    """One step of all pieces in place, with their groups' settings; None, and nothing done, where there is no kernel.

    That is without a compiler, or if one piece is not such as `fits` has it. `given`: s of each piece, as long as its
    theta. Beyond its memory traffic a call takes some 12 microseconds, and 2.5 a piece; the first of a rule half a
    second.
    """
    if (rule.s == "given") != (given is not None):
        came = "none" if given is None else "tensors"
        raise ValueError(f"given: got {came} for s = {rule.s}; allowed: tensors for s = given, else none")
    if not all(map(fits, pieces, given or itertools.repeat(None))):
        return None
    kernel = _kernel("step", rule)
    if kernel is None:
        return None
    pointers = [0] * len(pieces) if given is None else [s.data_ptr() for s in given]
    squares = _called(kernel, pieces, [piece.age + 1 for piece in pieces], pointers, norms)
    increment_version([x for theta, _, m, v, *_ in pieces for x in (theta, m, v)])
    return squares


def direction_squares(pieces: Sequence[Piece], formula: Formula) -> Tensor | None:
    """The sum of squares of Adam's direction as each piece's m and v stand, which is `age` steps old, 1 at least.

    (pieces,) float64; None where `one_pass` gives None. Reads two floats a coordinate.
    """
    if not all(map(fits, pieces)):
        return None
    kernel = _kernel("directions", Rule("gradient", formula))
    if kernel is None:
        return None
    return _called(kernel, pieces, [piece.age for piece in pieces], [0] * len(pieces), True).adam


def fits(piece: Piece, s: Tensor | None = None) -> bool:
    """Whether it is float32, on the CPU, and each of its tensors in one stretch of memory; so too its s."""
    theta, gradient, m, v, age, _ = piece
    size = theta.numel()
    return (
        _plain(theta, size)
        and _plain(gradient, size)
        and _plain(m, size)
        and _plain(v, size)
        and (s is None or _plain(s, size))
        and not isinstance(age, Tensor)  # on a GPU
    )


def _plain(x: Tensor, size: int) -> bool:
    # A type of its own may have no memory of its own; a gradient that was expanded is one number many times; and of
    # some, what is in memory is not yet negated, or not there at all since it is zero.
    plain = type(x) is Tensor and x.dtype == torch.float32 and x.is_cpu and x.numel() == size and x.is_contiguous()
    return plain and not x.is_neg() and not x._is_zerotensor()


def _kernel(name: str, rule: Rule) -> Callable[..., None] | None:
    built = library(source("adam_step.cpp"), *sorted(word.upper() for word in rule))
    return None if built is None else getattr(built, name)


def _called(
    kernel: Callable[..., None], pieces: Sequence[Piece], ages: Sequence[Any], s: Sequence[int], norms: bool
) -> Squares:
    """`ages`: of the moments that are divided by one another. `s`: where it lies."""
    packed, settings = bytearray(), bytearray()
    numbers: dict[tuple[int, int], int] = {}
    for (theta, gradient, m, v, _, group), age, own in zip(pieces, ages, s, strict=True):
        key = (id(group), age)
        if key not in numbers:
            numbers[key] = len(numbers)
            settings += _settings(group, age)
        packed += _PIECE.pack(
            theta.data_ptr(), gradient.data_ptr(), m.data_ptr(), v.data_ptr(), own, theta.numel(), numbers[key]
        )
    squares = torch.empty((len(pieces) if norms else 0, 2), dtype=torch.float64)
    kernel(
        bytes(packed),
        ctypes.c_int64(len(pieces)),
        bytes(settings),
        ctypes.c_int(torch.get_num_threads()),
        ctypes.c_void_p(squares.data_ptr() if norms else None),
    )
    return Squares(*squares.unbind(1))


def _settings(group: dict[str, Any], age: int) -> bytes:
    beta1, beta2 = (float(beta) for beta in group["betas"])
    lr = float(group["lr"])
    return _SETTINGS.pack(
        -1.0 if group["maximize"] else 1.0,
        1 - beta1,
        beta2,
        1 - beta2,
        1 / (1 - beta1**age),
        (1 - beta2**age) ** -0.5,
        float(group["eps"]),
        1 - lr * float(group["weight_decay"]),
        lr,
        float(group["lambda_"]),
    )
