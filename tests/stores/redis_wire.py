"""A wire between a store and its server that counts what goes over it, and can lose an answer."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType


class Wire:
    """A proxy on a port of its own: `turns` counts round trips, `sent` and `received` bytes, from the client's side."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._lose = threading.Event()
        self.port: int = self._listener.getsockname()[1]
        self.turns = self.sent = self.received = self.lost = 0

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

    def lose_answer(self) -> None:
        """Break the connection when the next answer comes: the server has done what it was asked."""
        self._lose.set()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._sockets += [client, server]
                state = {"asked": False}
                threading.Thread(target=self._up, args=(client, server, state), daemon=True).start()
                threading.Thread(target=self._down, args=(client, server, state), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket, state: dict[str, bool]) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                self.sent += len(data)
                if not state["asked"]:
                    self.turns += 1
                state["asked"] = True
                server.sendall(data)
        self._break(server)

    def _down(self, client: socket.socket, server: socket.socket, state: dict[str, bool]) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if self._lose.is_set():
                    self._lose.clear()
                    self.lost += 1
                    break
                self.received += len(data)
                state["asked"] = False
                client.sendall(data)
        self._break(client, server)

    def _break(self, *sockets: socket.socket) -> None:
        for one in sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
