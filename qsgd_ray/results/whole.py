"""Results of a study of several workloads: its own files in a folder, and the results of each part in a folder below.

DIR/study.json         the whole study as it is now       DIR/<workload>/   results of a part (results.py)
DIR/studies/           what it was (_versions.py)
DIR/provenance.json    versions, commit, hardware
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from qsgd_ray.config import Study, StudyError
from qsgd_ray.results._stored_json import check_provenance
from qsgd_ray.results._versions import FOLDER as VERSIONS
from qsgd_ray.results._versions import late_changes, versions
from qsgd_ray.results.results import Results
from qsgd_ray.results.schema import MEASUREMENTS, TRIALS
from qsgd_ray.results.tables import StudyTables
from qsgd_ray.storage import Storage, storage_at


class WholeResults(Results):
    """Results of a study of several workloads as one; rows are written and looked up in its `parts`.

    Args:
        where: a folder, the URI of an object store, or a storage.
        workloads: names of the workloads. None: those of the study that is stored there.

    Attributes:
        parts: the results of each part, by the workload's name.

    Raises:
        StudyError: no study of several workloads was run into `where`; one line.
    """

    _folders = (VERSIONS,)

    def __init__(self, where: str | Path | Storage, workloads: tuple[str, ...] | None = None) -> None:
        super().__init__(where)
        if workloads is None:
            workloads = tuple(self.study().workloads or ())
        self.parts: Mapping[str, Results] = {name: Results(self.storage / name) for name in workloads}

    def study(self) -> Study:
        """Return the whole study as it is stored; StudyError, one line, where there is none."""
        tree = self.read_json("study.json")
        if tree is None:
            self.storage.check_exists()
            raise StudyError(f"DIR: got {self.path}; allowed: a {self.storage.kind} that a study was run into")
        return self._study(tree)

    def count(self) -> int:
        """Return the number of trials of all parts that have their row."""
        return sum(part.count() for part in self.parts.values())

    def release(self) -> None:
        """Give the whole and its parts back before their blocks end; do nothing where they are not held."""
        for part in self.parts.values():
            part.release()
        super().release()

    def tables(self, study: Study | None = None, *, measurements: bool = True) -> StudyTables:
        """Return the rows of all parts together; the column `study` tells the part, STUDY/WORKLOAD.

        Args:
            study: the whole study. None: as it is stored now.
            measurements: False leaves that table empty and unread.
        """
        return self.joined(self.tables_of_parts(study, measurements=measurements), study)

    def joined(self, parts: Mapping[str, StudyTables], study: Study | None = None) -> StudyTables:
        """Return tables of parts as those of the whole study.

        Args:
            parts: as `tables_of_parts` returns them.
            study: the whole study. None: as it is stored now.
        """
        provenance: dict[str, Any] = self.read_json("provenance.json") or {}
        check_provenance(provenance, self.storage.location("provenance.json"))
        trials, epochs = (pa.concat_tables(getattr(part, name) for part in parts.values()) for name in _TABLES)
        return StudyTables(study or self.study(), provenance, trials, epochs, 0, late_changes(versions(self.storage)))

    def tables_of_parts(self, study: Study | None = None, *, measurements: bool = True) -> dict[str, StudyTables]:
        """Return the tables of every part; empty ones of a part that was not begun.

        Args:
            study: the whole study. None: as it is stored now.
            measurements: False leaves that table empty and unread.

        Raises:
            StudyError: a file is broken; one line that names it.
        """
        studies = (study or self.study()).parts()
        return {name: self._of_part(name, part, measurements) for name, part in studies.items()}

    def _of_part(self, name: str, study: Study, measurements: bool) -> StudyTables:
        part = self.parts.get(name) or Results(self.storage / name)
        if part.read_json("study.json") is None:
            return StudyTables(study, {}, TRIALS.empty_table(), MEASUREMENTS.empty_table())
        return part.tables(study, measurements=measurements)


_TABLES = ("trials", "measurements")


def is_whole(storage: Storage) -> bool:
    """Return True where a storage holds a study of several workloads; StudyError where its study.json is broken."""
    tree = Results(storage_at(storage)).read_json("study.json")
    return tree is not None and tree.get("workloads") is not None
