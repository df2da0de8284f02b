"""The effect at every setting of a map: what was planted is found where it was planted, and nowhere else."""

import pytest
from support.planted_effects import AXES, map_tables, planted, scattered
from support.synthetic_results import Run, a_study, lost

from qsgd_ray.analysis.effect_map import map_effects
from qsgd_ray.analysis.verdict import Verdict
from qsgd_ray.results import StudyTables


def test_an_effect_is_found_where_it_is_and_nowhere_else():
    effects = map_effects(map_tables(planted))
    assert effects.axes == tuple(AXES)
    assert (effects.arm, effects.baseline, len(effects.cells)) == ("sine", "adam", 8)
    for cell in effects.cells:
        here = cell.setting["perturbation.n_qubits"] == 8 and cell.setting["perturbation.lambda_"] == 50.0
        assert cell.significant == here
        assert cell.effect.verdict == (Verdict.WORSE if here else Verdict.EQUIVALENT)
        assert cell.effect.n_pairs == 8
        assert cell.overhead == pytest.approx(0.45, abs=0.05)  # as support.synthetic_results has it


def test_a_setting_meets_the_baseline_at_its_own_learning_rate():
    def run(trial) -> Run:
        return scattered(trial, 0.05 if trial.arm.learning_rate == 1e-2 else 0.0)

    assert all(abs(cell.effect.difference) < 0.01 for cell in map_effects(map_tables(run)).cells)


def test_a_run_without_a_result_and_one_that_is_still_to_come_are_counted():
    def run(trial) -> Run:
        perturbation = trial.arm.perturbation
        breaks = perturbation is not None and perturbation.lambda_ == 50.0 and trial.seed == 300
        return lost() if breaks else scattered(trial, 0.0)

    def keep(trial) -> bool:
        return trial.arm.perturbation is None or trial.arm.perturbation.n_qubits == 2 or trial.seed != 301

    for cell in map_effects(map_tables(run, keep=keep)).cells:
        assert cell.effect.n_lost == (cell.setting["perturbation.lambda_"] == 50.0)
        assert cell.effect.n_pending == (cell.setting["perturbation.n_qubits"] == 8)


def test_before_the_first_row_every_setting_is_open_and_without_a_map_there_is_none():
    for cell in map_effects(map_tables(planted, keep=lambda trial: False)).cells:
        assert (cell.effect.verdict, cell.significant, cell.overhead) == (Verdict.INCONCLUSIVE, False, None)
    tables = map_tables(planted)
    assert map_effects(StudyTables(a_study(["adam", "sine"], 2), {}, tables.trials, tables.measurements)) is None
