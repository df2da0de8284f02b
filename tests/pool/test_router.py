"""The router reaches actors by connections or Ray's calls, with no more requests under way than are of use."""

import socket
import threading
from contextlib import suppress

import pytest
import torch
from support.pool_requests import SPEC, angles

from qsgd_ray.circuits.backends.in_process import TorchBackend
from qsgd_ray.pool._connection import Connection
from qsgd_ray.pool._transport import ConnectionLost
from qsgd_ray.pool.router import _MAX_IN_FLIGHT, Member, Router


@pytest.fixture(autouse=True)
def _wait_for_addresses(monkeypatch):
    """A training goes on with Ray's calls where an address takes a second, as it may on a busy machine."""
    monkeypatch.setattr("qsgd_ray.pool.router._ADDRESS_WAIT_S", 30.0)


def test_no_more_than_some_calls_are_under_way(pool):
    backend = pool.backend()
    pending = [backend.submit(SPEC, angles(3, seed)) for seed in range(40)]
    assert all(connection.n_pending <= _MAX_IN_FLIGHT for connection in backend.router._connections.values())
    for seed, own in enumerate(pending):
        assert torch.equal(own.result(), TorchBackend().submit(SPEC, angles(3, seed)).result())
    assert all(connection.n_pending == 0 for connection in backend.router._connections.values())


def test_without_a_connection_ray_s_calls_answer(pool, monkeypatch):
    monkeypatch.setattr(Router, "connection", lambda *_: None)
    backend = pool.backend()
    pending = [backend.submit(SPEC, angles(3, seed)) for seed in range(40)]
    assert len(backend.router._in_flight) <= 2 * _MAX_IN_FLIGHT
    for seed, own in enumerate(pending):
        assert torch.equal(own.result(), TorchBackend().submit(SPEC, angles(3, seed)).result())
    assert backend.router._in_flight == []


def test_a_server_that_cannot_be_reached_is_not_tried_at_every_step(made, monkeypatch, caplog):
    backend, attempts = made(1).backend(), []

    def unreachable(*_):
        attempts.append(1)
        raise ConnectionLost("timed out")

    monkeypatch.setattr("qsgd_ray.pool.router.Connection", unreachable)
    for seed in range(5):
        near = TorchBackend().submit(SPEC, angles(3, seed)).result()
        assert torch.equal(backend.submit(SPEC, angles(3, seed)).result(), near)
    assert len(attempts) == 1
    assert [record.message for record in caplog.records if "no direct line to circuit actor 0" in record.message]


def test_an_old_connections_failure_leaves_the_new_one_alone(pool, silent):
    backend = pool.backend()
    backend.submit(SPEC, angles(2)).result()
    ((number, connection),) = backend.router._connections.items()
    member = Member(number, backend.router.membership.members()[number])
    backend.router.disconnect(member, Connection(silent, b"old"))
    assert backend.router._connections == {number: connection}
    backend.router.disconnect(member, connection)
    assert backend.router._connections == {}


def test_answers_that_are_not_collected_do_not_stay(pool):
    backend = pool.backend()
    backend.submit(SPEC, angles(2)).result()
    for seed in range(20):
        backend.submit(SPEC, angles(2, 100 + seed))
    backend.submit(SPEC, angles(2, 500)).result()
    backend.submit(SPEC, angles(2, 501)).result()
    connections = backend.router._connections.values()
    assert sum(len(each._arrived) + len(each._unwanted) for each in connections) <= _MAX_IN_FLIGHT


def test_the_secret_is_not_shown(pool):
    assert "secret" not in repr(pool.backend())


def test_a_connection_that_breaks_during_the_wait_for_room_is_closed(pool, silent):
    router = pool.backend().router
    connection = Connection(silent, b"any")
    connection._pending.extend(range(_MAX_IN_FLIGHT))
    router._connections[0] = connection
    connection.close()
    with pytest.raises(ConnectionLost):
        router.connection(Member(0, router.membership.members()[0]))
    assert router._connections == {}


def test_the_wait_for_room_is_not_repeated_until_an_answer_comes(pool, silent, monkeypatch):
    monkeypatch.setattr("qsgd_ray.pool.router._QUEUE_WAIT_S", 0.2)
    router = pool.backend().router
    router._connections[0] = connection = Connection(silent, b"any")
    connection._pending.extend(range(_MAX_IN_FLIGHT))
    waited = []
    monkeypatch.setattr(connection, "receive", lambda seconds: waited.append(seconds))
    for _ in range(3):
        assert router.connection(Member(0, router.membership.members()[0])) is connection
    assert waited == [0.2]
    router.mark_answered(None)
    router.connection(Member(0, router.membership.members()[0]))
    assert waited == [0.2, 0.2]


def test_where_connections_are_accepted_and_closed_ray_s_calls_answer(pool, monkeypatch):
    """A proxy between this machine and the actor's may do so."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept_and_close, args=(listener,), daemon=True).start()
        elsewhere = listener.getsockname()
        monkeypatch.setattr("qsgd_ray.pool.router.Connection", lambda _, secret: Connection(elsewhere, secret))
        backend = pool.backend()
        assert torch.equal(backend.submit(SPEC, angles(3)).result(), TorchBackend().submit(SPEC, angles(3)).result())
        assert backend.router._unreachable
        listener.shutdown(socket.SHUT_RDWR)


def accept_and_close(listener):
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            with client:
                read = 0
                while read < 200 and (more := client.recv(1024)):  # the secret and half a request
                    read += len(more)
