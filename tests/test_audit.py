"""Findings of bandit that are let pass have a rule and a reason at their line."""

import re

import pytest
from support.places import ROOT

# What users run; tools/ is for those who change the code.
FOLDERS = ("qsgd_ray", "studies", "cluster")
LINES = [
    (path, line)
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("*.py"))
    for line in path.read_text(encoding="utf-8").splitlines()
    if "# nosec" in line
]


def test_each_finding_that_is_let_pass_names_its_rule_and_a_reason():
    assert LINES
    for path, line in LINES:
        assert re.search(r"# nosec B\d{3}(, B\d{3})* # \w.{4,}$", line), (path, line)


def test_bandit_finds_nothing():
    pytest.importorskip("bandit")
    from bandit.core.config import BanditConfig
    from bandit.core.manager import BanditManager

    manager = BanditManager(BanditConfig(str(ROOT / "pyproject.toml")), "file", profile={"exclude": {"B101", "B404"}})
    manager.discover_files([str(ROOT / folder) for folder in FOLDERS], recursive=True)
    manager.run_tests()
    assert [str(issue) for issue in manager.get_issue_list()] == []
