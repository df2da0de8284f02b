"""Studies that are run through at made-up points, changed, and run through again; no training."""

from qsgd_ray.config import Study
from qsgd_ray.config.loading import with_overrides
from qsgd_ray.config.trial import Trial, confirm_trials, search_trial
from qsgd_ray.outcome import Ending, Outcome
from qsgd_ray.results import Results
from qsgd_ray.search.observations import unfinished_points
from qsgd_ray.study._stages import chosen_points
from support.outcomes import OUTCOME, measured
from support.small_study import a_study

RATES = (1e-3, 2e-3)
BEST = {"learning_rate": 2e-3}


def run_through(study: Study, results: Results) -> list[str]:
    """Run what each stage of a study lacks, at made-up points, as `run_stages` does; return the ids of what was run."""
    ran = []

    def finish(trial: Trial, outcome: Outcome) -> None:
        if not results.has(trial.trial_id):
            results.write(trial, outcome)
            ran.append(trial.trial_id)

    for arm in study.arms:
        for number in range(study.planned("search", arm)):
            accuracy = 0.5 + 0.1 * (number % 2)
            point = {"learning_rate": RATES[number % 2]}
            finish(search_trial(study, arm.name, number, point), Outcome(Ending.COMPLETED, (measured(1, accuracy),)))
    for arm, point in chosen_points(results.tables(study), results).items():
        for trial in confirm_trials(study, arm, point):
            finish(trial, OUTCOME)
    assert unfinished_points(results.tables(study)) == {}
    return ran


def rows(results: Results) -> list[tuple]:
    """Return stage, arm, number and seed of every row of the study as it is now, sorted."""
    return sorted((r["stage"], r["arm"], r["number"], r["seed"]) for r in results.tables().trials.to_pylist())


def reopened(results: Results, *changes: str) -> list[str]:
    """Change the study, run it through, and return the ids of what was run."""
    study = with_overrides(a_study(), list(changes))
    results.open(study, {})
    return run_through(study, results)


def kinds(ran: list[str]) -> list[str]:
    """Return trial ids without their hashes, sorted."""
    return sorted(trial_id.rpartition("-")[0] for trial_id in ran)
