"""The perturbed optimizer: the class that is torch.optim.AdamW plus lambda * Q, and what it is made of.

A step's way: adamw.py asks _layout.py which coordinates are perturbed, signals.py for their signal s, and lets
_gathered_step.py (few coordinates, circuits ahead of time) or _chunked_step.py (all of them, in one pass) take the
step.
"""

from qsgd_ray.optimizer.adamw import SuperpositionalAdamW
from qsgd_ray.optimizer.factory import make_optimizer
from qsgd_ray.optimizer.schedules import LambdaSchedule
from qsgd_ray.optimizer.telemetry import Telemetry

__all__ = ["LambdaSchedule", "SuperpositionalAdamW", "Telemetry", "make_optimizer"]
