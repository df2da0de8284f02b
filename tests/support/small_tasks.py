"""Tasks of a few sequences or word problems, for tests on models of milliseconds."""

import json
from pathlib import Path

from qsgd_ray.config import LanguageTask, TextTask, Transformer, WordProblems
from qsgd_ray.workloads._problem import Problem

TINY_TRANSFORMER = Transformer(d_model=8, n_heads=2, d_feedforward=8, n_layers=1)


def a_text_task(**fields) -> TextTask:
    """Return a text task of 208, 101 and 57 sequences in four classes, but for the fields given."""
    sizes = {"train_size": 208, "validation_size": 101, "test_size": 57}
    defaults = {"n_classes": 4, "vocabulary": 16, "difficulty": 0.2, "model": TINY_TRANSFORMER}
    return TextTask(**defaults | sizes | fields)


def some_problems(n: int) -> list[Problem]:
    """Return n sums, no two alike and of many lengths."""
    return [
        Problem(f"{'how much is ' * (i % 3)}{i}+{i}?", f"{i}+{i}={2 * i}\n#### {2 * i}", str(2 * i)) for i in range(n)
    ]


def a_language_task(folder: Path, n_train: int = 10, **fields) -> LanguageTask:
    """Return the tiny model's task on a few of these problems, and write them into the folder as a copy of GSM8K."""
    problems = some_problems(n_train + 5 + 4)
    for split, rows in (("train", problems[4:]), ("test", problems[:4])):
        lines = [json.dumps({"question": problem.question, "answer": problem.worked}) for problem in rows]
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    data = WordProblems(source="gsm8k", path=str(folder), train_size=None, validation_size=5, test_size=4)
    return LanguageTask(**{"model": "tiny", "data": data, "target_accuracy": 0.01} | fields)
