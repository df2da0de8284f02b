"""Paths of the project's folders."""

from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
DOCS = ROOT / "docs"
STUDIES = ROOT / "studies"
