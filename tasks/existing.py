"""Existing tasks of the same app as steps.

Such a task is sent, and executed by Celery's own tracer, as it always was. Around it stand wrappers on its own class,
as `task_annotations` makes them: the outermost `before_start` claims the execution that the message's header names, and
the outermost `__call__` commits its outcome at the moment at which the task's code has ended: before the result is
stored and the links are called. A message without that header passes straight through.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from typing import Any, Protocol

from celery import Celery, Task
from celery.exceptions import Ignore, Reject, Retry

from orchestrator.canvas.messages import HEADER, Envelope, envelope_of, has_envelope
from orchestrator.canvas.task_carrier import SETTLE_FAILED_TASK, SETTLE_TASK
from orchestrator.definitions.foreign import retry_seconds
from orchestrator.engine.executions import UnknownGraph, begin_execution
from orchestrator.engine.executor import Executor
from orchestrator.engine.task_steps import Ending, Execution, Replaced, Retried, Returned
from orchestrator.errors import StoreUnavailable, TaskIgnored, TaskRejected
from orchestrator.ports import TaskEnd
from orchestrator.tasks.deliveries import delivery_id

log = logging.getLogger("orchestrator")

_MARK = "_orchestrator_owner"
_EXECUTION = "orchestrator_execution"  # the attribute of a request that holds its execution
_OWN = (SETTLE_TASK, SETTLE_FAILED_TASK)


class HasExecutor(Protocol):
    """An orchestrator. Its executor is made when it is first read, so tasks read it when they run."""

    @property
    def executor(self) -> Executor:
        """The executor of activations."""
        ...


class _Course:
    """The course of one execution: what its code has asked for on the way."""

    def __init__(self, execution: Execution, envelope: Envelope) -> None:
        self.execution = execution
        self.envelope = envelope
        self.has_called = False  # the outermost `__call__` has been entered: an inner one is the user's own
        self.is_replaced = False
        self.has_ended = False  # its end is recorded
        self.retried: Retried | None = None  # a retry that was sent, whether or not the code has gone on after it


def wrap_task(app: Celery, owner: HasExecutor, name: str) -> None:
    """Let the task of this name be a step.

    Doing it again changes nothing; an unknown name is one of another code base.
    """
    task = app.tasks.get(name)
    if task is None or vars(type(task)).get(_MARK) is owner:
        return
    kind = type(task)
    _wrap(kind, "before_start", functools.partial(_before_start, owner))
    _wrap(kind, "__call__", _call, plain=Task.__call__)
    _wrap(kind, "retry", _retry)
    _wrap(kind, "on_replace", _on_replace)
    setattr(kind, _MARK, owner)


def _wrap(kind: type, name: str, around: Callable[..., Any], plain: Any = None) -> None:
    """Put a wrapper around a method of the class itself, as far outside as any."""
    found = getattr(kind, name)
    # An inner wrapper of an earlier orchestrator of this app (there are several in tests) is taken away.
    original = getattr(found, "__wrapped_task_method__", found)

    @functools.wraps(original)
    def method(self: Task, *args: Any, **kwargs: Any) -> Any:
        # Where nobody has a `__call__` of his own, Celery calls `run`: `Task.__call__` would push another request.
        inner = self.run if original is plain else functools.partial(original, self)
        return around(self, inner, args, kwargs)

    method.__wrapped_task_method__ = original  # type: ignore[attr-defined]
    setattr(kind, name, method)


def _course_of(task: Task) -> _Course | None:
    found: _Course | None = getattr(task.request, _EXECUTION, None)
    return found


def _before_start(owner: HasExecutor, task: Task, inner: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    request = task.request
    if not has_envelope(request) or _course_of(task) is not None:
        return inner(*args, **kwargs)
    course = _begin(owner, task)
    if course is None:
        return inner(*args, **kwargs)
    try:
        return inner(*args, **kwargs)
    except BaseException as error:
        try:
            course.execution.end(_ending_of(task, course, None, error))
        except StoreUnavailable as away:
            _tell_later(task, course, away)
        _take_links_off(task, course)
        raise


def _begin(owner: HasExecutor, task: Task) -> _Course | None:
    """Claim the execution. Returns None where the task runs unclaimed.

    Raises `Ignore` where its message is of the past.
    """
    request = task.request
    envelope = envelope_of(request)
    if envelope is None or not envelope.sending:
        raise Ignore("this message names no step")
    delivery = delivery_id(request.id, request.hostname, os.getpid())
    try:
        execution = begin_execution(owner.executor, envelope, task.name, delivery=delivery)
    except UnknownGraph as error:
        text = "task %s runs for run %s, whose workflow is not known here (%s): word of its end ends the step"
        log.info(text, task.name, envelope.run_id, error, extra={"run_id": envelope.run_id})
        return None
    except StoreUnavailable as error:
        text = "a step of run %s is given up here, and goes on when its lease is over: %s"
        log.warning(text, envelope.run_id, error, extra={"run_id": envelope.run_id})
        raise Ignore(str(error)) from error
    if execution is None:
        raise Ignore(f"the step of run {envelope.run_id} has moved on since this message was sent")
    course = _Course(execution, envelope)
    setattr(request, _EXECUTION, course)
    # A retry travels with these headers: the step is claimed by it only if it was sent by this execution.
    following = Envelope(envelope.run_id, envelope.path, sending=envelope.sending, sender=execution.token)
    request.headers = {**(request.headers or {}), **following.header()}
    if hasattr(request, HEADER):
        setattr(request, HEADER, following.header()[HEADER])
    return course


def _call(task: Task, inner: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    course = _course_of(task)
    if course is None or course.has_called:
        return inner(*args, **kwargs)
    course.has_called = True
    left: list[Any] = []

    def find_ending(value: Any, error: BaseException | None) -> Ending:
        left[:] = [value, error]
        return _ending_of(task, course, value, error)

    try:
        return course.execution.run(lambda: inner(*args, **kwargs), find_ending)
    except StoreUnavailable as error:
        if not left or error is left[1]:
            raise
        # For Celery the task has ended all the same.
        _tell_later(task, course, error)
        if left[1] is not None:
            raise left[1] from None
        return left[0]
    finally:
        _take_links_off(task, course)


def _retry(task: Task, inner: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    course = _course_of(task)
    if course is None:
        return inner(*args, **kwargs)
    try:
        made = inner(*args, **kwargs)
    except Retry as retry:
        course.retried = _retried(task, retry)
        raise
    if isinstance(made, Retry):
        course.retried = _retried(task, made)
    return made


def _retried(task: Task, retry: Retry) -> Retried:
    signature = retry.sig
    args, kwargs = tuple(signature.args or ()), dict(signature.kwargs or {})
    return Retried(retry_seconds(retry, task.app) or 0.0, args, kwargs)


def _on_replace(task: Task, inner: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    course = _course_of(task)
    if course is not None:
        course.is_replaced = True
    return inner(*args, **kwargs)


def _ending_of(task: Task, course: _Course, value: Any, error: BaseException | None) -> Ending:
    """Return what it means for the step that the task has returned this value, or has been left by this exception."""
    match error:
        case SystemExit() | KeyboardInterrupt():
            return None
        # A retry that was sent goes on for the step, also where the code went on after it (`throw=False`): what that
        # code has returned or raised is Celery's result of the task, and not the step's.
        case _ if course.retried is not None:
            return course.retried
        case None:
            ending: Ending = TaskEnd(value)
        case Ignore() if course.is_replaced:
            return Replaced()
        case Ignore():
            ending = _end_of_ignored(task, course)
        case Reject(requeue=True) if task.acks_late:
            return Returned()
        case Reject():
            text = f"the task {task.name!r} has rejected its message: {error.reason}"
            ending = TaskEnd(error=TaskRejected(text, task=task.name), is_final=True)
        case Exception():
            ending = TaskEnd(error=error)
        case _:
            return None
    course.has_ended = True
    return ending


def _end_of_ignored(task: Task, course: _Course) -> TaskEnd:
    """Return the final state that a task has stored itself before it raised `Ignore`; else there is none."""
    carrier = course.execution.attempt.services.owner.executor.runtime.tasks
    found = carrier.find_end(task.request.id) if carrier is not None else None
    text = f"the task {task.name!r} has raised Ignore: it has no value, and nothing can follow"
    return found or TaskEnd(error=TaskIgnored(text, task=task.name), is_final=True)


def _tell_later(task: Task, course: _Course, error: StoreUnavailable) -> None:
    """Note that the end of a task could not be recorded: its links say it when the store is back."""
    course.has_ended = False
    text = "the end of task %s is not recorded yet, and its message says it later: %s"
    log.warning(text, task.name, error, extra={"run_id": course.envelope.run_id})


def _take_links_off(task: Task, course: _Course) -> None:
    """Take our links off the request of a task whose end is recorded: nobody needs word of it any more."""
    if not course.has_ended:
        return
    request = task.request
    for links in (request.callbacks, request.errbacks):
        if links:
            links[:] = [link for link in links if link.get("task") not in _OWN]
