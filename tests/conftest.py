"""One private Ray for all tests that want one, started on first use."""

import os
import warnings
from pathlib import Path

import hypothesis
import pytest
from support.places import ROOT, TESTS
from support.processes import STARTS_RAY_S
from support.small_study import a_study

from qsgd_ray.config.loading import with_overrides

# Ray starts its workers at niceness 15: beside a test that computes they hardly run, and take a minute to start.
os.environ.setdefault("RAY_worker_niceness", "0")

# Speed is measured by benchmarks; a busy machine must not fail a law.
hypothesis.settings.register_profile("laws", deadline=None)
hypothesis.settings.load_profile("laws")


# Fixtures that start Ray, or whole studies by the command.
STARTS_RAY = {"cluster", "whole", "interrupted", "finished"}


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in its own
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts Ray and what runs benches; keep together what shares a cluster.

    With several processes (pytest-xdist), tests that share the cluster run in one of them, and so do those of a file
    that starts whole studies.
    """
    for item in items:
        if STARTS_RAY & {*getattr(item, "fixturenames", ())}:
            item.add_marker(pytest.mark.ray)
        if "bench" in item.path.parts:
            item.add_marker(pytest.mark.bench)
        if item.get_closest_marker("xdist_group"):
            continue
        if "cluster" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("cluster"))
        elif item.path.name == "test_cli.py":
            item.add_marker(pytest.mark.xdist_group("cli"))
        else:
            continue
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(STARTS_RAY_S))


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
