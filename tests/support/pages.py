"""A study with everything that a page shows, and the names of its figures in reading order."""

from __future__ import annotations

import numpy as np

from qsgd_ray.outcome import Ending
from support.synthetic_results import Run, lost, made, runs

BASE = 0.9 + np.array([0, 8, -7, 3, -2, 5]) / 1000


FIGURES = (
    "paired-differences",
    "final-accuracy",
    "performance-profiles",
    "learning-curves",
    "time-to-target",
    "step-ratio",
    "search",
    "costs-by-arm",
)


def files_in(folder):
    """Return the time and the content of every file of a folder, by its path below it."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def whole_study(**fields):
    """Return a study of four arms, one better than the baseline, one with lost runs; `fields`: of the study."""
    return made(
        {
            "adamw": runs(BASE),
            "same": [Run(float(x), ratio=0.001) for x in BASE],
            "gain": [Run(float(x) + 0.05, ratio=0.3) for x in BASE],
            "wild": [Run(0.91, ratio=2.0), Run(0.6), lost(), lost(), lost(Ending.FAILED), lost(Ending.LOST)],
        },
        searched=True,
        **fields,
    )
