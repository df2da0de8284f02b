import socket

import pytest

from qsgd_ray.pool._transport import Address
from qsgd_ray.pool.pool import CircuitPool
from qsgd_ray.study._stages import POOL_START_TIMEOUT_S


@pytest.fixture(scope="module")
def pool(cluster):
    pool = CircuitPool(n_actors=2, cpus_per_actor=0.5, timeout_s=60)
    pool.wait_until_ready(timeout_s=POOL_START_TIMEOUT_S)
    yield pool
    pool.close()


@pytest.fixture
def made(cluster):
    """Pools that are closed again."""
    pools = []

    def make(n_actors=1, timeout_s=60, **options):
        pools.append(CircuitPool(n_actors, 0.1, timeout_s, **options))
        pools[-1].wait_until_ready(timeout_s=POOL_START_TIMEOUT_S)
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


@pytest.fixture
def silent():
    """The address of somebody who listens and never answers, as a machine that is gone does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Address("127.0.0.1", listener.getsockname()[1])
