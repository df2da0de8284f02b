"""Actors that Ray ends as their node runs out of memory: trials under Tune whose actor died, and rows that say why.

Ray's memory monitor ends a worker with OutOfMemoryError, which Tune takes for no death of an actor and ends all of its
trials with a RuntimeError (RayActorManager._actor_task_failed, 2.60).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ray import tune
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError

from qsgd_ray.config import Study
from qsgd_ray.config.trial import search_trials
from qsgd_ray.execution.train_group import RunContext
from qsgd_ray.outcome import Ending, Outcome
from qsgd_ray.storage import StorageError

# Before the first line of what Ray says, in the file where Tune notes why a trial failed.
_MARK = "OutOfMemoryError: "
_METHODS = ("_actor_start_failed", "_actor_task_failed")


class _StarvedActor(RayActorError):
    """The death of an actor for want of memory; its text is one line, the first of what Ray says."""

    def __init__(self, said: str) -> None:
        super().__init__(error_msg=f"{_MARK}{said}")


@contextmanager
def _starved_as_dead() -> Iterator[None]:
    """Let Tune take an actor that Ray ends for want of memory as one that died, in the block."""
    before = {name: getattr(RayActorManager, name) for name in _METHODS}
    for name, method in before.items():
        setattr(RayActorManager, name, _with_deaths(method))
    try:
        yield
    finally:
        for name, method in before.items():
            setattr(RayActorManager, name, method)


def _with_deaths(method: Any) -> Any:
    def failed(manager: Any, *tracked: Any, exception: Exception, **named: Any) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = _StarvedActor(str(exception).partition("\n")[0])
        method(manager, *tracked, exception=exception, **named)

    return failed


class StarvedTrials(tune.Callback):
    """Rows of a search's trials whose actor Ray has ended for want of memory: `unavailable`, to be tried again.

    Where a study's resources say nothing of it, such a trial is lost as any other whose process died: it has no row.

    Args:
        study: the study.
        context: what its trials share.
    """

    def __init__(self, study: Study, context: RunContext) -> None:
        self._study, self._context = study, context

    def on_trial_error(self, iteration: int, trials: Sequence[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """Write the rows of the runs that have none.

        Args:
            iteration: of Tune's loop.
            trials: Tune's.
            trial: Tune's, whose actor has died or raised.
            info: nothing.
        """
        text, config, results = _said_of_memory(trial.error_file), trial.config, self._context.results
        if text is None or not self._context.resources.on_out_of_memory:
            return
        for run in search_trials(self._study, config["arm"], config["number"], config["point"]):
            with suppress(StorageError):  # without its row the trial is lost, and repeated as such
                if not results.has(run.trial_id):
                    results.write(run, Outcome(Ending.UNAVAILABLE, error=text))
                    self._context.ended(run, Ending.UNAVAILABLE, text)


def _said_of_memory(file: str | None) -> str | None:
    """Return the line that a starved actor has left in the file of a trial's error; None: it died of something else."""
    with suppress(OSError, UnicodeDecodeError):
        lines = Path(file or "").read_text().splitlines()
        return next((line for line in reversed(lines) if line.startswith(_MARK)), None)
    return None
