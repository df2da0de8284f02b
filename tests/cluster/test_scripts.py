"""The scripts of the clusters: a study again after a failure and never after a refusal, and logs beside its rows."""

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from support.cluster_files import CLUSTER

RUN_STUDY = CLUSTER / "kuberay" / "run_study.sh"
KEEP_LOGS = CLUSTER / "keep_logs.py"


@pytest.fixture
def run_study(tmp_path):
    """The script with a made-up qsgd-ray, whose exit codes are given, and keep_logs.py that notes its words."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "qsgd-ray").write_text(
        '#!/bin/bash\nprintf "%s\\n" "$*" >> "$SEEN/runs"\nexit "$(sed -n "$(wc -l < "$SEEN/runs")p" "$SEEN/codes")"\n'
    )
    (bin_ / "python").write_text('#!/bin/bash\nprintf "%s\\n" "$*" >> "$SEEN/kept"\nexit 1\n')
    for file in bin_.iterdir():
        file.chmod(0o755)
    env = {"PATH": f"{bin_}:/usr/bin:/bin", "SEEN": str(tmp_path), "QSGD_RAY_WAIT_S": "0"}

    def run(codes: list[int], *words: str) -> subprocess.CompletedProcess:
        (tmp_path / "codes").write_text("".join(f"{code}\n" for code in codes))
        return subprocess.run(["bash", RUN_STUDY, *words], env=env, capture_output=True, text=True, timeout=60)

    return run


@pytest.mark.parametrize(
    ("codes", "runs", "code"),
    [
        ([0], 1, 0),
        ([2, 0], 1, 2),
        ([1, 0], 2, 0),
        ([1, 2, 0], 2, 2),
        ([137, 1, 0], 3, 0),
        ([1, 1, 1, 0], 3, 1),
        ([143, 0], 1, 143),
        ([129, 0], 1, 129),
        ([130, 0], 1, 130),
    ],
)
def test_a_failed_study_goes_on_and_a_refused_or_stopped_one_ends(run_study, tmp_path, codes, runs, code):
    done = run_study(codes, "studies/a study.py", "s3://b/r", "--set", "confirm.epochs=2")
    assert done.returncode == code
    ran = (tmp_path / "runs").read_text().splitlines()
    assert ran == ["run studies/a study.py --storage s3://b/r --set confirm.epochs=2"] * runs
    assert (tmp_path / "kept").read_text() == f"{RUN_STUDY.parent}/keep_logs.py s3://b/r\n", "once, however it ended"


def test_the_script_says_how_it_is_used(run_study, tmp_path):
    done = run_study([0], "studies/quick.py")
    assert (done.returncode, done.stderr) == (2, "usage: run_study.sh STUDY.py STORAGE [words for qsgd-ray run]\n")
    assert not (tmp_path / "runs").exists()


def test_the_image_has_both_scripts_beside_each_other():
    copied = (CLUSTER / "kuberay" / "Dockerfile").read_text()
    assert "COPY --chown=ray:users cluster/keep_logs.py cluster/kuberay/run_study.sh cluster/\n" in copied


def keep(*words: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, KEEP_LOGS, *map(str, words)], capture_output=True, text=True, timeout=120)


def test_the_ends_of_all_logs_are_kept_beside_the_rows(tmp_path):
    logs = tmp_path / "logs"
    (logs / "events").mkdir(parents=True)
    (logs / "raylet.out").write_text("short")
    (logs / "events" / "event.log").write_bytes(b"a" * 2**20 + b"b" * 10 * 2**20)
    (logs / "latest").symlink_to(logs / "raylet.out")
    done = keep(tmp_path / "results", "--folder", logs)
    assert (done.returncode, done.stderr) == (0, "")
    (kept,) = (tmp_path / "results" / "logs").iterdir()
    assert done.stdout == f"logs: {kept}\n"
    with tarfile.open(fileobj=io.BytesIO(kept.read_bytes())) as archive:
        ends = {name: archive.extractfile(name).read() for name in archive.getnames()}
    assert ends == {"raylet.out": b"short", "events/event.log": b"b" * 10 * 2**20}


@pytest.mark.parametrize(
    ("storage", "folder", "said"),
    [
        ("results", "nowhere", "--folder: got nowhere; allowed: the folder of Ray's logs on this machine"),
        ("ftp://x/y", ".", "the logs could not be kept: --storage: got ftp://x/y; allowed: "),
        ("/dev/null/x", ".", "the logs could not be kept: "),
    ],
)
def test_logs_that_cannot_be_kept_are_one_line(storage, folder, said, tmp_path):
    done = keep(storage, "--folder", Path(folder))
    assert done.returncode == 1
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1
