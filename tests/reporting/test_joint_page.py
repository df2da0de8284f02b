"""The page and the document of a study of several workloads."""

import json
from html import unescape

import jsonschema
import pytest
from support.browser import browser
from support.places import DOCS
from support.several import BASE, a_whole, jointly

from qsgd_ray.analysis.joint import ESTIMAND
from qsgd_ray.config import Decision
from qsgd_ray.reporting.joint_document import joint_document
from qsgd_ray.reporting.joint_page import render_joint_page
from qsgd_ray.reporting.notebook import joint_html
from qsgd_ray.reporting.verdict_document import as_json

SCHEMA = json.loads((DOCS / "verdict.schema.json").read_text())
NOISE = [0.002, -0.001, 0.003, -0.002, 0.001, 0.0]
ARMS = ("adamw", "same", "gain", "mixed")


def analysis_of(n_seeds=6, **fields):
    def moved(by):
        return [round(value + by + noise, 4) for value, noise in zip(BASE, NOISE, strict=True)][:n_seeds]

    easy = {"adamw": BASE[:n_seeds], "same": moved(0.0), "gain": moved(0.04), "mixed": moved(0.03)}
    hard = {"adamw": BASE[:n_seeds], "same": moved(0.001), "gain": moved(0.05), "mixed": [*moved(-0.06)[:-1], None]}
    study = a_whole(
        ARMS, question="Is <b>it</b> good?", decision=Decision(margin=0.01, margins={"hard": 0.02}), **fields
    )
    return jointly(study, {"easy": easy, "hard": hard})


@pytest.fixture(scope="module")
def analysis():
    return analysis_of()


def test_the_document_is_what_the_schema_says(analysis):
    for one in (analysis, jointly(a_whole(), {name: {"adamw": [], "sine": []} for name in ("easy", "hard")})):
        tree = joint_document(one, finished=True)
        text = as_json(tree)
        assert text.isascii()
        assert json.loads(text) == tree
        jsonschema.validate(tree, SCHEMA, jsonschema.Draft202012Validator)
        assert (tree["version"], tree["estimand"]) == (2, ESTIMAND)
        assert [v["arm"] for v in tree["verdicts"]] == [v["arm"] for w in tree["workloads"][:1] for v in w["verdicts"]]


def test_the_page_has_the_joint_verdict_first_its_meaning_and_a_link_to_every_part(analysis):
    page = render_joint_page(analysis, joint_document(analysis, finished=False))
    assert page.index("Verdict over all workloads") < page.index('id="cells"') < page.index('id="joint-scores"')
    assert ESTIMAND in unescape(page)
    assert page.count('href="easy/report.html"') == page.count('href="hard/report.html"') == 2
    assert "corrected for all 6 comparisons" in page
    assert "Unfinished" in page
    assert "Is &lt;b&gt;it&lt;/b&gt; good?" in page
    assert "Complete in all 2 workloads: 5 of 6 seeds (easy 6, hard 5)." in page
    assert "margin 2.00 points" in page


def test_a_notebook_shows_every_workload(analysis):
    table = joint_html(analysis)
    assert table.count("<tr>") == 1 + 3
    assert "<th>easy</th><th>hard</th>" in table
    assert ESTIMAND in unescape(table)


@pytest.mark.slow
def test_the_page_fits_a_phone_and_a_desk_and_asks_nothing_of_a_network(analysis, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(render_joint_page(analysis, joint_document(analysis, finished=True)))
    with browser(tmp_path / "profile") as page:
        for width in (360, 1440):
            page.open(path, width=width)
            page.evaluate("document.querySelectorAll('details').forEach((node) => (node.open = true))")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate("document.querySelectorAll('.plot .main-svg').length") >= 1
        assert page.messages == []
        assert {address.split(":")[0] for address in page.requests} <= {"file", "data", "blob"}
