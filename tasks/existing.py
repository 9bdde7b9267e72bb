"""Existing tasks of the same app as steps.

Such a task travels under its own name, with its queue, limits, base class and signals. A wrapper around its `run`
claims the activation that the message's header speaks of, calls the task with the activation's input, and commits
what it returned. A message without that header passes straight through: the task stays what it was for everybody else.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from celery import Celery, Task
from celery.exceptions import Retry

from orchestrator.canvas.messages import HEADER
from orchestrator.canvas.monitoring import conclude
from orchestrator.definitions.context import Context
from orchestrator.definitions.foreign import TaskEntry, retry_seconds
from orchestrator.engine.calling import RetryAsked
from orchestrator.engine.delivery import Engine

_MARK = "_orchestrator_wrapped"


def adopt(app: Celery, engine: Engine, name: str) -> None:
    """Let the task of this name be a step.

    Doing it again changes nothing; an unknown name is left to the step to report.
    """
    task = app.tasks.get(name)
    if task is None or getattr(task.run, _MARK, None) is engine:
        return
    original = getattr(task.run, "_orchestrator_original", task.run)

    @functools.wraps(original)
    def run(*args: Any, **kwargs: Any) -> Any:
        poke = (task.request.headers or {}).get(HEADER) or task.request.get(HEADER)
        if not poke:
            return original(*args, **kwargs)
        conclude(engine.deliver(poke["run"], poke["path"], poke["seq"], _caller(task, original)))
        return None

    setattr(run, _MARK, engine)
    run._orchestrator_original = original  # type: ignore[attr-defined]
    task.run = run


def _caller(task: Task, original: Callable[..., Any]) -> Callable[[TaskEntry, Any, Context[Any]], Any]:
    """Calls the task's own code, and turns its `self.retry()` into a retry of the activation."""

    def call(entry: TaskEntry, data: Any, context: Context[Any]) -> Any:
        args, kwargs = entry.arguments(data)
        request = task.request
        before = request.retries, request.is_eager, request.args, request.kwargs
        # An eager request makes `retry` raise without sending a message of its own: the record's retry takes its place.
        request.retries, request.is_eager, request.args, request.kwargs = context.retry_count, True, args, kwargs
        try:
            return original(*args, **kwargs)
        except Retry as wish:
            raise RetryAsked(retry_seconds(wish) or 0.0, wish.exc) from wish.exc
        finally:
            request.retries, request.is_eager, request.args, request.kwargs = before

    return call
