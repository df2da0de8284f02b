"""Claims and ladders as settings: what can be asked is taken and round-trips, all else is refused in one line."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.places import STUDIES
from support.small_study import a_study

from qsgd_ray.config import (
    Arm,
    Claim,
    ClaimPart,
    Contrast,
    Expectation,
    LanguageTask,
    LogUniform,
    Map,
    Perturbation,
    Rung,
    Study,
    StudyError,
    WordProblems,
    study_from_tree,
)
from qsgd_ray.config.claims import UNITS, filled
from qsgd_ray.config.loading import load_study, with_overrides
from qsgd_ray.config.trial import confirm_trials, map_trials, search_key

ARMS = (
    Arm(name="adamw"),
    Arm(name="sine", perturbation=Perturbation(source="sine", n_qubits=2)),
    Arm(name="plain", learning_rate=2e-3),
)
MAP = Map(
    arm="sine", axes={"perturbation.n_qubits": (2, 4), "perturbation.scope": ("all", "tensor")}, seeds=(31,), epochs=1
)
IDS = [
    "21da4c59ce",
    "2e679d5e3d",
    "confirm-circuit-s101-719e853305",
    "confirm-noisy-half-s401-3e486166fd",
    "confirm-sine-half-s301-e044207aac",
    "map-circuit-half-s502-978154bc9e",
]
CELL = {"perturbation.n_qubits": 2, "perturbation.scope": "all"}
WORDS = Expectation(lies="above", words="{arm} changes by {figure}")


_GIVEN = {"name": "A", "text": "it is better", "contrast": "sine", "measure": "difference", "claimed": 0.02}


def a_claim(**fields) -> Claim:
    return Claim(**_GIVEN | fields)


def in_words(*expects: Expectation, **fields) -> Claim:
    return a_claim(claimed=None, parts=(ClaimPart(expects=expects),), **fields)


def study_of(*claims: Claim, **fields) -> Study:
    return a_study(**{"arms": ARMS, "map": MAP} | fields, claims=claims)


def line_of(make, *args, **fields) -> str:
    with pytest.raises(StudyError) as error:
        make(*args, **fields)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"claimed": None}, "Claim: claimed or parts: a figure, or what the words are taken to say; got neither"),
        ({"parts": (ClaimPart(expects=(WORDS,)),)}, "Claim: claimed or parts: .*; got both"),
        ({"claimed": 0.0}, "Claim: claimed: a figure other than 0; .*; got 0"),
        ({"claimed": "2 %"}, "Claim.claimed: got '2 %'; allowed: a valid number"),
        ({"lacks": "no arm"}, "Claim: lacks: of a claim in words, with parts"),
        ({"measure": "lost_runs"}, "Claim: measure: any other than lost_runs"),
        ({"measure": "speed"}, "Claim.measure: got 'speed'; allowed: 'difference', "),
        ({"measure": "spread_change", "unit": "nats"}, "Claim: unit: share with spread_change; got 'nats'"),
        ({"unit": "share"}, "Claim: unit: points, or the unit of the metric with difference; got 'share'"),
        ({"measure": "seconds_per_step_change", "metric": "loss"}, "Claim: metric: with difference or spread_change"),
        (
            {"measure": "spread_change", "contrast": {"arm": "sine", "along": "learning_rate"}},
            "Claim: contrast.along: with a measure of difference, .*; got spread_change",
        ),
        ({"name": "../x"}, "Claim.name: got '../x'; allowed: "),
        ({"text": ""}, "Claim.text: got ''; allowed: "),
        ({"contrast": 5}, "Claim.contrast: got 5; allowed: "),
    ],
)
def test_a_claim_that_says_nothing_is_refused(fields, said):
    assert re.match(said, line_of(Claim, **_GIVEN | fields))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"at": CELL, "along": "learning_rate"}, "Contrast: at or along, not both"),
        ({"against_at": CELL}, "Contrast: against_at together with at"),
        ({"at": CELL, "against": "plain"}, "Contrast: against without at and along"),
    ],
)
def test_a_contrast_is_of_one_kind(fields, said):
    assert line_of(Contrast, arm="sine", **fields).startswith(said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("{frob} is large", "words: placeholders of arm, against, value, figure, low, high, first, last; got {frob}"),
        ("{lost} runs", "words: placeholders of "),
        ("{arm.name}", "words: placeholders of "),
        ("{arm", "words: braces around placeholders alone"),
        ("{{arm}}", "words: "),
    ],
)
def test_words_have_placeholders_of_what_there_is(words, said):
    axis = Contrast(arm="sine", along="perturbation.n_qubits")
    assert said in line_of(in_words, Expectation(contrast=axis, lies="above", words=words))
    assert "words: placeholders of arm, against; got {value}" in line_of(
        a_claim, claimed=None, parts=(ClaimPart(expects=(WORDS,), missing="{value}"),)
    )


def test_filled_words_leave_other_braces_alone():
    assert filled("{arm} and {value}", {"arm": "{value}"}) == "{value} and {value}"


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ([a_claim(), a_claim()], "claims: each name once; got A, A"),
        ([a_claim(contrast="frob")], "claims.A: an arm beside the baseline (sine, plain); got 'frob'"),
        ([a_claim(contrast="adamw")], "claims.A: an arm beside the baseline (sine, plain); got 'adamw'"),
        (
            [a_claim(contrast=Contrast(arm="sine", against="sine"))],
            "claims.A: an arm beside sine (adamw, plain); got 'sine'",
        ),
        (
            [a_claim(contrast=Contrast(arm="sine", against="frob"))],
            "claims.A.contrast.against: an arm beside sine (adamw, plain); got 'frob'",
        ),
        (
            [a_claim(contrast="plain", about="perturbation.lambda_")],
            "claims.A: an arm with a perturbation.lambda_, which it is about; got 'plain'",
        ),
        ([a_claim(metric="f1")], "claims.A.metric: a metric of the workload (accuracy, loss); got 'f1'"),
        ([a_claim(metric="loss", unit="points")], "claims.A.unit: another than points with the metric loss"),
        (
            [a_claim(contrast=Contrast(arm="sine", along="perturbation.n_qbits"))],
            "claims.A.contrast.along: a field of the arm sine or, below workload, of the workload; "
            "got 'perturbation.n_qbits'",
        ),
        (
            [a_claim(contrast=Contrast(arm="plain", along="perturbation.n_qubits"))],
            "claims.A.contrast.along: a field of the arm plain",
        ),
        (
            [a_claim(contrast=Contrast(arm="sine", along="perturbation.scope"))],
            "claims.A.contrast.along: an axis of numbers; got perturbation.scope with 'all'",
        ),
        (
            [a_claim(contrast=Contrast(arm="plain", at=CELL))],
            "claims.A.contrast.arm: the map's arm (sine); got 'plain'",
        ),
        (
            [a_claim(contrast=Contrast(arm="sine", at={"perturbation.n_qubits": 2}))],
            "claims.A.contrast.at: a setting of the map, one of its values for each of perturbation.n_qubits, "
            "perturbation.scope; got {'perturbation.n_qubits': 2}",
        ),
        (
            [a_claim(contrast=Contrast(arm="sine", at=CELL, against_at=CELL | {"perturbation.n_qubits": 3}))],
            "claims.A.contrast.against_at: a setting of the map",
        ),
        (
            [a_claim(contrast=Contrast(arm="sine", at=CELL, against_at=CELL))],
            "claims.A.contrast.against_at: another setting than at; got ",
        ),
        (
            [in_words(WORDS, Expectation(contrast="frob", lies="below", words="x"))],
            "claims.A.parts.0.expects.1: an arm beside the baseline (sine, plain); got 'frob'",
        ),
    ],
)
def test_a_claim_that_the_study_cannot_be_asked_is_refused_at_birth(claims, said):
    assert line_of(study_of, *claims).startswith(said)


def test_a_claim_of_a_map_that_is_not_there_is_taken_and_told_as_not_measured():
    along = a_claim(contrast=Contrast(arm="sine", along="perturbation.n_qubits"))
    at = a_claim(name="B", contrast=Contrast(arm="sine", at=CELL))
    assert study_of(along, at, map=None).claims == (along, at)
    of_workload = a_claim(contrast=Contrast(arm="sine", along="workload.length"))
    ranged = Map(arm="sine", axes={"learning_rate": LogUniform(low=1e-4, high=1e-2)}, seeds=(31,), epochs=1, n_points=4)
    assert study_of(of_workload, a_claim(name="C", contrast=Contrast(arm="sine", along="learning_rate")), map=ranged)


@pytest.mark.parametrize(
    ("ladder", "said"),
    [
        ([Rung(arm="adamw", explains="x")], "ladder.0.arm: an arm beside the baseline (sine, plain); got 'adamw'"),
        ([Rung(arm="frob", explains="x")], "ladder.0.arm: an arm beside the baseline (sine, plain); got 'frob'"),
        ([Rung(arm="plain", explains="x")] * 2, "ladder.1.arm: each arm once; got 'plain' again"),
        (
            [Rung(arm="plain", explains="x", of=("adamw",))],
            "ladder.0.of: arms beside the baseline and plain (sine); got 'adamw'",
        ),
        ([Rung(arm="plain", explains="x", of=("plain",))], "ladder.0.of: arms beside the baseline and plain (sine)"),
        (
            [Rung(arm="plain", explains="x"), Rung(arm="sine", explains="x")],
            "ladder.0.of: the arms whose gain plain may explain, as every arm beside the baseline is a rung; got none",
        ),
    ],
)
def test_a_ladder_of_arms_that_are_no_controls_is_refused(ladder, said):
    assert line_of(study_of, ladder=tuple(ladder)).startswith(said)


MEASURES = st.sampled_from(["difference", *(name for name in UNITS if name != "lost_runs")])
FIGURES = st.floats(-10, 10).filter(bool)
EXPECTATIONS = st.builds(
    Expectation,
    lies=st.sampled_from(["above", "below"]),
    edge=st.sampled_from(["margin", "-margin"]) | st.floats(-1, 1),
    excluded=st.none() | st.floats(-1, 1),
    contrast=st.none() | st.builds(Contrast, arm=st.just("sine"), against=st.none() | st.just("plain")),
    measure=st.none() | st.sampled_from(["difference", "spread_change", "lost_runs"]),
    words=st.sampled_from(["{arm} against {against}: {figure}", "{low} to {high}", "no placeholder"]),
)
PARTS = st.lists(
    st.builds(
        ClaimPart,
        expects=st.lists(EXPECTATIONS, min_size=1, max_size=3).map(tuple),
        rule=st.sampled_from(["all", "any"]),
    ),
    min_size=1,
    max_size=3,
).map(tuple)
CLAIMS = st.builds(a_claim, measure=MEASURES, claimed=FIGURES) | st.builds(
    lambda parts, measure: a_claim(parts=parts, measure=measure, claimed=None), PARTS, MEASURES
)


@given(CLAIMS, st.none() | st.just(()) | st.just((Rung(arm="plain", explains="a rate", of=("sine",)),)))
def test_a_study_of_claims_and_rungs_round_trips_through_json(claim, ladder):
    study = study_of(claim, ladder=ladder)
    assert study_from_tree(json.loads(study.model_dump_json())) == study


def test_a_claim_is_changed_from_the_command_line_by_its_name():
    study = study_of(a_claim())
    assert with_overrides(study, ["claims.A.claimed=0.5"]).claims[0].claimed == 0.5
    assert with_overrides(study, ['ladder=[{"arm":"plain","explains":"a rate"}]']).ladder[0].of == ()
    assert with_overrides(study, ["claims=[]"]).claims == ()


def test_the_spelling_of_stored_studies_is_read_as_the_values_that_the_shipped_study_has_now():
    study = load_study(STUDIES / "paper_text.py")
    numbers = {"C7": "circuit-half", "C1": "sine-half", "C2": "sine-half", "C3": "sine-half"}
    numbers |= {"C4": "circuit-half", "C5": "circuit-half", "C6": "sine-half"}
    stored = json.loads(study.model_dump_json()) | {"claims": numbers}
    del stored["ladder"]
    assert study_from_tree(stored) == study
    assert study_from_tree(stored | {"claims": {}}).claims == ()


def test_an_arm_that_a_stored_claim_cannot_be_asked_of_is_refused():
    for name in ("adamw", "frob"):
        line = line_of(a_study, claims={"C1": name})
        assert line == f"claims.C1: an arm beside the baseline (sine); got '{name}'"
    line = line_of(a_study, arms=ARMS, claims={"C6": "plain"})
    assert line == "claims.C6: an arm with a perturbation.lambda_, which it is about; got 'plain'"
    assert line_of(a_study, claims={"C8": "sine"}).startswith("claims: allowed: a list of claims, or an arm by num")
    assert line_of(a_study, claims={"C1": 5}).startswith("claims: allowed: a list of claims, or the name of an arm")
    assert line_of(a_study, arms=(), claims={"C1": "sine"}).startswith("arms: ")


def test_a_stored_claim_of_qubits_without_any_is_not_measured():
    [claim] = a_study(arms=ARMS, claims={"C7": "plain"}).claims
    assert claim.unmeasured == "It needs a map of plain with the axis perturbation.n_qubits."


def test_the_stored_claim_of_training_loss_is_measured_of_language_models_alone():
    [text] = a_study(claims={"C3": "sine"}).claims
    task = LanguageTask(data=WordProblems(train_size=8, validation_size=8, test_size=8), batch_size=2)
    [of_language] = a_study(workload=task, claims={"C3": "sine"}).claims
    assert text.unmeasured == "It speaks of a language model: studies/paper_llm.py measures it."
    assert of_language == text.model_copy(update={"unmeasured": None})
    assert load_study(STUDIES / "paper_llm.py").claims == (
        of_language.model_copy(update={"contrast": Contrast(arm="sine-half")}),
    )


def test_claims_and_ladder_are_no_part_of_a_trial():
    """Ids of the shipped studies as they were before claims were data."""

    def confirmed(file: str, arm: str) -> str:
        study = load_study(STUDIES / f"{file}.py")
        point = {path: space.edges()[0] for path, space in study.arm(arm).spaces().items()}
        return confirm_trials(study, arm, point)[0].trial_id

    text = load_study(STUDIES / "paper_text.py")
    points = {arm.name: {path: space.edges()[0] for path, space in arm.spaces().items()} for arm in text.arms}
    ids = [
        search_key(load_study(STUDIES / "quick.py"), "sine", None),
        search_key(text, "adam", None),
        confirmed("quick", "circuit"),
        confirmed("paper_text", "noisy-half"),
        confirmed("paper_llm", "sine-half"),
        map_trials(text, points)[-1].trial_id,
    ]
    assert ids == IDS
    with_ladder = text.model_copy(update={"ladder": (), "claims": ()})
    assert map_trials(with_ladder, points) == map_trials(text, points)
