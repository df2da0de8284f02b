"""The status of studies on a terminal: the JSON trees of `qsgd-ray status` and `list` in, rich's tables out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from qsgd_ray.analysis.budget import amounts_text
from qsgd_ray.reporting._formatting import MISSING, counted, duration

Tree = Mapping[str, Any]
_STYLES = {"running": "bold green", "unconfirmed": "yellow", "stopped": "yellow", "broken": "bold red"}


def status_report(tree: Tree) -> list[RenderableType]:
    """Return everything that a terminal shows of one study's status, in reading order."""
    parts: list[RenderableType] = [
        Text(f"{tree['study']}: {tree['question']}", style="bold"),
        Text(_state_sentence(tree), style=_STYLES.get(tree["state"], "")),
        Text(_trials_sentence(tree)),
        _stages_table(tree),
    ]
    if (budget := tree["budget"]) is not None:
        end = " spent; no further trial starts." if budget["is_spent"] and tree["stage"] else " spent."
        parts.append(Text(f"Budget: {amounts_text(budget)}{end}", style="yellow" if budget["is_spent"] else ""))
    if tree["verdicts"]:
        verdicts = ", ".join(f"{arm} {verdict}" for arm, verdict in tree["verdicts"].items())
        over = f" over {len(tree['workloads'])} workloads" if "workloads" in tree else ""
        parts.append(Text(f"Verdicts{over}{' so far' if tree['stage'] else ''}: {verdicts}."))
        for name, of_workload in tree.get("workloads", {}).items():
            parts.append(Text(f"  {name}: {', '.join(f'{arm} {verdict}' for arm, verdict in of_workload.items())}."))
    return parts + [Text(note, style="yellow") for note in tree["notes"]]


def _state_sentence(tree: Tree) -> str:
    process = tree["holder"]
    at = f"process {process['pid']} on {process['host']} since {process['since']}" if process else ""
    return {
        "running": f"Running: {at}.",
        "finished": "Finished: every planned trial has ended.",
        "stopped": "Stopped: no process runs it, and trials are missing; qsgd-ray run goes on with it.",
        "unconfirmed": f"Unconfirmed: {at}, another machine, did not renew its lease while it was watched.",
    }[tree["state"]]


def _trials_sentence(tree: Tree) -> str:
    sentence = f"{tree['ended']} of {counted(tree['planned'], 'trial')} ended"
    if tree["stage"] is not None:
        sentence += f"; the stage is {tree['stage']}"
    if tree["last_end"] is not None:
        seconds = (datetime.now(UTC) - datetime.fromisoformat(tree["last_end"])).total_seconds()
        ago = f", {duration(seconds)} ago" if seconds >= 0 else ""  # another machine's clock may be ahead
        sentence += f"; the last one at {tree['last_end']}{ago}"
    return f"{sentence}."


def _stages_table(tree: Tree) -> Table:
    of_several = "workloads" in tree
    table = _table(*(["workload"] if of_several else []), "stage", "arm", "ended", "planned", "endings")
    for entry in tree["stages"]:
        endings = ", ".join(f"{count} {ending.replace('_', ' ')}" for ending, count in entry["endings"].items())
        cells = (entry["stage"], entry["arm"], str(entry["ended"]), str(entry["planned"]), endings)
        table.add_row(*map(Text, (entry["workload"], *cells) if of_several else cells))
    return table


def studies_table(trees: Sequence[Tree]) -> Table:
    """Return a table with a line a study: its folder, its state, its trials and its verdicts.

    Where one has a budget there is a column for it.

    Args:
        trees: the status of each study, with its `place`.
    """
    with_budget = any(tree["budget"] is not None for tree in trees)
    table = _table(
        "study", "state", "trials", *(["budget"] if with_budget else []), "verdicts", "last trial ended (UTC)"
    )
    for tree in trees:
        name = str(tree["place"]).rstrip("/").rpartition("/")[2]
        state = Text(tree["state"], style=_STYLES.get(tree["state"], ""))
        budget = [Text(amounts_text(tree["budget"]) if tree["budget"] else MISSING)] if with_budget else []
        end = Text(_clock(tree["last_end"]))
        table.add_row(Text(name), state, _trials(tree), *budget, Text(_verdicts(tree)), end)
    return table


def _clock(last_end: str | None) -> str:
    """Return a time as text, short enough that a line of the table stays one on a terminal of 80 columns."""
    return f"{datetime.fromisoformat(last_end).astimezone(UTC):%Y-%m-%d %H:%M:%S}" if last_end else MISSING


def _trials(tree: Tree) -> Text:
    if tree["planned"] is None:
        return Text(MISSING if tree["ended"] is None else counted(tree["ended"], "size"))
    return Text(f"{tree['ended']}/{tree['planned']}")


def _verdicts(tree: Tree) -> str:
    if tree["state"] == "broken":
        return str(tree["notes"][0])
    counts = Counter(tree["verdicts"].values())
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) or MISSING


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in ("ended", "planned", "trials") else "left", overflow="fold")
    return table
