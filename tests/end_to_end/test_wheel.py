"""The package from its wheel, in a script in another folder: a study runs to its verdict, and all types are known."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from support.places import ROOT
from support.processes import STARTS_RAY_S

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(3 * STARTS_RAY_S)]

BLOCKS = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), flags=re.DOTALL | re.MULTILINE)
SCRIPT = """
import qsgd_ray as q

print(q.__file__)
rate = q.LogUniform(low=1e-3, high=1e-2)
task = q.TextTask(
    train_size=64,
    validation_size=64,
    test_size=64,
    model=q.Transformer(d_model=8, n_heads=2, d_feedforward=8, n_layers=1),
)
result = q.run(
    q.Study(
        name="tiny",
        question="Does it run from a wheel?",
        workload=task,
        arms=(
            q.Arm(name="adamw", learning_rate=rate),
            q.Arm(name="sine", learning_rate=rate, perturbation=q.Perturbation(source="sine", n_qubits=2)),
        ),
        baseline="adamw",
        search=q.Search(trials_per_arm=2, epochs=2, grace_epochs=1),
        confirm=q.Confirm(seeds=(11, 12), epochs=2),
        decision=q.Decision(margin=0.05),
    ),
    storage="results",
)
print(result.verdicts)
assert result.is_finished and result.failure is None, result.failure
trials, measurements = result.to_pandas()
assert (len(trials), len(measurements)) == (result.trials.num_rows, result.measurements.num_rows)
verdicts: tuple[q.ArmVerdict, ...] = q.read_results("results/tiny").verdicts
assert str(verdicts) == str(result.verdicts)
assert result.figures and result.analysis.study == result.study
print(result.report("tiny.html"))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """The Python of an environment that has the wheel, and besides it the packages of this one."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT / "qsgd_ray", source / "qsgd_ray", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source]
    subprocess.run([*pip, *build], check=True, timeout=300)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True, timeout=300)
    packages = folder / "venv" / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    subprocess.run([*pip, "install", "--no-deps", "--target", packages, wheel], check=True, timeout=300)
    others = [path for path in sys.path if path.endswith("site-packages")] or [sysconfig.get_path("purelib")]
    (packages / "others.pth").write_text("\n".join(others))
    return folder / "venv" / "bin" / "python"


def script_output(python: Path, script: str, folder: Path) -> str:
    """Standard output of a script in `folder`, which must succeed, as somebody runs it who has no checkout."""
    (folder / "script.py").write_text(script)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
    done = subprocess.run(
        [python, "script.py"], cwd=folder, env=environment, capture_output=True, text=True, timeout=2 * STARTS_RAY_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_script_runs_a_study_from_the_wheel_to_its_verdict_and_its_report(python, tmp_path):
    first, *_, verdict, page = script_output(python, SCRIPT, tmp_path).splitlines()
    assert Path(first).is_relative_to(python.parents[1])
    assert verdict.startswith("sine: inconclusive, ")
    assert (tmp_path / page).read_text().startswith("<!doctype html>")
    kept = tmp_path / "results" / "tiny"
    assert (kept / "report.html").exists()
    assert not (kept / "study.py").exists()
    assert '"study_file": null' in (kept / "provenance.json").read_text()


WITHOUT_COMPILER = """
import os

os.environ["PATH"], os.environ["CXX"] = "", "/none"
import torch

from qsgd_ray import CircuitSpec, answer, make_backend
from qsgd_ray.native.compiler import _library, kernel

angles = torch.zeros(1, 1, 1, 2, requires_grad=True)
answer(make_backend("torch"), CircuitSpec(1, 1), angles).sum().backward()
is_compiled = _library("int f() { return 1; }") is not None
print(round(angles.grad.flatten()[0].item(), 6), is_compiled, kernel("program.cpp") is not None)
"""


def test_the_wheel_has_the_kernel_of_circuits_where_no_compiler_is(python, tmp_path):
    assert script_output(python, WITHOUT_COMPILER, tmp_path).splitlines()[-1] == "-1.0 False True"


NEW = """
import sys
from qsgd_ray import cli

sys.argv = ["qsgd-ray", "new", "my-study"]
try:
    cli.main()
except SystemExit as end:
    assert not end.code
"""
OWN = """

if __name__ == "__main__":
    import qsgd_ray
    from qsgd_ray.study.replay import replay, stored_trial

    sizes = ["search.trials_per_arm=1", "search.epochs=2", "search.grace_epochs=1", "confirm.epochs=2"]
    result = qsgd_ray.run(STUDY, overrides=[*sizes, "confirm.seeds=[101,102,103,104,105]"])
    assert result.is_finished and result.failure is None, result.failure
    assert set(result.to_pandas()[0]["ending"]) <= {"completed", "stopped_early"}
    print(sorted(verdict.arm for verdict in result.verdicts))
    print(replay(stored_trial(qsgd_ray.results.Results("results/my-study"), "confirm-muon-s101")).differences)
"""


def test_the_wheel_writes_a_study_of_one_s_own_that_runs_as_a_script(python, tmp_path):
    """The class stands in the script, and its workers and the replay know it."""
    said = script_output(python, NEW, tmp_path)
    assert "qsgd-ray run my_study.py" in said
    said = script_output(python, (tmp_path / "my_study.py").read_text() + OWN, tmp_path)
    assert said.splitlines()[-2:] == ["['muon', 'wide']", "()"]


def test_mypy_knows_the_types_of_a_script_and_refuses_what_a_study_refuses(python, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "readme.py").write_text(
        "\n".join(block for block in BLOCKS if "STUDY" in block and "class " not in block)
    )
    (tmp_path / "wrong.py").write_text('import qsgd_ray as q\n\nq.Arm(name=3)\nq.run("study")\nq.frob\n')
    # One run for all, as torch's types take a minute to read.
    words = ["--strict", "--python-executable", python, "script.py", "readme.py", "wrong.py"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *words], cwd=tmp_path, capture_output=True, text=True, timeout=2 * STARTS_RAY_S
    )
    *errors, _ = done.stdout.splitlines()
    assert [line.split(" error:")[0] for line in errors] == [f"wrong.py:{line}:" for line in (3, 4, 5)], done.stdout
