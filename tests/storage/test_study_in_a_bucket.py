"""A study runs into a bucket, and the same command does nothing anew."""

import json
import subprocess

import pytest
from support.command_line import STUDY, command
from support.processes import STARTS_RAY_S
from support.stores import BUCKET, credentials

from qsgd_ray.results import read
from qsgd_ray.storage import storage_at


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.xdist_group("cli")
@pytest.mark.timeout(STARTS_RAY_S)
def test_a_study_runs_into_a_bucket_and_the_same_command_does_nothing_anew(s3, server, uri, tmp_path):
    study = tmp_path / "small.py"
    study.write_text(STUDY.replace('Perturbation(source="circuit", n_qubits=2)', 'Perturbation(source="sine")'))
    words = command("run", study, "--storage", uri, "--set", "search.trials_per_arm=1")
    words["env"] |= credentials(server)
    done = subprocess.run(**words, timeout=400, check=False)
    assert done.returncode == 0, done.stdout
    place = f"{uri}/small"
    assert f"Report: {place}/report.html" in done.stdout
    assert "Traceback" not in done.stdout
    tables = read(place)
    assert [row["ending"] for row in tables.trials.to_pylist()] == ["completed"] * 6
    assert json.loads(storage_at(place).read("chosen.json")).keys() == {"adamw", "circuit"}
    assert storage_at(place).read("study.py") == study.read_bytes()
    prefix = place.removeprefix(f"s3://{BUCKET}/")

    def put_at():
        listed = s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]
        return {item["Key"]: item["LastModified"] for item in listed if item["Key"].endswith((".parquet", "sen.json"))}

    before = put_at()
    assert len(before) == 13
    again = subprocess.run(**words, timeout=400, check=False)
    assert again.returncode == 0, again.stdout
    assert put_at() == before
    assert len(read(place).provenance["resumed"]) == 1
