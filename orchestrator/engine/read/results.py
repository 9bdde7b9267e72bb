"""Results, step results and stored runs, as callers see them. Values come back as their declared types where the
workflow is known, else in plain shapes."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from orchestrator.codec import as_json, error_to_dict, key_as_json
from orchestrator.errors import RunCanceled, RunFailed, RunNotFinished, TripWire


class RunStatus(StrEnum):
    """The status of a run."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    SUSPENDED = "suspended"
    PAUSED = "paused"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELED = "canceled"
    TRIPWIRE = "tripwire"
    # what is stored under the run's id cannot be read; the run can be listed and deleted, and nothing else
    UNREADABLE = "unreadable"


class StepStatus(StrEnum):
    """The status of a step of a run."""

    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCESS = "success"
    FAILED = "failed"
    SUSPENDED = "suspended"
    PAUSED = "paused"
    WAITING = "waiting"
    SKIPPED = "skipped"
    CANCELED = "canceled"


@dataclass(slots=True)
class StepResult:
    """One step of a run. `payload` is its input; times are aware datetimes in UTC; what does not apply is None."""

    # computed for what has children
    status: StepStatus
    # its input
    payload: Any = None
    # what it made, if it has succeeded
    output: Any = None
    # of its last attempt
    error: BaseException | None = None
    # when a worker first took it
    started_at: datetime | None = None
    # when it came to its final status
    ended_at: datetime | None = None
    # what it suspended with, or what somebody below it did
    suspend_payload: Any = None
    # when that was
    suspended_at: datetime | None = None
    # what it was resumed with
    resume_payload: Any = None
    # when that was
    resumed_at: datetime | None = None
    # `parked`: why no worker runs it
    metadata: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able dict of what is there; times in milliseconds since 1970, errors without a stack."""
        return _to_dict(self)


@dataclass(slots=True)
class RunResult:
    """The result of a run as of its last rest."""

    # of the run; `<run id>/<path>` for a nested workflow read as one
    run_id: str
    # that it rests with
    status: RunStatus
    # as it was checked at the start
    input: Any = None
    # None unless it has succeeded
    result: Any = None
    # of a failed run
    error: BaseException | None = None
    # step results of the outermost workflow by step id
    steps: dict[str, StepResult] = field(default_factory=dict)
    # with the defaults of the workflow's model
    state: dict[str, Any] = field(default_factory=dict)
    # paths (lists of step ids) of what waits for somebody, in declaration order
    suspended: list[list[str]] = field(default_factory=list)
    # what each of these steps said, by the outermost id
    suspend_payload: dict[str, Any] = field(default_factory=dict)
    # the step (and the item) of each label by which somebody can resume
    resume_labels: dict[str, dict[str, Any]] = field(default_factory=dict)
    # the reason of a run that a tripwire ended
    tripwire: TripWire | None = None
    # step ids in the order in which they first ran
    execution_path: list[str] = field(default_factory=list)

    def unwrap(self) -> Any:
        """Return the result, or raise the run's own error."""
        match self.status:
            case RunStatus.SUCCESS:
                return self.result
            case RunStatus.FAILED:
                raise self.error or RunFailed(f"run {self.run_id} has failed", run_id=self.run_id)
            case RunStatus.TRIPWIRE:
                raise self.tripwire or TripWire("unknown reason")
            case RunStatus.CANCELED:
                raise RunCanceled(f"run {self.run_id} was canceled", run_id=self.run_id)
            case status:
                raise RunNotFinished(f"run {self.run_id} is {status}", run_id=self.run_id, actual_status=status)


@dataclass(slots=True)
class RunRecord:
    """A run as it is stored. A field that was not asked for is None."""

    # as in `RunResult`
    run_id: str
    # of the workflow that runs
    workflow_id: str
    # by which an application finds its runs
    resource_id: str | None
    # as the last commit has left it
    status: RunStatus
    # of the run, or when the nested workflow began
    created_at: datetime
    # the last commit
    updated_at: datetime
    # the fields from here on are read if they are asked for; each is as in `RunResult`
    input: Any = None
    result: Any = None
    error: BaseException | None = None
    state: dict[str, Any] | None = None
    steps: dict[str, StepResult] | None = None
    suspended: list[list[str]] | None = None
    resume_labels: dict[str, dict[str, Any]] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able dict of what is there; times in milliseconds since 1970, errors without a stack."""
        return _to_dict(self)


def _to_dict(value: Any) -> dict[str, Any]:
    shown = {f.name: getattr(value, f.name) for f in fields(value)}
    return {name: _plain(part) for name, part in shown.items() if part is not None}


def _plain(value: Any) -> Any:
    # Not `dataclasses.asdict`: values are the user's own, and the codec says how they look in JSON.
    match value:
        case datetime():
            return round(value.timestamp() * 1000)
        case BaseException():
            return as_json(error_to_dict(value))
        case StepResult() | RunRecord():
            return value.to_dict()
        case dict():
            return {key_as_json(key): _plain(part) for key, part in value.items()}
        case list() | tuple():
            return [_plain(part) for part in value]
        case _:
            return as_json(value)


def moment(ms: int) -> datetime | None:
    """A stored time as an aware datetime; None for none."""
    return datetime.fromtimestamp(ms / 1000, UTC) if ms else None
