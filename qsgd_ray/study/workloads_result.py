"""The result of a study of several workloads as one object: joint verdicts, and the result of each part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsgd_ray.analysis.joint import JointAnalysis, analyse_jointly
from qsgd_ray.config import Study, StudyError
from qsgd_ray.reporting.joint_document import joint_document
from qsgd_ray.reporting.notebook import joint_html
from qsgd_ray.reporting.verdict_document import as_json
from qsgd_ray.reporting.verdict_formats import formatted_verdict
from qsgd_ray.results import StudyTables
from qsgd_ray.results.whole import WholeResults
from qsgd_ray.storage import Folder, Storage, StorageError
from qsgd_ray.study.result import StudyResult, Verdicts

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    import pyarrow as pa


@dataclass(frozen=True, eq=False)
class WorkloadsResult:
    """A study of several workloads as its rows have it, finished or not.

    Differences of the joint verdicts are in margins, direction-adjusted so that more is better; those of a part's are
    in the unit of its metric.

    Attributes:
        tables: the study, its provenance, and the rows of all parts; the column `study` tells the part.
        parts: the result of each workload by itself, by its name.
        storage: where the whole lies; each part lies in the folder of its workload's name.
        failure: one line, the reason for which `run` could not finish the study; None: it did, or the result was read.
        warnings: one line each, for what went wrong beside the rows.

    Example:
        >>> import qsgd_ray
        >>> result = qsgd_ray.read_results("results/optimizers")  # doctest: +SKIP
        >>> result.verdicts, result.parts["rings"].verdicts  # doctest: +SKIP
    """

    tables: StudyTables = field(repr=False)
    parts: Mapping[str, StudyResult]
    storage: Storage
    failure: str | None = None
    warnings: tuple[str, ...] = ()

    @classmethod
    def read(
        cls,
        results: WholeResults,
        study: Study | None = None,
        known: Mapping[str, StudyResult] | None = None,
        failure: str | None = None,
    ) -> WorkloadsResult:
        """Return the result of rows as they lie there.

        Args:
            results: of the whole.
            study: the whole study. None: as it is stored now.
            known: results of parts that are read already. None: none.
            failure: why the run of the whole ended early. None: it did not.
        """
        study, known = study or results.study(), known or {}
        if len(known) < len(study.parts()):
            tables = results.tables_of_parts(study)
            read = {name: StudyResult(tables[name], results.storage / name) for name in tables}
            known = {name: known.get(name, result) for name, result in read.items()}
        failures = [f"{name}: {part.failure}" for name, part in known.items() if part.failure]
        return cls(
            tables=results.joined({name: part.tables for name, part in known.items()}, study),
            parts=known,
            storage=results.storage,
            failure=failure or "; ".join(failures) or None,
            warnings=tuple(f"{name}: {line}" for name, part in known.items() for line in part.warnings),
        )

    @property
    def study(self) -> Study:
        """The whole study as it is now."""
        return self.tables.study

    @property
    def trials(self) -> pa.Table:
        """One row a trial of all parts; the column `study` tells the part, STUDY/WORKLOAD."""
        return self.tables.trials

    @property
    def measurements(self) -> pa.Table:
        """One row an epoch of a trial of all parts; `trial_id` alone tells the part where their tasks differ."""
        return self.tables.measurements

    def to_pandas(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return trials and measurements of all parts as data frames."""
        trials, measurements = self.tables.to_pandas()
        return trials, measurements

    @property
    def is_finished(self) -> bool:
        """True where every planned trial of every part has ended."""
        return all(part.is_finished for part in self.parts.values())

    @cached_property
    def analysis(self) -> JointAnalysis:
        """Everything that the rows show of the workloads together, with the analysis of each part."""
        parts = {name: part.analysis for name, part in self.parts.items()}
        return analyse_jointly(self.study, parts, self.tables.notes)

    @property
    def verdicts(self) -> Verdicts:
        """The joint verdicts, one for each arm but the baseline, in the study's order."""
        return Verdicts(self.analysis.verdicts)

    @cached_property
    def figures(self) -> Mapping[str, go.Figure]:
        """The plotly figures by name: `joint-scores`, and those of each part as WORKLOAD/NAME."""
        from qsgd_ray.reporting.figures import joint_figures

        return joint_figures(self.analysis)

    @cached_property
    def document(self) -> dict[str, Any]:
        """The joint verdicts, and those of each workload, as a JSON tree, that of verdict.json (docs/results.md)."""
        return joint_document(self.analysis, finished=self.is_finished)

    def format(self, text_format: str) -> str:
        """Return the verdicts as text for another program or a paper: `json`, `csv`, `markdown` or `latex`.

        Raises:
            StudyError: there is no such format.
        """
        return formatted_verdict(self.document, text_format)

    @property
    def page(self) -> Path | str:
        """The place of the joint report, `report.html`."""
        return self.storage.location("report.html")

    def report(self, path: str | Path | None = None, *, limits: str | Path | Storage | None = None) -> Path | str:
        """Write the joint report, and return where it is.

        Args:
            path: a file for the joint page alone; None: `report.html` and `verdict.json` of the whole, and those of
                every part that has rows.
            limits: results of a study of limits for the parts' pages; None: no section on scaling.

        Raises:
            StudyError: a file cannot be written, or `limits` holds no study of limits.
        """
        if path is not None:
            return self._write(Folder(Path(path).parent), Path(path).name, "path")
        for part in self.parts.values():
            if part.tables.trials.num_rows:
                part.report(limits=limits)
        return self.write_page()

    def write_page(self) -> Path | str:
        """Write the joint page and `verdict.json` alone, and return where the page is."""
        page = self._write(self.storage, "report.html", "DIR")
        self.storage.put("verdict.json", as_json(self.document).encode())
        return page

    def _write(self, folder: Storage, name: str, option: str) -> Path | str:
        from qsgd_ray.reporting.joint_page import render_joint_page

        try:
            folder.put(name, render_joint_page(self.analysis, self.document).encode())
        except StorageError as error:
            if error.errno is None or error.is_of_disk:
                raise
            place = folder.location(name)
            raise StudyError(f"{option}: got {place}; allowed: a file that can be written ({error.strerror})") from None
        return folder.location(name)

    def _repr_html_(self) -> str:
        """Return the joint verdicts and the table of arms and workloads, and notes, for a notebook."""
        state = "" if self.is_finished else " (unfinished)"
        notes = "".join(f"<p>{escape(note)}</p>" for note in (*self.analysis.notes, *self.warnings))
        failure = f"<p>{escape(self.failure)}</p>" if self.failure else ""
        question = f"<p><b>{escape(self.study.name)}</b>: {escape(self.study.question)}{state}</p>"
        return f"{question}{self.verdicts._repr_html_()}{joint_html(self.analysis)}{notes}{failure}"
