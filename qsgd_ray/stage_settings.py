"""What a study does, stage after stage, and by what rule it decides; frozen, checked at birth."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from qsgd_ray.spaces import Frozen, refuse
from qsgd_ray.workload_settings import Seed

Stage = Literal["search", "confirm"]
STAGES: tuple[Stage, ...] = ("search", "confirm")


def _distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) != len(seeds):
        raise refuse("each seed once")
    return seeds


Seeds = Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(_distinct)]


class Search(Frozen):
    """Each arm tuned by Optuna under Ray Tune with the same budget; asynchronous halving per arm.

    With one trial at a time per arm the search is a pure function of the study; with more, what is suggested and what
    is halted depends on who arrives first. The resolved study records which it was.
    """

    trials_per_arm: int = Field(ge=1)
    epochs: int = Field(ge=1)
    seed: Seed = 0
    sampler: Literal["tpe", "random", "gp", "qmc", "cmaes", "nsga2"] = "tpe"
    grace_epochs: int = Field(default=2, ge=1)
    reduction_factor: int = Field(default=3, ge=2)
    trials_at_once_per_arm: int = Field(default=1, ge=1)
    workers: int = Field(default=1, ge=1)

    @property
    def deterministic(self) -> bool:
        return self.trials_at_once_per_arm == 1


class Confirm(Frozen):
    """Every arm at its best point, on fresh seeds, paired across arms."""

    seeds: Seeds
    epochs: int = Field(ge=1)
    workers: int = Field(default=2, ge=1)
    trials_per_fit: int | None = Field(default=None, ge=1)


class Decision(Frozen):
    """The rule of the verdict, written before the first trial (accuracies are fractions of one)."""

    margin: float = Field(gt=0, lt=1)
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    power: float = Field(default=0.8, gt=0.5, lt=1)
