"""Word problems as tokens: problems, a tokenizer and a `ChatFormat` come in; token ids and their labels go out.

A chat is split where generation starts, and prompt and answer are tokenized each by itself. So a model is trained on
the same tokens of a prompt that it later has to continue.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qsgd_ray.config import StudyError
from qsgd_ray.config.workload import ChatFormat
from qsgd_ray.workloads._chat_template import render
from qsgd_ray.workloads._problem import Problem

# The label by which torch and transformers leave a token out of the loss.
IGNORED = -100


@dataclass(frozen=True, eq=False)
class Example:
    """One chat as tokens.

    Attributes:
        ids: int64, shape (tokens,).
        labels: int64, shape (tokens,): `ids` where the loss counts, else -100, as at the first token.
    """

    ids: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False)
class Encoded:
    """Examples in the order of their problems.

    Attributes:
        examples: one for each problem that fits.
        n_dropped: problems left out, as they are too long.
        n_truncated: examples cut off at `context` tokens.
    """

    examples: tuple[Example, ...]
    n_dropped: int
    n_truncated: int

    @property
    def lengths(self) -> list[int]:
        """Return the number of tokens of each example."""
        return [len(example.ids) for example in self.examples]

    @property
    def n_loss_tokens(self) -> int:
        """Return the number of tokens on which the loss counts."""
        return sum(int((example.labels != IGNORED).sum()) for example in self.examples)


def encode(problems: Sequence[Problem], tokenizer: Any, form: ChatFormat) -> Encoded:
    """Encode each problem as one turn of a chat: the question, then the worked answer and the end of the turn.

    Examples that are cut off before their answer are dropped.

    Raises:
        StudyError: one line: the tokenizer has no chat template, one that fails or does not end, or one that does not
            put an answer behind its prompt.
    """
    prompts, answers = [], []
    for problem in problems:
        prompt = _prompt_text(problem.question, tokenizer, form)
        chat = _rendered(tokenizer, form, problem.question, problem.worked)
        if not chat.startswith(prompt):
            raise StudyError("model: got a tokenizer whose chat template changes the prompt once there is an answer")
        prompts.append(prompt)
        # Templates end a turn with a line break that no model ever has to generate.
        answer = chat[len(prompt) :].rstrip()
        if not answer:
            raise StudyError("model: got a tokenizer whose chat template leaves the answer out")
        answers.append(answer)
    examples, n_truncated = [], 0
    for prompt_ids, answer_ids in zip(_ids(prompts, tokenizer), _ids(answers, tokenizer), strict=True):
        too_long = len(prompt_ids) + len(answer_ids) > form.context
        if too_long and (form.too_long == "drop" or len(prompt_ids) >= form.context):
            continue
        n_truncated += too_long
        ids = torch.tensor((prompt_ids + answer_ids)[: form.context])
        labels = ids.clone()
        labels[: len(prompt_ids) if form.loss_on == "answer" else 1] = IGNORED
        examples.append(Example(ids, labels))
    return Encoded(tuple(examples), n_dropped=len(problems) - len(examples), n_truncated=n_truncated)


def encode_prompts(questions: Iterable[str], tokenizer: Any, form: ChatFormat) -> list[list[int]]:
    """Encode each question as a prompt, behind which the answer comes next.

    Raises:
        StudyError: as `encode`.
    """
    return _ids([_prompt_text(question, tokenizer, form) for question in questions], tokenizer)


def _prompt_text(question: str, tokenizer: Any, form: ChatFormat) -> str:
    """Render a question by the chat template, up to where the answer starts."""
    return _rendered(tokenizer, form, question, None)


def _rendered(tokenizer: Any, form: ChatFormat, question: str, answer: str | None) -> str:
    turns = [] if form.system is None else [{"role": "system", "content": form.system}]
    turns.append({"role": "user", "content": question})
    if answer is not None:
        turns.append({"role": "assistant", "content": answer})
    return render(tokenizer, turns, for_generation=answer is None)


def _ids(texts: list[str], tokenizer: Any) -> list[list[int]]:
    # The chat template has written all special tokens.
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    return ids
