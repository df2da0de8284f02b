"""Tables of a study as they are read back: trials and measurements, with the study and its provenance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from qsgd_ray.config import Study
from qsgd_ray.config.errors import validation_message
from qsgd_ray.config.trial import Trial
from qsgd_ray.results._versions import Version
from qsgd_ray.results.spending import _NOTHING_SPENT, Spending
from qsgd_ray.storage import refused


def trial_of(row: dict[str, Any]) -> Trial:
    """Return the trial that a row of `TRIALS` tells of, which a row of schema 7 or later does.

    Raises:
        StudyError: this version has no such trial; one line that names it.
    """
    try:
        return Trial.model_validate_json(row["trial"])
    except ValidationError as error:
        place = f"the row of {row['trial_id']}"
        raise refused(place, f"with trial.{validation_message(error)}", "a trial of this version") from None


@dataclass(frozen=True)
class StudyTables:
    """A study as it is read back; the columns of its tables are those of docs/results.md.

    Attributes:
        study: the study.
        provenance: what the results were made with, as JSON: versions, commit, hardware (results/provenance.py).
        trials: Arrow table, a row a trial, sorted by stage and `trial_id`.
        measurements: Arrow table, a row an epoch of a trial, sorted by trial and epoch.
        n_others: number of trials that lie there and do not belong to the study as it is now.
        changes: versions of the study that changed it after trials had been run.
        spending: the time that all of its runs took, with trials that no longer belong to it.

    Example:
        >>> from qsgd_ray.results import read
        >>> tables = read("results/quick")  # doctest: +SKIP
        >>> trials, measurements = tables.to_pandas()  # doctest: +SKIP
        >>> trials.groupby("arm")["test_accuracy"].median()  # doctest: +SKIP
    """

    study: Study
    provenance: dict[str, Any]
    trials: pa.Table
    measurements: pa.Table
    n_others: int = 0
    changes: tuple[Version, ...] = ()
    spending: Spending = _NOTHING_SPENT

    @property
    def notes(self) -> list[str]:
        """Sentences on how the verdict came about that its reader has to know, one line each."""
        lines = []
        if self.changes:
            lines.append(
                "The study was changed after trials had been run, so not all was written before the first one:"
            )
            lines += [change.summary for change in self.changes]
        if self.n_others:
            trials = "1 trial lies" if self.n_others == 1 else f"{self.n_others} trials lie"
            lines.append(f"{trials} beside these that the study as it is now would not run; none counts here.")
        return lines

    def rows(self, stage: str, arm: str) -> list[dict[str, Any]]:
        """Return the trials of a stage and an arm as dicts; they are made once.

        Args:
            stage: `search`, `confirm` or `map`.
            arm: the arm's name.
        """
        return self._rows.get((stage, arm), [])

    def curve(self, trial_id: str) -> pa.Table:
        """Return the measurements of one trial, in the order of epochs; no row where there is none."""
        start, length = self._slices.get(trial_id, (0, 0))
        return self.measurements.slice(start, length)

    def to_pandas(self) -> tuple[Any, Any]:
        """Return trials and measurements as data frames; whole numbers that may be missing as pandas' nullable ones."""
        import pandas as pd

        nullable = {pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype()}
        trials, measurements = (t.to_pandas(types_mapper=nullable.get) for t in (self.trials, self.measurements))
        return trials, measurements

    @cached_property
    def _rows(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in self.trials.to_pylist():
            rows.setdefault((row["stage"], row["arm"]), []).append(row)
        return rows

    @cached_property
    def _slices(self) -> dict[str, tuple[int, int]]:
        """Start and number of each trial's measurements, which stand together."""
        ids = self.measurements["trial_id"].combine_chunks().dictionary_encode()
        codes = ids.indices.to_numpy()
        starts = np.flatnonzero(np.diff(codes, prepend=-1))
        lengths = np.diff(starts, append=len(codes))
        names = ids.dictionary.take(pa.array(codes[starts])).to_pylist()
        return dict(zip(names, zip(starts.tolist(), lengths.tolist(), strict=True), strict=True))
