"""Write the search as a journal that optuna-dashboard shows, with one Optuna study an arm.

No decision is read from it. Rows that it lacks are added when a search begins. Where it is missing, torn or contradicts
the rows, it is made anew. A journal is appended to, so only a folder can hold one.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState, create_trial

from qsgd_ray.analysis.metric import metric_value
from qsgd_ray.analysis.objectives import RunResult, objective_values, quality
from qsgd_ray.config import Arm, Study
from qsgd_ray.config.base import Point
from qsgd_ray.outcome import Ending
from qsgd_ray.results import StudyTables
from qsgd_ray.search._arm_search import directions, distributions
from qsgd_ray.search.observations import _Observation, _observed_points
from qsgd_ray.storage import replacing

FILE = "optuna.log"
# The lock of a killed writer is broken after so long; a write takes milliseconds.
_LOCK_GRACE_S = 5
_STATES = {Ending.COMPLETED: TrialState.COMPLETE, Ending.STOPPED_EARLY: TrialState.PRUNED}
# Raised for a journal that another program has written or cut, and for a full disk.
_JOURNAL_ERRORS = (OSError, ValueError, KeyError, TypeError, RuntimeError, optuna.exceptions.OptunaError)

_log = logging.getLogger(__name__)


def open_journal(tables: StudyTables, path: Path) -> SearchJournal:
    """Bring the journal at `path` up to the rows, and return it.

    Args:
        tables: the study and its rows.
        path: the journal's file.
    """
    study, metric = tables.study, tables.study.metric
    observations = _observed_points(study, tables.trials.to_pylist())
    curves: dict[str, dict[int, float | None]] = {}
    for row in tables.measurements.to_pylist():
        if row["stage"] == "search":
            curves.setdefault(row["trial_id"], {})[row["epoch"]] = metric_value(row, "validation", metric)
    with _quiet():
        try:
            view = SearchJournal(study, path)
            view.add_rows(observations, curves)
        except _JOURNAL_ERRORS:
            with replacing(path) as partial:
                SearchJournal(study, partial).add_rows(observations, curves)
            view = SearchJournal(study, path)
    return view


def is_readable(path: Path) -> bool:
    """Return True where the file is a whole journal."""
    if not path.is_file():
        return False
    try:
        JournalStorage(JournalFileBackend(str(path))).get_all_studies()
    except _JOURNAL_ERRORS:
        return False
    return True


class SearchJournal:
    """The journal at `path`, with an Optuna study for every arm that is searched."""

    def __init__(self, study: Study, path: Path) -> None:
        self._study = study
        lock = JournalFileSymlinkLock(str(path), grace_period=_LOCK_GRACE_S)
        storage = JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
        self._storage: JournalStorage | None = storage
        self._ids = {arm.name: self._study_id(arm, storage) for arm in study.arms if arm.spaces()}
        # The trials that earlier processes have written.
        self._shown = {
            arm: {t.user_attrs["number"]: t for t in storage.get_all_trials(place) if "given_up" not in t.user_attrs}
            for arm, place in self._ids.items()
        }
        self._running: dict[tuple[str, int], int] = {}
        self._taking = False

    def _study_id(self, arm: Arm, storage: JournalStorage) -> int:
        known = {one.study_name: one for one in storage.get_all_studies()}
        if arm.name in known:
            if [str(one.name).lower() for one in known[arm.name].directions] != directions(self._study):
                raise ValueError(f"{arm.name}: its objectives have other directions")
            return known[arm.name]._study_id
        made = optuna.create_study(storage=storage, study_name=arm.name, directions=directions(self._study))
        made.set_metric_names(list(self._study.search.objectives))
        return made._study_id

    def add_rows(
        self, observations: Mapping[str, Sequence[_Observation]], curves: Mapping[str, Mapping[int, float | None]]
    ) -> None:
        """Add the trials that have their rows and are missing.

        Args:
            observations: observations by arm.
            curves: validation value of the metric by trial_id and epoch.

        Raises:
            ValueError: a trial that is there contradicts its rows.
        """
        self._taking = True
        for arm in self._study.arms:
            if arm.name not in self._ids:
                continue
            shown = self._shown[arm.name]
            ended = {one.number: one for one in observations[arm.name] if one.complete and _lies_in(arm, one.point)}
            for number, trial in shown.items():
                if trial.state.is_finished() and not (number in ended and self._shows(trial, ended[number])):
                    raise ValueError(f"{arm.name} {number}: not as in its rows")
            for number, one in ended.items():
                if number not in shown or not shown[number].state.is_finished():
                    self.begin(arm, number, one.point)
                    for epoch, reached in _curve(one, curves).items():
                        self.add_quality(arm, number, epoch, reached)
                    self.end(arm, number, one.ending, self._values(one))
        self._taking = False

    def _values(self, one: _Observation) -> list[float | None]:
        return objective_values(one.results, self._study.search.objectives, one.metric)

    def _shows(self, trial: FrozenTrial, one: _Observation) -> bool:
        values = self._values(one) if _state(one.ending) is TrialState.COMPLETE else None
        return (trial.params, trial.state, trial.values) == (one.point, _state(one.ending), values)

    def begin(self, arm: Arm, number: int, point: Point) -> None:
        """Show a trial as running.

        One of that number that was cut off goes on where it has the same point; else it is shown as failed.

        Args:
            arm: one that is searched.
            number: the trial's.
            point: its point.
        """

        def show(storage: JournalStorage) -> None:
            before = self._shown[arm.name].get(number)
            if before and before.params == point:
                if not before.state.is_finished():
                    self._running[arm.name, number] = before._trial_id
                return
            if before and not before.state.is_finished():
                storage.set_trial_user_attr(before._trial_id, "given_up", True)
                storage.set_trial_state_values(before._trial_id, TrialState.FAIL)
            spaces = distributions(arm, point)
            template = create_trial(
                state=TrialState.RUNNING, params=point, distributions=spaces, user_attrs={"number": number}
            )
            self._running[arm.name, number] = storage.create_new_trial(self._ids[arm.name], template)

        self._write(show)

    def add_quality(self, arm: Arm, number: int, epoch: int, reached: float) -> None:
        """Add a trial's quality after an epoch. Optuna has no place for it where there are several objectives.

        Args:
            arm: the trial's.
            number: the trial's.
            epoch: from 1.
            reached: its quality, in the unit of the metric.
        """
        trial_id = self._running.get((arm.name, number))
        if trial_id is not None and len(self._study.search.objectives) == 1:
            self._write(lambda storage: storage.set_trial_intermediate_value(trial_id, epoch, reached))

    def end(self, arm: Arm, number: int, ending: Ending | None, values: Sequence[float | None]) -> None:
        """Show a trial as ended.

        Args:
            arm: the trial's.
            number: the trial's.
            ending: None where no run has a usable result, which Optuna calls failed.
            values: one an objective; None where it was never measured.
        """
        trial_id = self._running.pop((arm.name, number), None)
        if trial_id is not None:
            known = [value for value in values if value is not None] if _state(ending) is TrialState.COMPLETE else None
            self._write(lambda storage: storage.set_trial_state_values(trial_id, _state(ending), known) and None)

    def _write(self, change: Callable[[JournalStorage], None]) -> None:
        """Write to the journal. One that cannot be written is given up with one warning: no trial waits for it."""
        if self._storage is None:
            return
        try:
            with _quiet():
                change(self._storage)
        except _JOURNAL_ERRORS as error:
            if self._taking:
                raise
            _log.warning("%s is no longer written: %s", FILE, error)
            self._storage = None


def _lies_in(arm: Arm, point: Point) -> bool:
    def there(path: str, one: BaseDistribution) -> bool:
        return point[path] in one.choices if isinstance(one, CategoricalDistribution) else one._contains(point[path])

    return all(there(path, one) for path, one in distributions(arm, point).items())


def _state(ending: Ending | None) -> TrialState:
    return _STATES[ending] if ending else TrialState.FAIL


def _curve(one: _Observation, curves: Mapping[str, Mapping[int, float | None]]) -> dict[int, float]:
    """Return the quality after each epoch that any of the runs has reached."""
    of_runs: list[Mapping[int, float | None]] = [curves.get(trial_id, {}) for trial_id in one.rows]
    epochs = sorted({epoch for curve in of_runs for epoch in curve})
    return {epoch: quality([RunResult(curve.get(epoch)) for curve in of_runs], one.metric) for epoch in epochs}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Optuna, which logs every study that it makes and calls half of its interface experimental."""
    before: Any = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
