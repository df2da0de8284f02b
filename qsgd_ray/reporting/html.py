"""Fill the templates of pages: values in, one self-contained HTML text out. Both kinds of study have pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from qsgd_ray.paths import leaves

if TYPE_CHECKING:
    from qsgd_ray.reporting.plot_style import CaptionedFigure


def render(template: str, values: Mapping[str, Any], filters: Mapping[str, Callable[..., str]] | None = None) -> str:
    """Return a filled template; plotly.js is part of the page.

    Args:
        template: name of a file in templates/.
        values: by the names that the template uses; a missing one is an error of jinja2.
        filters: formats by the names that the template uses; default: those of jinja2 alone.
    """
    # plotly takes half a second to load, and the terminal's tables do without it.
    from plotly.offline import get_plotlyjs

    environment = _environment(tuple((filters or {}).items()))
    return str(environment.get_template(template).render(plotlyjs=Markup(get_plotlyjs()), **values))  # nosec B704 # plotly's


@lru_cache(maxsize=8)
def _environment(filters: tuple[tuple[str, Callable[..., str]], ...]) -> Environment:
    """Return the templates with these filters; compiled once, which takes as long as filling them."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    return environment


def figure_values(captioned: CaptionedFigure) -> dict[str, Any]:
    """Return a figure as the templates' macro `drawn` takes it: HTML, title, caption and numbers."""
    config = {"responsive": True, "displayModeBar": False, "scrollZoom": False}
    figure = captioned.figure
    html = figure and Markup(  # nosec B704 # plotly writes < and > of every text in it as escapes
        figure.to_html(full_html=False, include_plotlyjs=False, config=config, div_id=f"plot-{captioned.name}")
    )
    return {
        "name": captioned.name,
        "title": captioned.title,
        "caption": captioned.caption,
        "html": html,
        "numbers": captioned.numbers,
    }


def leaves_as_text(tree: Any) -> Iterator[tuple[str, str]]:
    """Yield the leaves of a JSON tree, dotted path and text."""
    for path, value in leaves(tree):
        if isinstance(value, list):
            yield path, ", ".join(map(str, value)) or "none"
        else:
            yield path, "–" if value is None else "none" if value == {} else str(value)
