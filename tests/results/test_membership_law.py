"""Whatever a study went through, its rows are those of one that never changed; maps and choices included."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from support.outcomes import OUTCOME
from support.rerun_studies import rows, run_through
from support.small_study import a_study

from qsgd_ray.config import Confirm, Map, Search
from qsgd_ray.config.loading import with_overrides
from qsgd_ray.config.trial import map_trials
from qsgd_ray.results import Results, read
from qsgd_ray.results._membership import member_ids
from qsgd_ray.search.observations import unfinished_points
from qsgd_ray.study._stages import chosen_points

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
    assert (unfinished_points(results.tables(tolerant)), results.choices(tolerant)) == (
        {},
        {"adamw": None, "sine": None},
    )
