"""The tasks of a project that has never heard of workflows. Each gets the label of its run first."""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Task, chain, chord, group, shared_task, states
from celery.exceptions import Ignore, Reject

from tests.foreign.recording import about, label_of, note, shown


class Recorder(Task):  # type: ignore[misc]
    """Records each of its hooks."""

    abstract = True

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        note(label_of(args, kwargs), "before_start", task=self.name, **about(self.request))

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        note(label_of(args, kwargs), "on_success", task=self.name, value=shown(retval))

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note(label_of(args, kwargs), "on_failure", task=self.name, error=shown(exc))

    def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note(label_of(args, kwargs), "on_retry", task=self.name, error=shown(exc))

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note(label_of(args, kwargs), "after_return", task=self.name, status=status, value=shown(retval))


class Calling(Recorder):
    """Has a `__call__` of its own, which changes the value."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        note(label_of(args, kwargs), "__call__", task=self.name)
        return {"called": self.run(*args, **kwargs)}


class Refusing(Recorder):
    """Lets nothing begin."""

    abstract = True

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        super().before_start(task_id, args, kwargs)
        raise PermissionError("not today")


@shared_task(base=Recorder)
def add(label: str, x: int = 1, y: int = 1) -> int:
    note(label, "add", x=x, y=y)
    return x + y


@shared_task(base=Calling)
def called(label: str) -> int:
    return 5


@shared_task(base=Refusing)
def refused(label: str) -> int:
    note(label, "never")
    return 1


@shared_task(base=Recorder)
def fails(label: str) -> None:
    raise ValueError("no")


@shared_task(base=Recorder, bind=True, max_retries=3)
def flaky(self: Any, label: str) -> int:
    if self.request.retries < 2:
        raise self.retry(countdown=0.2, exc=ConnectionError("busy"))
    return int(self.request.retries)


@shared_task(base=Recorder, bind=True, max_retries=1)
def exhausted(self: Any, label: str) -> None:
    raise self.retry(countdown=0.1, exc=ConnectionError("busy"))


@shared_task(base=Recorder, bind=True)
def other_arguments(self: Any, label: str, x: int = 1, turn: int = 0) -> list[int]:
    note(label, "turn", x=x, turn=turn)
    if turn < 2:
        raise self.retry(args=[label, x + 1], kwargs={"turn": turn + 1}, countdown=0.1)
    return [x, turn]


@shared_task(base=Recorder, bind=True)
def goes_on(self: Any, label: str) -> str:
    """Sends its retry and goes on."""
    if self.request.retries < 1:
        self.retry(countdown=0.5, throw=False)
        return "the first"
    return "the second"


@shared_task(base=Recorder, bind=True, autoretry_for=(ConnectionError,), max_retries=2, default_retry_delay=0.3)
def automatic(self: Any, label: str) -> int:
    if self.request.retries < 2:
        raise ConnectionError("busy")
    return int(self.request.retries)


@shared_task(base=Recorder, autoretry_for=(Exception,), dont_autoretry_for=(ValueError,), default_retry_delay=0)
def not_automatic(label: str) -> None:
    raise ValueError("for good")


@shared_task(base=Recorder, bind=True)
def by_task(self: Any, label: str) -> None:
    raise self.replace(add.s(label, 10, y=20))


@shared_task(base=Recorder, bind=True)
def by_chain(self: Any, label: str) -> None:
    raise self.replace(chain(add.si(label, 1), add.si(label, 2, y=40)))


@shared_task(base=Recorder, bind=True)
def by_group(self: Any, label: str) -> None:
    raise self.replace(group(add.si(label, 1), add.si(label, 2)))


@shared_task(base=Recorder)
def total(numbers: list[int]) -> int:
    return sum(numbers)


@shared_task(base=Recorder, bind=True)
def by_chord(self: Any, label: str) -> None:
    raise self.replace(chord([add.si(label, 1), add.si(label, 2)], total.s()))


@shared_task(base=Recorder, bind=True)
def by_failing_chain(self: Any, label: str) -> None:
    raise self.replace(chain(add.si(label, 1), fails.si(label)))


@shared_task(base=Recorder, bind=True)
def ignored(self: Any, label: str) -> None:
    raise Ignore


@shared_task(base=Recorder, bind=True)
def ignored_with_state(self: Any, label: str) -> None:
    self.backend.store_result(self.request.id, {"own": 1}, states.SUCCESS, request=self.request)
    raise Ignore


@shared_task(base=Recorder, bind=True)
def rejected(self: Any, label: str) -> None:
    raise Reject("no place for it", requeue=False)


@shared_task(base=Recorder, bind=True, acks_late=True)
def comes_again(self: Any, label: str) -> str:
    """Gives its message back, once."""
    if not self.request.delivery_info.get("redelivered"):
        raise Reject("later", requeue=True)
    return "again"


@shared_task(base=Recorder)
def noted(value: Any, label: str = "") -> None:
    note(label, "link", value=value)


@shared_task
def noted_error(request: Any, exc: Any, traceback: Any, label: str = "") -> None:
    note(label, "errback", error=shown(exc))


@shared_task(base=Recorder)
def slow(label: str, seconds: float = 30) -> float:
    note(label, "slow", pid=os.getpid())
    time.sleep(seconds)
    return seconds


@shared_task(base=Recorder, time_limit=1)
def over(label: str) -> None:
    note(label, "over")
    time.sleep(30)
