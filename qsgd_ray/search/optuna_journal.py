"""The search as optuna-dashboard shows it: rows and events in; an Optuna journal out, one Optuna study an arm.

A view and no more: no decision is read from it. What it lacks of the rows is added when a search begins; where it is
missing, torn or contradicts them, it is made anew. A journal is appended to, so only a folder can hold one.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState, create_trial

from qsgd_ray.analysis.objectives import RunResult, objective_values, quality
from qsgd_ray.config import Arm, Study
from qsgd_ray.config.base import LogUniform, Point, Uniform
from qsgd_ray.outcome import Ending
from qsgd_ray.results import StudyTables
from qsgd_ray.search._arm_search import DIRECTIONS
from qsgd_ray.search.observations import Observation, observed_points
from qsgd_ray.storage import replacing

FILE = "optuna.log"
# Of a writer that was killed; a write takes milliseconds.
LOCK_GRACE_S = 5
STATES = {Ending.COMPLETED: TrialState.COMPLETE, Ending.STOPPED_EARLY: TrialState.PRUNED}
# What a journal that somebody else wrote, or cut, may raise, and a disk that is full.
JOURNAL_ERRORS = (OSError, ValueError, KeyError, TypeError, RuntimeError, optuna.exceptions.OptunaError)

log = logging.getLogger(__name__)


def open_journal(tables: StudyTables, path: Path) -> SearchJournal:
    """Bring the journal at `path` up to the rows, and return it.

    Args:
        tables: the study and its rows.
        path: the journal's file.
    """
    study = tables.study
    tried = observed_points(study, tables.trials.to_pylist())
    curves: dict[str, dict[int, float]] = {}
    for row in tables.measurements.to_pylist():
        if row["stage"] == "search":
            curves.setdefault(row["trial_id"], {})[row["epoch"]] = row["validation_accuracy"]
    with _quiet():
        try:
            view = SearchJournal(study, path)
            view.take(tried, curves)
        except JOURNAL_ERRORS:
            with replacing(path) as partial:
                SearchJournal(study, partial).take(tried, curves)
            view = SearchJournal(study, path)
    return view


def is_readable(path: Path) -> bool:
    """Is there a whole journal?"""
    if not path.is_file():
        return False
    try:
        JournalStorage(JournalFileBackend(str(path))).get_all_studies()
    except JOURNAL_ERRORS:
        return False
    return True


class SearchJournal:
    """The journal at `path`; there is a study for every arm that is searched."""

    def __init__(self, study: Study, path: Path) -> None:
        self._study = study
        lock = JournalFileSymlinkLock(str(path), grace_period=LOCK_GRACE_S)
        storage = JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
        self._storage: JournalStorage | None = storage
        self._ids = {arm.name: self._study_id(arm, storage) for arm in study.arms if arm.spaces()}
        # What was there before this process.
        self._shown = {
            arm: {t.user_attrs["number"]: t for t in storage.get_all_trials(place) if "given_up" not in t.user_attrs}
            for arm, place in self._ids.items()
        }
        self._running: dict[tuple[str, int], int] = {}
        self._taking = False

    def _study_id(self, arm: Arm, storage: JournalStorage) -> int:
        known = {one.study_name: one._study_id for one in storage.get_all_studies()}
        if arm.name in known:
            return known[arm.name]
        objectives = self._study.search.objectives
        directions = [DIRECTIONS[objective] for objective in objectives]
        made = optuna.create_study(storage=storage, study_name=arm.name, directions=directions)
        made.set_metric_names(list(objectives))
        return made._study_id

    def take(self, tried: Mapping[str, Sequence[Observation]], curves: Mapping[str, Mapping[int, float]]) -> None:
        """Add what has its rows and is not shown. ValueError: what is shown contradicts them."""
        self._taking = True
        for arm in self._study.arms:
            if arm.name not in self._ids:
                continue
            shown = self._shown[arm.name]
            ended = {one.number: one for one in tried[arm.name] if one.complete and _lies_in(arm, one.point)}
            for number, trial in shown.items():
                if trial.state.is_finished() and not (number in ended and self._shows(trial, ended[number])):
                    raise ValueError(f"{arm.name} {number}: not as in its rows")
            for number, one in ended.items():
                if number not in shown or not shown[number].state.is_finished():
                    self.began(arm, number, one.point)
                    for epoch, reached in _curve(one, curves).items():
                        self.measured(arm, number, epoch, reached)
                    self.ended(arm, number, one.ending, self._values(one))
        self._taking = False

    def _values(self, one: Observation) -> list[float | None]:
        return objective_values(one.results, self._study.search.objectives)

    def _shows(self, trial: FrozenTrial, one: Observation) -> bool:
        values = self._values(one) if _state(one.ending) is TrialState.COMPLETE else None
        return (trial.params, trial.state, trial.values) == (one.point, _state(one.ending), values)

    def began(self, arm: Arm, number: int, point: Point) -> None:
        """This trial is running; one of that number that was cut off goes on if it has this point, else it failed."""

        def tell(storage: JournalStorage) -> None:
            before = self._shown[arm.name].get(number)
            if before and before.params == point:
                if not before.state.is_finished():
                    self._running[arm.name, number] = before._trial_id
                return
            if before and not before.state.is_finished():
                storage.set_trial_user_attr(before._trial_id, "given_up", True)
                storage.set_trial_state_values(before._trial_id, TrialState.FAIL)
            asked = distributions(arm, point)
            template = create_trial(
                state=TrialState.RUNNING, params=point, distributions=asked, user_attrs={"number": number}
            )
            self._running[arm.name, number] = storage.create_new_trial(self._ids[arm.name], template)

        self._tell(tell)

    def measured(self, arm: Arm, number: int, epoch: int, reached: float) -> None:
        """Its quality after an epoch. (Optuna knows no such thing where there are several objectives.)"""
        trial_id = self._running.get((arm.name, number))
        if trial_id is not None and len(self._study.search.objectives) == 1:
            self._tell(lambda storage: storage.set_trial_intermediate_value(trial_id, epoch, reached))

    def ended(self, arm: Arm, number: int, ending: Ending | None, values: Sequence[float | None]) -> None:
        """It has its rows. `ending`: None where no run came to anything."""
        trial_id = self._running.pop((arm.name, number), None)
        if trial_id is not None:
            known = [value for value in values if value is not None] if _state(ending) is TrialState.COMPLETE else None
            self._tell(lambda storage: storage.set_trial_state_values(trial_id, _state(ending), known) and None)

    def _tell(self, told: Callable[[JournalStorage], None]) -> None:
        """A view that cannot be written is given up, and that is said once: no trial waits for it."""
        if self._storage is None:
            return
        try:
            with _quiet():
                told(self._storage)
        except JOURNAL_ERRORS as error:
            if self._taking:
                raise
            log.warning("%s is no longer written: %s", FILE, error)
            self._storage = None


def distributions(arm: Arm, point: Point) -> dict[str, BaseDistribution]:
    """Of the fields that `point` sets, as Optuna has them."""
    found: dict[str, BaseDistribution] = {}
    spaces = arm.spaces()
    for path in point:
        space = spaces[path]
        if isinstance(space, LogUniform | Uniform):
            found[path] = FloatDistribution(space.low, space.high, log=isinstance(space, LogUniform))
        else:
            found[path] = CategoricalDistribution(space.options)
    return found


def _lies_in(arm: Arm, point: Point) -> bool:
    def there(path: str, one: BaseDistribution) -> bool:
        return point[path] in one.choices if isinstance(one, CategoricalDistribution) else one._contains(point[path])

    return all(there(path, one) for path, one in distributions(arm, point).items())


def _state(ending: Ending | None) -> TrialState:
    return STATES[ending] if ending else TrialState.FAIL


def _curve(one: Observation, curves: Mapping[str, Mapping[int, float]]) -> dict[int, float]:
    """Quality after each epoch that any of its runs came to."""
    own: list[Mapping[int, float]] = [curves.get(trial_id, {}) for trial_id in one.rows]
    epochs = sorted({epoch for curve in own for epoch in curve})
    return {epoch: quality([RunResult(curve.get(epoch)) for curve in own]) for epoch in epochs}


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna tells of every study that it makes, and calls half of its interface experimental."""
    before: Any = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
