"""Run a study file as the module that its classes are imported from: its path in; its names out.

Python runs a script so that modules beside it can be imported, and so does this. The module bears the name of the file,
since a class that it defines is imported by that name where trials train.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

# A study file of such a name defines no class that another process could import.
_NAMELESS = "<study>"


def run_study_file(path: Path) -> dict[str, Any]:
    """Run a file and return the names that it defines; whatever it raises is left alone.

    Args:
        path: a Python file.
    """
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    source = path.read_bytes()
    module = ModuleType(_module_name(path))
    module.__file__ = str(path)
    before = sys.modules.get(module.__name__)
    sys.modules[module.__name__] = module  # before it runs: its classes look their annotations up there
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)  # nosec B102 # a study file is the user's program
    except BaseException:
        sys.modules.pop(module.__name__)
        if before is not None:
            sys.modules[module.__name__] = before
        raise
    return module.__dict__


def module_of_script() -> str | None:
    """Return the name by which other processes import the script that this process runs; None of anything else.

    A class of the script is then that of the same file run by the command. The name is bound to the script itself, so
    that pickle finds the class by it.
    """
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if main is None or file is None or not file.endswith(".py") or getattr(main, "__spec__", None) is not None:
        return None
    name = _module_name(Path(file))
    if name == _NAMELESS:
        return None
    sys.modules.setdefault(name, main)
    return name


def _module_name(path: Path) -> str:
    """Return the file's name where no other module has it, so that nobody's import finds the study in its place."""
    name = path.stem
    if not name.isidentifier() or name in sys.stdlib_module_names:
        return _NAMELESS
    loaded = sys.modules.get(name)
    if loaded is not None:
        return name if _is_same_file(getattr(loaded, "__file__", None), path) else _NAMELESS
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return _NAMELESS
    return name if found is None or _is_same_file(found.origin, path) else _NAMELESS


def _is_same_file(file: str | None, path: Path) -> bool:
    return file is not None and Path(file).exists() and path.samefile(file)
