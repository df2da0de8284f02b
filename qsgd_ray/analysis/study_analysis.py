"""The analysis of a study: result tables in, one frozen `StudyAnalysis` out.

Everything that a reader is shown is computed here, once. Page, terminal, comparison and notebook are views of it: they
choose and format numbers, they do not compute them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from qsgd_ray.analysis._headline import headline
from qsgd_ray.analysis._rows import Row
from qsgd_ray.analysis.budget import BudgetStatus, budget_status
from qsgd_ray.analysis.claim import CheckedClaim
from qsgd_ray.analysis.claims import check_claims
from qsgd_ray.analysis.costs import Budget, Cost, budget_sentence, budgets, ledger
from qsgd_ray.analysis.curves import ArmCurves, learning_curves, step_ratio_curves
from qsgd_ray.analysis.effect_map import EffectMap, map_effects
from qsgd_ray.analysis.importance import Importance, importances
from qsgd_ray.analysis.ladder import Ladder, ladders
from qsgd_ray.analysis.profile import StudyProfiles, study_profiles
from qsgd_ray.analysis.search_start import _is_unequal, _start_sentences
from qsgd_ray.analysis.seeds import SeedResults, seed_results
from qsgd_ray.analysis.summary import ArmSummary, arm_summaries
from qsgd_ray.analysis.trials import (
    EndingCounts,
    SearchTrial,
    _missing_results,
    ending_counts,
    search_trials,
    trials_with_errors,
)
from qsgd_ray.analysis.verdict import ArmVerdict, judge
from qsgd_ray.config import Metric, Study, metric_label
from qsgd_ray.results import StudyTables


@dataclass(frozen=True)
class StudyAnalysis:
    """Everything that a study's rows show, computed once.

    Fields are computed by `analyse`. Properties that only a figure or one section of the page needs, and that take a
    bootstrap or a library of their own, are computed when they are first read, and then kept.

    Attributes:
        tables: the study and its rows.
        verdicts: one for each arm but the baseline, in the study's order.
        summaries: the confirmation of every arm, the baseline included, in the study's order.
        seeds: the confirmation of every arm seed by seed, in the study's order.
        ladders: one for each arm with controls, such as one with a sine or a circuit: what already explains its gain.
        claims: the claims of the study, in its order.
        effect_map: the effect at every setting of the study's map; None where the study has none.
        ledger: seconds, circuits and tokens by stage and arm; the last line is the sum of all.
        budgets: of the arms' searches.
        endings: how the trials of every stage and arm ended.
        errors: rows of the trials that report an error.
        missing: a sentence for each arm whose runs all ended in one error, or of which some lacked something where they
            ran; what a reader has to know first.
        spent: hours and money of all runs, and what is expected to the end; None where nobody asked.

    Example:
        >>> import qsgd_ray.results
        >>> analysis = analyse(qsgd_ray.results.read("results/quick"))  # doctest: +SKIP
        >>> analysis.headline  # doctest: +SKIP
        'Of 2 arms against adamw: 2 inconclusive.'
    """

    tables: StudyTables = field(repr=False)
    verdicts: tuple[ArmVerdict, ...]
    summaries: tuple[ArmSummary, ...]
    seeds: tuple[SeedResults, ...]
    ladders: tuple[Ladder, ...]
    claims: tuple[CheckedClaim, ...]
    effect_map: EffectMap | None
    ledger: tuple[Cost, ...]
    budgets: tuple[Budget, ...]
    endings: tuple[EndingCounts, ...]
    errors: tuple[Row, ...]
    missing: tuple[str, ...] = ()
    spent: BudgetStatus | None = None

    @property
    def study(self) -> Study:
        """The study as it is now."""
        return self.tables.study

    @property
    def metric(self) -> Metric:
        """The metric that the study decides by."""
        return self.study.metric

    @property
    def metric_label(self) -> str:
        """Its name in words, such as accuracy of answer tokens."""
        return metric_label(self.study.workload, self.metric)

    @property
    def provenance(self) -> dict[str, Any]:
        """Versions, commit and hardware of the runs, as a JSON tree."""
        return self.tables.provenance

    @property
    def notes(self) -> list[str]:
        """Remarks on how the rows came about that a reader of the verdicts needs, one line each."""
        return [*self.tables.notes, *_start_sentences(self.tables)]

    @property
    def is_changed(self) -> bool:
        """The study was changed after trials had been run."""
        return bool(self.tables.changes)

    @property
    def headline(self) -> str:
        """All verdicts in one sentence."""
        return headline(self.verdicts)

    @property
    def budget_sentence(self) -> str:
        """One sentence on whether all arms were tuned with the same budget."""
        sentence = budget_sentence(self.budgets)
        return f"{sentence} Their searches did not start alike (see the notes)." if self._starts_differ else sentence

    @property
    def _starts_differ(self) -> bool:
        return bool(self.budgets) and _is_unequal(self.tables)

    @cached_property
    def importances(self) -> tuple[Importance, ...]:
        """The importance of the searched settings of every arm."""
        return importances(self.tables)

    @cached_property
    def search_trials(self) -> dict[str, tuple[SearchTrial, ...]]:
        """The trials of every arm's search, by its name."""
        return search_trials(self.tables)

    @cached_property
    def learning_curves(self) -> tuple[ArmCurves, ...]:
        """The metric of validation data by epoch of every arm, a share in percent."""
        return learning_curves(self.tables)

    @cached_property
    def step_ratio_curves(self) -> tuple[ArmCurves, ...]:
        """|lambda * Q| / |Adam step| by epoch of every arm."""
        return step_ratio_curves(self.tables)

    @cached_property
    def profiles(self) -> StudyProfiles:
        """The share of each arm's runs that reach a value of the metric."""
        return study_profiles(self.tables)


def analyse(tables: StudyTables) -> StudyAnalysis:
    """Return the analysis of a study.

    The tables are not changed, and nothing is read or written besides them. Rows that are still to come are no error:
    an arm without any has the verdict `inconclusive`.

    Args:
        tables: the study and its rows, as `qsgd_ray.results.read` returns them.

    Returns:
        Verdicts, summaries, claims and costs, computed here; importances, curves and profiles follow when they are
        first read, since they take longer.

    Raises:
        StudyError: the rows hold two confirmations of an arm at one seed.

    Example:
        >>> from pathlib import Path
        >>> from qsgd_ray.config.loading import load_study
        >>> from qsgd_ray.results.schema import MEASUREMENTS, TRIALS
        >>> study = load_study(Path("studies/quick.py"))
        >>> analysis = analyse(StudyTables(study, {}, TRIALS.empty_table(), MEASUREMENTS.empty_table()))  # not run
        >>> analysis.headline
        'Of 2 arms against adamw: 2 inconclusive.'
        >>> [verdict.arm for verdict in analysis.verdicts]
        ['sine', 'circuit']
    """
    verdicts = judge(tables)
    return StudyAnalysis(
        tables=tables,
        verdicts=verdicts,
        summaries=arm_summaries(tables),
        seeds=seed_results(tables),
        ladders=ladders(tables, verdicts),
        claims=check_claims(tables),
        effect_map=map_effects(tables),
        ledger=ledger(tables),
        budgets=budgets(tables),
        endings=ending_counts(tables),
        errors=trials_with_errors(tables),
        missing=_missing_results(tables),
        spent=budget_status(tables),
    )
