"""Workloads: a model, its data, a loss and a metric; settings come in, a `Workload` goes out.

`Workload` (workloads/protocol.py) is all that the training loop knows of what it trains.
"""

from __future__ import annotations

import torch

from qsgd_ray.config import Task, TextTask
from qsgd_ray.workloads.llm import LanguageWorkload
from qsgd_ray.workloads.protocol import Workload, check_rank
from qsgd_ray.workloads.text import TextWorkload

__all__ = ["Workload", "check_rank", "make_workload"]


def make_workload(settings: Task, device: str | torch.device = "cpu") -> Workload:
    """Make the workload that settings describe.

    Args:
        settings: a `TextTask` or a `LanguageTask`.
        device: where the data lies and batches are made, e.g. "cuda:0"; models are made on the CPU.

    Returns:
        The workload, its data generated or read.

    Raises:
        StudyError: one line that names what is missing: a model, a data set, a package.

    Example:
        >>> from qsgd_ray.config import TextTask
        >>> workload = make_workload(TextTask(train_size=64, batch_size=32))
        >>> workload.steps_per_epoch
        2
        >>> next(workload.batches(seed=1, epoch=1, rank=0, world_size=1)).tokens.shape
        torch.Size([32, 16])
    """
    if isinstance(settings, TextTask):
        return TextWorkload(settings, device)
    return LanguageWorkload(settings, device)
