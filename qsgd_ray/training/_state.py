"""What a training consists of, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qsgd_ray.outcome import Measurement


@dataclass
class Progress:
    """How far a training is. `loss_sum`: of this replica's losses since the last measurement, a float64 scalar."""

    loss_sum: Tensor
    step: int = 0
    moved: bool = False  # to another number of processes
    wall_s: float = 0.0
    evaluation_s: float = 0.0
    n_tokens: int = 0
    model_flops: float = 0.0
    measurements: tuple[Measurement, ...] = ()


@dataclass(frozen=True)
class Parts:
    """What a training consists of; `restore` writes into these very objects."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedules: list[Any]  # with state_dict and load_state_dict, as torch's schedulers
    scaler: torch.amp.GradScaler
