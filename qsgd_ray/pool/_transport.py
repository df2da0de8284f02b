"""A direct line to a circuit actor: circuits over a socket, answers back in their order, beside Ray's own calls.

A call of Ray with 128 KB there and back takes 3 to 4 ms more than the simulation, a socket 0.3. Ray's compiled graphs
are as quick (ray-project/ray, ray.dag), but an actor holds one graph only, a second one hangs, and one whose actor died
takes up to half a minute to tear down; a pool is shared by trials, and its actors may die at any time. What a line
cannot do is left to Ray: placing, starting and ending actors. A line that breaks says so at once.

A message is a header in JSON and two arrays as they are in memory; nothing is unpickled. Whoever connects shows the
pool's secret first.
"""

from __future__ import annotations

import hmac
import json
import logging
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qsgd_ray.circuits.backends.protocol import Sampling
from qsgd_ray.circuits.errors import CircuitError
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config.circuit import NoiseSettings, Readout
from qsgd_ray.pool._request import CircuitRequest

# Bytes of the header, of the angles and of the keys, circuits, and of how many they are a part; and back: what it is,
# seconds at work, rows, columns.
REQUEST = struct.Struct("<qqqqq")
REPLY = struct.Struct("<Bdqq")
ANSWER, REFUSED = 0, 1
NO_KEYS = memoryview(b"")
CONNECT_S = 5.0
# How many may stand before the door who have not shown the secret.
STRANGERS = 64
# Once a message has begun, its rest follows.
REST_S = 60.0
# After a message the next one is looked out for, so long and so often: steps of a training follow each other.
LOOK_OUT_S, LOOK_EVERY_S = 0.05, 2e-4

log = logging.getLogger(__name__)

Answer = tuple[NDArray[np.float64], float]


class Address(NamedTuple):
    """Where a door is."""

    host: str
    port: int


class AtWork(NamedTuple):
    """What an actor tells whoever waits for it: for how many seconds it has been at the call under way, None where
    nobody asks anything, and where its door is, None where nobody wanted to know."""

    seconds: float | None
    door: Address | None


class LineBroken(Exception):
    """This line carries nothing any more: the actor at the other end is gone, or moved, or it was hung up."""


class Door:
    """The actor's side: a listening socket, and a thread for each who comes in."""

    def __init__(self, answer: Callable[[CircuitRequest], Answer], secret: bytes, host: str) -> None:
        self._answer = answer
        self._secret = secret
        self._closed = False
        self._strangers: set[socket.socket] = set()  # they have not shown the secret yet
        self._guests: set[socket.socket] = set()
        self._listener = socket.create_server((host, 0), backlog=128)
        self.address = Address(host, int(self._listener.getsockname()[1]))
        threading.Thread(target=self._let_in, name="door", daemon=True).start()

    def close(self) -> None:
        """Nobody comes in any more."""
        self._closed = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _let_in(self) -> None:
        while True:
            try:
                guest, _ = self._listener.accept()
            except OSError:
                if self._closed:
                    return
                time.sleep(LOOK_OUT_S)  # too many files are open: some will be closed
                continue
            if len(self._strangers) >= STRANGERS:
                guest.close()
                continue
            self._strangers.add(guest)
            threading.Thread(target=self._serve, args=(guest,), name="line", daemon=True).start()

    def _serve(self, guest: socket.socket) -> None:
        with guest:
            try:
                if not self._knows(guest):
                    return
                guest.settimeout(None)
                _tune(guest)
                self._guests.add(guest)
                coming = select.poll()
                coming.register(guest, select.POLLIN)
                while True:
                    self._look_out(coming)
                    *sizes, batch, of = REQUEST.unpack(_read(guest, REQUEST.size))
                    header, angles, keys = (_read(guest, size) for size in sizes)
                    guest.sendall(self._reply(header, angles, keys, batch, of))
            except (LineBroken, OSError):
                return
            finally:
                self._strangers.discard(guest)
                self._guests.discard(guest)

    def _knows(self, stranger: socket.socket) -> bool:
        """Does it show the secret, whole and in time?"""
        hangs_up = threading.Timer(CONNECT_S, stranger.shutdown, [socket.SHUT_RDWR])
        hangs_up.daemon = True
        hangs_up.start()
        try:
            return hmac.compare_digest(_read(stranger, len(self._secret)), self._secret)
        finally:
            hangs_up.cancel()
            self._strangers.discard(stranger)

    def _look_out(self, coming: select.poll) -> None:
        """For the next message, for a while by looking now and then.

        Who sleeps in the system's call until it comes is woken by the sender's processor, which costs the sender 40 us
        of its step, and the two then often share a core while another idles (two cores, Linux 6, 2026-11-24).
        """
        until = time.monotonic() + LOOK_OUT_S
        while not coming.poll(0) and time.monotonic() < until:
            time.sleep(LOOK_EVERY_S * len(self._guests))

    def _reply(self, header: bytearray, angles: bytearray, keys: bytearray, batch: int, of: int) -> bytes:
        try:
            values, busy_s = self._answer(_decoded(header, angles, keys, batch, of))
        except Exception as error:  # whatever it is, the other side waits for an answer
            told = str(error)
            if not isinstance(error, CircuitError):
                told = f"{type(error).__name__}: {error}"
                log.exception("circuits failed")  # the other side gets one line
            text = told.encode()
            return REPLY.pack(REFUSED, 0.0, len(text), 0) + text
        return REPLY.pack(ANSWER, busy_s, *values.shape) + np.ascontiguousarray(values).tobytes()


class Line:
    """The other side: circuits sent, answers collected, in any order. One thread at a time."""

    def __init__(self, address: Address, secret: bytes) -> None:
        self.address = address
        self._socket = socket.socket()
        try:
            self._socket.settimeout(CONNECT_S)
            self._socket.connect(address)
            _tune(self._socket)
            self._socket.sendall(secret)
            _wait_for_the_rest(self._socket)
        except OSError as error:
            raise LineBroken(str(error)) from None
        self._coming = select.poll()
        self._coming.register(self._socket, select.POLLIN)
        self._sent = 0
        self._waiting: deque[int] = deque()  # tickets, in the order of their answers
        self._arrived: dict[int, Answer | CircuitError] = {}
        self._unwanted: set[int] = set()
        self.has_answered = False

    @property
    def under_way(self) -> int:
        """Answers not here yet."""
        return len(self._waiting)

    @property
    def wanted(self) -> int:
        """Answers not here yet that will be collected."""
        return len(self._waiting) - len(self._unwanted)

    def send(self, asked: CircuitRequest) -> int:
        """A ticket for the answer. LineBroken."""
        header, angles, keys = _encoded(asked)
        sizes = REQUEST.pack(len(header), len(angles), len(keys), len(asked.angles_bdnr), asked.of)
        try:
            sent = self._socket.sendmsg([sizes, header, angles, keys])
            if sent < len(sizes) + len(header) + len(angles) + len(keys):
                self._socket.sendall(b"".join([sizes, header, angles, keys])[sent:])
        except OSError as error:
            self.close()  # half a message may be out: nothing that follows would be understood
            raise LineBroken(str(error)) from None
        self._sent += 1
        self._waiting.append(self._sent)
        return self._sent

    def collect(self, ticket: int, timeout_s: float) -> Answer | None:
        """The answer, or None where it is not here in time. CircuitError: the actor refused. LineBroken."""
        until = time.monotonic() + timeout_s
        while ticket not in self._arrived:
            if not self.next(max(0.0, until - time.monotonic())):
                return None
        found = self._arrived.pop(ticket)
        if isinstance(found, CircuitError):
            raise found
        return found

    def forget(self, ticket: int) -> None:
        """Nobody will collect this answer."""
        if self._arrived.pop(ticket, None) is None and ticket in self._waiting:
            self._unwanted.add(ticket)

    def next(self, timeout_s: float) -> bool:
        """Read the next answer that comes; False where none does in time. LineBroken."""
        if self._socket.fileno() < 0:
            raise LineBroken("the line was hung up")
        try:
            if not self._coming.poll(1000 * timeout_s):
                return False
            kind, busy_s, rows, columns = REPLY.unpack(_read(self._socket, REPLY.size))
            found: Answer | CircuitError
            if kind == REFUSED:
                found = CircuitError(_read(self._socket, rows).decode())
            else:
                found = np.frombuffer(_read(self._socket, 8 * rows * columns)).reshape(rows, columns), busy_s
            ticket = self._waiting.popleft()
            if ticket in self._unwanted:
                self._unwanted.discard(ticket)
            else:
                self._arrived[ticket] = found
        except (OSError, LineBroken) as error:
            self.close()  # half a message may be read
            raise LineBroken(str(error)) from None
        self.has_answered = True
        return True

    def close(self) -> None:
        """What is under way is not collected."""
        self._socket.close()

    def __del__(self) -> None:
        self.close()


def _tune(line: socket.socket) -> None:
    """Messages go at once; a machine that is gone without a word is found out by the system's own questions, where
    nothing is on its way to it.

    Not by TCP_USER_TIMEOUT: it also ends the line to a machine that is there and has no room for the next message, as
    an actor's that is busy with others' circuits (tcp(7)).
    """
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}.items():
        if hasattr(socket, name):  # not every system has all of them
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _wait_for_the_rest(line: socket.socket) -> None:
    """At most `REST_S` for what follows. By the system: Python's own timeouts look at the socket before each call."""
    line.settimeout(None)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        line.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", int(REST_S), int(REST_S % 1 * 1e6)))


def _read(from_: socket.socket, size: int) -> bytearray:
    """So many bytes. LineBroken: it ended before."""
    buffer = bytearray(size)
    view, read = memoryview(buffer), 0
    while read < size:
        got = from_.recv_into(view[read:])
        if got == 0:
            raise LineBroken("the line ended")
        read += got
    return buffer


def _encoded(asked: CircuitRequest) -> tuple[bytes, memoryview, memoryview]:
    keys = NO_KEYS if asked.keys_b is None else _bytes(asked.keys_b)
    return asked.kind, _bytes(asked.angles_bdnr), keys


def _bytes(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _decoded(header: bytearray, angles: bytearray, keys: bytearray, batch: int, of: int) -> CircuitRequest:
    spec, readout, sampling, has_keys = _about(bytes(header))
    keys_b = np.frombuffer(keys, dtype=np.int64) if has_keys else None
    return CircuitRequest(spec, np.frombuffer(angles).reshape(spec.angles_shape(batch)), readout, keys_b, sampling, of)


@lru_cache(maxsize=256)
def _about(header: bytes) -> tuple[CircuitSpec, Readout, Sampling | None, bool]:
    told = json.loads(header)
    spec = CircuitSpec(**{**told["spec"], "rotations": tuple(told["spec"]["rotations"])})
    drawn = told["sampling"]
    noise = drawn and drawn["noise"] and NoiseSettings(**drawn["noise"])
    return spec, told["readout"], None if drawn is None else Sampling(drawn["shots"], noise), told["has_keys"]
