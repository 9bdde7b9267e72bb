"""Every exception of the public API. This module imports nothing of the project, so that every layer may raise them.

The first line of a class's docstring is its message where the raiser gives none. Each error can be built again from its
class, `args` and `__dict__` alone: that is how the codec brings it back, without calling `__init__`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

# Names that a stand-in keeps for itself; the original's attributes of these names are in `RemoteError.attributes` only.
_STAND_IN_OWN = frozenset({"name", "message", "attributes", "args"})


def _recreate(cls: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """An exception of this class with these args, made without its `__init__` (whose parameters are not its args)."""
    made = cls.__new__(cls)
    made.args = args
    return made


class OrchestratorError(Exception):
    """The orchestrator cannot do what was asked.

    `code` is a stable identifier of the kind of error. `details` is a dict with `workflow_id`, `run_id` and
    `actual_status` where they are known, and whatever else the raiser gave; it never has a key `status`, which web
    frameworks would take for the status of a response.
    """

    code: str = "ORCHESTRATOR_ERROR"
    details: Mapping[str, Any] = MappingProxyType({})

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "code" not in vars(cls):
            cls.code = _WORD_START.sub("_", cls.__name__).upper()

    def __init__(
        self,
        message: str = "",
        *,
        workflow_id: str | None = None,
        run_id: str | None = None,
        actual_status: str | None = None,
        **more_details: Any,
    ) -> None:
        if "status" in more_details:
            raise TypeError("details have no key 'status': use actual_status")
        super().__init__(message or _default_message(type(self)))
        known = {"workflow_id": workflow_id, "run_id": run_id, "actual_status": actual_status}
        self.details = {key: value for key, value in known.items() if value is not None} | more_details

    def __reduce__(self) -> tuple[Any, ...]:
        return _recreate, (type(self), self.args), dict(vars(self))


def _default_message(cls: type[BaseException]) -> str:
    return (cls.__doc__ or cls.__name__).strip().splitlines()[0]


# -- definitions ------------------------------------------------------------------------------------------------------


class FlowNotDefined(OrchestratorError):
    """Execution flow of workflow is not defined. Add steps with .then() or another block, then call .commit()."""


class FlowNotCommitted(OrchestratorError):
    """Uncommitted step flow changes detected. Call .commit() to register the steps."""


class GraphInvalid(OrchestratorError):
    """The graph of the workflow is not valid.

    `problems` has one sentence for each thing that is wrong; the message lists them all.
    """

    problems: tuple[str, ...] = ()

    def __init__(
        self,
        problems: Iterable[str] | str = (),
        *,
        header: str = "The graph of the workflow is not valid:",
        workflow_id: str | None = None,
        **more_details: Any,
    ) -> None:
        found = (problems,) if isinstance(problems, str) else tuple(problems)
        whole = problems if isinstance(problems, str) and problems.startswith(header) else ""  # from Celery
        text = whole or "\n".join([header, *(f"- {problem}" for problem in found)])
        super().__init__(text, workflow_id=workflow_id, **more_details)
        self.problems = found


class GraphChanged(OrchestratorError):
    """The run was started with another graph than the one that is registered now."""


class StepNotFound(OrchestratorError):
    """The workflow has no such step."""


class WorkflowNotRegistered(OrchestratorError):
    """No workflow of this id is registered."""


# -- values -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing that does not fit its declared type."""

    # The dotted path of the field, "" for the whole value.
    path: str
    # pydantic's error type.
    kind: str
    # pydantic's text, for people.
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class InputInvalid(OrchestratorError):
    """The input does not fit its declared type.

    `issues` has one entry for each field that does not fit. The message is the header and one line `- path: message`
    for each of them.
    """

    issues: tuple[Issue, ...] = ()

    def __init__(
        self,
        issues: Iterable[Issue] | str = (),
        *,
        header: str = "Invalid input data: ",
        workflow_id: str | None = None,
        run_id: str | None = None,
        actual_status: str | None = None,
        **more_details: Any,
    ) -> None:
        whole = issues if isinstance(issues, str) else ""  # the message alone, as Celery hands errors on
        found = () if isinstance(issues, str) else tuple(issues)
        super().__init__(
            whole or "\n".join([header, *(f"- {issue}" for issue in found)]),
            workflow_id=workflow_id,
            run_id=run_id,
            actual_status=actual_status,
            **more_details,
        )
        self.issues = found


class ValueNotSerializable(OrchestratorError, TypeError):
    """The value has no JSON form.

    `where` says which value (an output, an input, …), `field` is the dotted path inside it ("" for the whole value).
    """

    where: str = ""
    field: str = ""

    def __init__(self, message: str = "", *, where: str = "", field: str = "", **more_details: Any) -> None:
        super().__init__(message, **more_details)
        self.where = where
        self.field = field


class ValueNotReadable(OrchestratorError, ValueError):
    """The stored text is not in a format that this version can read."""


class CompressionUnavailable(ValueNotReadable):
    """A stored value is compressed in a way for which this process lacks the package.

    A worker that meets one leaves the step to others; a caller installs the package.
    """


class PayloadTooLarge(OrchestratorError):
    """The value is larger than a stored value may be.

    `where` says which value, `size` and `limit` are bytes.
    """

    where: str = ""
    size: int = 0
    limit: int = 0

    def __init__(
        self, message: str = "", *, where: str = "", size: int = 0, limit: int = 0, **more_details: Any
    ) -> None:
        super().__init__(message, **more_details)
        self.where = where
        self.size = size
        self.limit = limit


class StateConflict(OrchestratorError):
    """A step could not update the run's state: other steps wrote it over and over between the reading and the commit.

    Its attempt has failed; another may follow, by the step's `retries`.
    """


class SecretUnavailable(OrchestratorError):
    """A secret of the request context cannot be read: the key is missing or is another one."""


# -- the life of a run ------------------------------------------------------------------------------------------------


class RunNotFound(OrchestratorError):
    """No run of this id is stored."""

    code = "WORKFLOW_SNAPSHOT_NOT_FOUND"


class RunNotSuspended(OrchestratorError):
    """The run is not suspended, so it cannot be resumed."""

    code = "WORKFLOW_RUN_NOT_SUSPENDED"


class RunNotActive(OrchestratorError):
    """The run is not active, so it cannot be restarted."""

    code = "WORKFLOW_RUN_NOT_ACTIVE"


class MailboxFull(OrchestratorError):
    """The run keeps as many events of this name as it may: the steps that wait for them have to take some first.

    `details` has the name of the event as `event`, and the bounds as `max_events` and `max_bytes`.
    """


class RunStillRunning(OrchestratorError):
    """The run is still running."""

    code = "WORKFLOW_RUN_STILL_RUNNING"


class StartAlreadyClaimed(OrchestratorError):
    """Another caller has already started this run."""

    code = "WORKFLOW_START_ALREADY_CLAIMED"


class RestartAlreadyClaimed(OrchestratorError):
    """Another caller has already restarted this run."""

    code = "WORKFLOW_RESTART_ALREADY_CLAIMED"


class ResumeAlreadyClaimed(OrchestratorError):
    """Another caller has already resumed this run."""

    code = "WORKFLOW_RESUME_ALREADY_CLAIMED"


class ResumeAmbiguous(OrchestratorError):
    """Multiple suspended steps: say with `step`, `label` or `index` which one to resume.

    `candidates` are their dotted paths; the message ends with them.
    """

    candidates: tuple[str, ...] = ()

    def __init__(
        self,
        message: str = "",
        *,
        candidates: Iterable[str] = (),
        workflow_id: str | None = None,
        run_id: str | None = None,
        actual_status: str | None = None,
        **more_details: Any,
    ) -> None:
        found = tuple(candidates)
        text = message or _default_message(type(self))
        super().__init__(
            f"{text} Candidates: {', '.join(found)}" if found else text,
            workflow_id=workflow_id,
            run_id=run_id,
            actual_status=actual_status,
            **more_details,
        )
        self.candidates = found


class StepNotSuspended(OrchestratorError):
    """The step is not suspended, so it cannot be resumed."""


class SuspensionOver(StepNotSuspended):
    """The suspension that was meant is over: it was answered, or the step has gone another way since."""


class RunIsNested(OrchestratorError):
    """A nested workflow is a part of its run: only the run as a whole can be canceled or restarted."""


class RunNotFinished(OrchestratorError):
    """The run has no result yet: it is suspended or paused."""


class RunCanceled(OrchestratorError):
    """The run was canceled."""


class RunFailed(OrchestratorError):
    """The run failed and left no exception of its own."""


# -- existing tasks as steps ------------------------------------------------------------------------------------------


class TaskError(OrchestratorError):
    """A task that is a step has ended without a value and without an error of its own.

    `details` has its name (`task`) and the id of its sending (`task_id`).
    """


class TaskFailed(TaskError):
    """The task has failed, and no result backend says by what."""


class TaskIgnored(TaskError):
    """The task has raised `Ignore`: it has neither a value nor an error, and nothing can follow."""


class TaskRejected(TaskError):
    """The task has rejected its message, which does not come again."""


class TaskRevoked(TaskError):
    """The task was revoked, or its message has expired."""


class TaskTimeout(TaskError):
    """No end of the task was heard of in time."""


# -- the outside world ------------------------------------------------------------------------------------------------


class BrokerUnavailable(OrchestratorError):
    """The message broker cannot be reached; nothing was started.

    `is_refused` says that it can be, and that it is this message that cannot be sent: its queue is not known, say.
    """

    is_refused: bool = False

    def __init__(self, message: str = "", *, is_refused: bool = False, **more_details: Any) -> None:
        super().__init__(message, **more_details)
        self.is_refused = is_refused


class StoreUnavailable(OrchestratorError):
    """The store cannot be reached."""


class StoreRefused(OrchestratorError):
    """The store does not take the request as it is, and would not take it another time.

    A value that it has no place for, or data of the run that have been damaged: the store itself works.
    """


class NoConsumer(OrchestratorError):
    """No worker takes this workflow's messages."""

    code = "EVENTED_WORKFLOW_NO_EVENT_CONSUMER"


class RemoteError(OrchestratorError):
    """An exception whose class cannot be rebuilt in this process.

    `name` is the original's qualified class name, `message` its text, `attributes` what it carried. Attributes are also
    readable on the error itself (also `code` and `details`, which then are the original's), unless their name is one of
    the stand-in's own or a dunder.
    """

    name: str = ""
    message: str = ""
    attributes: Mapping[str, Any]

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __init__(
        self,
        message: str = "",
        *,
        name: str = "",
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.args = (message,)  # an original without text stays without text
        self.name = name
        self.message = message
        self.attributes = dict(attributes or {})
        vars(self).update({key: value for key, value in self.attributes.items() if _may_show(key)})


def _may_show(name: str) -> bool:
    return name not in _STAND_IN_OWN and not name.startswith("__") and not callable(getattr(RemoteError, name, None))


# -- control flow -----------------------------------------------------------------------------------------------------


class TripWire(Exception):
    """Raised in a step: ends the run with the status `tripwire`, which is not a failure.

    `reason` is text for people; `retry` says whether trying again may help; `metadata` is any JSON value;
    `processor_id` names what pulled the wire.
    """

    reason: str = ""
    retry: bool = False
    metadata: Any = None
    processor_id: str | None = None

    def __init__(
        self, reason: str, *, retry: bool = False, metadata: Any = None, processor_id: str | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry = retry
        self.metadata = metadata
        self.processor_id = processor_id

    def __reduce__(self) -> tuple[Any, ...]:
        return _recreate, (type(self), self.args), dict(vars(self))
