"""Existing Celery tasks and signatures as entries, recognised by their shape: this package never imports Celery."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

from orchestrator.errors import StepNotFound
from orchestrator.host import SystemClock

_TASK_WORDS = ("run", "apply_async", "app")
_SIGNATURE_KEYS = {"task", "args", "kwargs", "options", "immutable"}
_NO_RESULT = ("IGNORED", "REJECTED")  # states of a task that has ended without one
TASK_OPTIONS = ("queue", "priority", "time_limit", "soft_time_limit")
# Options of a signature that name a place in a canvas or in another message. In a run they would be lost.
_PLACES = ("task_id", "chord", "group_id", "group_index", "chain", "add_to_parent", "reply_to", "root_id", "parent_id")


@dataclass(frozen=True, slots=True)
class TaskEntry:
    """An existing Celery task as an entry."""

    component: ClassVar[str] = "TASK"
    input: ClassVar[None] = None
    output: ClassVar[None] = None

    # The last part of the name, unless the user said another one.
    id: str
    # The name under which the task is registered.
    name: str
    # Positional arguments after the data, bound beforehand by a signature.
    args: tuple[Any, ...] = ()
    # Keyword arguments, bound beforehand by a signature.
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    # Of the task's message, as Celery has them (`queue`, `priority`, `time_limit`, …).
    options: Mapping[str, Any] = field(default_factory=dict)
    # The task does not get the data.
    immutable: bool = False
    # Sendings after the first that a failure gets, and the seconds before each; None: as the workflow says.
    retries: int | None = None
    retry_delay: float | None = None
    # Seconds from its sending after which a task is given up of which no end is heard, though it was not seen to run.
    timeout: float | None = None
    # Whether the message about its end brings its value along. One without is enough where a result is stored.
    value: bool = True
    # The first line of the task's docstring, unless the user said another one.
    description: str = ""
    # The task itself where it is known, else None.
    task: Any = field(default=None, compare=False, repr=False)

    def arguments(self, data: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a call: the data first, as in a chain, unless the task is immutable."""
        args = self.args if self.immutable else (data, *self.args)
        return args, dict(self.kwargs)

    def invoke(self, data: Any, owner: Any, retries: int = 0) -> Any:
        """Run the task here and now, as Celery's eager mode does, and return its result.

        Without the task itself it is looked up by its name in `owner.app`; `retries` is the task's `request.retries`.
        Raises what the task raises (its `Retry`, `Ignore` and `Reject` too), and `StepNotFound` where no such task is
        registered. A second call runs it again.
        """
        args, kwargs = self.arguments(data)
        result = self._task(owner).apply(args=args, kwargs=kwargs, throw=True, retries=retries)
        if result.state in _NO_RESULT and isinstance(result.result, BaseException):
            raise result.result
        return result.get(disable_sync_subtasks=False)

    def _task(self, owner: Any) -> Any:
        if self.task is not None:
            return self.task
        app = getattr(owner, "app", None)
        if app is None:
            text = f"The task {self.name!r} is known by its name alone: give the Orchestrator the Celery app"
            raise StepNotFound(text)
        try:
            return app.tasks[self.name]
        except KeyError:
            raise StepNotFound(f"No task {self.name!r} is registered in the Celery app {app.main!r}") from None


def zoned(moment: datetime, app: Any) -> datetime:
    """The moment as Celery reads it: without a zone it is UTC, or the app's own zone where `enable_utc` is off."""
    if not isinstance(moment, datetime):
        raise TypeError(f"eta is a datetime, not {moment!r}")
    if moment.tzinfo is not None:
        return moment
    return moment.replace(tzinfo=UTC if app is None or app.conf.enable_utc else app.timezone)


def retry_seconds(error: BaseException, app: Any = None) -> float | None:
    """Seconds until the task of `app` wants to be run again; None where the error is not its `self.retry()`."""
    if type(error).__name__ != "Retry" or not hasattr(error, "when") or not hasattr(error, "sig"):
        return None
    if isinstance(error.when, datetime):
        return max(0.0, zoned(error.when, app).timestamp() - SystemClock().now() / 1000)
    return float(error.when or 0.0)


def is_task(value: Any) -> bool:
    """True for a Celery task."""
    if isinstance(value, (type, dict)) or not callable(value):
        return False
    return isinstance(getattr(value, "name", None), str) and all(hasattr(value, word) for word in _TASK_WORDS)


def is_signature(value: Any) -> bool:
    """True for a Celery signature (a canvas such as a group is one too), also for one that was JSON."""
    return isinstance(value, dict) and value.keys() >= _SIGNATURE_KEYS and isinstance(value["task"], str)


def is_foreign(value: Any) -> bool:
    """Return True for a value of a type of Celery."""
    return is_task(value) or is_signature(value)


def task_entry(
    value: Any, id: str | None = None, description: str | None = None, options: Mapping[str, Any] | None = None
) -> TaskEntry:
    """A Celery task, a signature or a registered name as an entry; its id is the last part of the name by default.

    Raises TypeError for a canvas (group, chain, chord, …): its parts are entries, it is not; and ValueError for an
    option that could not be kept.
    """
    if isinstance(value, str):
        return TaskEntry(id or last_part(value), value, options=dict(options or {}), description=description or "")
    args, kwargs, chosen, immutable, task = _parts(value)
    name = name_in_app(value)
    if lost := [option for option in _PLACES if chosen.get(option) is not None]:
        raise ValueError(f"the signature of {name!r} has {', '.join(lost)}, which a step cannot keep: leave it away")
    chosen = {**_own_options(task), **chosen, **(options or {})}
    said = _description(task) if description is None else description
    return TaskEntry(id or last_part(name), name, args, kwargs, chosen, immutable, description=said, task=task)


def _parts(value: Any) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any], bool, Any]:
    if not isinstance(value, dict):
        return (), {}, {}, False, value
    if value.get("subtask_type"):
        raise TypeError(
            f"a Celery {value['subtask_type']} is no entry: add its tasks with .then(), .parallel() or .foreach()"
        )
    args, kwargs, options = tuple(value["args"] or ()), dict(value["kwargs"] or {}), dict(value["options"] or {})
    return args, kwargs, options, bool(value["immutable"]), getattr(value, "_type", None)


def name_in_app(value: Any) -> str:
    """The registered name of a task or of a signature's task."""
    name: str = value["task"] if isinstance(value, dict) else value.name
    return name


def last_part(name: str) -> str:
    """The last part of a task's dotted name."""
    return name.rsplit(".", 1)[-1]


def _own_options(task: Any) -> dict[str, Any]:
    found = {name: getattr(task, name, None) for name in TASK_OPTIONS}
    return {name: value for name, value in found.items() if isinstance(value, (int, float, str))}


def _description(task: Any) -> str:
    for text in (getattr(task, "description", None), getattr(task, "__doc__", None)):
        if isinstance(text, str) and text.strip():
            return text.strip().split("\n", 1)[0].strip()
    return ""
