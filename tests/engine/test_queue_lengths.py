"""How long the queue of a message is, as the scheduler asks: once a tick, without what it has sent into it itself."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from celery import Celery

from orchestrator.canvas import queues as module
from orchestrator.canvas.queues import Queues
from orchestrator.engine.settings import Settings
from orchestrator.host import new_run_id
from orchestrator.rules.change import Dispatch
from orchestrator.rules.graph import Route
from orchestrator.rules.model import RunHeader, pack_route

HEADER = RunHeader(run_id="run", workflow_id="flow")
TICK = 0.5


@dataclass
class Asked:
    """An app on a broker in memory with one queue, and a clock that stands still."""

    app: Celery
    queues: Queues
    queue: str
    now: float = 100.0

    def __post_init__(self) -> None:
        self.dispatch = Dispatch("0", 1, pack_route(Route("step", queue=self.queue)))
        self.connection: Any = self.app.connection_for_write()
        self.channel: Any = self.connection.default_channel
        self.channel.queue_declare(queue=self.queue)

    def send(self, count: int) -> None:
        """Put messages of anybody into the queue."""
        producer = self.connection.SimpleQueue(self.queue)
        for _ in range(count):
            producer.put("x")

    def take(self, count: int) -> None:
        """Consume some."""
        for _ in range(count):
            self.channel.basic_get(self.queue, no_ack=True)

    def is_short(self, after: float = 0.0) -> bool | None:
        """Ask when so many seconds have passed."""
        self.now += after
        return short(self.queues, self.dispatch)

    def decide(self, count: int, after: float = 0.0) -> None:
        """Send messages as the scheduler does: because the queue is short."""
        self.now += after
        for _ in range(count):
            assert self.is_short() is True
            self.send(1)


def short(queues: Queues, dispatch: Dispatch) -> bool | None:
    """Tell whether the queue of this dispatch is short, or that nobody can."""
    state = queues.state_of(HEADER, dispatch)
    return None if state is None else state.is_short


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    app = Celery("lengths", broker="memory://", set_as_current=False)
    made = Asked(app, Queues(app, Settings(namespace="n", tick_seconds=TICK)), f"lengths-{new_run_id()[:8]}")
    monkeypatch.setattr(module, "monotonic", lambda: made.now)
    yield made
    made.queues.close()
    made.connection.close()
    app.close()


@pytest.mark.parametrize("count, is_short", [(0, True), (10, True), (11, False)])
def test_a_queue_is_short_with_a_few_messages(asked: Asked, count: int, is_short: bool) -> None:
    asked.send(count)
    assert asked.is_short() is is_short


def test_a_queue_is_asked_once_a_tick(asked: Asked) -> None:
    """However many messages there are to decide on."""
    assert asked.is_short()
    asked.send(20)
    assert asked.is_short(TICK - 0.01) is True
    assert asked.is_short(0.01) is False
    asked.take(20)
    assert asked.is_short(TICK - 0.01) is False
    assert asked.is_short(0.01) is True


def test_queues_are_told_apart(asked: Asked) -> None:
    """A long one says nothing of another."""
    asked.send(20)
    assert asked.is_short() is False
    other = Dispatch("0", 1, pack_route(Route("step", queue=f"{asked.queue}-2")))
    asked.channel.queue_declare(queue=f"{asked.queue}-2")
    assert short(asked.queues, other) is True


def test_what_the_scheduler_has_sent_itself_is_no_backlog(asked: Asked) -> None:
    """Otherwise the messages of one tick would keep those of the next from being sent."""
    asked.decide(30)
    asked.decide(1, after=TICK)  # within a second of the first: the broker may not count them yet
    asked.decide(1, after=TICK)
    asked.send(11)
    assert asked.is_short(TICK) is False
    asked.take(1)
    assert asked.is_short(TICK) is True


def test_what_is_gone_from_the_queue_is_not_counted_as_in_it(asked: Asked) -> None:
    """Else as many messages of others would pass for its own."""
    asked.decide(30)
    asked.decide(1, after=1.0)
    asked.take(31)
    asked.decide(1, after=1.0)
    asked.take(1)
    asked.send(13)  # those of the last two decisions may be among them
    assert asked.is_short(1.0) is False
    asked.take(1)
    assert asked.is_short(1.0) is True


def test_a_task_as_a_step_has_the_queue_of_the_task(asked: Asked) -> None:
    """That is where its message goes."""

    @asked.app.task(name="lengths.task", shared=False)
    def task() -> None: ...

    asked.app.conf.task_routes = {task.name: {"queue": asked.queue}}
    asked.send(20)
    assert short(asked.queues, Dispatch("0", 1, pack_route(Route("step", task=task.name)))) is False


def test_an_unknown_queue_is_short(asked: Asked) -> None:
    """So its message is sent, and whoever publishes it sees what is wrong. It is no outage."""
    nowhere = Dispatch("0", 1, pack_route(Route("step", queue="nowhere")))
    assert short(asked.queues, nowhere) is True
    with pytest.raises(asked.connection.channel_errors):  # asking has not made it
        asked.channel.queue_declare(queue="nowhere", passive=True)
    assert asked.is_short() is True


def test_a_message_whose_queue_cannot_be_known_is_sent(asked: Asked, caplog: pytest.LogCaptureFixture) -> None:
    """Its publication says what is wrong with it."""

    def router(*_: object, **__: object) -> None:
        raise LookupError("no such route")

    asked.app.conf.task_routes = [router]
    elsewhere = Dispatch("0", 1, pack_route(Route("step")))
    with caplog.at_level(logging.DEBUG, "orchestrator"):
        assert short(asked.queues, elsewhere) is True
    assert "no such route" in caplog.text


def test_what_goes_to_an_exchange_alone_has_no_length(asked: Asked) -> None:
    """So it is sent."""
    asked.app.conf.task_routes = {"step": {"exchange": "somewhere", "routing_key": "x"}}
    assert short(asked.queues, Dispatch("0", 1, pack_route(Route("step")))) is True


def test_a_message_waits_no_longer_than_it_takes_to_work_off_what_was_before_it(asked: Asked) -> None:
    """Once as many have left the queue as were in it at a look, none of those waits; a second more, to be counted."""
    asked.send(20)

    def ago() -> int | None:
        state = asked.queues.state_of(HEADER, asked.dispatch)
        assert state is not None
        return state.worked_off

    assert ago() is None
    asked.now += 2.0
    asked.take(19)
    asked.send(19)  # the length has not fallen, as far as can be seen
    assert ago() is None
    asked.take(19)
    asked.now += 2.0
    assert ago() is None
    asked.take(1)
    asked.now += 2.0
    assert ago() == 7_000  # since the first look
    asked.now += 0.25
    assert ago() == 7_250


def test_long_queues_are_looked_at_unasked(asked: Asked) -> None:
    """How their length falls says how long a message may wait there; a short one is asked for when it matters."""
    asked.send(20)
    assert asked.is_short() is False
    asked.take(20)
    asked.now += TICK
    asked.queues.watch()
    asked.send(20)  # not seen: it has just been looked at
    assert asked.is_short(TICK - 0.01) is True
    asked.now += TICK
    asked.queues.watch()
    assert asked.is_short() is False


def test_a_broker_that_is_away_is_asked_once_a_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    """For none of the queues: each question could take seconds."""
    now, tried = [100.0], []
    app = Celery("away", broker="redis://127.0.0.1:1/0", set_as_current=False)
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    queues = Queues(app, Settings(namespace="n", tick_seconds=TICK))
    ask = queues._ask
    monkeypatch.setattr(queues, "_ask", lambda name: tried.append(name) or ask(name))
    dispatches = [Dispatch("0", 1, pack_route(Route("step", queue=name))) for name in ("one", "two")]
    assert [queues.state_of(HEADER, dispatch) for dispatch in dispatches] == [None, None]
    assert tried == ["one"]
    now[0] += TICK
    assert [queues.state_of(HEADER, dispatch) for dispatch in dispatches] == [None, None]
    assert tried == ["one", "one"]
    queues.close()
    app.close()
