"""The figure of costs: the ledger in, a bar of seconds for each stage and arm out."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from qsgd_ray.analysis.costs import Cost
from qsgd_ray.reporting._formatting import counted
from qsgd_ray.reporting.plot_style import COLOURS, GREY, CaptionedFigure, apply_style

_PARTS = (
    ("train_s", "training", COLOURS[0]),
    ("circuit_wait_s", "wait for circuits", COLOURS[1]),
    ("evaluation_s", "evaluation", COLOURS[2]),
    ("idle_s", "idle time", GREY),
)


def cost_figure(ledger: Sequence[Cost]) -> CaptionedFigure:
    """Draw the ledger's lines, its sum left out; the page shows the ledger itself as the table of these numbers."""
    lines = [line for line in ledger if line.stage is not None]
    longest = max((sum(line.sums[name] or 0.0 for name, _, _ in _PARTS) for line in lines), default=0.0)
    size, unit = (3600.0, "hours") if longest > 7200 else (60.0, "minutes") if longest > 120 else (1.0, "seconds")
    figure = apply_style(go.Figure(), 110 + 34 * len(lines))
    names = [f"{line.arm}, {line.stage} " for line in lines]
    for name, words, colour in _PARTS:
        figure.add_bar(
            x=[(line.sums[name] or 0.0) / size for line in lines],
            y=names,
            orientation="h",
            name=words,
            marker={"color": colour},
            hovertemplate=f"%{{y}}: {words} %{{x:.3~g}} {unit}<extra></extra>",
        )
    figure.update_layout(barmode="stack", bargap=0.35, showlegend=True, legend={"traceorder": "normal"})
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(title={"text": f"{unit} of all trials together"})
    n_trials = sum(line.n_trials for line in lines)
    nulls = {name: sum(line.n_null[name] for line in lines) for name, _, _ in _PARTS}
    return CaptionedFigure(
        "costs-by-arm",
        "Where the time went",
        figure if longest else None,
        f"Time of {counted(n_trials, 'trial')}, by stage and arm; the ledger below has the numbers. Left out: "
        f"{', '.join(f'{nulls[name]} without {words}' for name, words, _ in _PARTS)}.",
    )
