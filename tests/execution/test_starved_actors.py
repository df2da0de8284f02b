"""An actor that Ray ends for want of memory costs its trial alone, which is tried again as the study says."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import ray
from ray.air.execution._internal import event_manager
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError
from support.greedy_tasks import Dying
from support.run_contexts import make_context, numbered_trial, rows_of
from support.small_study import a_study

from qsgd_ray.config import Arm, Resources, Search
from qsgd_ray.config.trial import search_trials
from qsgd_ray.execution.fixed_trials import run_fixed_trials
from qsgd_ray.execution.out_of_memory import retry_out_of_memory
from qsgd_ray.execution.starved_actors import StarvedTrials, _starved_as_dead, _StarvedActor
from qsgd_ray.outcome import Ending, ran_out_of_memory
from qsgd_ray.search.observations import unfinished_points
from qsgd_ray.search.tune import run_search

SAID = "1 worker(s) were killed due to the node running low on memory.\nTop 10 memory users: ..."


class StarvingRay:
    """Ray, to which the death of an actor is that by the memory monitor."""

    def __getattr__(self, name):
        return getattr(ray, name)

    def get(self, future):
        try:
            return ray.get(future)
        except RayActorError:
            raise OutOfMemoryError(SAID) from None


def failed(exception: Exception) -> list[Exception]:
    """What Tune's actor and task are told of a task that ends with an exception."""
    told = []
    tracked = SimpleNamespace(actor_id=0, _on_error=lambda _, error: told.append(error))
    manager = SimpleNamespace(_failed_actor_ids=set(), _cleanup_actor=lambda tracked_actor: None)
    task = SimpleNamespace(_tracked_actor=tracked, _on_error=lambda _, error: told.append(error))
    RayActorManager._actor_task_failed(manager, tracked_actor_task=task, exception=exception)
    return told


def test_within_the_block_it_is_a_death_and_everything_else_is_as_it_was():
    with _starved_as_dead():
        assert [str(error) for error in failed(OutOfMemoryError(SAID))] == [
            "OutOfMemoryError: 1 worker(s) were killed due to the node running low on memory."
        ] * 2
        assert [type(error) for error in failed(RayActorError())] == [RayActorError] * 2
        with pytest.raises(RuntimeError, match="Caught unexpected exception: odd"):
            failed(ValueError("odd"))
    # What the block is for; where a later Ray mends it, the block may go.
    with pytest.raises(RuntimeError, match="Caught unexpected exception: 1 worker"):
        failed(OutOfMemoryError(SAID))


STUDY = a_study(
    arms=(Arm(name="adamw", learning_rate=a_study().arms[0].learning_rate),),
    search=Search(trials_per_arm=2, epochs=2, grace_epochs=1, seeds=(1, 2)),
)


def callback(tmp_path, resources, error: str | None):
    """The rows of a trial whose actor has left this error."""
    context = make_context(tmp_path / "small", None, resources=resources)
    file = tmp_path / "error.txt"
    if error is not None:
        file.write_text(f"Failure # 1 (occurred at ...)\n{error}\n")
    config = {"arm": "adamw", "number": 0, "point": {"learning_rate": 1e-3}}
    trial = SimpleNamespace(config=config, error_file=None if error is None else str(file))
    StarvedTrials(STUDY, context).on_trial_error(1, [], trial)
    return rows_of(context)


def test_each_run_of_a_starved_trial_gets_a_row_where_the_study_says_what_is_tried(tmp_path):
    rows = callback(tmp_path, Resources(on_out_of_memory=("alone",)), str(_StarvedActor("Memory is low.")))
    assert {*rows} == {one.trial_id for one in search_trials(STUDY, "adamw", 0, {"learning_rate": 1e-3})}
    assert {row["ending"] for row in rows.values()} == {Ending.UNAVAILABLE}
    assert all(ran_out_of_memory(row["error"]) for row in rows.values())


@pytest.mark.parametrize(
    ("resources", "error"),
    [
        (Resources(), str(_StarvedActor("Memory is low."))),
        (Resources(on_out_of_memory=("alone",)), "The actor died unexpectedly before finishing this task."),
        (Resources(on_out_of_memory=("alone",)), None),
    ],
)
def test_any_other_trial_that_was_lost_has_no_row(tmp_path, resources, error):
    assert callback(tmp_path, resources, error) == {}


def dying(study, tmp_path):
    return study.model_copy(update={"workload": Dying(counter=str(tmp_path / "attempts"))})


def test_a_starved_trial_of_a_search_is_tried_again_and_the_search_goes_on(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(event_manager, "ray", StarvingRay())
    study = dying(STUDY, tmp_path)
    context = make_context(tmp_path / "small", cluster, resources=Resources(on_out_of_memory=("alone",)))
    run_search(context.results.tables(study), context)
    rows = rows_of(context)
    assert {row["ending"] for row in rows.values()} == {Ending.UNAVAILABLE}
    starved = [one for one in search_trials(study, "adamw", 0, point_of(rows)) if one.trial_id in rows]
    retry_out_of_memory(starved, context)
    assert [row["ending"] for row in rows_of(context).values()] == [Ending.COMPLETED] * 2
    run_search(context.results.tables(study), context)
    assert unfinished_points(context.results.tables(study)) == {}


def point_of(rows) -> dict[str, float]:
    (rate,) = {row["learning_rate"] for row in rows.values()}
    return {"learning_rate": rate}


def test_a_starved_trial_of_a_confirmation_is_tried_again(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(event_manager, "ray", StarvingRay())
    workload = Dying(counter=str(tmp_path / "attempts"))
    trials = [numbered_trial(number, workers=1, epochs=1, workload=workload) for number in (0, 1)]
    context = make_context(tmp_path / "small", cluster)
    run_fixed_trials(a_study(), context, trials)
    assert [row["ending"] for row in rows_of(context).values()] == [Ending.COMPLETED] * 2
