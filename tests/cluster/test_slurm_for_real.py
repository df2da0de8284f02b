"""Slurm for real: slurmctld and slurmd on this machine run the script, and with it a study to its verdict."""

import re
import sys
import tempfile
from pathlib import Path

import pytest
from support import local_slurm
from support.cluster_files import CLUSTER, ROOT
from support.processes import STARTS_RAY_S, name_of

from qsgd_ray.results import read

WHY_NOT = local_slurm.missing()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.xdist_group("local-slurm"),
    pytest.mark.timeout(2 * STARTS_RAY_S),
    pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)),
]
# The quick study with all of its stages, as short as they can be, and five pairs.
SMALLER = {
    "workload.train_size": 64,
    "workload.validation_size": 32,
    "workload.test_size": 32,
    "search.trials_per_arm": 1,
    "search.epochs": 1,
    "search.grace_epochs": 1,
    "confirm.seeds": "[101,102,103,104,105]",
    "confirm.epochs": 1,
    "confirm.workers": 1,
}
ENV = {
    "RAY_worker_niceness": "0",  # as conftest.py says
    "RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT": "60",
}


@pytest.fixture(scope="module")
def slurm():
    # Short: the names of Ray's sockets must stay below 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    with local_slurm.local_slurm(folder, cpus=4) as running:
        yield running


@pytest.fixture(scope="module")
def venv(slurm) -> Path:
    """An environment whose `ray` and `qsgd-ray` are those that the tests import."""
    programs = slurm.folder / "venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "activate").write_text(f'PATH="{programs}:{Path(sys.executable).parent}:$PATH"\n')
    for name, module in {"ray": "ray.scripts.scripts", "qsgd-ray": "qsgd_ray.cli"}.items():
        (programs / name).write_text(f'#!/bin/bash\nexec "{sys.executable}" -m {module} "$@"\n')
        (programs / name).chmod(0o755)
    return programs.parent


def submit(slurm, venv, *words: object):
    """Submit the script from the repository's root, wait for its end, and return its exit code and its log."""
    log = slurm.folder / "job.out"
    script = CLUSTER / "slurm" / "study.sbatch"
    done = slurm.run(
        *("sbatch", "--wait", f"--output={log}", script, *words),
        cwd=ROOT,
        timeout_s=2 * STARTS_RAY_S - 60,
        QSGD_RAY_VENV=str(venv),
        **ENV,
    )
    return done.returncode, log.read_text() if log.exists() else f"{done.stderr}\n{slurm.logs()}"


def test_a_study_runs_under_slurm_to_its_verdict_and_nothing_is_left(slurm, venv, tmp_path):
    changes = [word for path, value in SMALLER.items() for word in ("--set", f"{path}={value}")]
    code, log = submit(slurm, venv, "studies/quick.py", tmp_path, *changes)
    assert code == 0, log[-6000:]
    rows = read(tmp_path / "quick").trials.to_pylist()
    assert [row["ending"] for row in rows] == ["completed"] * 18
    verdicts = re.findall(r"^ (sine|circuit) +\S (?:better|worse|equivalent|inconclusive) ", log, re.MULTILINE)
    assert sorted(verdicts) == ["circuit", "sine"], log[-6000:]
    assert (tmp_path / "quick" / "report.html").exists()
    assert [file.name.endswith(".tar.gz") for file in (tmp_path / "logs").iterdir()] == [True]
    assert {name_of(process) for process in slurm.processes()} <= {"munged", "slurmctld", "slurmd", "slurmscriptd"}
    assert not [*Path("/tmp").glob("qsgd-ray-[0-9]*")]


def test_a_refused_study_ends_its_job_with_the_same_code(slurm, venv, tmp_path):
    code, log = submit(slurm, venv, "studies/quick.py", tmp_path, "--set", "confirm.epochs=none")
    assert code == 2, log[-6000:]
    assert "confirm.epochs: got 'none'; allowed: " in log
    assert not (tmp_path / "quick").exists()
