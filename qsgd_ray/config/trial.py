"""Trials: one training run as a value, named by the hash of everything that decides its bits.

A study that is changed keeps the trials that it would still run: settings that are no part of a trial rename none.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from qsgd_ray.config._map_settings import with_setting
from qsgd_ray.config.arm import Arm
from qsgd_ray.config.base import Point
from qsgd_ray.config.known_points import known_points
from qsgd_ray.config.metric import metrics_of
from qsgd_ray.config.resources import Sharding
from qsgd_ray.config.stages import Search, Stage, setting_name
from qsgd_ray.config.study import Study
from qsgd_ray.config.task import Task


class Trial(BaseModel):
    """One training run of a study: an arm without spaces, trained on a workload from a seed.

    Attributes:
        study: the study's name.
        stage: `search`, `confirm` or `map`.
        number: counts within stage and arm, from 0.
        arm: the arm, every field a value.
        workload: the task.
        seed: of weights, data order and dropout.
        epochs: the most epochs.
        workers: training processes.
        reads_test: True in the confirmation alone, the one time that test data is read.
        setting: of a map's trial, the values of the axes as JSON; arm and workload have them already.
        search: of a search's trial, the key of what decided on its point and on its end (`search_key`).
        sharding: None with one worker, where it decides nothing.
        circuit_engine: None without circuits, where it decides nothing.
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

    def __hash__(self) -> int:
        """Return a hash that equal trials share; settings that hold a dict have none of their own."""
        return hash((self.study, self.trial_id))

    @property
    def trial_id(self) -> str:
        """Name of the trial, `search-ARM-NUMBER-HASH` or `STAGE-ARM-sSEED-HASH`.

        Equal for equal content, in every process and version of Python. The study's name is no part of it, and a
        number only in a search: elsewhere it is an index into a list of seeds, into which others may be put.
        """
        content = self.model_dump(mode="json", exclude={"study"} if self.stage == "search" else {"study", "number"})
        label = f"{self.number:03d}" if self.stage == "search" else f"s{self.seed}"
        return f"{self.stage}-{self.arm.name}-{label}-{_digest(content)}"


def search_trials(study: Study, arm: str, number: int, point: Point, key: str | None = None) -> list[Trial]:
    """Return the runs of one point of an arm's search, one a seed.

    Args:
        study: the study.
        arm: the arm's name.
        number: of the point in the arm's search, from 0.
        point: a value for each searched field.
        key: the arm's `search_key`, where it is known. None: it is computed.
    """
    return [search_trial(study, arm, number, point, key, index) for index in range(len(study.search.seeds))]


def search_trial(
    study: Study, arm: str, number: int, point: Point, key: str | None = None, seed_index: int = 0
) -> Trial:
    """Return one run of a point of an arm's search.

    Args:
        study: the study.
        arm: the arm's name.
        number: of the point in the arm's search, from 0.
        point: a value for each searched field.
        key: the arm's `search_key`, where it is known. None: it is computed.
        seed_index: index into the search's seeds.
    """
    searched = study.arm(arm).at(point)
    return Trial(
        study=study.name,
        stage="search",
        number=number,
        arm=searched,
        workload=study.workload_of(searched),
        seed=study.search.seeds[seed_index],
        epochs=study.search.epochs,
        workers=study.search.workers,
        reads_test=False,
        search=key or search_key(study, arm, known_budget(study.search, number)),
        **_arithmetic(study, study.arm(arm), study.search.workers),
    )


def confirm_trials(study: Study, arm: str, point: Point) -> list[Trial]:
    """Return the trials of an arm's confirmation, one a seed.

    Args:
        study: the study.
        arm: the arm's name.
        point: the point of its space at which it is confirmed.
    """
    confirmed = study.arm(arm).at(point)
    return [
        Trial(
            study=study.name,
            stage="confirm",
            number=number,
            arm=confirmed,
            workload=study.workload_of(confirmed),
            seed=seed,
            epochs=study.confirm.epochs,
            workers=study.confirm.workers,
            reads_test=True,
            **_arithmetic(study, confirmed, study.confirm.workers),
        )
        for number, seed in enumerate(study.confirm.seeds)
    ]


def map_trials(study: Study, points: dict[str, Point]) -> list[Trial]:
    """Return the trials of the map, seed by seed and within a seed setting by setting.

    Args:
        study: the study.
        points: by arm, the point at which it is confirmed. While the map's arm or the baseline lacks one, there are no
            trials.
    """
    design = study.map
    if design is None or not {design.arm, study.baseline} <= points.keys():
        return []
    trials = []
    for seed_index, seed in enumerate(design.seeds):
        for name in (study.baseline, design.arm):
            confirmed = study.arm(name).at(points[name])
            for index, setting in enumerate(study.map_settings(name)):
                arm, workload = with_setting(confirmed, study.workload_of(confirmed), setting)
                trials.append(
                    Trial(
                        study=study.name,
                        stage="map",
                        number=index * len(design.seeds) + seed_index,
                        arm=arm,
                        workload=workload,
                        seed=seed,
                        epochs=design.epochs,
                        workers=design.workers,
                        reads_test=False,
                        setting=setting_name(setting),
                        **_arithmetic(study, arm, design.workers),
                    )
                )
    return trials


def _arithmetic(study: Study, arm: Arm, workers: int) -> dict[str, Any]:
    """Return the resources that decide the bits of a trial of `arm` on so many workers."""
    uses_circuits = arm.perturbation is not None and arm.perturbation.uses_circuits
    return {
        "sharding": study.resources.sharding if workers > 1 else None,
        "circuit_engine": study.resources.circuit_engine if uses_circuits else None,
    }


def known_budget(search: Search, number: int) -> int | None:
    """Return the budget on which a point depends; None for a point that would be the same under another budget.

    Points that are drawn at random know no budget. Where several trials run at once, a sampler learns of those that
    have ended, under whatever budget they were begun.

    Args:
        search: how the arm is searched.
        number: of the point in the arm's search, from 0.
    """
    if search.sampler in ("random", "qmc", "cmaes") or not search.is_sequential:
        return None
    if search.sampler in ("tpe", "gp"):
        # After a warm start it learns at once, unless it draws more than that at random.
        at_random = number < search.startup_trials and search.warm_start is None
        return None if at_random else search.startup_trials
    return search.trials_per_arm


def search_key(study: Study, arm: str, budget: int | None) -> str:
    """Return the key of an arm's search, equal where the same points are tried and halved by the same rule.

    Args:
        study: the study.
        arm: the arm's name.
        budget: number of points on which the points depend (`known_budget`); None: on no number.
    """
    excluded = {"trials_per_arm", "trials_at_once_per_arm", "tolerance", "known_points"}
    known = known_points(study.search, study.arm(arm))
    return _digest(
        {
            "arm": study.arm(arm).model_dump(mode="json", exclude={"resources"}),
            "workload": study.workload.model_dump(mode="json"),
            "seed": study.seed,
            "search": study.search.model_dump(mode="json", exclude=excluded),
            "one_at_a_time": study.search.is_sequential,
            "budget": budget,
            **_arithmetic(study, study.arm(arm), study.search.workers),
            **_other_metric(study),
            **({"known_points": known} if known else {}),
        }
    )


def _other_metric(study: Study) -> dict[str, Any]:
    """Return the metric by which a search decides, where it is not the workload's first: keys of before have none."""
    metric = study.metric
    first = metrics_of(study.workload)[0]
    return {} if metric.name == first.name else {"metric": {"name": metric.name, "direction": metric.direction}}


def choice_key(study: Study, arm: str) -> str:
    """Return the key of the choice of an arm's point, equal where the same best of the same trials is sought.

    Args:
        study: the study.
        arm: the arm's name.
    """
    return _digest([search_key(study, arm, study.search.trials_per_arm), study.search.tolerance])


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]
