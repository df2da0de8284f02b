"""Answers that a model writes: held-out problems come in; greedy answers and their numbers go out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from qsgd_ray.config.workload import ChatFormat
from qsgd_ray.workloads._chat import encode_prompts
from qsgd_ray.workloads._problem import Problem, final_number
from qsgd_ray.workloads.protocol import check_rank


@dataclass(frozen=True)
class Answer:
    """What a model wrote to problem `place` (of all, from 0).

    `number` None: there is none after a `####`. `ended`: the model ended its turn; False: it was cut off.
    """

    place: int
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
    """This rank's answers (problems r::world_size), in the order of the problems.

    Greedy, without dropout, whatever the model's own generation settings say; `model` is the bare transformers or peft
    model, and its mode is put back. Prompts are sorted by length, padded on the left and share a key-value cache; in a
    batch, logits differ in their last bits from those of a prompt alone, which decides between two equally likely
    tokens. StudyError: a wrong rank, or as `encode_prompts`.
    """
    check_rank(rank, world_size)
    places = list(range(len(problems)))[rank::world_size]
    prompts = dict(zip(places, encode_prompts([problems[n].question for n in places], tokenizer, form), strict=True))
    by_length = sorted(places, key=lambda place: len(prompts[place]))
    stop = end_tokens(model, tokenizer)
    answers: dict[int, Answer] = {}
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(by_length), batch_size):
            chosen = by_length[start : start + batch_size]
            written = _greedy(model, [prompts[n] for n in chosen], tokenizer.pad_token_id, stop, max_new_tokens)
            for place, ids in zip(chosen, written, strict=True):
                answers[place] = _answer(place, ids, stop, tokenizer, problems[place])
    finally:
        model.train(was_training)
    return [answers[place] for place in places]


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """What ends a turn: the tokenizer's end of text and all that the model's generation settings name."""
    named = model.generation_config.eos_token_id
    ids = {tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])}
    return sorted(ids - {None})


def _greedy(model: Any, prompts: list[list[int]], pad_id: int, stop: list[int], max_new_tokens: int) -> list[list[int]]:
    """What is written behind each prompt, up to and with the first token of `stop`."""
    from transformers import GenerationConfig

    longest = max(map(len, prompts))
    ids = torch.tensor([[pad_id] * (longest - len(prompt)) + prompt for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    # All that would bend greedy decoding is said, as what is not said comes from the model's own settings.
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
        eos_token_id=stop,
        pad_token_id=pad_id,
    )
    with torch.no_grad():
        whole = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
    return [_ended(row, stop) for row in whole[:, longest:].tolist()]


def _ended(ids: list[int], stop: list[int]) -> list[int]:
    """Behind the end of a turn there is only padding, which may be the same token."""
    end = next((n for n, token in enumerate(ids) if token in stop), len(ids) - 1)
    return ids[: end + 1]


def _answer(place: int, ids: list[int], stop: list[int], tokenizer: Any, problem: Problem) -> Answer:
    text = tokenizer.decode(ids, skip_special_tokens=True).strip()
    number = final_number(text)
    ended = ids[-1] in stop
    return Answer(place, text, number, number is not None and number == problem.number, len(ids), ended)
