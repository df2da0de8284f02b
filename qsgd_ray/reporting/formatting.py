"""How a number is told, in a report and on a terminal: numbers and their intervals in, short texts out.

Fractions of one are told in percent or points, missing numbers as a dash.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from qsgd_ray.analysis.improvement import Improvement
from qsgd_ray.analysis.statistics import Interval, proportion_interval
from qsgd_ray.analysis.summary import ArmSummary
from qsgd_ray.analysis.time_to_target import Saved, TimeToTarget
from qsgd_ray.analysis.verdict import Verdict
from qsgd_ray.paths import leaves

NONE = "–"
SIGNS = {Verdict.BETTER: "▲", Verdict.WORSE: "▼", Verdict.EQUIVALENT: "=", Verdict.INCONCLUSIVE: "?"}


def share(fraction: float | None) -> str:
    return NONE if fraction is None else f"{100 * fraction:.3g} %"


def gib(n_bytes: float | None) -> str:
    return NONE if n_bytes is None else f"{n_bytes / 2**30:.3g} GiB"


def right_answers(s: ArmSummary) -> str:
    """With their share and its 95 % interval (Wilson)."""
    if not s.answers:
        return NONE
    low, high = proportion_interval(s.answers_right or 0, s.answers)
    return f"{s.answers_right} ({100 * low:.0f} to {100 * high:.0f} %)"


def percent(fraction: float | None) -> str:
    return NONE if fraction is None else f"{100 * fraction:.2f}"


def points(fraction: float | None, *, sign: bool = True) -> str:
    """Percentage points."""
    if fraction is None:
        return NONE
    return _signed(100 * fraction) if sign else _signed(100 * fraction).lstrip("+")


def _signed(value: float) -> str:
    told = f"{value:+.2f}".replace("-", "−")
    return "0.00" if told.lstrip("+−") == "0.00" else told


def span(interval: Interval | None, *, sign: bool = False) -> str:
    return NONE if interval is None else " to ".join(points(edge, sign=sign) for edge in interval)


def digits(value: float | None) -> str:
    """Three of them; thousands in full, as 32,100."""
    if value is None:
        return NONE
    told = f"{value:.3g}"
    return f"{float(told):,.0f}" if 1e3 <= abs(float(told)) < 1e12 else told


def loss(nats: float | None) -> str:
    return NONE if nats is None else f"{nats:.4f}"


def whole(count: float | None) -> str:
    return NONE if count is None else f"{round(count):,}"


def duration(seconds: float | None) -> str:
    """In the largest unit of which there is one."""
    if seconds is None:
        return NONE
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if abs(seconds) >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def percent_whole(fraction: float | None) -> str:
    return NONE if fraction is None else f"{100 * fraction:.0f}"


def factor(overhead: float | None) -> str:
    return NONE if overhead is None else f"{100 * overhead:+.0f} %".replace("-", "−")


def p_value(value: float | None) -> str:
    return NONE if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def interquartile_mean(s: ArmSummary) -> str:
    """With its interval, and how many of the runs have no result."""
    nulls = f", {s.n_null} null" if s.n_null else ""
    return f"{percent(s.iqm)}{nulls}{f' ({span(s.iqm_interval)})' if s.iqm_interval else ''}"


def improvement(found: Improvement | None) -> str:
    """The probability with its interval, as fractions of one."""
    if found is None:
        return NONE
    told = f"{found.probability:.2f} ({found.interval.low:.2f} to {found.interval.high:.2f})"
    return told if found.paired else f"{told}, not paired"


def misses(time: TimeToTarget) -> str:
    return f"{time.misses} of {time.n}" if time.n else NONE


def median_time(time: TimeToTarget) -> str:
    """A median that is a miss is said in words."""
    return NONE if not time.n else "missed" if time.median is None else digits(time.median)


def median_interval(time: TimeToTarget) -> str:
    """The median with its interval."""
    if time.interval is None or np.isinf(time.interval.low):
        return median_time(time)
    edges = ("missed" if np.isinf(edge) else digits(edge) for edge in time.interval)
    return f"{median_time(time)} ({' to '.join(edges)})"


def epochs_saved(found: Saved | None) -> str:
    if found is None:
        return NONE
    edges = f" ({' to '.join(map(_signed, found.interval))})" if found.interval else ""
    return f"{_signed(found.mean)}{edges}"


def flat(tree: Any) -> Iterator[tuple[str, str]]:
    """The leaves of a JSON tree by dotted path, as text."""
    for path, value in leaves(tree):
        if isinstance(value, list):
            yield path, ", ".join(map(str, value)) or "none"
        else:
            yield path, NONE if value is None else "none" if value == {} else str(value)


FILTERS = {
    "percent": percent,
    "percent_whole": percent_whole,
    "points": points,
    "span": span,
    "digits": digits,
    "iqm": interquartile_mean,
    "improvement": improvement,
    "median": median_time,
    "median_interval": median_interval,
    "misses": misses,
    "saved": epochs_saved,
    "factor": factor,
    "p": p_value,
    "loss": loss,
    "whole": whole,
    "share": share,
    "gib": gib,
    "right": right_answers,
    "duration": duration,
}
