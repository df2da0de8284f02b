"""A study file runs as the module that its classes are imported from, and in nobody's place."""

import subprocess
import sys

import pytest
from support.own_tasks import BESIDE, write_study

from qsgd_ray.config import StudyError
from qsgd_ray.config.loading import load_study
from qsgd_ray.config.trial import confirm_trials


@pytest.fixture(autouse=True)
def forgotten(tmp_path, monkeypatch):
    """Modules of the folder are forgotten at the end."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in [name for name, module in sys.modules.items() if str(tmp_path) in str(getattr(module, "__file__", ""))]:
        del sys.modules[name]


def test_a_class_is_named_by_the_file_and_modules_beside_it_are_found(tmp_path):
    study = load_study(write_study(tmp_path))
    assert study.workload.kind == "rings_study:Rings"
    assert sys.modules["rings_study"].Rings is type(study.workload)
    assert BESIDE in sys.modules


def test_a_file_that_is_loaded_again_is_run_again(tmp_path):
    first = load_study(write_study(tmp_path))
    second = load_study(write_study(tmp_path, change=lambda text: text.replace("margin=0.01", "margin=0.02")))
    assert (first.decision.margin, second.decision.margin) == (0.01, 0.02)
    assert sys.modules["rings_study"].Rings is type(second.workload)
    assert first.workload.code == second.workload.code


@pytest.mark.parametrize("name", ["my-study", "random", "json", "pydantic", "qsgd_ray"])
def test_a_class_in_a_file_of_another_module_s_name_is_refused(tmp_path, name):
    before = sys.modules.get(name)
    with pytest.raises(
        StudyError, match=r"line \d+: Rings: a class in a file of a name that no other module has, such"
    ):
        load_study(write_study(tmp_path, name=name))
    assert sys.modules.get(name) is before


def test_a_file_that_raises_leaves_no_module(tmp_path):
    path = tmp_path / "broken_study.py"
    path.write_text("x = 1\nraise RuntimeError('no')\n")
    with pytest.raises(StudyError, match=r"broken_study.py, line 2: RuntimeError: no"):
        load_study(path)
    assert "broken_study" not in sys.modules
    path.write_text("def broken(:\n")
    with pytest.raises(StudyError, match=r"broken_study.py, line 1: SyntaxError"):
        load_study(path)


def test_a_study_of_a_shipped_task_may_have_any_name(tmp_path):
    text = "from qsgd_ray.config.loading import load_study\nSTUDY = load_study('studies/quick.py')\n"
    path = tmp_path / "my-quick.py"
    path.write_text(text)
    assert load_study(path).name == "quick"


SCRIPT = """

if __name__ == "__main__":
    import pickle

    from qsgd_ray.config.trial import confirm_trials

    assert pickle.loads(pickle.dumps(Rings)) is Rings
    print(STUDY.workload.kind, confirm_trials(STUDY, "adamw", {"learning_rate": 0.01})[0].trial_id)
"""


def test_a_script_that_is_run_itself_states_the_same_study(tmp_path):
    path = write_study(tmp_path)
    trial = confirm_trials(load_study(path), "adamw", {"learning_rate": 0.01})[0].trial_id
    path.write_text(path.read_text() + SCRIPT)
    words = [sys.executable, path.name]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=True)
    assert done.stdout.split() == ["rings_study:Rings", trial]


def test_a_script_of_another_module_s_name_is_refused_and_says_which_name_is_not(tmp_path):
    path = write_study(tmp_path, name="my-study")
    done = subprocess.run([sys.executable, path.name], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert "a class in a file of a name that no other module has, such as my_study.py; got" in done.stderr
