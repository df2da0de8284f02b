"""The tree of verdict.json from its parts: those of a study's verdict and of a verdict on other rows are the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from qsgd_ray import __version__
from qsgd_ray.analysis.statistics import Interval
from qsgd_ray.analysis.verdict import MIN_PAIRS, ArmVerdict
from qsgd_ray.config import Decision

_FORMAT, _VERSION = "qsgd-ray verdict", 2


def document(
    *,
    study: str | None,
    question: str | None,
    source: str | None,
    finished: bool,
    metric: Mapping[str, Any],
    baseline: str,
    rule: Decision | Mapping[str, float],
    headline: str,
    arms: Sequence[Mapping[str, Any]],
    verdicts: Sequence[ArmVerdict],
    claims: Sequence[Mapping[str, Any]] = (),
    notes: Sequence[str] = (),
    budget: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the JSON tree of a verdict, of a study's or of other rows.

    Args:
        study: the study's name; None for rows of others.
        question: the study's question; None for rows of others.
        source: where rows of others come from; None for a study.
        finished: no run is awaited.
        metric: its `name`, `direction` (`max` or `min`), `kind` (`share`, `mean`, `sum`, `geometric`) and `unit`.
        baseline: name of the arm that the others are compared with.
        rule: margin, alpha and power.
        headline: all verdicts in one sentence.
        arms: an entry an arm: `arm`, `n_runs`, `n_null`, `iqm` and `iqm_interval`.
        verdicts: one an arm but the baseline.
        claims: the claims of a paper that were checked.
        notes: sentences that a reader of the verdicts needs.
        budget: limits and spending of a study; None: it has no budget.
    """
    limits = rule if isinstance(rule, Mapping) else rule.model_dump(mode="json", include={"margin", "alpha", "power"})
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "qsgd_ray": __version__,
        "study": study,
        "question": question,
        "source": source,
        "finished": finished,
        "metric": dict(metric),
        "rule": {
            "baseline": baseline,
            **{name: limits[name] for name in ("margin", "alpha", "power")},
            "correction": "holm",
            "min_pairs": MIN_PAIRS,
        },
        "headline": headline,
        "arms": [dict(entry) for entry in arms],
        "verdicts": [verdict_entry(verdict) for verdict in verdicts],
        "claims": [dict(entry) for entry in claims],
        "notes": list(notes),
        "budget": None if budget is None else dict(budget),
    }


def interval_entry(interval: Interval | None) -> dict[str, float] | None:
    """Return an interval as the document has it; None where there is none."""
    return None if interval is None else {"low": interval.low, "high": interval.high}


def verdict_entry(verdict: ArmVerdict) -> dict[str, Any]:
    """Return the verdict on an arm as the document has it."""
    return {
        "arm": verdict.arm,
        "verdict": verdict.verdict.value,
        "reason": verdict.reason,
        "difference": verdict.difference,
        "interval": interval_entry(verdict.interval),
        "equivalence_interval": interval_entry(verdict.equivalence_interval),
        "p_difference": verdict.p_difference,
        "p_equivalence": verdict.p_equivalence,
        "improvement": None
        if verdict.improvement is None
        else asdict(verdict.improvement) | {"interval": interval_entry(verdict.improvement.interval)},
        "smallest_detectable_effect": verdict.smallest_detectable_effect,
        "n_pairs": verdict.n_pairs,
        "n_lost": verdict.n_lost,
        "n_pending": verdict.n_pending,
    }
