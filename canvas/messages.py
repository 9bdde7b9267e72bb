"""The message of a dispatch. Its envelope names an activation, and carries nothing of the run.

Its size depends neither on the graph nor on how far the run has come.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Any

from celery import Celery

from orchestrator.rules.change import Dispatch
from orchestrator.rules.graph import Route
from orchestrator.rules.model import RunHeader, unpack_route

log = logging.getLogger("orchestrator")

STEP_TASK = "orchestrator.step"
FORMAT = 1
_MAX_SEQ = 2**53
_PATH = re.compile(r"(-?[0-9]{1,9}(\.[0-9]{1,9})*)?")  # a report's is below zero
HEADER = "orchestrator"  # the name of the envelope among the message's headers

_PLACE = ("queue", "exchange", "routing_key", "priority", "delivery_mode")  # options that say where a message goes


@dataclass(frozen=True, slots=True)
class Message:
    """A task name, its arguments, and options for `app.send_task`."""

    name: str
    args: tuple[Any, ...]
    options: dict[str, Any]


class NoResult:
    """Stands for the result of a message whose result is ignored."""

    # An `AsyncResult` contacts the result backend when it is deleted.

    ignored = True

    def __init__(self, task_id: str) -> None:
        self.id = task_id


@dataclass(frozen=True, slots=True)
class Envelope:
    """The activation that a message names: a step's message by `seq`, a task's by the number of its sending.

    `sender` is the claim that has sent a task, or the execution whose retry it is.
    """

    run_id: str
    path: str
    seq: int = 0
    sending: int = 0
    sender: str = ""

    def header(self) -> dict[str, Any]:
        """Return it as the header of a message."""
        about = {"v": FORMAT, "run": self.run_id, "path": self.path}
        own = {"sending": self.sending, "from": self.sender} if self.sending else {"seq": self.seq}
        return {HEADER: {**about, **own}}


def has_envelope(request: Any) -> bool:
    """Tell if the message that is being run is one of an orchestrator, readable or not."""
    return _raw_envelope(request) is not None


def envelope_of(request: Any) -> Envelope | None:
    """Return the envelope of the message that is being run; None where there is none that this release can follow.

    That is logged: whoever may publish may also forge, and a newer release may be at work.
    """
    raw, about = _raw_envelope(request), {"run_id": str(request.root_id or "-")}
    if isinstance(raw, dict) and raw.get("v", FORMAT) != FORMAT:
        log.warning("a message of format %s was left alone: this release knows %s", raw["v"], FORMAT, extra=about)
        return None
    envelope = _parse(raw)
    if envelope is None:
        log.warning("a message that names no activation was left alone: %r", raw, extra=about)
    return envelope


def envelope_of_message(request: Any) -> Envelope | None:
    """Return the envelope of a message as the worker's main process has it, None where it is no message of ours."""
    return _parse((request.request_dict or {}).get(HEADER))


def is_about(envelope: Envelope, arguments: tuple[Any, ...]) -> bool:
    """Tell if the arguments of a step's message name what its header names; they always do, unless one is forged."""
    agree = arguments == (envelope.run_id, envelope.path, envelope.seq)
    if not agree:
        text = "a message was left alone whose header and arguments differ: %r, %r"
        log.warning(text, envelope, arguments, extra={"run_id": envelope.run_id})
    return agree


def _raw_envelope(request: Any) -> Any:
    # Brokers keep the headers apart; a request that was made in this process has them as attributes.
    return (request.headers or {}).get(HEADER) or request.get(HEADER) or None


def _parse(raw: Any) -> Envelope | None:
    """Read an envelope. Its fields go to the store, so each has to be of its type."""
    match raw:
        case {"run": str(run_id), "path": str(path), "seq": int(seq)} if run_id and 0 <= seq <= _MAX_SEQ:
            return Envelope(run_id, path, seq) if _PATH.fullmatch(path) else None
        case {"run": str(run_id), "path": str(path), "sending": int(number), "from": str(sender)} if run_id:
            known = _PATH.fullmatch(path) and 0 < number <= _MAX_SEQ
            return Envelope(run_id, path, sending=number, sender=sender) if known else None
        case _:
            return None


def message(app: Celery, header: RunHeader, dispatch: Dispatch, serializer: str = "json") -> Message:
    """Make the message of a dispatch.

    The step's own name is the message's `shadow`, which logs and monitors show, and the name by which the app's router
    chooses a queue. The run's id is the root id, and in `kwargsrepr`, which monitors search.
    """
    route = unpack_route(dispatch.route)
    options: dict[str, Any] = {
        "headers": Envelope(header.run_id, dispatch.path, dispatch.seq).header(),
        "root_id": header.run_id,
        "parent_id": header.run_id,
        "serializer": serializer,
        "argsrepr": "()",
        "kwargsrepr": f"{{'run': '{header.run_id}', 'path': '{dispatch.path}', 'seq': {dispatch.seq}}}",
    }
    options |= {"shadow": route.name, "route_name": route.name, "ignore_result": True, "result_cls": NoResult}
    if route.task is not None:
        options |= _place_of_task(app, route)
    else:
        options |= _limits(route)
    return Message(STEP_TASK, (header.run_id, dispatch.path, dispatch.seq), options)


def queue_of(app: Celery, sent: Message) -> str | None:
    """The name of the queue that the app's router chooses for a message; None where it goes to an exchange alone."""
    task = app.tasks.get(sent.name)
    given = {name: sent.options[name] for name in _PLACE if name in sent.options}
    name = sent.options.get("route_name") or sent.name
    queue: Any = app.amqp.router.route(given, name, sent.args, {}, task).get("queue")
    found: str | None = getattr(queue, "name", queue)
    return found


def _limits(route: Route) -> dict[str, Any]:
    given = {
        "queue": route.queue,
        "priority": route.priority,
        "time_limit": route.time_limit,
        "soft_time_limit": route.soft_time_limit,
    }
    return {name: value for name, value in given.items() if value is not None}


def _place_of_task(app: Celery, route: Route) -> dict[str, Any]:
    """The place of a message by which a worker sends a task, or looks after it: where the task's own messages go.

    The workers there have our code. Those of a task of another code base have not, so it goes where other steps do; and
    the task's limits are for the task.
    """
    task = app.tasks.get(route.task)
    if task is None:
        return {}
    found = {name: getattr(task, name, None) for name in _PLACE}
    place = {name: value for name, value in found.items() if value is not None}
    return {"route_name": route.task, **place, **({"queue": route.queue} if route.queue else {})}
