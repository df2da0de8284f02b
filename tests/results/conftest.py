"""A folder in which a small study was run to its end."""

import pytest
from support.rerun_studies import run_through
from support.small_study import a_study

from qsgd_ray.results import Results


@pytest.fixture
def results(tmp_path) -> Results:
    """Results of a study that was run to its end."""
    results = Results(tmp_path / "small")
    results.open(a_study(), {})
    assert len(run_through(a_study(), results)) == 8
    return results
