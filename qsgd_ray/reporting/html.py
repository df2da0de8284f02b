"""What the pages of both kinds of study share: a template and what it tells in, one self-contained HTML text out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup


def rendered(template: str, told: dict[str, Any], filters: Mapping[str, Any] | None = None) -> str:
    """A template of templates/, filled; plotly.js is in the page."""
    # plotly takes half a second to load, and the terminal's tables do without it.
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters or {})
    return str(environment.get_template(template).render(plotlyjs=Markup(get_plotlyjs()), **told))


def shown(drawn: Any) -> dict[str, Any]:
    """A `Drawn` as the templates' macro takes it."""
    config = {"responsive": True, "displayModeBar": False, "scrollZoom": False}
    html = drawn.figure and Markup(
        drawn.figure.to_html(full_html=False, include_plotlyjs=False, config=config, div_id=f"plot-{drawn.name}")
    )
    return {
        "name": drawn.name,
        "title": drawn.title,
        "caption": drawn.caption,
        "html": html,
        "numbers": drawn.numbers,
    }
