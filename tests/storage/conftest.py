"""An S3 server on loopback, a prefix of each test's own in it, and an opened study's results there."""

import pytest
from support.small_study import a_study
from support.stores import BUCKET, client, credentials, s3_server

from qsgd_ray.results import Results


@pytest.fixture(scope="module")
def server():
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def s3(server, monkeypatch):
    """The server's own client, with the environment set for ours."""
    for name, value in credentials(server).items():
        monkeypatch.setenv(name, value)
    return client(server)


@pytest.fixture
def uri(s3, request) -> str:
    """A prefix of the test's own."""
    return f"s3://{BUCKET}/{abs(hash(request.node.name))}"


@pytest.fixture
def results(uri) -> Results:
    results = Results(uri)
    results.open(a_study(), {"commit": None})
    return results
