"""What the tests of the pool ask it."""

import torch

from qsgd_ray.circuits.spec import CircuitSpec

SPEC = CircuitSpec(3, depth=2)


def angles(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(
        n, SPEC.depth, SPEC.n_qubits, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
