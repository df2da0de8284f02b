"""A search with conditions, known points, an earlier study and Hyperband, by Ray Tune: rows, resume, choice, replay."""

import json
import shutil

import pytest
from support.run_contexts import make_context, timeless
from support.searches import shown
from support.small_study import a_study

from qsgd_ray.analysis.importance import importances
from qsgd_ray.config import Arm, Choice, LogUniform, Optimizer, Search, Uniform
from qsgd_ray.outcome import Ending
from qsgd_ray.search.observations import best_point, unfinished_points
from qsgd_ray.search.optuna_journal import FILE
from qsgd_ray.search.tune import run_search
from qsgd_ray.search.warm_start import _FILE as EARLIER

pytestmark = pytest.mark.ray
ARM = Arm(
    name="sgd",
    optimizer=Optimizer(
        "sgd",
        lr=LogUniform(low=1e-3, high=1e-1),
        nesterov=Choice(options=(True, False)),
        momentum=Uniform(low=0.5, high=0.9, active_when={"optimizer.nesterov": True}, otherwise=0.0),
    ),
    workload={
        "model.d_feedforward": Choice(options=(8, 16)),
        "model.n_layers": Choice(options=(1, 2), active_when={"workload.model.d_feedforward": 16}),
    },
)
KNOWN = ({"optimizer.nesterov": True, "optimizer.momentum": 0.75}, {"optimizer.nesterov": False})


def searching(**fields):
    search = Search(
        **{"trials_per_arm": 7, "epochs": 4, "grace_epochs": 1, "reduction_factor": 2, "scheduler": "bohb"} | fields
    )
    return a_study(arms=(ARM,), baseline="sgd", search=search)


def rows_of(context, study) -> list[dict]:
    return [timeless(row) for row in context.results.tables(study).trials.to_pylist()]


def test_a_search_with_all_of_it_goes_on_to_the_same_rows(cluster, tmp_path):
    first = searching(trials_per_arm=4, known_points={"sgd": KNOWN}, scheduler="hyperband")
    earlier = make_context(tmp_path / "earlier", cluster)
    earlier.results.open(first, {})
    run_search(earlier.results.tables(first), earlier)
    observed = [row for row in rows_of(earlier, first) if row["number"] < 2]
    assert [json.loads(row["optimizer_settings"])["momentum"] for row in observed] == [0.75, 0.0]

    study = searching(warm_start=str(earlier.results.path))
    context = make_context(tmp_path / "whole", cluster)
    context.results.open(study, {})
    run_search(context.results.tables(study), context)
    rows = rows_of(context, study)
    assert not unfinished_points(context.results.tables(study))
    assert {row["ending"] for row in rows} <= {Ending.COMPLETED, Ending.STOPPED_EARLY}
    assert len(shown(context.results.path / FILE)["sgd"]) == 7
    best = best_point(study, ARM, context.results.tables(study).trials.to_pylist())
    assert best is not None
    assert ("optimizer.momentum" in best) == best["optimizer.nesterov"]
    assert importances(context.results.tables(study))[0].n_null == 0

    resumed = make_context(tmp_path / "resumed", cluster)
    resumed.results.open(study, {})
    (resumed.results.path / EARLIER).write_bytes((context.results.path / EARLIER).read_bytes())
    for row in rows:
        if row["number"] < 3:
            for table in ("trials", "measurements"):
                name = f"{table}/{row['trial_id']}.parquet"
                (resumed.results.path / name).write_bytes((context.results.path / name).read_bytes())
    shutil.rmtree(earlier.results.path)
    run_search(resumed.results.tables(study), resumed)
    assert rows_of(resumed, study) == rows
