"""One analysis of a study: computed once for page and terminal, frozen, and equal to its parts."""

from collections import Counter
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from support.pages import BASE, whole_study
from support.synthetic_results import Run, a_study, lost, made, runs
from typer.testing import CliRunner

import qsgd_ray.analysis
from qsgd_ray.analysis import analyse, arm_summaries, judge, learning_curves, study_analysis
from qsgd_ray.cli import _app as app
from qsgd_ray.config import Map
from qsgd_ray.reporting._all_figures import captioned_figures
from qsgd_ray.reporting.terminal import study_report
from qsgd_ray.study.reading import read_results

PARTS = (
    "judge",
    "arm_summaries",
    "seed_results",
    "ladders",
    "check_claims",
    "map_effects",
    "ledger",
    "budgets",
    "ending_counts",
    "importances",
    "learning_curves",
    "step_ratio_curves",
    "study_profiles",
    "search_trials",
)


@pytest.fixture
def calls(monkeypatch) -> Counter:
    """How often each part of an analysis is computed."""
    counts: Counter[str] = Counter()

    def counting(name, function):
        def counted(*arguments):
            counts[name] += 1
            return function(*arguments)

        return counted

    for name in PARTS:
        monkeypatch.setattr(study_analysis, name, counting(name, getattr(study_analysis, name)))
    return counts


def study_with_everything():
    """Verdicts, ladders, claims and a map: all that a page can have sections for."""
    design = Map(arm="gain", axes={"perturbation.n_qubits": (2, 8)}, seeds=(300, 301), epochs=2)
    return whole_study(map=design, claims={"C1": "gain", "C4": "gain"})


def test_a_report_computes_everything_once(calls, tmp_path):
    read_results(study_with_everything().write(tmp_path / "study")).report()
    assert calls == dict.fromkeys(PARTS, 1)


def test_the_command_judges_once_for_page_and_terminal(calls, tmp_path):
    study_with_everything().write(tmp_path / "study")
    result = CliRunner().invoke(app, ["report", str(tmp_path / "study")])
    assert result.exit_code == 0, result.output
    assert "The ladder of controls" in result.output
    assert calls == dict.fromkeys(PARTS, 1)


def test_a_comparison_judges_each_study_once_and_draws_nothing(calls, tmp_path):
    folders = [study_with_everything().write(tmp_path / name) for name in ("left", "right")]
    result = CliRunner().invoke(app, ["compare", *map(str, folders)])
    assert result.exit_code == 0, result.output
    assert calls["judge"] == calls["arm_summaries"] == 2
    assert not calls["learning_curves"] + calls["importances"] + calls["study_profiles"]


def test_views_read_the_analysis_and_compute_nothing_twice(calls):
    analysis = analyse(study_with_everything().tables())
    for _ in range(2):
        captioned_figures(analysis)
        study_report(analysis)
        assert analysis.importances
    assert calls == dict.fromkeys(PARTS, 1)


def test_an_analysis_is_frozen_and_its_parts_are_those_of_the_functions():
    tables = whole_study().tables()
    analysis = analyse(tables)
    with pytest.raises(FrozenInstanceError):
        analysis.verdicts = ()
    assert analysis.verdicts == judge(tables)
    assert analysis.summaries == arm_summaries(tables)
    assert [curves.arm for curves in learning_curves(tables)] == [arm.name for arm in analysis.study.arms]


def test_every_name_that_the_package_offers_is_there():
    assert all(getattr(qsgd_ray.analysis, name) is not None for name in qsgd_ray.analysis.__all__)
    assert {*qsgd_ray.analysis.__all__} == {*qsgd_ray.analysis._MODULES}
    with pytest.raises(AttributeError, match="no attribute 'verdicts_of'"):
        qsgd_ray.analysis.verdicts_of  # noqa: B018


def test_results_by_seed_are_those_of_the_rows():
    tables = made({"adamw": runs(BASE), "sine": [*runs(BASE[:4] + 0.02), lost(), lost()]}).tables()
    adamw, sine = analyse(tables).seeds
    assert list(adamw.values.values()) == (100 * BASE).tolist()
    assert set(sine.differences) == set(tables.study.confirm.seeds[:4])
    assert list(sine.differences.values()) == pytest.approx([2.0] * 4)
    rows = {row["seed"]: row for row in tables.rows("confirm", "sine")}
    for clock, hit, end in (
        (sine.epochs, "epochs_to_target", "epochs_run"),
        (sine.seconds, "seconds_to_target", "wall_s"),
    ):
        assert set(clock.hits) | set(clock.misses) == set(rows)
        assert all(rows[seed][hit] == time for seed, time in clock.hits.items())
        assert all(rows[seed][hit] is None and rows[seed][end] == time for seed, time in clock.misses.items())
    assert sine.n_unmeasured == 0


def test_a_mean_curve_is_over_completed_runs_and_a_ratio_of_zero_is_left_out():
    tables = made({"adamw": runs(BASE), "sine": [Run(0.9, ratio=0.0)] * 5 + [lost()]}).tables()
    analysis = analyse(tables)
    curves = {curves.arm: curves for curves in analysis.learning_curves}
    assert sorted(run.is_complete for run in curves["sine"].runs) == [False] + [True] * 5
    complete = [run.values for run in curves["sine"].runs if run.is_complete]
    assert curves["sine"].mean.mean == pytest.approx(qsgd_ray.analysis.interquartile_mean(np.stack(complete)))
    assert [(curves.arm, len(curves.runs)) for curves in analysis.step_ratio_curves] == [("adamw", 0), ("sine", 0)]


def test_the_headline_counts_the_verdicts():
    assert (
        analyse(whole_study().tables()).headline == "Of 3 arms against adamw: 1 better, 1 equivalent, 1 inconclusive."
    )
    alone = made({"adamw": runs(BASE)}, study=a_study(["adamw"], 6))
    assert "nothing to compare" in analyse(alone.tables()).headline
