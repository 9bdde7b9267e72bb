"""Readers of SQL stores are woken through the broker; runs that nobody waits for pay nothing, and no bell is needed."""

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
from orchestrator.canvas.waking import BrokerBell
from orchestrator.stores.sql import SqlStore, vigil
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
    """A bell that counts who rings, and is never heard."""

    def __init__(self) -> None:
        self.rung: Counter[str] = Counter()

    def ring(self, run_id: str) -> None:
        self.rung[run_id] += 1

    def heard(self, run_id: str) -> int:
        return 0

    def wait(self, run_id: str, heard: int, seconds: float) -> bool:
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
def bell(request: pytest.FixtureRequest) -> Iterator[Callable[[], BrokerBell]]:
    """Makes bells of apps of their own, as processes have them."""
    server = request.getfixturevalue("redis_server" if request.param == "redis" else "rabbitmq_server")
    with ExitStack() as apps:

        def make() -> BrokerBell:
            app = Celery("bell", broker=server.url(), set_as_current=False)
            apps.callback(app.close)
            return BrokerBell(app)

        yield make


def a_store(url: str, bell: object = None) -> SqlStore:
    """A store as a process of its own has it."""
    store = SqlStore(url)
    store.bell = bell  # type: ignore[assignment]
    return store


@pytest.mark.parametrize("what", ["event", "rest"])
def test_who_waits_is_woken_by_another_process(
    what: str, url: str, bell: Callable[[], BrokerBell], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the broker alone: neither would look again by itself before the test is over."""
    monkeypatch.setattr(vigil, "_RARE", NEVER)
    here, there = a_store(url, bell()), a_store(url, bell())
    with Orchestrator(store=there, workflows=[waiting]) as orchestrator, ThreadPoolExecutor() as threads:
        run = orchestrator.create_run(waiting).submit(1)
        assert wait_until(lambda: len(there.events(run.run_id)) == 2, 20)  # the run's start and the step's
        after = there.last_event(run.run_id)
        if what == "event":
            reading = threads.submit(lambda: bool(here.follow(run.run_id, after, NEVER)))
        else:
            reading = threads.submit(lambda: getattr(here.wait(run.run_id, 0, NEVER), "rests", 0) == 1)
        assert wait_until(lambda: here.bell is not None and here.bell.wait(run.run_id, 0, 0), 20)
        time.sleep(0.2)  # long enough for the look after which it only listens
        go_on.set()
        assert reading.result(20)
    here.close()


def test_a_run_is_rung_for_only_while_somebody_waits(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that nobody reads is never rung for; one that is read is found, rung for or not."""
    monkeypatch.setattr(vigil, "_QUICK", vigil._SLOW)
    deaf = Deaf()
    here, there = a_store(url, deaf), a_store(url, deaf)
    with Orchestrator(store=there, workflows=[waiting]) as orchestrator, ThreadPoolExecutor() as threads:
        unread = orchestrator.create_run(waiting).submit(1)
        run = orchestrator.create_run(waiting).submit(1)
        assert wait_until(lambda: len(there.events(run.run_id)) == 2, 20)
        reading = threads.submit(here.follow, run.run_id, there.last_event(run.run_id), NEVER)
        assert wait_until(lambda: bool(here._asked), 20)
        assert not deaf.rung
        go_on.set()
        assert reading.result(20)
        assert unread.result(20).status == "success"
    assert deaf.rung[run.run_id] > 0
    assert unread.run_id not in deaf.rung
    here.close()


def test_readers_ask_once_for_all_of_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost for the run's row does not grow with the readers."""
    monkeypatch.setattr(vigil, "_QUICK", vigil._SLOW)
    store = a_store(f"sqlite:///{tmp_path}/runs.db", Deaf())
    asked: Counter[str] = Counter()
    change = store._connections.change
    monkeypatch.setattr(store._connections, "change", lambda work: (asked.update(["change"]), change(work))[1])
    with Orchestrator(store=store, workflows=[waiting]) as orchestrator, ThreadPoolExecutor(20) as threads:
        run = orchestrator.create_run(waiting)
        asked.clear()
        for reading in [threads.submit(store.follow, run.run_id, "", 0.5) for _ in range(20)]:
            assert reading.result(20) == []
    assert 1 <= asked["change"] <= 3


def test_a_broker_that_is_away_makes_readers_look_by_themselves(tmp_path: Path) -> None:
    """As often as without a bell; whoever commits waits for nothing."""
    app = Celery("deaf", broker=f"redis://127.0.0.1:{free_port()}/0", set_as_current=False)
    store = a_store(f"sqlite:///{tmp_path}/runs.db", BrokerBell(app))
    with Orchestrator(store=store, workflows=[waiting]) as orchestrator:
        run = orchestrator.create_run(waiting).submit(1)
        threading.Timer(0.5, go_on.set).start()
        seen = [event.type for event in run.events()]
        assert seen[-1] == "workflow-finish"
        assert run.result(20).status == "success"
    app.close()


def test_who_has_nothing_to_wait_for_listens_no_more(
    bell: Callable[[], BrokerBell], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection and its thread go; they come back with the next who waits."""
    monkeypatch.setattr(waking, "_IDLE", 0.2)
    monkeypatch.setattr(waking, "_LOOK", 0.1)
    one, other = bell(), bell()
    for _ in range(2):
        heard = one.heard("run")
        assert wait_until(lambda: one.wait("run", -1, 0), 20)
        other.ring("run")
        one.heard("run")
        assert one.wait("run", heard, 20)
        assert wait_until(lambda: one._thread is None, 20)
        assert not one.wait("run", -1, 0)
