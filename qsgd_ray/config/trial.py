"""One training run as a value, named by the hash of what decides its bits: asked again, it is recognised.

A study that is changed keeps the trials that it would still run: what is no part of a trial renames none.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from qsgd_ray.config.arm import Arm
from qsgd_ray.config.base import Point
from qsgd_ray.config.map import name_of, placed
from qsgd_ray.config.resources import Sharding
from qsgd_ray.config.stages import Search, Stage
from qsgd_ray.config.study import Study
from qsgd_ray.config.workload import Task


class Trial(BaseModel):
    """`arm` with every field a number, trained on `workload` for `epochs` epochs from `seed`.

    `number` counts within stage and arm. Test data is read only where `reads_test` (protocol: once, in confirmation).
    `setting`: of a map's trial, what its axes are set to, as JSON; arm and workload have it already.
    `search`: of a search trial, what decided on its point and on its end (`search_key`). `sharding` and
    `circuit_engine` are None where they decide nothing: with one worker, and without circuits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: str
    stage: Stage
    number: int
    arm: Arm
    workload: Task
    seed: int
    epochs: int
    workers: int
    reads_test: bool
    setting: str | None = None
    search: str | None = None
    sharding: Sharding | None = None
    circuit_engine: Literal["auto", "torch", "chain", "aer"] | None = None

    @property
    def trial_id(self) -> str:
        """`search-arm-number-hash` or `stage-arm-sSEED-hash`; equal for equal content, in every process and version of
        Python.

        The study's name is no part of it, and a number only in a search: elsewhere it is a place in a list of seeds,
        into which others may be put.
        """
        content = self.model_dump(mode="json", exclude={"study"} if self.stage == "search" else {"study", "number"})
        place = f"{self.number:03d}" if self.stage == "search" else f"s{self.seed}"
        return f"{self.stage}-{self.arm.name}-{place}-{_digest(content)}"


def search_trials(study: Study, arm: str, number: int, point: Point, key: str | None = None) -> list[Trial]:
    """Trial `number` of an arm's search: one run a seed."""
    return [search_trial(study, arm, number, point, key, place) for place in range(len(study.search.seeds))]


def search_trial(study: Study, arm: str, number: int, point: Point, key: str | None = None, place: int = 0) -> Trial:
    """Trial `number` of an arm's search, at a point of its space, from the seed that stands at `place`.

    `key`: its `search_key`, where it is known."""
    return Trial(
        study=study.name,
        stage="search",
        number=number,
        arm=study.arm(arm).at(point),
        workload=study.workload,
        seed=study.search.seeds[place],
        epochs=study.search.epochs,
        workers=study.search.workers,
        reads_test=False,
        search=key or search_key(study, arm, told_by_budget(study.search, number)),
        **arithmetic(study, study.arm(arm), study.search.workers),
    )


def confirm_trials(study: Study, arm: str, point: Point) -> list[Trial]:
    """The confirmation of an arm at its best point: one trial a seed."""
    there = study.arm(arm).at(point)
    return [
        Trial(
            study=study.name,
            stage="confirm",
            number=number,
            arm=there,
            workload=study.workload,
            seed=seed,
            epochs=study.confirm.epochs,
            workers=study.confirm.workers,
            reads_test=True,
            **arithmetic(study, there, study.confirm.workers),
        )
        for number, seed in enumerate(study.confirm.seeds)
    ]


def map_trials(study: Study, points: dict[str, Point]) -> list[Trial]:
    """The map's trials, seeds outside and settings inside; none while an arm of it has no point to start from."""
    design = study.map
    if design is None or not {design.arm, study.baseline} <= points.keys():
        return []
    trials = []
    for place, seed in enumerate(design.seeds):
        for name in (study.baseline, design.arm):
            confirmed = study.arm(name).at(points[name])
            for index, setting in enumerate(study.map_settings(name)):
                arm, workload = placed(confirmed, study.workload, setting)
                trials.append(
                    Trial(
                        study=study.name,
                        stage="map",
                        number=index * len(design.seeds) + place,
                        arm=arm,
                        workload=workload,
                        seed=seed,
                        epochs=design.epochs,
                        workers=design.workers,
                        reads_test=False,
                        setting=name_of(setting),
                        **arithmetic(study, arm, design.workers),
                    )
                )
    return trials


def arithmetic(study: Study, arm: Arm, workers: int) -> dict[str, Any]:
    """What of the study's resources decides the bits of a trial of `arm` on so many workers."""
    asks = arm.perturbation is not None and arm.perturbation.asks_circuits
    return {
        "sharding": study.resources.sharding if workers > 1 else None,
        "circuit_engine": study.resources.circuit_engine if asks else None,
    }


def told_by_budget(search: Search, number: int) -> int | None:
    """What the point of trial `number` knows of the budget. Points that were drawn at random know nothing of it, and
    where several trials run at once a sampler is told of those that are there, whoever asked for them."""
    if search.sampler in ("random", "qmc", "cmaes") or not search.one_at_a_time:
        return None
    if search.sampler in ("tpe", "gp"):
        return None if number < search.startup_trials else search.startup_trials
    return search.trials_per_arm


def search_key(study: Study, arm: str, budget: int | None) -> str:
    """The name of an arm's search: equal where the same points are tried, and halved by the same rule."""
    elsewhere = {"trials_per_arm", "trials_at_once_per_arm", "tolerance"}
    return _digest(
        {
            "arm": study.arm(arm).model_dump(mode="json"),
            "workload": study.workload.model_dump(mode="json"),
            "seed": study.seed,
            "search": study.search.model_dump(mode="json", exclude=elsewhere),
            "one_at_a_time": study.search.one_at_a_time,
            "budget": budget,
            **arithmetic(study, study.arm(arm), study.search.workers),
        }
    )


def choice_key(study: Study, arm: str) -> str:
    """What the choice of an arm's point rests on: equal where the same of the same trials is sought."""
    return _digest([search_key(study, arm, study.search.trials_per_arm), study.search.tolerance])


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]
