"""One training run as a value, named by the hash of what defines it: asked again, it is recognised."""

from __future__ import annotations

import hashlib
import json

from pydantic import BaseModel, ConfigDict

from qsgd_ray.config import Arm, Stage, Study, Task
from qsgd_ray.spaces import Point


class Trial(BaseModel):
    """`arm` with every field a number, trained on `workload` for `epochs` epochs from `seed`.

    `number` counts within stage and arm. Test data is read only where `reads_test` (protocol: once, in confirmation).
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

    @property
    def trial_id(self) -> str:
        """`stage-arm-number-hash`; equal for equal content, in every process and version of Python."""
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        digest = hashlib.sha256(content.encode()).hexdigest()
        return f"{self.stage}-{self.arm.name}-{self.number:03d}-{digest[:10]}"


def search_trials(study: Study, arm: str, number: int, point: Point) -> list[Trial]:
    """Trial `number` of an arm's search: one run a seed."""
    return [search_trial(study, arm, number, point, place) for place in range(len(study.search.seeds))]


def search_trial(study: Study, arm: str, number: int, point: Point, place: int = 0) -> Trial:
    """Trial `number` of an arm's search, at a point of its space, from the seed that stands at `place`."""
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
    )


def confirm_trials(study: Study, arm: str, point: Point) -> list[Trial]:
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
