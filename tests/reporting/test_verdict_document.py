"""verdict.json is what its schema and docs/results.md say; the other formats hold the same numbers."""

import csv
import io
import json
import re

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.pages import whole_study
from support.places import DOCS
from support.scores import EFFECTS, RULE, score_rows
from support.synthetic_results import a_study, made, runs

from qsgd_ray import judge
from qsgd_ray.analysis.metric_numbers import MetricNumbers
from qsgd_ray.analysis.study_analysis import analyse
from qsgd_ray.analysis.verdict import MIN_PAIRS
from qsgd_ray.config.loading import with_overrides
from qsgd_ray.reporting.verdict_document import as_json, is_failure, study_document
from qsgd_ray.reporting.verdict_formats import FORMATS, formatted_verdict
from qsgd_ray.study.reading import read_results

SCHEMA = json.loads((DOCS / "verdict.schema.json").read_text())


def document_of(tables, **fields):
    return study_document(analyse(tables), finished=fields.get("finished", False))


DOCUMENTS = {
    "whole": lambda: document_of(whole_study(claims={"C1": "gain", "C2": "wild"}).tables()),
    "empty": lambda: document_of(made({"adamw": [], "sine": []}).tables()),
    "alone": lambda: document_of(made({"adamw": runs([0.9] * 6)}, study=a_study(["adamw"], 6)).tables()),
    "scores": lambda: judge(score_rows(EFFECTS), unit="nats", **RULE).document,
    "lost": lambda: judge([{"arm": a, "seed": 1, "score": None} for a in "ab"], baseline="a", margin=1).document,
}


@pytest.fixture(params=DOCUMENTS)
def tree(request):
    return DOCUMENTS[request.param]()


def test_every_document_is_what_the_schema_says(tree):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(json.loads(as_json(tree)), SCHEMA, jsonschema.Draft202012Validator)


def test_a_document_is_ascii_and_comes_back_as_it_is(tree):
    text = as_json(tree)
    assert text.isascii()
    assert json.loads(text) == tree


def test_equal_rows_give_equal_bytes(tmp_path):
    one, two = (whole_study().write(tmp_path / name, {"commit": name}) for name in ("one", "two"))
    texts = []
    for folder in (one, two):
        read_results(folder).report()
        texts.append((folder / "verdict.json").read_bytes())
    assert texts[0] == texts[1]
    assert json.loads(texts[0]) == read_results(one).document
    (tmp_path / "elsewhere").mkdir()
    read_results(one).report(tmp_path / "elsewhere" / "page.html")
    assert not (tmp_path / "elsewhere" / "verdict.json").exists()


def test_a_document_has_the_numbers_of_the_analysis():
    analysis = analyse(whole_study().tables())
    tree = study_document(analysis, finished=True)
    assert tree["headline"] == analysis.headline
    assert tree["rule"]["min_pairs"] == MIN_PAIRS
    for entry, verdict in zip(tree["verdicts"], analysis.verdicts, strict=True):
        assert entry["difference"] == verdict.difference
        assert entry["interval"] == {"low": verdict.interval.low, "high": verdict.interval.high}
        assert entry["reason"] == verdict.reason
    for entry, summary in zip(tree["arms"], analysis.summaries, strict=True):
        assert (entry["iqm"], entry["n_null"]) == (summary.iqm, summary.n_null)


def rows_below(heading: str) -> set[str]:
    """The names in the first column of the tables below a heading of docs/results.md."""
    text = (DOCS / "results.md").read_text()
    part = text[text.index(f"## {heading}\n") :].split("\n## ", 1)[0]
    cells = [line.split("|")[1] for line in part.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_a_document_names_the_metric_that_decides():
    study = with_overrides(a_study(["adamw", "sine"], 6), ["decision.metric=loss", "decision.margin=0.5"])
    tree = document_of(made({"adamw": runs([0.9] * 6), "sine": runs([0.8] * 6)}, study=study).tables())
    assert tree["metric"] == {"name": "test loss", "direction": "min", "kind": "mean", "unit": "nats"}
    assert "nats" in formatted_verdict(tree, "markdown")


def test_every_field_is_documented_and_nothing_else_is():
    fields = {*SCHEMA["properties"], *SCHEMA["properties"]["verdicts"]["items"]["properties"]}
    assert rows_below("verdict.json") == fields


def test_fail_on_worse_and_fail_on_inconclusive():
    def fails(arms, word):
        rows = score_rows(EFFECTS | {"few": 0.0})
        rows = [row for row in rows if row["arm"] in ("adamw", *arms) and (row["arm"], row["seed"]) != ("few", 1)]
        return is_failure(judge(rows, **RULE).document, word)

    assert [fails(arms, "worse") for arms in (["muon"], ["same"], ["few"], ["muon", "lion"])] == [
        False,
        False,
        False,
        True,
    ]
    assert [fails(arms, "inconclusive") for arms in (["muon"], ["same"], ["few"], ["lion"])] == [
        False,
        False,
        True,
        True,
    ]


def test_csv_has_every_digit_of_every_verdict(tree):
    lines = list(csv.DictReader(io.StringIO(formatted_verdict(tree, "csv"))))
    assert [line["arm"] for line in lines] == [v["arm"] for v in tree["verdicts"]]
    for line, v in zip(lines, tree["verdicts"], strict=True):
        for name in ("difference", "p_difference", "p_equivalence", "smallest_detectable_effect"):
            assert line[name] == ("" if v[name] is None else repr(v[name]))
        assert (line["low"], line["high"]) == tuple(
            "" if v["interval"] is None else repr(v["interval"][edge]) for edge in ("low", "high")
        )
        assert line["margin"] == repr(tree["rule"]["margin"])
        assert line["reason"] == v["reason"]


def test_markdown_and_latex_have_a_line_an_arm(tree):
    markdown, latex = (formatted_verdict(tree, name).splitlines() for name in ("markdown", "latex"))
    assert len(markdown) == 2 + len(tree["arms"])
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in markdown}) == 1
    rows = [line for line in latex if line.endswith(r"\\")]
    assert len(rows) == 1 + len(tree["arms"])
    assert len({len(re.findall(r"(?<!\\)&", line)) for line in rows}) == 1


def test_a_name_breaks_no_table():
    odd = r"a|b & c_d \ {e} 50% $x^2$ #~"
    rows = [row | {"arm": row["arm"].replace("muon", odd)} for row in score_rows(EFFECTS)]
    tree = judge(rows, **RULE).document
    (markdown,) = (line for line in formatted_verdict(tree, "markdown").splitlines() if "50%" in line)
    assert r"a\|b & c\_d \\ \{e\} 50% \$x^2\$ \#\~" in markdown
    (latex,) = (line for line in formatted_verdict(tree, "latex").splitlines() if "50" in line)
    assert r"a|b \& c\_d \textbackslash{} \{e\} 50\% \$x\textasciicircum{}2\$ \#\textasciitilde{}" in latex


def test_the_tables_show_the_metric_s_unit_and_a_tenth_of_the_margin():
    tree = judge(score_rows(EFFECTS), unit="nats", **RULE).document
    head, _, _, muon, *_ = formatted_verdict(tree, "markdown").splitlines()
    assert "| score (nats) |" in head
    assert "| difference (nats) |" in head
    assert re.fullmatch(r"\| muon \| 1\.\d{3} \| .* \| −0\.\d{3} \| .* \| \\< 0\.001 \| 1\.00 \| better \|", muon)
    assert set(FORMATS) == {"json", "csv", "markdown", "latex"}


@settings(max_examples=200, deadline=None)
@given(
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.floats(min_value=1e-6, max_value=1e6),
    st.sampled_from(["share", "mean"]),
)
def test_a_number_is_shown_to_a_tenth_of_the_margin_and_its_sign_once(value, margin, kind):
    margin = margin if kind == "mean" else min(margin, 0.5)
    numbers = MetricNumbers(kind, "", margin)
    text = numbers.difference(value).replace("−", "-")
    shown = float(text)
    error = abs(shown - numbers.shown(value))
    step = 0.01 if kind == "share" else margin / 10
    assert error <= 0.51 * step or error <= 1e-3 * abs(numbers.shown(value))
    assert (text[0] == "+") == (shown > 0)
    assert (text[0] == "-") == (shown < 0)
    assert numbers.difference(-value).replace("−", "-").lstrip("+-") == text.lstrip("+-")
