"""Sizes are named by what defines them, rows are whole and typed, and what is broken is told in one line."""

import pytest
from support.synthetic_limits import PROVENANCE, a_limits, made

from qsgd_ray.config import (
    CircuitCurve,
    Limits,
    NoiseSettings,
    OptimizerCurve,
    PoolCurve,
    SignalCurve,
    StudyError,
    TrainingCurve,
)
from qsgd_ray.config.loading import load_study, with_overrides
from qsgd_ray.limits.rows import _SIZES, LimitsResults, _size_id, _sizes_of, is_limits

RING = a_limits().curves[0]


def test_a_study_comes_back_as_it_was_with_typed_rows(tmp_path):
    tables = made(tmp_path).read()
    assert tables.limits == a_limits()
    assert tables.provenance == PROVENANCE
    assert tables.sizes.schema == _SIZES
    assert tables.sizes.num_rows == sum(len(_sizes_of(curve)) for curve in tables.limits.curves)


def test_limits_make_the_round_trip_through_json():
    assert Limits.model_validate_json(a_limits().model_dump_json()) == a_limits()


def test_what_has_its_row_is_not_missing_whatever_else_changes(tmp_path):
    results = made(tmp_path)
    assert all(results.missing(a_limits(), curve) == [] for curve in a_limits().curves)
    longer = RING.model_copy(update={"name": "renamed", "sizes": (*RING.sizes, 23)})
    assert results.missing(a_limits(curves=(longer,)), longer) == [23]
    deeper = RING.model_copy(update={"depth": 3})
    assert results.missing(a_limits(), deeper) == list(RING.sizes)


def test_rows_go_by_the_names_that_curves_have_now(tmp_path):
    results = made(tmp_path)
    renamed = a_limits(curves=(RING.model_copy(update={"name": "renamed"}),))
    results.open(renamed, PROVENANCE)
    assert set(results.read().sizes["curve"].to_pylist()) == {"renamed"}


def test_a_size_is_measured_again_under_another_budget_or_seed():
    one = _size_id(a_limits(), RING, 4)
    assert len({one, _size_id(a_limits(budget_s=1), RING, 4), _size_id(a_limits(seed=1), RING, 4)}) == 3


def test_half_of_a_file_is_told_in_one_line(tmp_path):
    results = made(tmp_path)
    first = results.storage.names("sizes", ".parquet")[0]
    (tmp_path / "sizes" / first).write_bytes(b"PAR1")
    with pytest.raises(StudyError, match=f"{first}, which cannot be read"):
        results.read()


@pytest.mark.parametrize("name", ["limits.json", "provenance.json"])
def test_a_folder_without_a_study_of_limits_is_told(tmp_path, name):
    results = made(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(StudyError, match="allowed: the results of a study of limits"):
        results.read()


@pytest.mark.parametrize(
    ("name", "text", "said"), [("limits.json", "{}", "name: got nothing"), ("provenance.json", "{", "is broken")]
)
def test_a_broken_folder_is_told(tmp_path, name, text, said):
    results = made(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(StudyError, match=said):
        results.read()


def test_a_folder_with_another_kind_of_study_is_left_alone(tmp_path):
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(StudyError, match="holds a study of another kind"):
        LimitsResults(tmp_path).open(a_limits(), PROVENANCE)


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="can be written"):
        LimitsResults(tmp_path / "file").open(a_limits(), PROVENANCE)


def test_a_folder_knows_whether_it_is_one(tmp_path):
    assert not is_limits(tmp_path)
    assert not is_limits(tmp_path / "nowhere")
    made(tmp_path)
    assert is_limits(tmp_path)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: CircuitCurve(name="x", engine="torch", sizes=(4, 3, 5, 6)), "growing ones; got 4, 3, 5, 6"),
        (lambda: CircuitCurve(name="x", engine="torch", sizes=(1, 2, 3)), "at least 4 items"),
        (lambda: CircuitCurve(name="x", engine="torch", sizes=(1, 2, 3, 4), shots=5), "none with the engine torch"),
        (lambda: CircuitCurve(name="x", engine="shots", sizes=(1, 2, 3, 4)), "a number with the engine shots"),
        (lambda: CircuitCurve(name="x", engine="noise", sizes=(1, 2, 3, 4)), "some with the engine noise"),
        (
            lambda: CircuitCurve(name="x", engine="chain", sizes=(1, 2, 3, 4), noise=NoiseSettings()),
            "some with the engine noise, and with no other",
        ),
        (lambda: OptimizerCurve(name="x", source=None, sizes=(0, 1, 2, 3)), "greater than or equal to 1"),
        (lambda: TrainingCurve(name="x", sizes=(4, 8, 16, 32)), "greater than or equal to 8"),
        (lambda: PoolCurve(name="x", actors=(), batches=(1, 2)), "at least 1 item"),
        (lambda: SignalCurve(name="x", theta=1.0, n_qubits=8, sizes=(1, 2, 4, 8)), r"below n_qubits \(8\); got 8"),
        (lambda: a_limits(curves=(RING, RING)), "each name once"),
    ],
)
def test_a_study_of_limits_that_is_none_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_settings_of_limits_are_overridden_as_those_of_a_study():
    changed = with_overrides(a_limits(), ["budget_s=2", "curves.state-ring.depth=3"])
    assert (changed.budget_s, changed.curves[0].depth) == (2.0, 3)
    with pytest.raises(StudyError, match=r"^budget_s: got -1"):
        with_overrides(a_limits(), ["budget_s=-1"])


def test_a_study_file_may_end_in_limits(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        f"from qsgd_ray.config import Limits\nSTUDY = Limits.model_validate_json({a_limits().model_dump_json()!r})"
    )
    assert load_study(path) == a_limits()
