"""Word problems from the templates of GSM-Symbolic (arXiv 2410.05229): sizes and a seed come in, problems go out.

The package reasoning-gym has 85 of the 100 templates as generators, with worked answers in their metadata. 11 of them
are left out here (`_DEFECTIVE`). The templates are the same in every split: held-out problems are new in their names
and numbers, not in their kind. So results show how well a model learned these templates; they are not GSM8K accuracies.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from qsgd_ray.config import StudyError
from qsgd_ray.config.workload import Split, WordProblems
from qsgd_ray.random_keys import named_seed
from qsgd_ray.workloads._final_number import MARK, final_number
from qsgd_ray.workloads._problem import Problem, question_key

PACKAGE = "reasoning-gym"
# Another version is another set of problems, which would have to be searched for defects again.
VERSION = "0.1.25"
# Found by evaluating the equations of 12,000 worked answers, and by reading one of each template, 2026-11-24.
_DEFECTIVE = {
    2: "a fraction of a student is cut off",
    3: "a fraction of an hour is cut off",
    4: "a fraction of a rack is cut off, though the rest needs one as well",
    24: "some ages are negative",
    46: "shares like 0.6666666666666666",
    49: "one cracker too few where the division is exact but for rounding",
    52: "shares like 0.3333333333333333",
    60: "10 ÷ 1/2 is printed for 10 ÷ (1/2), and half a minute is cut off",
    66: "hours like 23.666666666666668",
    75: "half a tube is cut off: 15 * 0.5 = 7",
    99: "one too few where the subtraction is exact but for rounding: 19.58 - 12.58 = 6",
}
# The generator adds this to each question of GSM-Symbolic.
_SUFFIX = " Give the result as your final answer. Do not include units."
# Draws for each problem of a split, and besides: enough of them are new while the templates are far from exhausted.
_DRAWS_EACH, _DRAWS_MORE = 4, 200


def generate_gsm_symbolic(settings: WordProblems) -> dict[Split, list[Problem]]:
    """Generate the splits, no question twice in all of them: a pure function of the sizes and `data_seed`.

    Test and validation data do not depend on the size of the training data.

    Raises:
        StudyError: one line: the package is missing or of another version, or too many problems for the templates.
    """
    _require_generator()
    if settings.train_size is None:
        raise StudyError("train_size: got None; allowed: a number, as gsm-symbolic has no end")
    sizes: dict[Split, int] = {
        "test": settings.test_size,
        "validation": settings.validation_size,
        "train": settings.train_size,
    }
    seen: set[str] = set()
    drawn: dict[Split, list[Problem]] = {}
    for split, size in sizes.items():
        seed = named_seed("gsm-symbolic", settings.data_seed, split)
        drawn[split] = _take_new(_draw(seed, size * _DRAWS_EACH + _DRAWS_MORE), size, seen, f"{split}_size")
    return drawn


def _take_new(problems: Iterator[Problem], size: int, seen: set[str], field: str) -> list[Problem]:
    """Return the first `size` problems whose question is not in `seen`, and add these; StudyError: there are fewer."""
    taken: list[Problem] = []
    for problem in problems:
        if (key := question_key(problem.question)) not in seen:
            seen.add(key)
            taken.append(problem)
            if len(taken) == size:
                return taken
    raise StudyError(f"{field}: got {size}; allowed: at most {len(taken)}, as the templates gave no more new questions")


def _require_generator() -> None:
    try:
        installed = version(PACKAGE)
    except PackageNotFoundError:
        installed = None
    if installed != VERSION:
        state = "it is not installed" if installed is None else f"{installed} is installed"
        raise StudyError(
            f"source: got 'gsm-symbolic', which the package {PACKAGE} {VERSION} generates, and "
            f"{state}: pip install {PACKAGE}=={VERSION}"
        )


def _draw(seed: int, most: int) -> Iterator[Problem]:
    """Yield up to `most` problems, those of defective templates left out."""
    import reasoning_gym

    data = reasoning_gym.create_dataset("gsm_symbolic", seed=seed, size=most)
    for template, entry in zip(data.task_indices, data, strict=True):
        if template not in _DEFECTIVE and (problem := _problem(entry)) is not None:
            yield problem


def _problem(entry: dict[str, Any]) -> Problem | None:
    """Return the problem of an entry; None: its worked answer ends in another number than its answer."""
    steps, mark, end = entry["metadata"]["answer_cot"].rpartition(MARK)
    number = final_number(mark + end)
    if number is None or number != final_number(f"{MARK} {entry['answer']}"):
        return None
    question = entry["question"].removesuffix(_SUFFIX).strip()
    return Problem(question, f"{steps.strip()}\n{MARK} {number}", number)
