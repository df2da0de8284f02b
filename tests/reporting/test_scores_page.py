"""The page of a verdict on rows of others: one file that loads nothing, with every number of verdict.json's."""

import re

import pytest
from support.scores import EFFECTS, RULE, score_rows

from qsgd_ray import judge
from qsgd_ray.reporting._figures_scores import score_figures


def page_of(rows, path, **fields) -> str:
    """Return the page without plotly.js itself."""
    text = judge(rows, **RULE | fields).report(path).read_text()
    return re.sub(r"<script>.*?</script>", "", text, count=1, flags=re.DOTALL)


def test_the_page_has_verdicts_numbers_and_figures_and_loads_nothing(tmp_path):
    rows = [
        row | {"score": None if (row["arm"], row["seed"]) == ("lion", 2) else row["score"]}
        for row in score_rows(EFFECTS)
    ]
    page = page_of(rows, tmp_path / "page.html", unit="nats")
    assert "default-src 'none'" in page
    for request in (r'src\s*=\s*["\']?\s*(https?:)?//', r"<link", r"@import", r"<iframe"):
        assert not re.search(request, page), request
    for verdict in judge(rows, **RULE, unit="nats"):
        assert re.search(rf"{verdict.arm}</h3>\s*<span class=\"word\">. {verdict.verdict}<", page)
        assert verdict.reason.replace("<", "&lt;") in page
    assert "less score is better" in page
    assert "1 run without a finite score counts as no result." in page
    assert re.search(r'<th scope="row">lion</th><td>8</td><td>1</td><td>2\.\d{3}</td>', page)
    assert re.findall(r'<figure id="([^"]+)"', page) == ["paired-differences", "scores"]


def test_names_of_arms_are_text_and_no_html(tmp_path):
    rows = [row | {"arm": row["arm"].replace("muon", "<script>x</script>")} for row in score_rows(EFFECTS)]
    page = page_of(rows, tmp_path / "page.html")
    assert "<script>x" not in page.replace("\\u003cscript\\u003e", "")
    assert "&lt;script&gt;x&lt;/script&gt;" in page


def test_a_page_without_any_result_says_so(tmp_path):
    rows = [row | {"score": None} for row in score_rows(EFFECTS)]
    page = page_of(rows, tmp_path / "page.html", direction="max")
    assert page.count("No rows to draw yet.") == 2
    assert "no difference to show yet" in page


@pytest.mark.parametrize(("kind", "factor"), [("share", 100), ("mean", 1)])
def test_figures_draw_the_scores_in_the_unit_that_the_page_shows(kind, factor):
    rows = [row | {"score": row["score"] / 4} for row in score_rows(EFFECTS)]
    analysis = judge(rows, **RULE | {"kind": kind}).analysis
    differences, scores = score_figures(analysis)
    dots = next(trace for trace in differences.figure.data if len(trace.x) == 8)
    assert list(dots.x) == pytest.approx([factor * x for x in analysis.differences["muon"].values()], rel=1e-5)
    means = [trace.x[0] for trace in scores.figure.data if len(trace.x) == 1]
    assert means == pytest.approx([factor * s.iqm for s in analysis.summaries])
    assert len(differences.numbers.rows) == len(scores.numbers.rows) == 8


def test_a_table_of_many_seeds_says_how_many_it_leaves_out():
    analysis = judge(score_rows(EFFECTS, 70), **RULE).analysis
    differences, _ = score_figures(analysis)
    assert "The first 60 of 70 rows." in differences.numbers.description
