import json
import sys
import time
from importlib.util import find_spec

import pyarrow as pa
import pytest
from pyarrow import parquet
from pydantic import ValidationError

from qsgd_ray.config import StudyError
from qsgd_ray.config.workload import WordProblems
from qsgd_ray.workloads import _gsm_symbolic as gsm_symbolic
from qsgd_ray.workloads import _word_problems as word_problems
from qsgd_ray.workloads._final_number import final_number
from qsgd_ray.workloads._gsm8k import read_gsm8k
from qsgd_ray.workloads._gsm_symbolic import _take_new, generate_gsm_symbolic
from qsgd_ray.workloads._problem import Problem, question_key
from qsgd_ray.workloads._word_problems import load_word_problems

needs_generator = pytest.mark.skipif(find_spec("reasoning_gym") is None, reason="needs the packages of `make llm`")
SMALL = {"train_size": 60, "validation_size": 20, "test_size": 30}


@pytest.fixture(autouse=True)
def _a_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QSGD_RAY_CACHE", str(tmp_path / "cache"))


def symbolic(**fields):
    return load_word_problems(WordProblems(**SMALL | fields))


def all_of(splits):
    return [*splits.train, *splits.validation, *splits.test]


@needs_generator
def test_splits_have_their_sizes_and_share_no_question():
    splits = symbolic(train_size=1500)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [1500, 20, 30]
    assert len({question_key(problem.question) for problem in all_of(splits)}) == 1550


@needs_generator
def test_every_worked_answer_ends_in_the_number_and_every_question_asks_only():
    for problem in all_of(symbolic(train_size=1500)):
        steps, end = problem.worked.rsplit("\n", 1)
        assert end == f"#### {problem.number}"
        assert steps
        assert final_number(problem.worked) == problem.number
        assert not problem.number.startswith("-")
        assert "Do not include units" not in problem.question
        assert not any(noise in problem.question + problem.worked for noise in ("33333333", "66666666"))


@needs_generator
def test_the_seed_decides_and_held_out_data_do_not_feel_the_size_of_the_training_data():
    first, larger, other = symbolic(), symbolic(train_size=90), symbolic(data_seed=1)
    assert (larger.test, larger.validation, larger.train[:60]) == (first.test, first.validation, first.train)
    assert not {p.question for p in other.test} & {p.question for p in first.test}


@needs_generator
def test_the_data_are_those_of_the_measurements():
    # Another digest is another data set: measure again, raise _RULES, then change this.
    assert symbolic().sha256 == "522d63f4fc1415ac5efb6c13053cc5baba08efcd4295b6a949406e2ac845a88f"


@needs_generator
def test_what_is_written_is_read_back_and_needs_no_generator(tmp_path, monkeypatch):
    first = symbolic()
    folders = list((tmp_path / "cache" / "word-problems").iterdir())
    assert len(folders) == 1
    assert parquet.read_table(folders[0] / "test.parquet").column_names == ["question", "worked", "number"]
    assert json.loads((folders[0] / "definition.json").read_text())["package"] == "reasoning-gym 0.1.25"
    monkeypatch.setattr(word_problems, "generate_gsm_symbolic", None)
    assert symbolic() == first


@pytest.mark.parametrize(
    ("package", "message"), [("no-such-package", "it is not installed: pip install"), ("torch", "is installed: pip")]
)
def test_without_the_generator_of_the_right_version_one_line_says_so(monkeypatch, package, message):
    monkeypatch.setattr(gsm_symbolic, "PACKAGE", package)
    with pytest.raises(StudyError, match=message):
        symbolic()


def test_the_settings_of_one_source_are_refused_with_the_other():
    with pytest.raises(ValidationError, match="path with source gsm8k only"):
        WordProblems(path="x")
    with pytest.raises(ValidationError, match="train_size, with source gsm-symbolic"):
        WordProblems(train_size=None)


@needs_generator
def test_without_a_size_there_would_be_no_end():
    with pytest.raises(StudyError, match="train_size: got None"):
        generate_gsm_symbolic(WordProblems.model_construct(**SMALL | {"train_size": None}))


def test_more_than_the_templates_give_is_refused():
    drawn = [Problem(question, "#### 1", "1") for question in ("a", "A ", "b", "c")]
    assert [problem.question for problem in _take_new(iter(drawn), 2, {"c"}, "train_size")] == ["a", "b"]
    with pytest.raises(StudyError, match="train_size: got 3; allowed: at most 2"):
        _take_new(iter(drawn), 3, {"c"}, "train_size")


@needs_generator
def test_a_worked_answer_that_contradicts_the_answer_is_left_out():
    entry = {"question": "?", "answer": "4", "metadata": {"answer_cot": "2 + 2 = 4\n#### 4.0"}}
    assert gsm_symbolic._problem(entry) == Problem("?", "2 + 2 = 4\n#### 4", "4")
    assert gsm_symbolic._problem(entry | {"answer": "5"}) is None


# GSM8K: a copy of a few rows of our own.
def rows(split, n):
    return [
        {"question": f"{split} {i}: how much is 2 * {i}?", "answer": f"2*{i}=<<2*{i}={2 * i}>>{2 * i}\n#### {2 * i:,}"}
        for i in range(n)
    ]


def copied(folder, layout="jsonl", train=None, test=None):
    for split, table in (
        ("train", rows("train", 2000) if train is None else train),
        ("test", test or rows("test", 40)),
    ):
        if layout == "jsonl":
            (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, table)) + "\n")
        else:
            (folder / "main").mkdir(exist_ok=True)
            parquet.write_table(pa.Table.from_pylist(table), folder / "main" / f"{split}-00000-of-00001.parquet")
    return str(folder)


def from_copy(path, **fields):
    return load_word_problems(WordProblems(source="gsm8k", path=path, **SMALL | fields))


def test_a_copy_gives_the_same_splits_as_parquet_and_as_jsonl(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    splits = from_copy(copied(tmp_path / "a"))
    assert splits == from_copy(copied(tmp_path / "b", "parquet"))
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [60, 20, 30]
    assert len({problem.question for problem in all_of(splits)}) == 110
    assert all(problem.question.startswith("test") for problem in splits.test)
    assert all(problem.question.startswith("train") for problem in splits.train + splits.validation)
    assert splits.train[0].worked.endswith(f"#### {int(splits.train[0].number):,}")


def test_training_and_validation_data_do_not_feel_each_others_size(tmp_path):
    path = copied(tmp_path)
    first, other = from_copy(path), from_copy(path, validation_size=30, train_size=90)
    assert other.validation[:20] == first.validation
    assert other.train[:60] == first.train
    assert from_copy(path, data_seed=1).validation != first.validation
    assert len(from_copy(path, train_size=None).train) == 1980


def test_annotations_stay_or_go(tmp_path):
    path = copied(tmp_path)
    assert all("<<2*" in problem.worked for problem in all_of(from_copy(path)))
    bare = all_of(from_copy(path, annotations=False))
    assert all("<<" not in problem.worked and problem.worked.startswith("2*") for problem in bare)


def test_a_question_of_the_test_data_is_never_trained_on(tmp_path):
    path = copied(tmp_path, train=[*rows("test", 5), *rows("train", 100), *rows("train", 100)])
    splits = from_copy(path, train_size=None)
    assert len(splits.train) == 80
    assert len({question_key(problem.question) for problem in all_of(splits)}) == 130


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"train_size": 1981}, "train_size: got 1981; allowed: at most 1980"),
        ({"validation_size": 2000}, "validation_size: got 2000; allowed: at most 1999"),
        ({"test_size": 41}, "test_size: got 41; allowed: at most 40"),
    ],
)
def test_more_than_there_is_is_refused(tmp_path, fields, message):
    with pytest.raises(StudyError, match=message):
        from_copy(copied(tmp_path), **fields)


@pytest.mark.parametrize(
    "row", [{"question": "?"}, {"question": "?", "answer": "no number"}, ["?"], {"answer": "#### 1"}]
)
def test_a_row_that_is_no_problem_is_named(tmp_path, row):
    path = copied(tmp_path, train=[*rows("train", 2), row])
    with pytest.raises(StudyError, match=r"path: row 3 of .*train.jsonl is no word problem; allowed: question, and"):
        from_copy(path)


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(
        StudyError, match=r"has none of main/test-\*.parquet, test-\*.parquet, test.parquet, test.jsonl"
    ):
        from_copy(str(tmp_path))
    (tmp_path / "test.jsonl").write_text("{")
    with pytest.raises(StudyError, match=r"path: .*test.jsonl cannot be read \(Expecting property name"):
        from_copy(str(tmp_path))
    (tmp_path / "test.parquet").write_text("no parquet")
    with pytest.raises(StudyError, match=r"path: .*test.parquet cannot be read \(.*Parquet"):
        from_copy(str(tmp_path))


def test_without_a_network_gsm8k_says_at_once_which_file_is_missing(monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    message = (
        r"source: got 'gsm8k: openai/gsm8k/main/test-00000-of-00001.parquet', which is not in the .* or path: a folder"
    )
    with pytest.raises(StudyError):
        load_word_problems(WordProblems(source="gsm8k"))  # what is imported on first use takes its time
    began = time.perf_counter()
    with pytest.raises(StudyError, match=message):
        load_word_problems(WordProblems(source="gsm8k"))
    assert time.perf_counter() - began < 3


def test_without_the_hub_s_package_gsm8k_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(StudyError, match="needs huggingface_hub: pip install"):
        read_gsm8k(WordProblems(source="gsm8k"))
