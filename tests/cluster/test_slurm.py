"""Slurm: the script, against made-up `srun`, `scontrol` and `ray`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.cluster_files import CLUSTER, check_ray_start

SBATCH = CLUSTER / "slurm" / "study.sbatch"
FAKE_SLURM = {
    # srun: its own options away, the rest is run; once, as this node.
    "srun": 'while [[ $1 == --* ]]; do shift; done\nexec "$@"\n',
    "scontrol": "echo node1; echo node2\n",
    "hostname": "echo 192.0.2.1 192.0.2.2\n",
    # ray: what it is told is kept; what comes after -- is run, as the launcher does on the first node.
    "ray": 'printf "%s\\n" "$@" > "$SEEN/ray"\n'
    'if [[ -e $SEEN/broken ]]; then exit 0; fi\nwhile [[ $1 != -- ]]; do shift; done\nshift\n"$@"\nexit 0\n',
    "qsgd-ray": 'printf "%s\\n" "$@" > "$SEEN/qsgd-ray"\n'
    'echo "$RAY_AUTH_MODE $RAY_AUTH_TOKEN" > "$SEEN/token"\nexit 7\n',
}


@pytest.fixture
def allocation(tmp_path):
    """A made-up allocation of two nodes: Slurm, Ray and qsgd-ray are scripts that tell what they were asked."""
    venv = tmp_path / "venv" / "bin"
    venv.mkdir(parents=True)
    (venv / "activate").write_text(f'PATH="{venv}:$PATH"\n')
    for name, text in FAKE_SLURM.items():
        (venv / name).write_text(f"#!/bin/bash\n{text}")
        (venv / name).chmod(0o755)
    env = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "SEEN": str(tmp_path),
        "QSGD_RAY_VENV": str(tmp_path / "venv"),
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_ON_NODE": "6",
    }

    def submit(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run(["bash", str(SBATCH), *words], env=env, capture_output=True, text=True, timeout=60)

    return submit


def test_slurm_runs_one_study_on_all_nodes_and_ends_as_it_ended(allocation, tmp_path):
    done = allocation("studies/a study.py", "s3://bucket/results", "--set", "confirm.epochs=2")
    assert done.returncode == 7, done.stderr
    told = (tmp_path / "ray").read_text().splitlines()
    address = told[told.index("--address") + 1]
    assert told[0] == "symmetric-run"
    assert address.startswith("192.0.2.1:")
    assert told[told.index("--min-nodes") + 1] == "2"
    starts = [word for word in told[: told.index("--")] if word.startswith("--") and "=" in word]
    check_ray_start([*starts, "--disable-usage-stats"])
    assert '--resources={"sim": 6, "train": 6}' in starts
    asked = (tmp_path / "qsgd-ray").read_text().splitlines()
    assert asked[:2] == ["run", "studies/a study.py"]
    assert asked[asked.index("--address") + 1] == address
    assert asked[asked.index("--storage") + 1] == "s3://bucket/results"
    assert asked[-2:] == ["--set", "confirm.epochs=2"]
    mode, token = (tmp_path / "token").read_text().split()
    assert mode == "token"
    assert len(token) == 64


def test_slurm_fails_where_ray_did_not_start(allocation, tmp_path):
    (tmp_path / "broken").touch()
    done = allocation("studies/quick.py", "results")
    assert done.returncode == 1
    assert "Ray did not start" in done.stderr


def test_slurm_says_that_a_node_has_no_address(allocation, tmp_path):
    (tmp_path / "venv" / "bin" / "hostname").write_text("#!/bin/bash\necho\n")
    done = allocation("studies/quick.py", "results")
    assert done.returncode == 2
    assert done.stderr.startswith("HEAD_IP: got no address of node1; allowed: HEAD_IP=ADDRESS sbatch ...")
    assert not (tmp_path / "ray").exists()


def test_slurm_says_how_it_is_used(allocation):
    done = allocation("studies/quick.py")
    assert done.returncode == 2
    assert done.stderr.startswith("usage: sbatch")


def test_rays_launcher_has_the_options_that_the_slurm_script_uses():
    from ray.scripts.symmetric_run import symmetric_run

    options = {option for parameter in symmetric_run.params for option in parameter.opts}
    assert {"--address", "--min-nodes"} <= options


def test_slurm_keeps_rays_logs_beside_the_rows_and_leaves_no_folder(allocation, tmp_path):
    folder = Path(f"/tmp/qsgd-ray-{os.getpid()}")
    logs = folder / "session_latest" / "logs"
    logs.mkdir(parents=True)
    (logs / "raylet.out").write_text("said")
    (tmp_path / "cluster").symlink_to(CLUSTER)
    done = allocation("studies/quick.py", str(tmp_path / "results"))
    assert done.returncode == 7, done.stderr
    assert [file.name.endswith(".tar.gz") for file in (tmp_path / "results" / "logs").iterdir()] == [True]
    assert not folder.exists()
