"""What a machine lacked is no result of an arm: not a loss, not a miss, and said before everything else."""

import io

import numpy as np
import pytest
from rich.console import Console
from support.synthetic_results import Run, lost, made, runs

from qsgd_ray.analysis.study_analysis import analyse
from qsgd_ray.analysis.verdict import Verdict, judge
from qsgd_ray.outcome import Ending
from qsgd_ray.reporting.page import render_page
from qsgd_ray.reporting.terminal import study_report

BASE = 0.9 + np.array([0, 8, -7, 3, -2, 5]) / 1000
NO_AER = "Traceback (most recent call last):\nModuleNotFoundError: No module named 'qiskit_aer'\n"
# As trials that lack something are stored now, and as they were stored before there was an ending of their own.
LACKING = [Run(None, Ending.UNAVAILABLE, error=NO_AER), Run(None, Ending.FAILED, error=NO_AER)]


@pytest.mark.parametrize("run", LACKING, ids=["unavailable", "failed"])
def test_a_package_that_the_nodes_lack_is_no_verdict(run):
    (verdict,) = judge(made({"adamw": runs(BASE), "noisy": [run] * 6}).tables())
    assert verdict.verdict is Verdict.INCONCLUSIVE
    assert (verdict.n_pairs, verdict.n_lost, verdict.n_pending) == (0, 0, 6)
    assert verdict.p_difference is None
    assert verdict.improvement is None


@pytest.mark.parametrize("run", LACKING, ids=["unavailable", "failed"])
def test_an_arm_that_lacked_something_is_named_first_on_terminal_and_page(run):
    analysis = analyse(made({"adamw": runs(BASE), "noisy": [run] * 6}).tables())
    (sentence,) = analysis.missing
    assert sentence.startswith(
        "All 6 runs of noisy ended in the same error, so nothing is known of this arm: "
        "ModuleNotFoundError: No module named 'qiskit_aer'. It tells of the machine, not of the arm"
    )
    assert ("The same command runs these again." in sentence) == (run.ending is Ending.UNAVAILABLE)
    console = Console(width=1000, record=True, file=io.StringIO())
    for part in study_report(analysis):
        console.print(part)
    assert console.export_text().startswith(sentence)
    page = render_page(analysis)
    assert page.index("nothing is known of this arm") < page.index(analysis.headline, page.index("<h1>"))


def test_some_runs_that_lacked_something_leave_their_pairs_pending():
    tables = made({"adamw": runs(BASE), "noisy": [*runs(BASE[:4]), LACKING[0], LACKING[0]]}).tables()
    (verdict,) = judge(tables)
    assert (verdict.n_pairs, verdict.n_lost, verdict.n_pending) == (4, 0, 2)
    (sentence,) = analyse(tables).missing
    assert sentence.startswith("2 of 6 runs of noisy have no result: ModuleNotFoundError: ")


def test_one_error_of_every_run_is_named_first_and_still_counts_where_it_is_the_arms_own():
    analysis = analyse(made({"adamw": runs(BASE), "bug": [lost(Ending.FAILED)] * 6}).tables())
    assert analysis.missing == (
        "All 6 runs of bug ended in the same error, so nothing is known of this arm: ValueError: <b>broken</b>.",
    )
    assert analysis.verdicts[0].verdict is Verdict.WORSE
    assert analysis.verdicts[0].reason.startswith("No run of bug got a result. 6 of 6 pairs")


def test_an_arm_without_any_result_is_told_as_such_and_not_as_chance():
    by_arm = {"adamw": runs(BASE[:5]), "nan": [lost()] * 5, "sine": runs(BASE[:5])}
    (verdict, _) = judge(made(by_arm).tables())
    assert verdict.verdict is Verdict.INCONCLUSIVE
    assert verdict.reason == "No run of nan got a result."
    (both, _) = judge(made(by_arm | {"adamw": [lost()] * 5}).tables())
    assert both.reason == "No run of nan and none of adamw got a result."


def test_nothing_is_named_where_runs_ended_as_they_should_or_in_their_own_ways():
    assert analyse(made({"adamw": runs(BASE), "sine": runs(BASE)}).tables()).missing == ()
    assert analyse(made({"adamw": runs(BASE), "wild": [*runs(BASE[:5]), lost(Ending.FAILED)]}).tables()).missing == ()


def test_times_to_target_and_profiles_leave_out_what_lacked_something():
    whole = made({"adamw": runs(BASE), "sine": runs(BASE[:4])})
    short = made({"adamw": runs(BASE), "sine": [*runs(BASE[:4]), LACKING[0], LACKING[1]]}, study=whole.study)
    one, other = analyse(whole.tables()), analyse(short.tables())
    assert one.summaries[1].epochs_to_target == other.summaries[1].epochs_to_target
    assert one.summaries[1].epochs_saved == other.summaries[1].epochs_saved
    assert one.profiles.by_arm["sine"].n == other.profiles.by_arm["sine"].n == 4
    assert one.verdicts[0] == other.verdicts[0]
