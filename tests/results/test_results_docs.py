"""What docs/results.md says of the tables is so; every block of docs/five_questions.md runs, and is right."""

import re

import numpy as np
import pyarrow as pa
import pytest
from support.places import DOCS

from qsgd_ray.bench._large_study import write_large_study
from qsgd_ray.results import read
from qsgd_ray.results.schema import MEASUREMENTS, SCHEMA_VERSION, TRIALS

TYPES = {pa.timestamp("us", tz="UTC"): "timestamp", pa.float64(): "float64"}


def documented(table):
    text = (DOCS / "results.md").read_text()
    part = text[text.index(f"## {table}\n") :]
    part = part[: part.index("\n## ")]
    cells = (re.split(r"(?<!\\)\|", line)[1:-1] for line in part.splitlines() if line.startswith("| `"))
    return [[cell.strip() for cell in row] for row in cells]


@pytest.mark.parametrize(("table", "schema"), [("trials", TRIALS), ("measurements", MEASUREMENTS)])
def test_every_column_is_documented_with_its_type_and_nothing_else_is(table, schema):
    found = documented(table)
    assert [row[0].strip("`") for row in found] == schema.names
    for (_, kind, _, meaning, nulls, since), field in zip(found, schema, strict=True):
        assert kind == TYPES.get(field.type, str(field.type)), field.name
        assert meaning, field.name
        assert nulls, field.name
        assert 1 <= int(since) <= int(SCHEMA_VERSION), field.name


def test_the_newest_version_brought_a_column():
    newest = max(int(row[-1]) for table in ("trials", "measurements") for row in documented(table))
    assert newest == int(SCHEMA_VERSION)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("study")
    write_large_study(path, 300, 10)
    return path


def test_columns_that_are_never_null_are_not(folder):
    tables = read(folder)
    for name, rows in (("trials", tables.trials), ("measurements", tables.measurements)):
        for row in documented(name):
            column = row[0].strip("`")
            assert row[4] != "never" or rows[column].null_count == 0, column


def test_the_five_questions_are_answered(folder):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "five_questions.md").read_text(), flags=re.DOTALL)
    told = {"DIR": folder}
    for block in blocks:
        exec(block, told)
    rows = [r for r in read(folder).trials.to_pylist() if r["stage"] == "confirm"]
    arms = sorted({r["arm"] for r in rows})
    by_arm = told["by_arm"].set_index("arm")
    sine = [r["test_accuracy"] for r in rows if r["arm"] == "sine" and r["test_accuracy"] is not None]
    assert sorted(by_arm.index) == sorted(told["to_target"]["arm"]) == sorted(told["cost"]["arm"]) == arms
    assert by_arm.loc["sine", "median"] == pytest.approx(np.median(sine))
    assert by_arm["nulls"].sum() == sum(r["test_accuracy"] is None for r in rows)
    assert told["to_target"]["misses"].sum() == sum(r["epochs_to_target"] is None for r in rows)
    assert sorted(told["paired"].index) == [arm for arm in arms if arm != "adamw"]
    assert told["curves"].shape == (len(arms) * 10, 3)
    assert len(told["best"]) == 3 * len(arms)


def test_whole_numbers_that_may_be_missing_stay_whole_in_pandas(folder):
    trials, measurements = read(folder).to_pandas()
    assert str(trials["epochs_to_target"].dtype) == "Int32"
    assert str(measurements["step"].dtype) == "Int64"
    assert trials["epochs_to_target"].isna().sum() == read(folder).trials["epochs_to_target"].null_count
