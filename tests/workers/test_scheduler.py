"""The scheduler on real brokers: outages, unknown queues, routes, many timers of one moment."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import QueueNotFound

from orchestrator import BrokerUnavailable, Orchestrator, Workflow, step
from orchestrator.canvas.queues import Queues
from orchestrator.engine.scheduler import Scheduler
from orchestrator.host import new_run_id
from orchestrator.stores.memory import MemoryStore
from orchestrator.testing import VirtualClock
from tests.servers import RabbitMQServer
from tests.vendor import LocalRedis, WorkerNode, wait_until
from tests.workers import scheduler_app

Starter = Callable[..., WorkerNode]
TICK = 0.05
SOON = 20.0  # far below the redelivery delay of these tests


@step
def plain(x: float) -> float:
    return x


@step(queue="emial")
def misspelled(x: float) -> float:
    return x


@dataclass
class Here:
    """An app on a real broker, its store on a virtual clock, and a scheduler that ticks when it is told to."""

    app: Celery
    orchestrator: Orchestrator
    clock: VirtualClock
    scheduler: Scheduler

    def tick(self, seconds: float = 0) -> Any:
        """Let time pass, and sweep all that is due."""
        self.clock.advance(seconds)
        time.sleep(2 * TICK)  # what is known of queues is forgotten
        report = self.scheduler.tick()
        while report.is_full and not report.is_in_vain:
            report = report.plus(self.scheduler.tick())
        return report

    def has(self, queue: str, count: int) -> bool:
        """Tell whether so many messages wait in the queue, once the broker has taken them all."""
        return bool(wait_until(lambda: self.waiting(queue) == count, 5))

    def waiting(self, queue: str) -> int:
        """How many messages wait in the queue."""
        with self.app.connection_for_write() as connection:
            channel: Any = connection.default_channel
            try:
                return int(channel.queue_declare(queue=queue, passive=True).message_count)
            except connection.channel_errors:
                return 0


@contextmanager
def on(broker: str, *workflows: Workflow, **settings: Any) -> Iterator[Here]:
    """An app on this broker."""
    app = Celery("here", broker=broker, set_as_current=False)
    app.conf.update(settings)
    clock = VirtualClock()
    with Orchestrator(
        app, store=MemoryStore(clock), workflows=workflows, tick_seconds=TICK, republish_seconds=30
    ) as orchestrator:
        queues = Queues(app, orchestrator.settings)
        runtime = orchestrator.client.runtime
        scheduler = Scheduler(orchestrator.store, runtime, orchestrator.settings, "me", queues)
        scheduler.tick()
        try:
            yield Here(app, orchestrator, clock, scheduler)
        finally:
            queues.close()
    app.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRedis]:
    """A Redis for the tests of this module."""
    server = LocalRedis(tmp_path_factory.mktemp("scheduler-redis")).start()
    yield server
    server.teardown()


@pytest.fixture(params=["redis", "rabbitmq"])
def broker(request: pytest.FixtureRequest, server: LocalRedis) -> str:
    """An empty broker of each kind."""
    if request.param == "rabbitmq":
        rabbitmq: RabbitMQServer = request.getfixturevalue("rabbitmq_server")
        return rabbitmq.url()
    with server.client as client:
        client.flushall()
    return server.database(4)


# --- messages that cannot be sent -------------------------------------------------------------------------------------


def test_a_start_into_an_unknown_queue_is_refused_and_taken_back(broker: str) -> None:
    """As where the broker is away: the run is as it was, and can be started once the queue is known."""
    bad = Workflow("bad").then(misspelled).commit()
    with on(broker, bad, task_create_missing_queues=False) as here:
        run = here.orchestrator.create_run("bad")
        with pytest.raises(BrokerUnavailable, match="emial") as raised:
            run.submit(1.0)
        assert raised.value.is_refused
        assert isinstance(raised.value.__cause__, QueueNotFound)
        assert run.status == "pending"
        with pytest.raises(BrokerUnavailable):
            bad.delay(1.0)
        assert len(here.orchestrator.runs.list().runs) == 1


def test_timers_of_an_unknown_queue_cost_the_others_nothing(broker: str) -> None:
    """60 of them are due first; the others go out in the same tick."""
    bad, good = Workflow("bad").then(misspelled).commit(), Workflow("good").then(plain).commit()
    queue = f"good-{new_run_id()[:8]}"
    with on(broker, bad, good, task_create_missing_queues=False, task_default_queue=queue) as here:
        for _ in range(60):
            bad.apply_async((1.0,), countdown=60)
            good.apply_async((1.0,), countdown=61)
        report = here.tick(62)
        assert (report.unsent, report.republished) == (60, 60)
        assert here.has(queue, 60)
        here.app.amqp.queues.add("emial")
        assert here.tick(31).republished >= 60
        assert here.has("emial", 60)


# --- backlogs ---------------------------------------------------------------------------------------------------------


@step(queue="slow-steps")
def placed(x: float) -> float:
    return x


def _task(app: Celery, **options: Any) -> Any:
    @app.task(name="busy.task", shared=False, **options)  # type: ignore[untyped-decorator]
    def task(x: float) -> float:
        return x

    return task


@pytest.mark.filterwarnings("ignore:(?s).*queue:celery.exceptions.CDeprecationWarning")
@pytest.mark.parametrize("how", ["default", "step", "settings", "router", "task", "task by settings"])
def test_a_backlog_gets_no_copies_however_its_queue_was_chosen(broker: str, how: str) -> None:
    """100 messages wait, nobody consumes: in ten minutes there are 100. A lost one is sent again when it is short."""
    slow = f"slow-{new_run_id()[:8]}"
    settings: dict[str, dict[str, Any]] = {
        "default": {"task_default_queue": slow},
        "step": {"task_queues": None},
        "settings": {"task_routes": {"busy.*": {"queue": slow}}},
        "router": {"task_routes": [lambda name, *args, **kwargs: {"queue": slow} if name == "busy.plain" else None]},
        "task": {},
        "task by settings": {"task_routes": {"busy.*": {"queue": slow}}},
    }
    name = "slow-steps" if how == "step" else slow
    with on(broker, **settings[how]) as here:
        with here.app.connection_for_write() as connection:
            connection.default_channel.queue_delete("slow-steps")
        entry: Any = placed if how == "step" else plain
        if how.startswith("task"):
            entry = _task(here.app, **({"queue": slow} if how == "task" else {"rate_limit": "1/m"}))
        flow = Workflow("busy").then(entry).commit()
        here.orchestrator.register(flow)
        for _ in range(100):
            here.orchestrator.create_run(flow).submit(1.0)
        assert here.has(name, 100)
        for _ in range(8):
            here.tick(75)
        assert here.has(name, 100)
        with here.app.connection_for_write() as connection:
            assert connection.default_channel.queue_purge(name) == 100
        for _ in range(9):
            here.tick(31)
        assert wait_until(lambda: here.waiting(name) >= 100, 5)


def test_a_message_that_was_lost_in_a_queue_that_is_never_short_comes_back(broker: str) -> None:
    """Others come and go there all the time, so it gets a copy once more were taken than had waited with it."""
    queue = f"steady-{new_run_id()[:8]}"
    with on(broker, Workflow("plain").then(plain).commit(), task_default_queue=queue) as here:
        here.orchestrator.create_run("plain").submit(1.0)
        with here.app.connection_for_write() as connection:
            others = connection.SimpleQueue(queue)
            assert others.clear() == 1
            for _ in range(60):
                others.put("of another application")
            assert here.has(queue, 60)
            sent = 0
            for taken in range(0, 60, 20):
                sent += here.tick(241).republished
                assert (sent, taken) == (0, taken)
                for _ in range(20):
                    assert others.queue.get(no_ack=True) is not None
                sent += here.tick(1).republished
                for _ in range(20):
                    others.put("of another application")
                assert here.has(queue, 60 + sent)
            sent += here.tick(241).republished
            assert sent == 1
            assert here.has(queue, 61)
            others.close()


def test_messages_that_were_lost_together_come_back_together(broker: str) -> None:
    """Not in waves of one batch for each redelivery delay."""
    queue = f"lost-{new_run_id()[:8]}"
    with on(broker, Workflow("plain").then(plain).commit(), task_default_queue=queue) as here:
        for _ in range(450):
            here.orchestrator.create_run("plain").submit(1.0)
        with here.app.connection_for_write() as connection:
            assert connection.default_channel.queue_purge(queue) == 450
        here.tick(31)
        assert here.has(queue, 450)


# --- many at once -----------------------------------------------------------------------------------------------------


def test_many_timers_of_one_moment_are_sent_at_the_brokers_pace(broker: str) -> None:
    """1,500 of one moment, in one tick, without a pause between the batches."""
    queue, flow = f"many-{new_run_id()[:8]}", Workflow("plain").then(plain).commit()
    with on(broker, flow, task_default_queue=queue) as here:
        for _ in range(1_500):
            flow.apply_async((1.0,), countdown=60)
        began = time.monotonic()
        assert here.tick(61).republished == 1_500
        assert time.monotonic() - began < 10  # with a second after each batch of 200 it would be 7.5 and more
        assert here.has(queue, 1_500)


# --- outages ----------------------------------------------------------------------------------------------------------


@contextmanager
def gone(broker: LocalRedis, how: str) -> Iterator[None]:
    """The broker is away: its process is killed, or stopped, so that it takes connections and says nothing."""
    if how == "killed":
        broker.process.kill()
    else:
        os.kill(broker.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        if how == "killed":
            broker.process.start()
            broker.ready()
        else:
            os.kill(broker.process.pid, signal.SIGCONT)


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_no_tick_waits_long_for_a_broker_that_is_away(redis_factory: Callable[[], LocalRedis], how: str) -> None:
    """A worker goes on being announced, and keeps no right to sweep that it cannot use."""
    broker, flow = redis_factory(), Workflow("plain").then(plain).commit()
    with on(broker.database(0), flow) as here:
        for _ in range(100):
            flow.apply_async((1.0,), countdown=60)
        here.orchestrator.create_run("plain").submit(1.0)
        here.tick(31)  # its connection is open by now
        with gone(broker, how):
            here.clock.advance(60)
            for _ in range(3):
                began = time.monotonic()
                assert here.scheduler.tick().is_in_vain
                assert time.monotonic() - began < 5
                here.clock.advance(1)
        here.tick(1)
        here.tick(1)
        assert wait_until(lambda: here.waiting("celery") >= 100, 5)


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_an_outage_costs_little_more_than_its_length(
    redis_factory: Callable[[], LocalRedis], worker_factory: Starter, tmp_path: Path, how: str
) -> None:
    """Sleeps that end in it, on a real worker: they go on soon after, and not after a redelivery delay."""
    broker, store = redis_factory(), redis_factory()
    env = {"SCHEDULER_BROKER": broker.database(0), "SCHEDULER_STORE": store.database(0)}
    worker = worker_factory("tests.workers.scheduler_app:app", env=env, cwd=tmp_path, pool="threads")
    app, orchestrator = scheduler_app.make(**{name[10:].lower(): url for name, url in env.items()})
    with orchestrator:
        runs = [orchestrator.create_run("napping").submit(float(seconds)) for seconds in (1, 2, 4, 6, 8)]
        wait_until(lambda: runs[0].status == "success", SOON)
        with gone(broker, how):
            time.sleep(9)
        began = time.monotonic()
        assert wait_until(lambda: all(run.status == "success" for run in runs), SOON), worker.process.tail()
        assert time.monotonic() - began < SOON
        assert "tick failed" not in worker.process.tail(500)
    app.close()
