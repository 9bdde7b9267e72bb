"""Answers that get lost on a real wire, while somebody else comes through: the store's client asks again by itself.

`tests/engine/test_repeats.py` says the same of every verb and store, with repeats that are made.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from orchestrator import Context, Orchestrator, Workflow, step
from orchestrator.host import new_run_id
from orchestrator.ports import Store
from orchestrator.stores.redis import RedisStore
from orchestrator.stores.sql import SqlStore
from tests.servers import PostgresServer, RedisServer
from tests.stores.wire import Wire
from tests.vendor import wait_until

NEEDLE = "needle-in-the-request"


def ask(number: int, ctx: Context[Any]) -> object:
    if not ctx.resumed:
        ctx.suspend({"number": number}, label=str(number))
    return ctx.resume_data


@step
def heard(_: object, ctx: Context[Any]) -> list[object]:
    return [ctx.result("first"), ctx.result("second"), ctx.result("third")]


listening = Workflow("listening").wait_for_event("go", id="first").wait_for_event("go", id="second")
listening = listening.wait_for_event("go", id="third").then(heard).commit()
asking = Workflow("asking").foreach(step(ask, id="ask"), concurrency=4).commit()
plain = Workflow("plain").then(step(lambda given: given, id="one")).commit()


@dataclass
class Line:
    """The same store twice: over a wire that may lose an answer, and without one."""

    wire: Wire
    wired: Store
    direct: Store

    def lose(self, run_id: str, meanwhile: Callable[[], Any]) -> threading.Thread:
        """Lose the answer to the request with the needle in it, and let the other come before it is repeated."""
        header = self.direct.header(run_id)
        assert header is not None

        def come() -> None:
            assert wait_until(lambda: commits(self.direct, run_id) > header.commits, 10)
            meanwhile()

        self.wire.lose_answer(NEEDLE.encode())
        other = threading.Thread(target=come)
        other.start()
        return other


def commits(store: Store, run_id: str) -> int:
    header = store.header(run_id)
    return header.commits if header is not None else -1


@pytest.fixture(params=["redis", "postgresql"])
def line(request: pytest.FixtureRequest) -> Iterator[Line]:
    is_redis = request.param == "redis"
    server: RedisServer | PostgresServer = request.getfixturevalue("redis_server" if is_redis else "postgres_server")
    place = urlsplit(server.url())
    with Wire(place.port or (6379 if is_redis else 5432), place.hostname or "127.0.0.1") as wire:
        user, at, _ = place.netloc.rpartition("@")
        over = place._replace(netloc=f"{user}{at}127.0.0.1:{wire.port}").geturl()
        name = f"lost{new_run_id()[:8]}"
        wired: Store
        direct: Store
        if is_redis:
            wired, direct = RedisStore(over, prefix=name), RedisStore(server.url(), prefix=name)
        else:
            wired, direct = SqlStore(over, schema=name), SqlStore(server.url(), schema=name)
        yield Line(wire, wired, direct)
        wired.close()
        direct.close()


@pytest.fixture
def callers(line: Line) -> Iterator[tuple[Orchestrator, Orchestrator]]:
    """Two callers, of whom the first is behind the wire."""
    flows = [listening, asking, plain]
    with Orchestrator(store=line.wired, workflows=flows) as mine, Orchestrator(store=line.direct, workflows=flows) as o:
        yield mine, o


def test_an_event_is_heard_once(line: Line, callers: tuple[Orchestrator, Orchestrator]) -> None:
    """Two were sent, and the third wait goes on waiting."""
    mine, other = callers
    run = mine.create_run(listening)
    coming = line.lose(run.run_id, lambda: other.get_run(run.run_id).send_event("go", "theirs"))
    run.send_event("go", NEEDLE)
    coming.join()
    assert line.wire.lost == 1
    assert run.start(None, timeout=30).status == "suspended"
    run.send_event("go", "last")
    assert wait_until(lambda: run.status == "success", 20)
    assert run.result(5).result == [NEEDLE, "theirs", "last"]


def test_who_wins_a_resume_is_told_so(line: Line, callers: tuple[Orchestrator, Orchestrator]) -> None:
    """And what it has resumed runs."""
    mine, other = callers
    run = mine.create_run(asking)
    run.start([0, 1], timeout=30)
    coming = line.lose(run.run_id, lambda: other.get_run(run.run_id).submit_resume("theirs", label="1"))
    result = run.resume(NEEDLE, label="0", timeout=30)
    coming.join()
    assert line.wire.lost == 1
    assert result.result == [NEEDLE, "theirs"]


def test_who_wins_a_start_is_told_so(line: Line, callers: tuple[Orchestrator, Orchestrator]) -> None:
    """It is canceled before it has begun."""
    mine, other = callers
    run = mine.create_run(plain)
    coming = line.lose(run.run_id, lambda: other.get_run(run.run_id).cancel())
    result = run.start(NEEDLE, timeout=30)
    coming.join()
    assert line.wire.lost == 1
    assert result.status == "canceled"


def test_a_sweep_knows_of_the_pause_before_its_lost_answer(line: Line) -> None:
    """Asked again a moment later, the store does not take that moment for the pause."""
    namespace = new_run_id()
    assert line.wired.acquire_sweep(namespace, "before", 1, 10_000) is not None
    time.sleep(0.6)
    line.wire.lose_answer(NEEDLE.encode())
    grant = line.wired.acquire_sweep(namespace, NEEDLE, 1_000, 500)
    assert line.wire.lost == 1
    assert grant is not None
    assert grant.steady < 500
