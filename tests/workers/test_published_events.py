"""Events on the broker: what a run's commits publish, as a consumer of another system hears it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from celery import Celery
from kombu import Consumer, Exchange, Queue

from orchestrator import Orchestrator, Run, RunStatus
from orchestrator.canvas.publication import Publisher
from orchestrator.contrib.events import PublishedEvent, Receiver
from orchestrator.rules.model import RunHeader
from tests.servers import RabbitMQServer
from tests.vendor import LocalRedis, WorkerNode, free_port
from tests.workers import flower_app

Starter = Callable[..., WorkerNode]
SOON = 30.0


@dataclass
class Place:
    """A broker, and a worker there that publishes."""

    broker: str
    store: str

    @contextmanager
    def caller(self) -> Iterator[tuple[Celery, Orchestrator]]:
        """An orchestrator as a caller has it, which publishes too."""
        app, orchestrator = flower_app.make(self.broker, self.store, orchestrator_publish_events=True)
        try:
            with orchestrator:
                yield app, orchestrator
        finally:
            app.close()


@pytest.fixture
def place(
    request: pytest.FixtureRequest, redis_factory: Callable[[], LocalRedis], worker_factory: Starter, tmp_path: Path
) -> Place:
    """A worker on the broker that the test's parameter names."""
    redis = redis_factory()
    name = getattr(request, "param", "redis")
    broker = redis.database(0) if name == "redis" else request.getfixturevalue("rabbitmq_server").url()
    env = {"WATCHED_BROKER": broker, "WATCHED_STORE": redis.database(1), "WATCHED_PUBLISH": "yes"}
    worker_factory("tests.workers.flower_app:app", env=env, cwd=tmp_path, concurrency=2)
    return Place(broker, redis.database(1))


def heard_of(run: Run, receiver: Receiver, settle_count: int = 1) -> list[PublishedEvent]:
    """The run's events until it has settled so often."""
    heard: list[PublishedEvent] = []
    for event in receiver.listen(timeout=SOON):
        if event.run_id == run.run_id:
            heard.append(event)
        if [event.type for event in heard].count("workflow-finish") == settle_count:
            break
    return sorted(heard, key=lambda event: (event.commit, event.index))


@pytest.mark.parametrize("place", ["redis", "rabbitmq"], indirect=True)
def test_a_consumer_hears_what_the_log_has(place: Place) -> None:
    """Every event of the log is published once, those of one run in their order, and no value with them."""
    with place.caller() as (app, orchestrator), Receiver(app) as receiver:
        run = orchestrator.create_run("checkout", resource_id="customer-7")
        run.start({"secret": "of-this-test"}, timeout=SOON)
        run.resume(data="another-secret", timeout=SOON)
        heard = heard_of(run, receiver, settle_count=2)
        logged = orchestrator.store.events(run.run_id)

    told = [(event.type, event.payload.get("id")) for event in heard]
    assert told == [(event.doc["type"], event.doc.get("step")) for event in logged]
    steps = [step for kind, step in told if kind == "workflow-step-result"]
    assert steps == ["collect", "double", "total", "approve", "charge"]
    assert [event.payload["workflow_status"] for event in heard if event.type == "workflow-finish"] == [
        "suspended",
        "success",
    ]
    assert {event.workflow_id for event in heard} == {"checkout"}
    assert len({(event.commit, event.index) for event in heard}) == len(heard)
    assert abs(heard[-1].at.timestamp() - time.time()) < 60
    text = json.dumps([dict(event.payload) for event in heard])
    assert "secret" not in text
    assert "charged" not in text


def test_a_receiver_chooses_by_workflow_and_type(place: Place) -> None:
    """Other events are not delivered."""
    with place.caller() as (app, orchestrator), Receiver(app, workflow="failing", type="workflow-finish") as receiver:
        assert orchestrator.create_run("stamping").start("good", timeout=SOON).status == RunStatus.SUCCESS
        run = orchestrator.create_run("failing")
        run.start(1, timeout=SOON)
        [event] = receiver.listen(timeout=2.0)
    assert (event.run_id, event.payload) == (run.run_id, {"workflow_status": "failed"})


@pytest.mark.parametrize("place", ["rabbitmq"], indirect=True)
def test_a_named_queue_collects_while_nobody_listens(place: Place, rabbitmq_server: RabbitMQServer) -> None:
    """An event that was taken off is not delivered again; those that came meanwhile are."""
    queue = f"{rabbitmq_server.prefix}-audit"
    with place.caller() as (app, orchestrator):
        with Receiver(app, type="workflow-finish", queue=queue):
            pass
        runs = [orchestrator.create_run("stamping") for _ in range(2)]
        for run in runs:
            run.start("good", timeout=SOON)
        with Receiver(app, type="workflow-finish", queue=queue) as receiver:
            heard = [event.run_id for event in receiver.listen(timeout=2.0)]
        with Receiver(app, type="workflow-finish", queue=queue) as receiver:
            assert list(receiver.listen(timeout=0.5)) == []
        with app.connection_for_write() as connection:
            Queue(queue, channel=connection.default_channel).delete()
    assert heard == [run.run_id for run in runs]


@pytest.mark.parametrize("place", ["rabbitmq"], indirect=True)
def test_any_consumer_can_bind_to_the_exchange(place: Place) -> None:
    """The exchange, the routing key and the body are what other systems rely on; here without a class of ours."""
    bodies = []
    with place.caller() as (app, orchestrator), app.connection_for_read() as connection:
        exchange = Exchange("orchestrator.events", type="topic", durable=True)
        queue = Queue("", exchange, routing_key="stamping.workflow-start", exclusive=True, durable=False)
        with Consumer(connection, [queue], callbacks=[lambda body, message: bodies.append(body)], no_ack=True):
            run = orchestrator.create_run("stamping")
            run.start("good", timeout=SOON)
            connection.drain_events(timeout=SOON)
    body = bodies[0]
    assert body.pop("at").endswith("+00:00")
    assert body == {
        "version": 1,
        "namespace": "watched",
        "run_id": run.run_id,
        "workflow_id": "stamping",
        "type": "workflow-start",
        "commit": 1,
        "index": 0,
        "source": "WORKFLOW",
        "payload": {},
    }


def test_a_receiver_survives_what_is_no_event(place: Place) -> None:
    """It is left out, and logged."""
    with place.caller() as (app, orchestrator), Receiver(app) as receiver:
        with app.producer_or_acquire() as producer:
            exchange = Exchange("orchestrator.events", type="fanout", durable=True)
            producer.publish({"nothing": "of ours"}, exchange=exchange, routing_key="x.y", serializer="json")
        run = orchestrator.create_run("stamping")
        run.start("good", timeout=SOON)
        assert heard_of(run, receiver)


def test_a_broker_that_is_away_neither_holds_nor_fails_a_step(caplog: pytest.LogCaptureFixture) -> None:
    """Events are dropped, and the log says so."""
    app = Celery("deaf", broker=f"redis://127.0.0.1:{free_port()}/0", set_as_current=False)
    publisher = Publisher(app)
    began = time.monotonic()
    for _ in range(20_000):
        publisher.publish(RunHeader(run_id="r1", workflow_id="flow"), [{"type": "workflow-start"}])
    assert time.monotonic() - began < 10
    publisher.flush(20.0)
    assert "event(s) of runs are not published" in caplog.text
    app.close()
