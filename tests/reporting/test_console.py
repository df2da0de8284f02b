"""A console prints every text as it is, on a terminal of any encoding."""

from __future__ import annotations

import ast
import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text
from support.places import ROOT

from qsgd_ray.reporting.console import degrade_output, plain_console


def written(encoding: str, *parts: object) -> str:
    """Return what a console writes to a stream of this encoding that refuses what it lacks."""
    raw = io.BytesIO()
    stream, before = io.TextIOWrapper(raw, encoding=encoding, errors="strict", newline=""), sys.stdout
    sys.stdout = stream
    try:
        console = plain_console()
        for part in parts:
            console.print(part, soft_wrap=True)
    finally:
        sys.stdout = before
    stream.flush()
    return raw.getvalue().decode(encoding)


@given(st.text(st.characters(categories=("L", "M", "N", "P", "S", "Cs")), max_size=60))
def test_any_text_is_printed_in_any_encoding(text):
    for encoding in ("ascii", "latin-1", "cp437"):
        assert written(encoding, text).endswith("\n")
    assert written("utf-8", text) == "".join("?" if "\ud800" <= sign <= "\udfff" else sign for sign in text) + "\n"


@pytest.mark.parametrize(
    "text", ["Is [/b] ok?", "[bold]x[/bold]", "a :smile: b", "[link=file:///x]y[/link]", "/tmp/[a]/b"]
)
def test_brackets_and_colons_are_text(text):
    assert written("utf-8", text) == f"{text}\n"
    table = Table(title=text, box=None)
    table.add_column(text, no_wrap=True)
    table.add_row(text)
    assert written("utf-8", table).count(text) == 3


def test_signs_that_are_missing_are_told_in_others():
    assert written("ascii", "−2.5 ± 1, λ = 3 × π, |<Z>|²") == "-2.5 +/- 1, lambda = 3 x pi, |<Z>|^2\n"


def test_prints_without_a_console_are_degraded_too(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", errors="strict"))
    degrade_output()
    print("λ ≤ 3 and 雪")
    sys.stdout.flush()
    assert raw.getvalue() == b"lambda <= 3 and ?\n"


def test_no_part_of_the_package_makes_a_console_of_its_own():
    makers = [
        path.relative_to(ROOT / "qsgd_ray").as_posix()
        for path in sorted((ROOT / "qsgd_ray").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("Console", "_PrintableConsole")
    ]
    assert makers == ["reporting/console.py"]


def test_control_characters_are_shown_and_the_consoles_own_are_sent():
    table = Table("a heading with room")
    table.add_row(Text("\x1b[2J and \x9b1m", style="bold"))
    told = written("utf-8", "a\x1b]0;title\x07b\u202ec d\ne", table)
    assert told.startswith("a\\x1b]0;titleb\\u202ec d\ne\n")
    assert "\\x1b[2J" in told
    assert "\\x9b1m" in told
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & {*told}
