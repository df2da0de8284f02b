"""Studies of several workloads for tests: synthetic rows for each part, and the same as a folder of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from qsgd_ray.analysis.joint import JointAnalysis, analyse_jointly
from qsgd_ray.analysis.study_analysis import analyse
from qsgd_ray.config import Study, TextTask
from qsgd_ray.results import StudyTables
from qsgd_ray.results.whole import WholeResults
from support.own_metrics import by_penalty, scored
from support.synthetic_results import Made, Run, a_study, made, runs

EASY, HARD = TextTask(target_accuracy=0.8), TextTask(difficulty=0.3, target_accuracy=0.8)
BASE = (0.84, 0.85, 0.86, 0.87, 0.85, 0.86)

# By workload, by arm, the accuracy at each seed; None is a run without a result.
Accuracies = Mapping[str, Mapping[str, Sequence[float | Run | None]]]


def a_whole(arms: Sequence[str] = ("adamw", "sine"), n_seeds: int = 6, /, **fields) -> Study:
    """Return a study of two workloads, `easy` and `hard`; the first arm is the baseline."""
    fields = {"workloads": {"easy": EASY, "hard": HARD}} | fields
    return Study(**{name: value for name, value in a_study(arms, n_seeds) if name != "workload"} | fields)


def made_parts(study: Study, accuracies: Accuracies) -> dict[str, Made]:
    """Return the synthetic rows of every part."""
    return {
        name: made({arm: _runs(of_arm) for arm, of_arm in accuracies[name].items()}, study=part)
        for name, part in study.parts().items()
    }


def _runs(values: Sequence[float | Run | None]) -> list[Run]:
    return [value if isinstance(value, Run) else runs([value])[0] for value in values]


def tables_of(study: Study, accuracies: Accuracies) -> dict[str, StudyTables]:
    """Return the tables of every part."""
    return {name: part.tables() for name, part in made_parts(study, accuracies).items()}


def jointly(study: Study, accuracies: Accuracies) -> JointAnalysis:
    """Return the joint analysis of such rows."""
    return analyse_jointly(study, {name: analyse(part) for name, part in tables_of(study, accuracies).items()})


def mirrored(tables: StudyTables) -> StudyTables:
    """Return the same runs by a metric of which less is better, with another unit and margin."""
    return scored(tables, by_penalty(tables.study))


def write(study: Study, accuracies: Accuracies, folder: Path) -> Path:
    """Write the study and the rows of its parts into a folder, and return it."""
    results = WholeResults(folder, tuple(study.workloads))
    results.open(study, {})
    for name, part in made_parts(study, accuracies).items():
        part.write(folder / name)
    return folder
