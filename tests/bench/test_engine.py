"""The engine's bench runs whole searches beside as many empty trials, and refuses to time what did not train."""

import pytest

from qsgd_ray.bench import engine
from qsgd_ray.config.trial import search_trial
from qsgd_ray.outcome import Ending


def test_a_search_and_what_of_it_is_no_training_are_timed_beside_empty_trials(cluster, tmp_path):
    rows = {row.engine: row for row in engine._trials_of_a_search(2, 1, cluster, tmp_path)}
    assert list(rows) == [engine.STAGE, engine.BEYOND, engine.EMPTY]
    assert 0 < rows[engine.BEYOND].median_us < rows[engine.STAGE].median_us
    assert {row.per for row in rows.values()} == {"trial"}


def test_a_trial_that_did_not_complete_is_no_measurement():
    trial = search_trial(engine._study_of(1), "adamw", 0, {"learning_rate": 0.01})
    with pytest.raises(RuntimeError, match=r"^search-adamw-000-\w+: diverged$"):
        engine._require_completed(trial, Ending.DIVERGED, None)


class Failing(engine._Empty):
    def step(self):
        raise ZeroDivisionError("planted")


def test_an_empty_trial_that_fails_is_no_measurement(cluster, monkeypatch):
    monkeypatch.setattr(engine, "_Empty", Failing)
    with pytest.raises(RuntimeError, match=r"^1 empty trials failed$"):
        engine._empty_seconds(1, cluster, 99)
