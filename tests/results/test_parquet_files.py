"""Packed rows are the same rows: whoever packs, wherever it is killed, and whoever reads meanwhile."""

import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.reference_rows import read_slowly
from support.stores import BUCKET, credentials, s3_server
from support.synthetic_results import Run, lost, made, runs

from qsgd_ray.bench._large_study import write_large_study
from qsgd_ray.config import StudyError
from qsgd_ray.outcome import Ending, Outcome
from qsgd_ray.results import Results, read
from qsgd_ray.results._parquet_files import pack, read_table
from qsgd_ray.results.schema import SCHEMA_VERSION
from qsgd_ray.storage import Folder

STUDY = made({"adamw": runs([0.9, 0.91, 0.92]), "sine": [Run(0.95), lost(), lost(Ending.LOST)]}, searched=True)


class Killed(BaseException):
    """The process ends here."""


class KilledAfter(Folder):
    """A folder whose user is killed instead of its n-th change."""

    def __init__(self, path, n):
        super().__init__(path)
        self.left = n

    def _change(self):
        if self.left == 0:
            raise Killed
        self.left -= 1

    def put(self, name, content):
        self._change()
        super().put(name, content)

    def remove(self, name):
        self._change()
        super().remove(name)


class PackedUnderTheHand(Folder):
    """A folder that somebody packs while its first listing is made."""

    packed = False

    def names(self, folder, suffix):
        found = super().names(folder, suffix)
        if not self.packed:
            self.packed = True
            pack(Folder(self.path), least=1)
        return found


class AlwaysPacked(Folder):
    """A folder in which every file goes between its listing and its reading."""

    def read(self, name):
        if name.endswith(".parquet"):
            raise FileNotFoundError(name)
        return super().read(name)


def same(left, right):
    assert left.trials.equals(right.trials)
    assert left.measurements.equals(right.measurements)


def test_the_quick_reader_reads_what_the_slow_one_reads(tmp_path):
    write_large_study(tmp_path, 60, 5)
    slow = read_slowly(tmp_path)
    same(read(tmp_path), slow)
    assert Results(tmp_path).pack() == 0
    assert pack(Folder(tmp_path), least=10) > 40
    same(read(tmp_path), slow)
    same(read_slowly(tmp_path), slow)


def test_a_pack_takes_the_place_of_its_files_and_leaves_lost_trials_alone(tmp_path):
    path = STUDY.write(tmp_path)
    before = read(path)
    n_lost = before.trials["ending"].to_pylist().count("lost")
    assert pack(Folder(path), least=1) == before.trials.num_rows - n_lost
    assert len(list((path / "trials").iterdir())) == n_lost + 1
    assert pack(Folder(path), least=1) == 0
    same(read(path), before)


def test_what_is_packed_is_finished(tmp_path):
    results = Results(STUDY.write(tmp_path))
    told = [(t.trial_id, results.ending(t.trial_id), results.trajectory(t.trial_id)) for t, _ in STUDY.trials]
    n = results.count()
    pack(results.storage, least=1)
    assert [(t.trial_id, results.ending(t.trial_id), results.trajectory(t.trial_id)) for t, _ in STUDY.trials] == told
    assert results.count() == n == len(STUDY.trials)
    assert [results.has(t.trial_id) for t, _ in STUDY.trials] == [o.ending != Ending.LOST for _, o in STUDY.trials]
    assert not results.has("confirm-adamw-999-0000000000")


def test_a_repeated_attempt_stands_before_the_pack(tmp_path):
    results = Results(STUDY.write(tmp_path))
    pack(results.storage, least=1)
    trial, outcome = STUDY.trials[-3]
    results.write(trial, Outcome(Ending.COMPLETED, outcome.measurements[:2], test_accuracy=0.5))
    again = read(tmp_path)
    (row,) = [row for row in again.trials.to_pylist() if row["trial_id"] == trial.trial_id]
    assert (row["test_accuracy"], row["epochs_run"]) == (0.5, 2)
    assert again.curve(trial.trial_id).num_rows == 2
    pack(results.storage, least=1)
    same(read(tmp_path), again)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kills=st.lists(st.integers(0, 30), max_size=4))
def test_packings_killed_anywhere_neither_lose_nor_double_a_row(tmp_path_factory, kills):
    path = STUDY.write(tmp_path_factory.mktemp("killed"))
    before = read(path)
    for n in kills:
        try:
            pack(KilledAfter(path, n), least=1)
        except Killed:
            same(read(path), before)
    pack(Folder(path), least=1)
    same(read(path), before)
    assert Results(path).count() == before.trials.num_rows


def test_a_reader_sees_every_row_though_they_are_packed_meanwhile(tmp_path):
    path = STUDY.write(tmp_path)
    before = read(path)
    same(Results(PackedUnderTheHand(path)).all_tables(), before)


def test_rows_in_an_object_store_are_packed_alike(tmp_path, monkeypatch):
    here = read(STUDY.write(tmp_path))
    with s3_server() as endpoint:
        for name, value in credentials(endpoint).items():
            monkeypatch.setenv(name, value)
        there = f"s3://{BUCKET}/packed"
        STUDY.write(there)
        same(read(there), here)
        n_lost = here.trials["ending"].to_pylist().count("lost")
        assert Results(there).pack() == 0
        assert pack(Results(there).storage, least=1) == len(STUDY.trials) - n_lost
        assert len(Results(there).storage.names("trials", ".parquet")) == n_lost + 1
        same(read(there), here)
        assert Results(there).count() == len(STUDY.trials)


def test_a_folder_that_never_holds_still_is_one_line(tmp_path):
    path = STUDY.write(tmp_path)
    with pytest.raises(StudyError, match="packed again and again"):
        read_table(AlwaysPacked(path), "trials")


def test_rows_of_a_newer_schema_are_refused_in_one_line(tmp_path):
    path = STUDY.write(tmp_path)
    file = next((path / "trials").iterdir())
    table = pq.read_table(file)
    newer = str(int(SCHEMA_VERSION) + 1)
    pq.write_table(table.replace_schema_metadata({"qsgd_ray_schema": newer}), file)
    with pytest.raises(StudyError, match=re.escape(f"{file}, of schema version {newer}; allowed: up to")) as error:
        read(path)
    assert "\n" not in str(error.value)


def test_rows_of_an_older_schema_have_nulls_in_the_columns_that_it_lacked(tmp_path):
    path = STUDY.write(tmp_path)
    for table in ("trials", "measurements"):
        for file in (path / table).iterdir():
            old = pq.read_table(file).drop_columns(["n_tokens", "model_flops"])
            pq.write_table(old.replace_schema_metadata({"qsgd_ray_schema": "1"}), file)
    for _ in range(2):
        tables = read(path)
        assert tables.trials["n_tokens"].null_count == tables.trials.num_rows > 0
        assert tables.measurements["model_flops"].null_count == tables.measurements.num_rows > 0
        assert tables.trials["arm"].null_count == 0
        pack(Folder(path), least=1)


def test_a_column_of_another_kind_is_one_line(tmp_path):
    path = STUDY.write(tmp_path)
    file = next((path / "trials").iterdir())
    table = pq.read_table(file)
    broken = table.set_column(table.column_names.index("seed"), "seed", pa.array(["many"]))
    pq.write_table(broken, file)
    with pytest.raises(StudyError, match=f"{file.name}, which cannot be read"):
        read(path)


class PackedWhileReading(Folder):
    """A folder that another process packs before its n-th reading of a row."""

    def __init__(self, path, n):
        super().__init__(path)
        self.left = n

    def read(self, name):
        if name.endswith(".parquet"):
            self.left -= 1
            if self.left == 0:
                pack(Folder(self.path), least=1)
        return super().read(name)


@pytest.mark.parametrize("n", range(1, 12))
def test_two_packings_at_once_lose_and_double_nothing_and_neither_fails(tmp_path, n):
    path = STUDY.write(tmp_path)
    before = read(path)
    pack(PackedWhileReading(path, n), least=1)
    same(read(path), before)
    same(read_slowly(path), before)
