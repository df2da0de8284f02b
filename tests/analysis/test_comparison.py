"""Two studies compared: nothing differs from itself, what was changed is named, equal seeds are compared by bits."""

from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from support.synthetic_results import Made, Run, lost, made, runs
from typer.testing import CliRunner

from qsgd_ray.analysis.comparison import Comparison, Difference
from qsgd_ray.analysis.comparison import compare as compare_studies
from qsgd_ray.analysis.study_analysis import analyse
from qsgd_ray.cli import _app as app
from qsgd_ray.config import StudyError
from qsgd_ray.config.loading import with_overrides
from qsgd_ray.reporting.terminal import arms_table, differences_table

BASE = 0.9 + np.array([0, 8, -7, 3, -2, 5]) / 1000


def compare(left, right) -> Comparison:
    return compare_studies(analyse(left), analyse(right))


def hashed(study: Made, *digests: str) -> Made:
    trials = [
        (trial, replace(outcome, parameters_sha256=digests[k % len(digests)]))
        for k, (trial, outcome) in enumerate(study.trials)
    ]
    return Made(study.study, trials)


STUDY = hashed(made({"adamw": runs(BASE), "sine": runs(BASE + 0.01)}), "a", "b", "c")


def test_a_study_does_not_differ_from_itself():
    tables = STUDY.tables({"packages": {"torch": "2.13.0"}, "started_at": "today"})
    again = STUDY.tables({"packages": {"torch": "2.13.0"}, "started_at": "tomorrow", "resumed": [{}]})
    comparison = compare(tables, again)
    assert (comparison.differences, comparison.only_left, comparison.only_right) == ((), (), ())
    for arm in comparison.arms:
        assert (arm.n_pairs, arm.difference, arm.interval) == (6, 0.0, (0.0, 0.0))
        assert arm.n_same_bits == arm.n_hashed == 6
        assert arm.step_time_ratio == 1.0
    assert "the same" in differences_table(comparison, "x", "y").plain


def test_what_was_changed_is_named_by_its_path():
    left = STUDY.tables({"packages": {"torch": "2.12.0"}, "hardware": {"cores": 2}})
    changed = with_overrides(STUDY.study, ["confirm.epochs=9", "arms.sine.perturbation.lambda_=0.25"])
    right = Made(changed, STUDY.trials).tables({"packages": {"torch": "2.13.0", "ray": "2.60.0"}})
    assert compare(left, right).differences == (
        Difference("setting", "arms.sine.perturbation.lambda_", "0.5", "0.25"),
        Difference("setting", "confirm.epochs", "8", "9"),
        Difference("provenance", "packages.torch", '"2.12.0"', '"2.13.0"'),
        Difference("provenance", "hardware.cores", "2", None),
        Difference("provenance", "packages.ray", None, '"2.60.0"'),
    )


def test_arms_are_compared_at_the_seeds_that_both_have():
    right = hashed(made({"adamw": runs(BASE), "sine": [*runs(BASE[:4] + 0.03), lost(), lost()]}), "a", "x", "c")
    adamw, sine = compare(STUDY.tables(), right.tables()).arms
    assert (adamw.n_pairs, adamw.difference) == (6, 0.0)
    assert (adamw.n_same_bits, adamw.n_hashed) == (4, 6)
    assert (sine.n_pairs, sine.right.n_null) == (4, 2)
    assert sine.difference == pytest.approx(0.02)
    assert sine.interval == pytest.approx((0.02, 0.02))


def test_other_seeds_are_no_pairs_and_missing_hashes_no_same_bits():
    other = with_overrides(STUDY.study, ["confirm.seeds=[1,2,3]"])
    right = made({"adamw": runs(BASE[:3]), "sine": runs(BASE[:3])}, study=other)
    for arm in compare(STUDY.tables(), right.tables()).arms:
        assert (arm.n_pairs, arm.difference, arm.interval, arm.n_hashed) == (0, None, None, 0)


def test_time_a_step_is_told_as_a_ratio_and_missing_without_steps():
    slow = Made(STUDY.study, [(t, replace(o, measurements=_slower(o.measurements))) for t, o in STUDY.trials])
    twice = compare(STUDY.tables(), slow.tables()).arms
    assert [arm.step_time_ratio for arm in twice] == pytest.approx([2.0, 2.0])
    assert [edge for arm in twice for edge in arm.step_time_interval] == pytest.approx([2.0] * 4)
    nothing = made({}, study=STUDY.study)
    assert [arm.step_time_ratio for arm in compare(nothing.tables(), slow.tables()).arms] == [None, None]


def _slower(measurements):
    return tuple(replace(m, wall_s=2 * m.wall_s) for m in measurements)


def test_arms_of_one_study_alone_are_named():
    right = made({"adamw": runs(BASE), "circuit": [Run(0.9)] * 6})
    comparison = compare(STUDY.tables(), right.tables())
    assert ([arm.arm for arm in comparison.arms], comparison.only_left, comparison.only_right) == (
        ["adamw"],
        ("sine",),
        ("circuit",),
    )
    assert comparison.differences == ()


def test_the_command_prints_both_tables_and_ends_well(tmp_path):
    left = STUDY.write(tmp_path / "left", {"packages": {"torch": "2.12.0"}})
    right = hashed(made({"adamw": runs(BASE), "circuit": runs(BASE)}), "a").write(tmp_path / "right")
    result = CliRunner().invoke(app, ["compare", str(left), str(right)], env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    for word in ("What differs", "packages.torch", "2 of 6", "Only in", "circuit", "90.15"):
        assert word in result.output, word
    for option, words in (("DIR1", [str(tmp_path), str(right)]), ("DIR2", [str(left), str(tmp_path)])):
        refused = CliRunner().invoke(app, ["compare", *words])
        assert isinstance(refused.exception, StudyError)
        assert str(refused.exception).startswith(f"{option}: got {tmp_path}; allowed: ")


def test_a_store_that_does_not_answer_is_one_line(tmp_path, monkeypatch):
    from qsgd_ray.storage import Folder, StorageError

    def silent(*_):
        raise StorageError("no answer")

    monkeypatch.setattr(Folder, "read", silent)
    refused = CliRunner().invoke(app, ["compare", str(tmp_path), str(tmp_path)])
    assert str(refused.exception) == f"DIR1: got {tmp_path}; allowed: a study's results that can be read (no answer)"


def test_long_values_are_cut_and_nulls_are_dashes():
    changed = with_overrides(STUDY.study, [f"confirm.seeds={list(range(100, 160))}"])
    comparison = compare(STUDY.tables({"a": 1}), made({}, study=changed).tables())
    console = Console(width=160, record=True)
    console.print(differences_table(comparison, "x", "y"), arms_table(comparison))
    text = console.export_text()
    assert "[100, 101" in text
    assert "159" not in text
    assert "–" in text
