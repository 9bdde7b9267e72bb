"""Many events for one run: none is refused while the run lives, each is heard once, and a full mailbox says so."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator import MailboxFull, Orchestrator, OrchestratorError, Workflow, step
from tests.servers import PostgresServer, RedisServer

SENDERS, EVENTS = 16, 120


heard: list[int] = []


@step
def keep(n: int) -> int:
    heard.append(n)
    return n


one = Workflow("one", input=int).wait_for_event("done", schema=int).then(keep).commit()
batch = Workflow("batch", input=int).do_until(one, lambda n, ctx: ctx.iteration >= EVENTS).commit()
late = Workflow("late", input=int).wait_for_event("done", schema=int).commit()
three = (
    Workflow("three", input=int).wait_for_event("a").wait_for_event("a", id="a2").wait_for_event("a", id="a3").commit()
)


@pytest.fixture(params=["memory", "sqlite", "redis", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Each store."""
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        server.flush(13)
        return server.url(13)
    if request.param == "postgres":
        postgres: PostgresServer = request.getfixturevalue("postgres_server")
        return postgres.new_schema()
    return {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/store.db"}[request.param]


def wait_for(holds: Callable[[], bool]) -> None:
    """Wait until it is so."""
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_many_senders_to_a_run_that_waits_again_and_again(url: str) -> None:
    """Waits come and go between the look of a sender and its commit."""
    heard.clear()
    with Orchestrator(store=url, workflows=[batch]) as orchestrator:
        run = orchestrator.create_run(batch).submit(0)

        def send(n: int) -> str:
            try:
                run.send_event("done", n)
            except OrchestratorError as error:
                return repr(error)
            return "taken"

        with ThreadPoolExecutor(SENDERS) as threads:
            answers = Counter(threads.map(send, range(EVENTS)))
        assert answers == {"taken": EVENTS}
        wait_for(run.ready)
    assert sorted(heard) == list(range(EVENTS))


def test_an_event_costs_the_same_however_many_there_are(url: str) -> None:
    """Kept, and in their order."""
    with Orchestrator(store=url, workflows=[late]) as orchestrator:
        run = orchestrator.create_run(late)
        took = []
        for n in range(600):
            began = time.perf_counter()
            run.send_event("done", n)
            took.append(time.perf_counter() - began)
        # The fastest: how busy the machine is shows in all others.
        assert min(took[-100:]) < 3 * min(took[50:150])


def test_a_full_mailbox_refuses_with_the_bound_and_the_remedy(url: str) -> None:
    """By number and by bytes. What it has stays, and there is room again for what was taken."""
    with Orchestrator(store=url, workflows=[late], mailbox_max_events=3, mailbox_max_bytes=100) as orchestrator:
        run = orchestrator.create_run(late)
        for n in range(3):
            run.send_event("done", n)
        with pytest.raises(MailboxFull, match=r"`orchestrator_mailbox_max_events`.*raise the bound") as refused:
            run.send_event("done", 3)
        assert refused.value.details["max_events"] == 3
    with Orchestrator(store=url, workflows=[three], mailbox_max_bytes=100) as orchestrator:
        run = orchestrator.create_run(three)
        run.send_event("a", "x" * 60)
        with pytest.raises(MailboxFull, match="100 bytes"):
            run.send_event("a", "y" * 60)
        kept = orchestrator.store.mail(run.run_id, "a")
        run.submit(1)
        wait_for(lambda: orchestrator.store.mail(run.run_id, "a")[:1] != kept)
        run.send_event("a", "y" * 60)
        run.send_event("a", "z")
        wait_for(run.ready)
        assert run.get(timeout=5) == "z"
