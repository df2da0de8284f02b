"""Workloads: a model, its data, a loss and a metric; settings come in, a `Workload` goes out.

`Workload` (workloads/protocol.py) is all that the training loop knows of what it trains.
"""

from __future__ import annotations

import torch

from qsgd_ray.config import ObjectiveTask, OwnTask, StoredTask, StudyError, SupervisedTask, Task, TextTask
from qsgd_ray.config.own_task import code
from qsgd_ray.workloads.llm import LanguageWorkload
from qsgd_ray.workloads.objective import ObjectiveWorkload
from qsgd_ray.workloads.protocol import Workload, check_rank
from qsgd_ray.workloads.supervised import SupervisedWorkload
from qsgd_ray.workloads.text import TextWorkload

__all__ = ["Workload", "check_rank", "make_workload"]


def make_workload(settings: Task, device: str | torch.device = "cpu") -> Workload:
    """Make the workload that settings describe.

    Args:
        settings: a `TextTask`, a `LanguageTask`, or settings of a class of one's own.
        device: where the data lies and batches are made, e.g. "cuda:0"; models are made on the CPU.

    Returns:
        The workload, its data generated or read.

    Raises:
        StudyError: one line that names what is missing: a model, a data set, a package, the class or its code.
        ValueError: what a user's class returned cannot be used; one line.

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
    if isinstance(settings, StoredTask):
        raise StudyError(
            f"workload: got {settings.kind} with code {settings.code}, which is not loaded; allowed: with the study "
            "file of this code (qsgd-ray replay --study FILE)"
        )
    if isinstance(settings, OwnTask):
        if (here := code(type(settings)).digest) != settings.code:
            raise StudyError(
                f"workload: got {settings.kind} with code {here} in this process; allowed: {settings.code}, as the "
                "study has it; its packages have to have the same versions"
            )
        if isinstance(settings, SupervisedTask):
            return SupervisedWorkload(settings, device)
        if isinstance(settings, ObjectiveTask):
            return ObjectiveWorkload(settings, device)
        raise StudyError(
            f"workload: got {settings.kind}; allowed: a class derived from SupervisedTask or ObjectiveTask"
        )
    return LanguageWorkload(settings, device)
