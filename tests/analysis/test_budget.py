"""A spent budget ends a study honestly: complete pairs are judged, missing runs said, money shared out to the cent."""

from dataclasses import replace
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from support.pages import whole_study
from support.synthetic_results import a_study, made, runs

from qsgd_ray.analysis.budget import Pace, budget_status, paces, status_of
from qsgd_ray.analysis.costs import ledger
from qsgd_ray.analysis.study_analysis import analyse
from qsgd_ray.analysis.verdict import Verdict, judge
from qsgd_ray.config import Budget
from qsgd_ray.outcome import Ending
from qsgd_ray.reporting.page import render_page
from qsgd_ray.reporting.verdict_document import study_document
from qsgd_ray.results.spending import RunSpending, Spending

BASE = [0.80, 0.81, 0.79, 0.82, 0.80, 0.81]
GAIN = [0.85, 0.862, 0.84, 0.869, 0.852, 0.858]
HOURS = 3600.0
TWO_HOURS = Budget(hours=2)


def of_hours(hours: float, nodes: int = 1) -> Spending:
    return Spending((RunSpending(None, hours * HOURS, {"": nodes * hours * HOURS}),))


def cut_short(n_pairs: int, spent_hours: float, budget: Budget | None = TWO_HOURS):
    """Ten seeds were planned, so many pairs of them have run, and one run more of the baseline."""
    by_arm = {"adamw": runs(BASE[: n_pairs + 1]), "sine": runs(GAIN[:n_pairs])}
    study = a_study(list(by_arm), 10, budget=budget)
    return replace(made(by_arm, study=study).tables(), spending=of_hours(spent_hours))


def test_a_spent_budget_judges_the_complete_pairs_and_says_which_are_missing():
    (verdict,) = judge(cut_short(5, 2.0))
    (alone,) = judge(made({"adamw": runs(BASE[:5]), "sine": runs(GAIN[:5])}).tables())
    assert verdict.verdict is alone.verdict is Verdict.BETTER
    assert (verdict.difference, verdict.p_difference) == (alone.difference, alone.p_difference)
    assert (verdict.n_pairs, verdict.n_pending) == (5, 5)
    assert verdict.reason.startswith(alone.reason)
    assert "Planned runs missing: the budget ended the study before 5 of 10 pairs." in verdict.reason


@pytest.mark.parametrize(("hours", "budget"), [(1.9, Budget(hours=2)), (9.0, None), (9.0, Budget(hours=10))])
def test_with_budget_left_nothing_is_decided_before_the_last_pair(hours, budget):
    (verdict,) = judge(cut_short(5, hours, budget))
    assert verdict.verdict is Verdict.INCONCLUSIVE
    assert "Only 5 of 10 planned pairs of runs have ended" in verdict.reason


def test_too_few_pairs_stay_inconclusive_whatever_was_spent():
    (verdict,) = judge(cut_short(4, 2.0))
    assert verdict.verdict is Verdict.INCONCLUSIVE
    assert "4 of the 5 pairs" in verdict.reason
    assert "Planned runs missing" in verdict.reason


def test_a_study_that_is_whole_is_judged_the_same_with_its_budget_spent():
    tables = made({"adamw": runs(BASE), "sine": runs(GAIN)}).tables()
    spent = replace(tables, study=tables.study.model_copy(update={"budget": Budget(hours=1)}), spending=of_hours(3))
    assert judge(spent) == judge(tables)


def timed(tables, elapsed_s=100.0):
    rows = [
        row | {"elapsed_s": elapsed_s, "started_at": datetime(2026, 1, 1, tzinfo=UTC)}
        for row in tables.trials.to_pylist()
    ]
    return replace(tables, trials=pa.Table.from_pylist(rows, schema=tables.trials.schema))


def test_the_money_of_the_ledger_adds_up_to_what_the_nodes_cost():
    tables = timed(cut_short(5, 2.0, Budget(hours=2, price_per_node_hour=3.5)))
    *lines, total = ledger(tables)
    assert total.money == pytest.approx(7.0)
    assert sum(line.money for line in lines) == pytest.approx(7.0)
    assert [line.money for line in lines] == pytest.approx([7 * 6 / 11, 7 * 5 / 11])
    assert ledger(timed(cut_short(5, 2.0)))[-1].money is None
    assert ledger(cut_short(5, 2.0, Budget(price_per_node_hour=1)))[-1].money == pytest.approx(2.0)


def test_what_is_left_is_in_the_pace_of_what_has_ended():
    """4 of 8 trials of 10 epochs took 100 s of trials in 50 s of the run: two run beside each other."""
    study = a_study(["adamw", "sine"], 6, budget=Budget(hours=2 / 60, cost=10.0, price_per_node_hour=90.0))
    stages = [Pace("adamw", 4, 10, ended=4, epochs=40, trial_s=100.0), Pace("sine", 4, 10)]
    status = status_of(study, stages, 50.0, {"": 100.0})
    assert status.seconds_left == pytest.approx(50.0)
    assert (status.money, status.money_left) == (pytest.approx(2.5), pytest.approx(2.5))
    assert status.fits is True
    assert "the plan fits" in status.forecast
    slow = status_of(study, [stages[0], Pace("sine", 16, 10)], 50.0, {"": 100.0})
    assert slow.fits is False
    assert "the plan does not fit, about 9 of 20 trials do" in slow.forecast


def test_trials_that_were_stopped_early_are_expected_of_those_to_come():
    pace = Pace("adamw", 10, 8, ended=4, epochs=12, trial_s=12.0)
    assert pace.epochs_left == 6 * 3
    assert Pace("adamw", 10, 8).epochs_left == 80
    assert Pace("adamw", 3, 8, ended=4, epochs=12).epochs_left == 0


def test_without_a_trial_nothing_is_foretold():
    tables = replace(made({}, study=a_study(["adamw", "sine"], 6, budget=Budget(hours=2))).tables())
    status = budget_status(tables)
    assert status.fits is None
    assert status.forecast == (
        "Budget: 0 h of 2 h spent; how long a trial takes is not known yet, "
        "so the first ones tell whether the plan fits."
    )


def test_lost_trials_are_still_to_run():
    tables = cut_short(5, 1.0)
    rows = tables.trials.to_pylist()
    rows[0]["ending"] = str(Ending.LOST)
    changed = replace(tables, trials=pa.Table.from_pylist(rows, schema=tables.trials.schema))
    assert paces(changed)["confirm", "adamw"].ended == paces(tables)["confirm", "adamw"].ended - 1


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (Budget(hours=2), "budget of 2 h spent: 11 of 24 trials; going on: raise budget.hours"),
        (
            Budget(hours=9, cost=7.5, price_per_node_hour=4),
            "budget of 7.5 of money spent: 11 of 24 trials; going on: raise budget.cost",
        ),
        (
            Budget(hours=2, cost=7.5, price_per_node_hour=4),
            "budget of 2 h and 7.5 of money spent: 11 of 24 trials; going on: raise budget.hours and budget.cost",
        ),
    ],
)
def test_the_last_line_names_what_is_spent_and_how_it_goes_on(budget, said):
    assert budget_status(cut_short(5, 2.0, budget)).end_sentence == said


def test_page_and_document_tell_hours_and_money():
    tables = whole_study().tables()
    budget = Budget(hours=2, price_per_node_hour=1.5)
    tables = replace(timed(tables), study=tables.study.model_copy(update={"budget": budget}), spending=of_hours(1.2))
    analysis = analyse(tables)
    tree = study_document(analysis, finished=True)
    assert tree["budget"] | {"trials_ended": 0, "trials_planned": 0} == {
        "hours": 2.0,
        "cost": None,
        "hours_spent": pytest.approx(1.2),
        "cost_spent": pytest.approx(1.8),
        "is_spent": False,
        "trials_ended": 0,
        "trials_planned": 0,
    }
    page = render_page(analysis)
    assert "All runs of this study together: 1.2 h of 2 h and 1.8 of money spent" in page
    assert '<th scope="col">money</th>' in page
    assert study_document(analyse(whole_study().tables()), finished=True)["budget"] is None
