"""What a study is: arms, spaces, workload, stages and resources; frozen, checked at birth, JSON round trip.

In: values from a study file, from JSON or from `--set`. Out: a `Study`, or one line that says which field is wrong.
`None` means off. A study file finds all it needs here.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import Field, ValidationError, model_validator

from qsgd_ray.config.arm import Arm
from qsgd_ray.config.base import Frozen, Name, options
from qsgd_ray.config.errors import StudyError, refusal, validation_message
from qsgd_ray.config.map import Setting, name_of, of_baseline, placed, settings
from qsgd_ray.config.resources import Resources
from qsgd_ray.config.stages import WORKLOAD, ClaimId, Confirm, Decision, Map, Search, Stage
from qsgd_ray.config.workload import Seed, Task

S = TypeVar("S", bound=Frozen)


class Study(Frozen):
    """One question, asked of several arms under one budget.

    `claims`: which arm stands for the method in each of the paper's claims that the study checks (analysis/claims.py).
    """

    name: Name
    question: str = Field(min_length=1)
    workload: Task
    arms: tuple[Arm, ...] = Field(min_length=1)
    baseline: str
    search: Search
    confirm: Confirm
    decision: Decision
    map: Map | None = None
    claims: dict[ClaimId, Name] = Field(default_factory=dict)
    resources: Resources = Resources()
    seed: Seed = 0

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        names = [arm.name for arm in self.arms]
        if len(set(names)) != len(names):
            raise refusal(f"arms: each name once; got {', '.join(names)}")
        if self.baseline not in names:
            raise refusal(f"baseline: one of the arms ({', '.join(names)}); got {self.baseline!r}")
        if both := sorted({*self.search.seeds} & {*self.confirm.seeds}):
            raise refusal(f"confirm.seeds: disjoint from search.seeds; got {', '.join(map(str, both))} in both")
        if self.search.grace_epochs > self.search.epochs:
            raise refusal(
                f"search.grace_epochs: at most search.epochs ({self.search.epochs}); got {self.search.grace_epochs}"
            )
        if self.resources.circuit_engine != "auto":
            for arm in self.arms:
                sources = options(arm.perturbation.source) if arm.perturbation is not None else ()
                if drawing := [source for source in sources if source in ("sampled", "noisy")]:
                    raise refusal(
                        f"resources.circuit_engine: auto with the source {drawing[0]} of arm {arm.name}; "
                        f"got {self.resources.circuit_engine!r}"
                    )
        workers_of = {"search": self.search.workers, "confirm": self.confirm.workers}
        if self.map is not None:
            self._check_map(self.map)
            workers_of["map"] = self.map.workers
        for claim, name in self.claims.items():
            if name not in names or name == self.baseline:
                others = ", ".join(other for other in names if other != self.baseline)
                raise refusal(f"claims.{claim}: an arm beside the baseline ({others}); got {name!r}")
        for stage, workers in workers_of.items():
            if self.workload.batch_size % workers:
                raise refusal(
                    f"{stage}.workers: a divisor of workload.batch_size ({self.workload.batch_size}); got {workers}"
                )
        return self

    def _check_map(self, design: Map) -> None:
        others = [arm.name for arm in self.arms if arm.name != self.baseline]
        if design.arm not in others:
            raise refusal(f"map.arm: an arm beside the baseline ({', '.join(others)}); got {design.arm!r}")
        if shared := set(self.search.seeds) & set(design.seeds):
            raise refusal(f"map.seeds: disjoint from search.seeds; got {min(shared)} in both")
        for setting in settings(design):
            try:
                _, workload = placed(self.arm(design.arm), self.workload, setting)
                placed(self.arm(self.baseline), self.workload, of_baseline(setting))
            except KeyError as error:
                raise refusal(
                    f"map.axes: fields of the arm {design.arm} or, below {WORKLOAD[:-1]}, of the workload; "
                    f"got {error.args[0]}"
                ) from None
            except ValidationError as error:
                raise refusal(
                    f"map.axes: settings that a trial can have; of {setting} {validation_message(error)}"
                ) from None
            if workload.batch_size % design.workers:
                raise refusal(f"map.workers: a divisor of every batch size; got {design.workers} for {setting}")

    def arm(self, name: str) -> Arm:
        return next(arm for arm in self.arms if arm.name == name)

    def map_settings(self, arm: str) -> tuple[Setting, ...]:
        """The settings at which the map trains an arm, each once: the baseline lacks the axes of a perturbation."""
        if self.map is None or arm not in (self.map.arm, self.baseline):
            return ()
        there = settings(self.map)
        if arm == self.map.arm:
            return there
        return tuple({name_of(setting): setting for setting in map(of_baseline, there)}.values())

    def planned(self, stage: Stage, arm: Arm) -> int:
        """How many rows of an arm a stage plans, one a seed; an arm with nothing to search is not searched."""
        if stage == "confirm":
            return len(self.confirm.seeds)
        if stage == "map":
            return len(self.map_settings(arm.name)) * len(self.map.seeds) if self.map is not None else 0
        return self.points(arm) * len(self.search.seeds)

    def points(self, arm: Arm) -> int:
        """How many points of an arm the search tries."""
        return self.search.trials_per_arm if arm.spaces() else 0


def study_from_tree(tree: Any) -> Study:
    """A `Study` from plain JSON data, or `StudyError` with one line (arms by name, where they have one)."""
    return from_tree(tree, Study)


def from_tree(tree: Any, kind: type[S]) -> S:
    """The same of any kind of study."""
    try:
        return kind.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        raise StudyError(validation_message(error, tree)) from None
