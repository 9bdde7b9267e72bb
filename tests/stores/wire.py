"""A wire between a client and its server that counts what goes over it, and disturbs on demand."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

# Seconds of silence after which a client has said all that it had to: a client may write one request in several pieces,
# and the server answers the first of them.
_PAUSE = 0.005
_DONE = 0.2  # seconds in which the server does what it was asked, though nobody will hear of it


@dataclass(eq=False)
class _Line:
    """One connection: whether the client has asked since the server answered, and whether an answer is to be lost."""

    client: socket.socket
    server: socket.socket
    asked: bool = False
    lost: bool = False

    def break_off(self) -> None:
        # close() alone leaves a blocked recv() of another thread where it is.
        for one in (self.client, self.server):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


class Wire:
    """A proxy on a port of its own: `turns` counts round trips, `sent` and `received` bytes, from the client's side.

    A round trip begins when the client speaks after the server has answered. A `frozen` wire takes everything and
    passes nothing on; what it has `swallowed` (in bytes) never arrives. One that is `refusing` lets nobody in, and
    counts who came as `refused`. Whatever a client sends is passed on after `delay` seconds. With `replaced`,
    the first text stands in answers as the second, which has to be as long.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lines: set[_Line] = set()
        self._lose: bytes | None = None
        self.port: int = self._listener.getsockname()[1]
        self.turns = self.sent = self.received = self.lost = self.swallowed = self.refused = 0
        self.frozen = self.refusing = False
        self.delay = 0.0
        self.replaced: tuple[bytes, bytes] | None = None

    def __enter__(self) -> Wire:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def reset(self) -> None:
        """Count from 0 again."""
        self.turns = self.sent = self.received = 0

    def points_to(self, port: int) -> None:
        """Lead new connections to another server; those that are open stay where they are."""
        self._target = (self._target[0], port)

    def lose_answer(self, to: bytes = b"") -> None:
        """Break the connection instead of answering the next request (with this in it): the server has done it."""
        self._lose = to

    def lose_none(self) -> None:
        """Take back a `lose_answer` that no request has met."""
        self._lose = None

    def cut(self) -> int:
        """Break all connections; returns how many there were."""
        count = 0
        while self._lines:
            self._lines.pop().break_off()
            count += 1
        return count

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.refusing or (server := self._connect()) is None:
                    self.refused += 1
                    client.close()
                    continue
                line = _Line(client, server)
                self._lines.add(line)
                threading.Thread(target=self._up, args=(line,), daemon=True).start()
                threading.Thread(target=self._down, args=(line,), daemon=True).start()

    def _connect(self) -> socket.socket | None:
        try:
            return socket.create_connection(self._target)
        except OSError:
            return None

    def _up(self, line: _Line) -> None:
        with suppress(OSError):
            while data := _read_all(line.client):
                self.sent += len(data)
                self.turns += not line.asked
                line.asked = True
                if self._lose is not None and self._lose in data:
                    self._lose, line.lost = None, True
                if self.delay:
                    time.sleep(self.delay)
                if self.frozen:
                    self.swallowed += len(data)
                else:
                    line.server.sendall(data)
        with suppress(OSError):
            line.server.shutdown(socket.SHUT_RDWR)

    def _down(self, line: _Line) -> None:
        with suppress(OSError):
            while data := line.server.recv(65536):
                if line.lost:
                    time.sleep(_DONE)
                    self.lost += 1
                    break
                self.received += len(data)
                if self.replaced is not None:
                    data = data.replace(*self.replaced)
                line.asked = False
                if self.frozen:
                    self.swallowed += len(data)
                else:
                    line.client.sendall(data)
        line.break_off()
        self._lines.discard(line)


def _read_all(client: socket.socket) -> bytes:
    """Read what the client says until it pauses; nothing where it has hung up."""
    data = client.recv(65536)
    with suppress(BlockingIOError):
        while data:
            time.sleep(_PAUSE)
            more = client.recv(65536, socket.MSG_DONTWAIT)
            if not more:
                break  # the next read says so again
            data += more
    return data
