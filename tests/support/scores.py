"""Tables of scores of known effect, and verdicts on them."""

from __future__ import annotations

from typing import Any

import numpy as np


def score_rows(
    effects: dict[str, float], n_seeds: int = 8, *, noise: float = 0.01, at: float = 2.0
) -> list[dict[str, Any]]:
    """Return a row for each arm and seed: `at`, a shift of the seed's own, the arm's effect, and noise."""
    rng = np.random.default_rng(5)
    rows = []
    for seed in range(1, n_seeds + 1):
        shift = rng.normal(0, 0.1)
        for arm, effect in effects.items():
            rows.append({"arm": arm, "seed": seed, "score": float(at + shift + effect + rng.normal(0, noise))})
    return rows


# Against the baseline adamw, at a margin of 0.05 and where less is better.
EFFECTS = {"adamw": 0.0, "muon": -0.2, "same": 0.0, "lion": 0.3}
RULE = {"baseline": "adamw", "margin": 0.05, "direction": "min"}
