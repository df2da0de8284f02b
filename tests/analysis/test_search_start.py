"""What an arm's search knew beforehand is told, and where the arms did not know as much."""

from dataclasses import replace

import pytest
from support.command_line import command_output
from support.synthetic_results import a_study, made, runs

from qsgd_ray.analysis.search_start import _is_unequal, _start_sentences
from qsgd_ray.analysis.study_analysis import analyse
from qsgd_ray.config import Search
from qsgd_ray.reporting.page import render_page
from qsgd_ray.reporting.verdict_document import study_document

UNEQUAL = "; the arms' searches did not start alike."
TAKEN = "The search starts from 8 of adam trials in results/other."


def tables_of(provenance=None, **fields):
    study = a_study(["adam", "sine"], 2, search=Search(trials_per_arm=4, epochs=6, **fields))
    return replace(
        made({arm: runs([0.8, 0.8]) for arm in ("adam", "sine")}, study=study).tables(), provenance=provenance or {}
    )


def known(**counts):
    return {arm: tuple({"learning_rate": 10.0**-k} for k in range(3, 3 - n, -1)) for arm, n in counts.items()}


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ({}, []),
        (known(adam=2), [f"Known points were tried first: 2 of adam, none of sine{UNEQUAL}"]),
        (known(adam=1, sine=2), [f"Known points were tried first: 1 of adam, 2 of sine{UNEQUAL}"]),
        (known(adam=1, sine=1), ["Known points were tried first: 1 of adam, 1 of sine."]),
    ],
)
def test_known_points_are_told_by_arm(points, said):
    tables = tables_of(known_points=points)
    assert _start_sentences(tables) == said
    assert _is_unequal(tables) == any(UNEQUAL in one for one in said)


@pytest.mark.parametrize(
    ("provenance", "said"),
    [
        ({}, []),
        ({"warm_start": 3}, []),
        ({"warm_start": TAKEN}, [TAKEN]),
        ({"warm_start": TAKEN, "warm_start_trials": {"adam": 8}}, [TAKEN.removesuffix(".") + UNEQUAL]),
        ({"warm_start": TAKEN, "warm_start_trials": {"adam": 8, "sine": 8}}, [TAKEN]),
        ({"resumed": [{"warm_start": TAKEN, "warm_start_trials": {"adam": 8}}]}, [TAKEN.removesuffix(".") + UNEQUAL]),
    ],
)
def test_a_warm_start_is_told_as_the_newest_run_took_it(provenance, said):
    assert _start_sentences(tables_of(provenance, warm_start="results/other")) == said
    assert _start_sentences(tables_of(provenance)) == []


def test_page_terminal_and_verdict_say_so(monkeypatch, capsys, tmp_path):
    tables = tables_of(known_points=known(adam=2))
    analysis = analyse(tables)
    (sentence,) = _start_sentences(tables)
    assert sentence in study_document(analysis, finished=True)["notes"]
    page = render_page(analysis).replace("&#39;", "'")
    assert sentence in page
    assert "Their searches did not start alike (see the notes)." in page
    folder = made({arm: runs([0.8, 0.8]) for arm in ("adam", "sine")}, study=tables.study).write(tmp_path / "made")
    assert sentence in command_output(monkeypatch, capsys, "report", folder, columns=200)
    assert "start alike" not in render_page(analyse(tables_of()))
