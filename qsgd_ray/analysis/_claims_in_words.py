"""Findings of claims in words: what a claim is taken to say in; whether it is shown, and a sentence of figures, out."""

from __future__ import annotations

from dataclasses import dataclass

from qsgd_ray.analysis._claim_measures import Measured, measured, metric_of, unit_of_measure
from qsgd_ray.analysis._sentences import percent_change, signed_points
from qsgd_ray.analysis.claim import Finding
from qsgd_ray.analysis.statistics import Estimate
from qsgd_ray.config import Claim, ClaimPart, Contrast, Expectation, Metric, Study
from qsgd_ray.config.claims import Bound, filled
from qsgd_ray.results import StudyTables


@dataclass(frozen=True)
class _Answer:
    """An expectation as the rows answer it; one without a number has no words, and neither is shown nor excluded."""

    is_shown: bool = False
    is_excluded: bool = False
    words: str | None = None


def finding_in_words(tables: StudyTables, claim: Claim) -> tuple[Finding, str]:
    """Return the finding of a claim in words, and its reason as a sentence.

    Args:
        tables: the study and its rows.
        claim: a claim with parts.
    """
    parts = [_finding_of_part(tables, claim, part) for part in claim.parts]
    findings = [finding for finding, _ in parts]
    why = "; ".join(words for _, words in parts)
    if claim.lacks is not None:
        why += f"; {claim.lacks}"
    finding = Finding.INCONCLUSIVE
    if Finding.CONTRADICTED in findings:
        finding = Finding.CONTRADICTED
    elif claim.lacks is None and set(findings) == {Finding.SUPPORTED}:
        finding = Finding.SUPPORTED
    return finding, f"{why[0].upper()}{why[1:]}."


def _finding_of_part(tables: StudyTables, claim: Claim, part: ClaimPart) -> tuple[Finding, str]:
    answers = [_answer(tables, claim, asked) for asked in part.expects]
    words = [answer.words for answer in answers if answer.words is not None]
    if not words or (part.rule == "all" and len(words) < len(answers)):
        contrast, *_ = claim.question(part.expects[0])
        return Finding.INCONCLUSIVE, filled(part.missing, _names(tables.study, contrast))
    shown, excluded = ([getattr(answer, name) for answer in answers] for name in ("is_shown", "is_excluded"))
    if part.rule == "any":
        finding = Finding.SUPPORTED if any(shown) else Finding.CONTRADICTED if all(excluded) else Finding.INCONCLUSIVE
        return finding, ", ".join(words)
    finding = Finding.CONTRADICTED if any(excluded) else Finding.SUPPORTED if all(shown) else Finding.INCONCLUSIVE
    return finding, " and ".join(words)


def _answer(tables: StudyTables, claim: Claim, asked: Expectation) -> _Answer:
    contrast, measure, metric = claim.question(asked)
    found = measured(tables, contrast, measure, metric)
    if isinstance(found, str) or found.estimate is None or found.estimate.interval is None:
        return _Answer()
    of = metric_of(tables.study, metric)
    edge = _edge(asked.edge, tables.study, of)
    other = edge if asked.excluded is None else _edge(asked.excluded, tables.study, of)
    low, high = found.estimate.interval
    above = asked.lies == "above"
    return _Answer(
        is_shown=low > edge if above else high < edge,
        is_excluded=high < other if above else low > other,
        words=filled(asked.words, _names(tables.study, contrast) | _figures(found, unit_of_measure(measure, of))),
    )


def _edge(bound: Bound, study: Study, metric: Metric) -> float:
    if not isinstance(bound, str):
        return bound
    # A margin of one metric says nothing of another.
    margin = study.decision.margin if metric.name == study.metric.name else 0.0
    return -margin if bound == "-margin" else margin


def _names(study: Study, contrast: Contrast) -> dict[str, str]:
    return {"arm": contrast.arm, "against": study.baseline if contrast.against is None else contrast.against}


def _figures(found: Measured, unit: str) -> dict[str, str]:
    """Return the texts of a measure's placeholders."""
    assert found.estimate is not None
    assert found.estimate.interval is not None
    value, (low, high) = found.estimate.value, found.estimate.interval
    texts = {
        "value": _value(value, unit),
        "low": _value(low, unit),
        "high": _value(high, unit),
        "figure": _figure(found.estimate, unit),
    }
    if found.lost is not None:
        texts["lost"] = str(found.lost)
    if found.span is not None:
        texts |= {name: f"{edge:g}".replace("-", "−") for name, edge in zip(("first", "last"), found.span, strict=True)}
    return texts


def _figure(estimate: Estimate, unit: str) -> str:
    if unit == "share":
        return percent_change(estimate)
    assert estimate.interval is not None
    low, high = (_value(edge, unit) for edge in estimate.interval)
    return f"{_value(estimate.value, unit)} ({low} to {high})"


def _value(value: float, unit: str) -> str:
    if unit == "points":
        return signed_points(value)
    if unit == "share":
        return f"{100 * value:+.2g} %".replace("-", "−")
    if unit == "runs":
        return f"{value:+.0f}".replace("-", "−")
    return f"{value:+.4g}".replace("-", "−")
