"""A direct line to an actor: the same arrays out as in, errors in one line, broken lines told at once."""

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
from qsgd_ray.pool._request import CircuitRequest
from qsgd_ray.pool._transport import Door, Line, LineBroken, _decoded, _encoded

SECRET = b"s" * 32
MAY_ANSWER = threading.Event()


TWO = CircuitSpec(2)


def asked_of(batch=3, spec=TWO, keys=False, sampling=None):
    angles = np.random.default_rng(batch).normal(size=spec.angles_shape(batch))
    return CircuitRequest(spec, angles, "z", np.arange(batch) if keys else None, sampling, batch + 1)


@pytest.fixture
def door():
    def answer(asked):
        if len(asked.angles_bdnr) == 5:
            raise CircuitError("five are too many")
        if len(asked.angles_bdnr) == 6:
            raise KeyError("six")
        if len(asked.angles_bdnr) == 7:
            MAY_ANSWER.wait(30)
        return asked.angles_bdnr.sum((1, 3)), 0.25

    door = Door(answer, SECRET, "127.0.0.1")
    yield door
    door.close()


@given(
    st.integers(0, 4),
    st.builds(CircuitSpec, st.integers(1, 3), st.integers(1, 2), st.sampled_from(["chain", "none"])),
    st.booleans(),
    st.sampled_from([None, Sampling(5, None), Sampling(None, NoiseSettings(p01=0.1)), Sampling(3, NoiseSettings())]),
)
def test_circuits_arrive_as_they_were_sent(batch, spec, keys, sampling):
    asked = asked_of(batch, spec, keys, sampling)
    header, angles, own_keys = _encoded(asked)
    found = _decoded(bytearray(header), bytearray(angles), bytearray(own_keys), batch, asked.of)
    assert np.array_equal(found.angles_bdnr, asked.angles_bdnr)
    assert (found.keys_b is None) == (asked.keys_b is None)
    assert asked.keys_b is None or np.array_equal(found.keys_b, asked.keys_b)
    assert (found.spec, found.readout, found.sampling, found.of) == (spec, "z", sampling, batch + 1)


def test_answers_are_collected_in_any_order(door):
    line = Line(door.address, SECRET)
    sent = {n: line.send(asked_of(n)) for n in (1, 2, 0, 4)}
    assert line.under_way == 4
    for n in (4, 1, 0, 2):
        values, busy_s = line.collect(sent[n], 5)
        assert np.array_equal(values, asked_of(n).angles_bdnr.sum((1, 3)))
        assert busy_s == 0.25
    assert line.under_way == 0


def test_what_the_actor_refuses_is_told_and_the_line_stays(door):
    line = Line(door.address, SECRET)
    tickets = [line.send(asked_of(n)) for n in (5, 6, 1)]
    with pytest.raises(CircuitError, match=r"^five are too many$"):
        line.collect(tickets[0], 5)
    with pytest.raises(CircuitError, match=r"^KeyError: 'six'$"):
        line.collect(tickets[1], 5)
    assert line.collect(tickets[2], 5) is not None


def test_an_answer_that_is_late_comes_later(door):
    line = Line(door.address, SECRET)
    MAY_ANSWER.clear()
    ticket = line.send(asked_of(7))
    assert line.collect(ticket, 0.05) is None
    MAY_ANSWER.set()
    assert line.collect(ticket, 30) is not None


def test_the_time_for_an_answer_is_one_whatever_comes_before_it(door):
    line = Line(door.address, SECRET)
    MAY_ANSWER.clear()
    tickets = [line.send(asked_of(n)) for n in (1, 1, 7)]
    began = time.monotonic()
    assert line.collect(tickets[-1], 2) is None
    assert time.monotonic() - began >= 2
    assert line.under_way == 1
    MAY_ANSWER.set()
    assert line.collect(tickets[-1], 30) is not None


def test_a_door_that_is_busy_for_long_keeps_its_lines():
    """What it does not read meanwhile is more than its buffers hold: nothing of it moves for seconds."""

    def answer(asked):
        time.sleep(1.5)
        return asked.angles_bdnr.sum((1, 3)), 1.5

    door = Door(answer, SECRET, "127.0.0.1")
    line = Line(door.address, SECRET)
    assert line._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
    large = asked_of(60_000)
    tickets = [line.send(large) for _ in range(3)]
    for ticket in tickets:
        assert np.array_equal(line.collect(ticket, 30)[0], large.angles_bdnr.sum((1, 3)))
    door.close()


def test_what_went_wrong_in_the_actor_is_logged_there(door, caplog):
    line = Line(door.address, SECRET)
    for n in (5, 6):
        with pytest.raises(CircuitError):
            line.collect(line.send(asked_of(n)), 5)
    assert [record.exc_info[0] for record in caplog.records] == [KeyError]


def test_who_does_not_know_the_secret_is_not_served(door):
    line = Line(door.address, b"x" * 32)
    with pytest.raises(LineBroken):
        line.collect(line.send(asked_of()), 5)


def test_a_line_to_nobody_and_a_line_that_ends_say_so():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        line = Line(listener.getsockname(), SECRET)
        guest, _ = listener.accept()
        ticket = line.send(asked_of())
        guest.close()
        with pytest.raises(LineBroken):
            line.collect(ticket, 5)
        address = listener.getsockname()
    with pytest.raises(LineBroken):
        Line(address, SECRET)


def test_a_line_that_was_hung_up_says_so(door):
    line = Line(door.address, SECRET)
    ticket = line.send(asked_of())
    line.close()
    with pytest.raises(LineBroken, match="the line was hung up"):
        line.collect(ticket, 5)
    with pytest.raises(LineBroken):
        line.send(asked_of())


def test_large_answers_do_not_block_large_questions(door):
    line = Line(door.address, SECRET)
    large = asked_of(20_000)  # 1.3 MB there, more than a socket's buffers hold
    tickets = [line.send(large) for _ in range(3)]
    for ticket in tickets:
        values, _ = line.collect(ticket, 30)
        assert np.array_equal(values, large.angles_bdnr.sum((1, 3)))


def test_too_many_strangers_are_sent_away_and_those_who_know_the_secret_come_in(door, monkeypatch):
    monkeypatch.setattr("qsgd_ray.pool._transport.STRANGERS", 2)
    monkeypatch.setattr("qsgd_ray.pool._transport.CONNECT_S", 60.0)
    strangers = [socket.create_connection(door.address) for _ in range(2)]
    wait_until(lambda: len(door._strangers) == 2)
    asked = asked_of(1, CircuitSpec(1), False, None)
    with pytest.raises(LineBroken):
        collected(Line(door.address, SECRET), asked)
    for stranger in strangers:
        stranger.close()
    wait_until(lambda: not door._strangers)
    assert collected(Line(door.address, SECRET), asked) is not None


def collected(line, asked):
    return line.collect(line.send(asked), 5)


def test_a_stranger_who_trickles_is_sent_away_in_time(door, monkeypatch):
    monkeypatch.setattr("qsgd_ray.pool._transport.CONNECT_S", 0.3)
    with socket.create_connection(door.address) as stranger:
        stranger.sendall(SECRET[:1])
        stranger.settimeout(5)
        assert stranger.recv(1) == b""


def test_an_answer_that_nobody_wants_is_dropped_when_it_comes(door):
    line = Line(door.address, SECRET)
    tickets = [line.send(asked_of(1, CircuitSpec(1), False, None)) for _ in range(3)]
    line.forget(tickets[1])
    assert line.collect(tickets[2], 5) is not None
    assert set(line._arrived) == {tickets[0]}
    assert not line._unwanted
    line.forget(tickets[0])
    assert not line._arrived


def wait_until(holds) -> None:
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < 10
        time.sleep(0.01)


def test_a_message_whose_rest_does_not_follow_breaks_the_line(monkeypatch):
    monkeypatch.setattr("qsgd_ray.pool._transport.REST_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        line = Line(listener.getsockname(), SECRET)
        other, _ = listener.accept()
        with other:
            line.send(asked_of())
            other.sendall(b"???")
            began = time.monotonic()
            with pytest.raises(LineBroken):
                line.next(5)
            assert time.monotonic() - began < 5
