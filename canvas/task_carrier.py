"""Sends existing tasks that are steps: each by its own `apply_async`, with its own arguments, as anybody would send it.

Beside them travel one small header, which names the step, and two links: whoever executes the task, with this library
or without, tells of its end by calling a task of ours.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from celery import Celery, states
from celery.backends.base import DisabledBackend
from celery.backends.rpc import RPCBackend
from celery.exceptions import TaskRevokedError
from kombu.exceptions import OperationalError

from orchestrator.canvas.messages import Envelope
from orchestrator.errors import BrokerUnavailable, TaskFailed, TaskRevoked
from orchestrator.ports import TaskEnd, TaskMessage

log = logging.getLogger("orchestrator")

SETTLE_TASK = "orchestrator.settle"
SETTLE_FAILED_TASK = "orchestrator.settle_failed"
_DAY = 86_400.0


class CeleryTasks:
    """The tasks of an app, and those that it knows by name alone."""

    def __init__(self, app: Celery, serializer: str) -> None:
        self._app = app
        self._serializer = serializer  # of word of the end, which workers of this app take

    @property
    def default_timeout(self) -> float:
        """The app's `result_expires` in seconds; a day where results are kept for ever."""
        expires = self._app.conf.result_expires
        seconds = getattr(expires, "total_seconds", lambda: expires)()
        return float(seconds or _DAY)

    def knows(self, name: str) -> bool:
        """Tell whether the task is one of the app's own code."""
        return name in self._app.tasks

    def send(self, message: TaskMessage) -> None:
        """Send a task. Raises `BrokerUnavailable`, and whatever its own `apply_async` raises."""
        envelope = Envelope(message.run_id, message.path, sending=message.sending, sender=message.sender)
        given = dict(message.options)
        options: dict[str, Any] = {
            **given,
            "headers": {**(given.get("headers") or {}), **envelope.header()},
            "link": [*_listed(given.get("link")), self._settle(SETTLE_TASK, message)],
            "link_error": [*_listed(given.get("link_error")), self._settle(SETTLE_FAILED_TASK, message)],
            "task_id": message.task_id,
            "root_id": message.run_id,
            "parent_id": message.run_id,
            "add_to_parent": False,
        }
        if message.retries:
            options["retries"] = message.retries
        args, kwargs = list(message.args), dict(message.kwargs)
        task = self._app.tasks.get(message.name)
        try:
            if task is None:
                self._app.send_task(message.name, args, kwargs, **options)
            else:
                task.apply_async(args, kwargs, **options)
        except OperationalError as error:
            raise BrokerUnavailable(f"the broker does not answer: {error}", run_id=message.run_id) from error

    def _settle(self, name: str, message: TaskMessage) -> Any:
        where = {"run": message.run_id, "path": message.path, "sending": message.sending, "task": message.task_id}
        signature = self._app.signature(name, kwargs=where, immutable=not message.carries_value and name == SETTLE_TASK)
        # Published by whoever executes the task, whose own default queue may be another one.
        queue: Any = self._app.amqp.router.route({}, name, (), {}).get("queue")
        queue_name = getattr(queue, "name", queue)
        return signature.set(queue=queue_name, serializer=self._serializer) if queue_name else signature

    def find_end(self, task_id: str) -> TaskEnd | None:
        """Look into the result backend; None where it says nothing, or there is none."""
        backend = self._app.backend
        if isinstance(backend, DisabledBackend | RPCBackend):
            return None
        meta = backend.get_task_meta(task_id, cache=False) if _has_meta(backend) else {}
        return _end_of(task_id, meta)

    def revoke(self, task_id: str) -> None:
        """Ask workers not to begin it. Never raises."""
        try:
            self._app.control.revoke(task_id)
        except Exception as error:  # noqa: BLE001  (a courtesy: whatever it is, the step has ended)
            log.debug("task %s was not revoked: %s", task_id, error)


def _has_meta(backend: Any) -> bool:
    return hasattr(backend, "get_task_meta")


def _end_of(task_id: str, meta: Any) -> TaskEnd | None:
    match meta.get("status"):
        case states.SUCCESS:
            return TaskEnd(meta.get("result"))
        case states.REVOKED:
            return revoked(task_id, str(meta.get("result") or "revoked"))
        case states.FAILURE:
            error = meta.get("result")
            if isinstance(error, TaskRevokedError):
                return revoked(task_id, str(error))
            return TaskEnd(error=error if isinstance(error, BaseException) else failed(task_id))
        case _:
            return None


def failed(task_id: str) -> TaskFailed:
    """Return the error of a task of whose failure nothing is known."""
    return TaskFailed(f"the task {task_id} has failed, and no result backend says by what", task_id=task_id)


def revoked(task_id: str, why: str) -> TaskEnd:
    """Return the end of a task that somebody has revoked, or whose message has expired: it is not tried again."""
    return TaskEnd(error=TaskRevoked(f"the task {task_id} was {why}", task_id=task_id), is_final=True)


def _listed(given: Any) -> Sequence[Any]:
    if not given:
        return ()
    return list(given) if isinstance(given, (list, tuple)) else [given]
