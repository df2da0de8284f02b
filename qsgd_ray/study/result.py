"""The result of a study as one object: verdicts, rows, figures and the report, for scripts and notebooks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsgd_ray.analysis.status import is_finished
from qsgd_ray.analysis.study_analysis import StudyAnalysis, analyse
from qsgd_ray.analysis.verdict import ArmVerdict
from qsgd_ray.config import Study, StudyError
from qsgd_ray.reporting.notebook import verdict_html, verdict_text
from qsgd_ray.reporting.verdict_document import as_json, study_document
from qsgd_ray.reporting.verdict_formats import formatted_verdict
from qsgd_ray.results import StudyTables
from qsgd_ray.storage import Folder, Storage, StorageError, storage_at

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    import pyarrow as pa


class Verdicts(tuple[ArmVerdict, ...]):
    """The verdicts of a study, one for each arm but the baseline; printed as one line an arm."""

    def __repr__(self) -> str:
        return verdict_text(self)

    def _repr_html_(self) -> str:
        """Return a table for a notebook."""
        return verdict_html(self)


@dataclass(frozen=True, eq=False)
class StudyResult:
    """A study as its rows have it, finished or not; what is derived from them is computed once, when it is asked for.

    Differences and intervals are in the unit of the decision's metric; of a share, such as accuracy, in points where
    they are printed, fractions of one in the objects.

    Attributes:
        tables: the study, its provenance and its rows at the time of reading.
        storage: where they lie.
        failure: one line, the reason for which `run` could not finish the study; None: it did, or the result was read
            by `read_results`.
        warnings: one line each, for what went wrong beside the rows: trackers, checkpoints.
    """

    tables: StudyTables = field(repr=False)
    storage: Storage
    failure: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def study(self) -> Study:
        """The study as it is now."""
        return self.tables.study

    @property
    def trials(self) -> pa.Table:
        """One row a trial, an Arrow table with the columns of docs/results.md."""
        return self.tables.trials

    @property
    def measurements(self) -> pa.Table:
        """One row an epoch of a trial, an Arrow table with the columns of docs/results.md."""
        return self.tables.measurements

    def to_pandas(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return trials and measurements as data frames."""
        trials, measurements = self.tables.to_pandas()
        return trials, measurements

    @property
    def is_finished(self) -> bool:
        """True where every planned trial has ended; one that was lost or lacked something is to be run again."""
        return is_finished(self.tables)

    @cached_property
    def analysis(self) -> StudyAnalysis:
        """Everything that the rows show: verdicts, summaries, ladders, claims, map and costs."""
        return analyse(self.tables)

    @property
    def verdicts(self) -> Verdicts:
        """The verdicts, one for each arm but the baseline, in the study's order."""
        return Verdicts(self.analysis.verdicts)

    @cached_property
    def document(self) -> dict[str, Any]:
        """The verdicts and the rule behind them as a JSON tree, that of verdict.json (docs/results.md)."""
        return study_document(self.analysis, finished=self.is_finished)

    def format(self, text_format: str) -> str:
        """Return the verdicts as text for another program or a paper: `json`, `csv`, `markdown` or `latex`.

        Raises:
            StudyError: there is no such format.
        """
        return formatted_verdict(self.document, text_format)

    @cached_property
    def figures(self) -> Mapping[str, go.Figure]:
        """The plotly figures of the report by name, in reading order; those without rows are left out."""
        from qsgd_ray.reporting.figures import figures

        return figures(self.analysis)

    @property
    def page(self) -> Path | str:
        """The place of the report beside the rows, `report.html`."""
        return self.storage.location("report.html")

    def report(self, path: str | Path | None = None, *, limits: str | Path | Storage | None = None) -> Path | str:
        """Write the report, one page that works offline, and return where it is.

        Args:
            path: a file; None: `report.html` beside the rows, and with it `verdict.json`, the verdicts for machines.
            limits: results of a study of limits for the page's section on scaling; None: the newest one in a folder
                beside the study's, if there is any.

        Raises:
            StudyError: the file cannot be written, or `limits` holds no study of limits.
        """
        from qsgd_ray.reporting.page import render_page

        try:
            if path is None:
                self.storage.put(
                    "report.html", render_page(self.analysis, self._scaling(self.storage, limits)).encode()
                )
                self.storage.put("verdict.json", as_json(self.document).encode())
                return self.page
            file = Path(path)
            folder = Folder(file.parent)
            folder.put(file.name, render_page(self.analysis, self._scaling(folder, limits)).encode())
            return file
        except StorageError as error:
            if error.errno is None or error.is_of_disk:
                raise
            place, option = (self.page, "DIR") if path is None else (path, "path")
            raise StudyError(f"{option}: got {place}; allowed: a file that can be written ({error.strerror})") from None

    def _scaling(self, of_page: Storage, limits: str | Path | Storage | None) -> dict[str, Any] | None:
        """Return the page's section on scaling: of the limits named, else of the newest beside a study in a folder.

        Limits that are named and cannot be read are an error; those that only lie there are left out.
        """
        from qsgd_ray.limits.page import section
        from qsgd_ray.limits.rows import LimitsResults

        if limits is not None:
            named = storage_at(limits, "--limits")
            return section(LimitsResults(named), _link(of_page, named))
        if not isinstance(self.storage, Folder):
            return None
        beside = [file for file in self.storage.path.resolve().parent.glob("*/limits.json") if file.is_file()]
        beside.sort(key=lambda file: file.stat().st_mtime)
        if not beside:
            return None
        newest = storage_at(beside[-1].parent)
        with suppress(StudyError, StorageError):
            return section(LimitsResults(newest), _link(of_page, newest))
        return None

    def _repr_html_(self) -> str:
        """Return the verdicts with their intervals, and notes, for a notebook."""
        state = "" if self.is_finished else " (unfinished)"
        notes = "".join(f"<p>{escape(note)}</p>" for note in (*self.analysis.notes, *self.warnings))
        failure = f"<p>{escape(self.failure)}</p>" if self.failure else ""
        question = f"<p><b>{escape(self.study.name)}</b>: {escape(self.study.question)}{state}</p>"
        return f"{question}{self.verdicts._repr_html_()}{notes}{failure}"


def _link(of_page: Storage, limits: Storage) -> str:
    """Return the link from a study's page to that of the limits: relative where both are folders."""
    if isinstance(of_page, Folder) and isinstance(limits, Folder):
        return os.path.relpath(limits.path.resolve() / "limits.html", of_page.path.resolve())
    return str(limits.location("limits.html"))
