"""What is said of an app's configuration: refused, warned of, or told when somebody asks."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery import Celery
from kombu import Queue
from kombu.serialization import register, unregister
from kombu.transport.memory import Transport

from orchestrator import Orchestrator, Workflow, step
from orchestrator.canvas.deployment import (
    Misconfigured,
    configuration_findings,
    message_serializer,
    queues_of,
    refuse,
    routing_findings,
)
from orchestrator.engine.findings import Finding, Severity


class OneToOne(Transport):
    """A broker without fanout and topics, as Amazon SQS is one."""

    driver_type = "one-to-one"
    implements = Transport.implements.extend(exchange_type=frozenset(["direct"]))


@step
def plain(data: int) -> int:
    return data


@step(queue="checks")
def check(data: int) -> int:
    return data


checking = Workflow("checking", input=int).then(plain).then(check).commit()


@contextmanager
def app_with(**settings: Any) -> Iterator[Celery]:
    """A Celery app with these settings."""
    backend = settings.pop("backend", None)
    app = Celery("deployed", broker="memory://", backend=backend, set_as_current=False)
    app.conf.update(settings)
    yield app
    app.close()


def said_of(*, publishes_events: bool = False, **settings: Any) -> dict[str, Finding]:
    """Return the findings about an app with these settings, by their names."""
    with app_with(**settings) as app:
        return {each.name: each for each in configuration_findings(app, publishes_events=publishes_events)}


@pytest.fixture
def jsonish() -> Iterator[str]:
    """JSON by another name."""
    register("jsonish", json.dumps, json.loads, content_type="application/x-jsonish", content_encoding="utf-8")
    yield "jsonish"
    unregister("jsonish")


@pytest.mark.parametrize(
    "settings, name, severity, says",
    [
        ({"accept_content": ["msgpack"]}, "accept_content", Severity.ERROR, "add 'json' to accept_content"),
        ({"accept_content": ["pickle", "yaml"]}, "accept_content", Severity.ERROR, "'pickle' and 'yaml'"),
        ({"accept_content": []}, "accept_content", Severity.ERROR, "accept nothing"),
        ({"accept_content": ["auth"]}, "accept_content", Severity.ERROR, "call app.setup_security()"),
        ({"task_serializer": "pickle"}, "task_serializer", Severity.WARNING, "add 'pickle' to accept_content"),
        ({"task_protocol": 1}, "task_protocol", Severity.WARNING, "set task_protocol = 2"),
        (
            {"backend": "cache+memory://", "result_serializer": "pickle"},
            "result_serializer",
            Severity.WARNING,
            "set result_serializer = 'json'",
        ),
        (
            {"backend": "cache+memory://", "result_accept_content": ["pickle"]},
            "result_serializer",
            Severity.WARNING,
            "add 'json' to result_accept_content",
        ),
        ({"backend": "rpc://"}, "result_backend", Severity.WARNING, "set another result_backend"),
        ({}, "result_backend", Severity.INFO, "orchestrator.get_run(run_id)"),
        ({"task_ignore_result": True}, "task_ignore_result", Severity.INFO, "all the same"),
        ({"task_track_started": True}, "task_track_started", Severity.INFO, "PENDING until the run has ended"),
        ({"task_acks_late": True}, "task_acks_late", Severity.INFO, "acknowledged early all the same"),
        ({}, "worker_prefetch_multiplier", Severity.INFO, "set worker_prefetch_multiplier = 1"),
        ({"enable_utc": False, "timezone": "Asia/Tokyo"}, "enable_utc", Severity.INFO, "Asia/Tokyo"),
        ({"worker_enable_remote_control": False}, "worker_enable_remote_control", Severity.INFO, "not needed"),
        ({"broker_transport": f"{__name__}:OneToOne"}, "broker_url", Severity.INFO, "has no fanout"),
    ],
)
def test_each_setting_has_its_sentence_and_its_remedy(
    settings: dict[str, Any], name: str, severity: Severity, says: str
) -> None:
    found = said_of(**settings)

    assert found[name].severity is severity
    assert says in str(found[name])


def test_a_plain_configuration_is_not_spoken_of() -> None:
    found = said_of(backend="cache+memory://", worker_prefetch_multiplier=1)

    assert found == {}


def test_events_are_not_published_to_a_broker_that_has_no_such_exchange() -> None:
    assert said_of(publishes_events=True) == said_of()
    found = said_of(publishes_events=True, broker_transport=f"{__name__}:OneToOne")

    assert found["orchestrator_publish_events"].severity is Severity.ERROR
    assert "one-to-one" in found["orchestrator_publish_events"].sentence


def test_a_broker_that_cannot_be_made_is_left_to_the_first_message() -> None:
    assert "broker_url" not in said_of(broker_transport="no.such:Transport", publishes_events=True)


@pytest.mark.parametrize(
    "accepted, chosen",
    [
        (["json"], "json"),
        (["application/json"], "json"),
        (["pickle", "json"], "json"),
        (None, "json"),
        (["jsonish"], "jsonish"),
        (["application/x-jsonish"], "jsonish"),
        (["unheard-of", "jsonish"], "jsonish"),
        (["pickle"], None),
        (["msgpack"], None),
    ],
)
def test_messages_are_json_by_a_name_that_workers_accept(
    jsonish: str, accepted: list[str] | None, chosen: str | None
) -> None:
    with app_with(accept_content=accepted) as app:
        assert message_serializer(app.conf) == chosen
        said = {each.name for each in configuration_findings(app, publishes_events=False)}

    assert ("accept_content" in said) == (chosen != "json")


def test_an_app_whose_workers_would_throw_our_messages_away_is_refused_at_first_use() -> None:
    """Instead of a run that stays queued for ever."""
    with app_with(accept_content=["msgpack"], task_protocol=1) as app:
        orchestrator = Orchestrator(app, store="memory://refused", workflows=[checking])
        with pytest.raises(ValueError, match=r"accept_content: .*add 'json'"):
            orchestrator.create_run("checking")


def test_warnings_are_logged_once_and_what_is_only_worth_knowing_is_not(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "orchestrator")
    with (
        app_with(backend="rpc://", task_acks_late=True) as app,
        Orchestrator(app, store="memory://warned", workflows=[checking]) as orchestrator,
    ):
        for _ in range(2):
            orchestrator.create_run("checking")

    assert [(record.levelname, record.getMessage().partition(":")[0]) for record in caplog.records] == [
        ("WARNING", "result_backend")
    ]
    assert "set another result_backend" in caplog.text


def test_an_eager_app_sends_no_messages_and_is_not_refused() -> None:
    with (
        app_with(accept_content=["msgpack"], task_always_eager=True) as app,
        Orchestrator(app, workflows=[checking]) as orchestrator,
    ):
        assert orchestrator.create_run("checking").start(3).result == 3


def test_a_step_whose_queue_is_not_known_is_an_error_where_queues_are_not_made() -> None:
    with app_with(task_create_missing_queues=False) as app:
        found = routing_findings(app, [checking])
        assert [(each.name, each.severity) for each in found] == [("task_create_missing_queues", Severity.ERROR)]
        assert "step checking.check" in found[0].sentence
        assert "'checks'" in found[0].sentence
        with pytest.raises(Misconfigured, match="declare the queue in task_queues"):
            refuse(found)

    with app_with(task_create_missing_queues=False, task_queues=[Queue("celery"), Queue("checks")]) as app:
        assert routing_findings(app, [checking]) == []


def test_no_queue_is_made_by_looking_for_those_that_are_missing() -> None:
    """A worker of an older Celery that starts would listen on it."""
    with app_with() as app:
        assert routing_findings(app, [checking]) == []
        assert set(app.amqp.queues) == {"celery"}


def test_the_queues_of_steps_are_those_that_the_router_chooses() -> None:
    with app_with(task_routes={"checking.plain": {"queue": "routed"}}) as app:
        assert queues_of(app, [checking]) == {"routed": "checking.plain", "checks": "checking.check"}


def test_a_router_that_fails_here_stops_no_worker() -> None:
    def router(name: str, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no tenant here")

    routed = Workflow("routed", input=int).then(plain).commit()
    with app_with(task_routes=[router], task_create_missing_queues=False) as app:
        assert routing_findings(app, [routed]) == []
        assert queues_of(app, [routed]) == {}
