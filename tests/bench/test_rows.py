"""Rows hold medians and ratios of the same rounds, nulls where there is no time, and come back from Parquet as such."""

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from qsgd_ray.bench import rows
from qsgd_ray.bench.rows import _SCHEMA, Timing, _timings, timing_table, write_rows

SECONDS = {"ours": [2e-3, 4e-3, 1e-3], "theirs": [1e-3, 3e-3]}
UNITS = {"ours": 100, "theirs": 10}
ROWS = _timings("a case", "circuit", SECONDS, UNITS, {"ours": "picked chain", "absent": "not installed: absent"})


def shown(found, width=80):
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(timing_table(found))
    return capture.get()


def test_a_row_has_microseconds_a_unit_and_its_ratio_to_the_first_engine():
    ours, theirs, _ = ROWS
    assert ours == Timing(
        "a case", "ours", "circuit", 3, *(pytest.approx(us) for us in (20, 10, 40)), 1.0, "picked chain"
    )
    assert theirs == Timing("a case", "theirs", "circuit", 2, *(pytest.approx(us) for us in (200, 100, 300, 10)), None)


def test_an_engine_with_a_note_and_no_times_is_a_row_of_nulls_at_the_end():
    assert ROWS[2] == Timing("a case", "absent", "circuit", 0, None, None, None, None, "not installed: absent")


def test_a_first_engine_that_takes_no_time_gives_no_ratio():
    assert [row.ratio for row in _timings("c", "call", {"a": [0.0], "b": [1.0]}, {"a": 1, "b": 1})] == [None, None]


def test_rows_come_back_from_parquet_with_nulls_and_what_they_were_measured_on(tmp_path):
    path = write_rows("circuits", ROWS, tmp_path / "new" / "folder")
    table = pq.read_table(path)
    assert table.schema.equals(_SCHEMA)
    back = table.to_pylist()
    assert [Timing(**{name: row[name] for name in vars(ROWS[0])}) for row in back] == ROWS
    assert {(row["bench"], row["threads"] >= 1, bool(row["machine"])) for row in back} == {("circuits", True, True)}
    assert all("torch 2." in row["versions"] and "qsgd-ray" in row["versions"] for row in back)
    assert back[0]["written_at"].tzinfo is not None


def test_a_run_adds_one_whole_file_and_leaves_the_others(tmp_path):
    paths = {write_rows("circuits", ROWS, tmp_path) for _ in range(3)}
    assert len(paths) == 3
    assert set(tmp_path.iterdir()) == paths


def test_a_run_that_cannot_be_written_leaves_no_file_that_looks_like_one(tmp_path, monkeypatch):
    def half(table, path):
        path.write_bytes(b"PAR1")
        raise OSError("disk full")

    monkeypatch.setattr(rows.pq, "write_table", half)
    with pytest.raises(OSError, match="disk full"):
        write_rows("circuits", ROWS, tmp_path)
    assert not list(tmp_path.glob("*.parquet"))


def test_a_peer_that_is_not_installed_has_no_version(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "_PEERS", ("torch", "no-such-package-of-this-name"))
    (versions,) = pq.read_table(write_rows("circuits", ROWS[:1], tmp_path))["versions"].to_pylist()
    assert versions.startswith("torch ")
    assert "no-such" not in versions


def test_the_table_names_its_case_and_unit_and_shows_a_dash_for_what_is_not_there():
    told = shown(ROWS)
    assert told.startswith("a case")
    assert "a circuit" in told
    (absent,) = (line for line in told.splitlines() if line.startswith("absent"))
    assert "not installed:" in absent
    assert absent.split()[1:4] == ["–"] * 3
    (theirs,) = (line for line in told.splitlines() if "theirs" in line)
    assert theirs.split()[1:] == ["200", "10", "2"]
    assert "1,500,000" in shown(_timings("another", "call", {"slow": [1.5]}, {"slow": 1}))


def test_the_columns_of_all_cases_stand_below_each_other():
    others = _timings(
        "c",
        "step",
        {"every score simulated, in chunks": [9e2, 1e3]},
        dict.fromkeys(SECONDS, 1) | {"every score simulated, in chunks": 1},
    )
    ends = {table.splitlines()[2].index("as long") for table in (shown(ROWS), shown(others), shown(ROWS, 140))}
    assert len(ends) == 1


def test_names_in_brackets_are_shown_as_they_are():
    told = shown(_timings("<Z> of [a] chain", "call", {"[red]": [1.0]}, {"[red]": 1}, {"[red]": "[x]"}))
    assert all(word in told for word in ("<Z> of [a] chain", "[red]", "[x]"))
