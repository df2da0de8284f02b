"""Stages of a study, one after the other: search, confirmation, map; and the rule of its verdict."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from qsgd_ray.config._numbers import (
    MOST,
    MOST_ITEMS,
    MOST_PROCESSES,
    MOST_SETTINGS,
    Count,
    Real,
    Seed,
    Whole,
)
from qsgd_ray.config._problems import refusal
from qsgd_ray.config._settings import ALL_FIELDS, Settings
from qsgd_ray.config.base import LogUniform, Name, Uniform
from qsgd_ray.config.base import Value as Value
from qsgd_ray.config.metric import MetricName

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


Seeds = Annotated[tuple[Seed, ...], Field(min_length=1, max_length=MOST_ITEMS), AfterValidator(_distinct)]


Sampler = Literal["tpe", "random", "gp", "qmc", "cmaes", "nsga2"]
Objective = Literal["quality", "step_time", "circuits"]
Scheduler = Literal["asha", "hyperband", "bohb", "none"]
# Samplers that learn from trials which they have not proposed.
_LEARNING: tuple[Sampler, ...] = ("tpe", "gp")
_LATE_DEFAULTS: dict[str, Any] = {
    "scheduler": "asha",
    "known_points": {},
    "warm_start": None,
    "replicate_pruning": None,
}
_LONGEST_PLACE = 1000
KnownPoint = Annotated[dict[str, Value], Field(min_length=1, max_length=MOST_ITEMS)]
KnownPoints = dict[Name, Annotated[tuple[KnownPoint, ...], Field(min_length=1, max_length=MOST_ITEMS)]]


class Search(Settings):
    """Search of each arm's own settings by Optuna under Ray Tune, all arms with the same budget; halving per arm.

    A trial is a point of the arm's space, trained from each of `seeds` side by side (all of its models are in memory)
    and judged by the interquartile mean of the decision's metric on validation data; a run that failed counts with the
    worst value (of accuracy 0). The scheduler stops trials early.

    With one trial at a time per arm the search is a pure function of the study. With more, the points and the halving
    depend on which trial reports first, and with `step_time` on the machine; the resolved study records which it was.

    Attributes:
        trials_per_arm: points that each arm tries, >= 1.
        epochs: the most epochs of a trial, >= 1.
        seeds: one training each, distinct; none of them is a seed of the confirmation or of the map.
        sampler: Optuna's sampler: `tpe`, `random`, `gp`, `qmc`, `cmaes` or `nsga2`.
        objectives: `quality` first; then what is to be small: `step_time`, seconds a step, and `circuits`, circuits a
            step. With several nothing is halved, since a cheap point would be judged before it has learned.
        tolerance: with several objectives, >= 0 in the unit of the decision's metric, of a share below 1: of the points
            within it of the best quality the cheapest is confirmed, by the first objective that costs, then by the
            next.
        scheduler: `asha`, asynchronous successive halving (arXiv 1810.05934); `hyperband`, several such halvings that
            begin at different epochs (arXiv 1603.06560), one of them stopping nothing, which share an arm's trials by
            their numbers; `bohb`, the same with a sampler `tpe` that ranks a stopped trial by how far it came (after
            arXiv 1807.01774); `none`, every trial runs to its end. With several objectives `asha` or `none`.
        grace_epochs: no trial is stopped before so many epochs, 1 to `epochs`.
        reduction_factor: of so many trials one goes on at each rung of the halving, >= 2.
        trials_at_once_per_arm: trials of an arm that run at the same time, >= 1.
        workers: training processes of a trial, >= 1; 1 with several seeds. A divisor of the batch size.
        known_points: points that an arm tries first, by its name; each names searched fields by dotted path, as
            `{"adamw": ({"learning_rate": 1e-3},)}`. The sampler draws fields that are left out. They count among
            `trials_per_arm`.
        warm_start: folder or URI of another study's results, whose search trials `tpe` and `gp` learn from: those of
            the arms of the same name with the same searched fields. They are copied into this study's results when it
            begins, and are not counted among `trials_per_arm`. None: the sampler knows nothing.
        replicate_pruning: with several seeds, a p value in (0.5^n, 0.5): from `grace_epochs` on a point is stopped
            that is worse than the arm's best one after the same epoch, seed by seed, at a p value below it (Wilcoxon's
            signed-rank test). 0.1 is Optuna's. With quality as the only objective. None: seeds stop no point.

    Example:
        >>> Search(trials_per_arm=8, epochs=8).deterministic
        True
    """

    trials_per_arm: Count
    epochs: Count
    seeds: Seeds = (0,)
    sampler: Sampler = "tpe"
    objectives: tuple[Objective, ...] = ("quality",)
    tolerance: Real = Field(default=0.0, ge=0)
    grace_epochs: Count = 2
    reduction_factor: Whole = Field(default=3, ge=2, le=MOST)
    trials_at_once_per_arm: Whole = Field(default=1, ge=1, le=MOST_PROCESSES)
    workers: Whole = Field(default=1, ge=1, le=MOST_PROCESSES)
    scheduler: Scheduler = "asha"
    known_points: KnownPoints = Field(default_factory=dict)
    warm_start: Annotated[str, Field(min_length=1, max_length=_LONGEST_PLACE)] | None = None
    replicate_pruning: Annotated[Real, Field(gt=0, lt=0.5)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_seed(cls, fields: Any) -> Any:
        """Read the one `seed` of studies that were stored before there were several."""
        if isinstance(fields, dict) and "seed" in fields and "seeds" not in fields:
            return {name: value for name, value in fields.items() if name != "seed"} | {"seeds": [fields["seed"]]}
        return fields

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.objectives[:1] != ("quality",) or len(set(self.objectives)) != len(self.objectives):
            raise refusal(f"objectives: quality first, each once; got {', '.join(self.objectives) or 'none'}")
        if len(self.objectives) > 1 and self.sampler == "cmaes":
            raise refusal("sampler: any other than cmaes with several objectives; got 'cmaes'")
        if len(self.objectives) == 1 and self.tolerance:
            raise refusal(f"tolerance: 0 with quality as the only objective; got {self.tolerance:g}")
        if len(self.seeds) > 1 and self.workers > 1:
            raise refusal(f"workers: 1 with several seeds, which are trained side by side; got {self.workers}")
        if len(self.objectives) > 1 and self.scheduler not in ("asha", "none"):
            raise refusal(
                f"scheduler: asha or none with several objectives, of which nothing is halved; got {self.scheduler!r}"
            )
        if self.scheduler == "bohb" and self.sampler != "tpe":
            raise refusal(f"sampler: tpe with the scheduler bohb, which is both; got {self.sampler!r}")
        if self.warm_start is not None and self.sampler not in _LEARNING:
            allowed = " or ".join(_LEARNING)
            raise refusal(
                f"sampler: {allowed} with a warm start, from which the others learn nothing; got {self.sampler!r}"
            )
        if self.replicate_pruning is not None:
            self._check_pruning(self.replicate_pruning)
        return self

    def _check_pruning(self, threshold: float) -> None:
        n = len(self.seeds)
        if n == 1:
            raise refusal(f"replicate_pruning: None with one seed, which has no replicates; got {threshold:g}")
        if threshold <= 0.5**n:
            raise refusal(
                f"replicate_pruning: above {0.5**n:.3g}, the least p value that {n} seeds can have; got {threshold:g}"
            )
        if len(self.objectives) > 1:
            raise refusal(
                f"replicate_pruning: None with several objectives, of which no point is the best; got {threshold:g}"
            )

    @model_serializer(mode="wrap")
    def _without_defaults_of_late(
        self, as_tree: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        """Leave out what is not set of the fields that came later: a study without them is stored as it was."""
        tree: dict[str, Any] = as_tree(self)
        for name, default in _LATE_DEFAULTS.items():
            if getattr(self, name) == default and info.context != ALL_FIELDS:
                tree.pop(name, None)
        return tree

    @property
    def startup_trials(self) -> int:
        """Points of an arm that a sampler that learns draws at random before it does.

        Optuna's own ten would be all of a small budget.
        """
        return min(10, max(2, self.trials_per_arm // 2))

    @property
    def is_sequential(self) -> bool:
        """True where an arm's trials can be repeated in the order in which they came."""
        return self.trials_at_once_per_arm == 1

    @property
    def deterministic(self) -> bool:
        """True where the same study tries the same points, in every run."""
        return self.is_sequential and "step_time" not in self.objectives


class Confirm(Settings):
    """Confirmation: every arm at its best point, trained from fresh seeds that all arms share, judged on test data.

    Attributes:
        seeds: one trial each, distinct; none of them is a seed of the search. Arms are paired by seed.
        epochs: of every trial, >= 1.
        workers: training processes of a trial, >= 1; a divisor of the batch size.
        trials_at_once: the most trials of one worker that run beside each other, >= 1. None: as many as the cluster has
            room for. They share its cores, so their seconds are longer than those of a trial alone.
        trials_per_fit: trials that a group of several workers takes in turn before it is started anew, >= 1. None: all.

    Example:
        >>> Confirm(seeds=(101, 102, 103), epochs=10).workers
        2
    """

    seeds: Seeds
    epochs: Count
    workers: Whole = Field(default=2, ge=1, le=MOST_PROCESSES)
    trials_at_once: Whole | None = Field(default=None, ge=1, le=MOST_PROCESSES)
    trials_per_fit: Count | None = None


Values = Annotated[tuple[Value, ...], Field(min_length=1, max_length=MOST_SETTINGS), AfterValidator(_distinct_values)]
_MOST_AXES = 64
# A value for every axis of a map, by dotted path.
Setting = dict[str, Value]


class Map(Settings):
    """Map of an arm's effect: the arm at many settings, each against the baseline at the same seeds.

    A field that is no axis is as the arm was confirmed. The baseline meets a setting with those of its axes that it has
    too: an axis below `perturbation` is not of AdamW. A map explores: it reads validation data, and its p values are
    corrected for the number of settings.

    Attributes:
        arm: name of an arm beside the baseline.
        axes: by dotted path, fields of the arm (`perturbation.n_qubits`, `learning_rate`) or of the workload
            (`workload.model.d_model`), each with its distinct values; a range together with `n_points` alone.
        seeds: one training of every setting each, distinct; none of them is a seed of the search.
        epochs: of every trial, >= 1.
        workers: training processes of a trial, >= 1; a divisor of every batch size.
        n_points: settings that fill the space of the axes (scrambled Sobol points, Owen 1995), 1 to 4096. None: all
            combinations of the values.
        seed: of the scrambling, 0 to 2^32 - 1.

    Raises:
        InvalidSettings: an axis is a range and `n_points` is None, or there are more than 4096 settings.

    Example:
        >>> axes = {"perturbation.n_qubits": (2, 4), "perturbation.lambda_": (0.5, 50.0)}
        >>> Map(arm="circuit", axes=axes, seeds=(501, 502), epochs=12).workers
        1
    """

    arm: Name
    axes: Annotated[dict[str, Values | LogUniform | Uniform], Field(min_length=1, max_length=_MOST_AXES)]
    seeds: Seeds
    epochs: Count
    workers: Whole = Field(default=1, ge=1, le=MOST_PROCESSES)
    n_points: Whole | None = Field(default=None, ge=1, le=MOST_SETTINGS)
    seed: Seed = 0

    @model_validator(mode="after")
    def _ranges_are_filled(self) -> Self:
        ranges = [path for path, axis in self.axes.items() if not isinstance(axis, tuple)]
        if ranges and self.n_points is None:
            raise refusal(f"axes.{ranges[0]}: a list of values, or a range together with n_points")
        for path, axis in self.axes.items():
            if not isinstance(axis, tuple) and axis.active_when is not None:
                raise refusal(f"axes.{path}: a range without active_when; a map trains every setting")
        n_settings = math.prod(len(axis) for axis in self.axes.values() if isinstance(axis, tuple))
        if self.n_points is None and n_settings > MOST_SETTINGS:
            raise refusal(f"axes: up to {MOST_SETTINGS} combinations of values; got {n_settings}")
        return self


def baseline_setting(setting: Setting) -> Setting:
    """Return the axes of a setting that plain AdamW has too."""
    return {path: value for path, value in setting.items() if not path.startswith("perturbation.")}


def setting_name(setting: Setting) -> str:
    """Return a setting as JSON, as it stands in the rows; equal for equal settings."""
    return json.dumps(setting)


class Decision(Settings):
    """Rule of the verdict, written before the first trial.

    Attributes:
        metric: name of the metric that decides: in the search by its validation value, in the verdict by its test
            value. None: the first one of the workload (of text and language tasks accuracy; they also measure `loss`).
        margin: the smallest difference that matters, > 0 in the metric's unit; of a share, such as accuracy, a fraction
            of one, below 1.
        margins: of a study with `workloads` the margins of those that have another one, by the workload's name.
        alpha: chance of calling an arm without an effect better or worse, over all arms (Holm), in (0, 0.5).
        power: chance of finding the smallest detectable difference that the report names, in (0.5, 1).

    Example:
        >>> Decision(margin=0.01).alpha
        0.05
        >>> Decision(metric="loss", margin=0.02).metric
        'loss'
    """

    metric: MetricName | None = None
    margin: Real = Field(gt=0)
    margins: dict[Name, Annotated[Real, Field(gt=0)]] = Field(default={}, max_length=MOST_ITEMS)
    alpha: Real = Field(default=0.05, gt=0, lt=0.5)
    power: Real = Field(default=0.8, gt=0.5, lt=1)

    @model_serializer(mode="wrap")
    def _without_default_metric(
        self, as_tree: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        """Leave out a metric and margins that are not named: a study of earlier versions is then stored as it was."""
        tree: dict[str, Any] = as_tree(self)
        unused = ("metric", self.metric is None), ("margins", not self.margins)
        for name, is_unused in unused:
            if is_unused and info.context != ALL_FIELDS:
                tree.pop(name, None)
        return tree
