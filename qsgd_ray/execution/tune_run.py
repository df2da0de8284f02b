"""Run a stage under Ray Tune: a trial's class, a searcher and a scheduler in; the end of the last trial out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

from ray import tune

from qsgd_ray.execution._one_node_train import release_placement_groups
from qsgd_ray.execution.starved_actors import _starved_as_dead
from qsgd_ray.execution.train_group import RunContext


def run_in_tune(
    trainable: Any,
    context: RunContext,
    name: str,
    settings: tune.TuneConfig,
    *,
    arm_of: Callable[[dict[str, Any]], str],
    alone: bool = True,
    space: Any = None,
    callbacks: Sequence[tune.Callback] = (),
) -> None:
    """Run trials under Ray Tune until all have ended.

    Args:
        trainable: the trial's class, with its parameters.
        context: what the trials share.
        name: of Tune's run, for its own notes.
        settings: the searcher and the scheduler.
        arm_of: returns the name of the arm of a trial's configuration.
        alone: True where a trial trains in its actor; False where a group of workers does and the actor only waits.
        space: the points to run. None: the searcher suggests them.
        callbacks: told of the trials beside searcher and scheduler.
    """
    # Tune prints the traceback of an actor that was lost; what becomes of its trial is told elsewhere.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    # Tune wants a positive share for an actor that only waits, too.
    request: Any = context.resources.worker_request() if alone else {"cpu": 0.01}
    if alone and context.by_arm:
        request = partial(_request_of_arm, context=context, arm_of=arm_of)
    tuner = tune.Tuner(
        tune.with_resources(trainable, request),
        param_space=space,
        tune_config=settings,
        run_config=tune.RunConfig(
            name=name.replace("/", "-"),  # that of a part of a study is STUDY/WORKLOAD
            storage_path=context.cluster.scratch,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
            callbacks=[*callbacks],
        ),
    )
    released = release_placement_groups() if context.cluster.private and not alone else nullcontext()
    with released, _starved_as_dead():
        tuner.fit()


def _request_of_arm(
    config: dict[str, Any], context: RunContext, arm_of: Callable[[dict[str, Any]], str]
) -> tune.PlacementGroupFactory:
    """Return what a trial of this configuration asks of Ray, by its arm."""
    return tune.PlacementGroupFactory([context.for_arm(arm_of(config)).resources.worker_request()])
