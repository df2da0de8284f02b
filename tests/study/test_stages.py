"""The stages: what is chosen, what a study file may be, and what is refused before anything runs."""

import pytest
import torch
from support.outcomes import measured
from support.places import STUDIES
from support.small_study import a_study

from qsgd_ray.config import Arm, Choice, NoiseSettings, Perturbation, StudyError
from qsgd_ray.config.loading import load_study, split_scale, with_overrides
from qsgd_ray.config.trial import confirm_trials, search_trial
from qsgd_ray.execution.preflight import _check_memory, needs_circuits, require_runnable
from qsgd_ray.outcome import Ending, Outcome
from qsgd_ray.results import Results
from qsgd_ray.search.observations import best_point, unfinished_points
from qsgd_ray.study import _stages as stages
from qsgd_ray.study._stages import StudyUnfinished, chosen_points


@pytest.fixture
def results(tmp_path) -> Results:
    results = Results(tmp_path / "small")
    results.open(a_study(), {})
    return results


def write(results: Results, number: int, rate: float, ending: Ending, *accuracies: float, loss: float = 1.0) -> None:
    trial = search_trial(a_study(), "sine", number, {"learning_rate": rate})
    measurements = tuple(measured(e, a, validation_loss=loss) for e, a in enumerate(accuracies, start=1))
    results.write(trial, Outcome(ending, measurements))


def chosen(results: Results) -> float | None:
    point = best_point(a_study(), a_study().arm("sine"), results.all_tables().trials.to_pylist())
    return point and point["learning_rate"]


def test_the_best_completed_trial_is_chosen_by_its_last_epoch(results):
    write(results, 0, 0.001, Ending.COMPLETED, 0.9, 0.6)
    write(results, 1, 0.002, Ending.COMPLETED, 0.5, 0.7)
    write(results, 2, 0.003, Ending.STOPPED_EARLY, 0.99)
    write(results, 3, 0.004, Ending.DIVERGED, 0.99)
    assert chosen(results) == 0.002


def test_equal_accuracy_is_decided_by_loss_and_then_by_number(results):
    write(results, 0, 0.001, Ending.COMPLETED, 0.7, loss=0.5)
    write(results, 1, 0.002, Ending.COMPLETED, 0.7, loss=0.4)
    write(results, 2, 0.003, Ending.COMPLETED, 0.7, loss=0.4)
    assert chosen(results) == 0.002


def test_without_a_completed_trial_a_stopped_one_is_chosen_and_without_that_none(results):
    assert chosen(results) is None
    write(results, 0, 0.001, Ending.DIVERGED)
    assert chosen(results) is None
    write(results, 1, 0.002, Ending.STOPPED_EARLY, 0.4)
    assert chosen(results) == 0.002


def test_confirmation_rows_choose_nothing(results):
    (trial, _) = confirm_trials(a_study(), "sine", {"learning_rate": 0.1})
    results.write(trial, Outcome(Ending.COMPLETED, (measured(1, 0.99),), test_accuracy=0.99))
    assert chosen(results) is None


def test_a_search_is_unfinished_until_every_arm_spent_its_budget_and_lost_trials_do_not_count(results):
    write(results, 0, 0.001, Ending.COMPLETED, 0.7)
    write(results, 1, 0.002, Ending.LOST)
    for number in range(2):
        results.write(search_trial(a_study(), "adamw", number, {"learning_rate": 0.1}), Outcome(Ending.FAILED))
    assert unfinished_points(results.tables(a_study())) == {"sine": 1}
    write(results, 1, 0.002, Ending.FAILED)
    assert unfinished_points(results.tables(a_study())) == {}


def test_points_are_chosen_once_and_kept(results):
    write(results, 0, 0.001, Ending.COMPLETED, 0.7)
    assert chosen_points(results.tables(a_study()), results) == {"sine": {"learning_rate": 0.001}}
    write(results, 1, 0.002, Ending.COMPLETED, 0.9)
    assert chosen_points(results.tables(a_study()), results) == {"sine": {"learning_rate": 0.001}}


class Place:
    """As much of a context as the search stage looks at."""

    def __init__(self, results: Results) -> None:
        self.results = results

    def may_start(self) -> bool:
        return True


def test_a_search_that_lost_a_trial_goes_on_for_it_and_never_ends_short(results, monkeypatch):
    runs = []

    def lose_one(tables, context):
        runs.append(1)
        for number in range(2):
            context.results.write(
                search_trial(a_study(), "adamw", number, {"learning_rate": 0.1}), Outcome(Ending.FAILED)
            )
        write(context.results, 0, 0.001, Ending.COMPLETED, 0.7)
        if len(runs) == enough:
            write(context.results, 1, 0.001, Ending.COMPLETED, 0.7)

    monkeypatch.setattr(stages, "run_search", lose_one)
    enough = 99
    with pytest.raises(StudyUnfinished, match=r"3 times \(1 of sine\); no arm is confirmed with less than its budget"):
        stages._search(results.tables(a_study()), Place(results))
    assert len(runs) == 3
    enough = 4
    stages._search(results.tables(a_study()), Place(results))
    stages._search(results.tables(a_study()), Place(results))
    assert len(runs) == 4, "a search that is complete is not run again"


def test_every_arm_is_first_as_often_as_the_others():
    trials = ("a", "b", "c")
    orders = [stages._rotated(trials, seed) for seed in range(6)]
    assert all(sorted(order) == [*trials] for order in orders)
    assert [order[0] for order in orders] == ["a", "b", "c", "a", "b", "c"]


def test_an_arm_that_lacks_a_package_everywhere_is_left_out_and_the_others_go_on(results, monkeypatch):
    runs = []

    def search(tables, context):
        runs.append(1)
        for number in range(2):
            trial = search_trial(a_study(), "adamw", number, {"learning_rate": 0.1})
            context.results.write(trial, Outcome(Ending.COMPLETED, (measured(1, 0.7),)))
        write(context.results, 0, 0.001, ending)

    monkeypatch.setattr(stages, "run_search", search)
    ending = Ending.UNAVAILABLE
    tables = stages._search(results.tables(a_study()), Place(results))
    assert len(runs) == 1
    assert chosen_points(tables, results).keys() == {"adamw"}
    ending = Ending.COMPLETED  # of some of its trials: an arm is never confirmed with less than its budget
    with pytest.raises(StudyUnfinished, match=r"1 of sine"):
        stages._search(results.tables(a_study()), Place(results))


# paper_claims.py is what two studies share.
SHIPPED = [path for path in sorted(STUDIES.glob("*.py")) if "STUDY" in path.read_text()]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_study_of_this_project_loads(path):
    assert load_study(path).name == path.stem


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1", "STUDY: got nothing; allowed: STUDY = Study(...), or = Limits(...)"),
        ("STUDY = 3", "STUDY: got int; allowed: STUDY = Study(...), or = Limits(...)"),
        ("import nonesuch", "line 1: ModuleNotFoundError: No module named 'nonesuch'"),
        ("\n\ndef f(:\n", "line 3: SyntaxError: "),
        ("raise SystemExit(0)", "line 1: SystemExit: 0"),
        (
            "from qsgd_ray.config import Perturbation\n\nPerturbation(source='sine', lambda_=-1)",
            "line 3: Perturbation.lambda_: got -1; allowed: a number >= 0, or a space of such",
        ),
        (
            "from qsgd_ray.config import Search\nSearch(trails=3)",
            "line 2: Search.trails: got 3; allowed: no field of this name; there are ",
        ),
    ],
)
def test_a_study_file_that_is_none_is_one_line(tmp_path, text, said):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(StudyError) as error:
        load_study(path)
    assert said in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


SIZES = """
from qsgd_ray.config.loading import load_study
small = load_study(__import__("pathlib").Path({quick!r}))
SCALES = {{"small": small, "large": small.model_copy(update={{"name": "large"}}), "none": 3}}
STUDY = small
"""


def test_a_scale_picks_one_of_the_sizes_of_a_study_file(tmp_path):
    path = tmp_path / "sizes.py"
    path.write_text(SIZES.format(quick=str(STUDIES / "quick.py")))
    assert load_study(path) == load_study(path, "small") == load_study(STUDIES / "quick.py")
    assert load_study(path, "large").name == "large"
    with pytest.raises(StudyError, match=r"^--set scale: got 'huge'; allowed: small, large, none$"):
        load_study(path, "huge")
    with pytest.raises(StudyError, match=r"SCALES\['none'\]: got int; allowed: SCALES\['none'\] = Study\("):
        load_study(path, "none")
    with pytest.raises(StudyError, match=r"^--set scale: got 'small'; allowed: no scale, as .* has no SCALES$"):
        load_study(STUDIES / "quick.py", "small")


def test_the_scale_is_taken_out_of_the_assignments():
    assert split_scale(["seed=1", "scale=short", "scale=long"]) == ("long", ["seed=1"])
    assert split_scale(["seed=1"]) == (None, ["seed=1"])


@pytest.mark.parametrize(
    ("name", "what"),
    [("missing.py", ", which is missing"), (".", ", a folder"), ("my-study.py", ", but there is {}/my_study.py")],
)
def test_a_missing_study_file_is_one_line_that_says_what_is_there(tmp_path, name, what):
    (tmp_path / "my_study.py").touch()
    with pytest.raises(StudyError) as error:
        load_study(tmp_path / name)
    came = f"study file: got {tmp_path / name}{what.format(tmp_path)}"
    assert str(error.value) == f"{came}; allowed: a Python file that ends in STUDY = Study(...)"


def test_circuits_beyond_this_machine_are_refused_with_the_bytes():
    arms = (Arm(name="adamw"), Arm(name="circuit", perturbation=Perturbation(source="circuit", n_qubits=30, depth=20)))
    study = a_study(arms=arms)
    told = r"arms.circuit.perturbation.n_qubits: got 30 at depth 20, .* torch needs 42,949,672,960 bytes with .* there"
    with pytest.raises(StudyError, match=told):
        _check_memory(study, available_bytes=2**34)
    _check_memory(study, available_bytes=2**36)


def test_shallow_chains_of_thousands_of_qubits_fit():
    arms = (Arm(name="adamw"), Arm(name="circuit", perturbation=Perturbation(source="circuit", n_qubits=4096)))
    _check_memory(a_study(arms=arms), available_bytes=2**30)


def test_a_choice_of_qubits_is_judged_by_its_largest():
    choice = {"kind": "choice", "options": [2, 35]}
    study = with_overrides(a_study(), ["arms.sine.perturbation.source=circuit", "arms.sine.perturbation.depth=20"])
    tree = study.model_dump(mode="json")
    tree["arms"][1]["perturbation"]["n_qubits"] = choice
    with pytest.raises(StudyError, match="got 35"):
        _check_memory(type(study).model_validate(tree), available_bytes=2**34)


def test_a_choice_of_sources_is_judged_by_each_of_them():
    source = Choice(options=("sine", "circuit"))
    arms = (Arm(name="q", perturbation=Perturbation(source=source, n_qubits=35, depth=Choice(options=(1, 20)))),)
    with pytest.raises(StudyError, match="got 35 at depth 20"):
        _check_memory(a_study(arms=arms, baseline="q"), available_bytes=2**34)


def test_gpus_that_are_not_there_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(StudyError, match=r"resources.gpus_per_worker: got 1; allowed: 0"):
        require_runnable(with_overrides(a_study(), ["resources.gpus_per_worker=1"]), "local")


def test_sampled_and_noisy_circuits_are_refused_by_the_states_that_they_take():
    def refused(**perturbation):
        arms = (Arm(name="adamw"), Arm(name="q", perturbation=Perturbation(n_qubits=17, **perturbation)))
        try:
            _check_memory(a_study(arms=arms), available_bytes=2**30)
        except StudyError as error:
            return str(error)
        return None

    noise = NoiseSettings(p01=0.1)
    assert needs_circuits(
        a_study(arms=(Arm(name="adamw"), Arm(name="q", perturbation=Perturbation(source="noisy", noise=noise))))
    )
    assert refused(source="sampled", shots=5) is None
    assert refused(source="noisy", noise=noise, shots=5) is None
    assert refused(source="noisy", noise=noise).startswith(
        "arms.q.perturbation.n_qubits: got 17, a density matrix that"
    )


def test_the_closed_form_needs_no_memory_and_no_pool():
    study = with_overrides(a_study(), ["arms.sine.perturbation.n_qubits=40"])
    _check_memory(study, available_bytes=0)
    assert not needs_circuits(study)
    assert needs_circuits(with_overrides(study, ["arms.sine.perturbation.source=circuit"]))
