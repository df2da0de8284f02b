"""The analysis of a study: result tables in, one frozen `StudyAnalysis` out; page, terminal and notebook are its views.

Everything that a reader is shown is computed here once: verdicts, summaries, ladder, claims, map and costs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from qsgd_ray.analysis.claims import Claim, claims
from qsgd_ray.analysis.costs import Budget, Cost, budgets, ledger
from qsgd_ray.analysis.effect_map import EffectMap, effect_map
from qsgd_ray.analysis.importance import Importance, importances
from qsgd_ray.analysis.ladder import Ladder, ladders
from qsgd_ray.analysis.summary import ArmSummary, arm_summaries
from qsgd_ray.analysis.verdict import ArmVerdict, judge
from qsgd_ray.config import Study
from qsgd_ray.results import StudyTables


@dataclass(frozen=True)
class StudyAnalysis:
    """Everything that a study's rows show, computed once.

    Attributes:
        tables: the rows behind it.
        verdicts: one for each arm but the baseline, in the study's order.
        summaries: the confirmation of every arm, the baseline included, in the study's order.
        ladders: one for each arm with a sine or a circuit: which control already explains its gain.
        claims: the paper's claims that the study names, in the paper's order.
        effect_map: the effect at every setting of the study's map; None where it has none.
        ledger: seconds, circuits and tokens by stage and arm; the last line is the sum of all.
        budgets: what each arm's search was given and took.
    """

    tables: StudyTables = field(repr=False)
    verdicts: tuple[ArmVerdict, ...]
    summaries: tuple[ArmSummary, ...]
    ladders: tuple[Ladder, ...]
    claims: tuple[Claim, ...]
    effect_map: EffectMap | None
    ledger: tuple[Cost, ...]
    budgets: tuple[Budget, ...]

    @property
    def study(self) -> Study:
        """The study as it is now."""
        return self.tables.study

    @property
    def provenance(self) -> dict[str, Any]:
        """Versions, commit and hardware of the runs, as a JSON tree."""
        return self.tables.provenance

    @property
    def notes(self) -> list[str]:
        """Remarks on how the rows came about that a reader of the verdicts needs, one line each."""
        return self.tables.notes

    @cached_property
    def importances(self) -> tuple[Importance, ...]:
        """The share of each searched setting in what makes an arm's best trials; one entry an arm."""
        return importances(self.tables)


def analyse(tables: StudyTables) -> StudyAnalysis:
    """Return the analysis of a study.

    Args:
        tables: the study and its rows, as `qsgd_ray.results.read` returns them.
    """
    verdicts = judge(tables)
    return StudyAnalysis(
        tables=tables,
        verdicts=verdicts,
        summaries=arm_summaries(tables),
        ladders=ladders(tables, verdicts),
        claims=claims(tables),
        effect_map=effect_map(tables),
        ledger=tuple(ledger(tables)),
        budgets=tuple(budgets(tables)),
    )
