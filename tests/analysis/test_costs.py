"""The ledger is what the rows add up to, nulls counted; budgets are the same or said not to be."""

import pyarrow as pa
import pytest
from support.synthetic_results import Run, a_study, lost, made, runs

from qsgd_ray.analysis.costs import budget_sentence, budgets, ledger
from qsgd_ray.bench._large_study import write_large_study
from qsgd_ray.outcome import Ending
from qsgd_ray.results import StudyTables, read


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    path = tmp_path_factory.mktemp("study")
    write_large_study(path, 200, 4)
    return read(path)


def with_rows(tables, rows):
    return StudyTables(tables.study, {}, pa.Table.from_pylist(rows, schema=tables.trials.schema), tables.measurements)


def test_every_line_is_the_sum_of_its_rows(tables):
    *lines, total = ledger(tables)
    rows = tables.trials.to_pylist()
    assert [(line.stage, line.arm) for line in lines] == [
        (stage, arm.name) for stage in ("search", "confirm") for arm in tables.study.arms
    ]
    for line in (*lines, total):
        own_rows = [r for r in rows if line.stage is None or (r["stage"], r["arm"]) == (line.stage, line.arm)]
        assert line.n_trials == len(own_rows)
        for name in line.sums:
            known = [r[name] for r in own_rows if r[name] is not None]
            assert line.n_null[name] == len(own_rows) - len(known)
            assert line.sums[name] == (pytest.approx(sum(known)) if known else None)


def test_seconds_below_zero_of_earlier_versions_are_counted_as_missing(tables):
    rows = [dict(row) for row in tables.trials.to_pylist()]
    before = ledger(tables)[-1]
    rows[0] |= {"elapsed_s": -3600.0, "idle_s": -3700.0}
    after = ledger(with_rows(tables, rows))[-1]
    own_s = tables.trials["elapsed_s"][0].as_py()
    assert after.sums["elapsed_s"] == pytest.approx(before.sums["elapsed_s"] - (own_s or 0.0))
    assert after.n_null["elapsed_s"] == before.n_null["elapsed_s"] + (own_s is not None)


def test_the_total_is_the_sum_of_the_lines(tables):
    *lines, total = ledger(tables)
    for name in ("train_s", "n_circuits", "epochs_run"):
        assert total.sums[name] == pytest.approx(sum(line.sums[name] or 0 for line in lines))
        assert total.n_null[name] == sum(line.n_null[name] for line in lines)


def test_a_study_without_a_row_cost_nothing_that_is_known():
    (total,) = ledger(made({}, study=a_study(["adamw", "sine"], 6)).tables())
    assert (total.n_trials, total.sums["train_s"]) == (0, None)


def test_a_stage_that_the_study_does_not_plan_is_in_the_ledger(tables):
    rows = [row | {"stage": "map"} for row in tables.trials.to_pylist()[:3]]
    *lines, total = ledger(with_rows(tables, rows))
    assert {line.stage for line in lines} == {"map"}
    assert total.n_trials == 3


def test_equal_budgets_are_called_equal_and_lost_trials_do_not_count(tables):
    assert budget_sentence(budgets(tables)).startswith("Equal: every arm was given 19 trials of at most 100 epochs")
    rows = tables.trials.to_pylist()
    first = next(row for row in rows if (row["stage"], row["arm"]) == ("search", "sine"))
    first["ending"] = str(Ending.LOST)
    assert "not spent yet: sine 18 of 19" in budget_sentence(budgets(with_rows(tables, rows)))
    extra = [*tables.trials.to_pylist(), dict(tables.trials.to_pylist()[-1], stage="search", trial_id="extra")]
    assert f"overspent: {extra[-1]['arm']} 20" in budget_sentence(budgets(with_rows(tables, extra)))


def test_budgets_that_differ_are_said_to():
    from dataclasses import replace

    lines = budgets(made({"adamw": runs([0.9]), "sine": [Run(0.9), lost()]}, searched=True).tables())
    assert budget_sentence([lines[0], replace(lines[1], planned=9)]) == "The arms' budgets differ."
    assert budget_sentence([]) == "No arm is searched."
