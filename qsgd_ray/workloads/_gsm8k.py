"""GSM8K (arXiv 2110.14168) from the Hugging Face hub or from a folder with a copy of it; problems in splits go out.

A copy has the files of the hub (`hf download --repo-type dataset openai/gsm8k`), main/train-*.parquet and
main/test-*.parquet; or train.parquet and test.parquet; or train.jsonl and test.jsonl, as in OpenAI's repository. The
columns are question and answer.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from qsgd_ray.config import StudyError
from qsgd_ray.config.errors import one_line
from qsgd_ray.config.workload import Split, WordProblems
from qsgd_ray.models.hub import load_from_hub
from qsgd_ray.random_keys import named_seed
from qsgd_ray.workloads._final_number import final_number
from qsgd_ray.workloads._problem import Problem, question_key

_HUB_ID = "openai/gsm8k"
_HUB_FILE = "main/{}-00000-of-00001.parquet"
_COPIES = ("main/{}-*.parquet", "{}-*.parquet", "{}.parquet", "{}.jsonl")
_ANNOTATION = re.compile(r"<<[^>]*>>")


def read_gsm8k(settings: WordProblems) -> dict[Split, list[Problem]]:
    """Read the splits, no question twice in all of them: a pure function of the files and the settings.

    Validation and training data come from the two ends of one shuffled list, so neither depends on the other's size.

    Raises:
        StudyError: one line: a file is missing or wrong, or a split is larger than the data.
    """
    seen: set[str] = set()
    originals = {split: _shuffled(_rows(settings, split), settings, split, seen) for split in ("test", "train")}
    rest = len(originals["train"]) - settings.validation_size
    train_size = rest if settings.train_size is None else settings.train_size
    for field, size, most in (
        ("test_size", settings.test_size, len(originals["test"])),
        ("validation_size", settings.validation_size, len(originals["train"]) - 1),
        ("train_size", train_size, rest),
    ):
        if size > most:
            raise StudyError(f"{field}: got {size}; allowed: at most {most}, as GSM8K has no more")
    return {
        "train": originals["train"][::-1][:train_size],
        "validation": originals["train"][: settings.validation_size],
        "test": originals["test"][: settings.test_size],
    }


def _shuffled(rows: list[Problem], settings: WordProblems, split: str, seen: set[str]) -> list[Problem]:
    """Return the problems whose question is not in `seen`, shuffled by `data_seed`; add their questions to `seen`."""
    new = []
    for row in rows:
        if (key := question_key(row.question)) not in seen:
            seen.add(key)
            new.append(row)
    rng = np.random.default_rng(named_seed("gsm8k", settings.data_seed, split))
    return [new[index] for index in rng.permutation(len(new))]


def _rows(settings: WordProblems, split: str) -> list[Problem]:
    file = _file(settings.path, split)
    problems = []
    for n, row in enumerate(_table(file), start=1):
        columns = row if isinstance(row, dict) else {}
        question, answer = columns.get("question"), columns.get("answer")
        number = final_number(answer) if isinstance(answer, str) else None
        if not isinstance(question, str) or not isinstance(answer, str) or number is None:
            raise StudyError(f"path: row {n} of {file} is no word problem; allowed: question, and answer with '#### n'")
        worked = answer if settings.annotations else _ANNOTATION.sub("", answer)
        problems.append(Problem(question.strip(), worked.strip(), number))
    return problems


def _file(path: str | None, split: str) -> Path:
    if path is None:
        return _from_hub(_HUB_FILE.format(split))
    folder = Path(path).expanduser()
    patterns = [pattern.format(split) for pattern in _COPIES]
    match = next((file for pattern in patterns for file in sorted(folder.glob(pattern))), None)
    if match is None:
        raise StudyError(
            f"path: got {path!r}, which has none of {', '.join(patterns)}; allowed: a folder with GSM8K's train and "
            f"test files (hf download --repo-type dataset {_HUB_ID} --local-dir {path})"
        )
    return match


def _from_hub(name: str) -> Path:
    def load(local_files_only: bool) -> Path:
        try:
            from huggingface_hub import hf_hub_download
        except ImportError:
            raise StudyError("source: got 'gsm8k', which needs huggingface_hub: pip install 'qsgd-ray[llm]'") from None
        return Path(
            hf_hub_download(  # nosec B615 # parquet, read as data
                _HUB_ID, name, repo_type="dataset", local_files_only=local_files_only
            )
        )

    alternative = "path: a folder with its train and test files (parquet or jsonl)"
    return load_from_hub("source", f"gsm8k: {_HUB_ID}/{name}", load, alternative)


def _table(file: Path) -> list[Any]:
    try:
        if file.suffix == ".jsonl":
            return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
        from pyarrow import parquet

        return list(parquet.read_table(file).to_pylist())
    except (ValueError, OSError) as error:  # ArrowInvalid and JSONDecodeError are ValueErrors
        raise StudyError(f"path: {file} cannot be read ({one_line(error)[:200]})") from None
