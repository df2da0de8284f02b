"""Write docs/files.md: every file of the package with the first line of its docstring.

    python tools/file_index.py [--check | --counts]

`--check` writes nothing and exits with 1 where the index is not that of the files. `--counts` prints how many lines are
docstring or comment, and how many names are public.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
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


def counts() -> str:
    """Return one line: files, lines that are not empty, those of docstrings and comments, and public names."""
    paths = sorted(PACKAGE.rglob("*.py"))
    lines = words = names = 0
    for path in paths:
        text = path.read_text()
        tree = ast.parse(text)
        numbers = {
            token.start[0]
            for token in tokenize.generate_tokens(io.StringIO(text).readline)
            if token.type == tokenize.COMMENT
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
                numbers |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
        full = [number for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        lines += len(full)
        words += len(numbers & set(full))
        names += len(_public_names(tree)) if not path.name.startswith("_") else 0
    share = 100 * words / lines
    return f"{len(paths)} files, {lines:,} lines, {share:.1f} in 100 docstring or comment, {names} public names"


def _public_names(tree: ast.Module) -> set[str]:
    names = {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def main(words: list[str]) -> int:
    """Write the index, compare with it, or print counts.

    Args:
        words: the command line; `--check` compares, `--counts` counts.

    Returns:
        1 where `--check` finds another page, else 0.
    """
    if words == ["--counts"]:
        print(counts())
        return 0
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
