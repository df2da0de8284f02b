"""A study's result as one object: its verdicts, rows, figures and report are those of its rows."""

from pathlib import Path

import pytest
from support.synthetic_results import made, runs

import qsgd_ray
from qsgd_ray import StudyError, read_results
from qsgd_ray.analysis.verdict import Verdict
from qsgd_ray.results import read

ACCURACIES = [0.80, 0.81, 0.82, 0.79, 0.80, 0.83]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    better = [accuracy + 0.05 + 0.001 * index for index, accuracy in enumerate(ACCURACIES)]
    study = made({"adamw": runs(ACCURACIES), "sine": runs(better)}, searched=True)
    return study.write(tmp_path_factory.mktemp("study") / "made")


@pytest.fixture(scope="module")
def result(folder) -> qsgd_ray.StudyResult:
    return read_results(folder)


def test_the_rows_are_those_of_the_folder(result, folder):
    tables = read(folder)
    assert result.study == tables.study
    assert result.trials.equals(tables.trials)
    assert result.measurements.equals(tables.measurements)
    trials, measurements = result.to_pandas()
    assert (len(trials), len(measurements)) == (tables.trials.num_rows, tables.measurements.num_rows)


def test_the_verdicts_are_those_of_the_analysis_which_is_made_once(result):
    (verdict,) = result.verdicts
    assert verdict is result.analysis.verdicts[0]
    assert verdict.verdict is Verdict.BETTER
    assert result.analysis is result.analysis


def test_a_printed_verdict_has_its_word_its_difference_its_interval_and_its_reason(result):
    (verdict,) = result.verdicts
    (line,) = str(result.verdicts).splitlines()
    assert line.startswith("sine: better, +5.25 points (+")
    assert line.endswith(verdict.reason)
    assert repr(result.verdicts) == str(result.verdicts)


def test_a_notebook_shows_verdicts_with_intervals_and_text_as_text(result, tmp_path):
    text = result._repr_html_()
    assert all(word in text for word in ("better", "+5.25", "Does the sine help?", "<table>", "P(improvement)"))
    bold = made({"adamw": runs(ACCURACIES), "sine": runs(ACCURACIES)}, question="Is <b> bold?")
    assert "Is &lt;b&gt; bold?" in read_results(bold.write(tmp_path))._repr_html_()


def test_figures_are_plotly_s_and_have_names(result):
    import plotly.graph_objects as go

    assert result.figures
    assert all(isinstance(figure, go.Figure) for figure in result.figures.values())


def test_the_report_goes_beside_the_rows_or_where_it_is_asked_for(result, folder, tmp_path):
    assert result.report() == folder / "report.html" == result.page
    elsewhere = result.report(tmp_path / "mine.html")
    assert elsewhere.read_text() == result.page.read_text()
    with pytest.raises(StudyError, match=r"^path: got /dev/null/mine.html; allowed: a file that can be written \("):
        result.report("/dev/null/mine.html")


def test_a_study_is_finished_when_every_planned_trial_has_ended(result, tmp_path):
    assert result.is_finished
    some = made({"adamw": runs(ACCURACIES), "sine": [*runs(ACCURACIES[:-1]), None]}, searched=True)
    unfinished = read_results(some.write(tmp_path / "some"))
    assert not unfinished.is_finished
    assert "(unfinished)" in unfinished._repr_html_()


def test_a_folder_without_a_study_is_one_line(tmp_path):
    with pytest.raises(StudyError, match=r"^DIR: got .*; allowed: a folder that a study was run into$"):
        read_results(tmp_path)
