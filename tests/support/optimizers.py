"""Parameters and gradients for an optimizer, and its naive twin."""

import shutil

import pytest
import torch

from qsgd_ray.native import _build
from support import reference_optimizer as reference

NEEDS_COMPILER = pytest.mark.skipif(
    not any(map(shutil.which, _build.COMPILERS)), reason="there is no C++ compiler on the path"
)
SHAPES = ((3, 4), (5,), (2, 1), (1,))
KERNELS = ({"fused": True}, {"foreach": True}, {"foreach": False})


def parameters_of(shapes=SHAPES, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)) for shape in shapes
    ]


def flat(parameters) -> torch.Tensor:
    """All coordinates in one row, in the order of the parameters."""
    return torch.cat([parameter.detach().reshape(-1) for parameter in parameters])


def set_gradients(parameters, step):
    generator = torch.Generator().manual_seed(1000 + step)
    for parameter in parameters:
        # It depends on theta, so a difference in theta shows again; boundedly, so that rounding does not grow.
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter.dtype)
        parameter.grad = noise * (1 + parameter.detach().tanh())


def run(optimizer, parameters, steps, first=0):
    for step in range(first, first + steps):
        set_gradients(parameters, step)
        optimizer.step()
    return flat(parameters)


def twin_of(parameters, signal, scope, n_qubits=4, lr=1e-2, lambda_=0.5, weight_decay=0.0, eps=1e-8, **options):
    sizes = [parameter.numel() for parameter in parameters]
    blocks = reference.blocks_of(sizes, scope, n_qubits)
    return reference.AdamWWithSignal(
        flat(parameters).numpy(), lr, 0.9, 0.999, eps, weight_decay, lambda_, blocks, signal, **options
    )
