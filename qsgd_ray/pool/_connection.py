"""TCP connection to one circuit actor, the training worker's end: requests are sent, answers collected in any order."""

from __future__ import annotations

import select
import socket
import time
from collections import deque

import numpy as np

from qsgd_ray.circuits.errors import CircuitError
from qsgd_ray.pool._request import CircuitRequest
from qsgd_ray.pool._transport import (
    CONNECT_S,
    REFUSED,
    REPLY,
    Address,
    Answer,
    ConnectionLost,
    encode,
    limit_pauses,
    read_exactly,
    set_options,
)


class Connection:
    """A connection to the server at `address`. For one thread at a time.

    Every method that sends or receives raises ConnectionLost where the connection carries no more messages.

    Attributes:
        address: the server's address.
        has_answered: True once an answer has come.
    """

    def __init__(self, address: Address, secret: bytes) -> None:
        self.address = address
        self._socket = socket.socket()
        try:
            self._socket.settimeout(CONNECT_S)
            self._socket.connect(address)
            set_options(self._socket)
            self._socket.sendall(secret)
            limit_pauses(self._socket)
        except OSError as error:
            raise ConnectionLost(str(error)) from None
        self._readable = select.poll()
        self._readable.register(self._socket, select.POLLIN)
        self._sent = 0
        self._pending: deque[int] = deque()  # tickets, in the order of their answers
        self._arrived: dict[int, Answer | CircuitError] = {}
        self._unwanted: set[int] = set()
        self.has_answered = False

    @property
    def n_pending(self) -> int:
        """The number of answers that have not come yet."""
        return len(self._pending)

    @property
    def n_wanted(self) -> int:
        """The number of answers that have not come yet and will be collected."""
        return len(self._pending) - len(self._unwanted)

    def send(self, request: CircuitRequest) -> int:
        """Send a request and return the ticket of its answer."""
        pieces = encode(request).pieces
        try:
            n_sent = self._socket.sendmsg(pieces)
            if n_sent < sum(map(len, pieces)):
                self._socket.sendall(b"".join(pieces)[n_sent:])
        except OSError as error:
            self.close()  # half a message may be out: nothing that follows would be understood
            raise ConnectionLost(str(error)) from None
        self._sent += 1
        self._pending.append(self._sent)
        return self._sent

    def collect(self, ticket: int, timeout_s: float) -> Answer | None:
        """Return the answer, or None where it does not come in time. CircuitError: the actor refused."""
        until = time.monotonic() + timeout_s
        while ticket not in self._arrived:
            if not self.receive(max(0.0, until - time.monotonic())):
                return None
        answer = self._arrived.pop(ticket)
        if isinstance(answer, CircuitError):
            raise answer
        return answer

    def discard(self, ticket: int) -> None:
        """Drop an answer that will not be collected, now or when it comes."""
        if self._arrived.pop(ticket, None) is None and ticket in self._pending:
            self._unwanted.add(ticket)

    def receive(self, timeout_s: float) -> bool:
        """Read the next answer, whichever it is. False: none came in time."""
        if self._socket.fileno() < 0:
            raise ConnectionLost("the line was hung up")
        try:
            if not self._readable.poll(1000 * timeout_s):
                return False
            kind, busy_s, rows, columns = REPLY.unpack(read_exactly(self._socket, REPLY.size))
            answer: Answer | CircuitError
            if kind == REFUSED:
                answer = CircuitError(read_exactly(self._socket, rows).decode())
            else:
                values = np.frombuffer(read_exactly(self._socket, 8 * rows * columns)).reshape(rows, columns)
                answer = values, busy_s
            ticket = self._pending.popleft()
            if ticket in self._unwanted:
                self._unwanted.discard(ticket)
            else:
                self._arrived[ticket] = answer
        except (OSError, ConnectionLost) as error:
            self.close()  # half a message may be read
            raise ConnectionLost(str(error)) from None
        self.has_answered = True
        return True

    def close(self) -> None:
        """Close the connection. Answers under way are lost."""
        self._socket.close()

    def __del__(self) -> None:
        self.close()
