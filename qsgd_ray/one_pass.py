"""Adam's step and the sine's perturbation in one pass over memory, by a kernel that torch.compile makes.

What fused AdamW costs is its seven floats a parameter; a second pass for Q would make them ten, and a sine as libraries
have it as much time again. Float32 only, and only what most runs ask for: the `adamw` formula, Q = sin(pi theta) * g
taken off the update. Its rounding is not that of torch's kernels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qsgd_ray.adam_steps import Piece
from qsgd_ray.compiled import compiled_answer

# sin(pi r) / r = SINE[0] + SINE[1] r^2 + ..., |r| <= 1/2: interpolated at 200 Chebyshev points of r^2, off by 3e-11.
SINE = (
    3.141592653536291,
    -5.167712764624566,
    2.5501633189477793,
    -0.5992521978306921,
    0.08205040183478672,
    -0.00702838644352765,
)


def take_sine_step(piece: Piece) -> bool:
    """One step of the piece in place, with its group's settings; False, and nothing done, where there is no kernel."""
    if any(x.dtype != torch.float32 for x in piece[:4]):
        return False
    group, age = piece.group, piece.age + 1
    beta1, beta2 = group["betas"]
    lr = float(group["lr"])
    numbers = (
        -1.0 if group["maximize"] else 1.0,
        1 - beta1,
        beta2,
        1 - beta2,
        (1 - beta2**age) ** -0.5,
        group["eps"],
        1 - lr * group["weight_decay"],
        lr / (1 - beta1**age),
        lr * group["lambda_"],
    )
    # A tensor, since every set of floats would be a kernel of its own.
    scalars = torch.tensor(numbers, dtype=torch.float32, device=piece.theta.device)
    return compiled_answer(sine_step, *piece[:4], scalars, dynamic=True) is not None


def sine_step(theta: Tensor, gradient: Tensor, m: Tensor, v: Tensor, scalars: Tensor) -> Tensor:
    """theta, m and v one step further, in place; `scalars` in the order of `take_sine_step`."""
    sign, one_minus_beta1, beta2, one_minus_beta2, unbias_v, eps, kept, step_size, q_size = scalars.unbind(0)
    g = gradient * sign
    q = sin_pi(theta) * g
    m.copy_(m + (g - m) * one_minus_beta1)
    v.copy_(v * beta2 + g * g * one_minus_beta2)
    return theta.copy_(theta * kept - m / (torch.sqrt(v) * unbias_v + eps) * step_size - q * q_size)


def sin_pi(x: Tensor) -> Tensor:
    """sin(pi x) in a dozen multiplications, for kernels: within 2e-7 for |x| < 8 in float32.

    torch.sin of the rounded pi * x is within 1.4e-6 there. With x = k + r, k the nearest whole number, it is (-1)^k
    sin(pi r).
    """
    k = torch.round(x)
    r = x - k
    square = r * r
    quotient = SINE[-1] * square + SINE[-2]
    for coefficient in SINE[-3::-1]:
        quotient = quotient * square + coefficient
    half = 0.5 * k
    return quotient * r * (1 - 4 * (half - torch.floor(half)))  # half a whole number: k is even
