"""docs/circuit_path.md names files and functions that exist."""

import ast
import re

import pytest
from support.places import ROOT

PAGE = (ROOT / "docs" / "circuit_path.md").read_text()
STEPS = re.findall(r"\| `([\w/]+\.py)` \| `([\w.]+)` \|", PAGE)


def defined(path) -> set[str]:
    """Names of a file's classes and functions, methods as Class.method."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
            names |= {f"{node.name}.{inner.name}" for inner in ast.walk(node) if isinstance(inner, ast.FunctionDef)}
    return names


def test_the_page_has_its_steps():
    assert len(STEPS) > 12


@pytest.mark.parametrize(("file", "function"), STEPS)
def test_a_step_is_where_the_page_says(file, function):
    assert function in defined(ROOT / "qsgd_ray" / file)


@pytest.mark.parametrize("file", sorted(set(re.findall(r"`((?:tests/)?[\w/]+\.py)`", PAGE))))
def test_a_file_is_there(file):
    assert (ROOT / file).exists() or (ROOT / "qsgd_ray" / file).exists()
