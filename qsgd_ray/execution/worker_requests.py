"""Resources of the workers of every arm: a study in; what each of its trials asks of Ray out."""

from __future__ import annotations

from qsgd_ray.config import Resources, Study, WorkerResources


def resources_by_arm(study: Study) -> dict[str, Resources]:
    """Return the resources of each arm that has others than the study, by its name."""
    return {arm.name: study.resources.with_worker(arm.resources) for arm in study.arms if arm.resources is not None}


def _every_resources(study: Study) -> list[Resources]:
    """Return the resources that trials of the study may ask for: of every arm, and of every second attempt."""
    of_arms = [study.resources.with_worker(arm.resources) for arm in study.arms]
    retries = [retry for retry in study.resources.on_out_of_memory if isinstance(retry, WorkerResources)]
    return of_arms + [resources.with_worker(retry) for resources in of_arms for retry in retries]
