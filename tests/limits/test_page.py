"""The page says where it ends first, marks what was held out, and loads nothing from elsewhere."""

import io
import re

import pytest
from rich.console import Console
from support.synthetic_limits import CURVES, a_limits, made, row_of
from support.synthetic_results import made as a_study_made
from support.synthetic_results import runs
from typer.testing import CliRunner

from qsgd_ray.cli import _app as app
from qsgd_ray.config import StudyError
from qsgd_ray.limits._curves import SECONDS, fitted_curves
from qsgd_ray.limits.page import _sentences, print_limits
from qsgd_ray.limits.rows import _sizes_of


@pytest.fixture(scope="module")
def limits_page(tmp_path_factory):
    results = made(tmp_path_factory.mktemp("limits"), scatter=0.02)
    console = Console(width=120, record=True, file=io.StringIO())
    print_limits(results, console)
    text = results.storage.read("limits.html").decode()
    page = re.sub(r"<script>.*?</script>", "", text, count=1, flags=re.DOTALL)
    return results, page, console.export_text()


def test_the_frontier_comes_first(limits_page):
    results, page, told = limits_page
    tables = results.read()
    first = _sentences(tables, fitted_curves(tables))[0]
    assert first.startswith("A step of the paper's text task takes")
    assert "26 circuits" in first
    assert page.index('class="headline"') < page.index('id="predictions"')
    assert first in " ".join(told.split())


def test_every_curve_has_its_figure_and_its_held_out_size(limits_page):
    _, page, told = limits_page
    assert page.count("held out, predicted") >= len(CURVES)
    for curve in CURVES:
        assert f'<th scope="row">{curve.name}</th>' in page
        assert curve.name in told
    for name in ("frontier", "fading-signal", "fading-step-ratio"):
        assert f'id="{name}"' in page
    assert "No rows to draw yet" not in page


def test_the_page_asks_nothing_of_a_network_and_escapes_what_it_is_given(limits_page):
    _, page, _ = limits_page
    assert not re.search(r"(?:src|href)=", page)
    assert "Where does &lt;it&gt; end?" in page
    assert "a &lt;b&gt;machine&lt;/b&gt;" in page


def test_a_held_out_size_that_is_missed_is_named(tmp_path):
    results = made(tmp_path)
    curve = CURVES[0]
    largest = _sizes_of(curve)[-1]
    row = row_of(curve, largest)
    results.write(a_limits(), curve, largest, row | {SECONDS: 2 * row[SECONDS]})
    tables = results.read()
    last = _sentences(tables, fitted_curves(tables))[-1]
    assert "missed: state-ring (seconds, −50.0 %)" in last


def test_a_study_without_rows_has_a_page(tmp_path):
    results = made(tmp_path)
    for file in results.storage.names("sizes", ".parquet"):
        results.storage.remove(f"sizes/{file}")
    print_limits(results, Console(file=io.StringIO()))
    assert "No rows to draw yet" in results.storage.read("limits.html").decode()


def test_the_report_command_knows_both_kinds_of_study(tmp_path):
    made(tmp_path)
    found = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert found.exit_code == 0, found.output
    assert "limits.html" in found.output


def reported(study, *words) -> str:
    found = CliRunner().invoke(app, ["report", str(study), *map(str, words)])
    assert found.exit_code == 0, found.output
    return (study / "report.html").read_text()


def test_a_studys_page_shows_the_newest_limits_beside_it_or_those_asked_for(tmp_path):
    study, beside, elsewhere = (tmp_path / name for name in ("here/study", "here/limits", "there/limits"))
    a_study_made({"adamw": runs([0.9, 0.91]), "gain": runs([0.93, 0.95])}).write(study)
    assert 'id="scaling"' not in reported(study)
    made(beside)
    found = reported(study)
    assert 'href="#scaling"' in found
    assert 'href="../limits/limits.html"' in found
    assert "add 35 % at" in found
    made(elsewhere)
    assert 'href="../../there/limits/limits.html"' in reported(study, "--limits", elsewhere)


def test_limits_that_cannot_be_read_are_left_out_and_told_where_they_were_asked_for(tmp_path):
    study, beside = tmp_path / "study", tmp_path / "limits"
    a_study_made({"adamw": runs([0.9, 0.91]), "gain": runs([0.93, 0.95])}).write(study)
    made(beside)
    (beside / "limits.json").write_text("{")
    assert 'id="scaling"' not in reported(study)
    found = CliRunner().invoke(app, ["report", str(study), "--limits", str(beside)])
    assert isinstance(found.exception, StudyError)
    assert str(beside) in str(found.exception)


def test_the_plan_command_prints_its_table(tmp_path):
    made(tmp_path)
    words = ["plan", "--from", str(tmp_path), "--qubits", "24", "--model", "1.2B", "--scope", "all", "--nodes", "8"]
    found = CliRunner().invoke(app, [*words, "--price-per-node-hour", "1.5"])
    assert found.exit_code == 0, found.output
    for said in ("circuits a step", "50,000,000", "money", "Extrapolated"):
        assert said in found.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--scope", "some"], "--scope: got 'some'; allowed: model, tensor, all"),
        (["--entangle", "star"], "--entangle: got 'star'; allowed: chain, ring, all, none"),
        (["--model", "big"], "--model: got 'big'"),
        (["--from", "nowhere"], "where no study of limits is; allowed: the folder that qsgd-ray run"),
    ],
)
def test_a_plan_that_is_none_is_one_line(tmp_path, words, said):
    made(tmp_path)
    options = words if "--from" in words else ["--from", str(tmp_path), *words]
    found = CliRunner().invoke(app, ["plan", *options])
    assert isinstance(found.exception, StudyError)
    assert said in str(found.exception)


def test_limits_run_to_their_page_and_go_on(tmp_path):
    study = tmp_path / "mine.py"
    study.write_text(
        "from qsgd_ray.config import CircuitCurve, Limits\n"
        "curve = CircuitCurve(name='state', engine='torch', sizes=(2, 3, 4, 5, 6))\n"
        "STUDY = Limits(name='tiny', question='How far?', curves=(curve,), budget_s=0.001)\n"
    )
    words = ["run", str(study), "--storage", str(tmp_path / "out")]
    first = CliRunner().invoke(app, words)
    assert first.exit_code == 0, first.output
    assert "state: 5 sizes" in first.output
    again = CliRunner().invoke(app, words)
    assert "5 there already" in again.output
    assert (tmp_path / "out" / "tiny" / "limits.html").is_file()
    assert (tmp_path / "out" / "tiny" / "study.py").read_text() == study.read_text()


def test_limits_are_not_measured_on_a_cluster(tmp_path):
    study = tmp_path / "mine.py"
    study.write_text(
        f"from qsgd_ray.config import Limits\nSTUDY = Limits.model_validate_json({a_limits().model_dump_json()!r})\n"
    )
    found = CliRunner().invoke(app, ["run", str(study), "--address", "auto"])
    assert "--address: got 'auto'; allowed: none" in str(found.exception)
