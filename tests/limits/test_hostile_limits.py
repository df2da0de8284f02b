"""A folder of limits of unknown origin ends `report` and `plan` in one line or in a page that escapes what it holds."""

import json
import re
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.hostile_folders import MARKUP, TEXTS, VALUES
from support.synthetic_limits import a_limits, made

from qsgd_ray import cli
from qsgd_ray.config import CircuitCurve, OptimizerCurve, PoolCurve, SignalCurve, TrainingCurve
from qsgd_ray.limits._row_checks import problem_of_row
from qsgd_ray.limits.rows import _COLUMNS, _SIZES, LimitsResults, _size_id, _sizes_of


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return made(tmp_path_factory.mktemp("limits") / "made", scatter=0.02).path


@pytest.fixture
def folder(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "results" / "made"))


def ends_well(folder: Path, monkeypatch, capsys) -> None:
    """Check that both commands end in one line or in an answer."""
    plan = ["plan", "--from", str(folder), "--qubits", "8"]
    for words in (["report", str(folder)], plan):
        monkeypatch.setattr(sys, "argv", ["qsgd-ray", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        told = capsys.readouterr()
        assert end.value.code in (0, None, 2), words
        assert "\x1b" not in told.out + told.err
        if end.value.code == 2:
            assert re.fullmatch(r"qsgd-ray: [^\n]{1,290}\n", told.err), told.err
        elif words[0] == "report":
            assert "<planted" not in (folder / "limits.html").read_text()


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("name", ["limits.json", "provenance.json"])
def test_a_json_file_of_another_kind(folder, monkeypatch, capsys, name, kind):
    (folder / name).write_bytes(TEXTS[kind])
    ends_well(folder, monkeypatch, capsys)


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("field", ["hardware", "measured", "packages"])
def test_a_provenance_with_a_field_of_another_kind(folder, monkeypatch, capsys, field, kind):
    tree = json.loads((folder / "provenance.json").read_text())
    for changed in (
        tree | {field: VALUES[kind]},
        tree | {field: dict.fromkeys(tree.get(field, {"a": 1}), VALUES[kind])},
    ):
        (folder / "provenance.json").write_text(json.dumps(changed))
        ends_well(folder, monkeypatch, capsys)


# As few sizes as a curve may have, a curve of each kind.
FEW = (
    CircuitCurve(name="state", engine="torch", sizes=(2, 3, 4, 5)),
    CircuitCurve(name="shots", engine="shots", along="shots", sizes=(16, 64, 256, 1024)),
    OptimizerCurve(name="adamw", source=None, sizes=(1024, 4096, 16384, 65536)),
    TrainingCurve(name="training", sizes=(8, 16, 24, 32)),
    PoolCurve(name="pool", actors=(1, 2), batches=(64, 1024)),
    SignalCurve(name="fading-trained", theta="trained", sizes=(2, 4, 8, 16)),
)
ODD = {pa.string(): [MARKUP], pa.float64(): [float("nan"), float("inf"), -1.0, 0.0], pa.int64(): [-1], pa.int32(): [-1]}


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Path:
    return made(tmp_path_factory.mktemp("few") / "made", a_limits(curves=FEW), scatter=0.02).path


@pytest.mark.slow
@pytest.mark.parametrize("column", _COLUMNS)
def test_rows_with_a_column_of_nulls_or_of_odd_values(few, tmp_path, monkeypatch, capsys, column):
    folder = Path(shutil.copytree(few, tmp_path / "results" / "made"))
    before = {file: pq.read_table(file).to_pylist() for file in (folder / "sizes").iterdir()}
    for value in (None, *ODD.get(_COLUMNS[column], [])[:2]):
        for file, rows in before.items():
            pq.write_table(pa.Table.from_pylist([row | {column: value} for row in rows], schema=_SIZES), file)
        ends_well(folder, monkeypatch, capsys)


@pytest.mark.parametrize("curve", FEW, ids=lambda curve: curve.name)
def test_each_row_is_checked_against_its_curve_and_size(few, curve):
    """A changed column is a problem, but for those that nothing computes with."""
    results = LimitsResults(few)
    limits = results.read().limits
    size = _sizes_of(curve)[0]
    name = _size_id(limits, curve, size)
    row = pq.read_table(few / "sizes" / f"{name}.parquet").to_pylist()[0]
    assert problem_of_row(curve, size, name, row) is None
    for column in ("kind", "size_id", "low_s", "batch", "measured_at", "median_s", "signal", "n_tensors"):
        for odd in ODD.get(_COLUMNS[column], [None]):
            problem = problem_of_row(curve, size, name, row | {column: odd})
            assert problem is not None or (column == "signal" and odd in (-1.0, 0.0)), (column, odd)
            assert problem is None or "\n" not in problem
    needed = "signal" if curve.kind == "signal" else "low_s"
    assert problem_of_row(curve, size, name, row | {needed: None}) == f"whose {needed} is null"


@pytest.mark.parametrize(
    ("curve", "column", "value"),
    [
        (FEW[0], "n_qubits", 3),
        (FEW[0], "engine", "chain"),
        (FEW[1], "shots", 17),
        (FEW[2], "n_parameters", 0),
        (FEW[3], "n_tokens", 9),
        (FEW[4], "n_actors", 2),
        (FEW[5], "position", 3),
        (FEW[5], "measured_at", datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_row_of_another_size_is_none_of_this_one(few, curve, column, value):
    limits, size = LimitsResults(few).read().limits, _sizes_of(curve)[0]
    name = _size_id(limits, curve, size)
    row = pq.read_table(few / "sizes" / f"{name}.parquet").to_pylist()[0]
    assert problem_of_row(curve, size, name, row | {column: value})
