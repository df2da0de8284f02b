"""A study's folder: append-only typed Parquet rows, one file a trial and table, whole files put into place.

    DIR/study.json            the study as it is now        DIR/trials/<trial_id>.parquet         one row
    DIR/studies/              what it was (_versions.py)     DIR/measurements/<trial_id>.parquet   one row an epoch
    DIR/provenance.json       versions, commit, hardware
    DIR/chosen.json           by arm the point that is confirmed, and of which search it is the best

DIR is a folder or the URI of an object store (storage/). In: a `Trial` and its `Outcome`. Out: Arrow tables, with the
columns of docs/results.md. Finished trials are packed into larger files (_parquet_files.py). Nothing here is unpickled.
A trial's row is written after its measurements, so a trial either is there whole or is run again; a repeated attempt
replaces its own files.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qsgd_ray.config import Study, StudyError, study_from_tree
from qsgd_ray.config.trial import Trial
from qsgd_ray.outcome import Ending, Outcome
from qsgd_ray.results._membership import COLUMNS, Choices, belonging, choices_now
from qsgd_ray.results._parquet_files import file_of, finished, pack, read_table, read_trial
from qsgd_ray.results._versions import FOLDER as VERSIONS
from qsgd_ray.results._versions import Version, keep_version, late_changes, versions
from qsgd_ray.results.schema import MEASUREMENTS, TRIALS, measurement_rows, trial_row
from qsgd_ray.storage import Storage, storage_at


@dataclass(frozen=True)
class StudyTables:
    """A study as read back: the study itself, its provenance, and the two tables sorted by trial and epoch.

    `n_others`: how many trials lie there that do not belong to the study as it is now. `changes`: what was changed of
    it after trials had been run.
    """

    study: Study
    provenance: dict[str, Any]
    trials: pa.Table
    measurements: pa.Table
    n_others: int = 0
    changes: tuple[Version, ...] = ()

    @property
    def notes(self) -> list[str]:
        """What a reader of the verdict has to know of how it came about, one line each."""
        told = []
        if self.changes:
            told.append("The study was changed after trials had been run, so not all was written before the first one:")
            told += [change.told for change in self.changes]
        if self.n_others:
            trials = "1 trial lies" if self.n_others == 1 else f"{self.n_others} trials lie"
            told.append(f"{trials} beside these that the study as it is now would not run; none counts here.")
        return told

    def rows(self, stage: str, arm: str) -> list[dict[str, Any]]:
        """The trials of a stage and an arm, made Python objects once."""
        return self._rows.get((stage, arm), [])

    def curve(self, trial_id: str) -> pa.Table:
        """The measurements of one trial, in the order of epochs; no row where there is none."""
        start, length = self._slices.get(trial_id, (0, 0))
        return self.measurements.slice(start, length)

    def to_pandas(self) -> tuple[Any, Any]:
        """Trials and measurements as data frames; whole numbers that may be missing as pandas' nullable ones."""
        import pandas as pd

        nullable = {pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype()}
        trials, measurements = (t.to_pandas(types_mapper=nullable.get) for t in (self.trials, self.measurements))
        return trials, measurements

    @cached_property
    def _rows(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        found: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in self.trials.to_pylist():
            found.setdefault((row["stage"], row["arm"]), []).append(row)
        return found

    @cached_property
    def _slices(self) -> dict[str, tuple[int, int]]:
        """Where each trial's measurements lie: a trial's stand together."""
        ids = self.measurements["trial_id"].combine_chunks().dictionary_encode()
        codes = ids.indices.to_numpy()
        starts = np.flatnonzero(np.diff(codes, prepend=-1))
        lengths = np.diff(starts, append=len(codes))
        names = ids.dictionary.take(pa.array(codes[starts])).to_pylist()
        return dict(zip(names, zip(starts.tolist(), lengths.tolist(), strict=True), strict=True))


class Results:
    """What lies at `where` of one study: write rows, ask what is finished, read tables.

    StorageError where an object store fails in mid-study; what is written, is written.
    """

    def __init__(self, where: str | Path | Storage) -> None:
        self.storage = storage_at(where)
        self.path = self.storage.location()

    def open(self, study: Study, provenance: dict[str, Any]) -> None:
        """Make the place ready for `study`: new, or one that holds it, or another version of it, and is gone on with.

        What a study was begun with stays; every later run adds its own record below `resumed`. Versions are kept, and
        what was changed after trials had been run is told in the provenance.
        """
        try:
            self.storage.create_folders("trials", "measurements", VERSIONS)
            if self.read_json("study.json") is None:
                self.storage.check_exists()
            kept = keep_version(self.storage, study, self.count)
            self.write_text("study.json", study.model_dump_json(indent=2))
            provenance = provenance | {"study_version": kept[-1].name}
            first = self.read_json("provenance.json")
            if first is not None:
                provenance = first | {"resumed": [*first.get("resumed", []), provenance]}
            if changes := late_changes(kept):
                provenance["study_changed"] = [change.told for change in changes]
            self.write_text("provenance.json", json.dumps(provenance, indent=2))
        except OSError as error:
            raise StudyError(
                f"--storage: got {self.path}; allowed: a {self.storage.kind} that can be written "
                f"({error.strerror or error})"
            ) from None

    def write(
        self, trial: Trial, outcome: Outcome, *, started_at: datetime | None = None, host: str | None = None
    ) -> None:
        """Put the trial's rows in place: measurements first, the trial's own row last. The trial ends now."""
        ended_at = datetime.now(UTC)
        for table, schema, rows in (
            ("measurements", MEASUREMENTS, measurement_rows(trial, outcome)),
            ("trials", TRIALS, [trial_row(trial, outcome, started_at=started_at, ended_at=ended_at, host=host)]),
        ):
            content = pa.BufferOutputStream()
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), content)
            self.storage.put(file_of(table, trial.trial_id), content.getvalue().to_pybytes())

    def write_text(self, name: str, text: str) -> Path | str:
        """A whole text file `name` beside the rows, put into place."""
        self.storage.put(name, text.encode())
        return self.storage.location(name)

    def read_json(self, name: str) -> Any:
        """The JSON file `name` beside the rows, None where there is none; StudyError where it is broken."""
        try:
            return json.loads(self.storage.read(name))
        except FileNotFoundError:
            return None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise StudyError(
                f"DIR: got {self.path}, whose {name} is broken ({error}); allowed: a study's {self.storage.kind}"
            ) from None

    def count(self) -> int:
        """How many trials have their row."""
        return len(finished(self.storage))

    def has(self, trial_id: str) -> bool:
        """Whether this trial's row is there (a lost one is not: it is tried again)."""
        try:
            return self.ending(trial_id) != Ending.LOST
        except FileNotFoundError:
            return False

    def ending(self, trial_id: str) -> Ending:
        """How the trial of this id ended; its row must be there."""
        return Ending(self._rows("trials", trial_id)["ending"][0].as_py())

    def row(self, trial_id: str) -> dict[str, Any]:
        """The row of one trial, which must be there."""
        return dict(self._rows("trials", trial_id).to_pylist()[0])

    def trajectory(self, trial_id: str) -> list[dict[str, Any]]:
        """The measurements of one trial, in the order of epochs."""
        return self._rows("measurements", trial_id).sort_by("epoch").to_pylist()

    def choices(self, study: Study) -> Choices:
        """The points at which the arms of `study` are confirmed."""
        return choices_now(study, self.read_json("chosen.json"))

    def tables(self, study: Study | None = None) -> StudyTables:
        """What belongs to `study` (None: to the study as it is now)."""
        tables = self.all_tables()
        study = study or tables.study
        ids = belonging(study, tables.trials.select(COLUMNS).to_pylist(), self.choices(study))
        trials, measurements = (
            table.filter(pa.compute.is_in(table["trial_id"], pa.array(ids, pa.string())))
            for table in (tables.trials, tables.measurements)
        )
        changes = late_changes(versions(self.storage))
        return StudyTables(
            study, tables.provenance, trials, measurements, tables.trials.num_rows - trials.num_rows, changes
        )

    def all_tables(self) -> StudyTables:
        """All that lies here. Measurements without their trial's row (a kill came between) are left out."""
        tree, provenance = self.read_json("study.json"), self.read_json("provenance.json")
        if tree is None or provenance is None:
            self.storage.check_exists()
            raise StudyError(f"DIR: got {self.path}; allowed: a {self.storage.kind} that a study was run into")
        study = study_from_tree(tree)
        trials = read_table(self.storage, "trials").sort_by([("stage", "ascending"), ("trial_id", "ascending")])
        measurements = read_table(self.storage, "measurements")
        # By the trial's place among the trials: a number a row; sorting by three columns compares text.
        place = pc.index_in(measurements["trial_id"], trials["trial_id"].combine_chunks())
        measurements = measurements.append_column("place", place).filter(pc.is_valid(place))
        place, epoch = (measurements[name].to_numpy().astype(np.int64) for name in ("place", "epoch"))
        order = np.argsort((place << 32) + epoch, kind="stable")
        return StudyTables(study, provenance, trials, measurements.drop_columns("place").take(order))

    def pack(self) -> int:
        """Put the files of finished trials together, where they are many; how many trials were packed."""
        return pack(self.storage)

    def _rows(self, table: str, trial_id: str) -> pa.Table:
        rows = read_trial(self.storage, table, trial_id)
        if rows is None:
            raise FileNotFoundError(self.storage.location(file_of(table, trial_id)))
        return rows


def read_results(where: str | Path | Storage) -> StudyTables:
    """The study in a folder or at a URI (`.trials.to_pandas()` is a data frame)."""
    return Results(where).tables()
