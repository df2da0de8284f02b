"""The house: imports run strictly downwards, the mathematics never imports Ray, importing does nothing."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from support.places import ROOT, TESTS

PACKAGE = ROOT / "qsgd_ray"
# From the ground up: a room may use every room before it, and its own files without a cycle.
ROOMS = (
    "outcome",
    "random_keys",
    "paths",
    "config",
    "native",
    "storage",
    "results",
    "circuits",
    "analysis",
    "models",
    "reporting",
    "scores",
    "optimizer",
    "pool",
    "workloads",
    "training",
    "execution",
    "tracking",
    "search",
    "bench",
    "limits",
    "study",
    "commands",
    "cli",
)
WITH_RAY = {"pool", "execution", "search", "bench"}
MOST_FILES_IN_THE_ROOT = 6
MOST_LINES = 350


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name below it; the package itself is the empty name."""

    def name(path: Path) -> str:
        words = path.relative_to(PACKAGE).with_suffix("").parts
        return ".".join(words[:-1] if words[-1] == "__init__" else words)

    return {name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


MODULES = modules()


def imported(path: Path) -> set[str]:
    """Every dotted name that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def used(module: str) -> set[str]:
    """The modules of the package that a module imports; the more exact name where a package and its file are meant."""
    names = {name.removeprefix("qsgd_ray").lstrip(".") for name in imported(MODULES[module]) if _is_ours(name)}
    known = {name for name in names if name in MODULES and name}
    return {name for name in known if not any(other.startswith(f"{name}.") for other in known)} - {module}


def _is_ours(name: str) -> bool:
    return name.split(".")[0] == "qsgd_ray"


def room(module: str) -> str:
    return module.split(".")[0]


def folder(module: str) -> str:
    """The folder of a file; a package stands for itself."""
    return module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0] or module


def cycles(edges: dict[str, set[str]]) -> Iterator[list[str]]:
    """Every cycle that a walk in depth meets first."""
    done: set[str] = set()

    def walk(node: str, path: list[str]) -> Iterator[list[str]]:
        if node in path:
            yield [*path[path.index(node) :], node]
        elif node not in done:
            for target in sorted(edges.get(node, ())):
                yield from walk(target, [*path, node])
            done.add(node)

    for node in sorted(edges):
        yield from walk(node, [])


def test_every_module_has_a_room():
    assert {room(module) for module in MODULES if module} == set(ROOMS)


def test_the_root_has_few_files():
    assert len([path for path in PACKAGE.iterdir() if path.is_file()]) <= MOST_FILES_IN_THE_ROOT


def test_imports_run_strictly_downwards():
    upwards = [
        f"{module} imports {target}"
        for module in MODULES
        for target in used(module)
        if module and ROOMS.index(room(target)) > ROOMS.index(room(module))
    ]
    assert not upwards


def test_no_file_imports_itself_by_way_of_others():
    assert not list(cycles({module: used(module) for module in MODULES if module}))


def test_no_folder_imports_itself_by_way_of_others():
    edges: dict[str, set[str]] = {}
    for module in MODULES:
        # A package that offers its own files' names, or a file beside its own subfolders, is no way round.
        targets = {folder(target) for target in used(module)} if module else set()
        inside = {target for target in targets if target.startswith(f"{folder(module)}.")} if module else set()
        edges.setdefault(folder(module) if module else "", set()).update(targets - inside - {folder(module)})
    assert not list(cycles(edges))


def test_the_mathematics_knows_no_ray():
    with_ray = {module for module in MODULES for name in imported(MODULES[module]) if name.split(".")[0] == "ray"}
    assert {room(module) for module in with_ray} <= WITH_RAY


def test_analysis_and_reporting_see_tables_and_never_the_trainer():
    trainer = {"models", "optimizer", "pool", "workloads", "training", "execution", "search", "study"}
    seen = {
        target for module in MODULES if room(module) in ("analysis", "reporting", "scores") for target in used(module)
    }
    assert not {target for target in seen if room(target) in trainer}


def public_names(module: str) -> dict[str, ast.stmt]:
    """The classes, functions and constants of a file that have no underscore; none where the file has one."""
    if any(word.startswith("_") for word in module.split(".")):
        return {}
    names: dict[str, ast.stmt] = {}
    for node in ast.parse(MODULES[module].read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id: node for target in targets if isinstance(target, ast.Name)}
    return {name: node for name, node in names.items() if not name.startswith("_")}


def names_taken() -> dict[str, set[str]]:
    """By module, the names that files of other folders or a package's own `__init__` take from it."""
    taken: dict[str, set[str]] = {module: set() for module in MODULES}
    for user, path in MODULES.items():
        tree = ast.parse(path.read_text())
        aliases: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and _is_ours(node.module):
                source = node.module.removeprefix("qsgd_ray").lstrip(".")
                for alias in node.names:
                    inner = f"{source}.{alias.name}".lstrip(".")
                    if inner in MODULES:
                        aliases[alias.asname or alias.name] = inner
                    elif source in MODULES and (folder(source) != folder(user) or path.name == "__init__.py"):
                        taken[source].add(alias.name)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
                source = aliases[node.value.id]
                if folder(source) != folder(user):
                    taken[source].add(node.attr)
    return taken


TAKEN = names_taken()
# Offered lazily by the package itself, as "room.module", "name" pairs in its table.
FRONT = (PACKAGE / "__init__.py").read_text()


def words(node: ast.AST) -> set[str]:
    """The names in annotations, bases, aliases and signatures: what a public name shows of others."""
    if isinstance(node, ast.FunctionDef):
        parts: list[ast.AST | None] = [node.args, node.returns]
    elif isinstance(node, ast.ClassDef):
        fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
        methods = [part for part in node.body if isinstance(part, ast.FunctionDef)]
        parts = [*node.bases, *fields, *(part for method in methods for part in (method.args, method.returns))]
    else:
        parts = [node]
    return {inner.id for part in parts if part for inner in ast.walk(part) if isinstance(inner, ast.Name)}


def unneeded_names(module: str) -> list[str]:
    """The public names of a file that no other folder takes, no front door offers, and no needed signature shows."""
    names = public_names(module)
    needed = {name for name in names if name in TAKEN[module] or f'"{name}"' in FRONT or name == "main"}
    waiting = set(needed)
    while waiting:
        shown = words(names[waiting.pop()]) & set(names)
        waiting |= shown - needed
        needed |= shown
    return sorted(set(names) - needed)


def test_a_name_that_only_its_room_needs_has_an_underscore():
    unneeded = {module: unneeded_names(module) for module in MODULES}
    assert not {module: names for module, names in unneeded.items() if names}


def test_what_is_private_is_used_in_its_folder_alone():
    outside = [
        f"{module} imports {target}"
        for module in MODULES
        for target in used(module)
        if any(word.startswith("_") for word in target.split(".")) and folder(target) != folder(module)
    ]
    assert not outside


def test_files_are_short():
    lengths = {path: len(path.read_text().splitlines()) for path in [*PACKAGE.rglob("*.py"), *TESTS.rglob("*.py")]}
    assert not {str(path): length for path, length in lengths.items() if length > MOST_LINES}


def test_no_test_file_imports_another():
    for path in TESTS.rglob("*.py"):
        names = {word for name in imported(path) for word in name.split(".")[:-1] or [name]}
        assert not {word for word in names if word.startswith("test_")}, path


def test_processes_of_a_group_are_spawned_in_one_place_which_says_how_they_leave():
    spawns = {path.name for path in TESTS.rglob("*.py") if "multiprocessing.spawn(" in path.read_text()}
    assert spawns == {"replicas.py", Path(__file__).name}


def test_importing_the_package_and_its_mathematics_loads_nothing_heavy():
    script = (
        "import sys, qsgd_ray, qsgd_ray.config, qsgd_ray.cli\n"
        "assert not {'torch', 'ray', 'qiskit', 'transformers', 'plotly'} & set(sys.modules), sorted(sys.modules)\n"
        "import qsgd_ray.optimizer, qsgd_ray.training.loop\n"
        "assert not {'ray', 'qiskit', 'transformers', 'plotly'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
