"""Plots of a circuit's response: a `FourierSeries` in; lines for the terminal, or a plotly figure, out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qsgd_ray.circuits.fourier.series import FourierSeries

if TYPE_CHECKING:
    import plotly.graph_objects as go

# A braille character is two dots wide and four high; the bit of each dot, by column and row.
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))


def _sample(series: FourierSeries, points: int) -> tuple[Tensor, Tensor]:
    """Return x over the series' period, centred on 0 (radians), and f(x) there; float64, shape (points,) each."""
    period = 2 * math.pi if series.coefficients.shape[1] % 2 else 4 * math.pi
    x = torch.linspace(-period / 2, period / 2, points, dtype=torch.float64)
    return x, series(x)


def terminal_plot(series: FourierSeries, width: int = 72, height: int = 12) -> str:
    """Return the response over one period, drawn in braille dots, with the ends of its axes.

    Args:
        series: of one feature; its period is 2 pi or 4 pi.
        width: characters of the plot, without the labels.
        height: lines of the plot, without the axis.
    """
    x, f = _sample(series, 8 * width + 1)  # an odd number, with one at 0
    low, high = float(f.min()), float(f.max())
    if high - low < 1e-9:  # a constant, drawn in the middle
        low, high = low - 1, high + 1
    cells = [[0] * width for _ in range(height)]
    columns = torch.linspace(0, 2 * width - 1, len(x)).round().long()
    rows = ((high - f) / (high - low) * (4 * height - 1)).round().long()
    for column, row in zip(columns.tolist(), rows.tolist(), strict=True):
        cells[row // 4][column // 2] |= _DOTS[column % 2][row % 4]
    labels = {0: f"{high:+z.3f}", height - 1: f"{low:+z.3f}"}
    drawn = ["".join(chr(0x2800 + cell) for cell in row) for row in cells]
    lines = [f"{labels.get(number, ''):>8} │{row}" for number, row in enumerate(drawn)]
    half = "π" if float(x[-1]) < 4 else "2π"
    ends = f"{'-' + half:<{width // 2}}0{half:>{width - width // 2 - 1}}"
    return "\n".join((*lines, f"{'':>8} └{'─' * width}", f"{'':>10}{ends}"))


def response_figure(responses: dict[str, FourierSeries], title: str, drawing: str) -> go.Figure:
    """Return a figure of responses over one period, with the circuit's text drawing below them.

    Args:
        responses: Fourier series by the name in the legend.
        title: of the figure.
        drawing: the circuit in text, several lines.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    for name, series in responses.items():
        x, f = _sample(series, 721)
        figure.add_scatter(x=x.tolist(), y=f.tolist(), mode="lines", name=name)
    figure.add_annotation(
        text=f"<span style='white-space:pre'>{drawing.replace(chr(10), '<br>')}</span>",
        showarrow=False, align="left", xref="paper", yref="paper", x=0, y=-0.16, yanchor="top",
        font={"family": "monospace", "size": 12},
    )  # fmt: skip
    lines = drawing.count("\n") + 1
    figure.update_layout(
        title=title, template="plotly_white", height=460 + 18 * lines, margin={"b": 100 + 18 * lines},
        xaxis_title="x (radians)", yaxis_title="response", legend={"orientation": "h", "y": 1.08},
    )  # fmt: skip
    return figure
