"""How a process reaches the pool's actors: a line to each, or Ray's calls; never more under way than are of use."""

import socket
import threading
from contextlib import suppress

import pytest
import torch
from support.pool_requests import SPEC, angles

from qsgd_ray.circuits.backends.in_process import TorchBackend
from qsgd_ray.pool._transport import Line, LineBroken
from qsgd_ray.pool.router import IN_FLIGHT, Member, Switchboard


@pytest.fixture(autouse=True)
def _doors_are_waited_for(monkeypatch):
    """A training goes on with Ray's calls where an address takes a second, as it may on a busy machine."""
    monkeypatch.setattr("qsgd_ray.pool.router.DOOR_S", 30.0)


def test_no_more_than_some_calls_are_under_way(pool):
    backend = pool.backend()
    pending = [backend.submit(SPEC, angles(3, seed)) for seed in range(40)]
    assert all(line.under_way <= IN_FLIGHT for line in backend.actors._lines.values())
    for seed, own in enumerate(pending):
        assert torch.equal(own.result(), TorchBackend().submit(SPEC, angles(3, seed)).result())
    assert all(line.under_way == 0 for line in backend.actors._lines.values())


def test_without_a_line_ray_s_own_calls_answer(pool, monkeypatch):
    monkeypatch.setattr(Switchboard, "line", lambda *_: None)
    backend = pool.backend()
    pending = [backend.submit(SPEC, angles(3, seed)) for seed in range(40)]
    assert len(backend.actors._in_flight) <= 2 * IN_FLIGHT
    for seed, own in enumerate(pending):
        assert torch.equal(own.result(), TorchBackend().submit(SPEC, angles(3, seed)).result())
    assert backend.actors._in_flight == []


def test_a_door_that_cannot_be_reached_is_not_tried_at_every_step(made, monkeypatch, caplog):
    backend, tried = made(1).backend(), []

    def unreachable(*_):
        tried.append(1)
        raise LineBroken("timed out")

    monkeypatch.setattr("qsgd_ray.pool.router.Line", unreachable)
    for seed in range(5):
        near = TorchBackend().submit(SPEC, angles(3, seed)).result()
        assert torch.equal(backend.submit(SPEC, angles(3, seed)).result(), near)
    assert len(tried) == 1
    assert [record.message for record in caplog.records if "no direct line to circuit actor 0" in record.message]


def test_an_old_lines_failure_leaves_the_new_line_alone(pool, silent):
    backend = pool.backend()
    backend.submit(SPEC, angles(2)).result()
    ((number, line),) = backend.actors._lines.items()
    member = Member(number, backend.actors.roster.members()[number])
    backend.actors.hang_up(member, Line(silent, b"old"))
    assert backend.actors._lines == {number: line}
    backend.actors.hang_up(member, line)
    assert backend.actors._lines == {}


def test_what_is_asked_and_not_collected_does_not_stay(pool):
    backend = pool.backend()
    backend.submit(SPEC, angles(2)).result()
    for seed in range(20):
        backend.submit(SPEC, angles(2, 100 + seed))
    backend.submit(SPEC, angles(2, 500)).result()
    backend.submit(SPEC, angles(2, 501)).result()
    assert sum(len(line._arrived) + len(line._unwanted) for line in backend.actors._lines.values()) <= IN_FLIGHT


def test_the_secret_is_not_told(pool):
    assert "secret" not in repr(pool.backend())


def test_a_line_that_breaks_while_room_is_waited_for_is_hung_up(pool, silent):
    board = pool.backend().actors
    line = Line(silent, b"any")
    line._waiting.extend(range(IN_FLIGHT))
    board._lines[0] = line
    line.close()
    with pytest.raises(LineBroken):
        board.line(Member(0, board.roster.members()[0]))
    assert board._lines == {}


def test_for_room_is_waited_once_until_an_answer_comes(pool, silent, monkeypatch):
    monkeypatch.setattr("qsgd_ray.pool.router.ROOM_S", 0.2)
    board = pool.backend().actors
    board._lines[0] = line = Line(silent, b"any")
    line._waiting.extend(range(IN_FLIGHT))
    waited = []
    monkeypatch.setattr(line, "next", lambda seconds: waited.append(seconds))
    for _ in range(3):
        assert board.line(Member(0, board.roster.members()[0])) is line
    assert waited == [0.2]
    board.arrived(None)
    board.line(Member(0, board.roster.members()[0]))
    assert waited == [0.2, 0.2]


def test_whoever_lets_lines_in_and_hangs_up_is_asked_by_ray_s_calls(pool, monkeypatch):
    """As something between this machine and the actor's may."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=let_in_and_hang_up, args=(listener,), daemon=True).start()
        elsewhere = listener.getsockname()
        monkeypatch.setattr("qsgd_ray.pool.router.Line", lambda _, secret: Line(elsewhere, secret))
        backend = pool.backend()
        assert torch.equal(backend.submit(SPEC, angles(3)).result(), TorchBackend().submit(SPEC, angles(3)).result())
        assert backend.actors._shut
        listener.shutdown(socket.SHUT_RDWR)


def let_in_and_hang_up(listener):
    with suppress(OSError):
        while True:
            guest, _ = listener.accept()
            with guest:
                read = 0
                while read < 200 and (more := guest.recv(1024)):  # the secret and half a question
                    read += len(more)
