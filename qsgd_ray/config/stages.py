"""What a study does, stage after stage, and by what rule it decides; frozen, checked at birth."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from qsgd_ray.config.base import Frozen, LogUniform, Name, Uniform
from qsgd_ray.config.errors import refusal
from qsgd_ray.config.workload import Seed

Stage = Literal["search", "confirm", "map"]
STAGES: tuple[Stage, ...] = ("search", "confirm", "map")


def _distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) != len(seeds):
        raise refusal("each seed once")
    return seeds


def _distinct_values(values: tuple[Value, ...]) -> tuple[Value, ...]:
    if len({(type(value), value) for value in values}) != len(values):
        raise refusal("each value once")
    return values


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
            raise refusal(f"objectives: quality first, each once; got {', '.join(self.objectives) or 'none'}")
        if len(self.objectives) > 1 and self.sampler == "cmaes":
            raise refusal("sampler: any other than cmaes with several objectives; got 'cmaes'")
        if len(self.objectives) == 1 and self.tolerance:
            raise refusal(f"tolerance: 0 with quality as the only objective; got {self.tolerance:g}")
        if len(self.seeds) > 1 and self.workers > 1:
            raise refusal(f"workers: 1 with several seeds, which are trained side by side; got {self.workers}")
        return self

    @property
    def startup_trials(self) -> int:
        """How many points of an arm a sampler that learns draws at random before it does.

        Optuna's own ten would be all of a small budget.
        """
        return min(10, max(2, self.trials_per_arm // 2))

    @property
    def one_at_a_time(self) -> bool:
        """Can its trials be gone through again in the order in which they came?"""
        return self.trials_at_once_per_arm == 1

    @property
    def deterministic(self) -> bool:
        return self.one_at_a_time and "step_time" not in self.objectives


class Confirm(Frozen):
    """Every arm at its best point, on fresh seeds, paired across arms.

    `workers` of one trial. Trials of one worker run beside each other, `trials_at_once` at most (None: as many as the
    cluster has room for); they then share its cores, which is to be thought of where seconds are compared. Groups of
    several workers take their trials in turn, `trials_per_fit` of them before they are started anew (None: all).
    """

    seeds: Seeds
    epochs: int = Field(ge=1)
    workers: int = Field(default=2, ge=1)
    trials_at_once: int | None = Field(default=None, ge=1)
    trials_per_fit: int | None = Field(default=None, ge=1)


Value = bool | int | float | str
Values = Annotated[tuple[Value, ...], Field(min_length=1), AfterValidator(_distinct_values)]
WORKLOAD = "workload."


class Map(Frozen):
    """Where an arm pays and where it stops: the arm at many settings, each against the baseline at the same seeds.

    `axes`: fields of the arm (`perturbation.n_qubits`, `learning_rate`) or of the workload (`workload.model.d_model`)
    by dotted path, each with its values. All combinations are trained; with `n_points`, so many settings that fill the
    space instead (scrambled Sobol points, Owen 1995, keyed by `seed`), and an axis may be a range. What is no axis is
    as the arm was confirmed. The baseline meets a setting with those of its axes that it has too: an axis below
    `perturbation` is not of AdamW.

    A map explores: it reads validation data, and its p values are corrected for the number of settings.
    """

    arm: Name
    axes: Annotated[dict[str, Values | LogUniform | Uniform], Field(min_length=1)]
    seeds: Seeds
    epochs: int = Field(ge=1)
    workers: int = Field(default=1, ge=1)
    n_points: int | None = Field(default=None, ge=1)
    seed: Seed = 0

    @model_validator(mode="after")
    def _ranges_are_filled(self) -> Self:
        ranges = [path for path, axis in self.axes.items() if not isinstance(axis, tuple)]
        if ranges and self.n_points is None:
            raise refusal(f"axes.{ranges[0]}: a list of values, or a range together with n_points")
        return self


# The claims of the paper (arXiv 2511.01918) that a study can check, by the names of analysis/claims.py.
ClaimId = Literal["C1", "C2", "C3", "C4", "C5", "C6", "C7"]


class Decision(Frozen):
    """The rule of the verdict, written before the first trial (accuracies are fractions of one)."""

    margin: float = Field(gt=0, lt=1)
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    power: float = Field(default=0.8, gt=0.5, lt=1)
