"""Mixed precision: a device and a type of half precision come in; the context in which a model computes goes out."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from qsgd_ray.config.workload import HalfPrecision
from qsgd_ray.models.pretrained import TORCH_DTYPES


def precision(device: torch.device, half: HalfPrecision | None) -> AbstractContextManager[object]:
    """Return the context of mixed precision, or one that does nothing.

    Args:
        device: where the model computes.
        half: type of the matrix products. None: float32.
    """
    return nullcontext() if half is None else torch.autocast(device.type, TORCH_DTYPES[half])
