"""Numbers in the sentences of verdicts and claims: signed points, percent of change, p values.

StudyTables and pages use `reporting.formatting`, which has columns to align and dashes for what is missing.
"""

from __future__ import annotations

from qsgd_ray.analysis.statistics import Estimate


def signed_points(fraction: float) -> str:
    """Return percentage points with a sign: 0.0123 is +1.23."""
    return f"{100 * fraction:+.2f}".replace("-", "−")


def percent_change(change: Estimate) -> str:
    """Return a relative change with its interval, in whole percent: −37 % (−45 to −29)."""
    assert change.interval is not None
    value, low, high = (f"{100 * x:+.0f}".replace("-", "−") for x in (change.value, *change.interval))
    return f"{value} % ({low} to {high})"


def p_text(p: float | None) -> str:
    """Return a p value as `p = 0.012`."""
    return "no p" if p is None else "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
