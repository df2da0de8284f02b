"""The documentation: its index is that of the files, its links lead somewhere, its studies are studies."""

import doctest
import importlib
import re
import subprocess
import sys

import pytest
from support.places import DOCS, ROOT

PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "CONTRIBUTING.md", ROOT / "README.md"])


def test_the_index_of_files_is_theirs():
    subprocess.run([sys.executable, ROOT / "tools" / "file_index.py", "--check"], check=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page):
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        assert link.startswith("https://") or (page.parent / link).exists(), f"{page}: {link}"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "findings_history.md"], ids=lambda page: page.name
)
def test_every_file_that_is_named_is_there(page):
    for name in re.findall(r"`((?:qsgd_ray|tests|docs|studies|cluster|tools)/[\w/*.-]+)`", page.read_text()):
        assert list(ROOT.glob(name.rstrip("/"))), f"{page}: {name}"


WITH_EXAMPLES = [path for path in sorted((ROOT / "qsgd_ray").rglob("*.py")) if ">>> " in path.read_text()]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_examples_of_docstrings_run_as_they_are_printed(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "studies").symlink_to(ROOT / "studies")  # examples read the shipped studies
    words = path.relative_to(ROOT).with_suffix("").parts
    module = importlib.import_module(".".join(words[:-1] if words[-1] == "__init__" else words))
    assert doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).failed == 0


PAGES = ["studies", "claims", "optimizers", "optimizer", "circuits", "any_circuit", "language_models", "judge"]


@pytest.mark.parametrize("name", PAGES)
def test_the_code_of_a_page_runs(name, tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```$", (DOCS / f"{name}.md").read_text(), flags=re.DOTALL | re.MULTILINE)
    (tmp_path / "page.py").write_text("\n".join(blocks))
    subprocess.run([sys.executable, "page.py"], cwd=tmp_path, check=True, timeout=200)
