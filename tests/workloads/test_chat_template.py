import sys
import threading

import pytest

from qsgd_ray.config import StudyError
from qsgd_ray.models.pretrained import load_tokenizer
from qsgd_ray.workloads import _chat_template as chat_template
from qsgd_ray.workloads._chat_template import render

pytest.importorskip("transformers")
TURNS = [{"role": "user", "content": "1+1?"}]
BAD = {
    "raises": ("{{ raise_exception('only tools') }}", "fails (TemplateError: only tools)"),
    "no syntax": ("{% for %}", "fails (TemplateSyntaxError: "),
    "no such name": ("{{ messages[0].content.nothing.more }}", "fails (UndefinedError: "),
    "unsafe": ("{{ ''.__class__.__mro__ }}", "fails (SecurityError: "),
    "arithmetic": ("{{ 1 / 0 }}", "fails (ZeroDivisionError: "),
    "types": ("{{ 'a' + 1 }}", "fails (TypeError: "),
    "values": ("{{ 'a' | int(base=99) + 'x' | tojson(indent='z') }}", "fails ("),
    "recursion": ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", "fails (RecursionError: "),
    "several, none by default": ({"tools": "{{ messages }}"}, "fails (ValueError: "),
    "a long reason": ("{{ raise_exception('no ' * 999) }}", "fails (TemplateError: no no"),
    "empty": ("{# nothing #}", "gives no text"),
    "blank": ("{{ '\\n' }}", "gives no text"),
    "writes much": ("{{ messages[0].content * 999999 }}", "gives 3,999,996 characters; allowed: at most 1,000,000"),
    "is long": ("{# " + "x" * 1_000_000 + " #}", "has 1,000,006 characters; allowed: at most 1,000,000"),
    "none": (None, "without a chat template; allowed: a model tuned to chat"),
}


def tokenizer_with(template):
    tokenizer = load_tokenizer("tiny")
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize(("template", "reason"), BAD.values(), ids=BAD)
def test_a_bad_template_is_one_line(template, reason):
    with pytest.raises(StudyError) as error:
        render(tokenizer_with(template), TURNS, for_generation=True)
    line = str(error.value)
    assert line.startswith("model: got a")
    assert reason in line
    assert "allowed: " in line
    assert "\n" not in line
    assert len(line) <= 300


def test_a_template_that_runs_for_ever_is_one_line_on_any_thread(monkeypatch):
    monkeypatch.setattr(chat_template, "MOST_STEPS", 300_000)
    forever = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    lines = []

    def attempt():
        with pytest.raises(StudyError, match="runs on after 300,000 steps") as error:
            render(tokenizer_with(forever), TURNS, for_generation=True)
        lines.append(str(error.value))

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join(60)
    attempt()
    assert len(lines) == 2


def test_a_good_template_needs_a_hundredth_of_the_steps_and_leaves_the_trace_as_it_was(monkeypatch):
    monkeypatch.setattr(chat_template, "MOST_STEPS", chat_template.MOST_STEPS // 100)
    before = sys.gettrace()
    text = render(load_tokenizer("tiny"), TURNS, for_generation=True)
    assert text == "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n"
    assert sys.gettrace() is before


def test_a_template_that_needs_a_package_is_one_line(monkeypatch):
    tokenizer = load_tokenizer("tiny")

    def apply_chat_template(*turns, **options):
        raise ImportError("apply_chat_template requires jinja2 to be installed.")

    monkeypatch.setattr(type(tokenizer), "apply_chat_template", apply_chat_template)
    with pytest.raises(StudyError, match="fails \\(ImportError: apply_chat_template requires jinja2"):
        render(tokenizer, TURNS, for_generation=True)
