"""The ladder of controls: the lowest rung that explains a gain is named; where there is no gain, that is said."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.synthetic_results import RATE, a_study, lost, made, runs

from qsgd_ray.analysis.ladder import RUNG_DESCRIPTIONS, Explanation, _rung_of, ladders
from qsgd_ray.analysis.verdict import Verdict, judge
from qsgd_ray.config import Arm, Choice, LogUniform, NoiseSettings, Perturbation, Rung, study_from_tree
from qsgd_ray.results import StudyTables

NAMES = ("zero", "gradient", "random_sign", "shuffled", "sine", "flat_circuit", "circuit")
N = 10


def arm_of(name: str, **fields) -> Arm:
    source, entangle = ("circuit", "none") if name == "flat_circuit" else (name, "chain")
    only = {"sampled": {"shots": 10}, "noisy": {"noise": NoiseSettings(p01=0.1)}}.get(source, {})
    settings = {"lambda_": 0.5} | only | fields
    perturbation = Perturbation(source=source, entangle=entangle, **settings)
    return Arm(name=name.replace("_", "-"), learning_rate=RATE, perturbation=perturbation)


def study_with(gains: dict[str, float | None], spread: float = 0.001, **fields):
    """Ten paired runs an arm, its gain over adam planted; None: its runs diverge."""
    noise = np.random.default_rng(5).normal(0, spread, (len(gains) + 1, N))
    arms = (Arm(name="adam", learning_rate=RATE), *(arm_of(name, **fields) for name in gains))
    study = a_study(["adam"], N, arms=arms)
    runs_by_arm = {"adam": runs(0.85 + noise[0])}
    for row, (arm, gain) in enumerate(zip(arms[1:], gains.values(), strict=True), start=1):
        runs_by_arm[arm.name] = [lost()] * N if gain is None else runs(0.85 + gain + noise[row])
    return made(runs_by_arm, study=study).tables()


def ladders_of(tables):
    return ladders(tables, judge(tables))


@pytest.mark.parametrize("first", NAMES[:-1])
def test_the_lowest_control_that_gains_as_much_is_named(first):
    gains = {name: 0.04 if NAMES.index(name) >= NAMES.index(first) else 0.0 for name in NAMES}
    circuit = ladders_of(study_with(gains))[-1]
    assert circuit.arm == "circuit"
    assert circuit.gain.verdict is Verdict.BETTER
    assert circuit.explained_by.name == first
    assert [rung.name for rung in circuit.rungs] == list(NAMES[:-1])
    assert f"({first.replace('_', '-')}) already explains the gain of circuit" in circuit.summary
    assert circuit.missing == ()


def test_a_gain_that_no_control_has_is_told_as_such():
    ladder = ladders_of(study_with({name: 0.04 if name == "circuit" else 0.0 for name in NAMES}))[-1]
    assert ladder.explained_by is None
    assert {rung.explanation for rung in ladder.rungs} == {Explanation.FALLS_SHORT}
    assert (
        ladder.summary == "No control of the study explains the gain of circuit: it is better than every one of them."
    )


def test_a_control_that_gains_more_explains_it_too():
    ladder = ladders_of(study_with({"gradient": 0.09, "circuit": 0.04}))[0]
    assert ladder.explained_by.name == "gradient"
    assert set(ladder.missing) == {"zero", "random_sign", "shuffled", "sine", "flat_circuit"}


@pytest.mark.parametrize(("gain", "outcome"), [(0.0, "is equivalent to adam"), (-0.04, "is worse than adam")])
def test_without_a_gain_there_is_nothing_to_explain(gain, outcome):
    ladder = ladders_of(study_with({"zero": 0.0, "circuit": gain}))[0]
    assert ladder.summary == f"There is no gain to explain: circuit {outcome}."
    assert ladder.explained_by is None


def test_a_gain_that_is_not_shown_is_not_explained_yet():
    ladder = ladders_of(study_with({"zero": 0.0, "circuit": 0.01}, spread=0.02))[0]
    assert ladder.gain.verdict is Verdict.INCONCLUSIVE
    assert ladder.summary == "No gain of circuit is shown, so there is none to explain yet."


def test_controls_that_cannot_be_told_apart_are_named():
    ladder = ladders_of(study_with({"zero": 0.0, "sine": 0.05, "circuit": 0.06}, spread=0.015))[-1]
    assert {rung.name: rung.explanation for rung in ladder.rungs} == {
        "zero": Explanation.FALLS_SHORT,
        "sine": Explanation.OPEN,
    }
    assert ladder.summary == (
        "No control is shown to explain the gain of circuit, but these seeds cannot tell for sine."
    )


def test_a_control_whose_runs_diverge_explains_nothing():
    ladder = ladders_of(study_with({"gradient": None, "circuit": 0.04}))[0]
    assert ladder.rungs[0].explanation is Explanation.FALLS_SHORT


def test_a_study_without_controls_says_that_nothing_can_be_said():
    ladder = ladders_of(study_with({"circuit": 0.04}))[0]
    assert ladder.summary == "The study has no control below circuit, so what its gain comes from cannot be said."


def test_a_control_differs_in_nothing_but_where_its_signal_comes_from():
    arms = (
        Arm(name="adam", learning_rate=RATE),
        arm_of("sine", lambda_=0.5),
        arm_of("circuit", lambda_=0.5),
        arm_of("gradient", lambda_=50.0),
        arm_of("zero", lambda_=50.0),
        arm_of("shuffled", lambda_=0.5, direction="preconditioned"),
        arm_of("random_sign", lambda_=LogUniform(low=0.1, high=1)),
    )
    tables = made({}, study=a_study(["adam"], N, arms=arms)).tables()
    assert [rung.name for rung in ladders_of(tables)[1].rungs] == ["zero", "sine"]
    searched = (
        Arm(name="adam", learning_rate=RATE),
        arm_of("random_sign", lambda_=LogUniform(low=0.1, high=1)),
        arm_of("circuit", lambda_=LogUniform(low=0.1, high=1), n_qubits=Choice(options=(2, 4))),
    )
    tables = made({}, study=a_study(["adam"], N, arms=searched)).tables()
    assert [rung.name for rung in ladders_of(tables)[0].rungs] == ["random_sign"]


def test_every_source_has_its_rung():
    assert [_rung_of(arm_of(name).perturbation) for name in RUNG_DESCRIPTIONS] == [*RUNG_DESCRIPTIONS]
    assert _rung_of(arm_of("circuit", depth=1).perturbation) == "circuit"


def with_ladder(tables, *rungs: Rung):
    study = tables.study.model_copy(update={"ladder": rungs})
    return StudyTables(study_from_tree(study.model_dump(mode="json")), {}, tables.trials, tables.measurements)


def test_a_study_names_its_own_controls_and_what_they_would_explain():
    tables = study_with({"gradient": 0.04, "shuffled": 0.0, "circuit": 0.04, "sine": 0.0})
    named = with_ladder(
        tables, Rung(arm="shuffled", explains="noise"), Rung(arm="gradient", explains="a longer Adam step")
    )
    circuit, sine = ladders_of(named)
    assert (circuit.arm, sine.arm) == ("circuit", "sine")
    assert [(rung.name, rung.explains, rung.explanation) for rung in circuit.rungs] == [
        ("shuffled", "noise", Explanation.FALLS_SHORT),
        ("gradient", "a longer Adam step", Explanation.EXPLAINS),
    ]
    assert circuit.summary == "A longer Adam step (gradient) already explains the gain of circuit."
    assert circuit.missing == ()
    assert sine.summary == "There is no gain to explain: sine is equivalent to adam."


def test_a_rung_may_be_of_some_arms_alone_and_a_ladder_of_none():
    tables = study_with({"gradient": 0.04, "circuit": 0.04, "sine": 0.04})
    one = with_ladder(tables, Rung(arm="gradient", explains="a longer step", of=("sine",)))
    assert [ladder.arm for ladder in ladders_of(one)] == ["sine"]
    assert ladders_of(with_ladder(tables)) == ()
    chained = with_ladder(tables, Rung(arm="gradient", explains="x"), Rung(arm="sine", explains="y", of=("circuit",)))
    assert [(ladder.arm, [rung.control for rung in ladder.rungs]) for ladder in ladders_of(chained)] == [
        ("circuit", ["gradient", "sine"])
    ]


@settings(deadline=None, max_examples=20)
@given(st.dictionaries(st.sampled_from(NAMES), st.sampled_from([0.0, 0.04, 0.06]), min_size=2))
def test_the_ladder_that_is_derived_is_one_that_a_study_could_name(gains):
    """Spelled out as rungs, today's ladder gives the same verdicts and the same sentences."""
    tables = study_with(gains)
    derived = ladders_of(tables)
    of: dict[str, list[str]] = {}
    for ladder in derived:
        for rung in ladder.rungs:
            of.setdefault(rung.name, []).append(ladder.arm)
    heights = sorted(of, key=[*RUNG_DESCRIPTIONS].index)
    arms = {rung.name: rung.control for ladder in derived for rung in ladder.rungs}
    rungs = [Rung(arm=arms[name], explains=RUNG_DESCRIPTIONS[name], of=tuple(of[name])) for name in heights]
    named = ladders_of(with_ladder(tables, *rungs))
    with_controls = [ladder for ladder in derived if ladder.rungs]
    assert [ladder.summary for ladder in named] == [ladder.summary for ladder in with_controls]
    assert [[replace(rung, name="") for rung in ladder.rungs] for ladder in named] == [
        [replace(rung, name="") for rung in ladder.rungs] for ladder in with_controls
    ]
