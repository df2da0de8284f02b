"""The perturbed optimizer: torch.optim.AdamW plus lambda * Q, with its signals, schedules and telemetry; and others.

adamw.py has the class, and a table that says which of the step paths runs when. _engine.py takes a step: _layout.py
says where the perturbed coordinates lie, signals.py gives their signal s, and _gathered_step.py (few coordinates, or
circuits ahead of time) or _chunked_step.py (all coordinates by a closed form) moves the parameters. driven.py drives
optimizers of any other class, _around.py puts the same Q around them.
"""

from qsgd_ray.optimizer._blocks import count_blocks
from qsgd_ray.optimizer.adamw import SuperpositionalAdamW
from qsgd_ray.optimizer.driven import DrivenOptimizer
from qsgd_ray.optimizer.factory import make_driven_optimizer, make_optimizer
from qsgd_ray.optimizer.schedules import LambdaSchedule, RateSchedule
from qsgd_ray.optimizer.signals import CircuitSignal, ClosedForm, Signal, make_signal
from qsgd_ray.optimizer.telemetry import Telemetry

__all__ = [
    "CircuitSignal",
    "ClosedForm",
    "DrivenOptimizer",
    "LambdaSchedule",
    "RateSchedule",
    "Signal",
    "SuperpositionalAdamW",
    "Telemetry",
    "count_blocks",
    "make_driven_optimizer",
    "make_optimizer",
    "make_signal",
]
