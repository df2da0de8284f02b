"""Write docs/files.md: every file of the package with the first line of its docstring.

    python tools/file_index.py [--check]

`--check` writes nothing and exits with 1 where the index is not that of the files.
"""

from __future__ import annotations

import ast
import sys
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE, INDEX = ROOT / "qsgd_ray", ROOT / "docs" / "files.md"
HEAD = """# Files

Every file of the package and the first line of its docstring; `make format` writes this page. Files that begin with an
underscore are needed by their own folder alone.
"""


def index() -> str:
    """Return the page: a table a folder, in the order of the paths."""
    paths = sorted(PACKAGE.rglob("*.py"), key=lambda path: (path.parent, path.name))
    parts = [HEAD]
    for folder, files in groupby(paths, key=lambda path: path.parent):
        rows = [f"| `{path.name}` | {_first_line(path)} |" for path in files]
        parts.append("\n".join([f"## {folder.relative_to(ROOT)}/", "", "| file | |", "|---|---|", *rows, ""]))
    return "\n".join(parts)


def _first_line(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(text.split("\n\n")[0].split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def main(words: list[str]) -> int:
    """Write the index, or compare with it.

    Args:
        words: the command line; `--check` compares.

    Returns:
        1 where `--check` finds another page, else 0.
    """
    page = index()
    if words == ["--check"]:
        same = INDEX.exists() and INDEX.read_text() == page
        if not same:
            print("docs/files.md: not the index of these files; run make format")
        return int(not same)
    INDEX.write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
