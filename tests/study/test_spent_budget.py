"""A budget that is spent ends a study with one line, and a larger one goes on."""

import threading

import pytest
from support.small_study import SMALL_TASK, a_study
from support.without_ray import confirm, replace_ray

from qsgd_ray import run
from qsgd_ray.config import Budget, Study
from qsgd_ray.execution import connection, start_gate
from qsgd_ray.study import _stages as stages


@pytest.fixture
def without_ray(monkeypatch):
    """The stages in this process: trials are rows that are written at once."""
    replace_ray(monkeypatch)


class Gate:
    """The start gate of this process."""

    def __init__(self) -> None:
        self._closed = threading.Event()

    def close(self) -> None:
        self._closed.set()

    def is_open(self) -> bool:
        return not self._closed.is_set()


def confirm_one_pair(study, context, trials, **_) -> None:
    """Confirm one seed of every arm; go on when the gate is closed, or at once where the budget is large."""
    missing = [trial for trial in trials if not context.results.has(trial.trial_id)]
    for n_before, trial in enumerate(missing):
        while n_before == len(study.arms) and study.budget.hours < 1 and context.may_start():
            threading.Event().wait(0.01)
        if n_before < len(study.arms) or context.may_start():
            confirm(study, context, [trial])


def test_a_budget_ends_a_study_with_one_line_and_a_larger_one_goes_on(without_ray, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(start_gate, "StartGate", Gate)
    monkeypatch.setattr(stages, "run_fixed_trials", confirm_one_pair)
    study = a_study(budget=Budget(hours=1e-4, price_per_node_hour=3600))
    first = run(study, storage=tmp_path)
    line = "budget of 0.0001 h spent: 6 of 8 trials; going on: raise budget.hours"
    assert (first.failure, first.is_finished) == (line, False)
    assert {(row["arm"], row["seed"]) for row in first.trials.to_pylist() if row["stage"] == "confirm"} == {
        ("adamw", 11),
        ("sine", 11),
    }
    out = capsys.readouterr().out
    assert "Budget: 0 h of 0.0001 h and 0 of money spent; how long a trial takes is not known yet" in out
    assert "what runs is trained to its end" in out
    assert "Planned runs missing: the budget ended the study before 1 of 2 pairs." in first.verdicts[0].reason
    spent_s = first.tables.spending.seconds
    assert spent_s >= 0.36
    assert first.document["budget"]["cost_spent"] == pytest.approx(spent_s)

    connected = []
    with monkeypatch.context() as patch:
        patch.setattr(connection, "connect", lambda *_: connected.append(1))
        again = run(study, storage=tmp_path, progress=False)
    assert (again.failure, connected) == (line, [])
    assert again.tables.spending == first.tables.spending

    last = run(study, storage=tmp_path, overrides=["budget.hours=1"], progress=False)
    assert (last.failure, last.is_finished) == (None, True)
    assert last.tables.spending.seconds > spent_s
    assert last.tables.spending.runs[0] == first.tables.spending.runs[0]
    assert len(last.tables.spending.runs) == 2
    assert "budget.hours 0.0001, then 1.0" in " ".join(last.tables.notes)
    assert len(run(last.study, storage=tmp_path, progress=False).tables.spending.runs) == 2, "nothing was missing"
    undisturbed = run(a_study(budget=Budget(hours=1)), storage=tmp_path / "other", progress=False)
    assert sorted(last.trials["trial_id"].to_pylist()) == sorted(undisturbed.trials["trial_id"].to_pylist())


def test_of_several_workloads_each_has_an_equal_share_and_complete_seeds_are_judged_jointly(monkeypatch, tmp_path):
    replace_ray(monkeypatch)
    monkeypatch.setattr(start_gate, "StartGate", Gate)
    monkeypatch.setattr(stages, "run_fixed_trials", confirm_one_pair)
    of_one = {name: value for name, value in a_study() if name not in ("workload", "workloads")}
    tasks = {"easy": SMALL_TASK, "hard": SMALL_TASK.model_copy(update={"difficulty": 0.3})}
    study = Study(**of_one | {"workloads": tasks, "budget": Budget(hours=2e-4, cost=8, price_per_node_hour=3600)})
    assert [part.budget.hours for part in study.parts().values()] == [1e-4, 1e-4]
    assert [part.budget.cost for part in study.parts().values()] == [4, 4]
    result = run(study, storage=tmp_path, progress=False)
    assert not result.is_finished
    assert all("budget of 0.0001 h spent" in part.failure for part in result.parts.values())
    (verdict,) = result.verdicts
    assert (verdict.n_pairs + verdict.n_lost, verdict.n_pending) == (1, 1)
    assert verdict.reason.endswith("Planned runs missing: the budget ended the study before 1 of 2 pairs.")
    spent = result.document["budget"]
    assert (spent["hours"], spent["is_spent"], spent["trials_planned"]) == (2e-4, True, 16)
    assert spent["hours_spent"] == pytest.approx(
        sum(part.tables.spending.seconds for part in result.parts.values()) / 3600
    )
