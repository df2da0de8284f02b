"""Format numbers for pages, terminals and figures: numbers and their intervals in, short texts out.

Fractions of one become percent or percentage points, a missing number becomes a dash, and a minus sign is the
typographic one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from qsgd_ray.analysis.claim import CheckedClaim
from qsgd_ray.analysis.improvement import Improvement
from qsgd_ray.analysis.metric import number_text, unit_of
from qsgd_ray.analysis.statistics import Interval, proportion_interval
from qsgd_ray.analysis.summary import ArmSummary
from qsgd_ray.analysis.time_to_target import TimeSaved, TimeToTarget
from qsgd_ray.analysis.verdict import Verdict
from qsgd_ray.config import ACCURACY, Metric
from qsgd_ray.config.stages import Setting, Value
from qsgd_ray.reporting._metric_words import better_side, of_unit, value_unit

MISSING = "–"
VERDICT_SIGNS = {Verdict.BETTER: "▲", Verdict.WORSE: "▼", Verdict.EQUIVALENT: "=", Verdict.INCONCLUSIVE: "?"}
VERDICT_STYLES = {
    Verdict.BETTER: "bold green",
    Verdict.WORSE: "bold red",
    Verdict.EQUIVALENT: "bold blue",
    Verdict.INCONCLUSIVE: "bold yellow",
}
# Factor, decimals and suffix of a claim's number, by its unit.
_CLAIM_UNITS = {"points": (100.0, 2, ""), "share": (100.0, 1, " %"), "nats": (1.0, 4, "")}


def share(fraction: float | None) -> str:
    """Format a fraction of one in percent, three digits: 12.3 %."""
    return MISSING if fraction is None else f"{100 * fraction:.3g} %"


def gib(n_bytes: float | None) -> str:
    """Format bytes in GiB, three digits."""
    return MISSING if n_bytes is None else f"{n_bytes / 2**30:.3g} GiB"


def right_answers(s: ArmSummary) -> str:
    """Format the number of right answers with the 95 % interval of their share (Wilson)."""
    if not s.answers:
        return MISSING
    low, high = proportion_interval(s.answers_right or 0, s.answers)
    return f"{s.answers_right} ({100 * low:.0f} to {100 * high:.0f} %)"


def percent(fraction: float | None) -> str:
    """Format a fraction of one in percent, two decimals, without the sign of percent: 90.12."""
    return MISSING if fraction is None else f"{100 * fraction:.2f}"


def points(fraction: float | None, *, sign: bool = True) -> str:
    """Format a fraction of one in percentage points, two decimals.

    Args:
        fraction: a difference of fractions; None where it is missing.
        sign: a plus before what is above zero.

    Example:
        >>> points(-0.0123), points(0.0123), points(0.0123, sign=False)
        ('−1.23', '+1.23', '1.23')
    """
    if fraction is None:
        return MISSING
    return _signed(100 * fraction) if sign else _signed(100 * fraction).lstrip("+")


def _signed(value: float) -> str:
    text = f"{value:+.2f}".replace("-", "−")
    return "0.00" if text.lstrip("+−") == "0.00" else text


def difference(value: float | None, metric: Metric, *, sign: bool = True) -> str:
    """Format a difference of a metric without its unit: of a share in percentage points, else in four digits.

    Args:
        value: in the metric's unit; None where it is missing.
        metric: its metric.
        sign: a plus before what is above zero.
    """
    if value is None or metric.kind == "share":
        return points(value, sign=sign)
    return number_text(value, metric, sign=sign) if value else "0"


def with_unit(value: float | None, metric: Metric, *, sign: bool = True) -> str:
    """Format a difference of a metric with its unit, as `difference` does without."""
    text = difference(value, metric, sign=sign)
    return text if value is None else f"{text} {unit_of(metric)}".rstrip()


def metric_text(value: float | None, metric: Metric) -> str:
    """Format a value of a metric without its unit: of a share in percent, two decimals, else in four digits."""
    if value is None or metric.kind == "share":
        return percent(value)
    return number_text(value, metric)


def target_text(metric: Metric) -> str:
    """Format the target of a metric with its unit: 90 %, 0.3 nats."""
    if metric.target is None:
        return MISSING
    if metric.kind == "share":
        return f"{100 * metric.target:g} %"
    return f"{number_text(metric.target, metric)} {metric.unit}".rstrip()


def span(interval: Interval | None, *, sign: bool = False, metric: Metric = ACCURACY) -> str:
    """Format an interval of differences, of a share in percentage points: 1.20 to 3.40.

    Args:
        interval: None where it is missing.
        sign: a plus before what is above zero.
        metric: of the differences; default: a share.
    """
    return MISSING if interval is None else " to ".join(difference(edge, metric, sign=sign) for edge in interval)


def digits(value: float | None) -> str:
    """Format a number with three digits; thousands in full, as 32,100."""
    if value is None:
        return MISSING
    text = f"{value:.3g}"
    return f"{float(text):,.0f}" if 1e3 <= abs(float(text)) < 1e12 else text


def loss(nats: float | None) -> str:
    """Format a loss, four decimals."""
    return MISSING if nats is None else f"{nats:.4f}"


def whole(count: float | None) -> str:
    """Format a count, thousands with commas."""
    return MISSING if count is None else f"{round(count):,}"


def duration(seconds: float | None) -> str:
    """Format seconds in the largest unit of which there is at least one: 1.5 h."""
    if seconds is None:
        return MISSING
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if abs(seconds) >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def percent_whole(fraction: float | None) -> str:
    """Format a fraction of one in whole percent, without the sign of percent."""
    return MISSING if fraction is None else f"{100 * fraction:.0f}"


def factor(overhead: float | None) -> str:
    """Format a relative overhead in whole percent with its sign: 0.45 is +45 %."""
    return MISSING if overhead is None else f"{100 * overhead:+.0f} %".replace("-", "−")


def overhead(s: ArmSummary) -> str:
    """Format an arm's overhead with its interval, in whole percent: +45 % (+40 to +51)."""
    if s.overhead_interval is None:
        return factor(s.overhead)
    return f"{factor(s.overhead)} ({' to '.join(factor(edge).removesuffix(' %') for edge in s.overhead_interval)})"


def p_value(value: float | None) -> str:
    """Format a p value, three decimals; smaller ones as < 0.001."""
    return MISSING if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def interquartile_mean(s: ArmSummary, metric: Metric) -> str:
    """Format an arm's interquartile mean with its interval, and with the number of runs that have no result.

    Args:
        s: the arm's summary.
        metric: of the study's decision.
    """
    nulls = f", {s.n_null} null" if s.n_null else ""
    if s.iqm_interval is None:
        return f"{metric_text(s.iqm, metric)}{nulls}"
    return f"{metric_text(s.iqm, metric)}{nulls} ({' to '.join(metric_text(edge, metric) for edge in s.iqm_interval)})"


def improvement(value: Improvement | None) -> str:
    """Format the probability of improvement with its interval, as fractions of one."""
    if value is None:
        return MISSING
    text = f"{value.probability:.2f} ({value.interval.low:.2f} to {value.interval.high:.2f})"
    return text if value.paired else f"{text}, not paired"


def misses(time: TimeToTarget) -> str:
    """Format the number of runs that missed the target: 2 of 10."""
    return f"{time.misses} of {time.n}" if time.n else MISSING


def median_time(time: TimeToTarget) -> str:
    """Format a median time; a median that is a miss is the word `missed`."""
    return MISSING if not time.n else "missed" if time.median is None else digits(time.median)


def median_interval(time: TimeToTarget) -> str:
    """Format a median time with its interval."""
    if time.interval is None or np.isinf(time.interval.low):
        return median_time(time)
    edges = ("missed" if np.isinf(edge) else digits(edge) for edge in time.interval)
    return f"{median_time(time)} ({' to '.join(edges)})"


def epochs_saved(saved: TimeSaved | None) -> str:
    """Format the mean of the epochs saved with its interval, two decimals, signed."""
    if saved is None:
        return MISSING
    edges = f" ({' to '.join(map(_signed, saved.interval))})" if saved.interval else ""
    return f"{_signed(saved.mean)}{edges}"


def claim_value(value: float | None, unit: str) -> str:
    """Format a number of a claim with its sign.

    Args:
        value: in the claim's unit; None where it is missing.
        unit: `points` (two decimals), `share` (percent, one decimal), `nats` (four decimals) or another one, which is
            told (four digits).

    Example:
        >>> claim_value(0.023, "points"), claim_value(-0.378, "share"), claim_value(-1.5, "dB")
        ('+2.30', '−37.8 %', '−1.5 dB')
    """
    if value is None:
        return MISSING
    if unit not in _CLAIM_UNITS:
        return f"{value:+.4g} {unit}".replace("-", "−", 1).rstrip()
    scale, decimals, suffix = _CLAIM_UNITS[unit]
    return f"{scale * value:+.{decimals}f}{suffix}".replace("-", "−")


def claim_interval(claim: CheckedClaim) -> str:
    """Format the interval of what was measured of a claim."""
    if claim.interval is None:
        return MISSING
    return " to ".join(claim_value(edge, claim.unit) for edge in claim.interval)


def claim_arm(claim: CheckedClaim) -> str:
    """Format what a claim compares: its arm, with the setting of the map and with what it stands against.

    The study's baseline goes without saying.
    """
    text = claim.arm if claim.at is None else f"{claim.arm} at {setting_text(claim.at)}"
    if claim.against_at is not None:
        return f"{text} against {setting_text(claim.against_at)}"
    return text if claim.against is None else f"{text} against {claim.against}"


def claim_sources(claims: Sequence[CheckedClaim]) -> str:
    """Format where claims are made, each source once; empty where one of them has none."""
    sources = [claim.source for claim in claims if claim.source is not None]
    return ", ".join(dict.fromkeys(sources)) if len(sources) == len(claims) else ""


def claim_text(claim: CheckedClaim, claims: Sequence[CheckedClaim]) -> str:
    """Format what is claimed as a sentence, with its source where `claim_sources` does not tell it of all claims."""
    source = f" ({claim.source})" if claim.source and not claim_sources(claims) else ""
    return f"{claim.text[0].upper()}{claim.text[1:]}{source}."


def counted(number: int, noun: str = "run") -> str:
    """Format a number with its noun, in the plural where it is not one.

    Args:
        number: a count, >= 0.
        noun: in the singular; its plural ends in s.

    Example:
        >>> counted(1), counted(3, "pair")
        ('1 run', '3 pairs')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def table_cell(value: float | str | None) -> str:
    """Format one of a figure's numbers, four digits; text stays as it is."""
    return MISSING if value is None else value if isinstance(value, str) else f"{value:.4g}".replace("-", "−")


def axis_value(value: Value) -> str:
    """Format one value of a map's axis."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def axis_name(path: str) -> str:
    """Format the path of a setting as its last name: `perturbation.lambda_` is lambda."""
    return path.rpartition(".")[2].rstrip("_")


def setting_text(setting: Setting) -> str:
    """Format a setting of a map: n_qubits 8, lambda 0.5."""
    return ", ".join(f"{axis_name(path)} {axis_value(value)}" for path, value in setting.items())


def _setting(value: Any) -> str:
    """Format one value of an optimizer's settings, four digits; a list in brackets."""
    if isinstance(value, list):
        return f"({', '.join(map(_setting, value))})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# The formats by the names that the templates use.
FILTERS: dict[str, Callable[..., str]] = {
    "percent": percent,
    "percent_whole": percent_whole,
    "difference": difference,
    "with_unit": with_unit,
    "metric_value": metric_text,
    "target": target_text,
    "of_unit": of_unit,
    "value_unit": value_unit,
    "better_side": better_side,
    "span": span,
    "digits": digits,
    "setting": _setting,
    "iqm": interquartile_mean,
    "improvement": improvement,
    "median": median_time,
    "median_interval": median_interval,
    "misses": misses,
    "saved": epochs_saved,
    "factor": factor,
    "overhead": overhead,
    "p": p_value,
    "loss": loss,
    "whole": whole,
    "share": share,
    "gib": gib,
    "right": right_answers,
    "duration": duration,
    "claimed": lambda claim: claim_value(claim.claimed, claim.unit),
    "measured": lambda claim: claim_value(claim.measured, claim.unit),
    "claim_interval": claim_interval,
    "claim_arm": claim_arm,
    "claim_sources": claim_sources,
    "claim_text": claim_text,
}
