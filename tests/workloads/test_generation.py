import logging

import pytest
import torch
from support.small_tasks import some_problems

from qsgd_ray.config import StudyError
from qsgd_ray.config.workload import ChatFormat
from qsgd_ray.models.pretrained import load_pretrained
from qsgd_ray.workloads._chat import encode, encode_prompts
from qsgd_ray.workloads._generation import _end_tokens, generate_answers
from qsgd_ray.workloads._problem import Problem
from qsgd_ray.workloads._token_batches import TokenBatches
from qsgd_ray.workloads._token_loss import backward_step

pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("one_thread")
FORM = ChatFormat()


@pytest.fixture(scope="module")
def trained(one_thread):
    """The tiny model after it has learned three problems by heart, its tokenizer and the problems."""
    model, tokenizer = load_pretrained("tiny", seed=1)
    problems = [Problem("a?", "so #### 7", "7"), Problem("and b?", "#### 1,250.0", "1250"), Problem("c?", "x", "3")]
    examples = encode(problems, tokenizer, FORM).examples
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for epoch in range(120):
        for step in TokenBatches(examples, batch_size=3, pad_id=tokenizer.pad_token_id).steps(0, epoch):
            optimizer.zero_grad()
            backward_step(model, step)
            optimizer.step()
    return model, tokenizer, problems


def naive(model, tokenizer, problem, max_new_tokens):
    """Without padding, without a cache, one token at a time."""
    ids = torch.tensor(encode_prompts([problem.question], tokenizer, FORM))
    start = ids.shape[1]
    with torch.no_grad():
        while ids.shape[1] < start + max_new_tokens and tokenizer.eos_token_id not in ids[0, start:]:
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(dim=-1)], dim=1)
    return ids[0, start:].tolist()


def test_what_was_learned_is_written_read_and_judged(trained):
    model, tokenizer, problems = trained
    answers = generate_answers(model, tokenizer, problems, FORM, max_new_tokens=20)
    assert [answer.text for answer in answers] == ["so #### 7", "#### 1,250.0", "x"]
    assert [answer.number for answer in answers] == ["7", "1250", None]
    assert [answer.correct for answer in answers] == [True, True, False]
    assert [answer.n_tokens for answer in answers] == [10, 13, 2]
    assert all(answer.ended for answer in answers)
    other = [Problem(problem.question, "#### 8", "8") for problem in problems]
    assert not any(a.correct for a in generate_answers(model, tokenizer, other, FORM, max_new_tokens=20))


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_batches_with_padding_and_cache_write_what_one_at_a_time_writes(batch_size):
    model, tokenizer = load_pretrained("tiny", seed=3)
    model.double().eval()
    problems = some_problems(7)
    answers = generate_answers(model, tokenizer, problems, FORM, max_new_tokens=12, batch_size=batch_size)
    for index, (answer, problem) in enumerate(zip(answers, problems, strict=True)):
        written = naive(model, tokenizer, problem, 12)
        assert answer.index == index
        assert answer.text == tokenizer.decode(written, skip_special_tokens=True).strip()
        assert answer.n_tokens == len(written)
        assert answer.ended == (written[-1] == tokenizer.eos_token_id)


def test_the_answers_of_the_ranks_are_those_of_one_process(trained):
    model, tokenizer, problems = trained
    options = {"max_new_tokens": 20, "batch_size": 1}
    whole = generate_answers(model, tokenizer, problems, FORM, **options)
    shards = [generate_answers(model, tokenizer, problems, FORM, rank=r, world_size=4, **options) for r in range(4)]
    assert [len(shard) for shard in shards] == [1, 1, 1, 0]
    assert sorted((answer for shard in shards for answer in shard), key=lambda answer: answer.index) == whole


def test_what_reaches_the_limit_is_cut_off(trained):
    model, tokenizer, problems = trained
    first = generate_answers(model, tokenizer, problems[:1], FORM, max_new_tokens=4)[0]
    assert (first.text, first.ended, first.n_tokens, first.number) == ("so #", False, 4, None)


def test_the_model_s_own_settings_do_not_bend_greedy_answers(trained, caplog):
    model, tokenizer, problems = trained
    plain = generate_answers(model, tokenizer, problems, FORM, max_new_tokens=20)
    original, settings = model.generation_config, type(model.generation_config)
    model.generation_config = settings(
        do_sample=True,
        temperature=0.6,
        top_p=0.1,
        top_k=2,
        repetition_penalty=9.0,
        no_repeat_ngram_size=1,
    )
    try:
        with caplog.at_level(logging.WARNING, logger="transformers"):
            assert generate_answers(model, tokenizer, problems, FORM, max_new_tokens=20) == plain
    finally:
        model.generation_config = original
    assert not caplog.records


def test_every_end_that_the_model_names_ends_an_answer(trained):
    model, tokenizer, problems = trained
    original = model.generation_config.eos_token_id
    seven = tokenizer.convert_tokens_to_ids("7")
    model.generation_config.eos_token_id = [original, seven]
    try:
        assert _end_tokens(model, tokenizer) == sorted({original, seven})
        answer = generate_answers(model, tokenizer, problems[:1], FORM, max_new_tokens=20)[0]
    finally:
        model.generation_config.eos_token_id = original
    assert (answer.text, answer.ended) == ("so #### 7", True)


def test_the_mode_is_put_back(trained):
    model, tokenizer, problems = trained
    generate_answers(model.train(), tokenizer, problems[:1], FORM, max_new_tokens=2)
    assert model.training


def test_a_rank_that_is_none_is_refused(trained):
    model, tokenizer, problems = trained
    with pytest.raises(StudyError, match="rank: got 2 of world_size 2; allowed: 0 <= rank < world_size"):
        generate_answers(model, tokenizer, problems, FORM, rank=2, world_size=2)
