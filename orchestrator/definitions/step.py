"""`step`: a plain function as a step of workflows."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, ParamSpec, Protocol, TypedDict, TypeVar, Unpack, overload

from orchestrator.definitions.annotations import (
    Unresolvable,
    is_async_generator,
    resolve,
    resume_type,
    return_type,
    returns_generator,
)
from orchestrator.definitions.callables import Callback, name_of
from orchestrator.definitions.entry import TypedEntry
from orchestrator.definitions.foreign import TASK_OPTIONS, TaskEntry, is_foreign, name_in_app, task_entry
from orchestrator.errors import TripWire
from orchestrator.rules.bounds import MAX_PRIORITY, MAX_SECONDS

P = ParamSpec("P")
R = TypeVar("R")
Out = TypeVar("Out")

Errors = type[BaseException] | Sequence[type[BaseException]]


@dataclass(frozen=True, eq=False)
class Step(TypedEntry[Out], Generic[P, R, Out]):
    """A function with its id and options; calling it calls the function. Made by `step`, compared by identity."""

    component: ClassVar[str] = "STEP"

    fn: Callable[P, R]
    # Unique in its workflow; the function's name by default.
    id: str
    # For people; the first line of the function's docstring by default.
    description: str = ""
    # The annotation of the input, None where anything goes.
    input: Any = None
    # The annotation of the output, None where anything goes.
    output: Any = None
    # The annotation of the data that the step is resumed with, None where anything goes.
    resume: Any = None
    # The annotation of the payload of `ctx.suspend`, None where anything goes.
    suspend: Any = None
    # Attempts beyond the first; None: as many as the workflow says.
    retries: int | None = None
    # Seconds between two attempts; None: as the workflow says.
    retry_delay: float | None = None
    # The delay doubles from attempt to attempt; a number is the first delay.
    retry_backoff: bool | float = False
    # Seconds; a backed-off delay is never longer.
    retry_backoff_max: float = 600
    # A random part of a backed-off delay is waited, so that steps which failed together do not come back together.
    retry_jitter: bool = True
    # Exceptions that deserve another attempt.
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    # Exceptions that do not, although `retry_on` has them.
    no_retry_on: tuple[type[BaseException], ...] = ()
    # Of the Celery message; None: the app's default queue.
    queue: str | None = None
    # Of the Celery message.
    priority: int | None = None
    # Seconds after which an attempt is ended hard.
    time_limit: float | None = None
    # Seconds after which `SoftTimeLimitExceeded` is raised in the step.
    soft_time_limit: float | None = None
    # The worker that ended the step before may run this one at once; None: as the workflow says.
    inline: bool | None = None
    # The call of the function: which parameter gets the data, and which the context.
    callback: Callback = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _check_options(self)
        object.__setattr__(self, "callback", Callback(self.fn))
        for name in ("__doc__", "__name__", "__qualname__", "__module__"):
            object.__setattr__(self, name, getattr(self.fn, name, None))
        object.__setattr__(self, "__wrapped__", self.fn)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the plain function: no retries, no checks, no run."""
        return self.fn(*args, **kwargs)

    def invoke(self, data: Any, context: Any) -> Any:
        """Call the function with what it takes of these two. Returns what it returns, also a coroutine or generator."""
        return self.callback.call(data, context)

    @property
    def streams(self) -> bool:
        """True for a function that says it is a generator, or returns one: its yields are streamed."""
        return returns_generator(self.fn)

    def is_retryable(self, error: BaseException) -> bool:
        """True for an exception that deserves another attempt, if there are any left."""
        wanted = isinstance(error, self.retry_on) and not isinstance(error, self.no_retry_on)
        return wanted and not isinstance(error, TripWire)


def _check_options(step: Step[Any, Any, Any]) -> None:
    for name in ("retries", "retry_delay", "retry_backoff", "retry_backoff_max", "time_limit", "soft_time_limit"):
        value = getattr(step, name)
        if value is not None:
            require_number(f"step {step.id!r}: {name}", value, whole=name == "retries")
    check_message(step.id, step.queue, step.priority)
    require_flag(f"step {step.id!r}: retry_jitter", step.retry_jitter)
    if step.inline is not None:
        require_flag(f"step {step.id!r}: inline", step.inline)
    check_limits(step.id, {name: getattr(step, name) for name in ("time_limit", "soft_time_limit")})


def require_flag(what: str, value: Any) -> None:
    """Raise TypeError for what is neither True nor False: the text "no" counts as true."""
    if not isinstance(value, bool):
        raise TypeError(f"{what} is True or False, not {value!r}")


def require_number(what: str, value: Any, *, whole: bool = False) -> None:
    """Raise TypeError for what is no number (or no whole one), and ValueError for one that is negative or endless."""
    if not isinstance(value, int if whole else (int, float)):
        raise TypeError(f"{what} is a {'whole ' if whole else ''}number, not {value!r}")
    if not value >= 0:  # nan, too
        raise ValueError(f"{what} must be 0 or more, not {value!r}")
    if value > MAX_SECONDS:
        raise ValueError(f"{what} must be {MAX_SECONDS:.0f} at most, not {value!r}")


def check_message(name: str, queue: Any, priority: Any) -> None:
    """Raise TypeError or ValueError for a queue or a priority that no message can have."""
    if queue is not None and not isinstance(queue, str):
        raise TypeError(f"step {name!r}: queue is the name of one, not {queue!r}")
    if priority is not None and not isinstance(priority, int):
        raise TypeError(f"step {name!r}: priority is a whole number, not {priority!r}")
    if priority is not None and not 0 <= priority <= MAX_PRIORITY:
        raise ValueError(f"step {name!r}: priority must be 0 to {MAX_PRIORITY}, not {priority!r}")


def check_limits(name: str, limits: Mapping[str, Any]) -> None:
    """Raise ValueError for a time limit that is no time. Celery takes 0 for none, and others for a limit of 0 s."""
    for limit, value in limits.items():
        if value is not None and not isinstance(value, (int, float)):
            raise TypeError(f"step {name!r}: {limit} is a number of seconds, not {value!r}")
        if value is not None and not value > 0:  # nan, too
            raise ValueError(f"step {name!r}: {limit} must be more than 0, not {value!r}; leave it away for no limit")
        if value is not None and value > MAX_SECONDS:
            raise ValueError(f"step {name!r}: {limit} must be {MAX_SECONDS:.0f} at most, not {value!r}")


class StepOptions(TypedDict, total=False):
    """The keywords of `step`."""

    id: str | None
    description: str | None
    input: Any
    output: Any
    resume: Any
    suspend: Any
    retries: int | None
    retry_delay: float | None
    retry_backoff: bool | float
    retry_backoff_max: float
    retry_jitter: bool
    retry_on: Errors
    no_retry_on: Errors
    queue: str | None
    priority: int | None
    time_limit: float | None
    soft_time_limit: float | None
    inline: bool | None
    timeout: float | None
    value: bool


class StepDecorator(Protocol):
    """The decorator that `step(...)` returns without a function."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, Out]]) -> Step[P, Coroutine[Any, Any, Out], Out]: ...

    @overload
    def __call__(self, fn: Callable[P, Generator[Any, Any, Out]]) -> Step[P, Generator[Any, Any, Out], Out]: ...

    @overload
    def __call__(self, fn: Callable[P, Out]) -> Step[P, Out, Out]: ...

    def __call__(self, fn: Any) -> Any:
        """Make a step of the function."""
        ...


@overload
def step(
    fn: Callable[P, Coroutine[Any, Any, Out]], **options: Unpack[StepOptions]
) -> Step[P, Coroutine[Any, Any, Out], Out]: ...


@overload
def step(
    fn: Callable[P, Generator[Any, Any, Out]], **options: Unpack[StepOptions]
) -> Step[P, Generator[Any, Any, Out], Out]: ...


@overload
def step(fn: Callable[P, Out], **options: Unpack[StepOptions]) -> Step[P, Out, Out]: ...


@overload
def step(fn: None = None, **options: Unpack[StepOptions]) -> StepDecorator: ...


def step(
    fn: Any = None,
    *,
    id: str | None = None,
    description: str | None = None,
    input: Any = None,
    output: Any = None,
    resume: Any = None,
    suspend: Any = None,
    retries: int | None = None,
    retry_delay: float | None = None,
    retry_backoff: bool | float = False,
    retry_backoff_max: float = 600,
    retry_jitter: bool = True,
    retry_on: Errors = (Exception,),
    no_retry_on: Errors = (),
    queue: str | None = None,
    priority: int | None = None,
    time_limit: float | None = None,
    soft_time_limit: float | None = None,
    inline: bool | None = None,
    timeout: float | None = None,
    value: bool = True,
) -> Any:
    """Make a step of a function: `@step`, `@step(...)` or `step(fn, id=...)`.

    The function takes its input (the parameter that is not the context) and its context (annotated `Context`, or named
    `ctx`), in any order and each optional. It is a `def`, an `async def`, or a generator, whose yields are streamed and
    whose `return` is the output.

    * `id`: the function's name by default. `description`: the first line of its docstring.
    * `input`, `output`, `resume` (by `Context[R]`): from the annotations by default; `Any` switches one off. `suspend`:
      the type of the payload of `ctx.suspend`.
    * `retries`: how many more runs a failure gets; `retry_delay` seconds between them. Both default to the workflow's.
      `retry_backoff=True` doubles the delay each time (from 1 second at least; a number is the first delay) up to
      `retry_backoff_max` seconds, with `retry_jitter` a random part of it. Only exceptions of `retry_on` and not of
      `no_retry_on` are tried again; a `TripWire` never is.
    * `queue`, `priority`, `time_limit`, `soft_time_limit` (seconds): of the Celery message, as Celery has them.
    * `inline`: the worker that ended the step before may run this one at once, without a message.

    An existing Celery task, a signature, or the name of a task of another code base is an entry by itself. Given here
    it is returned as such, with `id`, `description`, `retries` (each sends it anew), `retry_delay` and the options of
    its message; and with two of its own:

    * `timeout`: seconds after which it has failed (`TaskTimeout`) if no end of it was heard of. The app's
      `result_expires` by default. A task of this code base has none: its executions are seen.
    * `value`: False where the message about its end is not to bring its value along. The value comes from the result
      backend then; without one it is None.

    Raises TypeError for a function that takes more than that, an async generator, a lambda without `id`, and an
    annotation that cannot be resolved, `retry_on` that are no exceptions, and a number that is none; ValueError for a
    negative number.
    """
    if fn is None:
        options = {name: value for name, value in locals().items() if name != "fn"}
        return lambda fn: step(fn, **options)
    if is_foreign(fn) or isinstance(fn, str):
        given = {name: given for name, given in locals().items() if name in StepOptions.__annotations__}
        return _step_of_task(fn, given)
    if timeout is not None or value is not True:
        raise TypeError(f"step {id or name_of(fn)!r}: `timeout` and `value` are options of an existing task")
    name = id or _name(fn)
    found = _resolve_types(fn, name, {"input": input, "output": output, "resume": resume, "suspend": suspend})
    return Step(
        fn,
        name,
        first_line(fn) if description is None else description,
        **found,
        retries=retries,
        retry_delay=retry_delay,
        retry_backoff=retry_backoff,
        retry_backoff_max=retry_backoff_max,
        retry_jitter=retry_jitter,
        retry_on=_exceptions(name, "retry_on", retry_on),
        no_retry_on=_exceptions(name, "no_retry_on", no_retry_on),
        queue=queue,
        priority=priority,
        time_limit=time_limit,
        soft_time_limit=soft_time_limit,
        inline=inline,
    )


_OF_TASKS = {"id", "description", "retries", "retry_delay", "timeout", "value", *TASK_OPTIONS}
_DEFAULTS: dict[str, Any] = {
    "retry_backoff": False,
    "retry_backoff_max": 600,
    "retry_jitter": True,
    "retry_on": (Exception,),
    "no_retry_on": (),
}


def _step_of_task(task: Any, given: Mapping[str, Any]) -> TaskEntry:
    """Make the entry of an existing task. Raises TypeError for an option that means nothing for one."""
    name = given["id"] or (task if isinstance(task, str) else name_in_app(task))
    dropped = [key for key, said in given.items() if key not in _OF_TASKS and said != _DEFAULTS.get(key)]
    if dropped:
        raise TypeError(
            f"step {name!r} is an existing task, for which {', '.join(dropped)} means nothing: leave it away"
        )
    check_message(name, given["queue"], given["priority"])
    check_limits(name, {key: given[key] for key in ("time_limit", "soft_time_limit", "timeout")})
    for key in ("retries", "retry_delay"):
        if given[key] is not None:
            require_number(f"step {name!r}: {key}", given[key], whole=key == "retries")
    options = {key: given[key] for key in TASK_OPTIONS if given[key] is not None}
    entry = task_entry(task, given["id"], given["description"], options)
    return replace(
        entry,
        retries=given["retries"],
        retry_delay=given["retry_delay"],
        timeout=given["timeout"],
        value=given["value"],
    )


def _name(fn: Any) -> str:
    name = name_of(fn)
    if name == "<lambda>":
        raise TypeError("a lambda needs an id: step(lambda ...: ..., id='...')")
    return name


def first_line(fn: Any) -> str:
    """The first line of a function's docstring, or the empty text."""
    text = getattr(getattr(fn, "func", fn), "__doc__", None)
    return text.strip().split("\n", 1)[0].strip() if isinstance(text, str) and text.strip() else ""


def _resolve_types(fn: Callable[..., Any], name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Input, output, resume and suspend types: as given, else (but for the last) by the function's annotations."""
    if isinstance(fn, Step):
        raise TypeError(f"{fn.id!r} is a step already; clone_step(step, id=...) gives it another id")
    if not callable(fn):
        raise TypeError(f"step() takes a function, not {fn!r}")
    if is_async_generator(fn):
        text = f"step {name!r} is an async generator, which cannot return a value; use async def and ctx.write"
        raise TypeError(text)
    called = Callback(fn)
    found = {key: None if said is None else _resolve(fn, name, key, said) for key, said in given.items()}
    if given["input"] is None and called.input is not None:
        found["input"] = _resolve(fn, name, "input", called.input.annotation)
    if given["output"] is None:
        annotation = _resolve(fn, name, "output", _return_annotation(fn))
        found["output"] = None if annotation is None else return_type(fn, annotation)
    if given["resume"] is None and called.context is not None:
        found["resume"] = resume_type(_resolve(fn, name, "resume", called.context.annotation))
    return found


def _return_annotation(fn: Callable[..., Any]) -> Any:
    try:
        return inspect.Parameter.empty if inspect.isclass(fn) else inspect.signature(fn).return_annotation
    except ValueError:
        return inspect.Parameter.empty


def _resolve(fn: Callable[..., Any], name: str, keyword: str, annotation: Any) -> Any:
    try:
        return resolve(fn, annotation)
    except Unresolvable as error:
        raise TypeError(
            f"step {name!r}: the annotation {error} cannot be resolved where the function stands; define the name at "
            f"the top of its module, or pass {keyword}=..., the type itself, to step()"
        ) from error


def _exceptions(name: str, option: str, given: Any) -> tuple[type[BaseException], ...]:
    """The exception classes that were given as one, or as a list as Celery's `autoretry_for` takes it."""
    found = tuple(given) if isinstance(given, (list, tuple, set, frozenset)) else (given,)
    for each in found:
        if not (isinstance(each, type) and issubclass(each, BaseException)):
            raise TypeError(f"step {name!r}: {option} takes exception classes, one or a list of them, not {each!r}")
    return found
