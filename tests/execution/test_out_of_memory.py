"""A trial that runs out of memory is tried again as the study says, counts as no result until then, and then failed."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.greedy_tasks import Greedy
from support.outcomes import measured
from support.run_contexts import make_context, numbered_trial, rows_of
from support.small_study import a_study

from qsgd_ray.analysis._rows import has_ended
from qsgd_ray.config import Resources, WorkerResources
from qsgd_ray.execution import out_of_memory
from qsgd_ray.execution.fixed_trials import run_fixed_trials
from qsgd_ray.execution.out_of_memory import retry_out_of_memory
from qsgd_ray.outcome import OUT_OF_MEMORY_AT_LAST, Ending, Outcome, environment_error, ran_out_of_memory

MORE = WorkerResources(memory_gb_per_worker=0.5)
ERROR = "Traceback ...\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"
TRIAL = numbered_trial(0, workers=1)


def greedy(tmp_path: Path, n_times: int, **fields):
    return numbered_trial(
        0, workers=1, epochs=1, workload=Greedy(counter=str(tmp_path / "attempts"), n_times=n_times, **fields)
    )


def resources(*retries) -> Resources:
    return Resources(on_out_of_memory=retries)


@pytest.mark.parametrize(("n_times", "ending"), [(1, Ending.COMPLETED), (3, Ending.FAILED)])
def test_it_is_tried_alone_then_with_more_memory_and_then_failed(cluster, tmp_path, n_times, ending):
    """The first attempt runs under Tune beside others, the second and the third on a group of their own."""
    endings = []
    trial, other = greedy(tmp_path, n_times), numbered_trial(1, workers=1, epochs=1)
    context = make_context(tmp_path / "small", cluster, resources=resources("alone", MORE))
    run_fixed_trials(a_study(), context, [trial, other])
    rows = rows_of(context)
    assert rows[other.trial_id]["ending"] == Ending.COMPLETED
    row = rows[trial.trial_id]
    assert row["ending"] == ending
    assert has_ended(row)
    assert context.results.has(trial.trial_id)
    assert len((tmp_path / "attempts").read_text()) == n_times
    if ending is Ending.FAILED:
        said = row["error"].partition("\n")[0]
        assert said.startswith(
            f"{OUT_OF_MEMORY_AT_LAST} (tried: as the study says, alone, with memory_gb_per_worker 0.5)"
        )
        assert "can't allocate memory" in said
        assert "in loss" in row["error"], "the user's line is kept"
    assert endings == []


def test_without_a_word_on_it_the_trial_is_unavailable_and_the_same_command_runs_it_again(cluster, tmp_path):
    trial = greedy(tmp_path, 9, raises=True)
    context = make_context(tmp_path / "small", cluster)
    run_fixed_trials(a_study(), context, [trial])
    (row,) = rows_of(context).values()
    assert row["ending"] == Ending.UNAVAILABLE
    assert not has_ended(row)
    assert not context.results.has(trial.trial_id)
    assert len((tmp_path / "attempts").read_text()) == 1


class Attempts:
    """Attempts that end as they are told to, and what they were given."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes, self.given = [*outcomes], []

    def __call__(self, trials, context) -> None:
        self.given.append(context.for_arm(trials[0].arm.name).resources)
        context.results.write(trials[0], self.outcomes.pop(0))


STARVED = Outcome(Ending.UNAVAILABLE, (measured(1, 0.5),), error=ERROR)


@pytest.fixture
def context(tmp_path):
    context = make_context(tmp_path / "small", None, resources=resources("alone", MORE))
    context.results.write(TRIAL, STARVED)
    return context


def test_an_attempt_that_ends_in_another_way_has_the_last_word(context, monkeypatch):
    attempts = Attempts(Outcome(Ending.DIVERGED))
    monkeypatch.setattr(out_of_memory, "run_trials", attempts)
    retry_out_of_memory([TRIAL], context)
    assert [one.memory_gb_per_worker for one in attempts.given] == [None]
    assert context.results.ending(TRIAL.trial_id) is Ending.DIVERGED


def test_the_last_attempts_measurements_and_error_are_kept(context, monkeypatch):
    ended = []
    attempts = Attempts(STARVED, STARVED)
    monkeypatch.setattr(out_of_memory, "run_trials", attempts)
    told = make_context(
        context.results.path, None, resources=context.resources, ended=lambda *end: ended.append(end[1])
    )
    retry_out_of_memory([TRIAL], told)
    assert [one.memory_gb_per_worker for one in attempts.given] == [None, 0.5]
    row = context.results.row(TRIAL.trial_id)
    assert (row["ending"], row["epochs_run"]) == (Ending.FAILED, 1)
    assert row["error"].endswith(ERROR)
    assert ended == [Ending.FAILED]


@pytest.mark.parametrize(
    "outcome",
    [Outcome(Ending.COMPLETED), Outcome(Ending.UNAVAILABLE, error="ModuleNotFoundError: No module named 'x'"), None],
)
def test_what_ended_otherwise_or_has_no_row_is_left_alone(tmp_path, monkeypatch, outcome):
    context = make_context(tmp_path / "other", None, resources=resources("alone"))
    if outcome is not None:
        context.results.write(TRIAL, outcome)
    monkeypatch.setattr(out_of_memory, "run_trials", Attempts())
    retry_out_of_memory([TRIAL], context)


def test_a_spent_budget_holds_an_attempt_back(context, monkeypatch):
    class Closed:
        def is_open(self) -> bool:
            return False

    closed = make_context(context.results.path, None, resources=context.resources, gate=Closed())
    monkeypatch.setattr(out_of_memory, "run_trials", Attempts())
    retry_out_of_memory([TRIAL], closed)
    assert context.results.ending(TRIAL.trial_id) is Ending.UNAVAILABLE


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ERROR, True),
        ("Traceback ...\nMemoryError", True),
        ("Traceback ...\nnumpy._core._exceptions._ArrayMemoryError: Unable to allocate 8 PiB", True),
        (
            "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes",
            True,
        ),
        ("rank 0: died\nOutOfMemoryError: Task was killed due to the node running low on memory.", True),
        ("Traceback ...\nModuleNotFoundError: No module named 'memory'", False),
        ("Traceback ...\nValueError: memory", False),
        (f"{OUT_OF_MEMORY_AT_LAST} (tried: alone): MemoryError\nTraceback ...\nMemoryError", False),
        (None, False),
    ],
)
def test_an_error_tells_of_memory_or_not(error, said):
    assert ran_out_of_memory(error) is said
    if error is not None and error.startswith(OUT_OF_MEMORY_AT_LAST):
        assert environment_error(error) is None, "it is the arm's own failure now"
