"""Readers of SQL stores are woken through the broker; without waiting readers, runs cost nothing more."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from celery import Celery

from orchestrator import Orchestrator, Workflow, step
from orchestrator.canvas import waking
from orchestrator.canvas.waking import BrokerWakeups
from orchestrator.ports import WakeupChannel
from orchestrator.stores.sql import SqlStore, polling
from tests.vendor import free_port, wait_until

go_on = threading.Event()
NEVER = 60.0  # much longer than a test waits


@step(id="holds-on")
def holds_on(number: int) -> int:
    """Say nothing until the test lets it go on."""
    assert go_on.wait(30)
    return number


waiting = Workflow("waiting", input=int).then(holds_on).commit()


class Deaf:
    """A channel that counts notifications, and delivers none."""

    def __init__(self) -> None:
        self.notified: Counter[str] = Counter()

    def notify(self, run_id: str) -> None:
        self.notified[run_id] += 1

    def count(self, run_id: str) -> int:
        return 0

    def wait(self, run_id: str, count: int, seconds: float) -> bool:
        return False


@pytest.fixture(autouse=True)
def _held() -> Iterator[None]:
    go_on.clear()
    yield
    go_on.set()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/runs.db"
    fresh: str = request.getfixturevalue("postgres_server").new_schema()
    return fresh


@pytest.fixture(params=["redis", "amqp"])
def channel(request: pytest.FixtureRequest) -> Iterator[Callable[[], BrokerWakeups]]:
    """Makes channels of apps of their own, as processes have them."""
    server = request.getfixturevalue("redis_server" if request.param == "redis" else "rabbitmq_server")
    with ExitStack() as apps:

        def make() -> BrokerWakeups:
            app = Celery("wakeups", broker=server.url(), set_as_current=False)
            apps.callback(app.close)
            return BrokerWakeups(app)

        yield make


def a_store(url: str, channel: WakeupChannel) -> SqlStore:
    """A store as a process of its own has it."""
    store = SqlStore(url)
    store.attach_wakeups(channel)
    return store


@pytest.mark.parametrize("what", ["event", "settling"])
def test_a_process_that_waits_is_woken_by_another_process(
    what: str, url: str, channel: Callable[[], BrokerWakeups], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the broker alone: neither would look again by itself before the test is over."""
    monkeypatch.setattr(polling, "_LISTENING_PAUSE", NEVER)
    listening = channel()
    here, there = a_store(url, listening), a_store(url, channel())
    with Orchestrator(store=there, workflows=[waiting]) as orchestrator, ThreadPoolExecutor() as threads:
        run = orchestrator.create_run(waiting).submit(1)
        assert wait_until(lambda: len(there.events(run.run_id)) == 2, 20)  # the run's start and the step's
        after = there.last_event(run.run_id)
        if what == "event":
            reading = threads.submit(lambda: bool(here.wait_for_events(run.run_id, after, NEVER)))
        else:
            reading = threads.submit(
                lambda: getattr(here.wait_until_settled(run.run_id, 0, NEVER), "settle_count", 0) == 1
            )
        assert wait_until(lambda: listening.wait(run.run_id, 0, 0), 20)
        time.sleep(0.2)  # long enough for the look after which it only listens
        go_on.set()
        assert reading.result(20)
    here.close()


def test_a_run_is_notified_only_while_a_reader_waits(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One without a reader is never notified; one that is read is found, notified or not."""
    monkeypatch.setattr(polling, "_MIN_PAUSE", polling._MAX_PAUSE)
    deaf = Deaf()
    here, there = a_store(url, deaf), a_store(url, deaf)
    with Orchestrator(store=there, workflows=[waiting]) as orchestrator, ThreadPoolExecutor() as threads:
        unread = orchestrator.create_run(waiting).submit(1)
        run = orchestrator.create_run(waiting).submit(1)
        assert wait_until(lambda: len(there.events(run.run_id)) == 2, 20)
        reading = threads.submit(here.wait_for_events, run.run_id, there.last_event(run.run_id), NEVER)
        assert wait_until(lambda: bool(here._asked_at), 20)
        assert not deaf.notified
        go_on.set()
        assert reading.result(20)
        assert unread.result(20).status == "success"
    assert deaf.notified[run.run_id] > 0
    assert unread.run_id not in deaf.notified
    here.close()


def test_readers_ask_once_for_all_of_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost for the run's row does not grow with the readers."""
    monkeypatch.setattr(polling, "_MIN_PAUSE", polling._MAX_PAUSE)
    store = a_store(f"sqlite:///{tmp_path}/runs.db", Deaf())
    asked: Counter[str] = Counter()
    change = store._connections.change
    monkeypatch.setattr(store._connections, "change", lambda work: (asked.update(["change"]), change(work))[1])
    with Orchestrator(store=store, workflows=[waiting]) as orchestrator, ThreadPoolExecutor(20) as threads:
        run = orchestrator.create_run(waiting)
        asked.clear()
        for reading in [threads.submit(store.wait_for_events, run.run_id, "", 0.5) for _ in range(20)]:
            assert reading.result(20) == []
    assert 1 <= asked["change"] <= 3


def test_a_broker_that_is_away_makes_readers_look_by_themselves(tmp_path: Path) -> None:
    """As often as without a channel; a commit waits for nothing."""
    app = Celery("deaf", broker=f"redis://127.0.0.1:{free_port()}/0", set_as_current=False)
    store = a_store(f"sqlite:///{tmp_path}/runs.db", BrokerWakeups(app))
    with Orchestrator(store=store, workflows=[waiting]) as orchestrator:
        run = orchestrator.create_run(waiting).submit(1)
        threading.Timer(0.5, go_on.set).start()
        seen = [event.type for event in run.events()]
        assert seen[-1] == "workflow-finish"
        assert run.result(20).status == "success"
    app.close()


def test_a_process_with_nothing_to_wait_for_listens_no_more(
    channel: Callable[[], BrokerWakeups], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection and its thread go; they come back with the next process that waits."""
    monkeypatch.setattr(waking, "_IDLE", 0.2)
    monkeypatch.setattr(waking, "_LOOK", 0.1)
    one, other = channel(), channel()
    for _ in range(2):
        count = one.count("run")
        assert wait_until(lambda: one.wait("run", -1, 0), 20)
        other.notify("run")
        one.count("run")
        assert one.wait("run", count, 20)
        assert wait_until(lambda: not one._listener.is_started, 20)
        assert not one.wait("run", -1, 0)
