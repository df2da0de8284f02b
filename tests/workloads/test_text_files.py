"""Texts of files: every kind gives the same examples, missing splits are drawn by name, bad files are one line."""

import sys
from types import ModuleType

import pytest
from support.huggingface import a_task, reviews, write_reviews

from qsgd_ray.config import HuggingFaceTask, StudyError
from qsgd_ray.models import hub
from qsgd_ray.workloads._text_files import read_examples

SIZES = {"train": 12, "validation": 4, "test": 5}


def a_reader(folder, **fields):
    return HuggingFaceTask(**{"pretrained": "tiny", "dataset": str(folder)} | fields)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("names", [("0", "1"), ("bad", "good")])
def test_each_kind_of_file_gives_the_examples(tmp_path, kind, names):
    splits = read_examples(a_reader(write_reviews(tmp_path, SIZES, kind, names)))
    assert splits.train == reviews(12)
    assert splits.validation == reviews(4, 12)
    assert splits.test == reviews(5, 16)


def test_files_and_folders_are_told_by_the_words_that_they_begin_with(tmp_path):
    for number, name in enumerate(("train-00000", "Training/part", "train/1", "dev", "extra/test_2")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_reviews((tmp_path / name).parent, {(tmp_path / name).name: number + 1})
    splits = read_examples(a_reader(tmp_path))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (1 + 3, 4, 5)
    within = read_examples(a_reader(tmp_path, subset="train", held_out=0.3))
    assert len([*within.train, *within.validation, *within.test]) == 3


def test_missing_splits_are_drawn_by_the_seed_of_the_data_and_share_no_row(tmp_path):
    folder = write_reviews(tmp_path, {"all": 40})
    splits = read_examples(a_reader(folder, held_out=0.2))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (24, 8, 8)
    assert sorted([*splits.train, *splits.validation, *splits.test]) == sorted(reviews(40))
    assert read_examples(a_reader(folder, held_out=0.2)) == splits
    assert read_examples(a_reader(folder, held_out=0.2, data_seed=1)) != splits
    with pytest.raises(StudyError, match=r"held_out: got 0.5; allowed: a share that leaves some of 40 rows"):
        read_examples(a_reader(folder, held_out=0.5))


def test_sizes_draw_rows_and_a_smaller_number_is_a_part_of_a_larger(tmp_path):
    folder = write_reviews(tmp_path, SIZES)
    few, more = (read_examples(a_reader(folder, train_size=size)).train for size in (5, 9))
    assert more[:5] == few
    assert {*more} < {*reviews(12)}
    with pytest.raises(StudyError, match=r"test_size: got 6; allowed: at most 5, as the data have no more"):
        read_examples(a_reader(folder, test_size=6))


def test_a_causal_head_reads_texts_alone(tmp_path):
    splits = read_examples(a_reader(write_reviews(tmp_path, SIZES), head="causal"))
    assert splits.test == [text for text, _ in reviews(5, 16)]


@pytest.mark.parametrize(
    ("text", "fields", "said"),
    [
        ("{", {}, r"dataset: .*dev.jsonl cannot be read \("),
        ('{"text": "a"}', {}, r"label_column: got 'label'; allowed: a column of .*dev.jsonl \(text\)"),
        ('{"text": 3, "label": 0}', {}, r"text_column: row 1 of .* has 3 as text; allowed: a text in each row"),
        (
            '{"text": "a", "label": 0.5}',
            {},
            r"label_column: row 1 of .* has 0.5 as label; allowed: a whole number or a word",
        ),
        (
            '{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}',
            {"n_classes": 3},
            r"n_classes: got 3; allowed: 2, as",
        ),
        ('{"text": "a", "label": 0}\n[1]', {}, r"text_column: row 2 of .* has None as text"),
        ('{"text": "a", "label": 0}', {"subset": "no"}, r"subset: got 'no'; allowed: a folder within "),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, text, fields, said):
    (tmp_path / "train.jsonl").write_text(text)
    (tmp_path / "test.jsonl").write_text(text)
    (tmp_path / "dev.jsonl").write_text(text)
    with pytest.raises(StudyError, match=said) as caught:
        read_examples(a_reader(tmp_path, **fields))
    assert "\n" not in str(caught.value)


def test_a_folder_without_training_data_is_refused(tmp_path):
    for sizes in ({}, {"test": 3}):
        with pytest.raises(
            StudyError, match=r"dataset: got .*, which has no training data; allowed: files train\*.csv"
        ):
            read_examples(a_reader(write_reviews(tmp_path / str(len(sizes)), sizes)))


def test_a_data_set_of_the_hub_is_fetched_once_and_whole(tmp_path, monkeypatch):
    calls = []

    def snapshot_download(name, *, revision, repo_type, allow_patterns, local_dir):
        calls.append((name, revision, repo_type))
        assert "plain/*.parquet" in allow_patterns
        if len(calls) == 1:
            write_reviews(local_dir / "plain", {"train": 3})
            raise OSError("the line broke")
        write_reviews(local_dir / "plain", SIZES, "parquet")

    module = ModuleType("huggingface_hub")
    module.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    monkeypatch.setattr(hub, "_endpoint", lambda: ("the hub", None))
    monkeypatch.setenv("QSGD_RAY_CACHE", str(tmp_path))
    task = a_reader("owner/data@" + 40 * "a", subset="plain")
    with pytest.raises(StudyError, match=r"dataset: got 'owner/data@a+', which is not in .*the line broke"):
        read_examples(task)
    assert len(read_examples(task).train) == 12
    assert read_examples(task) == read_examples(task)
    assert calls == 2 * [("owner/data", 40 * "a", "dataset")]


def test_the_task_of_the_other_tests_is_read(tmp_path):
    assert len(read_examples(a_task(tmp_path)).test) == 12
