"""The page of a verdict on rows of others: a `ScoreAnalysis` in, one self-contained HTML text out."""

from __future__ import annotations

from qsgd_ray.analysis.scores import ScoreAnalysis
from qsgd_ray.reporting._formatting import VERDICT_SIGNS, p_value
from qsgd_ray.reporting.html import figure_values, render
from qsgd_ray.reporting.scores_document import scores_document


def render_scores_page(analysis: ScoreAnalysis) -> str:
    """Return the whole page as HTML; it loads nothing from a network."""
    # plotly takes half a second to load, and scores are also judged without a page.
    from qsgd_ray.reporting._figures_scores import score_figures

    values = {
        "tree": scores_document(analysis),
        "numbers": analysis.rule.numbers,
        "signs": {verdict.value: sign for verdict, sign in VERDICT_SIGNS.items()},
        "missing": analysis.rule.missing,
        "n_seeds": len(analysis.scores.seeds),
        "figures": [figure_values(captioned) for captioned in score_figures(analysis)],
    }
    return render("scores.html.j2", values, {"p": p_value})
