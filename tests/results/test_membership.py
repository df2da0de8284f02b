"""A changed study keeps the trials that it would still run, and leaves the others alone."""

import json
import random
from datetime import UTC, datetime
from typing import get_args

import pyarrow.parquet as pq
import pytest
from support.outcomes import OUTCOME, measured
from support.rerun_studies import BEST, kinds, reopened, rows, run_through
from support.simulated_search import THREE, simulated
from support.small_study import a_study
from support.synthetic_results import made, runs

from qsgd_ray.config import Arm, Choice, Perturbation, StudyError
from qsgd_ray.config.loading import with_overrides
from qsgd_ray.config.stages import Sampler
from qsgd_ray.config.trial import search_trial
from qsgd_ray.outcome import Ending, Outcome
from qsgd_ray.results import Results, read
from qsgd_ray.results._membership import point_of
from qsgd_ray.results._versions import versions
from qsgd_ray.search.observations import unfinished_points
from qsgd_ray.study._stages import chosen_points


def test_the_same_study_runs_nothing_anew_and_was_not_changed(results):
    assert reopened(results) == []
    tables = read(results.path)
    assert (tables.n_others, tables.changes, tables.notes) == (0, (), [])
    assert [version.name[:4] for version in versions(results.storage)] == ["001-"]


def test_more_seeds_run_their_own_trials_alone_wherever_they_are_put_in(results):
    assert kinds(reopened(results, "confirm.seeds=[10,11,12]")) == ["confirm-adamw-s10", "confirm-sine-s10"]
    assert read(results.path).n_others == 0
    assert {row[3] for row in rows(results) if row[:2] == ("confirm", "sine")} == {10, 11, 12}


def test_fewer_seeds_leave_the_others_rows_where_they_are(results):
    assert reopened(results, "confirm.seeds=[12]") == []
    tables = read(results.path)
    assert (tables.trials.num_rows, tables.measurements.num_rows, tables.n_others) == (6, 4 + 2 * 2, 2)
    assert reopened(results) == [], "and find them when they come back"
    assert read(results.path).n_others == 0


def test_another_margin_runs_nothing(results):
    assert reopened(results, "decision.margin=0.2", "question=Another?") == []
    assert read(results.path).study.decision.margin == 0.2
    assert read(results.path).n_others == 0


def test_another_lambda_of_an_arm_runs_that_arm_alone(results):
    ran = reopened(results, "arms.sine.perturbation.lambda_=0.25")
    assert kinds(ran) == ["confirm-sine-s11", "confirm-sine-s12", "search-sine-000", "search-sine-001"]
    tables = read(results.path)
    assert (tables.trials.num_rows, tables.n_others) == (8, 4)
    assert set(ran) == {row["trial_id"] for row in tables.trials.to_pylist() if row["arm"] == "sine"}


def test_an_arm_more_and_an_arm_less(results):
    three = a_study(arms=(Arm(name="zero", perturbation=Perturbation(source="zero")), *a_study().arms))
    results.open(three, {})
    assert kinds(run_through(three, results)) == ["confirm-zero-s11", "confirm-zero-s12"]
    assert reopened(results) == []
    assert (read(results.path).n_others, len(rows(results))) == (2, 8)


def test_what_is_asked_of_ray_matters_only_where_it_decides_bits(results):
    assert reopened(results, "resources.circuit_timeout_s=5", "resources.circuit_engine=torch") == []
    assert read(results.path).study.resources.circuit_timeout_s == 5
    assert len(read(results.path).changes) == 1, "the engine counts as a change"
    ran = reopened(results, "resources.sharding=fsdp")
    assert kinds(ran) == [f"confirm-{arm}-s{seed}" for arm in ("adamw", "sine") for seed in (11, 12)]


def test_a_changed_search_chooses_anew_and_until_then_no_confirmation_counts(results):
    before = results.read_json("chosen.json")
    study = with_overrides(a_study(), ["search.epochs=3"])
    results.open(study, {})
    assert unfinished_points(results.tables(study)) == {"adamw": 2, "sine": 2}
    assert rows(results) == []
    run_through(study, results)
    after = results.read_json("chosen.json")
    assert {arm: kept["point"] for arm, kept in after.items()} == {"adamw": BEST, "sine": BEST}
    assert all(before[arm]["search"] != after[arm]["search"] for arm in before)
    assert (len(rows(results)), read(results.path).n_others) == (8, 4), "at the same point they count again"


def test_a_choice_of_another_search_is_not_used_and_one_of_an_arm_that_went_is_kept(results):
    one = a_study(arms=a_study().arms[:1])
    results.open(one, {})
    assert chosen_points(results.tables(one), results) == {"adamw": BEST}
    assert results.read_json("chosen.json").keys() == {"adamw", "sine"}
    more = with_overrides(a_study(), ["search.trials_per_arm=3"])
    results.open(more, {})
    assert results.choices(more) == {"adamw": None, "sine": None}
    better = search_trial(more, "sine", 2, {"learning_rate": 3e-3})
    results.write(better, Outcome(Ending.COMPLETED, (measured(1, 0.9),)))
    assert chosen_points(results.tables(more), results) == {"adamw": BEST, "sine": {"learning_rate": 3e-3}}


@pytest.mark.parametrize(
    ("sampler", "at_once"), [(name, 1) for name in get_args(Sampler)] + [("tpe", 2), ("random", 2), ("gp", 2)]
)
@pytest.mark.parametrize(("few", "many"), [(4, 6), (5, 9), (20, 24), (6, 4)])
def test_search_rows_stay_valid_where_a_larger_budget_tries_the_same_points(tmp_path, sampler, at_once, few, many):
    """Of samplers that learn those that were drawn at random under both budgets, and of generations, whose size follows
    the budget, none; where several run at once, all that are known."""
    settings_ = [f"search.sampler={sampler}", f"search.trials_at_once_per_arm={at_once}"]
    small, large = (with_overrides(THREE, [*settings_, f"search.trials_per_arm={n}"]) for n in (few, many))
    results = Results(tmp_path)
    results.open(small, {})
    tried = simulated(small, results, random.Random(0))["sine"]
    for one in tried:
        results.write(search_trial(small, "sine", one["number"], one["point"]), OUTCOME)
    results.open(large, {})
    valid = {row["trial_id"] for row in results.tables().trials.to_pylist()}
    again = simulated(large, results, random.Random(0))["sine"]
    assert len(again) == many
    wanted = {search_trial(large, "sine", one["number"], one["point"]).trial_id for one in again}
    there = {trial_id for trial_id in wanted if results.has(trial_id)}
    assert valid == there, "what counts is what is tried again, and nothing else"
    if sampler == "nsga2":
        assert not valid
    elif at_once == 2 or sampler in ("random", "qmc", "cmaes") or (few, many) == (20, 24):
        assert len(valid) == min(few, many)
    else:
        assert len(valid) == {(4, 6): 2, (5, 9): 2, (6, 4): 2}[few, many]


def test_arms_that_come_and_go_do_not_move_the_points_of_another(tmp_path):
    results = Results(tmp_path)
    results.open(THREE, {})
    fewer = THREE.model_copy(update={"arms": THREE.arms[1:], "baseline": "sine"})
    assert simulated(fewer, results, random.Random(0))["sine"] == simulated(THREE, results, random.Random(0))["sine"]


def test_another_space_is_another_search_though_a_point_lies_in_both(results):
    wider = json.dumps({"kind": "log_uniform", "low": 1e-4, "high": 1e-1})
    study = with_overrides(a_study(), [f"arms.sine.learning_rate={wider}"])
    results.open(study, {})
    assert unfinished_points(results.tables(study)) == {"sine": 2}


def test_of_two_points_tried_under_one_number_the_later_one_counts(results):
    (old,) = [r for r in results.tables().trials.to_pylist() if r["trial_id"].startswith("search-sine-001")]
    other = search_trial(a_study(), "sine", 1, {"learning_rate": 7e-3})
    results.write(other, OUTCOME, started_at=datetime.now(UTC))
    ids = {row["trial_id"] for row in read(results.path).trials.to_pylist()}
    assert other.trial_id in ids
    assert old["trial_id"] not in ids
    assert (len(ids), read(results.path).n_others) == (8, 1)


def test_an_arm_that_lost_its_perturbation_or_its_space_is_another(results):
    plain = a_study(arms=(a_study().arms[0], Arm(name="sine", learning_rate=Choice(options=(1e-3, 2e-3)))))
    results.open(plain, {})
    assert {row[1] for row in rows(results)} == {"adamw"}
    perturbed = Arm(name="sine", perturbation=Perturbation(source="sine", lambda_=Choice(options=(1, 2))))
    assert point_of(plain.arms[1].at({"learning_rate": 1e-3}).model_dump(mode="json"), perturbed) is None


def test_rows_of_a_folder_that_holds_one_study_and_tells_no_trials_count_and_are_not_gone_on_with(results):
    for file in (results.path / "trials").iterdir():
        pq.write_table(pq.read_table(file).drop_columns(["trial"]), file)
    for file in (results.path / "studies").iterdir():
        file.unlink()
    assert len(rows(results)) == 8
    with pytest.raises(
        StudyError, match=r"holds trials of an earlier version of this package.*; allowed: a new folder$"
    ):
        results.open(a_study(), {})


def test_a_folder_without_a_choice_takes_confirmations_at_any_point(tmp_path):
    there = made({"adamw": runs([0.8] * 5), "sine": runs([0.9] * 5)}).write(tmp_path / "made")
    assert read(there).trials.num_rows == 10
