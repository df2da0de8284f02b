"""Code of a user's class: the class in; the files that it needs and a hash of what they say out.

The hash is over syntax trees without comments and docstrings: of the module that holds the class, of the modules beside
it that are imported from there, and over the versions of the installed packages that all of them name. Of the class's
own module, which may be a study file, only the statements count that the class can reach, so that other seeds, arms
or margins in the same file are no other code.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import json
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

# Names of this package are no part of the code: its own rows keep their names from version to version, too.
_OWN = "qsgd_ray"
# Ray's folder of py_modules on a worker (ray/_private/runtime_env/py_modules.py, 2.60).
_BROUGHT = "py_modules_files"
_IN_A_FILE = (
    "a class in a file that can be imported (in a notebook: %%writefile tasks.py as the first line of its cell, then "
    "from tasks import it)"
)
_OWN_NAME = "a class in a file of a name that no other module has, such as my_study.py"
# Code that looks names up by text may reach any statement.
_LOOKUPS = {"globals", "eval", "exec", "__import__", "import_module"}


class CodeError(ValueError):
    """Code that cannot be read; the text says what is allowed."""


@dataclass(frozen=True)
class Code:
    """Code of a class.

    Attributes:
        digest: ten hexadecimal digits, equal for equal code and equal versions.
        root: the folder from which the class's module is imported.
        files: the files that it needs and that no installed package brings, below `root`.
        packages: versions of the installed packages that it names, by name; None: no version is known.
    """

    digest: str
    root: Path
    files: tuple[Path, ...]
    packages: tuple[tuple[str, str | None], ...]


def is_shipped(kind: type) -> bool:
    """Return True for a class of this package."""
    return kind.__module__.partition(".")[0] == _OWN


def code_of_shipped(kind: type, packages: Iterable[str]) -> Code:
    """Return the code of a class of this package: its name, which says what it does, and versions of packages.

    Args:
        kind: the class.
        packages: those on which the bits of its trials depend.
    """
    versions = tuple((name, _version(name)) for name in sorted(packages))
    digest = hashlib.sha256(json.dumps([kind.__name__, versions]).encode()).hexdigest()[:10]
    return Code(digest, Path(__file__).resolve().parents[2], (), versions)


def code_of(kind: type, packages: Iterable[str] = ()) -> Code:
    """Return the code of a class.

    Args:
        kind: a class at the top of a module that has a file.
        packages: those whose versions count whether or not its module names them.

    Raises:
        CodeError: it is defined elsewhere, or a file cannot be read.
    """
    module = sys.modules.get(kind.__module__)
    file = getattr(module, "__file__", None)
    if file is None or not file.endswith(".py"):
        raise CodeError(f"{_IN_A_FILE}; got {kind.__name__} of {kind.__module__}")
    if kind.__module__ == "__main__":  # a script whose name is a module's already, or no name
        raise CodeError(f"{_OWN_NAME}; got {file}")
    if not all(word.isidentifier() for word in kind.__module__.split(".")):
        raise CodeError(f"{_OWN_NAME}; got {file}")
    if kind.__qualname__ != kind.__name__:
        raise CodeError(f"a class at the top of its module; got {kind.__qualname__}")
    path = Path(file).resolve()
    root = _root_of(kind.__module__, path)
    names = _Names(root, kind.__module__)
    trees = _with_imported(names, path, _reachable(_parsed(path), kind.__name__, path))
    versions = tuple((name, _version(name)) for name in sorted({*names.packages, *packages}))
    texts = {names.relative(at): [ast.unparse(one) for one in trees[at]] for at in sorted(trees)}
    content = json.dumps([kind.__name__, texts, versions], sort_keys=True)
    files: Iterable[Path] = ()
    if not is_installed(path):  # importing the module runs all of it
        files = sorted(_with_imported(_Names(root, kind.__module__), path, _parsed(path).body))
    return Code(hashlib.sha256(content.encode()).hexdigest()[:10], root, tuple(files), versions)


def _with_imported(names: _Names, path: Path, statements: list[ast.stmt]) -> dict[Path, list[ast.stmt]]:
    """Return statements of a module, and those of all modules beside it that they import, by file.

    Args:
        names: tells files from packages, and notes the packages.
        path: the module's file.
        statements: those of it that count.
    """
    trees, waiting = {path: statements}, [path]
    while waiting:
        at = waiting.pop()
        found = {*names.files(trees[at], at), *(names.own_packages() if at == path else ())}
        for file in sorted(found - trees.keys()):
            trees[file] = _without_docstrings(_parsed(file)).body
            waiting.append(file)
    return trees


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), str(path))
    except (OSError, SyntaxError, ValueError) as error:
        raise CodeError(f"code that can be read; of {path} {str(error) or type(error).__name__}") from None


def _root_of(module: str, path: Path) -> Path:
    """Return the folder that a module's dotted name starts from; the file's own folder where the two do not agree."""
    words = module.split(".")
    parts = path.with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    if [*parts[-len(words) :]] == words:
        return Path(*parts[: -len(words)])
    return path.parent


def is_installed(path: Path) -> bool:
    """Return True for a file of an installed package or of Python itself."""
    places = {sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")}
    return any(path.is_relative_to(Path(place).resolve()) for place in places if place) or bool(
        {"site-packages", "dist-packages"} & {*path.parts}
    )


class _Names:
    """Names that modules import, told apart: files beside the class's module, and installed packages."""

    def __init__(self, root: Path, module: str) -> None:
        self.root = root
        # Ray unpacks each of py_modules into a folder of its own; they lay beside each other where they came from.
        brought = [Path(place).resolve() for place in sys.path if Path(place).parent.name == _BROUGHT]
        self._roots = (root, *(place for place in brought if root.parent.name == _BROUGHT and place != root))
        self.packages: set[str] = set()
        self._module, self._top = module, module.partition(".")[0]
        # Beside an installed module lie all others that are installed; of them only its own package is its code.
        self._only_own = is_installed(root / "any")

    def relative(self, path: Path) -> str:
        """Return a file's path below its root, which is the same on every machine."""
        return str(path.relative_to(self._root_of(path)))

    def _root_of(self, path: Path) -> Path:
        return next((root for root in self._roots if path.is_relative_to(root)), self.root)

    def _found(self, name: str, inner_only: bool = False) -> list[Path]:
        """Return the files of a module beside the class's, after those of the packages that it lies in."""
        of_roots = ([*_module_files(root, name, inner_only)] for root in self._roots)
        return next((files for files in of_roots if files), [])

    def own_packages(self) -> Iterator[Path]:
        """Yield the files of the packages that the class's module lies in."""
        yield from self._found(self._module)

    def files(self, statements: Iterable[ast.stmt], path: Path) -> Iterator[Path]:
        """Yield the files beside the class's module that statements import, and note the packages.

        Args:
            statements: of a module.
            path: the module's file.
        """
        for name in _imports(statements, path, self._root_of(path), self._found):
            top = name.partition(".")[0]
            if top in sys.stdlib_module_names or top == _OWN:
                continue
            found = [] if self._only_own and top != self._top else [*self._found(name)]
            if not found:
                self.packages.add(top)
            yield from found


def _imports(
    statements: Iterable[ast.stmt], path: Path, root: Path, found: Callable[[str, bool], list[Path]]
) -> Iterator[str]:
    """Yield the dotted names of all modules that statements may import; of `from a import b` both a and a.b."""
    for node in (node for statement in statements for node in ast.walk(statement)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                folder = path.parent
                for _ in range(node.level - 1):
                    folder = folder.parent
                if not folder.is_relative_to(root):
                    continue
                base = ".".join([*folder.relative_to(root).parts, *filter(None, [node.module])])
            yield base
            names = (f"{base}.{alias.name}".lstrip(".") for alias in node.names)
            yield from (name for name in names if found(name, True))


def _module_files(root: Path, name: str, inner_only: bool = False) -> Iterator[Path]:
    """Yield the file of a module below a folder, after those of the packages that it lies in.

    Args:
        root: the folder.
        name: the module's dotted name.
        inner_only: leave out the packages that it lies in.
    """
    at = root
    *packages, last = name.split(".")
    for word in packages:
        at = at / word
        if not inner_only and (init := at / "__init__.py").is_file():
            yield init.resolve()
    for file in (at / f"{last}.py", at / last / "__init__.py"):
        if last and file.is_file():
            yield file.resolve()


@lru_cache(maxsize=256)
def _version(package: str) -> str | None:
    """Return the version of the package that brings a module, without the part that names a build."""
    try:
        found = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        brings = importlib.metadata.packages_distributions().get(package)
        if not brings:
            return None
        found = importlib.metadata.version(sorted(brings)[0])
    return found.partition("+")[0]


def _reachable(tree: ast.Module, name: str, path: Path) -> list[ast.stmt]:
    """Return the statements of a module that a class of it can reach, in their order.

    Statements that may have an effect beyond the names that they bind always count.

    Args:
        tree: the module.
        name: the class's.
        path: the module's file, for messages.
    """
    statements = [one for one in _without_docstrings(tree).body if not _is_main_guard(one)]
    bound = [_bound_names(one) for one in statements]
    reached = {index for index, names in enumerate(bound) if not names or name in names}
    if not any(name in names for names in bound):
        raise CodeError(f"a class that its module states; {path} has no {name}")
    waiting = [*reached]
    while waiting:
        words = _words(statements[waiting.pop()])
        if words & _LOOKUPS:
            return statements
        more = {index for index, names in enumerate(bound) if names & words} - reached
        reached |= more
        waiting += more
    return [statements[index] for index in sorted(reached)]


def _is_main_guard(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and "__name__" in _words(statement.test)


def _bound_names(statement: ast.stmt) -> set[str]:
    """Return the names that a statement binds where it can do nothing else; none for any other statement."""
    if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        names = {alias.asname or alias.name.partition(".")[0] for alias in statement.names}
        return set() if "*" in names and _is_foreign(statement) else names
    if isinstance(statement, ast.AnnAssign | ast.AugAssign):
        return _targets([statement.target])
    return _targets(statement.targets) if isinstance(statement, ast.Assign) else set()


def _is_foreign(statement: ast.stmt) -> bool:
    """Return True for an import from another package than this one, whose star brings settings alone."""
    return not (isinstance(statement, ast.ImportFrom) and (statement.module or "").partition(".")[0] == _OWN)


def _targets(targets: Iterable[ast.expr]) -> set[str]:
    """Return the names that an assignment binds; none where one of its targets is no name."""
    names: set[str] = set()
    for target in targets:
        parts = target.elts if isinstance(target, ast.Tuple | ast.List) else [target]
        if not all(isinstance(part, ast.Name) for part in parts):
            return set()
        names |= {part.id for part in parts if isinstance(part, ast.Name)}
    return names


def _words(node: ast.AST) -> set[str]:
    """Return the names that a piece of code uses, those that annotations and look-ups give as texts among them."""
    words = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    for one in ast.walk(node):
        if isinstance(one, ast.Attribute) and (one.attr == "import_module" or ast.unparse(one) == "sys.modules"):
            words.add("import_module")
        elif isinstance(one, ast.Constant) and isinstance(one.value, str):
            words |= {one.value} if one.value.isidentifier() else set()
    return words


def _without_docstrings(tree: ast.Module) -> ast.Module:
    """Return a syntax tree, changed in place, in which no module, class or function has a docstring."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and body:
            first = body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                body[:] = body[1:] or ([] if isinstance(node, ast.Module) else [ast.Pass()])
    return tree
