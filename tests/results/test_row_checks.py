"""Rows count in the file of their own trial only, with the values that docs/results.md promises; else one line."""

import re
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.command_line import said_by
from support.places import ROOT
from support.synthetic_results import Run, lost, made, runs

from qsgd_ray.config import StudyError
from qsgd_ray.results import Results, read
from qsgd_ray.results._parquet_files import pack
from qsgd_ray.results.schema import _MEASURED, _NEVER_NULL, MEASUREMENTS, TRIALS
from qsgd_ray.storage import Folder

STUDY = made({"adamw": runs([0.9, 0.91]), "sine": [Run(0.95), lost()]}, searched=True)
NEVER, UNMEASURED = "never", "there is no measurement"
SCHEMAS = {"trials": TRIALS, "measurements": MEASUREMENTS}


@pytest.fixture
def folder(tmp_path):
    """A finished study's folder, two folders below the test's own."""
    return STUDY.write(tmp_path / "results" / "made")


def file_of(folder, table="trials"):
    """The file of a confirmation."""
    return next((folder / table).glob("confirm-sine-*.parquet"))


def change(file, **values):
    """Give every row of a file other values."""
    table = file.parent.name
    rows = [row | values for row in pq.read_table(file).to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMAS[table]), file)


def refusal(folder, file, said):
    with pytest.raises(StudyError, match=said) as error:
        read(folder)
    text = str(error.value)
    assert file.name in text
    assert "\n" not in text
    assert len(text) <= 290
    return text


def test_a_row_of_another_id_removes_nothing_outside(folder, tmp_path, monkeypatch, capsys):
    victim = tmp_path / "results" / "victim.parquet"
    victim.write_bytes(b"kept")
    rows = pq.read_table(next((folder / "trials").glob("search-*.parquet"))).to_pylist()
    for number in range(70):
        name = f"search-adamw-{number:03d}-0123456789"
        evil = {"trial_id": "../../victim" if number == 30 else name}
        table = pa.Table.from_pylist([rows[0] | evil], schema=TRIALS)
        pq.write_table(table, folder / "trials" / f"{name}.parquet")
    before = sorted((folder / "trials").iterdir())
    code, told = said_by(monkeypatch, capsys, "report", folder)
    assert code == 2
    assert "search-adamw-030-0123456789.parquet, whose trial_id is '../../victim'; allowed: " in told
    assert told.count("\n") == 1
    assert victim.read_bytes() == b"kept"
    assert sorted((folder / "trials").iterdir()) == before


@pytest.mark.parametrize("table", SCHEMAS)
@pytest.mark.parametrize("trial_id", ["search-sine-000-0123456789", "../../victim", "", "confirm-sine-s1-\n", "X"])
def test_a_row_of_another_trial_is_refused_by_its_file(folder, table, trial_id):
    file = file_of(folder, table)
    change(file, trial_id=trial_id)
    refusal(folder, file, "whose trial_id is ")
    with pytest.raises(StudyError, match="whose trial_id is "):
        pack(Folder(folder), least=1)


@pytest.mark.parametrize("trial_id", ["../../victim", "search-sine-000-0123456789/..", "other"])
def test_a_pack_may_hold_ids_of_trials_alone(folder, trial_id):
    pack(Folder(folder), least=1)
    (file,) = (folder / "trials").glob("packed-*")
    rows = pq.read_table(file).to_pylist()
    pq.write_table(pa.Table.from_pylist([rows[0] | {"trial_id": trial_id}, *rows[1:]], schema=TRIALS), file)
    refusal(folder, file, "whose trial_id is ")
    with pytest.raises(StudyError, match="whose trial_id is "):
        Results(folder).count()


@pytest.mark.parametrize("table", SCHEMAS)
def test_a_pack_holds_each_row_once(folder, table):
    pack(Folder(folder), least=1)
    (file,) = (folder / table).glob("packed-*")
    rows = pq.read_table(file)
    pq.write_table(pa.concat_tables([rows, rows.slice(3, 1)]), file)
    refusal(folder, file, "twice")


@pytest.mark.parametrize("count", [0, 2])
def test_a_trial_has_one_row(folder, count):
    file = file_of(folder)
    row = pq.read_table(file)
    pq.write_table(pa.concat_tables([row] * count) if count else row.slice(0, 0), file)
    refusal(folder, file, f"with {count} rows")


@pytest.mark.parametrize(
    "name", ["x", "search-Ü", "search-a b", "confirm-..", "packed-../x".replace("/", "_"), "packed-"]
)
def test_a_name_that_is_no_trials_is_refused(folder, name):
    file = folder / "trials" / f"{name}.parquet"
    file.write_bytes(file_of(folder).read_bytes())
    with pytest.raises(StudyError, match="whose name is no trial's id"):
        read(folder)


@pytest.mark.parametrize(("table", "column"), [(table, column) for table in SCHEMAS for column in _NEVER_NULL[table]])
def test_a_column_that_is_never_null_is_refused_where_it_is(folder, table, column):
    file = file_of(folder, table)
    change(file, **{column: None})
    refusal(folder, file, f"whose {column} is null")


@pytest.mark.parametrize("column", _MEASURED)
def test_a_trial_with_a_measurement_has_its_numbers(folder, column):
    file = file_of(folder)
    change(file, **{column: None})
    refusal(folder, file, f"whose {column} is null after an epoch")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"ending": "exploded"}, "whose ending is 'exploded'; allowed: completed, stopped_early"),
        ({"stage": "../confirm"}, "whose stage is "),
        ({"number": -1}, "whose number is -1; allowed: 0 and more"),
        ({"learning_rate": float("nan")}, "whose learning_rate is nan; allowed: a finite number"),
        ({"learning_rate": 0.0}, "whose learning_rate is 0.0; allowed: more than 0"),
        ({"wall_s": float("inf")}, "whose wall_s is inf"),
        ({"trial": "no JSON"}, "whose trial is no JSON that can be read"),
        ({"trial": "[" * 100_000}, "whose trial is no JSON that can be read"),
        ({"trial": "[1]"}, "whose trial is JSON of something else"),
        ({"trial": '{"arm": 5}'}, "whose trial is JSON of something else"),
        ({"setting": "["}, "whose setting is no JSON"),
        ({"started_at": datetime(9999, 1, 1, tzinfo=UTC)}, "whose started_at is in no calendar"),
    ],
    ids=str,
)
def test_a_value_that_no_trial_has_is_one_line_with_its_column(folder, values, said):
    file = file_of(folder)
    change(file, **values)
    refusal(folder, file, re.escape(said))


def test_a_failed_trial_has_no_numbers_and_is_read(folder):
    change(file_of(folder), ending="failed", epochs_run=0, **dict.fromkeys(_MEASURED))
    assert read(folder).trials.num_rows == len(STUDY.trials)


def test_two_columns_of_one_name_are_one_line(folder):
    file = file_of(folder)
    rows = pq.read_table(file)
    pq.write_table(rows.append_column("arm", rows["arm"]).append_column("seed", rows["seed"]), file)
    refusal(folder, file, "which cannot be read")


def test_a_broken_pack_is_one_line_where_its_ids_are_looked_up(folder):
    pack(Folder(folder), least=1)
    (file,) = (folder / "trials").glob("packed-*")
    file.write_bytes(b"PAR1")
    with pytest.raises(StudyError, match="which cannot be read"):
        Results(folder).count()


def test_the_columns_that_are_never_null_are_those_of_the_documentation():
    text = (ROOT / "docs" / "results.md").read_text()
    for table in SCHEMAS:
        section = text.split(f"## {table}\n")[1].split("\n## ")[0]
        lines = [[cell.strip() for cell in line.split("|")] for line in section.splitlines() if line.startswith("| `")]
        column = {
            null: tuple(c[1].strip("`") for c in lines if c[-3:-1] == [null, "1"]) for null in (NEVER, UNMEASURED)
        }
        assert column[NEVER] == _NEVER_NULL[table]
        assert column[UNMEASURED] == (_MEASURED if table == "trials" else ())
