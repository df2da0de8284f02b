"""The hash of a class's code changes with what the class can reach, and with nothing else."""

import sys
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.own_tasks import BESIDE, STUDY_FILE, Rings, write_study

from qsgd_ray.config import _code
from qsgd_ray.config._code import CodeError, code_of
from qsgd_ray.config.loading import load_study


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder whose modules are forgotten at the end."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in [name for name, module in sys.modules.items() if str(tmp_path) in str(getattr(module, "__file__", ""))]:
        del sys.modules[name]


def code_in(folder, change=lambda text: text, width=8):
    """Return the code of the class in the study file after a change."""
    study = load_study(write_study(folder, change=change, width=width))
    return code_of(type(study.workload))


def swapped(old, new):
    assert old in STUDY_FILE
    return lambda text: text.replace(old, new)


@pytest.mark.parametrize(
    "change",
    [
        swapped("# drawn by name", "# drawn by a name"),
        swapped("# drawn by name", ""),
        swapped('    """Points on two rings."""\n', ""),
        swapped('"""A study of a class that', '"""Study of a class that'),
        swapped("margin=0.01", "margin=0.05"),
        swapped("seeds=(101, 102)", "seeds=(101, 102, 103)"),
        swapped("low=1e-3", "low=1e-4"),
        swapped('Arm(name="wide"', 'Arm(name="wider"'),
        swapped("\n\nSTUDY", "\n\nimport json\n\n\ndef unused():\n    return json.dumps(1)\n\n\nSTUDY"),
        swapped("WIDTH\n    fails", "( WIDTH )\n    fails"),
        lambda text: text + '\nif __name__ == "__main__":\n    print(STUDY)\n',
    ],
    ids=range(11),
)
def test_comments_docstrings_and_the_study_are_no_code(folder, change):
    assert code_in(folder, change).digest == code_in(folder).digest


@pytest.mark.parametrize(
    "change",
    [
        swapped("Tanh", "ReLU"),
        swapped("fails_at: int = -1", "fails_at: int = -2"),
        swapped("torch.nn.Linear(self.width, 2)", "torch.nn.Linear(self.width, 2, bias=False)"),
        swapped("\n\nclass Rings", "\ntorch.set_flush_denormal(False)\n\n\nclass Rings"),
        lambda text: text.replace("import torch\n", "import torch\n\nSCALE = 2\n").replace("# drawn", "SCALE  # drawn"),
    ],
    ids=range(5),
)
def test_what_the_class_reaches_is_its_code(folder, change):
    assert code_in(folder, change).digest != code_in(folder).digest


def test_a_module_beside_it_is_its_code_and_travels_with_it(folder):
    before, after = code_in(folder), None
    del sys.modules[BESIDE]
    after = code_in(folder, width=9)
    assert before.digest != after.digest
    assert {file.name for file in after.files} == {f"{BESIDE}.py", "rings_study.py"}
    assert after.root == folder.resolve()


def test_modules_that_ray_unpacks_apart_are_the_same_code(folder, monkeypatch):
    before = code_in(folder)
    brought = folder / "py_modules_files"
    for place, file in (("_ray_pkg_1", f"{BESIDE}.py"), ("_ray_pkg_2", "rings_study.py")):
        (brought / place).mkdir(parents=True)
        (brought / place / file).write_bytes((folder / file).read_bytes())
    del sys.modules["rings_study"], sys.modules[BESIDE]
    monkeypatch.setattr(sys, "path", [str(brought / "_ray_pkg_1"), str(brought / "_ray_pkg_2"), *sys.path])
    import rings_study

    assert "py_modules_files" in rings_study.__file__
    after = code_of(rings_study.Rings)
    assert after.digest == before.digest
    (brought / "_ray_pkg_1" / f"{BESIDE}.py").write_text("WIDTH = 9\n")
    assert code_of(rings_study.Rings).digest != before.digest


def test_versions_of_the_packages_that_it_names_are_its_code(folder, monkeypatch):
    before = code_in(folder)
    assert [name for name, _ in before.packages] == ["torch"]
    monkeypatch.setattr(_code, "_version", lambda package: "0.1")
    assert code_in(folder).digest != before.digest


def test_a_build_of_the_same_version_is_no_other_code():
    assert all(version is None or "+" not in version for _, version in code_of(Rings).packages)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(st.sampled_from(["# a note", "", "    # a note", "#: more"]), max_size=4), at=st.integers(0, 60))
def test_a_comment_anywhere_is_no_code(folder, lines, at):
    def commented(text):
        rows = text.splitlines()
        at_row = at % len(rows)
        # Within a docstring or an argument list a comment would be no comment.
        return "\n".join([*rows[:at_row], *lines, *rows[at_row:]]) if rows[at_row - 1 : at_row] == [""] else text

    assert code_in(folder, commented).digest == code_in(folder).digest


def test_look_ups_by_text_reach_the_whole_module(folder):
    looked_up = swapped("# drawn by name", 'globals()["RATE"]')
    changed = code_in(folder, lambda text: looked_up(text).replace("low=1e-3", "low=1e-4"))
    assert changed.digest != code_in(folder, looked_up).digest


def test_a_package_s_own_modules_are_code_and_its_folder_is_the_root(folder):
    package = folder / "my_tasks"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "sizes.py").write_text("WIDTH = 8\n")
    text = STUDY_FILE.replace(f"from {BESIDE} import", "from .sizes import").partition("STUDY = ")[0]
    (package / "rings.py").write_text(text)
    sys.path.insert(0, str(folder))
    from my_tasks.rings import Rings as Packaged

    code = code_of(Packaged)
    assert code.root == folder.resolve()
    assert {str(file.relative_to(code.root)) for file in code.files} == {
        "my_tasks/__init__.py",
        "my_tasks/rings.py",
        "my_tasks/sizes.py",
    }
    (package / "sizes.py").write_text("WIDTH = 9\n")
    assert code_of(Packaged).digest != code.digest


def test_code_that_cannot_be_imported_or_read_is_refused(folder, monkeypatch):
    class Local(Rings.__mro__[1]):
        pass

    with pytest.raises(CodeError, match=r"a class at the top of its module; got .*Local"):
        code_of(Local)
    monkeypatch.setattr(Local, "__module__", "__main__")
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))  # that of a notebook has no file
    with pytest.raises(
        CodeError, match=r"can be imported \(in a notebook: %%writefile tasks.py .*; got Local of __main__"
    ):
        code_of(Local)
    path = write_study(folder)
    kind = type(load_study(path).workload)
    path.write_text("class Rings(:\n")
    with pytest.raises(CodeError, match=r"code that can be read; of .*rings_study.py"):
        code_of(kind)
    path.write_text("")
    with pytest.raises(CodeError, match=r"a class that its module states; .*rings_study.py has no Rings"):
        code_of(kind)
    monkeypatch.setitem(sys.modules, "my-study", sys.modules["rings_study"])
    monkeypatch.setattr(kind, "__module__", "my-study")
    with pytest.raises(CodeError, match=r"a class in a file of a name that no other module has, such as my_study.py"):
        code_of(kind)
