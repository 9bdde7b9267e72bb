"""What callers see of a run: results, step results, stored runs. Values come back as their declared types where the
workflow is known, else in plain shapes."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from orchestrator.codec import as_json, error_to_dict, key_as_json
from orchestrator.errors import RunCanceled, RunFailed, RunNotFinished, TripWire


class RunStatus(StrEnum):
    """What a run is."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    SUSPENDED = "suspended"
    PAUSED = "paused"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELED = "canceled"
    TRIPWIRE = "tripwire"


class StepStatus(StrEnum):
    """What a step of a run is."""

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


# What a nested workflow is as a run, for what it is as a step.


@dataclass(slots=True)
class StepResult:
    """One step of a run. `payload` is its input; times are aware datetimes in UTC; what does not apply is None."""

    status: StepStatus
    payload: Any = None
    output: Any = None
    error: BaseException | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    suspend_payload: Any = None
    suspended_at: datetime | None = None
    resume_payload: Any = None
    resumed_at: datetime | None = None
    metadata: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain and JSON-able, without what is absent; times in milliseconds since 1970, errors without a stack."""
        return _to_dict(self)


@dataclass(slots=True)
class RunResult:
    """What a run had come to when it rested.

    `steps` has the step results of the outermost workflow by step id; `suspended` the paths (lists of step ids) of
    what waits for somebody, in declaration order; `suspend_payload` what each of these steps said, by the outermost id.
    """

    run_id: str
    status: RunStatus
    input: Any = None
    result: Any = None
    error: BaseException | None = None
    steps: dict[str, StepResult] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    suspended: list[list[str]] = field(default_factory=list)
    suspend_payload: dict[str, Any] = field(default_factory=dict)
    resume_labels: dict[str, dict[str, Any]] = field(default_factory=dict)
    tripwire: TripWire | None = None
    execution_path: list[str] = field(default_factory=list)

    def unwrap(self) -> Any:
        """The result, or the run's own error raised."""
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

    run_id: str
    workflow_id: str
    resource_id: str | None
    status: RunStatus
    created_at: datetime
    updated_at: datetime
    input: Any = None
    result: Any = None
    error: BaseException | None = None
    state: dict[str, Any] | None = None
    steps: dict[str, StepResult] | None = None
    suspended: list[list[str]] | None = None
    resume_labels: dict[str, dict[str, Any]] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain and JSON-able, without what is absent; times in milliseconds since 1970, errors without a stack."""
        return _to_dict(self)


def _to_dict(value: Any) -> dict[str, Any]:
    shown = {f.name: getattr(value, f.name) for f in fields(value)}
    return {name: _plain(part) for name, part in shown.items() if part is not None}


def _plain(value: Any) -> Any:
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
