"""The names that `import qsgd_ray` offers: all of them there, loaded when used, known to a type checker."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import qsgd_ray
import qsgd_ray.config


def imports_for_type_checkers() -> dict[str, str]:
    """Return name and module of each import below `if TYPE_CHECKING:`."""
    tree = ast.parse(Path(qsgd_ray.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    return {alias.name: node.module for node in block.body for alias in node.names}


def test_a_type_checker_sees_the_names_that_are_loaded_and_those_that_are_public():
    assert imports_for_type_checkers() == qsgd_ray._MODULES
    assert sorted(qsgd_ray._MODULES) == sorted(qsgd_ray.__all__)


@pytest.mark.parametrize("name", qsgd_ray.__all__)
def test_a_public_name_is_its_module_s(name):
    module = importlib.import_module(qsgd_ray._MODULES[name])
    assert getattr(qsgd_ray, name) is getattr(module, name)


def test_every_word_of_a_study_file_is_offered_but_quantum_attention_which_is_torch_s():
    from qsgd_ray.models.attention import QuantumAttention

    words = set(qsgd_ray.config.__all__) | {"StudyError"}
    assert words <= set(qsgd_ray.__all__)
    assert qsgd_ray.QuantumAttention is QuantumAttention
    for word in words - {"QuantumAttention"}:
        assert getattr(qsgd_ray, word) is getattr(qsgd_ray.config, word)


def test_a_name_that_is_none_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'qsgd_ray' has no attribute 'frob'"):
        _ = qsgd_ray.frob
    assert "SuperpositionalAdamW" in dir(qsgd_ray)
    assert "__version__" in dir(qsgd_ray)


def test_a_study_s_words_load_neither_torch_nor_ray_and_the_optimizer_not_ray():
    script = (
        "import sys, qsgd_ray as q\n"
        "heavy = {'torch', 'ray', 'qiskit', 'transformers', 'plotly', 'pyarrow', 'pandas', 'optuna'}\n"
        "assert 'pydantic' not in sys.modules, 'nothing at all is loaded before a name is used'\n"
        "q.Study, q.Arm, q.Resources, q.load_study, q.StudyError\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "q.SuperpositionalAdamW, q.LambdaSchedule, q.CircuitSpec, q.answer, q.QuantumAttention\n"
        "assert not {'ray', 'qiskit', 'transformers', 'plotly', 'optuna'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
