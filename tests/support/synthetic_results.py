"""Synthetic studies: the numbers that every run shall show in, a results folder or its tables out; no training."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from qsgd_ray.config import Arm, Confirm, Decision, LogUniform, Perturbation, Search, Study, TextTask
from qsgd_ray.config.trial import Trial, confirm_trials, search_trial
from qsgd_ray.outcome import Ending, Measurement, Outcome
from qsgd_ray.results import Results, StudyTables
from qsgd_ray.results._rows import measurement_rows, trial_row
from qsgd_ray.results.schema import MEASUREMENTS, TRIALS

RATE = LogUniform(low=1e-4, high=1e-1)
CHOSEN = {"learning_rate": 3e-3, "perturbation.lambda_": 2.5}


@dataclass(frozen=True)
class Run:
    """One confirmation run: its ending, its test accuracy, and where its learning curve goes."""

    test_accuracy: float | None
    ending: Ending = Ending.COMPLETED
    speed: float = 0.5
    ratio: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class Made:
    """A synthetic study and its trials with their outcomes."""

    study: Study
    trials: list[tuple[Trial, Outcome]] = field(default_factory=list)

    def tables(self, provenance: dict[str, Any] | None = None) -> StudyTables:
        """Return the tables that reading the folder would give."""
        trials = [trial_row(trial, outcome) for trial, outcome in self.trials]
        measurements = [row for trial, outcome in self.trials for row in measurement_rows(trial, outcome)]
        return StudyTables(
            self.study,
            provenance or {},
            pa.Table.from_pylist(trials, schema=TRIALS),
            pa.Table.from_pylist(measurements, schema=MEASUREMENTS),
        )

    def write(self, path: Path, provenance: dict[str, Any] | None = None) -> Path:
        """Write the study into a folder or to a URI, and return it."""
        results = Results(path)
        results.open(self.study, provenance or {})
        for trial, outcome in self.trials:
            results.write(trial, outcome)
        return path


def lost(ending: Ending = Ending.DIVERGED) -> Run:
    """Return a run without a test accuracy."""
    return Run(None, ending)


def runs(accuracies: Sequence[float | None]) -> list[Run]:
    """Return completed runs of these accuracies; None is a diverged one."""
    return [lost() if accuracy is None else Run(float(accuracy)) for accuracy in accuracies]


def a_study(arms: Sequence[str], n_seeds: int, /, **fields: Any) -> Study:
    """Return a study of these arms; the first is the baseline, without a perturbation."""
    first, *others = arms
    return Study(
        **{
            "name": "made",
            "question": "Does the sine help?",
            "workload": TextTask(target_accuracy=0.8),
            "arms": (
                Arm(name=first, learning_rate=RATE),
                *(
                    Arm(name=name, learning_rate=RATE, perturbation=Perturbation(source="sine", lambda_=0.5))
                    for name in others
                ),
            ),
            "baseline": first,
            "search": Search(trials_per_arm=2, epochs=6),
            "confirm": Confirm(seeds=tuple(range(100, 100 + n_seeds)), epochs=8),
            "decision": Decision(margin=0.01),
        }
        | fields
    )


def made(
    by_arm: dict[str, Sequence[Run | None]], *, study: Study | None = None, searched: bool = False, **fields: Any
) -> Made:
    """Return a study in which the k-th seed of every arm shows the k-th run; the first arm is the baseline.

    A run of None has not run yet.
    """
    if study is None:
        study = a_study(list(by_arm), max(1, *(len(of_arm) for of_arm in by_arm.values())), **fields)
    trials = [*(_search(study) if searched else [])]
    for arm, of_arm in by_arm.items():
        planned = confirm_trials(study, arm, {path: CHOSEN[path] for path in study.arm(arm).spaces()})
        trials += [
            (trial, outcome_of(trial, run)) for trial, run in zip(planned, of_arm, strict=False) if run is not None
        ]
    return Made(study, trials)


def outcome_of(trial: Trial, run: Run) -> Outcome:
    """Return the outcome that a run shows; the learning curve's noise is drawn from the trial's seed."""
    epochs = (
        trial.epochs
        if run.ending == Ending.COMPLETED
        else 0
        if run.ending in (Ending.FAILED, Ending.UNAVAILABLE)
        else trial.epochs // 2
    )
    top = 0.85 if run.test_accuracy is None else run.test_accuracy
    rng = np.random.default_rng(trial.seed)
    curve = [top - 0.6 * np.exp(-run.speed * epoch) + rng.normal(0, 0.004) for epoch in range(1, epochs + 1)]
    perturbed = trial.arm.perturbation is not None
    return Outcome(
        ending=run.ending,
        measurements=tuple(
            Measurement(
                epoch=epoch,
                step=64 * epoch,
                wall_s=epoch * (2.9 if perturbed else 2.0) * (1 + 0.02 * rng.standard_normal()),
                circuit_wait_s=epoch * (0.8 if perturbed else 0.0),
                n_circuits=1000 * epoch if perturbed else 0,
                train_loss=2.0 - accuracy,
                validation_loss=2.1 - accuracy,
                validation_accuracy=float(np.clip(accuracy, 0, 1)),
                perturbation_norm=run.ratio / epoch if run.ratio is not None else None,
                adam_step_norm=1.0 if run.ratio is not None else None,
            )
            for epoch, accuracy in enumerate(curve, start=1)
        ),
        test_loss=None if run.test_accuracy is None else 2.0 - run.test_accuracy,
        test_accuracy=run.test_accuracy,
        parameters_sha256=None,
        error=run.error or ("ValueError: <b>broken</b>" if run.ending == Ending.FAILED else None),
    )


def _search(study: Study) -> list[tuple[Trial, Outcome]]:
    rng = np.random.default_rng(7)
    endings = (Ending.COMPLETED, Ending.STOPPED_EARLY, Ending.DIVERGED)
    trials = []
    for arm in study.arms:
        for number in range(study.search.trials_per_arm):
            point: dict[str, int | float] = {}
            for path in arm.spaces():
                point[path] = float(10 ** rng.uniform(-4, -1))
            trial = search_trial(study, arm.name, number, point)
            score = 0.93 - 0.12 * abs(np.log10(trial.arm.learning_rate) + 2.5)
            run = Run(score, endings[int(rng.choice(3, p=[0.35, 0.55, 0.1]))])
            outcome = outcome_of(trial, run)
            trials.append((trial, Outcome(outcome.ending, outcome.measurements)))
    return trials
