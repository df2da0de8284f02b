"""The style that all figures share: colours and markers, a figure with its caption and numbers, axes.

Backgrounds are transparent and greys are middle greys, so that one figure serves a light and a dark page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

GREY = "#858585"
# Okabe and Ito's colours, the blue a step lighter, without black and yellow, which one of the two pages would swallow;
# then two of ColorBrewer's.
COLOURS = ("#1C7FC0", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8C6BB1", "#A6761D")
MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "pentagon", "hexagon", "bowtie")


@dataclass(frozen=True)
class NumberTable:
    """The numbers of a figure as a table, for a reader who does not see the figure.

    Attributes:
        description: what its rows are, one or two sentences.
        columns: their headings.
        rows: one text a column each.
    """

    description: str
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class CaptionedFigure:
    """A figure, its words and its numbers.

    Attributes:
        name: for links and as key, such as `learning-curves`.
        title: its heading.
        figure: None where there are no rows to draw.
        caption: says which rows are drawn, and how many are left out for want of a number.
        numbers: None where the page has them in a table of its own.
    """

    name: str
    title: str
    figure: go.Figure | None
    caption: str
    numbers: NumberTable | None = None


def apply_style(figure: go.Figure, height: int) -> go.Figure:
    """Make a figure transparent and quiet, with its legend above, and return it.

    Args:
        figure: changed in place; the page's style sheet sets the colour of words.
        height: pixels.
    """
    figure.update_layout(
        template="none",
        height=height,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": GREY, "family": "system-ui, sans-serif", "size": 13},
        margin={"l": 8, "r": 14, "t": 12, "b": 8},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
        hovermode="closest",
        dragmode=False,
    )
    quiet = {
        "automargin": True,
        "gridcolor": transparent(GREY, 0.28),
        "zeroline": False,
        "title": {"font": {"size": 13}, "standoff": 8},
    }
    figure.update_xaxes(quiet)
    figure.update_yaxes(quiet)
    return figure


def name_axes(figure: go.Figure, x: str, y: str | None) -> None:
    """Set the titles of a figure's axes.

    Args:
        figure: changed in place.
        x: title of the horizontal axis.
        y: title of the vertical axis; None leaves it as it is.
    """
    figure.update_xaxes(title={"text": x})
    if y:
        figure.update_yaxes(title={"text": y})


def log_axis() -> dict[str, Any]:
    """Return a logarithmic axis with labels at powers of ten, which plotly sets a quarter larger than other labels."""
    return {"type": "log", "dtick": 1, "exponentformat": "power", "tickfont": {"size": 11}}


def transparent(colour: str, opacity: float) -> str:
    """Return a colour with an opacity, as CSS has it.

    Args:
        colour: `#RRGGBB`.
        opacity: 0 to 1.

    Example:
        >>> transparent("#858585", 0.18)
        'rgba(133,133,133,0.18)'
    """
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"
