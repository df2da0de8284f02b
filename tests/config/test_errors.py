"""A wrong study is one line: which field, what came, what is allowed; in a notebook too, without pydantic's text."""

import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError
from support.small_study import SMALL_TASK, a_study

from qsgd_ray.config import (
    Arm,
    Choice,
    Decision,
    InvalidSettings,
    LanguageTask,
    Limits,
    LogUniform,
    Map,
    NoiseSettings,
    Perturbation,
    Resources,
    Search,
    Study,
    StudyError,
    TextTask,
    Transformer,
    Uniform,
    study_from_tree,
    validation_message,
)
from qsgd_ray.config.errors import one_line, printable
from qsgd_ray.config.loading import load_study

WRONG = [
    (lambda: Arm(name="q", learning_rate=-1), "Arm.learning_rate: got -1; allowed: a number > 0, or a space of such"),
    (lambda: Arm(), "Arm.name: got nothing; allowed: a value, this field is required"),
    (
        lambda: Arm(name="q", rate=1),
        "Arm.rate: got 1; allowed: no field of this name; there are name, learning_rate, weight_decay, ",
    ),
    (
        lambda: Arm(name="q", perturbation={"source": "sine", "lambda_": -1}),
        "Arm.perturbation.lambda_: got -1; allowed: a number >= 0, or a space of such",
    ),
    (
        lambda: Arm(name="q", weight_decay=-1, eps=0),
        "Arm.weight_decay: got -1; allowed: a number >= 0, or a space of such (and 1 more)",
    ),
    (lambda: Perturbation(source="sampled"), "Perturbation: shots, with source sampled"),
    (lambda: Uniform(low=2, high=1), "Uniform: low < high; got 2 and 1"),
    (lambda: Choice(options=()), "Choice.options: got (); allowed: "),
    (
        lambda: Search(trials_per_arm=1, epochs=2, seeds=(1, 2), workers=2),
        "Search: workers: 1 with several seeds, which are trained side by side; got 2",
    ),
    (lambda: Transformer(d_model=63), "Transformer: d_model divisible by n_heads; got 63 and 4"),
    (lambda: TextTask(model={"d_model": 63}), "TextTask.model: allowed: d_model divisible by n_heads; got 63 and 4"),
    (lambda: LanguageTask(lora={"rank": 2}), "LanguageTask.lora.rank: got 2; allowed: no field of this name"),
    (lambda: NoiseSettings(t1_us=1), "NoiseSettings: t1_us and t2_us together"),
    (lambda: Resources(circuit_nodes="CPU"), "Resources.circuit_nodes: got 'CPU'; allowed: "),
    (lambda: Map(arm="q", axes={}, seeds=(1,), epochs=1), "Map.axes: got {}; allowed: "),
    (lambda: Limits(name="a", question="", curves=()), "question: got ''; allowed: "),
    (
        lambda: Decision(marign=0.1),
        "Decision.marign: got 0.1; allowed: no field of this name; there are metric, margin, ",
    ),
    (lambda: a_study(baseline="sgd"), "baseline: one of the arms (adamw, sine); got 'sgd'"),
    (lambda: a_study(workload=3), "workload: got 3; allowed: a TextTask, a LanguageTask or a task of your own"),
    (
        lambda: a_study(workload={"kind": "llm", "lora": {"rank": 2}}),
        "workload.lora.rank: got 2; allowed: no field of this name",
    ),
    (
        lambda: a_study(arms=({"name": "adamw"}, {"name": "sine", "learning_rate": -1})),
        "arms.1.learning_rate: got -1; allowed: a number > 0, or a space of such",
    ),
    (
        lambda: a_study(map=Map(arm="sine", axes={"perturbation.n_qubits": (0,)}, seeds=(31,), epochs=1)),
        "map.axes: settings that a trial can have; of {'perturbation.n_qubits': 0} Arm.perturbation.n_qubits: got 0; ",
    ),
]


@pytest.mark.parametrize(("make", "line"), WRONG)
def test_wrong_settings_are_one_line_and_nothing_else(make, line):
    with pytest.raises(StudyError) as error:
        make()
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)
    assert "pydantic" not in str(error.value) + repr(error.value)
    assert error.value.__suppress_context__
    assert error.value.__cause__ is None


@pytest.mark.parametrize(("make", "_"), WRONG)
def test_wrong_settings_are_still_the_error_of_pydantic_and_travel_to_other_processes(make, _):
    with pytest.raises(ValidationError) as error:
        make()
    assert str(error.value) == validation_message(error.value)
    there = pickle.loads(pickle.dumps(error.value))
    assert isinstance(there, InvalidSettings)
    assert (str(there), there.title, there.errors()) == (str(error.value), error.value.title, error.value.errors())


@given(
    st.sampled_from(["name", "learning_rate", "weight_decay", "betas", "eps", "perturbation", "frob"]), st.integers()
)
def test_constructing_finds_the_problems_that_reading_finds(field, value):
    fields = {"name": "q", field: value}
    try:
        read: Arm | list = Arm.model_validate(fields)
    except ValidationError as error:
        read = error.errors()
    if isinstance(read, Arm):
        assert Arm(**fields) == read
        return
    with pytest.raises(InvalidSettings) as refused:
        Arm(**fields)
    assert refused.value.errors() == read


def test_settings_within_another_library_s_model_keep_the_path_to_them():
    class Experiment(BaseModel):
        arms: list[Arm]

    with pytest.raises(ValidationError) as error:
        Experiment.model_validate({"arms": [{"name": "a"}, {"name": "b", "eps": 0}]})
    assert [problem["loc"] for problem in error.value.errors()] == [("arms", 1, "eps")]
    with pytest.raises(ValidationError) as error:
        TypeAdapter(tuple[Perturbation, ...]).validate_python([{"source": "zap"}])
    assert [problem["loc"] for problem in error.value.errors()] == [(0, "source")]


def test_a_study_file_that_builds_a_wrong_part_is_told_with_its_line(tmp_path):
    file = tmp_path / "study.py"
    file.write_text("from qsgd_ray.config import *\n\nARM = Arm(name='q', eps=0)\n")
    with pytest.raises(StudyError) as error:
        load_study(file)
    assert str(error.value) == f"{file}, line 3: Arm.eps: got 0; allowed: a number > 0, or a space of such"


def test_a_study_file_imports_the_modules_beside_it(tmp_path):
    (tmp_path / "beside_a_study.py").write_text("RATE = 0.25\n")
    file = tmp_path / "study.py"
    file.write_text(
        "import beside_a_study\nfrom support.small_study import a_study\n"
        "STUDY = a_study(seed=int(4 * beside_a_study.RATE))\n"
    )
    assert load_study(file).seed == 1
    file.write_text("\nimport not_beside_a_study\n")
    with pytest.raises(
        StudyError, match=r"study\.py, line 2: ModuleNotFoundError: No module named 'not_beside_a_study'"
    ):
        load_study(file)


def test_data_that_is_no_study_is_told_by_the_names_of_its_arms():
    tree = a_study().model_dump(mode="json")
    tree["arms"][1]["eps"] = 0
    with pytest.raises(StudyError) as error:
        study_from_tree(tree)
    assert str(error.value) == "arms.sine.eps: got 0; allowed: a number > 0, or a space of such"
    with pytest.raises(ValidationError, match="validation error"):
        Study.model_validate(tree)


def test_the_traceback_of_a_script_ends_in_the_line_and_shows_no_pydantic():
    script = "from qsgd_ray.config import Arm\nArm(name='q', learning_rate=-1)\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    *_, last = done.stderr.splitlines()
    assert last.endswith("InvalidSettings: Arm.learning_rate: got -1; allowed: a number > 0, or a space of such")
    assert "pydantic" not in done.stderr
    assert done.stderr.count("Traceback") == 1


def test_settings_that_are_right_are_what_they_were():
    arm = Arm(name="q", learning_rate=LogUniform(low=1e-4, high=1e-2), perturbation=Perturbation(source="circuit"))
    assert Arm.model_validate(arm.model_dump()) == arm == pickle.loads(pickle.dumps(arm))
    assert a_study(workload=SMALL_TASK).workload is SMALL_TASK


@given(st.text(), st.integers(1, 40))
def test_a_line_has_no_breaks_and_every_word(text, limit):
    line = one_line(ValueError(text))
    assert line.split() == text.split()
    assert line == " ".join(text.split())
    assert one_line(text, limit=limit) == (line if len(line) <= limit else f"{line[:limit]} ...")


@pytest.mark.parametrize(
    ("text", "first", "last"), [("a  b\n\n c \n", "a  b", "c"), ("", "ValueError", "ValueError"), ("\n x\n", "x", "x")]
)
def test_of_a_long_text_the_first_or_the_last_line_is_taken(text, first, last):
    assert one_line(ValueError(text), part="first") == first
    assert one_line(ValueError(text), part="last") == last
    assert one_line("", part="first") == ""


@given(st.text(st.characters()))
def test_unprintable_characters_are_escaped_and_all_others_stay(text):
    line = printable(text)
    assert line.isprintable()
    assert printable(line) == line
    if text.isprintable():
        assert line == text
    assert printable("a\nb\x1b[31m\u202e\ud800é") == r"a\nb\x1b[31m\u202e\ud800é"
