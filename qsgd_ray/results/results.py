"""Results of a study: append-only typed Parquet rows in a folder or an object store.

    DIR/study.json            the study as it is now        DIR/trials/<trial_id>.parquet         one row
    DIR/studies/              what it was (_versions.py)     DIR/measurements/<trial_id>.parquet   one row an epoch
    DIR/provenance.json       versions, commit, hardware
    DIR/spending.json         the time that its runs took (spending.py)
    DIR/chosen.json           by arm the point that is confirmed, and of which search it is the best

DIR is a folder or the URI of an object store (storage/). In: a `Trial` and its `Outcome`. Out: `StudyTables`. Finished
trials are packed into larger files (_parquet_files.py). Nothing here is unpickled. A trial's row is written after its
measurements, so a trial is there whole or is run again; a repeated attempt replaces its own files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qsgd_ray.config import Study, StudyError, study_from_tree
from qsgd_ray.config.json_text import parse_json
from qsgd_ray.config.trial import Trial
from qsgd_ray.outcome import REPEATED, Ending, Outcome
from qsgd_ray.results._membership import COLUMNS, ChoiceError, Choices, current_choices, member_ids
from qsgd_ray.results._parquet_files import finished_ids, pack, read_table, read_trial, trial_file
from qsgd_ray.results._rows import measurement_rows, trial_row
from qsgd_ray.results._stored_json import check_provenance
from qsgd_ray.results._versions import FOLDER as VERSIONS
from qsgd_ray.results._versions import late_changes, record_version, versions
from qsgd_ray.results.schema import MEASUREMENTS, TRIALS
from qsgd_ray.results.spending import _read_spending, _spending_of_rows
from qsgd_ray.results.tables import StudyTables
from qsgd_ray.storage import Lease, Storage, held, refused, refused_unless_written, shown, storage_at


class Results:
    """Results of one study, open to write rows, to look up finished trials and to read tables.

    Methods raise StorageError where an object store fails in mid-study; rows that were written stay.

    Args:
        where: a folder, the URI of an object store, or a storage. Nothing is created before `open`.

    Attributes:
        storage: the storage of the files.
        path: its path or URI, for messages.

    Example:
        >>> results = Results("results/quick")  # doctest: +SKIP
        >>> results.tables().trials["ending"].value_counts()  # doctest: +SKIP
    """

    # Those of its files that lie in folders.
    _folders: tuple[str, ...] = ("trials", "measurements", VERSIONS)

    def __init__(self, where: str | Path | Storage) -> None:
        self.storage = storage_at(where)
        self.path = self.storage.location()
        self._lease: Lease | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_lease": None}  # workers write rows, and hold nothing

    def open(self, study: Study, provenance: dict[str, Any]) -> None:
        """Prepare the storage for a study: a new one, or one that holds this study or another version of it.

        The provenance of the first run stays; every later run adds its own below `resumed`. Every version of the study
        is kept, and changes that came after trials had been run are listed in the provenance.

        Args:
            study: the study as it is now.
            provenance: what this run is made with, as JSON (results/provenance.py).

        Raises:
            StudyError: the storage cannot be written, or holds trials of a version of this package that cannot be
                gone on with.
        """
        with refused_unless_written(self.storage):
            self.storage.create_folders(*self._folders)
            self.storage.remove_abandoned("", *self._folders)
            if (stored := self.read_json("study.json")) is None:
                self.storage.check_exists()
            elif (stored.get("workloads") is None) != (study.workloads is None):
                kind = "one workload" if stored.get("workloads") is None else "several workloads"
                problem = f"which holds a study of {kind}"
                raise refused(self.storage, problem, "another name of the study, or a new place", "--storage")
            all_versions = record_version(self.storage, study, self.count)
            self.write_text("study.json", study.model_dump_json(indent=2))
            provenance = provenance | {"study_version": all_versions[-1].name}
            first = self.read_json("provenance.json")
            if first is not None:
                check_provenance(first, self.storage.location("provenance.json"))
                provenance = first | {"resumed": [*first.get("resumed", []), provenance]}
            if changes := late_changes(all_versions):
                provenance["study_changed"] = [change.summary for change in changes]
            self.write_text("provenance.json", json.dumps(provenance, indent=2))

    @contextmanager
    def held(self) -> Iterator[Lease]:
        """Hold the storage in the block: no other process runs a study into it meanwhile. Reading needs no lease.

        Raises:
            StudyError: a living process runs a study into it, or it cannot be written; one line.
        """
        with held(self.storage) as lease:
            self._lease = lease
            yield lease

    def release(self) -> None:
        """Give the storage back before its block ends, for a process that is about to end; else do nothing."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()

    def write(
        self, trial: Trial, outcome: Outcome, *, started_at: datetime | None = None, host: str | None = None
    ) -> None:
        """Put a trial's rows into place: measurements first, the trial's own row last. The trial ends now.

        Args:
            trial: the trial. Rows of an earlier attempt are replaced.
            outcome: how it ended, and its measurements.
            started_at: when it began, in UTC. None: unknown.
            host: the machine of its first worker. None: unknown.
        """
        ended_at = datetime.now(UTC)
        for table, schema, rows in (
            ("measurements", MEASUREMENTS, measurement_rows(trial, outcome)),
            ("trials", TRIALS, [trial_row(trial, outcome, started_at=started_at, ended_at=ended_at, host=host)]),
        ):
            content = pa.BufferOutputStream()
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), content)
            self.storage.put(trial_file(table, trial.trial_id), content.getvalue().to_pybytes())

    def write_text(self, name: str, text: str) -> Path | str:
        """Put a text file beside the rows, whole, and return its path or URI.

        Args:
            name: the file's name.
            text: its content, written as UTF-8.
        """
        self.storage.put(name, text.encode())
        return self.storage.location(name)

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Return the object in a JSON file beside the rows, None where there is none; StudyError for anything else."""
        try:
            tree = parse_json(self.storage.read(name))
            if not isinstance(tree, dict):
                raise ValueError(f"{shown(json.dumps(tree), 20)} in place of an object")
        except FileNotFoundError:
            return None
        except ValueError as error:
            if isinstance(error, StudyError):
                raise
            raise refused(self.path, f"whose {name} is broken ({error})", f"a study's {self.storage.kind}") from None
        return tree

    def count(self) -> int:
        """Return the number of trials that have their row."""
        return len(finished_ids(self.storage))

    def has(self, trial_id: str) -> bool:
        """Return True where a trial has its row; False also for one that is run again (`REPEATED`)."""
        try:
            return self.ending(trial_id) not in REPEATED
        except FileNotFoundError:
            return False

    def ending(self, trial_id: str) -> Ending:
        """Return how a trial ended; FileNotFoundError where it has no row."""
        return Ending(self._rows("trials", trial_id)["ending"][0].as_py())

    def row(self, trial_id: str) -> dict[str, Any]:
        """Return the row of a trial; FileNotFoundError where it has none."""
        return dict(self._rows("trials", trial_id).to_pylist()[0])

    def trajectory(self, trial_id: str) -> list[dict[str, Any]]:
        """Return the measurements of a trial in the order of epochs; FileNotFoundError where it has none."""
        return self._rows("measurements", trial_id).sort_by("epoch").to_pylist()

    def choices(self, study: Study) -> Choices:
        """Return the points at which the arms of `study` are confirmed, as far as they are chosen.

        None for an arm whose point was chosen for another search; no entry for an arm that never had one.
        """
        try:
            return current_choices(study, self.read_json("chosen.json"))
        except ChoiceError as error:
            raise refused(self.storage.location("chosen.json"), error, "by arm its search and its point") from None

    def stored_study(self) -> Study | None:
        """Return the study as the storage has it now; None where no study was run into it, or where it is broken."""
        try:
            tree = self.read_json("study.json")
            return None if tree is None else study_from_tree(tree)
        except StudyError:
            return None

    def tables(self, study: Study | None = None, *, measurements: bool = True) -> StudyTables:
        """Return the rows that belong to a study; `qsgd_ray.results.read` does so without an open `Results`.

        Args:
            study: the study. None: the study as it is stored now.
            measurements: False leaves that table empty and unread, which takes a fraction of the time.

        Raises:
            StudyError: no study was run into this storage, or a file is broken; one line that names it.
        """
        tables = self._stored_tables(measurements)
        study = study or tables.study
        ids = member_ids(study, tables.trials.select(COLUMNS).to_pylist(), self.choices(study))
        trials, epochs = (
            table.filter(pa.compute.is_in(table["trial_id"], pa.array(ids, pa.string())))
            for table in (tables.trials, tables.measurements)
        )
        changes = late_changes(versions(self.storage))
        n_others = tables.trials.num_rows - trials.num_rows
        return StudyTables(study, tables.provenance, trials, epochs, n_others, changes, tables.spending)

    def all_tables(self) -> StudyTables:
        """Return all rows, also those of earlier versions of the study that it would not run now.

        Measurements without their trial's row are left out: the process was killed between the two.

        Raises:
            StudyError: no study was run into this storage, or a file is broken; one line that names it.
        """
        return self._stored_tables(measurements=True)

    def _stored_tables(self, measurements: bool) -> StudyTables:
        tree, provenance = self.read_json("study.json"), self.read_json("provenance.json")
        if tree is None or provenance is None:
            self.storage.check_exists()
            raise StudyError(f"DIR: got {self.path}; allowed: a {self.storage.kind} that a study was run into")
        study = self._study(tree)
        if study.workloads is not None:
            parts = ", ".join(study.workloads)
            raise refused(self.path, "which is a study of several workloads", f"the folder of a part in it: {parts}")
        check_provenance(provenance, self.storage.location("provenance.json"))
        trials = read_table(self.storage, "trials").sort_by([("stage", "ascending"), ("trial_id", "ascending")])
        spending = _read_spending(self.storage) or _spending_of_rows(trials)
        if not measurements:
            return StudyTables(study, provenance, trials, MEASUREMENTS.empty_table(), spending=spending)
        epochs = read_table(self.storage, "measurements")
        # Sorted by the index of the trial, a number; sorting by three columns would compare text.
        index = pc.index_in(epochs["trial_id"], trials["trial_id"].combine_chunks())
        epochs = epochs.append_column("index", index).filter(pc.is_valid(index))
        trial, epoch = (epochs[name].to_numpy().astype(np.int64) for name in ("index", "epoch"))
        order = np.argsort((trial << 32) + epoch, kind="stable")
        epochs = epochs.drop_columns("index").take(order)
        return StudyTables(study, provenance, trials, epochs, spending=spending)

    def _study(self, tree: dict[str, Any]) -> Study:
        try:
            return study_from_tree(tree)
        except StudyError as error:
            field, _, reason = str(error).partition("; allowed: ")
            raise refused(self.storage.location("study.json"), f"with {field}", reason or "a study") from None

    def pack(self) -> int:
        """Put the files of finished trials together where they are many, and return how many trials were packed."""
        return pack(self.storage)

    def _rows(self, table: str, trial_id: str) -> pa.Table:
        rows = read_trial(self.storage, table, trial_id)
        if rows is None:
            raise FileNotFoundError(self.storage.location(trial_file(table, trial_id)))
        return rows


def read(where: str | Path | Storage) -> StudyTables:
    """Return the tables of a study that was run into a folder or an object store.

    `qsgd_ray.read_results` returns them with their verdicts and figures.

    Args:
        where: the folder, the URI, or the storage. Nothing is written.

    Raises:
        StudyError: no study was run into it, or a file is broken; one line that names it.
        StorageError: the object store does not answer, or refuses.

    Example:
        >>> read("s3://bucket/studies/quick").trials.num_rows  # doctest: +SKIP
        42
    """
    return Results(where).tables()
