"""A warm start takes another study's trials once, keeps them with the study's own, and is refused in one line."""

import json
import math
import shutil

import optuna
import pytest
from support.outcomes import measured
from support.simulated_search import RATE
from support.small_study import a_study

from qsgd_ray.config import Arm, Decision, LogUniform, Search, StudyError
from qsgd_ray.config.trial import search_trial
from qsgd_ray.outcome import Ending, Outcome
from qsgd_ray.results import Results
from qsgd_ray.search._arm_search import ArmSearch
from qsgd_ray.search.warm_start import _FILE, EarlierTrial, read_warm_start

optuna.logging.set_verbosity(optuna.logging.WARNING)
ARMS = (Arm(name="adamw", learning_rate=RATE), Arm(name="other", learning_rate=RATE))
RATES = [10 ** (-3.9 + 0.3 * number) for number in range(9)]


def peak(rate: float) -> float:
    """An accuracy that is best at a rate of 0.01."""
    return 0.9 - 0.1 * abs(math.log10(rate) + 2)


def earlier_study(folder, arms=ARMS, **fields):
    """The results of a study whose search has nine trials of adamw: two stopped early, one diverged, one cut off."""
    study = a_study(name="earlier", arms=arms, search=Search(trials_per_arm=9, epochs=4), **fields)
    results = Results(folder)
    results.open(study, {})
    endings = {2: Ending.STOPPED_EARLY, 4: Ending.STOPPED_EARLY, 7: Ending.DIVERGED, 8: Ending.LOST}
    for number, rate in enumerate(RATES):
        ending = endings.get(number, Ending.COMPLETED)
        epochs = 2 if ending is Ending.STOPPED_EARLY else 4
        trial = search_trial(study, "adamw", number, {"learning_rate": rate})
        results.write(trial, Outcome(ending, tuple(measured(epoch, peak(rate)) for epoch in range(1, epochs + 1))))
    return folder


def warm(place, arms=ARMS, study_fields=None, **fields):
    search = Search(**{"trials_per_arm": 6, "epochs": 4, "warm_start": str(place)} | fields)
    return a_study(name="later", arms=arms, search=search, **(study_fields or {}))


def opened(study, folder) -> Results:
    results = Results(folder)
    results.open(study, {})
    return results


def tried(study, start) -> list[float]:
    search, rates = ArmSearch(study, 0, {}, start.trials["adamw"] if start else ()), []
    while search.n_left:
        number, point = search.ask()
        search.tell(number, [peak(point["learning_rate"])])
        rates.append(point["learning_rate"])
    return rates


def test_trials_that_have_ended_are_taken_with_what_they_came_to(tmp_path):
    study = warm(earlier_study(tmp_path / "earlier"))
    start = read_warm_start(study, Results(tmp_path / "later"))
    trials = start.trials["adamw"]
    assert [trial.point["learning_rate"] for trial in trials] == RATES[:8]
    assert [trial.values for trial in trials] == [(0.0 if n == 7 else peak(RATES[n]),) for n in range(8)]
    assert [trial.stopped_at for trial in trials] == [None, None, 2, None, 2, None, None, None]
    assert start.trials["other"] == ()
    assert start.sentence == f"The search starts from 8 of adamw trials in {tmp_path / 'earlier'}."


def test_going_on_needs_the_other_results_no_more(tmp_path):
    place = earlier_study(tmp_path / "earlier")
    study = warm(place)
    results = opened(study, tmp_path / "later")
    first = read_warm_start(study, results)
    first.copy_into(results)
    shutil.rmtree(place)
    again = read_warm_start(study, results)
    assert again == first
    again.copy_into(results)
    assert tried(study, again) == tried(study, first)


@pytest.mark.parametrize("fields", [{"sampler": "tpe"}, {"sampler": "gp"}, {"scheduler": "bohb"}])
def test_a_sampler_learns_from_earlier_trials_and_they_are_not_counted(tmp_path, fields):
    study = warm(earlier_study(tmp_path / "earlier"), **fields)
    start = read_warm_start(study, Results(tmp_path / "later"))
    rates = tried(study, start)
    assert len(rates) == 6
    assert tried(study, start) == rates
    assert rates != tried(study, None)


def test_only_points_of_this_study_s_space_are_taken_and_the_others_counted(tmp_path):
    narrow = LogUniform(low=1e-3, high=1e-1)
    arms = (
        Arm(name="adamw", learning_rate=narrow),
        Arm(name="other", optimizer={"name": "sgd", "lr": RATE}),
        Arm(name="third", learning_rate=RATE),
    )
    study = warm(earlier_study(tmp_path / "earlier"), arms=arms)
    start = read_warm_start(study, Results(tmp_path / "later"))
    inside = [rate for rate in RATES[:8] if rate >= 1e-3]
    assert [trial.point["learning_rate"] for trial in start.trials["adamw"]] == inside
    assert start.trials.keys() == {"adamw"}
    assert start.sentence == (
        f"The search starts from {len(inside)} of adamw trials in {tmp_path / 'earlier'}; {8 - len(inside)} more lie "
        "outside of the spaces of this study; other, third have no arm there that searches the same fields."
    )


@pytest.mark.parametrize(
    ("place", "fields", "said"),
    [
        ("nowhere", {}, "^search.warm_start: got .*nowhere.*; allowed: a folder that a study was run into"),
        ("later", {}, "^search.warm_start: got .*; allowed: results of another study than this"),
        (
            "earlier",
            {"decision": Decision(metric="loss", margin=0.1)},
            r"looks for accuracy \(max\); allowed: results of a search for loss \(min\)",
        ),
    ],
)
def test_results_that_cannot_be_taken_are_one_line(tmp_path, place, fields, said):
    earlier_study(tmp_path / "earlier")
    study = warm(tmp_path / place, study_fields=fields)
    results = opened(study, tmp_path / "later")
    with pytest.raises(StudyError, match=said) as refused:
        read_warm_start(study, results)
    assert "\n" not in str(refused.value)


def test_an_infinite_loss_is_copied_as_the_worst(tmp_path):
    by_loss = {"decision": Decision(metric="loss", margin=0.1)}
    study = warm(earlier_study(tmp_path / "earlier", **by_loss), study_fields=by_loss)
    results = opened(study, tmp_path / "later")
    start = read_warm_start(study, results)
    assert start.trials["adamw"][7].values == (math.inf,)
    start.copy_into(results)
    assert read_warm_start(study, results) == start
    search = ArmSearch(study, 0, {}, start.trials["adamw"])
    assert search.ask()[0] == 0


@pytest.mark.parametrize(
    "change",
    [
        {"point": {"learning_rate": 7.0}},
        {"point": []},
        {"values": [0.1, 0.2]},
        {"values": ["high"]},
        {"stopped_at": "2"},
        {"stopped_at": 0},
    ],
)
def test_a_copy_that_was_altered_is_refused(tmp_path, change):
    study = warm(earlier_study(tmp_path / "earlier"))
    results = opened(study, tmp_path / "later")
    read_warm_start(study, results).copy_into(results)
    stored = json.loads((tmp_path / "later" / _FILE).read_text())
    stored[study.search.warm_start]["trials"]["adamw"][3] |= change
    results.write_text(_FILE, json.dumps(stored))
    with pytest.raises(StudyError, match=r"warm_start\.json, whose trials of .* cannot be read"):
        read_warm_start(study, results)


def test_a_stopped_trial_is_ranked_behind_those_that_were_not_by_bohb_alone():
    """All but two are stopped; a trial that was stopped looks best, and draws the sampler of `asha` only."""
    stopped = [EarlierTrial({"learning_rate": 1e-4 * 1.05**n}, (0.99,), 2) for n in range(12)]
    whole = [EarlierTrial({"learning_rate": 5e-2 * 1.05**n}, (0.5,)) for n in range(4)]

    def median(scheduler: str) -> float:
        study = warm("unused", scheduler=scheduler, trials_per_arm=9)
        search = ArmSearch(study, 0, {}, [*stopped, *whole])
        rates = []
        while search.n_left:
            number, point = search.ask()
            search.tell(number, [0.5], stopped_at=1)
            rates.append(point["learning_rate"])
        return sorted(rates)[4]

    assert median("bohb") > 1e-2 > median("asha")


def test_a_cost_that_was_never_measured_counts_as_the_highest():
    study = warm("unused", objectives=("quality", "circuits"))
    earlier = [EarlierTrial({"learning_rate": 1e-3}, (0.5, 4.0)), EarlierTrial({"learning_rate": 1e-2}, (0.5, None))]
    assert ArmSearch(study, 0, {}, earlier).ask()[0] == 0
