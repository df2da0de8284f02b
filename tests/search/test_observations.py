"""What a search has tried is judged by all of its seeds: lost ones waited for, failed ones counted."""

import pytest
from scipy.stats import trim_mean
from support.outcomes import measured
from support.searches import CONDITIONAL, reachable
from support.small_study import a_study

from qsgd_ray.analysis.objectives import RunResult, objective_values, quality
from qsgd_ray.config import ACCURACY, Arm, Perturbation
from qsgd_ray.config.arm import fields_without_effect
from qsgd_ray.config.loading import with_overrides
from qsgd_ray.config.trial import search_trials
from qsgd_ray.outcome import Ending, Outcome
from qsgd_ray.results import Results
from qsgd_ray.results._rows import trial_row
from qsgd_ray.search.observations import _observed_points, best_point, unfinished_points
from qsgd_ray.training.loop import run, train
from qsgd_ray.workloads import make_workload

STUDY = with_overrides(a_study(), ["search.seeds=[0,1,2,3]"])
ALIVE = Ending.COMPLETED


def rows_of(
    number: int, *endings: tuple[Ending, float], study=STUDY, rate: float | None = None, **measures
) -> list[dict]:
    """A row for each of the first seeds: how it ended, and its accuracy."""
    trials = search_trials(study, "sine", number, {"learning_rate": rate or (number + 1) / 1000})
    return [
        trial_row(trial, Outcome(ending, (measured(study.search.epochs, accuracy, **measures),)))
        for trial, (ending, accuracy) in zip(trials, endings, strict=False)
    ]


def best(*rows: list[dict], study=STUDY) -> int | None:
    """The number of the point that is chosen."""
    point = best_point(study, study.arm("sine"), [row for of_trial in rows for row in of_trial])
    return point and round(1000 * point["learning_rate"]) - 1


def test_a_point_is_judged_by_the_interquartile_mean_of_its_seeds():
    lucky = rows_of(0, (ALIVE, 0.99), (ALIVE, 0.6), (ALIVE, 0.6), (ALIVE, 0.1))
    steady = rows_of(1, (ALIVE, 0.61), (ALIVE, 0.61), (ALIVE, 0.61), (ALIVE, 0.61))
    assert best(lucky, steady) == 1


@pytest.mark.parametrize("ending", [Ending.DIVERGED, Ending.FAILED])
def test_a_seed_that_failed_counts_nought_and_is_not_left_out(ending):
    broken = rows_of(0, (ALIVE, 0.9), (ALIVE, 0.9), (ending, 0.9), (ending, 0.9))
    steady = rows_of(1, (ALIVE, 0.5), (ALIVE, 0.5), (ALIVE, 0.5), (ALIVE, 0.5))
    assert best(broken, steady) == 1
    (tried,) = _observed_points(STUDY, broken)["sine"]
    assert quality(tried.results, ACCURACY) == pytest.approx(0.45)


def test_equal_quality_is_decided_by_the_mean_loss():
    first = rows_of(0, *[(ALIVE, 0.5)] * 4, validation_loss=0.7)
    second = rows_of(1, *[(ALIVE, 0.5)] * 4, validation_loss=0.6)
    assert best(first, second) == 1
    assert best(rows_of(0, *[(ALIVE, 0.5)] * 4), rows_of(1, *[(ALIVE, 0.5)] * 4)) == 0


def test_a_trial_is_ended_when_all_of_its_seeds_are():
    some, all_of_them = rows_of(0, *[(ALIVE, 0.9)] * 3), rows_of(1, *[(ALIVE, 0.5)] * 4)
    lost = rows_of(2, *[(ALIVE, 0.9)] * 3, (Ending.LOST, 0.9))
    assert best(some, all_of_them, lost) == 1
    assert [one.complete for one in _observed_points(STUDY, some + lost + all_of_them)["sine"]] == [False, True, False]


def test_the_budget_counts_points_not_runs(tmp_path):
    results = Results(tmp_path / "small")
    results.open(STUDY, {})
    for number in range(2):
        for trial in search_trials(STUDY, "sine", number, {"learning_rate": 0.001})[: 4 - number]:
            results.write(trial, Outcome(Ending.COMPLETED, (measured(1, 0.5),)))
    assert unfinished_points(results.tables(STUDY)) == {"adamw": 2, "sine": 1}
    assert [STUDY.planned("search", STUDY.arm("sine")), STUDY.points(STUDY.arm("sine"))] == [8, 2]


def test_rows_of_another_content_are_no_rows_of_this_search():
    other = with_overrides(STUDY, ["workload.difficulty=0.3"])
    assert best(rows_of(0, *[(ALIVE, 0.9)] * 4, study=other), rows_of(1, *[(ALIVE, 0.5)] * 4)) == 1
    assert best(rows_of(0, *[(ALIVE, 0.9)] * 4, study=other)) is None


def test_a_row_has_null_where_its_point_was_not_asked_and_gives_the_point_back():
    study = a_study(arms=(Arm(name="adamw"), CONDITIONAL))
    points = reachable(CONDITIONAL)
    rows = [
        trial_row(search_trials(study, "q", number, point)[0], Outcome(Ending.FAILED))
        for number, point in enumerate(points)
    ]
    assert [one.point for one in _observed_points(study, rows)["q"]] == points
    assert {row["n_qubits"] is None for row in rows if row["source"] == "zero"} == {True}
    assert {row["depth"] is None for row in rows} == {True, False}


@pytest.mark.parametrize(("source", "scope"), [("sine", "all"), ("gradient", "all"), ("zero", "tensor")])
def test_what_has_no_effect_has_none(one_thread, source, scope):
    """The parameters of a training are the same bits whatever the fields that are not asked for."""
    changed = {"depth": 5, "entangle": "none", "rotations": ("rx",), "n_qubits": 7, "lambda_": 3.0, "scope": "model"}
    idle = fields_without_effect(source, scope)

    def trained(**fields) -> str:
        arm = Arm(name="q", perturbation=Perturbation(**{"source": source, "scope": scope} | fields))
        study = a_study(arms=(arm,), baseline="q")
        trial = search_trials(study, "q", 0, {})[0]
        return run(train(trial, make_workload(study.workload), None), lambda _: False).parameters_sha256

    assert trained(**{name: changed[name] for name in idle}) == trained()


SEVERAL = with_overrides(STUDY, ['search.objectives=["quality","circuits","step_time"]', "search.tolerance=0.02"])


def costing(number: int, accuracy: float, circuits: int, wall_s: float = 1.0) -> list[dict]:
    return rows_of(number, *[(ALIVE, accuracy)] * 4, study=SEVERAL, n_circuits=circuits, wall_s=wall_s)


def test_of_several_objectives_the_cheapest_within_the_tolerance_of_the_best_quality_is_chosen():
    dear, cheap, bad = costing(0, 0.90, 100), costing(1, 0.885, 50), costing(2, 0.87, 1)
    assert best(dear, cheap, bad, study=SEVERAL) == 1
    assert best(dear, bad, study=SEVERAL) == 0
    assert best(dear, costing(1, 0.89, 100, wall_s=0.5), study=SEVERAL) == 1, "the next objective decides"
    assert best(dear, costing(1, 0.91, 100), study=SEVERAL) == 1, "then quality"


def test_costs_are_a_step_and_means_over_the_runs_that_were_measured():
    runs = [RunResult(0.5, 1.0, 10, 2.0, 40), RunResult(None, None, 5, 2.0, 30), RunResult(None)]
    assert objective_values(runs, ("quality", "step_time", "circuits"), ACCURACY) == [
        pytest.approx(trim_mean([0.5, 0, 0], 0.25)),
        pytest.approx((0.2 + 0.4) / 2),
        pytest.approx((4 + 6) / 2),
    ]
    assert objective_values([RunResult(None)], ("quality", "circuits"), ACCURACY) == [0.0, None]
