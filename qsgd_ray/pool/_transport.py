"""The messages between a training worker and a circuit actor, and the sockets that carry them.

Why sockets: a Ray call with 128 KB there and back takes 3 to 4 ms more than the simulation, a socket 0.3. Ray's
compiled graphs (ray.dag) are as quick, but an actor holds one graph only, a second one hangs, and a graph whose actor
died takes up to half a minute to tear down; a pool is shared by trials, and its actors may die at any time. Ray still
places, starts and ends the actors, and its calls carry the circuits where no connection can be made.

A request is a header in JSON and two arrays as they lie in memory; nothing is unpickled. _server.py is the actor's end,
_connection.py the worker's. A client sends the pool's secret before its first request.
"""

from __future__ import annotations

import json
import socket
import struct
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qsgd_ray.circuits.backends.protocol import Sampling
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config.circuit import NoiseSettings, Readout
from qsgd_ray.pool._request import CircuitRequest

# Head of a request: bytes of the header, of the angles and of the keys; circuits; circuits of the whole batch.
REQUEST = struct.Struct("<qqqqq")
# Head of a reply: its kind, seconds of simulation, rows, columns. A refusal's text has `rows` bytes.
REPLY = struct.Struct("<Bdqq")
ANSWER, REFUSED = 0, 1
_NO_KEYS = memoryview(b"")
# Longest time to connect, and for a client to send the whole secret.
CONNECT_S = 5.0
# Longest pause within a message that has begun.
_REST_S = 60.0

Answer = tuple[NDArray[np.float64], float]  # values of shape (circuits, answer width), and seconds of simulation


class Address(NamedTuple):
    """The address of an actor's server."""

    host: str
    port: int


class ConnectionLost(Exception):
    """A connection that carries no more messages: the actor is gone or has moved, or this side closed it."""


class EncodedRequest(NamedTuple):
    """A request as it is sent.

    Attributes:
        header: the request's kind, in JSON.
        angles: the bytes of the angles.
        keys: the bytes of the keys; empty without keys.
        batch: number of circuits.
        batch_size: number of circuits of the whole batch.
    """

    header: bytes | bytearray
    angles: memoryview | bytearray
    keys: memoryview | bytearray
    batch: int
    batch_size: int

    @property
    def pieces(self) -> list[bytes | bytearray | memoryview]:
        """The bytes in the order in which they are sent."""
        sizes = len(self.header), len(self.angles), len(self.keys)
        return [REQUEST.pack(*sizes, self.batch, self.batch_size), self.header, self.angles, self.keys]


def encode(request: CircuitRequest) -> EncodedRequest:
    """Return the bytes of a request; the arrays are not copied."""
    keys = _NO_KEYS if request.keys_b is None else _memory_of(request.keys_b)
    angles = _memory_of(request.angles_bdnr)
    return EncodedRequest(request.kind, angles, keys, len(request.angles_bdnr), request.batch_size)


def receive_request(client: socket.socket) -> EncodedRequest:
    """Read the next request. ConnectionLost: the connection ended."""
    *sizes, batch, batch_size = REQUEST.unpack(read_exactly(client, REQUEST.size))
    header, angles, keys = (read_exactly(client, size) for size in sizes)
    return EncodedRequest(header, angles, keys, batch, batch_size)


def decode(encoded: EncodedRequest) -> CircuitRequest:
    """Return the request that was encoded."""
    spec, readout, sampling, has_keys = _parse_header(bytes(encoded.header))
    keys_b = np.frombuffer(encoded.keys, dtype=np.int64) if has_keys else None
    angles_bdnr = np.frombuffer(encoded.angles).reshape(spec.angles_shape(encoded.batch))
    return CircuitRequest(spec, angles_bdnr, readout, keys_b, sampling, encoded.batch_size)


def read_exactly(source: socket.socket, size: int) -> bytearray:
    """Read `size` bytes. ConnectionLost: the connection ended before."""
    buffer = bytearray(size)
    view, n_read = memoryview(buffer), 0
    while n_read < size:
        received = source.recv_into(view[n_read:])
        if received == 0:
            raise ConnectionLost("the line ended")
        n_read += received
    return buffer


def set_options(connection: socket.socket) -> None:
    """Send small messages without delay, and let the system find out by keep-alive probes that a machine is gone.

    Not by TCP_USER_TIMEOUT: that also ends the connection to a machine which is there but has no room for the next
    message, such as that of an actor busy with others' circuits (tcp(7)).
    """
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}.items():
        if hasattr(socket, name):  # not every system has all of them
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def limit_pauses(connection: socket.socket) -> None:
    """Let the system end a send or receive that pauses for `_REST_S`.

    By the system, because Python's own timeouts look at the socket before each call.
    """
    connection.settimeout(None)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connection.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", int(_REST_S), int(_REST_S % 1 * 1e6)))


def _memory_of(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


@lru_cache(maxsize=256)
def _parse_header(header: bytes) -> tuple[CircuitSpec, Readout, Sampling | None, bool]:
    fields = json.loads(header)
    spec = CircuitSpec(**{**fields["spec"], "rotations": tuple(fields["spec"]["rotations"])})
    drawn = fields["sampling"]
    noise = drawn and drawn["noise"] and NoiseSettings(**drawn["noise"])
    return spec, fields["readout"], None if drawn is None else Sampling(drawn["shots"], noise), fields["has_keys"]
