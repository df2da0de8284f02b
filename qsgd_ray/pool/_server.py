"""TCP server of one circuit actor: one thread a connection, requests in, answers out in the same order."""

from __future__ import annotations

import hmac
import logging
import select
import socket
import threading
import time
from collections.abc import Callable

import numpy as np

from qsgd_ray.circuits.errors import CircuitError
from qsgd_ray.pool._request import CircuitRequest
from qsgd_ray.pool._transport import (
    ANSWER,
    CONNECT_S,
    REFUSED,
    REPLY,
    Address,
    Answer,
    ConnectionLost,
    EncodedRequest,
    decode,
    read_exactly,
    receive_request,
    set_options,
)

# Connections that may be open at one time without having sent the secret.
_MAX_UNAUTHENTICATED = 64
# After a message, a connection polls for the next one, for so long and so often: steps of a training follow each other.
_POLL_S, _POLL_EVERY_S = 0.05, 2e-4

_log = logging.getLogger(__name__)


class CircuitServer:
    """A listening socket and a thread for each client.

    Attributes:
        address: where it listens; the system chooses the port.
    """

    def __init__(self, answer: Callable[[CircuitRequest], Answer], secret: bytes, host: str) -> None:
        self._answer = answer
        self._secret = secret
        self._closed = False
        self._unauthenticated: set[socket.socket] = set()
        self._clients: set[socket.socket] = set()
        self._listener = socket.create_server((host, 0), backlog=128)
        self.address = Address(host, int(self._listener.getsockname()[1]))
        threading.Thread(target=self._accept, name="circuit server", daemon=True).start()

    def close(self) -> None:
        """Stop listening. Connections that are open go on."""
        self._closed = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                if self._closed:
                    return
                time.sleep(_POLL_S)  # too many files are open: some will be closed
                continue
            if len(self._unauthenticated) >= _MAX_UNAUTHENTICATED:
                client.close()
                continue
            self._unauthenticated.add(client)
            threading.Thread(target=self._serve, args=(client,), name="circuit connection", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                if not self._authenticate(client):
                    return
                client.settimeout(None)
                set_options(client)
                self._clients.add(client)
                readable = select.poll()
                readable.register(client, select.POLLIN)
                while True:
                    self._poll(readable)
                    client.sendall(self._reply(receive_request(client)))
            except (ConnectionLost, OSError):
                return
            finally:
                self._unauthenticated.discard(client)
                self._clients.discard(client)

    def _authenticate(self, client: socket.socket) -> bool:
        """Return True if the client sends the whole secret within `CONNECT_S`."""
        timer = threading.Timer(CONNECT_S, client.shutdown, [socket.SHUT_RDWR])
        timer.daemon = True
        timer.start()
        try:
            return hmac.compare_digest(read_exactly(client, len(self._secret)), self._secret)
        finally:
            timer.cancel()
            self._unauthenticated.discard(client)

    def _poll(self, readable: select.poll) -> None:
        """Wait a while for the next message by polling.

        A thread that sleeps in the system's call is woken by the sender's processor, which costs the sender 40 us of
        its step, and the two then often share a core while another idles (two cores, Linux 6, 2026-11-24).
        """
        until = time.monotonic() + _POLL_S
        while not readable.poll(0) and time.monotonic() < until:
            time.sleep(_POLL_EVERY_S * len(self._clients))

    def _reply(self, encoded: EncodedRequest) -> bytes:
        """Answer one request and return the reply's bytes."""
        try:
            values, busy_s = self._answer(decode(encoded))
        except Exception as error:  # whatever it is, the client waits for a reply
            text = str(error)
            if not isinstance(error, CircuitError):
                text = f"{type(error).__name__}: {error}"
                _log.exception("circuits failed")  # the client gets one line
            text_bytes = text.encode()
            return REPLY.pack(REFUSED, 0.0, len(text_bytes), 0) + text_bytes
        return REPLY.pack(ANSWER, busy_s, *values.shape) + np.ascontiguousarray(values).tobytes()
