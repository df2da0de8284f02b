"""`from qsgd_ray.config import *` brings the words of a study file, and nothing else."""

import ast
import sys

import pytest
from pydantic import BaseModel
from support.places import ROOT

import qsgd_ray.config
from qsgd_ray.config import Splits, StoredTask, _settings

# It is read of a class that is not there; no study is written in it.
NO_WORDS = (StoredTask,)
STUDIES = sorted((ROOT / "studies").rglob("*.py"))


def brought() -> set[str]:
    """The names that the import brings."""
    names: dict[str, object] = {}
    exec("from qsgd_ray.config import *", names)
    return set(names) - {"__builtins__"}


def settings_classes() -> set[str]:
    """Every public class of settings, whichever file of config/ defines it."""

    def below(kind: type[BaseModel]) -> set[type[BaseModel]]:
        return {kind}.union(*(below(other) for other in kind.__subclasses__()))

    classes = below(_settings.Settings) - {_settings.Settings}
    ours = {kind for kind in classes if kind.__module__.startswith("qsgd_ray.config")} - {*NO_WORDS}
    # Other tests make classes at run time, which no file of config/ defines.
    defined = {kind for kind in ours if getattr(sys.modules[kind.__module__], kind.__name__, None) is kind}
    return {kind.__name__ for kind in defined if not kind.__name__.startswith("_")}


def test_the_words_are_the_classes_of_settings_and_nothing_else():
    assert brought() == set(qsgd_ray.config.__all__) == settings_classes() | {"Splits"}
    assert qsgd_ray.config.__all__ == sorted(qsgd_ray.config.__all__)


def test_every_word_s_docstring_lists_its_fields():
    for word in qsgd_ray.config.__all__:
        kind = getattr(qsgd_ray.config, word)
        text = kind.__doc__
        for field in kind.__annotations__ if kind is Splits else kind.model_fields:
            assert field == "kind" or f"\n        {field}: " in text, f"{word}.{field}"


@pytest.mark.parametrize("path", STUDIES, ids=[str(path.relative_to(ROOT)) for path in STUDIES])
def test_the_studies_of_this_project_are_written_in_these_words(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "qsgd_ray":
            assert node.module in ("qsgd_ray", "qsgd_ray.config"), path
            assert {alias.name for alias in node.names} <= brought() | {"*"}
