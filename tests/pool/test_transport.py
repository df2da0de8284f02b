"""A connection to an actor: the same arrays out as in, errors in one line, broken connections raised at once."""

import socket
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qsgd_ray.circuits.backends.protocol import Sampling
from qsgd_ray.circuits.errors import CircuitError
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config.circuit import NoiseSettings
from qsgd_ray.pool._connection import Connection
from qsgd_ray.pool._request import CircuitRequest
from qsgd_ray.pool._server import CircuitServer
from qsgd_ray.pool._transport import ConnectionLost, EncodedRequest, decode, encode

SECRET = b"s" * 32
MAY_ANSWER = threading.Event()


TWO = CircuitSpec(2)


def request_of(batch=3, spec=TWO, keys=False, sampling=None):
    angles = np.random.default_rng(batch).normal(size=spec.angles_shape(batch))
    return CircuitRequest(spec, angles, "z", np.arange(batch) if keys else None, sampling, batch + 1)


@pytest.fixture
def server():
    def answer(request):
        if len(request.angles_bdnr) == 5:
            raise CircuitError("five are too many")
        if len(request.angles_bdnr) == 6:
            raise KeyError("six")
        if len(request.angles_bdnr) == 7:
            MAY_ANSWER.wait(30)
        return request.angles_bdnr.sum((1, 3)), 0.25

    server = CircuitServer(answer, SECRET, "127.0.0.1")
    yield server
    server.close()


@given(
    st.integers(0, 4),
    st.builds(CircuitSpec, st.integers(1, 3), st.integers(1, 2), st.sampled_from(["chain", "none"])),
    st.booleans(),
    st.sampled_from([None, Sampling(5, None), Sampling(None, NoiseSettings(p01=0.1)), Sampling(3, NoiseSettings())]),
)
def test_circuits_arrive_as_they_were_sent(batch, spec, keys, sampling):
    request = request_of(batch, spec, keys, sampling)
    sent = encode(request)
    header, angles, own_keys = (bytearray(piece) for piece in sent.pieces[1:])
    received = decode(EncodedRequest(header, angles, own_keys, sent.batch, sent.batch_size))
    assert np.array_equal(received.angles_bdnr, request.angles_bdnr)
    assert (received.keys_b is None) == (request.keys_b is None)
    assert request.keys_b is None or np.array_equal(received.keys_b, request.keys_b)
    assert (received.spec, received.readout, received.sampling, received.batch_size) == (spec, "z", sampling, batch + 1)


def test_answers_are_collected_in_any_order(server):
    connection = Connection(server.address, SECRET)
    sent = {n: connection.send(request_of(n)) for n in (1, 2, 0, 4)}
    assert connection.n_pending == 4
    for n in (4, 1, 0, 2):
        values, busy_s = connection.collect(sent[n], 5)
        assert np.array_equal(values, request_of(n).angles_bdnr.sum((1, 3)))
        assert busy_s == 0.25
    assert connection.n_pending == 0


def test_what_the_actor_refuses_is_raised_and_the_connection_stays(server):
    connection = Connection(server.address, SECRET)
    tickets = [connection.send(request_of(n)) for n in (5, 6, 1)]
    with pytest.raises(CircuitError, match=r"^five are too many$"):
        connection.collect(tickets[0], 5)
    with pytest.raises(CircuitError, match=r"^KeyError: 'six'$"):
        connection.collect(tickets[1], 5)
    assert connection.collect(tickets[2], 5) is not None


def test_an_answer_that_is_late_comes_later(server):
    connection = Connection(server.address, SECRET)
    MAY_ANSWER.clear()
    ticket = connection.send(request_of(7))
    assert connection.collect(ticket, 0.05) is None
    MAY_ANSWER.set()
    assert connection.collect(ticket, 30) is not None


def test_the_time_for_an_answer_is_one_whatever_comes_before_it(server):
    connection = Connection(server.address, SECRET)
    MAY_ANSWER.clear()
    tickets = [connection.send(request_of(n)) for n in (1, 1, 7)]
    began = time.monotonic()
    assert connection.collect(tickets[-1], 2) is None
    assert time.monotonic() - began >= 2
    assert connection.n_pending == 1
    MAY_ANSWER.set()
    assert connection.collect(tickets[-1], 30) is not None


def test_a_server_that_is_busy_for_long_keeps_its_connections():
    """What it does not read meanwhile is more than its buffers hold: nothing of it moves for seconds."""

    def answer(request):
        time.sleep(1.5)
        return request.angles_bdnr.sum((1, 3)), 1.5

    server = CircuitServer(answer, SECRET, "127.0.0.1")
    connection = Connection(server.address, SECRET)
    assert connection._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
    large = request_of(60_000)
    tickets = [connection.send(large) for _ in range(3)]
    for ticket in tickets:
        assert np.array_equal(connection.collect(ticket, 30)[0], large.angles_bdnr.sum((1, 3)))
    server.close()


def test_what_went_wrong_in_the_actor_is_logged_there(server, caplog):
    connection = Connection(server.address, SECRET)
    for n in (5, 6):
        with pytest.raises(CircuitError):
            connection.collect(connection.send(request_of(n)), 5)
    assert [record.exc_info[0] for record in caplog.records] == [KeyError]


def test_a_client_without_the_secret_is_not_served(server):
    connection = Connection(server.address, b"x" * 32)
    with pytest.raises(ConnectionLost):
        connection.collect(connection.send(request_of()), 5)


def test_a_connection_to_nobody_and_one_that_ends_are_lost():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = Connection(listener.getsockname(), SECRET)
        client, _ = listener.accept()
        ticket = connection.send(request_of())
        client.close()
        with pytest.raises(ConnectionLost):
            connection.collect(ticket, 5)
        address = listener.getsockname()
    with pytest.raises(ConnectionLost):
        Connection(address, SECRET)


def test_a_closed_connection_is_lost(server):
    connection = Connection(server.address, SECRET)
    ticket = connection.send(request_of())
    connection.close()
    with pytest.raises(ConnectionLost, match="the line was hung up"):
        connection.collect(ticket, 5)
    with pytest.raises(ConnectionLost):
        connection.send(request_of())


def test_large_answers_do_not_block_large_requests(server):
    connection = Connection(server.address, SECRET)
    large = request_of(20_000)  # 1.3 MB there, more than a socket's buffers hold
    tickets = [connection.send(large) for _ in range(3)]
    for ticket in tickets:
        values, _ = connection.collect(ticket, 30)
        assert np.array_equal(values, large.angles_bdnr.sum((1, 3)))


def test_too_many_unauthenticated_clients_are_refused_and_later_ones_with_the_secret_are_served(server, monkeypatch):
    monkeypatch.setattr("qsgd_ray.pool._server._MAX_UNAUTHENTICATED", 2)
    monkeypatch.setattr("qsgd_ray.pool._server.CONNECT_S", 60.0)
    clients = [socket.create_connection(server.address) for _ in range(2)]
    wait_until(lambda: len(server._unauthenticated) == 2)
    request = request_of(1, CircuitSpec(1), False, None)
    with pytest.raises(ConnectionLost):
        collected(Connection(server.address, SECRET), request)
    for client in clients:
        client.close()
    wait_until(lambda: not server._unauthenticated)
    assert collected(Connection(server.address, SECRET), request) is not None


def collected(connection, request):
    return connection.collect(connection.send(request), 5)


def test_a_client_that_trickles_its_secret_is_disconnected_in_time(server, monkeypatch):
    monkeypatch.setattr("qsgd_ray.pool._server.CONNECT_S", 0.3)
    with socket.create_connection(server.address) as client:
        client.sendall(SECRET[:1])
        client.settimeout(5)
        assert client.recv(1) == b""


def test_an_answer_that_nobody_wants_is_dropped_when_it_comes(server):
    connection = Connection(server.address, SECRET)
    tickets = [connection.send(request_of(1, CircuitSpec(1), False, None)) for _ in range(3)]
    connection.discard(tickets[1])
    assert connection.collect(tickets[2], 5) is not None
    assert set(connection._arrived) == {tickets[0]}
    assert not connection._unwanted
    connection.discard(tickets[0])
    assert not connection._arrived


def wait_until(holds) -> None:
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < 10
        time.sleep(0.01)


def test_a_message_whose_rest_does_not_follow_ends_the_connection(monkeypatch):
    monkeypatch.setattr("qsgd_ray.pool._transport._REST_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = Connection(listener.getsockname(), SECRET)
        other, _ = listener.accept()
        with other:
            connection.send(request_of())
            other.sendall(b"???")
            began = time.monotonic()
            with pytest.raises(ConnectionLost):
                connection.receive(5)
            assert time.monotonic() - began < 5
