"""A changed study keeps the trials that it would still run, leaves the others alone, and says that it was changed."""

import json
import random
from datetime import UTC, datetime
from typing import get_args

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.outcomes import OUTCOME, measured
from support.simulated_search import THREE, simulated
from support.small_study import a_study
from support.synthetic_results import made, runs

from qsgd_ray.config import Arm, Choice, Confirm, Map, Perturbation, Search, Study, StudyError
from qsgd_ray.config.loading import with_overrides
from qsgd_ray.config.stages import Sampler
from qsgd_ray.config.trial import Trial, confirm_trials, map_trials, search_trial
from qsgd_ray.outcome import Ending, Outcome
from qsgd_ray.reporting.page import write_report
from qsgd_ray.results import Results, read
from qsgd_ray.results._membership import member_ids, point_of
from qsgd_ray.results._versions import differences, versions
from qsgd_ray.study.stages import chosen_points, unfinished

RATES = (1e-3, 2e-3)
BEST = {"learning_rate": 2e-3}


def run_through(study: Study, results: Results) -> list[str]:
    """As run_stages does it, at made-up points: what is missing of each stage. The ids of what was run."""
    ran = []

    def finish(trial: Trial, outcome: Outcome) -> None:
        if not results.has(trial.trial_id):
            results.write(trial, outcome)
            ran.append(trial.trial_id)

    for arm in study.arms:
        for number in range(study.planned("search", arm)):
            accuracy = 0.5 + 0.1 * (number % 2)
            point = {"learning_rate": RATES[number % 2]}
            finish(search_trial(study, arm.name, number, point), Outcome(Ending.COMPLETED, (measured(1, accuracy),)))
    for arm, point in chosen_points(results.tables(study), results).items():
        for trial in confirm_trials(study, arm, point):
            finish(trial, OUTCOME)
    assert unfinished(results.tables(study)) == {}
    return ran


@pytest.fixture
def results(tmp_path) -> Results:
    """A folder in which a study was run to its end."""
    results = Results(tmp_path / "small")
    results.open(a_study(), {})
    assert len(run_through(a_study(), results)) == 8
    return results


def rows(results: Results) -> list[tuple]:
    return sorted((r["stage"], r["arm"], r["number"], r["seed"]) for r in results.tables().trials.to_pylist())


def reopened(results: Results, *changes: str) -> list[str]:
    """What is run of the changed study."""
    study = with_overrides(a_study(), list(changes))
    results.open(study, {})
    return run_through(study, results)


def kinds(ran: list[str]) -> list[str]:
    return sorted(trial_id.rpartition("-")[0] for trial_id in ran)


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
    assert unfinished(results.tables(study)) == {"adamw": 2, "sine": 2}
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
    assert unfinished(results.tables(study)) == {"sine": 2}


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


# --- what was changed, and that it is told ---


def test_every_version_is_kept_and_told_with_its_fields_and_its_time(results):
    reopened(results, "decision.margin=0.2", "confirm.seeds=[11,12,13]")
    reopened(results)
    first, second, third = versions(results.storage)
    assert (first.changed, first.trials_before) == ((), 0)
    assert second.changed == ("confirm.seeds [11, 12], then [11, 12, 13]", "decision.margin 0.05, then 0.2")
    assert (second.trials_before, third.trials_before) == (8, 10)
    assert Study.model_validate(second.study).decision.margin == 0.2
    assert first.name[4:] == third.name[4:] != second.name[4:]
    provenance = read(results.path).provenance
    assert provenance["study_version"] == first.name
    assert [run["study_version"] for run in provenance["resumed"]] == [second.name, third.name]
    assert provenance["study_changed"] == [second.summary, third.summary]
    assert second.summary == f"{second.since}, after 8 trials: {'; '.join(second.changed)}"


def test_a_study_that_is_changed_before_its_first_trial_has_nothing_to_tell(tmp_path):
    results = Results(tmp_path)
    results.open(a_study(), {})
    results.open(with_overrides(a_study(), ["decision.margin=0.2"]), {})
    assert len(versions(results.storage)) == 2
    assert read(tmp_path).changes == ()
    assert "study_changed" not in read(tmp_path).provenance


def test_a_kill_between_the_version_and_the_study_loses_no_confession(results, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(results, "write_text", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            results.open(with_overrides(a_study(), ["decision.margin=0.2"]), {})
    results.open(with_overrides(a_study(), ["decision.margin=0.2"]), {})
    (change,) = read(results.path).changes
    assert change.changed == ("decision.margin 0.05, then 0.2",)
    assert read(results.path).study.decision.margin == 0.2


def test_page_and_terminal_say_what_was_changed_and_what_does_not_count(results, monkeypatch, capsys):
    from support.command_line import command_output

    fixed = "Margin, target, seeds and budget were fixed before the first trial."
    page = results.path / "report.html"
    write_report(results.path)
    assert fixed in page.read_text()
    assert 'class="notes"' not in page.read_text()
    reopened(results, "confirm.seeds=[11]")
    told = command_output(monkeypatch, capsys, "report", results.path)
    for text in (told, page.read_text()):
        assert "The study was changed after trials had been run, so not all was written before the first one:" in text
        assert "after 8 trials: confirm.seeds [11, 12], then [11]" in text
        assert "2 trials lie beside these that the study as it is now would not run; none counts here." in text
    assert fixed not in page.read_text()
    assert 'class="notes"' in page.read_text()


def test_a_broken_version_is_one_line_that_names_it(results):
    (file,) = (results.path / "studies").iterdir()
    file.write_text("{}")
    with pytest.raises(StudyError, match=rf"DIR: got {file}, which is broken \(.*\); allowed: a version of a study$"):
        read(results.path)


def test_a_version_that_is_no_study_any_more_is_compared_as_it_was_kept(results):
    (file,) = (results.path / "studies").iterdir()
    kept = json.loads(file.read_text())
    kept["study"]["frob"] = 1
    file.write_text(json.dumps(kept))
    results.open(a_study(), {})
    assert [change.changed for change in read(results.path).changes] == [("frob removed",)]


def test_fields_that_came_since_are_no_change(results):
    (file,) = (results.path / "studies").iterdir()
    kept = json.loads(file.read_text())
    del kept["study"]["seed"], kept["study"]["search"]["workers"]
    file.write_text(json.dumps(kept))
    results.open(a_study(), {})
    assert read(results.path).changes == ()


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=8,
)


@given(TREES, TREES)
def test_trees_differ_where_they_differ(left, right):
    assert list(differences(left, left)) == []
    if json.dumps(left, sort_keys=True) != json.dumps(right, sort_keys=True) and left != right:
        assert list(differences(left, right))


def test_differences_call_arms_by_name():
    old, new = (a_study().model_dump(mode="json") for _ in range(2))
    new["arms"] = [new["arms"][1] | {"weight_decay": 0.5}, new["arms"][1] | {"name": "more"}]
    assert list(differences(old, new)) == [
        "arms.adamw removed",
        "arms.sine.weight_decay 0.0, then 0.5",
        "arms.more added",
    ]


# --- the law ---

CHANGES = st.fixed_dictionaries(
    {
        "search": st.builds(Search, trials_per_arm=st.integers(2, 3), epochs=st.integers(2, 3)),
        "confirm": st.builds(Confirm, seeds=st.sampled_from([(11,), (12, 11), (11, 12, 13)]), epochs=st.integers(2, 3)),
        "arms": st.sampled_from([a_study().arms, a_study().arms[::-1], a_study().arms[:1]]),
        "baseline": st.just("adamw"),
    }
)


@settings(max_examples=8)
@given(st.lists(CHANGES, min_size=2, max_size=3))
def test_whatever_a_study_went_through_its_rows_are_those_of_one_that_never_changed(tmp_path_factory, changes):
    folder = tmp_path_factory.mktemp("law")
    changed, fresh = Results(folder / "changed"), Results(folder / "fresh")
    studies = [a_study(**fields) for fields in changes]
    ran = []
    for study in studies:
        changed.open(study, {})
        ran += run_through(study, changed)
    fresh.open(studies[-1], {})
    run_through(studies[-1], fresh)
    assert len(set(ran)) == len(ran) == changed.count(), "nothing is run twice"
    there, here = (r.tables().trials.sort_by("trial_id") for r in (fresh, changed))
    assert here["trial_id"].to_pylist() == there["trial_id"].to_pylist()


def test_many_rows_belong_or_not_by_their_content_alone(results):
    tables = results.all_tables()
    order = tables.trials.to_pylist()
    random.Random(0).shuffle(order)
    everything = {row["trial_id"] for row in order}
    assert member_ids(a_study(), order, results.choices(a_study())) == everything
    assert member_ids(a_study(arms=a_study().arms[:1]), order, {}) == {i for i in everything if "-adamw-" in i}


def test_a_map_belongs_while_its_setting_its_seeds_and_the_point_it_starts_from_stay(results):
    design = Map(arm="sine", axes={"perturbation.n_qubits": (1, 2)}, seeds=(21, 22), epochs=2)
    study = a_study(map=design)
    points = chosen_points(results.tables(study), results)
    for trial in map_trials(study, points):
        results.write(trial, OUTCOME)
    results.open(study, {})
    assert read(results.path).trials.num_rows == 8 + 2 * 2 + 2
    for changed, kept in (
        (design.model_copy(update={"seeds": (22, 23)}), 3),
        (design.model_copy(update={"axes": {"perturbation.n_qubits": (2, 4)}}), 4),
        (design.model_copy(update={"epochs": 3}), 0),
        (None, 0),
        (design, 6),
    ):
        results.open(a_study(map=changed), {})
        assert read(results.path).trials.num_rows == 8 + kept
    results.open(with_overrides(study, ["search.epochs=3"]), {})
    assert rows(results) == []
    results.write_text("chosen.json", "{}")
    results.open(study, {})
    assert read(results.path).trials.num_rows == 8 + 6


def test_another_tolerance_is_another_choice_among_the_same_trials(tmp_path):
    study = with_overrides(a_study(), ['search.objectives=["quality","circuits"]'])
    results = Results(tmp_path)
    results.open(study, {})
    run_through(study, results)
    tolerant = with_overrides(study, ["search.tolerance=0.1"])
    results.open(tolerant, {})
    assert (unfinished(results.tables(tolerant)), results.choices(tolerant)) == ({}, {"adamw": None, "sine": None})
