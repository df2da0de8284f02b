"""Generated answers: held-out problems come in; greedy answers and their numbers go out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from qsgd_ray.config.workload import ChatFormat
from qsgd_ray.workloads._chat import encode_prompts
from qsgd_ray.workloads._final_number import final_number
from qsgd_ray.workloads._problem import Problem
from qsgd_ray.workloads.protocol import check_rank


@dataclass(frozen=True)
class Answer:
    """The answer that a model generated to one problem.

    Attributes:
        index: number of the problem among all, from 0.
        text: the answer without special tokens.
        number: the number behind its `####`, as `final_number` writes it; None: there is none.
        correct: True where that is the problem's number.
        n_tokens: tokens generated, with the end of the turn.
        ended: True where the model ended its turn; False: it was cut off.
    """

    index: int
    text: str
    number: str | None
    correct: bool
    n_tokens: int
    ended: bool


def generate_answers(
    model: Any,
    tokenizer: Any,
    problems: Sequence[Problem],
    form: ChatFormat,
    *,
    max_new_tokens: int = 256,
    batch_size: int = 16,
    rank: int = 0,
    world_size: int = 1,
) -> list[Answer]:
    """Generate this rank's answers (problems rank::world_size), in the order of the problems.

    Decoding is greedy and without dropout, whatever the model's own generation settings are; the model's mode is put
    back. Prompts are sorted by length, padded on the left, and share a key-value cache. In a batch, logits differ in
    their last bits from those of a prompt alone, which decides between two equally likely tokens.

    Args:
        model: the bare transformers or peft model.
        tokenizer: its tokenizer.
        problems: all problems.
        form: how a question becomes a prompt.
        max_new_tokens: most tokens of an answer.
        batch_size: prompts that are answered together.
        rank: this rank, 0 <= rank < world_size.
        world_size: ranks that generate together.

    Raises:
        StudyError: a rank that does not exist, or as `encode_prompts`.
    """
    check_rank(rank, world_size)
    indices = list(range(len(problems)))[rank::world_size]
    prompts = dict(zip(indices, encode_prompts([problems[n].question for n in indices], tokenizer, form), strict=True))
    by_length = sorted(indices, key=lambda index: len(prompts[index]))
    end_ids = _end_tokens(model, tokenizer)
    answers: dict[int, Answer] = {}
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(by_length), batch_size):
            chosen = by_length[start : start + batch_size]
            generated = _greedy(model, [prompts[n] for n in chosen], tokenizer.pad_token_id, end_ids, max_new_tokens)
            for index, ids in zip(chosen, generated, strict=True):
                answers[index] = _answer(index, ids, end_ids, tokenizer, problems[index])
    finally:
        model.train(was_training)
    return [answers[index] for index in indices]


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Return the tokens that end a turn: the tokenizer's end of text and those in the model's generation settings."""
    named = model.generation_config.eos_token_id
    ids = {tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])}
    return sorted(ids - {None})


def _greedy(
    model: Any, prompts: list[list[int]], pad_id: int, end_ids: list[int], max_new_tokens: int
) -> list[list[int]]:
    """Return the tokens generated behind each prompt, up to and with the first that ends a turn."""
    from transformers import GenerationConfig

    longest = max(map(len, prompts))
    ids = torch.tensor([[pad_id] * (longest - len(prompt)) + prompt for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    # Every setting that would bend greedy decoding is given: those left out would come from the model's own settings.
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        temperature=1.0,
        top_p=1.0,
        top_k=50,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        use_cache=True,
        eos_token_id=end_ids,
        pad_token_id=pad_id,
    )
    with torch.no_grad():
        sequences = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
    return [_cut_padding(row, end_ids) for row in sequences[:, longest:].tolist()]


def _cut_padding(ids: list[int], end_ids: list[int]) -> list[int]:
    """Cut off the padding behind the end of a turn; its token may be the same as the end's."""
    end = next((n for n, token in enumerate(ids) if token in end_ids), len(ids) - 1)
    return ids[: end + 1]


def _answer(index: int, ids: list[int], end_ids: list[int], tokenizer: Any, problem: Problem) -> Answer:
    text = tokenizer.decode(ids, skip_special_tokens=True).strip()
    number = final_number(text)
    ended = ids[-1] in end_ids
    return Answer(index, text, number, number is not None and number == problem.number, len(ids), ended)
