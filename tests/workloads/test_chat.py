import pytest
import torch
from support.small_tasks import some_problems

from qsgd_ray.config import StudyError
from qsgd_ray.config.workload import ChatFormat
from qsgd_ray.models.pretrained import load_tokenizer
from qsgd_ray.workloads._chat import IGNORED, _prompt_text, encode, encode_prompts
from qsgd_ray.workloads._chat_template import DATE
from qsgd_ray.workloads._problem import Problem

pytest.importorskip("transformers")
PROBLEM = Problem("1+1?", "1+1=2\n#### 2", "2")
PROMPT = "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n"
TOKENIZER = load_tokenizer("tiny")


def texts(example):
    """All of it, and what is learned."""
    learned = [token for token, label in zip(example.ids.tolist(), example.labels.tolist(), strict=True) if label >= 0]
    return TOKENIZER.decode(example.ids), TOKENIZER.decode(learned)


def test_the_answer_and_the_end_of_the_turn_are_learned():
    (example,) = encode([PROBLEM], TOKENIZER, ChatFormat()).examples
    whole, learned = texts(example)
    assert whole == PROMPT + "1+1=2\n#### 2<|im_end|>"
    assert learned == "1+1=2\n#### 2<|im_end|>"
    assert torch.equal(example.labels[example.labels != IGNORED], example.ids[example.labels != IGNORED])


def test_all_but_the_first_token_is_learned_where_the_form_says_so():
    (example,) = encode([PROBLEM], TOKENIZER, ChatFormat(loss_on="all")).examples
    assert example.labels[0] == IGNORED
    assert torch.equal(example.labels[1:], example.ids[1:])


def test_training_starts_from_the_tokens_that_generation_starts_from():
    problems, form = some_problems(9), ChatFormat(system="Be brief.")
    prompts = encode_prompts([problem.question for problem in problems], TOKENIZER, form)
    for prompt, example in zip(prompts, encode(problems, TOKENIZER, form).examples, strict=True):
        n = len(prompt)
        assert example.ids[:n].tolist() == prompt
        assert (example.labels[:n] == IGNORED).all()
        assert (example.labels[n:] != IGNORED).all()


def test_a_system_message_stands_first():
    assert _prompt_text("1+1?", TOKENIZER, ChatFormat(system="Sum.")) == "<|im_start|>system\nSum.<|im_end|>\n" + PROMPT


def test_what_is_too_long_is_dropped_and_counted():
    problems = some_problems(9)
    lengths = encode(problems, TOKENIZER, ChatFormat()).lengths
    context = sorted(lengths)[5]
    encoded = encode(problems, TOKENIZER, ChatFormat(context=context))
    assert encoded.lengths == [length for length in lengths if length <= context]
    assert (encoded.n_dropped, encoded.n_truncated) == (9 - len(encoded.lengths), 0)


def test_what_is_too_long_is_cut_off_and_counted_and_dropped_without_any_answer():
    n = len(encode_prompts(["1+1?"], TOKENIZER, ChatFormat())[0])
    longer = Problem("1+1? " * 9, "#### 2", "2")
    encoded = encode([PROBLEM, longer], TOKENIZER, ChatFormat(context=n + 3, too_long="truncate"))
    assert [texts(example)[1] for example in encoded.examples] == ["1+1"]
    assert (encoded.n_dropped, encoded.n_truncated, encoded.n_loss_tokens) == (1, 1, 3)


def test_the_date_in_a_prompt_is_always_the_same():
    tokenizer = load_tokenizer("tiny")
    tokenizer.chat_template = (
        "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
        "Today: {{ date_string }}\n" + tokenizer.chat_template
    )
    assert _prompt_text("1+1?", tokenizer, ChatFormat()) == f"Today: {DATE}\n{PROMPT}"


def test_a_template_that_leaves_the_answer_out_is_refused():
    tokenizer = load_tokenizer("tiny")
    tokenizer.chat_template = "Answer {{ messages[0].content }}:"
    with pytest.raises(StudyError, match="leaves the answer out"):
        encode([PROBLEM], tokenizer, ChatFormat())


def test_a_template_that_changes_the_prompt_is_refused():
    tokenizer = load_tokenizer("tiny")
    tokenizer.chat_template = "{{ messages | length }}" + tokenizer.chat_template
    with pytest.raises(StudyError, match="changes the prompt once there is an answer"):
        encode([PROBLEM], tokenizer, ChatFormat())


def test_no_problems_are_no_examples():
    encoded = encode([], TOKENIZER, ChatFormat())
    assert (encoded.examples, encoded.lengths, encoded.n_loss_tokens) == ((), [], 0)
