"""Every sampler, an arm whose space has conditions, and a journal as anyone reads it."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from qsgd_ray.config import Arm, Choice, LogUniform, Perturbation, Search, Uniform

SAMPLERS = get_args(Search.model_fields["sampler"].annotation)


CONDITIONAL = Arm(
    name="q",
    learning_rate=LogUniform(low=1e-4, high=1e-2),
    perturbation=Perturbation(
        source=Choice(options=("sine", "circuit", "sampled", "zero", "random_sign")),
        lambda_=Uniform(low=0.0, high=1.0),
        n_qubits=Choice(options=(2, 8)),
        depth=Choice(options=(1, 3)),
        entangle=Choice(options=("chain", "none")),
        scope=Choice(options=("tensor", "all")),
        shots=100,
    ),
)


def shown(path: Path) -> dict[str, list[tuple]]:
    """Return the journal's trials as Optuna reads them."""
    storage = JournalStorage(JournalFileBackend(str(path)))
    return {
        name: [
            (t.user_attrs["number"], t.state, t.params, t.values, t.intermediate_values)
            for t in optuna.load_study(study_name=name, storage=storage).trials
        ]
        for name in optuna.get_all_study_names(storage)
    }


def reachable(arm: Arm, point: dict | None = None) -> list[dict]:
    """Every point of an arm's space, ranges by their edges."""
    point = point or {}
    left = [(path, space) for path, space in arm.spaces_at(point).items() if path not in point]
    if not left:
        return [point]
    path, space = left[0]
    return [one for value in space.edges() for one in reachable(arm, point | {path: value})]
