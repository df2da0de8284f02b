"""The modules of a task of one's own travel by Ray's runtime environment, beside those that a job has already."""

import json
import os
import sys

import pytest
from support.own_tasks import write_study

from qsgd_ray.config.loading import load_study
from qsgd_ray.execution.user_modules import runtime_env_of

JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
OVERRIDE = "RAY_OVERRIDE_JOB_RUNTIME_ENV"


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study whose class stands in its file, with a module beside it."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield load_study(write_study(tmp_path))
    for name in [name for name, module in sys.modules.items() if str(tmp_path) in str(getattr(module, "__file__", ""))]:
        del sys.modules[name]


def test_the_study_file_and_the_module_beside_it_travel(study, tmp_path):
    with runtime_env_of(study) as env:
        assert env == {"py_modules": [str(tmp_path / "hidden_width.py"), str(tmp_path / "rings_study.py")]}
        assert OVERRIDE not in os.environ


def test_a_shipped_task_needs_nothing():
    with runtime_env_of(load_study("studies/quick.py")) as env:
        assert env is None


@pytest.mark.parametrize("before", [None, "0"])
def test_modules_of_a_submitted_job_stay(study, monkeypatch, before):
    monkeypatch.setenv(JOB, json.dumps({"runtime_env": {"py_modules": ["gcs://a.zip"], "env_vars": {"A": "1"}}}))
    if before is not None:
        monkeypatch.setenv(OVERRIDE, before)
    with runtime_env_of(study) as env:
        assert env["py_modules"][0] == "gcs://a.zip"
        assert len(env["py_modules"]) == 3
        assert os.environ[OVERRIDE] == "1"
    assert os.environ.get(OVERRIDE) == before


def test_a_package_travels_as_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    package = tmp_path / "rings_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    path = write_study(package, change=lambda text: text.replace("from hidden", "from rings_package.hidden"))
    from rings_package.rings_study import STUDY

    with runtime_env_of(STUDY) as env:
        assert env == {"py_modules": [str(package)]}
    assert path.exists()
