"""Existing tasks of the same app as steps.

Such a task travels under its own name, with its queue, limits, base class and signals. A wrapper around its `run`
claims the activation that the message's header names, calls the task with the activation's input, and commits its
outcome. A message without that header passes straight through: for other callers the task stays as it was.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, Protocol

from celery import Celery, Task
from celery.exceptions import Retry

from orchestrator.canvas.messages import envelope_of, has_envelope
from orchestrator.canvas.monitoring import end_task
from orchestrator.definitions.context import Context
from orchestrator.definitions.foreign import TaskEntry, retry_seconds
from orchestrator.engine.attempt import TaskCall
from orchestrator.engine.calling import RetryAsked
from orchestrator.engine.executor import Executor
from orchestrator.tasks.deliveries import delivery_id

_MARK = "_orchestrator_wrapped"


class HasExecutor(Protocol):
    """An orchestrator. Its executor is made when it is first read, so tasks read it when they run."""

    @property
    def executor(self) -> Executor:
        """The executor of activations."""
        ...


def wrap_task(app: Celery, owner: HasExecutor, name: str) -> None:
    """Let the task of this name be a step.

    Doing it again changes nothing; an unknown name is left to the step to report.
    """
    task = app.tasks.get(name)
    if task is None or getattr(task.run, _MARK, None) is owner:
        return
    original = getattr(task.run, "_orchestrator_original", task.run)

    @functools.wraps(original)
    def run(*args: Any, **kwargs: Any) -> Any:
        if not has_envelope(task.request):
            return original(*args, **kwargs)
        envelope = envelope_of(task.request)
        if envelope is None:
            return None
        call = TaskCall(name, _caller(task, original))
        delivery = delivery_id(task.request.id, task.request.hostname, os.getpid())
        run_id, path, seq = envelope.run_id, envelope.path, envelope.seq
        end_task(run_id, lambda: owner.executor.execute(run_id, path, seq, call, delivery=delivery))
        return None

    setattr(run, _MARK, owner)
    run._orchestrator_original = original  # type: ignore[attr-defined]
    task.run = run


def _caller(task: Task, original: Callable[..., Any]) -> Callable[[TaskEntry, Any, Context[Any]], Any]:
    """Make a function that calls the task's own code, and turns its `self.retry()` into a retry of the activation."""

    def call(entry: TaskEntry, data: Any, context: Context[Any]) -> Any:
        args, kwargs = entry.arguments(data)
        request = task.request
        before = request.retries, request.is_eager, request.args, request.kwargs
        # An eager request makes `retry` raise without sending a message: the retry of the activation takes its place.
        request.retries, request.is_eager, request.args, request.kwargs = context.retry_count, True, args, kwargs
        try:
            return original(*args, **kwargs)
        except Retry as retry:
            raise RetryAsked(retry_seconds(retry, task.app) or 0.0, retry.exc) from retry.exc
        finally:
            request.retries, request.is_eager, request.args, request.kwargs = before

    return call
