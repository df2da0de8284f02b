"""Show how far a study is: events in, a live table on a terminal, or a line for each ended trial elsewhere, out."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from qsgd_ray.analysis.budget import BudgetStatus, paces, status_of
from qsgd_ray.analysis.metric import amount_text, measured_value
from qsgd_ray.config import STAGES, metric_label
from qsgd_ray.outcome import REPEATED, Ending, Measurement
from qsgd_ray.results import StudyTables
from qsgd_ray.study._meter import Meter

if TYPE_CHECKING:
    from qsgd_ray.execution.events import Event

_COLOURS = {
    Ending.COMPLETED: "green",
    Ending.STOPPED_EARLY: "yellow",
    Ending.DIVERGED: "red",
    Ending.FAILED: "red",
    Ending.UNAVAILABLE: "magenta",
}


@dataclass
class _Tally:
    """The trials of one stage and arm: how many are planned, and how many came to each ending."""

    planned: int
    endings: dict[str, int] = field(default_factory=dict)

    @property
    def ended(self) -> int:
        """The number of trials that ended; a lost one has not, as it is tried again."""
        return sum(count for ending, count in self.endings.items() if ending not in REPEATED)


class Progress:
    """The progress of a study on a console; a context manager around calls of `show`."""

    def __init__(self, console: Console, tables: StudyTables, meter: Meter) -> None:
        self._console = console
        self._study, self._meter, self._paces = tables.study, meter, paces(tables)
        self._tenths = _tenths(self._budget)
        study = tables.study
        self._metric, self._label = study.metric, metric_label(study.workload, study.metric)
        planned = {(stage, arm.name): study.planned(stage, arm) for stage in STAGES for arm in study.arms}
        self._tallies: dict[tuple[str, str], _Tally] = {key: _Tally(n) for key, n in planned.items() if n}
        for stage, arm in self._tallies:
            for row in tables.rows(stage, arm):
                self._count(stage, arm, row["ending"])
        self._running: dict[tuple[str, str, int, int], tuple[Event, Measurement]] = {}
        self._began = time.monotonic()
        self._live = Live(console=console, refresh_per_second=2, get_renderable=self._render)

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def _count(self, stage: str, arm: str, ending: str) -> None:
        endings = self._tallies[stage, arm].endings
        endings[ending] = endings.get(ending, 0) + 1

    def show(self, event: Event) -> None:
        """Count one event, and show it."""
        key = (event.stage, event.arm, event.number, event.seed)
        if event.measurement is not None:
            self._running[key] = (event, event.measurement)
        if event.ending is not None:
            self._count(event.stage, event.arm, event.ending)
            _, last = self._running.pop(key, (event, None))
            self._add_pace(event, last)
            if not self._console.is_terminal or event.reason is not None:
                self._console.print(self._line(event, last), soft_wrap=True, highlight=False, markup=False)
            if not self._console.is_terminal and (tenths := _tenths(self._budget)) > self._tenths:
                self._tenths = tenths
                self._console.print(f"Budget: {self._budget_text()}.", soft_wrap=True, highlight=False, markup=False)

    def _add_pace(self, event: Event, last: Measurement | None) -> None:
        if event.ending not in REPEATED:
            pace = self._paces[event.stage, event.arm]
            pace.ended += 1
            pace.epochs += last.epoch if last else 0
            pace.trial_s += last.wall_s + (last.evaluation_s or 0.0) if last else 0.0

    @property
    def _budget(self) -> BudgetStatus:
        spending = self._meter.spending
        return status_of(self._study, self._paces.values(), spending.seconds, spending.node_seconds)

    def _budget_text(self) -> str:
        status = self._budget
        return f"{status.amounts}; {'what runs is trained to its end' if status.is_spent else status.expected}"

    def _value(self, last: Measurement) -> str:
        value = measured_value(last, self._metric)
        if value is None:
            return "no"
        return f"{value:.1%}" if self._metric.kind == "share" else amount_text(value, self._metric)

    def _line(self, event: Event, last: Measurement | None) -> str:
        tally = self._tallies[event.stage, event.arm]
        value = f"{self._value(last)} validation {self._label} after epoch {last.epoch}" if last else ""
        reached = event.reason or value
        return (
            f"{time.monotonic() - self._began:6.1f} s  {event.stage:<7}  {event.arm:<12} "
            f"{tally.ended:>2}/{tally.planned}  seed {event.seed:<4} {event.ending or '':<13}  {reached}"
        )

    def _render(self) -> RenderableType:
        table = Table(box=None, pad_edge=False)
        for title in ("stage", "arm", "trials", "", "endings", "now"):
            table.add_column(title)
        for (stage, arm), tally in self._tallies.items():
            endings = Text(", ").join(
                Text(f"{count} {ending.replace('_', ' ')}", style=_COLOURS.get(Ending(ending), ""))
                for ending, count in tally.endings.items()
            )
            now = [
                f"epoch {last.epoch}/{event.epochs} at {self._value(last)}"
                for key, (event, last) in self._running.items()
                if key[:2] == (stage, arm)
            ]
            table.add_row(
                stage,
                arm,
                f"{tally.ended}/{tally.planned}",
                ProgressBar(total=tally.planned, completed=tally.ended, width=16),
                endings,
                Text("; ".join(now), style="cyan"),
            )
        clock = Text(f"{time.monotonic() - self._began:.0f} s, Ctrl-C keeps what is finished", style="dim")
        if self._study.budget is None:
            return Group(table, clock)
        return Group(table, Text(self._budget_text(), style="cyan"), clock)


def _tenths(status: BudgetStatus) -> int:
    """Return how many tenths of a budget are spent, 0 to 10; 0 without a limit."""
    return min(10, int(10 * status.share_spent))
