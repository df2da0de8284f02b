"""Trials without dropout, the context where they run on a cluster, and the rows that they leave."""

from __future__ import annotations

from pathlib import Path

from qsgd_ray.config import Arm, Perturbation, Resources
from qsgd_ray.config.trial import Trial
from qsgd_ray.execution.train_group import RunContext
from qsgd_ray.results import Results
from qsgd_ray.results.schema import TIME_COLUMNS
from support.small_study import SMALL_TASK, a_study

CIRCUIT = Perturbation(source="circuit", lambda_=5.0, n_qubits=3)


# Without dropout, which is drawn per replica, one replica and two train the same model.
TASK = SMALL_TASK.model_copy(update={"model": SMALL_TASK.model.model_copy(update={"dropout": 0.0})})


def numbered_trial(number: int, perturbation: Perturbation | None = None, **fields) -> Trial:
    arm = Arm(name="q" if perturbation else "adamw", learning_rate=1e-2, perturbation=perturbation)
    return Trial(
        **{
            "study": "small",
            "stage": "confirm",
            "number": number,
            "arm": arm,
            "workload": TASK,
            "seed": 20 + number,
            "epochs": 2,
            "workers": 2,
            "reads_test": True,
        }
        | fields
    )


def quiet(*_: object) -> bool:
    return False


def make_context(folder: Path, cluster, **parts) -> RunContext:
    results = Results(folder)
    results.open(a_study(), {})
    return RunContext(
        **{"cluster": cluster, "resources": Resources(), "circuits": None, "results": results}
        | parts
        | {
            "report": parts.get("report", quiet),
            "ended": parts.get("ended", quiet),
        }
    )


def rows_of(context: RunContext) -> dict[str, dict]:
    return {row["trial_id"]: row for row in context.results.all_tables().trials.to_pylist()}


def timeless(row: dict) -> dict:
    return {name: value for name, value in row.items() if name not in TIME_COLUMNS}
