"""Circuits for the tests of the pool."""

import numpy as np
import torch

from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.pool._request import CircuitRequest

SPEC = CircuitSpec(3, depth=2)
KIND = CircuitRequest(SPEC, np.zeros(SPEC.angles_shape(1)), "z", None, None, 1).kind


def angles(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(
        n, SPEC.depth, SPEC.n_qubits, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
