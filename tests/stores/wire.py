"""A wire between a store and its server that counts what goes over it, and disturbs on demand."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

_DONE = 0.2  # seconds in which the server does what it was asked, though nobody will hear of it


@dataclass
class _Line:
    """One connection: whether the client has asked since the server answered, and whether an answer is to be lost."""

    asked: bool = False
    lost: bool = False


class Wire:
    """A proxy on a port of its own: `turns` counts round trips, `sent` and `received` bytes, from the client's side.

    A round trip begins when the client speaks after the server has answered. A `frozen` wire takes everything and
    passes nothing on.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._lose: bytes | None = None
        self.port: int = self._listener.getsockname()[1]
        self.turns = self.sent = self.received = self.lost = 0
        self.frozen = False

    def __enter__(self) -> Wire:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        # close() alone leaves a blocked accept() or recv() of another thread where it is.
        for one in (self._listener, *self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def reset(self) -> None:
        """Count from 0 again."""
        self.turns = self.sent = self.received = 0

    def points_to(self, port: int) -> None:
        """Lead new connections to another server; those that are open stay where they are."""
        self._target = (self._target[0], port)

    def lose_answer(self, to: bytes = b"") -> None:
        """Break the connection instead of answering the next request (with this in it): the server has done it."""
        self._lose = to

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._sockets += [client, server]
                line = _Line()
                threading.Thread(target=self._up, args=(client, server, line), daemon=True).start()
                threading.Thread(target=self._down, args=(client, server, line), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket, line: _Line) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                self.sent += len(data)
                self.turns += not line.asked
                line.asked = True
                if self._lose is not None and self._lose in data:
                    self._lose, line.lost = None, True
                if not self.frozen:
                    server.sendall(data)
        self._break(server)

    def _down(self, client: socket.socket, server: socket.socket, line: _Line) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if line.lost:
                    time.sleep(_DONE)
                    self.lost += 1
                    break
                self.received += len(data)
                line.asked = False
                if not self.frozen:
                    client.sendall(data)
        self._break(client, server)

    def _break(self, *sockets: socket.socket) -> None:
        for one in sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
