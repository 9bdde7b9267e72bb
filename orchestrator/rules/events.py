"""Events of a run's log: the types of the engine's own, and the document of each.

A document refers to values by their ids: a value that is large is stored once, and read by those who want it. What
readers see is made of it in `engine/read/events.py`; what other systems get, in `canvas/publication.py`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Protocol

# Steps choose the types of their own events, but none that begins so. So the prefix alone tells a reader whether an
# event is the engine's, even if a newer engine has types that the reader does not know.
_PREFIX = "workflow-"

_Doc = dict[str, Any]


class EventType(StrEnum):
    """The type of an event that the engine writes."""

    WORKFLOW_START = "workflow-start"  # the run begins; a time travel has a start of its own
    WORKFLOW_PAUSED = "workflow-paused"  # followed by its finish
    WORKFLOW_CANCELED = "workflow-canceled"  # followed by its finish
    WORKFLOW_FINISH = "workflow-finish"  # the run has settled, with whatever status
    REPORT_FAILED = (
        "workflow-report-failed"  # a hook or the result backend could not be told of an end, and is not again
    )
    EVENTS_TRIMMED = "workflow-events-trimmed"  # stands for older events that are kept no longer
    STEP_START = "workflow-step-start"  # begins to run for the first time, or goes on after a resume
    STEP_WAITING = "workflow-step-waiting"  # begins to sleep, or to wait for an event
    STEP_SUSPENDED = "workflow-step-suspended"
    STEP_PROGRESS = "workflow-step-progress"  # an item of a foreach has ended, or has suspended
    STEP_OUTPUT = "workflow-step-output"  # a chunk that the step has written to its stream
    STEP_RETRYING = "workflow-step-retrying"  # an attempt has failed, and another follows
    STEP_RESULT = "workflow-step-result"  # has ended; its finish follows
    STEP_FINISH = "workflow-step-finish"


def is_reserved(type: str) -> bool:
    """Tell whether a type is the engine's own, so that no step may write an event of it."""
    return type.startswith(_PREFIX)


# --- the run as a whole ----------------------------------------------------------------------------------------------


def make_workflow_start(input_id: str) -> _Doc:
    """Tell that the run begins, with this value as its input."""
    return {"type": EventType.WORKFLOW_START.value, "input": input_id}


def make_workflow_paused() -> _Doc:
    """Tell that a run that goes by single steps has settled, and waits for a resume."""
    return {"type": EventType.WORKFLOW_PAUSED.value}


def make_workflow_canceled() -> _Doc:
    """Tell that the run was ended as canceled."""
    return {"type": EventType.WORKFLOW_CANCELED.value}


def make_report_failed(report: str, status: str, error_id: str) -> _Doc:
    """Tell that a hook, or the result backend, was not told that the run has settled with this status."""
    return {"type": EventType.REPORT_FAILED.value, "report": report, "status": status, "error": error_id}


def make_workflow_finish(status: str, settle_count: int) -> _Doc:
    """Tell that the run has settled. A reader that waits for one settling knows it by its number."""
    return {"type": EventType.WORKFLOW_FINISH.value, "status": status, "settle_count": settle_count}


def make_events_trimmed() -> _Doc:
    """Stand for older events that are kept no longer."""
    return {"type": EventType.EVENTS_TRIMMED.value}


# --- steps -----------------------------------------------------------------------------------------------------------


class Subject(Protocol):
    """The activation that an event tells of, as far as events name it."""

    @property
    def path(self) -> str:
        """The path of its node."""
        ...

    @property
    def visit(self) -> str:
        """The iterations of the loops around it: with the path, they tell it from every other activation."""
        ...

    @property
    def step(self) -> str:
        """The id of its step, which readers show."""
        ...

    @property
    def input(self) -> str:
        """The id of its input."""
        ...


def _describe(type: str, subject: Subject) -> _Doc:
    return {"type": str(type), "path": subject.path, "visit": subject.visit, "step": subject.step}


def make_step_start(subject: Subject, resume_id: str | None = None) -> _Doc:
    """Tell that a step begins, or (with `resume_id`) goes on with resume data."""
    doc = _describe(EventType.STEP_START, subject) | {"input": subject.input}
    return doc if resume_id is None else doc | {"resume": resume_id}


def make_step_waiting(subject: Subject) -> _Doc:
    """Tell that an activation begins to sleep, or to wait for an event."""
    return _describe(EventType.STEP_WAITING, subject) | {"input": subject.input}


def make_step_retrying(subject: Subject, attempt: int, retry_count: int) -> _Doc:
    """Tell that an attempt has failed, and that the retry of this number follows: chunks so far are of no use."""
    return _describe(EventType.STEP_RETRYING, subject) | {"attempt": attempt, "retry_count": retry_count}


def make_step_suspended(subject: Subject, payload_id: str, index: int | None = None) -> _Doc:
    """Tell that a step has suspended; `index` is that of an item of a foreach."""
    doc = _describe(EventType.STEP_SUSPENDED, subject) | {"input": subject.input, "suspend": payload_id}
    return doc if index is None else doc | {"index": index}


def make_step_success(subject: Subject, output_id: str) -> _Doc:
    """Tell that an activation has ended well."""
    return _describe(EventType.STEP_RESULT, subject) | {"status": "success", "output": output_id}


def make_step_failure(subject: Subject, error_id: str) -> _Doc:
    """Tell that an activation has failed."""
    return _describe(EventType.STEP_RESULT, subject) | {"status": "failed", "error": error_id}


def make_step_finish(subject: Subject) -> _Doc:
    """Tell that an activation has ended, after its result."""
    return _describe(EventType.STEP_FINISH, subject)


def make_step_progress(subject: Subject, index: int, status: str, output_id: str | None = None) -> _Doc:
    """Tell what an item of the foreach that is `subject` has come to.

    The counts of finished items and of all are added at the commit: other items may end until then.
    """
    doc = _describe(EventType.STEP_PROGRESS, subject) | {"index": index, "status": status}
    return doc if output_id is None else doc | {"output": output_id}


def make_written(type: str, subject: Subject, text: str, source: str, attempt: int) -> _Doc:
    """Tell what a step has written to its stream: `text` is the payload itself, `source` the ids down to the step.

    `attempt` is the `seq` of the claim, which tells the attempts at one activation apart, also those that were
    abandoned or resumed: retries are counted anew after a resume.
    """
    return _describe(type, subject) | {"text": text, "source": source, "attempt": attempt}
