"""Refuse docstrings that do not say plainly, verb first, what the code does.

    python tools/lint_docstrings.py [FILE_OR_FOLDER ...]

Two rules beside those of ruff (D401, a function's first line is in the imperative; D417, no argument is left out):

1. No docstring opens with What, Who, Whether, Of, How and the like, and none opens with a question.
2. A public function of a public module that takes more than one argument has an `Args:` list that names each of them.

Print one line a fault, as `file:line: name: reason`, and exit with 1 where there is any.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

FOLDERS = ("qsgd_ray", "tests/support", "studies", "tools", "cluster")
FORBIDDEN = {"What", "Who", "Whoever", "Whom", "Whose", "Whether", "Of", "How", "Which", "Why", "Where", "When", "That"}
NOUN_ALLOWED = {"property", "cached_property"}

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = ast.Module | ast.ClassDef | Function


def faults(path: Path) -> Iterator[str]:
    """Yield one line for each fault of a file.

    Args:
        path: a Python file. Files and classes whose name begins with an underscore need no argument lists.
    """
    tree = ast.parse(path.read_text())
    public_module = not any(part.startswith("_") and part != "__init__.py" for part in path.parts)
    # A command's arguments say in their annotations what they are; its docstring is the command's help.
    lists = path.parts[0] == "qsgd_ray" and "commands" not in path.parts
    yield from _faults_of(tree, path, "module", public=public_module, in_package=lists)


def _faults_of(node: Documented, path: Path, name: str, *, public: bool, in_package: bool) -> Iterator[str]:
    text = ast.get_docstring(node)
    line = 1 if isinstance(node, ast.Module) else node.lineno
    if text:
        yield from (f"{path}:{line}: {name}: {reason}" for reason in _opening(text))
    if public and in_package and isinstance(node, Function) and not _is_overload(node):
        yield from (f"{path}:{line}: {name}: {reason}" for reason in _arguments(node, text or ""))
    if isinstance(node, Function):
        return
    for child in node.body:
        if isinstance(child, ast.ClassDef | Function):
            yield from _faults_of(
                child, path, child.name, public=public and not child.name.startswith("_"), in_package=in_package
            )


def _opening(text: str) -> Iterator[str]:
    first = re.match(r"[A-Za-z']+", text)
    word = first[0] if first else ""
    if word in FORBIDDEN:
        yield f"opens with {word!r}; say what it does, verb first"
    sentence = re.split(r"(?<=[.?!])\s", text, maxsplit=1)[0]
    if sentence.endswith("?"):
        yield "opens with a question; say what it does"


def _arguments(node: Function, text: str) -> Iterator[str]:
    """Yield a reason where a public function of several arguments does not name them; protocols' bodies count too."""
    if _is_property(node) or node.name.startswith("__"):
        return
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    names = [argument.arg for argument in arguments if argument.arg not in ("self", "cls")]
    if len(names) < 2 or not text:
        return
    if "Args:" not in text:
        yield f"takes {len(names)} arguments and has no Args: list"
        return
    listed = text.split("Args:", 1)[1]
    missing = [name for name in names if not re.search(rf"\b{re.escape(name)}\b", listed)]
    if missing:
        yield f"Args: lacks {', '.join(missing)}"


def _is_property(node: Function) -> bool:
    words = {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}
    return bool(words & NOUN_ALLOWED) or any(word in ("setter", "fixture") for word in words)


def _is_overload(node: Function) -> bool:
    return any(ast.unparse(decorator).endswith("overload") for decorator in node.decorator_list)


def _files(words: list[str]) -> Iterator[Path]:
    for word in words or FOLDERS:
        path = Path(word)
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def main(words: list[str]) -> int:
    """Print the faults of the files and folders named, or of the whole project.

    Args:
        words: paths relative to the project's root; none: `FOLDERS`.

    Returns:
        1 where there are faults, else 0.
    """
    found = [fault for path in _files(words) for fault in faults(path)]
    print(*found, sep="\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
