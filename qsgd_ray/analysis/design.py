"""The design of a study: its plan in, one line on a verdict that it cannot reach out; known before its first trial."""

from __future__ import annotations

from qsgd_ray.analysis.verdict import MIN_PAIRS
from qsgd_ray.config import Study


def out_of_reach(study: Study) -> str | None:
    """Return one line that says why no arm of a study can end in a verdict; None: each can, if its pairs tell.

    Only the number of pairs is certain beforehand. Whether enough of them are enough depends on their spread.

    Args:
        study: arms and stages.
    """
    n_pairs = len(study.confirm.seeds)
    if n_pairs >= MIN_PAIRS:
        return None
    return (
        f"{MIN_PAIRS} pairs are needed for a verdict at alpha {study.decision.alpha:g}; this study plans {n_pairs} "
        "(confirm.seeds), so every arm will end inconclusive."
    )
