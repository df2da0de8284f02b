import pytest

from qsgd_ray.bench import report
from qsgd_ray.bench._large_study import large_study, write_large_study
from qsgd_ray.results import read


def test_the_bench_tells_time_memory_and_size(monkeypatch):
    monkeypatch.setattr(report, "QUICK", (42, 3))
    ((*_, last),) = report.cases(quick=True)
    assert last.engine == "qsgd-ray report"
    assert last.median_us > 0
    assert "peak memory" in last.note
    assert "page" in last.note


def test_a_call_that_fails_says_what_it_told():
    with pytest.raises(RuntimeError, match="ended with 2: qsgd-ray: DIR: got nowhere"):
        report._run("-m", "qsgd_ray.cli", "report", "nowhere")


def test_a_simulated_study_has_the_rows_that_it_plans(tmp_path):
    study = write_large_study(tmp_path, 42, 3)
    tables = read(tmp_path)
    assert study == large_study(42) == tables.study
    planned = sum(study.planned(stage, arm) for stage in ("search", "confirm") for arm in study.arms)
    assert tables.trials.num_rows == planned == 42
    assert tables.measurements.num_rows == sum(tables.trials["epochs_run"].to_pylist())
    assert all(tables.trials[name].null_count == 0 for name in ("study", "arm", "ending", "learning_rate"))
