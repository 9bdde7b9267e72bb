"""The parts that a round trusts: the wire's disturbances, effects of killed processes, journals of killed callers."""

from __future__ import annotations

import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from orchestrator import BrokerUnavailable
from tests.chaos import calls, effects
from tests.stores.wire import Wire
from tests.vendor import REPOSITORY, wait_until


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with suppress(OSError):
            while data := self.request.recv(100):
                self.request.sendall(data)


@pytest.fixture
def wire() -> Iterator[Wire]:
    """A wire to a server that says what it hears."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Echo) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with Wire(server.server_address[1]) as wire:
            yield wire
        server.shutdown()


def connect(wire: Wire) -> socket.socket:
    return socket.create_connection(("127.0.0.1", wire.port), timeout=10)


def say(client: socket.socket) -> bytes:
    """Say something and return the answer: nothing where the connection is broken."""
    try:
        client.sendall(b"hello")
        return client.recv(100)
    except ConnectionError:
        return b""


def test_a_cut_wire_breaks_what_is_open_and_a_refusing_one_lets_nobody_in(wire: Wire) -> None:
    """Both count whom they hit, and all is well afterwards."""
    with connect(wire) as client:
        assert say(client) == b"hello"
        assert wire.cut() == 1
        assert say(client) == b""
    assert wire.cut() == 0

    wire.refusing = True
    with connect(wire) as client:
        assert say(client) == b""
    assert wire.refused == 1

    wire.refusing = False
    with connect(wire) as client:
        assert say(client) == b"hello"


def test_a_frozen_wire_says_nothing_and_a_slow_one_late(wire: Wire) -> None:
    """What a frozen one took never arrives."""
    with connect(wire) as client:
        wire.frozen = True
        client.sendall(b"gone")
        assert wait_until(lambda: wire.swallowed == 4, 10)
        wire.frozen, wire.delay = False, 0.2
        begin = time.monotonic()
        assert say(client) == b"hello"
        assert time.monotonic() - begin >= 0.2


def test_a_wire_outlives_its_server(wire: Wire) -> None:
    """Who comes while nobody listens is refused; the wire goes on."""
    target, wire._target = wire._target, ("127.0.0.1", 1)
    with connect(wire) as client:
        assert say(client) == b""
    wire._target = target
    with connect(wire) as client:
        assert say(client) == b"hello"


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.chaos import calls, effects
folder = Path(sys.argv[1])
effects.note(folder / "effects", effects.BEGIN, "r1/0", "a", "k1")
effects.note(folder / "effects", effects.END, "r1", "a", "k1")
effects.note(folder / "effects", effects.BEGIN, "r1", "b", "k2", attempt=1)
calls.Caller(folder / "calls", "me").call("start", "r1", lambda call_id: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_what_a_killed_process_did_is_known(tmp_path: Path) -> None:
    """Its effects are there, the open one counts as at work, and its call has no outcome."""
    killed = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], cwd=REPOSITORY)
    assert killed.wait(60) == -9

    seen = [(each.what, each.run, each.step, each.attempt) for each in effects.read(tmp_path / "effects")]
    assert seen == [("begin", "r1", "a", 0), ("end", "r1", "a", 0), ("begin", "r1", "b", 1)]
    assert effects.count_at_work(tmp_path / "effects", {killed.pid}) == 1
    assert effects.count_at_work(tmp_path / "effects", {1}) == 0
    (call,) = calls.read(tmp_path / "calls")
    assert (call.verb, call.run, call.outcome, call.is_definite) == ("start", "r1", calls.OPEN, False)


def test_a_caller_notes_what_it_was_told(tmp_path: Path) -> None:
    """An outage is no definite outcome; a refusal is one, and an error of no library's stands out by its class."""
    caller = calls.Caller(tmp_path, "me")

    def fail(error: Exception) -> calls.Call:
        def action(_: str) -> None:
            raise error

        return caller.call("start", "r1", action)

    assert caller.call("start", "r1", lambda call_id: call_id).outcome == calls.WON
    assert not fail(BrokerUnavailable("away")).is_definite
    assert fail(AttributeError("no such thing")).outcome == "AttributeError"
    assert len(calls.read(tmp_path)) == 3
