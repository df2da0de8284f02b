"""Any JSON at any path of a study, and any JSON as a study: taken, or refused in one line that names the field."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.command_line import said_by
from support.small_study import a_study

from qsgd_ray.config import (
    Arm,
    CircuitCurve,
    Claim,
    ClaimPart,
    Contrast,
    Expectation,
    Limits,
    LogUniform,
    Map,
    NoiseSettings,
    OptimizerCurve,
    Perturbation,
    PoolCurve,
    QuantumAttention,
    Rung,
    SignalCurve,
    Study,
    StudyError,
    TextTask,
    TrainingCurve,
    Transformer,
    settings_from_tree,
    study_from_tree,
)
from qsgd_ray.config.errors import _LONGEST_MESSAGE
from qsgd_ray.config.json_text import _DEEPEST
from qsgd_ray.config.loading import with_overrides

# Every part is switched on, so that every field has a path.
FULL = a_study(
    arms=(
        Arm(name="adamw"),
        Arm(name="plain", learning_rate=2e-3),
        Arm(
            name="noisy",
            learning_rate=LogUniform(low=1e-4, high=1e-2),
            perturbation=Perturbation(source="noisy", shots=10, noise=NoiseSettings(p01=0.1)),
        ),
    ),
    workload=TextTask(model=Transformer(attention=QuantumAttention())),
    map=Map(arm="noisy", axes={"perturbation.lambda_": (0.5, 5.0)}, seeds=(31,), epochs=1),
    claims=(
        Claim(name="C1", text="it is better", contrast="noisy", measure="difference", claimed=0.02, source="a paper"),
        Claim(
            name="C7",
            text="a large lambda costs nothing",
            contrast=Contrast(arm="noisy", along="perturbation.lambda_"),
            measure="seconds_per_step_change",
            about="perturbation.lambda_",
            parts=(
                ClaimPart(
                    expects=(
                        Expectation(lies="below", words="{arm} takes {value} from {first} to {last}"),
                        Expectation(
                            contrast=Contrast(arm="noisy", at={"perturbation.lambda_": 5.0}),
                            measure="difference",
                            metric="loss",
                            lies="above",
                            edge="-margin",
                            words="by {figure}",
                        ),
                    )
                ),
            ),
        ),
    ),
    ladder=(Rung(arm="plain", explains="a rate of its own"),),
)
LIMITS = Limits(
    name="far",
    question="How far?",
    curves=(
        CircuitCurve(name="chain", engine="chain", sizes=(2, 3, 4, 5)),
        OptimizerCurve(name="adamw", source=None, sizes=(64, 128, 256, 512)),
        TrainingCurve(name="training", sizes=(8, 9, 10, 11)),
        PoolCurve(name="pool", actors=(1, 2), batches=(8, 16)),
        SignalCurve(name="fading", theta=1.0, n_qubits=8, sizes=(1, 2, 3, 4)),
    ),
)


def paths_in(tree: object, path: str = "") -> list[str]:
    """Return the path of every value in a tree, those of whole parts too."""
    if isinstance(tree, dict):
        inside = list(tree.items())
    elif isinstance(tree, list):
        inside = [(str(index), item) for index, item in enumerate(tree)]
    else:
        inside = []
    below = [place for name, item in inside for place in paths_in(item, f"{path}.{name}".lstrip("."))]
    return ([path] if path else []) + below


PATHS = paths_in(FULL.model_dump(mode="json"))
NUMBERS = st.sampled_from(
    [0, -1, 1, True, False, 2**31, 2**32, 2**53, 2**63, 10**19, 10**399, 0.5, -0.0, 5e-324, 1e18, 1e308, -1e308]
)
WORDS = st.sampled_from(["", "[/b]", "[bold]", "NaN", "../x", "a\nb", "\x1b[31m", "\ud800", "name", "C6", "x" * 10_000])
LEAVES = st.none() | NUMBERS | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS | st.text()
KEYS = st.sampled_from(["name", "kind", "low", "high", "options", "source", "seeds", "x" * 10_000]) | st.text()
ANY_JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=12
)
# No more than a guard against what hangs; nothing here takes a second.
GUARDED = settings(deadline=timedelta(seconds=30), derandomize=True, max_examples=300)


def require_one_line(error: StudyError) -> None:
    line = str(error)
    assert 0 < len(line) <= _LONGEST_MESSAGE
    assert line.isprintable()
    line.encode()


@GUARDED
@given(st.sampled_from(PATHS), ANY_JSON)
@example("workload.validation_size", 2**32)
@example("workload.train_size", 2**24)
@example("map.n_points", 10**8)
@example("map.axes", {"name": ["a", "b"]})
@example("map.axes", {f"perturbation.x{number}": [1, 2] for number in range(40)})
@example("map.axes", {"perturbation.lambda_": list(range(5000))})
@example("map.axes", {"weight_decay": list(range(4096))})
@example("resources.cpus_per_worker", 1e18)
@example("resources.gpus_per_worker", 1.5)
@example("arms", [{"name": 5}])
@example("question", "Is [/b] ok?")
@example("question", "\ud800")
@example("question", "x" * 100_000)
@example("claims", {"C6": "adamw"})
@example("claims", {"C6": "plain"})
@example("claims", {"C1": "no name"})
@example("ladder", [{"arm": "noisy", "explains": "x"}, {"arm": "plain", "explains": "x"}])
def test_any_value_at_any_path_of_a_study_is_taken_or_refused_in_one_line(path, value):
    try:
        study = with_overrides(FULL, [f"{path}={json.dumps(value)}"])
    except StudyError as error:
        require_one_line(error)
        line = str(error)
    else:
        line = ""
        assert Study.model_validate_json(study.model_dump_json()) == study
    # The field, a field that does not go with it, or a part of it; all of them below one of the study's own.
    assert line.removeprefix("--set ").split(":")[0].split(".")[0] in {"", *Study.model_fields}


@GUARDED
@given(st.text(max_size=40), st.text(max_size=40))
@example("question", "[" * 100_000)
@example("seed", "9" * 5000)
@example("arms." + "9" * 5000, "1")
@example("arms." * 50_000, "1")
@example("arms.\x00.x", "1")
@example("name.x" * 10_000, "1")
@example("question", "1e999")
def test_any_text_as_an_assignment_is_taken_or_refused_in_one_line(path, text):
    try:
        with_overrides(FULL, [f"{path}={text}"])
    except StudyError as error:
        require_one_line(error)


@GUARDED
@given(ANY_JSON)
@example([])
@example({"name": {"name": "x"}})
def test_any_json_as_a_study_is_refused_in_one_line(tree):
    for kind in (Study, Limits):
        with pytest.raises(StudyError) as error:
            settings_from_tree(tree, kind)
        require_one_line(error.value)


@GUARDED
@given(st.sampled_from(paths_in(LIMITS.model_dump(mode="json"))), ANY_JSON)
@example("curves.chain.batch", 10**12)
@example("curves.adamw.n_tensors", 10**19)
@example("curves.adamw.n_tensors", 2**30)
@example("curves.training.sizes", [8, 9, 10, 2**40])
@example("curves.training.sizes", [8, 9, 10, 4097])
@example("curves.chain.sizes", [2, 3, 4, 2**31 - 1])
@example("curves.fading.draws", 2**31 - 1)
@example("curves.pool.actors", [10**6])
@example("budget_s", 1e308)
def test_any_value_at_any_path_of_a_study_of_limits_is_taken_or_refused_in_one_line(path, value):
    try:
        limits = with_overrides(LIMITS, [f"{path}={json.dumps(value)}"])
    except StudyError as error:
        require_one_line(error)
    else:
        assert Limits.model_validate_json(limits.model_dump_json()) == limits


@pytest.mark.parametrize(
    "assignment",
    [
        "workload.validation_size=4294967296",
        "workload.train_size=16777217",
        "map.n_points=100000000",
        'map.axes={"name":["a","b"]}',
        "resources.cpus_per_worker=1e18",
        "resources.cpus_per_worker=0.00001",
        "resources.gpus_per_worker=1.5",
        "arms.noisy.perturbation.n_qubits=true",
        'arms.noisy.perturbation.n_qubits={"kind":"choice","options":[true,2]}',
        "arms.noisy.perturbation.shots=true",
        "arms.noisy.learning_rate=true",
        "arms.noisy.betas=[true,0.9]",
        "workload.length=true",
        'workload.length="16"',
        "workload.model.attention.phi=1",
        'workload.model.attention.phi="yes"',
        "confirm.seeds=[true]",
        "search.epochs=2147483648",
        "decision.margin=true",
        "seed=" + "9" * 5000,
        "question=" + "[" * 100_000,
        'question="\\ud800"',
    ],
)
def test_what_no_trial_could_be_run_with_is_refused(assignment):
    with pytest.raises(StudyError) as error:
        with_overrides(FULL, [assignment])
    require_one_line(error.value)


def test_a_long_value_is_cut_in_its_middle_and_its_length_is_told():
    with pytest.raises(StudyError) as error:
        with_overrides(FULL, [f"baseline={'x' * 5000}{'y' * 5000}"])
    assert str(error.value).startswith("baseline: one of the arms (adamw, plain, noisy); got 'xxxxx")
    assert " ... (10,000 characters) ... y" in str(error.value)


def test_a_map_does_not_rename_the_arm_that_it_follows():
    with pytest.raises(StudyError, match=r"map\.axes: fields that a trial depends on; got 'name'"):
        with_overrides(FULL, ['map.axes={"name":["a","b"]}'])


def numbers_in(schema: object) -> list[dict]:
    """Return the parts of a pydantic core schema that take a number or a switch."""
    if isinstance(schema, list | tuple):
        return [found for item in schema for found in numbers_in(item)]
    if not isinstance(schema, dict):
        return []
    own = [schema] if schema.get("type") in ("int", "float", "bool") else []
    return own + [found for item in schema.values() for found in numbers_in(item)]


@pytest.mark.parametrize("kind", [Study, Limits])
def test_no_field_takes_true_for_one_and_every_whole_number_has_an_upper_end(kind):
    numbers = numbers_in(kind.__pydantic_core_schema__)
    assert {number["type"] for number in numbers} == ({"int", "float", "bool"} if kind is Study else {"int", "float"})
    assert [number for number in numbers if not number.get("strict")] == []
    whole = [number for number in numbers if number["type"] == "int" and not {"le", "lt"} & number.keys()]
    # Those of fields that may hold a space: their own validator has the ends, of the space as well.
    assert [number.keys() - {"metadata"} for number in whole] == [{"type", "strict"}] * (2 if kind is Study else 0)


def test_numbers_of_numpy_are_numbers():
    np = pytest.importorskip("numpy")
    study = a_study(seed=np.int64(3), confirm={"seeds": np.arange(11, 14), "epochs": np.int32(2)})
    assert study == a_study(seed=3, confirm={"seeds": (11, 12, 13), "epochs": 2})


def test_the_command_ends_with_exit_code_2_and_the_line(monkeypatch, capsys, tmp_path):
    file = tmp_path / "small.py"
    file.write_text("from support.small_study import a_study\nSTUDY = a_study()\n")
    for assignment in ("seed=" + "9" * 5000, "question=" + "[" * 100_000, "baseline=" + "x" * 10_000, "a\nb=1"):
        code, line = said_by(monkeypatch, capsys, "run", file, "--set", assignment, "--storage", tmp_path)
        assert code == 2
        assert line.count("\n") == 1
        assert len(line) <= len("qsgd-ray: ") + _LONGEST_MESSAGE + 1


def test_a_stored_study_of_any_depth_is_refused_in_one_line():
    tree = json.loads(FULL.model_dump_json())
    deep: list = []
    for _ in range(_DEEPEST * 2):
        deep = [deep]
    with pytest.raises(StudyError, match=r"question(\.0)*: got JSON nested deeper than 64"):
        study_from_tree(tree | {"question": deep})
