"""Claims, ladder and map as a reader meets them: on a terminal, and as a figure with its numbers."""

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console, Group
from support.pages import BASE, whole_study
from support.planted_effects import map_tables, planted
from support.synthetic_results import made, runs

from qsgd_ray.analysis.claim import CheckedClaim, Finding
from qsgd_ray.analysis.effect_map import map_effects
from qsgd_ray.analysis.statistics import Interval
from qsgd_ray.analysis.study_analysis import StudyAnalysis, analyse
from qsgd_ray.config import Claim, Contrast, Rung
from qsgd_ray.reporting._figures_map import effect_map_figure
from qsgd_ray.reporting._formatting import claim_arm, claim_interval, claim_value
from qsgd_ray.reporting.page import render_page
from qsgd_ray.reporting.terminal import _claims_table, _ladder_summary, _map_summary, _summary_table, study_report


def printed(what) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(what)
    return " ".join(console.export_text().split())


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.023, "points", "+2.30"),
        (-0.378, "share", "−37.8 %"),
        (-0.0091, "nats", "−0.0091"),
        (None, "share", "–"),
        (-1.5, "dB", "−1.5 dB"),
    ],
)
def test_a_number_is_told_in_its_unit(value, unit, text):
    assert claim_value(value, unit) == text


def test_every_claim_is_told_with_its_reason():
    claims = (
        CheckedClaim(
            "C1", "it is better", "sine", Finding.CONTRADICTED, "It is not.", "points", 0.023, 0.001, Interval(0, 0.002)
        ),
        CheckedClaim("C3", "the loss falls", "sine", Finding.NOT_MEASURED, "No model.", "nats", -0.0091),
    )
    text = printed(_claims_table(claims))
    for word in ("C1", "+2.30", "+0.10", "+0.00 to +0.20", "contradicted", "It is better. It is not.", "not measured"):
        assert word in text
    assert claim_interval(claims[1]) == "–"
    assert "Claims of" not in text
    told = printed(_claims_table([replace(claim, source="arXiv 2511.01918") for claim in claims]))
    assert told.startswith("Claims of arXiv 2511.01918")


def test_a_claim_tells_what_it_compares():
    claim = CheckedClaim("A", "it is better", "sine", Finding.NOT_MEASURED, "")
    cell = {"perturbation.n_qubits": 8, "perturbation.lambda_": 0.5}
    assert claim_arm(claim) == "sine"
    assert claim_arm(replace(claim, against="zero")) == "sine against zero"
    assert claim_arm(replace(claim, at=cell)) == "sine at n_qubits 8, lambda 0.5"
    assert claim_arm(replace(claim, at=cell, against_at=cell | {"perturbation.n_qubits": 2})) == (
        "sine at n_qubits 8, lambda 0.5 against n_qubits 2, lambda 0.5"
    )


def named_ladder():
    """A study that names its controls, and claims of several kinds."""
    claims = (
        Claim(name="A", text="it is <b>", contrast="gain", measure="difference", claimed=0.02, source="a [b] paper"),
        Claim(name="B", text="less", contrast=Contrast(arm="gain", against="same"), measure="difference", claimed=0.2),
    )
    study = whole_study().study
    rungs = (Rung(arm=arm, explains=f"the part of {arm}") for arm in ("same", "wild"))
    changed = study.model_copy(update={"claims": claims, "ladder": tuple(rungs)})
    return analyse(replace(whole_study().tables(), study=changed))


def test_controls_that_the_study_names_are_told_with_what_they_would_explain():
    analysis = named_ladder()
    text = printed(Group(*study_report(analysis)))
    page = render_page(analysis)
    for control in ("same", "wild"):
        assert f"against {control} (the part of {control}): " in text
        assert f'<td class="left">the part of {control}</td>' in page
    assert "what it would explain" in page
    one = replace(analysis, claims=analysis.claims[:1])
    assert "Claims of a [b] paper" in printed(Group(*study_report(one)))
    assert "What a [b] paper says, and what" in render_page(one)
    assert "Claims of" not in text, "one of the two has no source"
    assert "It is <b> (a [b] paper)." in text
    assert "It is &lt;b&gt; (a [b] paper)." in page
    assert "What is claimed, and what" in page
    assert "gain against same" in page


def test_80_columns_hold_the_table_of_a_language_model_with_names_in_one_piece(monkeypatch):
    analysis = analyse(whole_study().tables())
    monkeypatch.setattr(StudyAnalysis, "metric_label", "accuracy of answer tokens")
    named = [replace(s, arm=f"{s.arm}-with-half"[:12], step_ratio=1.23e-6) for s in analysis.summaries]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(_summary_table(replace(analysis, summaries=tuple(named))))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    assert [s.arm for s in named] == [line.split()[0] for line in lines if re.match(r" \w", line)][1:]
    assert any(line.endswith("head") for line in lines)
    assert all("1.23e-06" in line for line in lines if re.match(r" (adamw|same|gain)", line))


def test_the_length_of_a_perturbation_has_a_column_where_an_arm_is_perturbed():
    plain = made({"adamw": runs(BASE), "wide": runs(BASE + 0.02)})
    assert "|λQ| /" not in printed(Group(*study_report(analyse(plain.tables()))))
    assert "|λQ| /" in printed(Group(*study_report(analyse(whole_study().tables()))))


def test_the_ladder_says_what_the_study_has_no_control_for():
    text = printed(_ladder_summary(analyse(map_tables(planted)).ladders))
    assert "The ladder of controls" in text
    assert "Not in the study: lambda = 0, the plain gradient on the same coordinates" in text


def test_the_map_is_counted_in_a_line():
    text = printed(_map_summary(map_effects(map_tables(planted))))
    assert "sine at 8 settings of n_qubits and lambda and learning_rate against adam: 6 equivalent, 2 worse." in text


def test_a_grid_is_drawn_in_cells_of_which_those_within_chance_are_hatched():
    effects = map_effects(map_tables(planted))
    assert effects.is_grid
    drawn = effect_map_figure(effects)
    slices = drawn.figure.data
    assert [bar.name for bar in slices] == ["learning_rate 0.001", "learning_rate 0.01"]
    assert [bar.visible for bar in slices] == [True, False]
    for bar in slices:
        hatched = dict(zip(bar.hovertext, bar.marker.pattern.shape, strict=True))
        assert sorted(hatched.values()) == ["", "/", "/", "/"]
        [plain] = [text for text, shape in hatched.items() if shape == ""]
        assert plain.startswith("n_qubits 8, lambda 50")
        assert "worse" in plain
    assert len(drawn.figure.layout.updatemenus[0].buttons) == 2
    assert "not beyond chance (6 of 8)" in drawn.caption
    assert len(drawn.numbers.rows) == 8


def test_one_axis_is_a_row_of_cells():
    axes = {"perturbation.n_qubits": (2, 8)}
    drawn = effect_map_figure(map_effects(map_tables(planted, axes=axes)))
    assert len(drawn.figure.data) == 1
    assert list(drawn.figure.data[0].base) == [-0.5, -0.5]


def test_points_that_fill_a_space_are_dots():
    effects = map_effects(map_tables(planted))
    sparse = type(effects)(effects.arm, effects.baseline, effects.axes, effects.cells[:3])
    assert not sparse.is_grid
    drawn = effect_map_figure(sparse)
    assert sum(len(dots.x) for dots in drawn.figure.data) == 3
    assert "hollow" in drawn.caption


def test_before_the_first_pair_there_is_nothing_to_draw():
    drawn = effect_map_figure(map_effects(map_tables(planted, keep=lambda trial: False)))
    assert drawn.figure is None
    assert "Without a complete pair of runs: 8" in drawn.caption
    assert len(drawn.numbers.rows) == 8
