"""Analysis: a study's rows in; verdicts, summaries, ladders, claims and the statistics behind them out.

`analyse(tables)` returns everything at once, as a `StudyAnalysis`. Each part is also a function of its own, on tables
or on plain arrays. Importing this package loads nothing: a name loads its module when it is used for the first time
(PEP 562), as a training process needs none of scipy and statsmodels.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qsgd_ray.analysis.claim import CheckedClaim, Finding, not_measured, with_finding
    from qsgd_ray.analysis.claims import check_claims
    from qsgd_ray.analysis.comparison import ArmComparison, Comparison, Difference, compare
    from qsgd_ray.analysis.costs import Budget, Cost, budget_sentence, budgets, ledger
    from qsgd_ray.analysis.curves import ArmCurves, MeanCurve, RunCurve, learning_curves, step_ratio_curves
    from qsgd_ray.analysis.effect_map import EffectMap, MapCell, map_effects
    from qsgd_ray.analysis.importance import Importance, importances
    from qsgd_ray.analysis.improvement import Improvement, paired_improvement, unpaired_improvement
    from qsgd_ray.analysis.ladder import CheckedRung, Explanation, Ladder, ladders
    from qsgd_ray.analysis.metric import metric_value
    from qsgd_ray.analysis.pairs import Pairs, pair_by_seed
    from qsgd_ray.analysis.profile import Profile, StudyProfiles, performance_profile, study_profiles
    from qsgd_ray.analysis.seeds import SeedResults, TargetClock, seed_results
    from qsgd_ray.analysis.significance import (
        holm,
        paired_t_p_value,
        sign_test_p_value,
        smallest_detectable_effect,
        tost_p_value,
    )
    from qsgd_ray.analysis.statistics import (
        DECIMALS,
        Estimate,
        Interval,
        bootstrap_band,
        bootstrap_interval,
        difference_interval,
        evenly_spaced,
        finite,
        interquartile_mean,
        paired_differences,
        proportion_interval,
        relative_change,
        relative_spread,
        without_missing,
    )
    from qsgd_ray.analysis.study_analysis import StudyAnalysis, analyse
    from qsgd_ray.analysis.summary import ArmSummary, arm_summaries
    from qsgd_ray.analysis.throughput import Throughput, median_throughput
    from qsgd_ray.analysis.time_to_target import TimeSaved, TimeToTarget, median_time, time_saved
    from qsgd_ray.analysis.trials import EndingCounts, SearchTrial, ending_counts, search_trials, trials_with_errors
    from qsgd_ray.analysis.verdict import MIN_PAIRS, ArmVerdict, Verdict, decide, judge

__all__ = [
    "DECIMALS",
    "MIN_PAIRS",
    "ArmComparison",
    "ArmCurves",
    "ArmSummary",
    "ArmVerdict",
    "Budget",
    "CheckedClaim",
    "CheckedRung",
    "Comparison",
    "Cost",
    "Difference",
    "EffectMap",
    "EndingCounts",
    "Estimate",
    "Explanation",
    "Finding",
    "Importance",
    "Improvement",
    "Interval",
    "Ladder",
    "MapCell",
    "MeanCurve",
    "Pairs",
    "Profile",
    "RunCurve",
    "SearchTrial",
    "SeedResults",
    "StudyAnalysis",
    "StudyProfiles",
    "TargetClock",
    "Throughput",
    "TimeSaved",
    "TimeToTarget",
    "Verdict",
    "analyse",
    "arm_summaries",
    "bootstrap_band",
    "bootstrap_interval",
    "budget_sentence",
    "budgets",
    "check_claims",
    "compare",
    "decide",
    "difference_interval",
    "ending_counts",
    "evenly_spaced",
    "finite",
    "holm",
    "importances",
    "interquartile_mean",
    "judge",
    "ladders",
    "learning_curves",
    "ledger",
    "map_effects",
    "median_throughput",
    "median_time",
    "metric_value",
    "not_measured",
    "pair_by_seed",
    "paired_differences",
    "paired_improvement",
    "paired_t_p_value",
    "performance_profile",
    "proportion_interval",
    "relative_change",
    "relative_spread",
    "search_trials",
    "seed_results",
    "sign_test_p_value",
    "smallest_detectable_effect",
    "step_ratio_curves",
    "study_profiles",
    "time_saved",
    "tost_p_value",
    "trials_with_errors",
    "unpaired_improvement",
    "with_finding",
    "without_missing",
]

_NAMES = {
    "study_analysis": "analyse StudyAnalysis",
    "verdict": "judge decide MIN_PAIRS Verdict ArmVerdict",
    "metric": "metric_value",
    "pairs": "pair_by_seed Pairs",
    "summary": "arm_summaries ArmSummary",
    "seeds": "seed_results SeedResults TargetClock",
    "ladder": "ladders Ladder CheckedRung Explanation",
    "claims": "check_claims",
    "claim": "CheckedClaim Finding with_finding not_measured",
    "effect_map": "map_effects EffectMap MapCell",
    "importance": "importances Importance",
    "trials": "ending_counts search_trials trials_with_errors EndingCounts SearchTrial",
    "curves": "learning_curves step_ratio_curves ArmCurves MeanCurve RunCurve",
    "profile": "performance_profile study_profiles Profile StudyProfiles",
    "time_to_target": "median_time time_saved TimeToTarget TimeSaved",
    "improvement": "paired_improvement unpaired_improvement Improvement",
    "throughput": "median_throughput Throughput",
    "costs": "ledger budgets budget_sentence Cost Budget",
    "comparison": "compare Comparison ArmComparison Difference",
    "statistics": (
        "bootstrap_band bootstrap_interval difference_interval evenly_spaced finite "
        "interquartile_mean paired_differences proportion_interval relative_change "
        "relative_spread without_missing DECIMALS Estimate Interval"
    ),
    "significance": "holm paired_t_p_value sign_test_p_value smallest_detectable_effect tost_p_value",
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Load a public name from its module when it is used for the first time."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
