"""All verdicts in one sentence: `ArmVerdict`s in, their counts by word out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from qsgd_ray.analysis.verdict import ArmVerdict, Verdict


def headline(verdicts: Sequence[ArmVerdict]) -> str:
    """Return all verdicts in one sentence."""
    if not verdicts:
        return "The study has no arm beside its baseline, so there is nothing to compare."
    counts = Counter(v.verdict for v in verdicts)
    words = [f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict]]
    arms = "one arm" if len(verdicts) == 1 else f"{len(verdicts)} arms"
    return f"Of {arms} against {verdicts[0].baseline}: {', '.join(words)}."
