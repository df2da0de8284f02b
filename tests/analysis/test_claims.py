"""Claims: what was planted as claimed is supported, what was planted as nothing is contradicted.

The paper's claims are asked for as stored studies do, by number; the values that these stand for are those of
studies/paper_claims.py (tests/config/test_claims.py).
"""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.synthetic_results import CHOSEN, RATE, Run, a_study, lost, made, outcome_of, runs

from qsgd_ray.analysis import statistics
from qsgd_ray.analysis.claim import Finding
from qsgd_ray.analysis.claims import check_claims
from qsgd_ray.config import Arm, Confirm, LanguageTask, LogUniform, Map, Perturbation, WordProblems
from qsgd_ray.config.trial import map_trials
from qsgd_ray.results import StudyTables
from qsgd_ray.results._rows import trial_row
from qsgd_ray.results.schema import TRIALS

N = 20
ALL = ("C1", "C2", "C3", "C4", "C5", "C6", "C7")
LAMBDAS = {"sine-tenth": 0.1, "sine": 0.5, "sine-fifty": 50.0}


def study_of(n_seeds: int = N, arms=LAMBDAS, **fields):
    made_arms = (
        Arm(name="adam", learning_rate=RATE),
        *(
            Arm(name=name, learning_rate=RATE, perturbation=Perturbation(source="sine", lambda_=lambda_))
            for name, lambda_ in arms.items()
        ),
    )
    return a_study(["adam"], n_seeds, arms=made_arms, **({"claims": dict.fromkeys(ALL, "sine")} | fields))


def noise(arm: str, n: int = N, spread: float = 0.003) -> np.ndarray:
    return np.random.default_rng([7, *arm.encode()]).normal(0, spread, n)


def changed(tables: StudyTables, arm: str, **columns) -> StudyTables:
    """Return the tables with columns of an arm's confirmation set to what a function makes of its rows."""
    rows = [
        row | {name: new(row) for name, new in columns.items()}
        if row["arm"] == arm and row["stage"] == "confirm"
        else row
        for row in tables.trials.to_pylist()
    ]
    return StudyTables(tables.study, {}, pa.Table.from_pylist(rows, schema=TRIALS), tables.measurements)


def planted(gain: float, *, epochs: float = 1.0, seconds: float = 1.0, n: int = N, **fields) -> StudyTables:
    """Adam and the sines with the gain, and times to the target in ratio to Adam's."""
    study = study_of(n, **fields)
    runs_by_arm = {"adam": runs(0.85 + noise("adam", n))}
    runs_by_arm |= {name: runs(0.85 + gain + noise(name, n)) for name in LAMBDAS}
    tables = made(runs_by_arm, study=study).tables()
    jitter = {seed: 1 + 0.03 * np.sin(seed) for seed in study.confirm.seeds}
    tables = changed(
        tables,
        "adam",
        epochs_to_target=lambda row: round(5 * jitter[row["seed"]]),
        seconds_to_target=lambda row: 10 * jitter[row["seed"]],
        wall_s=lambda row: 16 * jitter[row["seed"]],
    )
    return changed(
        tables,
        "sine",
        epochs_to_target=lambda row: round(5 * epochs),
        seconds_to_target=lambda row: 10 * seconds,
        wall_s=lambda row: 16 * seconds,
    )


def by_id(tables: StudyTables) -> dict:
    return {claim.name: claim for claim in check_claims(tables)}


def test_what_is_as_the_paper_claims_is_supported():
    checked = by_id(planted(0.023, epochs=0.6, seconds=0.84))
    for name in ("C1", "C2", "C5"):
        assert checked[name].finding is Finding.SUPPORTED, checked[name]
        assert checked[name].interval.low <= checked[name].measured <= checked[name].interval.high
        assert checked[name].n_pairs == N


def test_where_there_is_no_effect_the_claims_are_contradicted():
    checked = by_id(planted(0.0))
    for name in ("C1", "C2", "C4", "C5", "C6"):
        assert checked[name].finding is Finding.CONTRADICTED, checked[name]
    assert checked["C1"].measured == pytest.approx(0.0, abs=0.003)


def test_an_effect_of_the_other_sign_and_one_beyond_the_claim_are_told_apart():
    assert "other sign" in by_id(planted(-0.02))["C1"].why
    beyond = by_id(planted(0.06, seconds=1.6))
    assert beyond["C1"].finding is Finding.SUPPORTED
    assert "beyond" in beyond["C1"].why
    assert beyond["C4"].finding is Finding.SUPPORTED
    half = by_id(planted(0.012))["C1"]
    assert half.finding is Finding.CONTRADICTED
    assert "no effect too" in half.why


def test_four_pairs_are_too_few_and_an_interval_with_both_decides_nothing():
    few = by_id(planted(0.023, n=4))["C1"]
    assert few.finding is Finding.INCONCLUSIVE
    assert few.why == "4 pairs of runs are fewer than the 5 that a finding needs."
    study = study_of(8)
    wide = {name: runs(0.85 + noise(name, 8, spread=0.03)) for name in ("adam", *LAMBDAS)}
    claim = by_id(made(wide, study=study).tables())["C1"]
    assert claim.finding is Finding.INCONCLUSIVE
    assert "both" in claim.why


def test_a_miss_counts_with_the_whole_budget():
    tables = planted(0.0, epochs=0.6)
    missed = changed(tables, "sine", epochs_to_target=lambda row: None if row["seed"] % 2 else 3)
    assert by_id(tables)["C2"].measured < -0.3
    # Half the runs at 3 epochs, half at the budget of 8, against 5.
    assert by_id(missed)["C2"].measured == pytest.approx(5.5 / 5 - 1, abs=0.02)
    never = changed(
        changed(tables, "sine", epochs_to_target=lambda row: None), "adam", epochs_to_target=lambda row: None
    )
    assert by_id(never)["C2"].finding is Finding.NOT_MEASURED


def test_of_the_lambdas_all_three_words_must_hold():
    study = study_of()
    quiet, loud = noise("adam", spread=0.002), noise("sine", spread=0.02)
    runs_by_arm = {
        "adam": runs(0.85 + quiet),
        "sine-tenth": runs(0.85 + noise("sine-tenth", spread=0.002)),
        "sine": runs(0.85 + loud),
        "sine-fifty": [lost()] * N,
    }
    tables = changed(made(runs_by_arm, study=study).tables(), "adam", epochs_to_target=lambda row: 6)
    tables = changed(tables, "sine", epochs_to_target=lambda row: 3 + row["seed"] % 2)
    claim = by_id(tables)["C6"]
    assert claim.finding is Finding.SUPPORTED, claim
    slower = by_id(changed(tables, "sine", epochs_to_target=lambda row: 6 + row["seed"] % 2))["C6"]
    assert slower.finding is Finding.CONTRADICTED
    steady = made(runs_by_arm | {"sine-fifty": runs(0.85 + quiet)}, study=study).tables()
    assert by_id(steady)["C6"].finding is Finding.CONTRADICTED
    noisy = made(runs_by_arm | {"sine-tenth": runs(0.85 + loud)}, study=study).tables()
    assert "Sine-tenth spreads by" in by_id(noisy)["C6"].why
    assert by_id(noisy)["C6"].finding is Finding.CONTRADICTED


def test_without_the_other_lambdas_the_words_are_not_decided_for_good():
    study = study_of(arms={"sine": 0.5})
    tables = made({name: runs(0.85 + noise(name)) for name in ("adam", "sine")}, study=study).tables()
    assert "no arm with a small and a very large lambda" in by_id(tables)["C6"].why
    searched = a_study(
        ["adam"],
        N,
        arms=(
            Arm(name="adam", learning_rate=RATE),
            Arm(name="sine", perturbation=Perturbation(source="sine", lambda_=LogUniform(low=0.1, high=1))),
        ),
        claims={"C6": "sine"},
    )
    assert by_id(made({}, study=searched).tables())["C6"].finding is Finding.INCONCLUSIVE


def qubits(rate: float, keep=lambda trial: True) -> StudyTables:
    """A map over qubits in which each of them adds a share of a step's time."""
    design = Map(arm="sine", axes={"perturbation.n_qubits": (2, 4, 8)}, seeds=(300, 301, 302), epochs=8)
    study = study_of(map=design)
    points = {arm.name: {path: CHOSEN[path] for path in arm.spaces()} for arm in study.arms}
    rows = []
    for trial in filter(keep, map_trials(study, points)):
        row = trial_row(trial, outcome_of(trial, Run(0.9)))
        perturbation = trial.arm.perturbation
        slower = np.exp(rate * perturbation.n_qubits) if perturbation else 1.0
        wall_s = 2.0 * slower * (1 + 0.01 * np.sin(17.0 * trial.seed * trial.number))
        rows.append(row | {"wall_s": float(wall_s)})
    table = pa.Table.from_pylist(rows, schema=TRIALS)
    return StudyTables(study, {}, table, made({}, study=study).tables().measurements)


def test_the_cost_of_a_qubit_is_the_slope_over_the_map():
    claim = by_id(qubits(0.05))["C7"]
    assert claim.finding is Finding.SUPPORTED
    assert claim.measured == pytest.approx(np.expm1(0.05), rel=0.1)
    assert by_id(qubits(-0.05))["C7"].finding is Finding.CONTRADICTED
    assert by_id(qubits(0.0))["C7"].finding is Finding.INCONCLUSIVE
    assert by_id(qubits(0.05, keep=lambda t: t.seed == 300))["C7"].finding is Finding.NOT_MEASURED
    assert by_id(planted(0.0))["C7"].why == "It needs a map of sine with the axis perturbation.n_qubits."


def test_the_training_loss_is_a_matter_of_language_models():
    assert by_id(planted(0.0))["C3"].finding is Finding.NOT_MEASURED
    task = LanguageTask(data=WordProblems(train_size=8, validation_size=8, test_size=8))
    study = study_of(workload=task, confirm=Confirm(seeds=tuple(range(100, 100 + N)), epochs=8, workers=1))
    tables = made({name: runs(0.85 + noise(name)) for name in ("adam", *LAMBDAS)}, study=study).tables()
    tables = changed(tables, "adam", mean_train_loss=lambda row: 0.2188 + 0.001 * np.sin(row["seed"]))
    for loss, finding in ((0.2097, Finding.SUPPORTED), (0.2188, Finding.CONTRADICTED)):
        claim = by_id(changed(tables, "sine", mean_train_loss=lambda row, loss=loss: loss))["C3"]
        assert claim.finding is finding
        assert claim.unit == "nats"


def test_before_the_first_row_nothing_is_measured():
    checked = by_id(made({}, study=study_of()).tables())
    assert {claim.finding for name, claim in checked.items() if name != "C6"} == {Finding.NOT_MEASURED}
    assert [*checked] == list(ALL)
    assert check_claims(made({}, study=study_of(claims={})).tables()) == ()


# What the seven functions that claims were before they became data found in `planted(0.012, epochs=0.6, seconds=1.2)`.
AS_BEFORE = {
    "C1": ("contradicted", 0.01205, (0.010157, 0.013944)),
    "C2": ("supported", -0.4, (-0.4, -0.4)),
    "C4": ("contradicted", 0.2009, (0.190116, 0.21202)),
    "C5": ("contradicted", 0.2009, (0.190116, 0.21202)),
    "C6": ("contradicted", -0.4, (-0.4, -0.4)),
}
C6_AS_BEFORE = (
    "Sine-tenth spreads by +0 % (−38 to +50) against Adam over the seeds; sine needs −40 % (−40 to −40) epochs and "
    "spreads by −11 % (−47 to +37); 0 runs of sine-fifty have no result, the others are +1.11 to +1.54 points from "
    "Adam's."
)


def test_the_paper_s_claims_are_found_as_before_they_were_data():
    checked = by_id(planted(0.012, epochs=0.6, seconds=1.2))
    for name, (finding, figure, interval) in AS_BEFORE.items():
        claim = checked[name]
        assert (claim.finding, claim.n_pairs) == (finding, N)
        assert claim.measured == pytest.approx(figure, abs=1e-6)
        assert claim.interval == pytest.approx(interval, abs=1e-6)
    assert checked["C1"].why == "The interval excludes the claimed figure; and no effect too."
    assert checked["C6"].why == C6_AS_BEFORE
    claim = by_id(qubits(0.05))["C7"]
    assert claim.why == "A step's time over Adam's changes by +5 % a qubit from 2 to 8 qubits."
    assert (claim.measured, claim.n_pairs) == (pytest.approx(0.049785, abs=1e-6), 9)
    assert claim.interval == pytest.approx((0.045345, 0.054243), abs=1e-6)


positive = st.lists(st.floats(0.1, 10.0), min_size=3, max_size=12)


@given(positive, st.floats(0.01, 100.0), st.randoms())
def test_a_relative_change_knows_neither_units_nor_the_order_of_pairs(left, unit, order):
    right = [1.0 + 0.1 * k for k in range(len(left))]
    for measure in (statistics.relative_change, statistics.relative_spread):
        change = measure(left, right)
        scaled = measure(np.array(left) * unit, np.array(right) * unit)
        assert scaled.value == pytest.approx(change.value, rel=1e-6, abs=1e-9)
        pairs = list(zip(left, right, strict=True))
        order.shuffle(pairs)
        again = measure([a for a, _ in pairs], [b for _, b in pairs])
        assert again.interval == pytest.approx(change.interval, abs=1e-9)
        assert again.value == pytest.approx(change.value, abs=1e-9)


def test_relative_changes_where_there_is_little_to_compare():
    assert statistics.relative_change([], []) is None
    assert statistics.relative_change([1.0], [0.0]) is None
    assert statistics.relative_change([3.0], [2.0]) == (0.5, None)
    assert statistics.relative_change([3.0, 3.0], [2.0, 2.0]) == (0.5, (0.5, 0.5))
    assert statistics.relative_spread([1.0, 2.0], [1.0, 2.0]) is None
    assert statistics.relative_spread([1.0, 2.0, 3.0], [2.0, 2.0, 2.0]) is None
    with pytest.raises(ValueError, match="pairs: got 1 and 2 values"):
        statistics.relative_change([1.0], [1.0, 2.0])


def test_the_interval_of_a_change_covers_it_nineteen_times_of_twenty():
    """Of 400 draws of 20 pairs; below 0.90 with a chance under 1e-4 if the true coverage is 0.95, and percentile
    intervals of 20 pairs cover about 0.93."""
    rng, hits = np.random.default_rng(3), 0
    for _ in range(400):
        both = rng.lognormal(0, 0.2, (20, 1)) * rng.lognormal(0, 0.1, (20, 2))
        change = statistics.relative_change(0.8 * both[:, 0], both[:, 1])
        hits += change.interval.low <= -0.2 <= change.interval.high
    assert hits >= 0.88 * 400
