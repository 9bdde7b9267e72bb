"""The cost of a step: round trips to the store, messages, and the size of a message."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from celery import Celery
from celery.signals import before_task_publish
from kombu.transport import redis as transport

from orchestrator import Orchestrator, Workflow, clone_step, step
from orchestrator.canvas.compat import BatchPublishError
from tests.servers import RedisServer
from tests.stores.wire import Wire

DB = 9
DIGITS = 50  # a few numbers stand in a message, some more than once: in a run of 2,000 steps each has three more digits


@step
def add_one(number: int) -> int:
    return number + 1


def sequence(length: int, *, inline: bool = False) -> Workflow:
    """So many steps, whose names are all of one length."""
    workflow = Workflow(f"cost-{length:04}" + ("-inline" if inline else ""), inline=inline)
    for place in range(length):
        workflow = workflow.then(clone_step(add_one, id=f"add-{place:04}"))
    return workflow.commit()


class Post:
    """The messages of this process, in a worker's place: each is delivered when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Any, ...]] = []
        self.sizes: list[int] = []

    def note(self, body: Any, headers: Any, properties: Any, **_: Any) -> None:
        self.waiting.append(body[0])
        self.sizes.append(len(json.dumps([body, headers, properties])))

    def deliver(self, orchestrator: Orchestrator, most: int) -> None:
        """Run what the messages speak of, the oldest first, and what they lead to."""
        while self.waiting and most:
            orchestrator.executor.execute(*self.waiting.pop(0))
            most -= 1


@pytest.fixture
def post() -> Iterator[Post]:
    post = Post()
    before_task_publish.connect(post.note)
    yield post
    before_task_publish.disconnect(post.note)


@pytest.fixture
def app() -> Iterator[Celery]:
    with Celery("cost", broker="memory://", set_as_current=False) as app:
        yield app


@pytest.fixture
def wire(redis_server: RedisServer) -> Iterator[Wire]:
    redis_server.flush(DB)
    with Wire(urlsplit(redis_server.url()).port or 6379) as wire:
        yield wire


@pytest.fixture
def wired(wire: Wire, app: Celery, redis_server: RedisServer) -> Iterator[Orchestrator]:
    """An orchestrator whose store is behind the wire, connected and with its scripts loaded."""
    store = urlsplit(redis_server.url(DB))._replace(netloc=f"127.0.0.1:{wire.port}").geturl()
    with Orchestrator(app, store=store) as orchestrator:
        yield orchestrator


def test_a_plain_step_costs_two_round_trips_and_one_message(wire: Wire, wired: Orchestrator, post: Post) -> None:
    """A claim and a commit; then its successor's message."""
    wired.create_run(sequence(20)).submit(0)
    post.deliver(wired, 3)
    wire.reset()
    post.sizes.clear()
    post.deliver(wired, 10)
    assert wire.turns == 20
    assert len(post.sizes) == 10


def test_an_inline_step_costs_one_round_trip_and_no_message(wire: Wire, wired: Orchestrator, post: Post) -> None:
    """The commit of one is the claim of the next: ten steps more are ten round trips more."""
    turns = []
    for length in (5, 5, 15):
        run = wired.create_run(sequence(length, inline=True)).submit(0)
        wire.reset()
        post.deliver(wired, 1)
        turns.append(wire.turns)
        assert run.get() == length
    assert turns[2] - turns[1] == 10
    assert len(post.sizes) == 3


def test_many_successors_are_all_told(redis_server: RedisServer, post: Post) -> None:
    """A fan-out's messages go to the broker in parts; none is left out at their edges."""
    redis_server.flush(DB)
    workflow = Workflow("cost-wide").foreach(add_one, concurrency=120).commit()
    broker = redis_server.url(DB)
    with (
        Celery("cost-wide", broker=broker, set_as_current=False) as app,
        Orchestrator(app, store="memory://") as orchestrator,
        redis.Redis.from_url(broker) as client,
    ):
        run = orchestrator.create_run(workflow).submit(list(range(120)))
        post.deliver(orchestrator, 1)
        assert len(post.sizes) == client.llen("celery") == 121
        post.deliver(orchestrator, 120)
        assert run.get() == list(range(1, 121))


def test_a_batch_that_fails_is_sent_again_one_by_one(
    redis_server: RedisServer, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is unknown how much of it has arrived, and a message too many does no harm."""
    redis_server.flush(DB)
    workflow = Workflow("cost-broken").foreach(add_one, concurrency=3).commit()
    broker = redis_server.url(DB)

    if not hasattr(transport, "PublishBatch"):
        pytest.skip("kombu has batches from 5.7 on")

    def fail(batch: Any) -> None:
        raise BatchPublishError("the connection broke")

    with (
        Celery("cost-broken", broker=broker, set_as_current=False) as app,
        Orchestrator(app, store="memory://") as orchestrator,
        redis.Redis.from_url(broker) as client,
    ):
        run = orchestrator.create_run(workflow).submit([1, 2, 3])
        monkeypatch.setattr(transport.PublishBatch, "flush", fail)
        post.deliver(orchestrator, 1)
        assert client.llen("celery") == 4
        post.deliver(orchestrator, 6)
        assert run.get() == [2, 3, 4]


def test_a_message_is_as_large_in_a_run_of_2000_steps_as_in_one_of_two(app: Celery, post: Post) -> None:
    """It says which activation is meant and nothing of the run: only the digits of its numbers grow."""
    sizes = []
    for length in (2, 2_000):
        with Orchestrator(Celery(f"cost-{length}", broker="memory://", set_as_current=False), store="memory://") as one:
            one.create_run(sequence(length)).submit(0)
            post.sizes.clear()
            post.deliver(one, length)
        assert len(post.sizes) == length - 1
        sizes.append(post.sizes[-1])
    assert sizes[0] < 2_000
    assert 0 <= sizes[1] - sizes[0] <= DIGITS
