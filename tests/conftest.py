"""One private Ray for all tests that want one, started on first use."""

import os
import warnings
from pathlib import Path

import pytest
from made import a_study

from qsgd_ray.config import with_overrides


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory):
    """A private cluster with room for two trials of two workers and a circuit actor."""
    from qsgd_ray.connection import connect

    # What tests hand to workers is found there by the name of its module.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    study = with_overrides(a_study(), ["arms.sine.perturbation.source=circuit", "search.workers=4"])
    with warnings.catch_warnings():
        # Ray warns of coming changes of its defaults, for GPUs that this cluster does not have.
        warnings.simplefilter("ignore")
        with connect(study, None, Path(tmp_path_factory.mktemp("cluster"))) as cluster:
            yield cluster
