"""One training run as a value, named by the hash of what defines it: asked again, it is recognised."""

from __future__ import annotations

import hashlib
import json

from pydantic import BaseModel, ConfigDict

from qsgd_ray.config import Arm, Stage, Study, Task
from qsgd_ray.map_design import name_of, placed


class Trial(BaseModel):
    """`arm` with every field a number, trained on `workload` for `epochs` epochs from `seed`.

    `number` counts within stage and arm. Test data is read only where `reads_test` (protocol: once, in confirmation).
    `setting`: of a map's trial, what its axes are set to, as JSON; arm and workload have it already.
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

    @property
    def trial_id(self) -> str:
        """`stage-arm-number-hash`; equal for equal content, in every process and version of Python."""
        content = json.dumps(self.model_dump(mode="json", exclude={"setting"}), sort_keys=True)
        digest = hashlib.sha256(content.encode()).hexdigest()
        return f"{self.stage}-{self.arm.name}-{self.number:03d}-{digest[:10]}"


def search_trial(study: Study, arm: str, number: int, point: dict[str, int | float]) -> Trial:
    """Trial `number` of an arm's search, at a point of its space."""
    return Trial(
        study=study.name,
        stage="search",
        number=number,
        arm=study.arm(arm).at(point),
        workload=study.workload,
        seed=study.search.seed,
        epochs=study.search.epochs,
        workers=study.search.workers,
        reads_test=False,
    )


def confirm_trials(study: Study, arm: str, point: dict[str, int | float]) -> list[Trial]:
    """The confirmation of an arm at its best point: one trial a seed."""
    return [
        Trial(
            study=study.name,
            stage="confirm",
            number=number,
            arm=study.arm(arm).at(point),
            workload=study.workload,
            seed=seed,
            epochs=study.confirm.epochs,
            workers=study.confirm.workers,
            reads_test=True,
        )
        for number, seed in enumerate(study.confirm.seeds)
    ]


def map_trials(study: Study, points: dict[str, dict[str, int | float]]) -> list[Trial]:
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
                    )
                )
    return trials
