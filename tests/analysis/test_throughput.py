"""Rates of trials from their rows: medians, and nothing where a number is missing."""

from hypothesis import given
from hypothesis import strategies as st

from qsgd_ray.analysis.throughput import Throughput, median_throughput

ROW = {
    "n_tokens": 3000,
    "wall_s": 10.0,
    "model_flops": 4e11,
    "peak_flops_per_s": 1e11,
    "workers_at_end": 2,
    "circuit_wait_s": 1.0,
    "peak_memory_bytes": 2**30,
}


def test_rates_are_those_of_the_steps():
    assert median_throughput([ROW]) == Throughput(300.0, 0.2, 0.1, 2.0**30)
    quick, slow = ROW | {"wall_s": 5.0}, ROW | {"wall_s": 30.0}
    assert median_throughput([slow, ROW, quick]) == median_throughput([ROW])


def test_what_is_missing_is_none_and_never_zero():
    assert median_throughput([]) == Throughput(None, None, None, None)
    lost = dict.fromkeys(ROW)
    assert median_throughput([lost]) == Throughput(None, None, None, None)
    assert median_throughput([lost, ROW, lost]) == median_throughput([ROW])
    assert median_throughput([ROW | {"model_flops": None, "peak_flops_per_s": None}]) == Throughput(
        300.0, None, 0.1, 2.0**30
    )
    assert median_throughput([ROW | {"wall_s": 0.0}]).tokens_per_s is None


@given(st.permutations([ROW | {"wall_s": float(s)} for s in range(1, 6)]))
def test_the_order_of_the_runs_does_not_matter(rows):
    assert median_throughput(rows).tokens_per_s == 1000.0
