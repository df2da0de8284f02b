"""One private Ray for all tests that want one, started on first use; what a process of pytest-xdist runs, and when."""

import os
import warnings
from pathlib import Path

# Threads of torch that wait for each other spin, and so take the core from the one that they wait for, where two
# processes compute on two cores: on a crowded machine 5 tests of optimizer/test_one_pass.py ended with spinning and
# all 100 without in the same time (2026-12-01). Read when torch is loaded; changes no bit.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Ray starts its workers at niceness 15: beside a test that computes they hardly run, and take a minute to start.
os.environ.setdefault("RAY_worker_niceness", "0")

import hypothesis
import pytest
from support.places import ROOT, TESTS
from support.processes import STARTS_RAY_S
from support.small_study import a_study
from support.units import in_units, longest_first

from qsgd_ray.config.loading import with_overrides

# Speed is measured by benchmarks; a busy machine must not fail a law.
hypothesis.settings.register_profile("laws", deadline=None)
hypothesis.settings.load_profile("laws")


# Fixtures that start Ray, or whole studies by the command.
STARTS_RAY = {"cluster", "whole", "interrupted", "finished"}


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in its own
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what starts Ray and what runs benches; keep together what shares a cluster, or a file and its fixtures."""
    for item in items:
        if STARTS_RAY & {*getattr(item, "fixturenames", ())}:
            item.add_marker(pytest.mark.ray)
        if "bench" in item.path.parts:
            item.add_marker(pytest.mark.bench)
        starts_ray = "cluster" in getattr(item, "fixturenames", ()) or item.path.name == "test_cli.py"
        is_told = item.get_closest_marker("xdist_group") or item.get_closest_marker("timeout")
        if starts_ray and not is_told:
            item.add_marker(pytest.mark.timeout(STARTS_RAY_S))
    in_units(items)
    if hasattr(config, "workerinput"):  # one of several processes
        items[:] = longest_first(items)


@pytest.fixture(scope="module")
def one_thread():
    """torch on one thread: on a busy machine, threads that wait for each other make small models 50 times slower."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory):
    """A private cluster with room for two trials of two workers and a circuit actor."""
    from qsgd_ray.execution.connection import connect

    # What tests hand to workers is found there by the name of its module.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS), str(ROOT), os.environ.get("PYTHONPATH", "")])
    study = with_overrides(a_study(), ["arms.sine.perturbation.source=circuit", "search.workers=4"])
    with warnings.catch_warnings():
        # Ray warns of coming changes of its defaults, for GPUs that this cluster does not have.
        warnings.simplefilter("ignore")
        with connect(study, None, Path(tmp_path_factory.mktemp("cluster"))) as cluster:
            yield cluster
