"""The overhead of an arm is over the seeds that both arms have, and is told with its interval."""

from dataclasses import replace

import numpy as np
import pytest
from support.synthetic_results import Made, made, runs

from qsgd_ray.analysis.summary import arm_summaries
from qsgd_ray.reporting._formatting import overhead

BASE = 0.9 + np.array([0, 8, -7, 3, -2, 5, -6, 1, -4, 2]) / 1000


def test_an_overhead_is_told_with_its_interval_and_over_pairs_alone():
    """Equal arms whose baseline bore one cold start: the median stays, and the interval holds nought."""
    whole = made({"adamw": runs(BASE), "same": runs(BASE)})
    cold = whole.trials[0][0]
    equal = [(t, replace(o, measurements=_at_two_seconds(o.measurements, t is cold))) for t, o in whole.trials]
    same = arm_summaries(Made(whole.study, equal).tables())[1]
    assert same.overhead == pytest.approx(0.0, abs=1e-9)
    assert same.overhead_interval.low <= 0 <= same.overhead_interval.high
    assert overhead(same).startswith("+0 % (")
    short = made({"adamw": [*runs(BASE[:5]), None], "sine": runs(BASE[:6])})
    assert arm_summaries(short.tables())[1].overhead is not None


def _at_two_seconds(measurements, cold):
    return tuple(replace(m, wall_s=(6.0 if cold else 2.0) * m.epoch) for m in measurements)
