"""Rows of every source are read to the same scores; a cell that is none is one line that names its row."""

import json
import os
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import optuna
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow.tracking import MlflowClient
from support.scores import EFFECTS, RULE, score_rows

from qsgd_ray import judge
from qsgd_ray.config import StudyError
from qsgd_ray.scores._tune import grid_rows

ROWS = score_rows(EFFECTS)
EXPECTED = judge(ROWS, **RULE).verdicts


def columns() -> dict[str, list]:
    return {name: [row[name] for row in ROWS] for name in ROWS[0]}


class Polars:
    """A frame that offers its columns by Arrow's stream of C, as polars' does."""

    def __arrow_c_stream__(self, requested_schema=None):
        return pa.Table.from_pylist(ROWS).__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize(
    "table",
    [
        columns(),
        pd.DataFrame(ROWS),
        pa.Table.from_pylist(ROWS),
        ROWS,
        Polars(),
        {k: np.array(v) for k, v in columns().items()},
    ],
    ids=["dict", "pandas", "arrow", "list", "stream", "numpy"],
)
def test_a_table_in_memory_is_read(table):
    assert judge(table, **RULE).verdicts == EXPECTED


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_file_is_read(kind, tmp_path):
    path = tmp_path / f"runs.{kind}"
    frame = pd.DataFrame(ROWS)
    frame.to_parquet(path) if kind == "parquet" else frame.to_csv(path)
    for name in (path, str(path)):
        judgement = judge(name, **RULE)
        assert judgement.verdicts == EXPECTED
        assert judgement.document["source"] == str(path)


def test_an_export_of_wandb_is_read_with_its_states(tmp_path):
    """A runs table as W&B exports it: a byte order mark, quotes, empty cells, and crashed and running runs."""
    lines = ["\ufeffName,State,Notes,Created,Runtime,optimizer,seed,val/loss"]
    for row in score_rows({"adamw": 0.0, "muon": -0.2}):
        state, score = "finished", row["score"]
        if (row["arm"], row["seed"]) == ("muon", 2):
            state = "crashed"
        if (row["arm"], row["seed"]) == ("muon", 3):
            score = "NaN"
        lines.append(f'"run, {row["seed"]}",{state},-,2026-11-30T10:00:00.000Z,61,{row["arm"]},{row["seed"]},{score}')
    path = tmp_path / "wandb_export.csv"
    path.write_text("\n".join(lines))
    judgement = judge(path, arm="optimizer", score="val/loss", **RULE)
    [verdict] = judgement
    assert (verdict.n_pairs, verdict.n_lost) == (6, 2)
    assert judgement.analysis.scores.notes == (
        "By the column State, 1 crashed: no result, whatever the score.",
        "1 run without a finite score counts as no result.",
    )
    path.write_text("\n".join(lines).replace("crashed", "running"))
    assert judge(path, arm="optimizer", score="val/loss", **RULE).verdicts[0].n_pending == 1


def an_optuna_study(storage=None) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(study_name="mine", storage=storage, direction="minimize")
    for row in ROWS:
        trial = optuna.trial.create_trial(
            value=row["score"],
            params={"arm": row["arm"]},
            distributions={"arm": optuna.distributions.CategoricalDistribution([*EFFECTS])},
            user_attrs={"seed": row["seed"]},
        )
        study.add_trial(trial)
    return study


def test_an_optuna_study_is_read_with_its_direction():
    rule = {name: RULE[name] for name in ("baseline", "margin")}
    study = an_optuna_study()
    assert judge(study, score="value", **rule).verdicts == tuple(
        judge([row | {"value": row["score"]} for row in ROWS], score="value", **RULE)
    )
    for state in (optuna.trial.TrialState.FAIL, optuna.trial.TrialState.RUNNING):
        study.add_trial(
            optuna.trial.create_trial(
                state=state,
                params={"arm": "muon"},
                distributions={"arm": optuna.distributions.CategoricalDistribution([*EFFECTS])},
                user_attrs={"seed": 100 if state.name == "FAIL" else 101},
            )
        )
    muon = judge(study, score="value", missing="drop", **rule).verdicts[0]
    assert (muon.n_pairs, muon.n_pending) == (8, 1)


def test_an_optuna_study_of_several_objectives_has_a_column_and_a_direction_each():
    study = optuna.create_study(directions=["maximize", "minimize"])
    for row in ROWS:
        study.add_trial(
            optuna.trial.create_trial(values=[0.5, row["score"]], user_attrs={"arm": row["arm"], "seed": row["seed"]})
        )
    judgement = judge(study, score="values_1", baseline="adamw", margin=0.05)
    assert [v.verdict for v in judgement] == [v.verdict for v in EXPECTED]


def test_a_stored_optuna_study_is_read_by_its_name(tmp_path):
    storage = f"sqlite:///{tmp_path / 'studies.db'}"
    an_optuna_study(storage)
    judgement = judge(f"optuna:mine@{storage}", score="value", baseline="adamw", margin=0.05)
    assert [v.difference for v in judgement] == [v.difference for v in EXPECTED]
    for words, said in (
        ("optuna:mine", "table: got 'optuna:mine'; allowed: optuna:STUDY@STORAGE"),
        (f"optuna:yours@{storage}", "allowed: a study that is stored there (KeyError"),
    ):
        with pytest.raises(StudyError) as error:
            judge(words, score="value", baseline="adamw", margin=0.05)
        assert said in str(error.value)


@pytest.mark.filterwarnings("ignore")  # MLflow's, of SQLAlchemy
def test_an_mlflow_experiment_is_read_by_its_name_and_by_its_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("mine")
    for row in ROWS:
        run = client.create_run(experiment, tags={"arm": row["arm"]}).info.run_id
        client.log_param(run, "seed", row["seed"])
        for step, value in enumerate((9.0, row["score"])):
            client.log_metric(run, "score", value, step=step)
        client.set_terminated(run, "FAILED" if (row["arm"], row["seed"]) == ("lion", 4) else "FINISHED")
    runs = client.search_runs([experiment])
    by_name, by_runs = judge(f"mlflow:mine@{uri}", **RULE), judge(runs, **RULE)
    assert by_name.verdicts == by_runs.verdicts
    assert {v.arm: v.verdict for v in by_name} == {v.arm: v.verdict for v in EXPECTED}
    assert {v.arm: v.n_lost for v in by_name} == {"muon": 0, "same": 0, "lion": 1}
    for words, said in (
        ("mlflow:", "table: got 'mlflow:'; allowed: mlflow:EXPERIMENT or mlflow:EXPERIMENT@TRACKING_URI"),
        (f"mlflow:yours@{uri}", "allowed: the name of an experiment that is there"),
        ("mlflow:mine@nothing://x", "allowed: an experiment that can be read ("),
    ):
        with pytest.raises(StudyError) as error:
            judge(words, **RULE)
        assert said in str(error.value)


def test_without_mlflow_an_experiment_is_one_line(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mlflow.tracking", None)
    with pytest.raises(StudyError, match="allowed: that where mlflow is installed"):
        judge("mlflow:mine", **RULE)


class Result:
    """A trial's result with the attributes of Ray's."""

    def __init__(self, metrics, config, error=None):
        self.metrics, self.config, self.error = metrics, config, error


def test_results_of_ray_tune_are_read_with_their_nested_settings_and_their_errors():
    grid = [
        Result({"score": row["score"], "config": {"x": 1}}, {"optimizer": {"arm": row["arm"]}, "seed": row["seed"]})
        for row in ROWS
    ]
    grid[0].error = RuntimeError("it broke")
    grid[1].metrics = None
    rows = grid_rows(grid)
    assert {"score", "config/optimizer/arm", "config/seed", "state"} == set(rows.names)
    table = [dict(zip(rows.names, cells, strict=True)) for cells in zip(*map(rows.column, rows.names), strict=True)]
    judgement = judge(table, arm="config/optimizer/arm", **RULE)
    assert {v.arm: (v.n_pairs, v.n_lost) for v in judgement} == {"muon": (7, 1), "same": (7, 1), "lion": (7, 1)}


@pytest.mark.slow
def test_a_result_grid_of_ray_tune_is_read(cluster, tmp_path):
    from ray import tune

    def train(config):
        if (config["arm"], config["seed"]) == ("muon", 3):
            raise RuntimeError("it broke")
        tune.report({"score": config["seed"] / 10 - (0.5 if config["arm"] == "muon" else 0.0)})

    space = {"arm": tune.grid_search(["adamw", "muon"]), "seed": tune.grid_search([*range(6)])}
    run = tune.RunConfig(storage_path=str(tmp_path / "tune"), verbose=0)
    grid = tune.Tuner(train, param_space=space, run_config=run).fit()
    judgement = judge(grid, baseline="adamw", margin=0.05, direction="min")
    [verdict] = judgement
    assert (verdict.n_pairs, verdict.n_lost, verdict.difference) == (5, 1, -0.5)
    assert judgement.document["source"] == "a ResultGrid of 12 trials"


def test_seeds_and_arms_are_one_however_a_file_writes_them():
    rows = [
        {"arm": arm, "seed": write(seed), "score": score(2.0 + seed / 10 + float(arm))}
        for arm, write, score in ((64, int, float), (128.0, str, Decimal), (Decimal(256), float, str))
        for seed in range(6)
    ]
    judgement = judge(rows, baseline="64", margin=1.0)
    assert [(v.arm, v.n_pairs) for v in judgement] == [("128", 6), ("256", 6)]


def test_seeds_may_be_names():
    rows = [row | {"seed": f"fold {row['seed']}"} for row in ROWS]
    assert [v.verdict for v in judge(rows, **RULE)] == [v.verdict for v in EXPECTED]


def test_rows_are_chosen_by_where_and_the_others_counted():
    rows = [*ROWS, *(row | {"stage": "search", "score": 0.0} for row in ROWS)]
    rows = [row | {"stage": row.get("stage", "confirm")} for row in rows]
    judgement = judge(rows, where={"stage": "confirm"}, **RULE)
    assert judgement.verdicts == EXPECTED
    assert judgement.document["notes"] == ["32 of 64 rows were left out by where."]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"arm": None}, "arm: got nothing in row 1; allowed: a name in every row (rows are chosen by where)"),
        ({"seed": None}, "seed: got nothing in row 1; allowed: a number or a name in every row"),
        ({"seed": " "}, "seed: got nothing in row 1; allowed: a number or a name in every row"),
        ({"score": "fast"}, "score: got 'fast' in row 1; allowed: a number, or nothing"),
        ({"score": True}, "score: got True in row 1; allowed: a number, or nothing"),
        ({"score": datetime(2026, 11, 30, tzinfo=UTC)}, "score: got datetime.datetime(2026, 11,"),
        (
            {"seed": 2},
            "seed: got two rows of arm adamw at 2, the second in row 5; allowed: one row a run, with its last",
        ),
    ],
)
def test_a_wrong_row_is_one_line(change, said):
    with pytest.raises(StudyError) as error:
        judge([ROWS[0] | change, *ROWS[1:]], **RULE)
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


def test_an_ending_that_nobody_knows_is_one_line_where_it_was_named_and_no_ending_else():
    rows = [row | {"state": "half done"} for row in ROWS]
    assert judge(rows, **RULE).verdicts == EXPECTED
    with pytest.raises(StudyError, match="state: got 'half done'; allowed: completed, complete, finished"):
        judge(rows, state="state", **RULE)


def test_a_column_that_two_may_be_is_one_line():
    rows = [{"params.arm": row["arm"], "tags.arm": row["arm"], "seed": 1, "score": 0.0} for row in ROWS]
    with pytest.raises(StudyError, match=r"arm: got 'arm'; allowed: one of params.arm, tags.arm, which it may mean"):
        judge(rows, **RULE)
    with pytest.raises(StudyError, match="score: got 'score', which two columns are called"):
        judge(pd.DataFrame([["a", 1, 2, 3]], columns=["arm", "seed", "score", "score"]), **RULE)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (3, "table: got a int; allowed: a data frame, an Arrow table"),
        ([1, 2], "table: got a list; allowed: a data frame"),
        ("runs.xlsx", "table: got runs.xlsx; allowed: a data frame"),
        ("none.csv", "table: got none.csv; allowed: a csv file that can be read (No such file or directory)"),
        ("s3://", "table: got s3://; allowed: a data frame"),
        (
            {"arm": [1], "seed": [1, 2]},
            "table: got columns of different lengths (1 of arm, 2 of seed); allowed: a value",
        ),
        ([], "table: got no row; allowed: a row for each run"),
    ],
)
def test_what_is_no_table_is_one_line(table, said):
    with pytest.raises(StudyError) as error:
        judge(table, **RULE)
    assert str(error.value).startswith(said)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_broken_file_is_one_line(kind, tmp_path):
    path = tmp_path / f"broken.{kind}"
    path.write_bytes(b"PAR1" if kind == "parquet" else b"a,b\n1,2,3\n")
    with pytest.raises(StudyError, match=f"allowed: a {kind} file that can be read") as error:
        judge(path, **RULE)
    assert "\n" not in str(error.value)


def test_a_file_runs_no_code_of_an_extension_type(tmp_path):
    """The rows of a Parquet file that names another package's type are those of its storage."""
    table = pa.Table.from_pylist(ROWS)
    fields = [field.with_metadata({"ARROW:extension:name": "evil"}) for field in table.schema]
    pq.write_table(table.cast(pa.schema(fields)), tmp_path / "typed.parquet")
    assert judge(tmp_path / "typed.parquet", **RULE).verdicts == EXPECTED


def test_nothing_of_a_tracker_is_imported_for_a_table():
    import subprocess
    import sys

    script = (
        "import sys, qsgd_ray\n"
        f"qsgd_ray.judge({json.dumps(ROWS)}, baseline='adamw', margin=0.05)\n"
        "assert not {'torch', 'ray', 'optuna', 'mlflow', 'plotly', 'pandas'} & set(sys.modules) - {'pandas'}\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env=os.environ)
