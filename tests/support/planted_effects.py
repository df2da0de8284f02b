"""A map with an effect planted at some of its settings; no training."""

import numpy as np
import pyarrow as pa

from qsgd_ray.config import Map
from qsgd_ray.config.trial import map_trials
from qsgd_ray.results import StudyTables
from qsgd_ray.results._rows import trial_row
from qsgd_ray.results.schema import MEASUREMENTS, TRIALS
from support.synthetic_results import CHOSEN, Run, a_study, outcome_of

AXES = {"perturbation.n_qubits": (2, 8), "perturbation.lambda_": (0.5, 50.0), "learning_rate": (1e-3, 1e-2)}


def map_tables(run, *, n_seeds: int = 8, keep=lambda trial: True, axes=AXES) -> StudyTables:
    """Return the tables of a study whose map shows `run(trial)` at every trial that `keep(trial)` lets through."""
    design = Map(arm="sine", axes=axes, seeds=tuple(range(300, 300 + n_seeds)), epochs=8)
    study = a_study(["adam", "sine"], 2, map=design)
    points = {arm.name: {path: CHOSEN[path] for path in arm.spaces()} for arm in study.arms}
    rows = [trial_row(t, outcome_of(t, run(t))) for t in map_trials(study, points) if keep(t)]
    return StudyTables(study, {}, pa.Table.from_pylist(rows, schema=TRIALS), MEASUREMENTS.empty_table())


def scattered(trial, effect: float) -> Run:
    """Return a run of accuracy 0.85 + effect, with noise of its seed and setting."""
    noise = np.random.default_rng([trial.seed, trial.number]).normal(0, 0.002)
    return Run(0.85 + effect + float(noise), speed=3.0)


def planted(trial) -> Run:
    """Return a run that is worse by five points at eight qubits and lambda 50 alone."""
    perturbation = trial.arm.perturbation
    is_planted = perturbation is not None and perturbation.n_qubits == 8 and perturbation.lambda_ == 50.0
    return scattered(trial, -0.05 if is_planted else 0.0)
