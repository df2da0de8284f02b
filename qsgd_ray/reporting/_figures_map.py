"""Where an arm pays: the effect at every setting in, a map of the first two axes out; a menu picks among the others.

Colour is the effect, hatching says that it is not beyond chance, the cost stands where the pointer is. Points that fill
a space have no cells: they are dots, hollow instead of hatched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from qsgd_ray.analysis.effect_map import EffectMap, MapCell
from qsgd_ray.config.stages import Setting, Value
from qsgd_ray.reporting.formatting import NONE, digits, factor, p_value, points, span
from qsgd_ray.reporting.plot_style import GREY, Drawn, Numbers, count, dress, silent

# From worse over nothing to better, all light enough for dark numbers on a white and on a black page.
COLOURS = ((0.0, "#EE8A4A"), (0.5, "#DCDCDC"), (1.0, "#4FC3A0"))
ROW_HEIGHT = 62


def drawn_map(found: EffectMap) -> Drawn:
    """Of every setting, whether a pair of runs has ended there or not."""
    judged = [cell for cell in found.cells if cell.effect.difference is not None]
    largest = max((abs(100 * (cell.effect.difference or 0.0)) for cell in judged), default=0.0) or 1.0
    draw = _cells if is_grid(found) else _dots
    return Drawn(
        "effect-map",
        f"Where {found.arm} pays",
        draw(found, largest) if judged else None,
        _caption(found, judged),
        _numbers(found),
    )


def is_grid(found: EffectMap) -> bool:
    """Whether every combination of the values is there, so that cells leave no hole."""
    n = 1
    for path in found.axes:
        n *= len(_values(found.cells, path))
    return n == len(found.cells)


def _cells(found: EffectMap, largest: float) -> go.Figure:
    x, y = found.axes[0], found.axes[1] if len(found.axes) > 1 else None
    columns = _values(found.cells, x)
    rows: list[Value] = _values(found.cells, y) if y else [0]
    figure = dress(go.Figure(), 130 + ROW_HEIGHT * len(rows))
    slices: dict[str, list[MapCell]] = {}
    for cell in found.cells:
        slices.setdefault(_told({path: cell.setting[path] for path in found.axes[2:]}), []).append(cell)
    for place, (name, cells) in enumerate(slices.items()):
        heights = [rows.index(cell.setting[y]) if y else 0 for cell in cells]
        figure.add_bar(
            x=[columns.index(cell.setting[x]) for cell in cells],
            y=[1] * len(cells),
            base=[height - 0.5 for height in heights],
            width=1,
            marker={
                "color": [_percent(cell) for cell in cells],
                "coloraxis": "coloraxis",
                "line": {"width": 2, "color": "rgba(0,0,0,0)"},
                "pattern": {
                    "shape": ["" if cell.significant else "/" for cell in cells],
                    "fgcolor": "rgba(0,0,0,0.28)",
                    "size": 12,
                    "solidity": 0.08,
                    "fillmode": "overlay",
                },
            },
            text=[points(cell.effect.difference) for cell in cells],
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            textfont={"color": "#000000", "size": 13},
            hovertext=[_hover(found, cell) for cell in cells],
            hoverinfo="text",
            name=name,
            visible=place == 0,
            showlegend=False,
        )
    figure.update_layout(barmode="overlay", bargap=0, coloraxis=_scale(largest))
    ticks = {"tickvals": list(range(len(columns))), "ticktext": [_value(value) for value in columns]}
    figure.update_xaxes(ticks | {"title": {"text": x.rstrip("_")}, "showgrid": False})
    if y:
        lanes = {"tickvals": list(range(len(rows))), "ticktext": [_value(value) for value in rows]}
        span_of_rows = {"showgrid": False, "range": [-0.5, len(rows) - 0.5]}
        figure.update_yaxes(lanes | span_of_rows | {"title": {"text": y.rstrip("_")}})
    else:
        figure.update_yaxes(showticklabels=False, showgrid=False)
    if len(slices) > 1:
        figure.update_layout(updatemenus=[_menu(list(slices))], margin={"t": 56})
    return figure


def _dots(found: EffectMap, largest: float) -> go.Figure:
    x, y = found.axes[0], found.axes[1] if len(found.axes) > 1 else None
    figure = dress(go.Figure(), 420)
    for significant, symbol in ((True, "circle"), (False, "circle-open")):
        cells = [c for c in found.cells if c.significant == significant and c.effect.difference is not None]
        figure.add_scatter(
            x=[cell.setting[x] for cell in cells],
            y=[cell.setting[y] if y else 0 for cell in cells],
            mode="markers",
            marker={
                "color": [_percent(cell) for cell in cells],
                "coloraxis": "coloraxis",
                "symbol": symbol,
                "size": 14,
                "line": {"width": 1 if significant else 3},
            },
            hovertext=[_hover(found, cell) for cell in cells],
            **(silent() | {"hoverinfo": "text"}),
        )
    figure.update_layout(coloraxis=_scale(largest))
    for path, update in ((x, figure.update_xaxes), (y, figure.update_yaxes)):
        if path:
            update(title={"text": path.rstrip("_")}, type="log" if _is_wide(_values(found.cells, path)) else None)
    return figure


def _is_wide(values: Sequence[Value]) -> bool:
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return len(numbers) == len(values) and min(numbers) > 0 and max(numbers) >= 20 * min(numbers)


def _scale(largest: float) -> dict[str, Any]:
    bar = {"title": {"text": "points", "font": {"size": 13}}, "thickness": 12, "outlinewidth": 0}
    return {"colorscale": COLOURS, "cmin": -largest, "cmax": largest, "colorbar": bar}


def _menu(names: list[str]) -> dict[str, Any]:
    buttons = [
        {"label": name, "method": "update", "args": [{"visible": [other == name for other in names]}]} for name in names
    ]
    return {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "font": {"color": GREY}}


def _values(cells: Sequence[MapCell], path: str) -> list[Value]:
    """In the order in which they stand in the study."""
    return list(dict.fromkeys(cell.setting[path] for cell in cells))


def _value(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _told(setting: Setting) -> str:
    return ", ".join(f"{path.rpartition('.')[2].rstrip('_')} {_value(value)}" for path, value in setting.items())


def _percent(cell: MapCell) -> float | None:
    return None if cell.effect.difference is None else 100 * cell.effect.difference


def _hover(found: EffectMap, cell: MapCell) -> str:
    effect = cell.effect
    return (
        f"{_told(cell.setting)}<br>{points(effect.difference)} points ({span(effect.interval, sign=True)}), "
        f"{effect.verdict}<br>p {p_value(effect.p_difference)}, {count(effect.n_pairs, 'pair')}, {effect.n_lost} lost, "
        f"{effect.n_pending} to run<br>a step takes {factor(cell.overhead)} of {found.baseline}'s time"
        f"<br>|λQ| / |Adam step| {digits(cell.step_ratio)}"
    )


def _caption(found: EffectMap, judged: list[MapCell]) -> str:
    shown = sum(cell.significant for cell in judged)
    open_ = "hollow" if not is_grid(found) else "hatched"
    left_out = len(found.cells) - len(judged)
    return (
        f"Mean paired difference of {found.arm} to {found.baseline} in validation accuracy, in percentage points, at "
        f"{count(len(found.cells), 'setting')}; {open_}: not beyond chance ({len(judged) - shown} of {len(judged)}), "
        "with Holm's correction over all settings. Without a complete pair of runs: "
        f"{left_out}. {sum(c.effect.n_lost for c in found.cells)} pairs have a run without a result, "
        f"{sum(c.effect.n_pending for c in found.cells)} are still to run. A map explores: it reads validation data."
    )


def _numbers(found: EffectMap) -> Numbers:
    rows = [
        [
            _told(cell.setting),
            points(cell.effect.difference),
            span(cell.effect.interval, sign=True) if cell.effect.interval else NONE,
            p_value(cell.effect.p_difference),
            str(cell.effect.verdict),
            f"{cell.effect.n_pairs}",
            factor(cell.overhead),
            digits(cell.step_ratio),
        ]
        for cell in found.cells
    ]
    columns = ["setting", "difference", "95 % interval", "p", "verdict", "pairs", "time a step", "|λQ| / |Adam step|"]
    return Numbers("A row a setting; differences in percentage points.", columns, rows)
