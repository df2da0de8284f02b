"""Where the search looked: the search's rows in, a map of learning rate and lambda out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from plotly.subplots import make_subplots

from qsgd_ray.analysis.summary import Row
from qsgd_ray.outcome import Ending
from qsgd_ray.reporting.plot_style import (
    GREY,
    MOST_ROWS,
    Drawn,
    Look,
    Numbers,
    count,
    dress,
    lane_axis,
    looks,
    powers,
    silent,
)
from qsgd_ray.results import StudyTables

# From blue over green to amber: neither end vanishes in a white or a black page.
SCALE = ((0.0, "#3E5BA9"), (0.5, "#2A9D8F"), (1.0, "#E9A820"))
# More cover each other at their full size.
MANY_TRIALS = 400


def search_map(tables: StudyTables) -> Drawn:
    """Learning rate, lambda and validation accuracy of every search trial; trials without lambda in a strip below."""
    by_arm = {arm.name: tables.rows("search", arm.name) for arm in tables.study.arms}
    rows = [r for mine in by_arm.values() for r in mine]
    plain = [name for name, mine in by_arm.items() if any(not r["lambda_"] for r in mine)]
    strip = 2 if any(r["lambda_"] for r in rows) else 1
    heights = [300, 40 + 30 * len(plain)][-strip:]
    figure = make_subplots(rows=strip, cols=1, shared_xaxes=True, vertical_spacing=0.04, row_heights=heights)
    dress(figure, sum(heights) + 100)
    small = {"size": 5} if len(rows) > MANY_TRIALS else {}
    for name, look in looks(tables.study).items():
        mine = by_arm[name]
        if mine:
            marker = {"color": GREY, "symbol": look.marker, "size": 10}
            figure.add_scatter(x=[None], y=[None], mode="markers", marker=marker, name=name)
        kinds: dict[tuple[str, bool], list[Row]] = {}
        for r in mine:
            kinds.setdefault((_kind(r), bool(r["lambda_"])), []).append(r)
        for (kind, above), some in kinds.items():
            figure.add_scatter(
                x=_digits(r["learning_rate"] for r in some),
                y=_digits(r["lambda_"] or plain.index(name) for r in some),
                mode="markers",
                marker=_search_marker(kind, some, look) | small,
                customdata=[[r["number"], r["ending"], count(r["epochs_run"], "epoch")] for r in some],
                hovertemplate=f"{name} %{{customdata[0]}}, %{{customdata[1]}} after %{{customdata[2]}}"
                "<br>learning rate %{x:.3~g}, accuracy %{marker.color:.4~g}<extra></extra>",
                row=1 if above else strip,
                col=1,
                **silent(),
            )
    if strip == 2:
        figure.update_yaxes(powers() | {"title": {"text": "λ"}}, row=1, col=1)
    if plain:
        lane_axis(figure, plain, row=strip, col=1)
        figure.update_yaxes(title={"text": "no λ"}, row=strip, col=1)
    figure.update_xaxes(powers())
    figure.update_xaxes(title={"text": "learning rate"}, row=strip, col=1)
    bar = {"title": {"text": "val. %", "font": {"size": 13}}, "thickness": 12, "outlinewidth": 0}
    coloured = [100 * r["validation_accuracy"] for r in rows if _coloured(r)]
    scale = {"colorscale": SCALE, "cmin": min(coloured, default=0), "cmax": max(coloured, default=1), "colorbar": bar}
    figure.update_layout(coloraxis=scale, showlegend=True)
    return Drawn(
        "search",
        "Where the search looked",
        figure if rows else None,
        f"{count(len(rows), 'search trial')}: colour is the final validation {tables.study.workload.accuracy_name}, "
        "shape the arm; filled ran to "
        f"the end, hollow were stopped early. Without a colour: {count(len(rows) - len(coloured), 'trial')} that "
        "diverged, failed, were lost or have no accuracy (grey crosses).",
        _numbers(tables, by_arm),
    )


def _numbers(tables: StudyTables, by_arm: Mapping[str, Sequence[Row]]) -> Numbers:
    """The best trials of the arms, as many of each."""
    most, rows = max(1, MOST_ROWS // len(by_arm)), []
    for arm, mine in by_arm.items():
        best = sorted(filter(_coloured, mine), key=lambda row: -row["validation_accuracy"])[:most]
        rows += [
            [
                arm,
                str(row["number"]),
                f"{row['learning_rate']:.3g}",
                f"{row['lambda_']:.3g}" if row["lambda_"] else "–",
                f"{100 * row['validation_accuracy']:.2f}",
                row["ending"].replace("_", " "),
            ]
            for row in best
        ]
    accuracy = tables.study.workload.accuracy_name
    told = f"The best {most} search trials of each arm, or all, by validation {accuracy}."
    return Numbers(told, ["arm", "number", "learning rate", "λ", f"validation {accuracy} %", "ending"], rows)


def _coloured(row: Row) -> bool:
    value = row["validation_accuracy"]
    return row["ending"] in (Ending.COMPLETED, Ending.STOPPED_EARLY) and value is not None and bool(np.isfinite(value))


def _kind(row: Row) -> str:
    return "grey" if not _coloured(row) else "open" if row["ending"] == Ending.STOPPED_EARLY else "filled"


def _search_marker(kind: str, rows: Sequence[Row], look: Look) -> dict[str, Any]:
    if kind == "grey":
        return {"color": GREY, "symbol": "x-thin-open", "size": 9, "line": {"width": 2}}
    colour = {"color": _digits(100 * row["validation_accuracy"] for row in rows), "coloraxis": "coloraxis"}
    if kind == "open":
        return {**colour, "symbol": f"{look.marker}-open", "size": 10, "line": {"width": 2}}
    return {**colour, "symbol": look.marker, "size": 11, "line": {"color": GREY, "width": 0.8}}


def _digits(values: Iterable[float]) -> list[float]:
    return [float(f"{value:.5g}") for value in values]
