"""The figure of the effect map: the effect at every setting in, a map of the first two axes out.

A menu picks among the settings of the other axes. Colour is the effect, hatching shows that it is not beyond chance,
and the cost stands where the pointer is. Points that fill a space have no cells: they are dots, hollow instead of
hatched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from qsgd_ray.analysis.effect_map import EffectMap, MapCell
from qsgd_ray.analysis.metric import factor_of, unit_of
from qsgd_ray.config import Metric
from qsgd_ray.config.stages import Value
from qsgd_ray.reporting._formatting import (
    MISSING,
    axis_value,
    counted,
    difference,
    digits,
    factor,
    p_value,
    setting_text,
    span,
    with_unit,
)
from qsgd_ray.reporting._metric_words import better_side, of_unit
from qsgd_ray.reporting._plot_parts import without_legend
from qsgd_ray.reporting.plot_style import GREY, CaptionedFigure, NumberTable, apply_style

# From worse over nothing to better, all light enough for dark numbers on a white and on a black page.
_COLOURS = ((0.0, "#EE8A4A"), (0.5, "#DCDCDC"), (1.0, "#4FC3A0"))
_ROW_HEIGHT = 62


def effect_map_figure(effects: EffectMap) -> CaptionedFigure:
    """Draw the effect at every setting at which a pair of runs has ended; the table has all settings."""
    judged = [cell for cell in effects.cells if cell.effect.difference is not None]
    largest = max((abs(_shown(cell) or 0.0) for cell in judged), default=0.0) or 1.0
    draw = _cells if effects.is_grid else _dots
    return CaptionedFigure(
        "effect-map",
        f"Where {effects.arm} pays",
        draw(effects, largest) if judged else None,
        _caption(effects, judged),
        _numbers(effects),
    )


def _cells(effects: EffectMap, largest: float) -> go.Figure:
    x, y = effects.axes[0], effects.axes[1] if len(effects.axes) > 1 else None
    columns = effects.values(x)
    rows: list[Value] = effects.values(y) if y else [0]
    figure = apply_style(go.Figure(), 130 + _ROW_HEIGHT * len(rows))
    slices: dict[str, list[MapCell]] = {}
    for cell in effects.cells:
        slices.setdefault(setting_text({path: cell.setting[path] for path in effects.axes[2:]}), []).append(cell)
    for number, (name, cells) in enumerate(slices.items()):
        heights = [rows.index(cell.setting[y]) if y else 0 for cell in cells]
        figure.add_bar(
            x=[columns.index(cell.setting[x]) for cell in cells],
            y=[1] * len(cells),
            base=[height - 0.5 for height in heights],
            width=1,
            marker={
                "color": [_shown(cell) for cell in cells],
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
            text=[difference(cell.effect.difference, effects.metric) for cell in cells],
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            textfont={"color": "#000000", "size": 13},
            hovertext=[_hover(effects, cell) for cell in cells],
            hoverinfo="text",
            name=name,
            visible=number == 0,
            showlegend=False,
        )
    figure.update_layout(barmode="overlay", bargap=0, coloraxis=_scale(largest, effects.metric))
    ticks = {"tickvals": list(range(len(columns))), "ticktext": [axis_value(value) for value in columns]}
    figure.update_xaxes(ticks | {"title": {"text": x.rstrip("_")}, "showgrid": False})
    if y:
        lanes = {"tickvals": list(range(len(rows))), "ticktext": [axis_value(value) for value in rows]}
        span_of_rows = {"showgrid": False, "range": [-0.5, len(rows) - 0.5]}
        figure.update_yaxes(lanes | span_of_rows | {"title": {"text": y.rstrip("_")}})
    else:
        figure.update_yaxes(showticklabels=False, showgrid=False)
    if len(slices) > 1:
        figure.update_layout(updatemenus=[_menu(list(slices))], margin={"t": 56})
    return figure


def _dots(effects: EffectMap, largest: float) -> go.Figure:
    x, y = effects.axes[0], effects.axes[1] if len(effects.axes) > 1 else None
    figure = apply_style(go.Figure(), 420)
    for significant, symbol in ((True, "circle"), (False, "circle-open")):
        cells = [c for c in effects.cells if c.significant == significant and c.effect.difference is not None]
        figure.add_scatter(
            x=[cell.setting[x] for cell in cells],
            y=[cell.setting[y] if y else 0 for cell in cells],
            mode="markers",
            marker={
                "color": [_shown(cell) for cell in cells],
                "coloraxis": "coloraxis",
                "symbol": symbol,
                "size": 14,
                "line": {"width": 1 if significant else 3},
            },
            hovertext=[_hover(effects, cell) for cell in cells],
            **(without_legend() | {"hoverinfo": "text"}),
        )
    figure.update_layout(coloraxis=_scale(largest, effects.metric))
    for path, update in ((x, figure.update_xaxes), (y, figure.update_yaxes)):
        if path:
            update(title={"text": path.rstrip("_")}, type="log" if _is_wide(effects.values(path)) else None)
    return figure


def _is_wide(values: Sequence[Value]) -> bool:
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return len(numbers) == len(values) and min(numbers) > 0 and max(numbers) >= 20 * min(numbers)


def _scale(largest: float, metric: Metric) -> dict[str, Any]:
    bar = {"title": {"text": unit_of(metric), "font": {"size": 13}}, "thickness": 12, "outlinewidth": 0}
    turned = {"reversescale": True} if metric.direction == "min" else {}
    return {"colorscale": _COLOURS, "cmin": -largest, "cmax": largest, **turned, "colorbar": bar}


def _menu(names: list[str]) -> dict[str, Any]:
    buttons = [
        {"label": name, "method": "update", "args": [{"visible": [other == name for other in names]}]} for name in names
    ]
    return {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "font": {"color": GREY}}


def _shown(cell: MapCell) -> float | None:
    effect = cell.effect
    return None if effect.difference is None else factor_of(effect.metric) * effect.difference


def _hover(effects: EffectMap, cell: MapCell) -> str:
    effect, metric = cell.effect, effects.metric
    interval = span(effect.interval, sign=True, metric=metric)
    return (
        f"{setting_text(cell.setting)}<br>{with_unit(effect.difference, metric)} ({interval}), "
        f"{effect.verdict}<br>p {p_value(effect.p_difference)}, {counted(effect.n_pairs, 'pair')}, "
        f"{effect.n_lost} lost, {effect.n_pending} to run<br>"
        f"a step takes {factor(cell.overhead)} of {effects.baseline}'s time<br>"
        f"|λQ| / |Adam step| {digits(cell.step_ratio)}"
    )


def _caption(effects: EffectMap, judged: list[MapCell]) -> str:
    shown = sum(cell.significant for cell in judged)
    open_word = "hollow" if not effects.is_grid else "hatched"
    left_out = len(effects.cells) - len(judged)
    unit = f",{of_unit(_long_unit(effects.metric))}" if _long_unit(effects.metric) else ""
    name = effects.metric.name.replace("_", " ")
    return (
        f"Mean paired difference of {effects.arm} to {effects.baseline} in validation {name}{unit}, "
        f"at {counted(len(effects.cells), 'setting')}; {open_word}: not beyond chance "
        f"({len(judged) - shown} of {len(judged)}), with Holm's correction over all settings. Without a complete "
        f"pair of runs: {left_out}. {sum(c.effect.n_lost for c in effects.cells)} pairs have a run without a result, "
        f"{sum(c.effect.n_pending for c in effects.cells)} are still to run."
        f"{better_side(effects.metric)} A map explores: it reads validation data."
    )


def _numbers(effects: EffectMap) -> NumberTable:
    metric = effects.metric
    rows = [
        [
            setting_text(cell.setting),
            difference(cell.effect.difference, metric),
            span(cell.effect.interval, sign=True, metric=metric) if cell.effect.interval else MISSING,
            p_value(cell.effect.p_difference),
            str(cell.effect.verdict),
            f"{cell.effect.n_pairs}",
            factor(cell.overhead),
            digits(cell.step_ratio),
        ]
        for cell in effects.cells
    ]
    columns = ["setting", "difference", "95 % interval", "p", "verdict", "pairs", "time a step", "|λQ| / |Adam step|"]
    return NumberTable(f"A row a setting; differences{of_unit(_long_unit(metric))}.", columns, rows)


def _long_unit(metric: Metric) -> str:
    return "percentage points" if metric.kind == "share" else metric.unit
