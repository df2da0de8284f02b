"""The harness of `make chaos`: some faults of its first seed change no row and leave nothing."""

import json
import subprocess
import sys

import pytest
from support.places import ROOT

pytestmark = [
    pytest.mark.ray,
    pytest.mark.kill,
    pytest.mark.slow,
    pytest.mark.xdist_group("killed"),
    pytest.mark.timeout(1800),
]
N_FAULTS = 4


def test_faults_change_no_row_and_leave_nothing(tmp_path):
    words = [sys.executable, str(ROOT / "tools" / "chaos"), "--faults", str(N_FAULTS), "--keep", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=1700, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    faults = [json.loads(line) for line in (tmp_path / "faults.jsonl").read_text().splitlines()]
    assert len(faults) == N_FAULTS
    assert f"{N_FAULTS} faults in" in done.stdout


def test_a_folder_that_holds_something_is_refused_in_one_line(tmp_path):
    (tmp_path / "mine").touch()
    words = [sys.executable, str(ROOT / "tools" / "chaos"), "--keep", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert f"--keep: got {tmp_path}; allowed: an empty or a new folder" in done.stderr
