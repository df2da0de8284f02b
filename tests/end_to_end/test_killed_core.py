"""SIGKILL of Ray's own raylet and GCS: one line within seconds, nothing left running, and the same command goes on."""

import subprocess

import psutil
import pytest
from support.command_line import STUDY, command
from support.processes import STARTS_RAY_S, lives, name_of, wait_until

from qsgd_ray.results import Results, read

pytestmark = [
    pytest.mark.ray,
    pytest.mark.kill,
    pytest.mark.xdist_group("killed"),
    pytest.mark.timeout(2 * STARTS_RAY_S),
]


def test_a_core_process_that_is_killed_is_one_line_and_the_same_command_goes_on(tmp_path):
    study_file = tmp_path / "small.py"
    study_file.write_text(STUDY)
    start, results = command("run", study_file, "--storage", tmp_path), Results(tmp_path / "small")
    for name in ("raylet", "gcs_server"):
        n_rows = results.count()
        with subprocess.Popen(**start) as running:
            wait_until(lambda n_rows=n_rows: results.count() > n_rows, 240, "no trial ended")
            family = psutil.Process(running.pid).children(recursive=True)
            (core,) = (process for process in family if name_of(process) == name)
            core.kill()
            out, _ = running.communicate(timeout=90)
        assert running.returncode == 1, out
        last = out.splitlines()[-1]
        assert last.startswith(f"qsgd-ray: Ray's {name} has ended: ")
        assert last.endswith("the same command goes on from there")
        assert not any(word in out for word in ("Traceback", "state-dump", "The program will terminate")), out
        assert not any(map(lives, family))
    done = subprocess.run(**start, timeout=400)
    assert done.returncode == 0, done.stdout
    ids = read(tmp_path / "small").trials["trial_id"].to_pylist()
    assert len(ids) == len({*ids}) == 8
