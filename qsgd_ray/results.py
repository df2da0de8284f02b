"""A study's folder: append-only typed Parquet rows, one file a trial and table, whole files put into place.

    DIR/study.json            the study as it is now        DIR/trials/<trial_id>.parquet         one row
    DIR/studies/              what it was (versions.py)     DIR/measurements/<trial_id>.parquet   one row an epoch
    DIR/provenance.json       versions, commit, hardware
    DIR/chosen.json           by arm the point that is confirmed, and of which search it is the best

DIR is a folder or the URI of an object store (storage.py). In: a `Trial` and its `Outcome`. Out: Arrow tables. Nothing
here is ever unpickled. A trial's row is written after its measurements, so a trial either is there whole or is run
again; a repeated attempt replaces its own files.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from qsgd_ray.belonging import COLUMNS, Choices, belonging, choices_now
from qsgd_ray.config import Study, StudyError, study_from_tree
from qsgd_ray.outcome import Ending, Outcome
from qsgd_ray.rows import MEASUREMENTS, TRIALS, measurement_rows, trial_row
from qsgd_ray.storage import Storage, StorageError, storage_at
from qsgd_ray.trial import Trial
from qsgd_ray.versions import FOLDER as VERSIONS
from qsgd_ray.versions import Version, keep_version, late_changes, versions


@dataclass(frozen=True)
class Tables:
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


class Results:
    """What lies at `where` of one study: write rows, ask what is finished, read tables.

    StorageError where an object store fails in mid-study; what is written, is written.
    """

    def __init__(self, where: str | Path | Storage) -> None:
        self.storage = storage_at(where)
        self.path = self.storage.place()

    def open(self, study: Study, provenance: dict[str, Any]) -> None:
        """Make the place ready for `study`: new, or one that holds it, or another version of it, and is gone on with.

        What a study was begun with stays; every later run adds its own record below `resumed`. Versions are kept, and
        what was changed after trials had been run is told in the provenance.
        """
        try:
            self.storage.make_ready("trials", "measurements", VERSIONS)
            if self.read_json("study.json") is None:
                self.storage.require()
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
            self.storage.put(_file(table, trial.trial_id), content.getvalue().to_pybytes())

    def write_text(self, name: str, text: str) -> Path | str:
        """A whole text file `name` beside the rows, put into place."""
        self.storage.put(name, text.encode())
        return self.storage.place(name)

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
        return len(self.storage.names("trials", ".parquet"))

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

    def read_study(self, study: Study | None = None) -> Tables:
        """What belongs to `study` (None: to the study as it is now)."""
        tables = self.read()
        study = study or tables.study
        ids = belonging(study, tables.trials.select(COLUMNS).to_pylist(), self.choices(study))
        trials, measurements = (
            table.filter(pa.compute.is_in(table["trial_id"], pa.array(ids, pa.string())))
            for table in (tables.trials, tables.measurements)
        )
        changes = late_changes(versions(self.storage))
        return Tables(study, tables.provenance, trials, measurements, tables.trials.num_rows - trials.num_rows, changes)

    def read(self) -> Tables:
        """All that lies here. Measurements without their trial's row (a kill came between) are left out."""
        tree, provenance = self.read_json("study.json"), self.read_json("provenance.json")
        if tree is None or provenance is None:
            self.storage.require()
            raise StudyError(f"DIR: got {self.path}; allowed: a {self.storage.kind} that a study was run into")
        study = study_from_tree(tree)
        trials = self._table("trials", TRIALS).sort_by([("stage", "ascending"), ("trial_id", "ascending")])
        measurements = self._table("measurements", MEASUREMENTS)
        kept = pa.compute.is_in(measurements["trial_id"], trials["trial_id"].combine_chunks())
        order = [("stage", "ascending"), ("trial_id", "ascending"), ("epoch", "ascending")]
        return Tables(study, provenance, trials, measurements.filter(kept).sort_by(order))

    def _rows(self, table: str, trial_id: str) -> pa.Table:
        return pq.read_table(pa.BufferReader(self.storage.read(_file(table, trial_id))))

    def _table(self, name: str, schema: pa.Schema) -> pa.Table:
        def rows(file: str) -> pa.Table:
            try:
                return pq.read_table(pa.BufferReader(self.storage.read(f"{name}/{file}")), schema=schema)
            except StorageError:
                raise
            except (pa.ArrowInvalid, OSError) as error:
                told = " ".join(str(error).split())
                raise StudyError(
                    f"DIR: got {self.storage.place(f'{name}/{file}')}, which cannot be read ({told}); "
                    "allowed: the rows of a trial"
                ) from None

        # An object store answers late, but many at once.
        with ThreadPoolExecutor(self.storage.reads_at_once) as readers:
            return pa.concat_tables([schema.empty_table(), *readers.map(rows, self.storage.names(name, ".parquet"))])


def _file(table: str, trial_id: str) -> str:
    return f"{table}/{trial_id}.parquet"


def read(where: str | Path | Storage) -> Tables:
    """The study in a folder or at a URI (`.trials.to_pandas()` is a data frame)."""
    return Results(where).read_study()
