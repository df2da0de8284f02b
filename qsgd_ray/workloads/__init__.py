"""Workloads: a model, its data, a loss and a metric; settings come in, a `Workload` goes out.

`Workload` (workloads/protocol.py) is all that the training loop knows of what it trains.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from qsgd_ray.config import (
    HuggingFaceTask,
    LanguageTask,
    ObjectiveTask,
    OwnTask,
    StoredTask,
    StudyError,
    SupervisedTask,
    Task,
    TextTask,
)
from qsgd_ray.config.own_task import code
from qsgd_ray.workloads._user_code import user_code
from qsgd_ray.workloads.huggingface import HuggingFaceWorkload
from qsgd_ray.workloads.llm import LanguageWorkload
from qsgd_ray.workloads.objective import ObjectiveWorkload
from qsgd_ray.workloads.protocol import Workload, check_rank
from qsgd_ray.workloads.supervised import SupervisedWorkload
from qsgd_ray.workloads.text import TextWorkload

# The workload of each base; that of a class is the one of its nearest base.
_WORKLOADS: dict[type, Callable[[Any, str | torch.device], Workload]] = {
    TextTask: TextWorkload,
    LanguageTask: LanguageWorkload,
    SupervisedTask: SupervisedWorkload,
    ObjectiveTask: ObjectiveWorkload,
    HuggingFaceTask: HuggingFaceWorkload,
}

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
        if type(settings).workload is not OwnTask.workload:
            with user_code(settings):
                own: Workload = settings.workload(torch.device(device))
            return _with_protocol(own, settings)
    for kind in type(settings).__mro__:
        if kind in _WORKLOADS:
            return _WORKLOADS[kind](settings, device)
    raise StudyError(
        f"workload: got {settings.kind}; allowed: a class derived from SupervisedTask or ObjectiveTask, or one with a "
        "method workload"
    )


def _with_protocol(workload: Workload, settings: OwnTask) -> Workload:
    """Return what a class's `workload` returned, if it has all of the protocol."""
    names = [name for name in dir(Workload) if not name.startswith("_")] + [*Workload.__annotations__]
    if missing := sorted(name for name in {*names} if not hasattr(workload, name)):
        kind = type(workload).__name__
        raise ValueError(f"workload: got a {kind} without {', '.join(missing)}; allowed: the protocol Workload")
    if workload.settings != settings:
        raise ValueError("workload: got one whose settings are not the task's; allowed: those that it was made from")
    return workload
