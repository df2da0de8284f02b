"""The harness of `make chaos`: faults of its first seed change no row and leave nothing, wherever they strike."""

import json
import subprocess
import sys
from collections import Counter

import pytest
from support.places import ROOT

pytestmark = [
    pytest.mark.ray,
    pytest.mark.kill,
    pytest.mark.slow,
    pytest.mark.xdist_group("killed"),
    pytest.mark.timeout(1800),
]
KILLS = (
    "kill driver",
    "kill raylet",
    "kill GCS",
    "kill writer in mid-write",
    "kill train worker",
    "kill circuit actor",
)
N_KILLS = 11  # so many strike each kind at least once


def campaign(folder, n_faults, *options):
    words = [sys.executable, str(ROOT / "tools" / "chaos"), "--faults", str(n_faults), "--keep", str(folder), *options]
    done = subprocess.run(words, capture_output=True, text=True, timeout=1700, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{n_faults} faults in" in done.stdout
    return [json.loads(line) for line in (folder / "faults.jsonl").read_text().splitlines()]


def test_kills_change_no_row_and_leave_nothing(tmp_path):
    struck = Counter(each["fault"] for each in campaign(tmp_path, N_KILLS, "--only", *KILLS))
    assert struck.total() == N_KILLS
    assert {*struck} == {*KILLS}


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--only", "kill nobody"], "--only: got kill nobody; allowed: the beginning of one of kill driver, "),
        (["--keep", "."], "--keep: got .; allowed: an empty or a new folder"),
    ],
)
def test_wrong_options_are_refused_in_one_line(options, line):
    words = [sys.executable, str(ROOT / "tools" / "chaos"), *options]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert line in done.stderr
