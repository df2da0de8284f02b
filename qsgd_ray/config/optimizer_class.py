"""Classes of optimizers by name: a name in; the class, and one line on a keyword that it does not take, out.

Only what a user writes down and what is about to be trained comes here, as it imports the class: reading the results of
a study never does.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from qsgd_ray.config.errors import StudyError, one_line

# Short names, by the dotted name that they stand for.
_SHORT_NAMES = {
    "adadelta": "torch.optim.Adadelta",
    "adafactor": "torch.optim.Adafactor",
    "adagrad": "torch.optim.Adagrad",
    "adam": "torch.optim.Adam",
    "adamax": "torch.optim.Adamax",
    "adamw": "torch.optim.AdamW",
    "asgd": "torch.optim.ASGD",
    "lbfgs": "torch.optim.LBFGS",
    "muon": "torch.optim.Muon",
    "nadam": "torch.optim.NAdam",
    "radam": "torch.optim.RAdam",
    "rmsprop": "torch.optim.RMSprop",
    "rprop": "torch.optim.Rprop",
    "sgd": "torch.optim.SGD",
    "schedule-free-adamw": "schedulefree.AdamWScheduleFree",
    "schedule-free-radam": "schedulefree.RAdamScheduleFree",
    "schedule-free-sgd": "schedulefree.SGDScheduleFree",
    "lion": "pytorch_optimizer.Lion",
    "prodigy": "pytorch_optimizer.Prodigy",
    "psgd": "pytorch_optimizer.Kron",
    "sam": "pytorch_optimizer.SAM",
    "soap": "pytorch_optimizer.SOAP",
}
# What is installed to have a module, where the two names differ.
PACKAGES = {"pytorch_optimizer": "pytorch-optimizer"}
# Modules that the extra `optimizers` installs.
_EXTRA = ("schedulefree", "pytorch_optimizer")
# Modules of which a results folder may name a class that is then trained.
_KNOWN_MODULES = ("torch", *_EXTRA, "heavyball")


def _dotted_name(name: str) -> str:
    """Return the dotted name of a class: what a short name stands for, or the name itself.

    Example:
        >>> _dotted_name("adamw")
        'torch.optim.AdamW'
    """
    return _SHORT_NAMES.get(name, name)


def module_of(name: str) -> str:
    """Return the package that has the class of this name: the first word of its dotted name."""
    return _dotted_name(name).partition(".")[0]


def is_known(name: str) -> bool:
    """Return True for a class of a package whose import does nothing but define optimizers."""
    return module_of(name) in _KNOWN_MODULES


@lru_cache(maxsize=256)
def _optimizer_class(name: str) -> type[Any]:
    """Return the class of this name; its module is imported.

    Args:
        name: a short name (`_SHORT_NAMES`), or a dotted one, such as "torch.optim.Muon".

    Raises:
        StudyError: there is no such class, or it is no subclass of torch.optim.Optimizer; one line without the field.
    """
    module, dot, attribute = _dotted_name(name).rpartition(".")
    if not dot:
        raise StudyError(
            f"got {name!r}; allowed: a dotted name such as 'torch.optim.Muon', or {', '.join(_SHORT_NAMES)}"
        )
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:  # a module that is imported runs its own code
        if isinstance(error, ModuleNotFoundError) and error.name == module_of(name):
            raise StudyError(f"got {name!r}; allowed: a class that is installed ({_installation(name)})") from None
        raise StudyError(f"got {name!r}, whose module cannot be imported ({one_line(error, limit=120)})") from None
    import torch

    if found is None:
        near = get_close_matches(attribute, dir(importlib.import_module(module)), n=3)
        raise StudyError(f"got {name!r}; allowed: a class of {module}{_like(near)}")
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        raise StudyError(f"got {name!r}; allowed: a subclass of torch.optim.Optimizer")
    return found


def _installation(name: str) -> str:
    module = module_of(name)
    return f"pip install {'qsgd-ray[optimizers]' if module in _EXTRA else PACKAGES.get(module, module)}"


def _like(names: list[str]) -> str:
    return f", such as {', '.join(names)}" if names else ""


def keyword_problem(name: str, keywords: Collection[str]) -> tuple[str, str] | None:
    """Return the first keyword that the class does not take or lacks, and what is allowed; None where all are right.

    Args:
        name: of the class, as `_optimizer_class` takes it.
        keywords: the keywords that it will be called with, beside the parameters.
    """
    cls = _optimizer_class(name)
    parameters = inspect.signature(cls).parameters
    named = [each for each, one in parameters.items() if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    if "params" not in named:
        return "name", f"a class that is made from parameters; {name} takes {', '.join(named)}"
    named.remove("params")
    if "lr" not in named and not {"base_optimizer"} & {*keywords}:
        return "name", f"a class with the keyword lr; {name} takes {', '.join(named)}"
    open_ended = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    for keyword in keywords:
        # Many classes take any keyword and look a few of them up by name: a misspelt one would do nothing.
        if keyword not in named and not (open_ended and keyword in _words_of(name)):
            near = get_close_matches(keyword, named, n=1)
            return keyword, f"a keyword of {name}: {', '.join([*near, *(each for each in named if each not in near)])}"
    for keyword in named:
        if keyword not in keywords and parameters[keyword].default is inspect.Parameter.empty:
            return keyword, f"a value, which {name} needs"
    return None


@lru_cache(maxsize=256)
def _words_of(name: str) -> frozenset[str]:
    """Return the words that stand as text in the source of a class and of those that it inherits from."""
    words: set[str] = set()
    for part in inspect.getmro(_optimizer_class(name)):
        if part.__module__.partition(".")[0] in ("builtins", "torch", "abc"):
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(part)))
        except (OSError, TypeError, SyntaxError):
            continue
        words |= {one.value for one in ast.walk(tree) if isinstance(one, ast.Constant) and isinstance(one.value, str)}
    return frozenset(words)


# Defaults that stand in a trial's rows, and so in its settings: a later version of the class may have others.
_WRITTEN_OUT = ("lr", "weight_decay")


def _with_defaults(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with the class's own learning rate and weight decay, where they leave them to the class.

    Args:
        name: of the class, as `_optimizer_class` takes it.
        settings: the keywords that are set.
    """
    parameters = inspect.signature(_optimizer_class(name)).parameters
    defaults = {
        keyword: parameters[keyword].default
        for keyword in _WRITTEN_OUT
        if keyword in parameters and keyword not in settings
    }
    return {**settings, **{key: value for key, value in defaults.items() if type(value) in (int, float)}}
