"""Checks of an app's configuration: what it means for workflows, met at start and by `… workflow doctor`.

Everybody who needs to know asks here: an application is refused when it is composed (in a worker before it takes a
message, in a caller at its first use), and warnings are logged then. `docs/celery.md` has the table. Nothing here asks
a server.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from celery import Celery
from celery.backends.base import DisabledBackend
from celery.backends.rpc import RPCBackend
from celery.exceptions import QueueNotFound
from kombu.exceptions import SerializerNotInstalled
from kombu.serialization import dumps, prepare_accept_content, registry

from orchestrator.canvas.compat import has_fanout
from orchestrator.canvas.messages import message, queue_of
from orchestrator.canvas.publication import exchange_of
from orchestrator.definitions import Workflow
from orchestrator.engine.findings import Finding, Severity
from orchestrator.rules.change import Dispatch
from orchestrator.rules.model import RunHeader, pack_route

log = logging.getLogger("orchestrator")

_SAMPLE = [["run", "0.1", 2], {}, {"callbacks": None}]  # the body of a step's message, by its shape
_SIGNED = "auth"  # the name under which `setup_security` registers its serializer: JSON in a signed envelope


class Misconfigured(ValueError):
    """An app is configured so that runs would hang. The message names each setting, and the way out."""


def refuse_misconfigured(app: Celery, *, publishes_events: bool) -> None:
    """Raise `Misconfigured` for what would make runs hang, and log what is only to be warned of."""
    refuse(configuration_findings(app, publishes_events=publishes_events))


def refuse_lost_steps(app: Celery, workflows: Iterable[Workflow]) -> None:
    """Raise `Misconfigured` where a step's message has no queue to go to."""
    refuse(routing_findings(app, workflows))


def refuse(findings: Iterable[Finding]) -> None:
    """Log the warnings among these findings; raise `Misconfigured` with all of the errors."""
    found = list(findings)
    for finding in found:
        if finding.severity is Severity.WARNING:
            log.warning("%s", finding)
    if errors := [str(finding) for finding in found if finding.severity is Severity.ERROR]:
        raise Misconfigured("; ".join(errors))


# --- the messages of steps -------------------------------------------------------------------------------------------


def message_serializer(conf: Any) -> str | None:
    """Return the name of the serializer for the messages of steps: one that writes JSON, and that workers accept.

    JSON by another name is a serializer of the user's whose texts are JSON, or the one that signs. None where there is
    none of them: workers would throw our messages away.
    """
    # In the order in which users would expect them; a name that comes twice does no harm.
    names = ["json", conf.task_serializer, *(_name(each) for each in conf.accept_content or ())]
    accepted = _accepted(conf.accept_content)
    for name in names:
        content_type = _json_type(name)
        if content_type is not None and (accepted is None or content_type in accepted):
            return str(name)
    return None


def _name(given: str) -> str:
    """Return the name of a serializer that is given by its name, or by its content type."""
    names: dict[str, str] = registry.type_to_name
    return names.get(given, given)


def _accepted(given: Any) -> set[str] | None:
    """Return content types; None where all are accepted. Names that this process does not know are left out."""
    if given is None:
        return None
    found: set[str] = set()
    for each in given:
        with suppress(SerializerNotInstalled):
            found |= prepare_accept_content([each])
    return found


def _json_type(name: str) -> str | None:
    """Return the content type that this serializer writes, if it writes JSON."""
    try:
        content_type, _, written = dumps(_SAMPLE, serializer=name)
        if name != _SIGNED and json.loads(written) != _SAMPLE:
            return None
    except Exception:  # noqa: BLE001  (a serializer of the user's, or one that is not registered here)
        return None
    return str(content_type)


# --- the configuration -----------------------------------------------------------------------------------------------


def configuration_findings(app: Celery, *, publishes_events: bool) -> list[Finding]:
    """Return what is to be said of the app's configuration, the settings in the order of the documentation."""
    found = [finding for check in _CHECKS for finding in check(app)]
    return found + list(_broker(app, publishes_events))


def _accept_content(app: Celery) -> Iterator[Finding]:
    accepted = app.conf.accept_content
    serializer = message_serializer(app.conf)
    if serializer is None:
        sentence = f"workers accept {_listed(accepted)}, and would throw away the messages of steps, which are JSON"
        remedy = "add 'json' to accept_content"
        if _SIGNED in (accepted or ()):
            remedy = "call app.setup_security() in every process before it uses the orchestrator, or " + remedy
        yield Finding("accept_content", Severity.ERROR, sentence, remedy)
    elif serializer == _SIGNED:
        sentence = "the messages of steps are signed; wake-ups of readers are not, since they are hints without values"
        yield Finding("setup_security", Severity.INFO, sentence)
    elif serializer != "json":
        sentence = f"the messages of steps are written by {serializer!r}, since workers do not accept 'json'"
        yield Finding("accept_content", Severity.INFO, sentence)


def _task_serializer(app: Celery) -> Iterator[Finding]:
    conf = app.conf
    accepted, name = _accepted(conf.accept_content), conf.task_serializer
    kind = registry.name_to_type.get(name)
    if accepted is None or kind in accepted:
        return
    what = f"it is {name!r}, which accept_content does not have"
    sentence = f"{what}: workers throw away the messages of beat, and of others who start runs by name"
    yield Finding("task_serializer", Severity.WARNING, sentence, f"add {name!r} to accept_content, or use one of it")


def _task_protocol(app: Celery) -> Iterator[Finding]:
    if app.conf.task_protocol == 1:
        sentence = "it is 1: logs and monitors show steps as `orchestrator.step`, and find none of them by its run"
        yield Finding("task_protocol", Severity.WARNING, sentence, "set task_protocol = 2, Celery's default")


def _result_backend(app: Celery) -> Iterator[Finding]:
    backend, name = _backend_of(app), "result_backend"
    if isinstance(backend, DisabledBackend):
        sentence = "there is none, so AsyncResult(run_id) knows no run; orchestrator.get_run(run_id) does"
        yield Finding(name, Severity.INFO, sentence)
    elif isinstance(backend, RPCBackend):
        sentence = (
            "an rpc:// backend gets no results of runs, so AsyncResult(run_id).get() waits in vain: it answers the "
            "sender of a message, and the message that ends a run is a worker's"
        )
        remedy = "read them by orchestrator.get_run(run_id).result(), or set another result_backend"
        yield Finding(name, Severity.WARNING, sentence, remedy)


def _backend_of(app: Celery) -> Any:
    """Return the app's result backend; None where it cannot be made here, as a table of Django's before its setup."""
    try:
        return app.backend
    except Exception:  # noqa: BLE001  (it is told of where a result is written)
        return None


def _result_serializer(app: Celery) -> Iterator[Finding]:
    conf = app.conf
    backend = _backend_of(app)
    if backend is None or isinstance(backend, DisabledBackend | RPCBackend):
        return
    given = conf.accept_content if conf.result_accept_content is None else conf.result_accept_content
    accepted, name = _accepted(given), conf.result_serializer
    if accepted is not None and registry.name_to_type.get(name) not in accepted:
        sentence = f"it is {name!r}, which readers of results do not accept: AsyncResult(run_id).get() raises an error"
        remedy = f"add {name!r} to result_accept_content, or set result_serializer = 'json'"
        yield Finding("result_serializer", Severity.WARNING, sentence, remedy)


def _task_ignore_result(app: Celery) -> Iterator[Finding]:
    if app.conf.task_ignore_result:
        sentence = "it is on, and is about tasks: the results of runs go to the result backend all the same"
        yield Finding("task_ignore_result", Severity.INFO, sentence)


def _task_track_started(app: Celery) -> Iterator[Finding]:
    if app.conf.task_track_started:
        sentence = "it is on, and is about tasks: AsyncResult(run_id) says PENDING until the run has ended"
        yield Finding("task_track_started", Severity.INFO, sentence)


def _task_acks_late(app: Celery) -> Iterator[Finding]:
    if app.conf.task_acks_late:
        sentence = (
            "it is on: messages of steps are acknowledged early all the same, and those of existing tasks late; of one "
            "that comes again while the first is at work, or after it, nothing is done"
        )
        yield Finding("task_acks_late", Severity.INFO, sentence)


def _prefetch(app: Celery) -> Iterator[Finding]:
    multiplier = app.conf.worker_prefetch_multiplier
    if multiplier != 1:
        sentence = f"it is {multiplier}: steps wait in a worker behind long ones, while others are free"
        yield Finding("worker_prefetch_multiplier", Severity.INFO, sentence, "set worker_prefetch_multiplier = 1")


def _enable_utc(app: Celery) -> Iterator[Finding]:
    if not app.conf.enable_utc:
        sentence = f"it is off: an `eta` without a zone is read in {app.timezone}, as Celery reads it"
        yield Finding("enable_utc", Severity.INFO, sentence)


def _remote_control(app: Celery) -> Iterator[Finding]:
    if not app.conf.worker_enable_remote_control:
        sentence = "it is off, and not needed: workers announce themselves, and their queues, in the store"
        yield Finding("worker_enable_remote_control", Severity.INFO, sentence)


_CHECKS: tuple[Callable[[Celery], Iterator[Finding]], ...] = (
    _accept_content,
    _task_serializer,
    _task_protocol,
    _result_backend,
    _result_serializer,
    _task_ignore_result,
    _task_track_started,
    _task_acks_late,
    _prefetch,
    _enable_utc,
    _remote_control,
)


def _broker(app: Celery, publishes_events: bool) -> Iterator[Finding]:
    """Say what the kind of the broker means. Raises nothing where its URL is wrong: the first message tells."""
    try:
        connection: Any = app.connection_for_write()
        types = getattr(connection.transport.implements, "exchange_type", ())
        kind = str(connection.transport.driver_type)
        exchange = exchange_of(connection).type
    except Exception as error:  # noqa: BLE001  (an unknown transport, a library that is not installed)
        log.debug("the broker's transport cannot be made: %s", error)
        return
    if publishes_events and exchange not in types:
        sentence = f"events are published to a {exchange} exchange, which the broker ({kind}) does not have"
        remedy = "leave orchestrator_publish_events out, or use Redis or RabbitMQ"
        yield Finding("orchestrator_publish_events", Severity.ERROR, sentence, remedy)
    if not has_fanout(connection):
        sentence = f"it ({kind}) has no fanout: readers of runs in SQL stores look every now and then"
        yield Finding("broker_url", Severity.INFO, sentence)


def _listed(names: Iterable[str] | None) -> str:
    return " and ".join(repr(name) for name in names or ()) or "nothing"


# --- routes ----------------------------------------------------------------------------------------------------------


def routing_findings(app: Celery, workflows: Iterable[Workflow]) -> list[Finding]:
    """Return an error for each queue that steps go to and that the app does not know."""
    # Nothing is asked where queues are made: asking makes them, and a worker of an older Celery that has not begun to
    # listen would then listen on all of them.
    if app.conf.task_create_missing_queues:
        return []
    unknown: dict[str, str] = {}
    for workflow in workflows:
        for name, route in _routes(workflow).items():
            try:
                _queue(app, workflow, route)
            except QueueNotFound as error:
                unknown.setdefault(str(error).strip("\"'"), name)
            except Exception as error:  # noqa: BLE001  (a router of the user's, which may know more when it matters)
                log.debug("the route of %s is not known: %s", name, error)
    remedy = "declare the queue in task_queues, or set task_create_missing_queues = True"
    return [
        Finding("task_create_missing_queues", Severity.ERROR, f"step {name} cannot be sent: {text}", remedy)
        for text, name in unknown.items()
    ]


def queues_of(app: Celery, workflows: Iterable[Workflow]) -> dict[str, str]:
    """Return the queues that steps go to, as far as they are known, each with the name of such a step.

    Not for workers: a queue that is asked for may become one that the app knows.
    """
    found: dict[str, str] = {}
    for workflow in workflows:
        for name, route in _routes(workflow).items():
            with suppress(Exception):  # told of by `routing_findings`
                queue = _queue(app, workflow, route)
                if queue is not None:
                    found.setdefault(queue, name)
    return found


def _routes(workflow: Workflow) -> dict[str, str]:
    """Return the packed routes of the workflow's nodes by the names that logs show."""
    return {node.route.name: pack_route(node.route) for node in workflow.compiled.walk()}


def _queue(app: Celery, workflow: Workflow, route: str) -> str | None:
    return queue_of(app, message(app, RunHeader(run_id="run", workflow_id=workflow.id), Dispatch("0", 0, route)))
