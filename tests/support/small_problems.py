"""Word problems of a few tokens, for tests on the tiny model."""

import json
from pathlib import Path

from qsgd_ray.config import LanguageTask, WordProblems
from qsgd_ray.workloads._problem import Problem


def some_problems(n: int) -> list[Problem]:
    """Sums, no two alike and of many lengths."""
    return [
        Problem(f"{'how much is ' * (i % 3)}{i}+{i}?", f"{i}+{i}={2 * i}\n#### {2 * i}", str(2 * i)) for i in range(n)
    ]


def a_language_task(folder: Path, n_train: int = 10, **fields) -> LanguageTask:
    """The tiny model on a few of these problems, which are put into `folder` as a copy of GSM8K."""
    problems = some_problems(n_train + 5 + 4)
    for split, rows in (("train", problems[4:]), ("test", problems[:4])):
        lines = [json.dumps({"question": problem.question, "answer": problem.worked}) for problem in rows]
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    data = WordProblems(source="gsm8k", path=str(folder), train_size=None, validation_size=5, test_size=4)
    return LanguageTask(**{"model": "tiny", "data": data, "target_accuracy": 0.01} | fields)
