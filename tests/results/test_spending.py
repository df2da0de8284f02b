"""What a study has spent only grows: additive over runs, whatever clocks do; rows tell of runs from before."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small_study import a_study

from qsgd_ray.config import Budget, StudyError
from qsgd_ray.results import Results, StudyTables
from qsgd_ray.results.schema import MEASUREMENTS, TRIALS
from qsgd_ray.results.spending import _FILE, RunSpending, Spending, _read_spending, _spending_of_rows, write_spending
from qsgd_ray.storage import storage_at
from qsgd_ray.study._meter import _STORE_S, Meter

STEPS = st.lists(st.tuples(st.floats(-1e4, 1e4), st.integers(0, 3)), max_size=8)
NOTHING = Spending()
BEGAN = datetime(2026, 3, 1, tzinfo=UTC)


class Lease:
    """A lease that is held until it is taken."""

    taken = False

    def check(self) -> None:
        if self.taken:
            raise StudyError("taken over")


class Clock:
    """Seconds as they are set, forwards and backwards."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def tables(spending: Spending = NOTHING) -> StudyTables:
    study = a_study(budget=Budget(hours=1, price_per_node_hour=1))
    return StudyTables(study, {}, TRIALS.empty_table(), MEASUREMENTS.empty_table(), spending=spending)


def run_of(folder, steps, lease=None) -> Spending:
    """Run a meter over these steps of its clock, and return what lies in the folder afterwards."""
    storage, clock = storage_at(folder), Clock()
    before = _read_spending(storage) or Spending()
    meter = Meter(tables(before), storage, lease or Lease(), clock)
    last = before.seconds
    with meter.counting(lambda: {"": 1}):
        for step_s, n_nodes in steps:
            clock.now_s += step_s
            meter.tick(lambda n=n_nodes: {"": n})
            assert meter.spending.seconds >= last
            last = meter.spending.seconds
    return _read_spending(storage)


@settings(max_examples=40)
@given(st.lists(STEPS, min_size=1, max_size=3))
def test_spending_is_monotone_and_additive_over_runs_whatever_the_clock_does(tmp_path_factory, runs):
    folder = tmp_path_factory.mktemp("study")
    seconds, nodes = 0.0, 0.0
    for steps in runs:
        spending = run_of(folder, steps)
        highest = now = 0.0
        for step_s, _ in steps:
            now += step_s
            highest = max(highest, now)
        seconds += highest
        assert spending.seconds == pytest.approx(seconds)
        assert sum(spending.node_seconds.values()) >= nodes
        nodes = sum(spending.node_seconds.values())
    assert len(spending.runs) == len(runs)


def test_a_run_that_is_killed_has_stored_all_but_its_last_seconds(tmp_path):
    clock = Clock()
    meter = Meter(tables(), storage_at(tmp_path), Lease(), clock)
    for _ in range(100):
        clock.now_s += 0.7
        meter.tick(lambda: {"train": 2})
    kept = _read_spending(storage_at(tmp_path))
    assert 70 - _STORE_S <= kept.seconds <= 70.0001
    assert kept.node_seconds["train"] == pytest.approx(2 * kept.seconds)


def test_a_lease_that_was_taken_over_stores_nothing(tmp_path):
    lease = Lease()
    lease.taken = True
    assert run_of(tmp_path, [(100.0, 1)], lease) is None


def test_nodes_that_nobody_counts_stay_as_they_were(tmp_path):
    clock = Clock()
    meter = Meter(tables(), storage_at(tmp_path), Lease(), clock)
    meter.tick(lambda: {"sim": 3})
    clock.now_s += 60
    meter.tick(lambda: None)
    assert meter.spending.node_seconds == {"sim": 180.0}
    assert not meter.is_spent
    clock.now_s += 3600
    meter.tick()
    assert meter.is_spent


def rows(spans) -> pa.Table:
    starts = [None if start is None else BEGAN + timedelta(seconds=start) for start, _ in spans]
    elapsed = pa.array([seconds for _, seconds in spans], pa.float64())
    return pa.table({"started_at": pa.array(starts, pa.timestamp("us", tz="UTC")), "elapsed_s": elapsed})


SPANS = st.lists(st.tuples(st.none() | st.integers(0, 60), st.none() | st.integers(-5, 30)), max_size=12)


@given(SPANS)
def test_rows_tell_the_seconds_in_which_any_trial_ran(spans):
    slow = {s for start, n in spans if start is not None and n is not None for s in range(start, start + n)}
    assert _spending_of_rows(rows(spans)).seconds == pytest.approx(len(slow), abs=1e-3)


def test_results_without_the_file_are_read_by_their_rows(tmp_path):
    results = Results(tmp_path)
    results.open(a_study(), {})
    assert results.tables().spending == Spending()
    write_spending(results.storage, Spending((RunSpending(None, 5.0, {"": 5.0}),)))
    assert results.tables().spending.seconds == 5.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"runs": 3}',
        '{"runs": [3]}',
        '{"runs": [{"seconds": 1}]}',
        '{"runs": [{"started_at": 3, "seconds": 1, "node_seconds": {}}]}',
        '{"runs": [{"started_at": null, "seconds": -1, "node_seconds": {}}]}',
        '{"runs": [{"started_at": null, "seconds": NaN, "node_seconds": {}}]}',
        '{"runs": [{"started_at": null, "seconds": 1, "node_seconds": {"": -2}}]}',
        '{"runs": [{"started_at": null, "seconds": 1, "node_seconds": 3}]}',
    ],
)
def test_a_broken_file_is_one_line(tmp_path, text):
    (tmp_path / _FILE).write_text(text)
    with pytest.raises(StudyError) as error:
        _read_spending(storage_at(tmp_path))
    assert _FILE in str(error.value)
    assert "\n" not in str(error.value)
