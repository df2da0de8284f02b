import re

import numpy as np
import pytest
from rich.console import Console
from support.pages import BASE, FIGURES, whole_study
from support.synthetic_results import Run, a_study, lost, made, runs

from qsgd_ray.analysis.statistics import interquartile_mean
from qsgd_ray.analysis.study_analysis import analyse
from qsgd_ray.config import StudyError
from qsgd_ray.outcome import Ending
from qsgd_ray.reporting._all_figures import captioned_figures
from qsgd_ray.reporting._formatting import points
from qsgd_ray.reporting._plot_parts import MOST_ROWS, number_table
from qsgd_ray.reporting.html import leaves_as_text
from qsgd_ray.reporting.terminal import study_report
from qsgd_ray.study.reading import read_results


def page_of(path) -> str:
    """Return the page without plotly.js itself, which names addresses in its comments and never requests them."""
    text = read_results(path).report().read_text()
    return re.sub(r"<script>.*?</script>", "", text, count=1, flags=re.DOTALL)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    provenance = {
        "versions": {"torch": "2.9.0"},
        "commit": "<i>abc</i>",
        "gpus": [],
        "overrides": ["a=1", "b=2"],
        "no": None,
    }
    return page_of(whole_study().write(tmp_path_factory.mktemp("page") / "study", provenance))


def test_report_is_one_file_that_asks_the_network_for_nothing(tmp_path):
    path = read_results(whole_study().write(tmp_path / "study")).report()
    text = path.read_text()
    assert path == tmp_path / "study" / "report.html"
    assert "default-src 'none'" in text
    for request in (r'src\s*=\s*["\']?\s*(https?:)?//', r"<link", r"@import", r"<iframe", r'url\(["\']?http'):
        assert not re.search(request, text), request
    assert len(re.findall(r"<script[^>]*\bsrc=", text)) == 0
    assert "Plotly.newPlot" in text


def test_report_names_every_arm_and_verdict_before_any_figure(page):
    verdict_part = page[: page.index('id="figures"')]
    analysis = analyse(whole_study().tables())
    for v in analysis.verdicts:
        assert v.arm in verdict_part
        assert re.search(rf"{v.arm}</h3>\s*<span class=\"word\">. {v.verdict}<", verdict_part)
    assert analysis.headline in verdict_part


def test_every_figure_has_a_caption_that_counts_what_it_leaves_out(page):
    assert re.findall(r'<figure id="([^"]+)"', page) == list(FIGURES)
    captions = re.findall(r"<figcaption[^>]*>(.*?)</figcaption>", page, flags=re.DOTALL)
    assert len(captions) == len(FIGURES)
    assert all(re.search(r"[Ll]eft out: \d+|Without a colour: \d+", caption) for caption in captions)
    assert all(f'id="plot-{name}"' in page for name in FIGURES)


def test_every_figure_has_its_numbers_as_a_table(page):
    for name in FIGURES[:-1]:  # the ledger is the last one's
        figure = page[page.index(f'<figure id="{name}"') :]
        figure = figure[: figure.index("</figure>")]
        assert len(re.findall(r"<tr>", figure[figure.index("<details>") :])) > 1, name


def test_a_table_of_many_numbers_says_how_many_it_leaves_out():
    table = number_table("All.", "seed", range(1000), {"arm": dict.fromkeys(range(1, 1000), 0.5)})
    assert len(table.rows) == MOST_ROWS
    assert table.description == f"All. {MOST_ROWS} of 999 rows."
    assert (table.rows[0], table.rows[-1]) == (["1", "0.5"], ["999", "0.5"])


def test_a_figure_of_many_runs_shows_some_and_says_so():
    accuracies = 0.9 + np.random.default_rng(0).normal(0, 0.01, 400)
    study = made({"adamw": runs(accuracies), "sine": [Run(float(x), ratio=0.1) for x in accuracies]})
    figures = captioned_figures(analyse(study.tables()))
    curves, ratios = figures["learning-curves"], figures["step-ratio"]
    assert "800 confirmation runs, a thin line each for 300 of them and 500 not drawn" in curves.caption
    assert "400 confirmation runs of the perturbed arms (thin for 300 of them and 100 not drawn)" in ratios.caption
    assert sum(list(trace.x).count(None) for trace in curves.figure.data) == 300
    assert any(trace.type == "violin" for trace in figures["final-accuracy"].figure.data)


def test_a_band_is_that_of_all_runs_and_not_of_those_drawn():
    accuracies = 0.9 + np.random.default_rng(0).normal(0, 0.01, 400)
    tables = made({"adamw": runs(accuracies), "sine": runs(accuracies)}).tables()
    (mean,) = [
        trace for trace in captioned_figures(analyse(tables))["learning-curves"].figure.data if trace.name == "sine"
    ]
    rows = [m for m in tables.measurements.to_pylist() if m["arm"] == "sine"]
    for epoch, drawn in zip(mean.x, mean.y, strict=True):
        whole = [100 * m["validation_accuracy"] for m in rows if m["epoch"] == epoch]
        assert len(whole) == 400
        assert drawn == pytest.approx(interquartile_mean(whole))


def test_numbers_of_an_arm_count_nulls_and_misses_and_give_intervals(page):
    table = page[page.index('id="arms"') : page.index('id="figures"')]
    row = re.search(r'<th scope="row">wild</th>(.*?)</tr>', table, flags=re.DOTALL).group(1)
    cells = [" ".join(re.sub(r"<[^>]*>", " ", cell).split()) for cell in re.findall(r"<td>(.*?)</td>", row, re.DOTALL)]
    assert cells[:4] == ["2 of 6", "75.50, 4 null 60.00 to 91.00", "0.20 0.04 to 0.62", "5 of 6"]
    assert cells[4].startswith("missed")
    assert cells[5].startswith("−")


def test_profiles_name_the_runs_without_a_result(page):
    caption = page[page.index('<figure id="performance-profiles"') : page.index('<figure id="learning-curves"')]
    assert "23 confirmation runs by test accuracy" in caption
    assert "Without a result: 3 of wild" in caption
    assert "Left out: 1 run lost with a process" in caption


def test_endings_are_counted_by_stage_and_arm(page):
    part = page[page.index('id="trials"') :]
    row = re.search(r'<th scope="row">confirm</th><td class="left">wild</td>(.*?)</tr>', part, flags=re.DOTALL).group(1)
    assert re.findall(r"<td[^>]*>([^<]*)</td>", row)[:8] == ["6 of 6", "2", "0", "2", "1", "1", "0", "4"]


def test_text_from_data_is_escaped(tmp_path):
    study = a_study(["adamw", "sine"], 6, question="Is <script>alert(1)</script> & co better?")
    text = page_of(
        made({"adamw": runs(BASE), "sine": [lost(Ending.FAILED)] * 6}, study=study).write(tmp_path / "study")
    )
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; co" in text
    assert "<b>broken</b>" not in text
    assert "&lt;b&gt;broken&lt;/b&gt;" in text


def test_provenance_is_shown_leaf_by_leaf(page):
    assert '<th scope="row">versions.torch</th><td>2.9.0</td>' in page
    assert '<th scope="row">commit</th><td>&lt;i&gt;abc&lt;/i&gt;</td>' in page
    assert '<th scope="row">overrides</th><td>a=1, b=2</td>' in page
    assert '<th scope="row">no</th><td>–</td>' in page


def test_nested_provenance_becomes_dotted_paths():
    tree = {"a": {"b": [1, 2], "c": {}}, "d": [{"e": True}, {}], "f": []}
    assert list(leaves_as_text(tree)) == [
        ("a.b", "1, 2"),
        ("a.c", "none"),
        ("d.0.e", "True"),
        ("d.1", "none"),
        ("f", "none"),
    ]


UNFINISHED = {
    "nothing has run": made({}, study=a_study(["adamw", "sine"], 6)),
    "search only": made({}, study=a_study(["adamw", "sine"], 6), searched=True),
    "a single trial": made({"adamw": runs(BASE[:1])}, study=a_study(["adamw", "sine"], 6)),
    "one seed each": made({"adamw": runs([0.9]), "sine": runs([0.91])}),
    "everything diverged": made({"adamw": [lost()] * 6, "sine": [lost()] * 6}),
    "failed before the first epoch": made({"adamw": runs(BASE), "sine": [lost(Ending.FAILED)] * 6}),
    "the baseline alone": made({"adamw": runs(BASE)}, searched=True),
    "the baseline not yet": made({"sine": runs(BASE)}, study=a_study(["adamw", "sine"], 6)),
    "lambda zero": made({"adamw": runs(BASE), "sine": [Run(0.9, ratio=0.0)] * 6}),
}


@pytest.mark.parametrize("case", UNFINISHED)
def test_a_study_is_reported_as_far_as_it_went(case, tmp_path):
    unfinished = UNFINISHED[case]
    text = page_of(unfinished.write(tmp_path / "study"))
    assert text.count("<figure id=") == len(FIGURES)
    assert all(arm.name in text for arm in unfinished.study.arms)
    assert "nan" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL).lower().split()
    console, analysis = Console(width=160, record=True), analyse(unfinished.tables())
    console.print(*study_report(analysis))


def test_the_same_rows_give_the_same_page(tmp_path):
    study = made({"adamw": runs(BASE), "sine": runs(BASE)})
    path = study.write(tmp_path / "study")
    assert page_of(path) == page_of(path)


def test_a_folder_without_a_study_is_refused(tmp_path):
    with pytest.raises(StudyError, match="DIR"):
        read_results(tmp_path).report()


def test_terminal_tables_hold_verdict_reason_and_numbers():
    analysis = analyse(whole_study().tables())
    console = Console(width=200, record=True, force_terminal=False)
    console.print(*study_report(analysis))
    text = console.export_text()
    for word in (
        "▲ better",
        "= equivalent",
        "? inconclusive",
        "+5.00",
        "margin 1.00",
        "missed",
        "5/6",
        "0/6",
        "0.50 (0.19 to 0.81)",
        "75.50, 4 null",
    ):
        assert word in text, word


@pytest.mark.parametrize(
    ("fraction", "text"), [(0.0123, "+1.23"), (-0.0123, "−1.23"), (-1e-9, "0.00"), (-0.1, "−10.00"), (None, "–")]
)
def test_points_are_signed_but_zero(fraction, text):
    assert points(fraction) == text


@pytest.mark.parametrize(("fraction", "text"), [(0.5, "50.00"), (0.1, "10.00"), (0.01, "1.00"), (-1e-9, "0.00")])
def test_points_without_a_sign_keep_their_tens(fraction, text):
    assert points(fraction, sign=False) == text
