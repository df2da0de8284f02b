"""What a study does, stage after stage, and by what rule it decides; frozen, checked at birth."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from qsgd_ray.spaces import Frozen, refuse
from qsgd_ray.workload_settings import Seed

Stage = Literal["search", "confirm"]
STAGES: tuple[Stage, ...] = ("search", "confirm")


def _distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) != len(seeds):
        raise refuse("each seed once")
    return seeds


Seeds = Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(_distinct)]


Sampler = Literal["tpe", "random", "gp", "qmc", "cmaes", "nsga2"]
Objective = Literal["quality", "step_time", "circuits"]


class Search(Frozen):
    """Each arm tuned by Optuna under Ray Tune with the same budget; asynchronous halving per arm.

    A trial is a point, trained from each of `seeds` side by side (all of its models are in memory) and judged by the
    interquartile mean of their validation accuracy; a run that failed counts 0.

    `objectives`: `quality`, and what is to be small: `step_time`, seconds a step, and `circuits`, asked a step. With
    several nothing is halved, since a cheap point would be judged before it has learned; of the points within
    `tolerance` of the best quality the cheapest is confirmed, by the first objective that costs, then by the next.

    With one trial at a time per arm the search is a pure function of the study; with more, what is suggested and what
    is halted depends on who arrives first, and with `step_time` on the machine. The resolved study records which it
    was.
    """

    trials_per_arm: int = Field(ge=1)
    epochs: int = Field(ge=1)
    seeds: Seeds = (0,)
    sampler: Sampler = "tpe"
    objectives: tuple[Objective, ...] = ("quality",)
    tolerance: float = Field(default=0.0, ge=0, lt=1)
    grace_epochs: int = Field(default=2, ge=1)
    reduction_factor: int = Field(default=3, ge=2)
    trials_at_once_per_arm: int = Field(default=1, ge=1)
    workers: int = Field(default=1, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _one_seed(cls, fields: Any) -> Any:
        """Studies of the time when there was one say `seed`."""
        if isinstance(fields, dict) and "seed" in fields and "seeds" not in fields:
            return {name: value for name, value in fields.items() if name != "seed"} | {"seeds": [fields["seed"]]}
        return fields

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.objectives[:1] != ("quality",) or len(set(self.objectives)) != len(self.objectives):
            raise refuse(f"objectives: quality first, each once; got {', '.join(self.objectives) or 'none'}")
        if len(self.objectives) > 1 and self.sampler == "cmaes":
            raise refuse("sampler: any other than cmaes with several objectives; got 'cmaes'")
        if len(self.objectives) == 1 and self.tolerance:
            raise refuse(f"tolerance: 0 with quality as the only objective; got {self.tolerance:g}")
        if len(self.seeds) > 1 and self.workers > 1:
            raise refuse(f"workers: 1 with several seeds, which are trained side by side; got {self.workers}")
        return self

    @property
    def one_at_a_time(self) -> bool:
        """Can its trials be gone through again in the order in which they came?"""
        return self.trials_at_once_per_arm == 1

    @property
    def deterministic(self) -> bool:
        return self.one_at_a_time and "step_time" not in self.objectives


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
