"""Results, step results and stored runs, as callers see them. Values come back as their declared types where the
workflow is known, else in plain shapes."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from orchestrator.codec import as_json, error_to_dict, key_as_json
from orchestrator.definitions.statuses import RunStatus as RunStatus
from orchestrator.errors import RunCanceled, RunFailed, RunNotFinished, TripWire


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

    # its status, computed from its children for a block
    status: StepStatus
    # its input
    payload: Any = None
    # its output, if it has succeeded
    output: Any = None
    # the error of its last attempt
    error: BaseException | None = None
    # the moment at which a worker first claimed it
    started_at: datetime | None = None
    # the moment at which it ended
    ended_at: datetime | None = None
    # the payload that it suspended with; for a block that of a step inside
    suspend_payload: Any = None
    # the moment at which it suspended
    suspended_at: datetime | None = None
    # the data that it was resumed with
    resume_payload: Any = None
    # the moment at which it was resumed
    resumed_at: datetime | None = None
    # `parked`: the reason why no worker can run it now
    metadata: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able dict of the fields that are not None: times in ms since 1970, errors without a stack."""
        return _to_dict(self)


@dataclass(slots=True)
class RunResult:
    """The result of a run as of the last time that it settled."""

    # the id of the run; `<run id>/<path>` for a nested workflow read as one
    run_id: str
    # the status that it settled with
    status: RunStatus
    # the input, as it was validated at the start
    input: Any = None
    # the result; None unless the run has succeeded
    result: Any = None
    # the error of a failed run
    error: BaseException | None = None
    # step results of the outermost workflow by step id
    steps: dict[str, StepResult] = field(default_factory=dict)
    # the run's state, with the defaults of the workflow's model
    state: dict[str, Any] = field(default_factory=dict)
    # lists of step ids, one for each suspended step, in declaration order
    suspended: list[list[str]] = field(default_factory=list)
    # the payloads of these steps, by the outermost id
    suspend_payload: dict[str, Any] = field(default_factory=dict)
    # the step (and the item) of each label for `resume(label=…)`
    resume_labels: dict[str, dict[str, Any]] = field(default_factory=dict)
    # the step (and the item) of each suspension, by its token for `resume(token=…)`
    resume_tokens: dict[str, dict[str, Any]] = field(default_factory=dict)
    # the reason of a run that a tripwire ended
    tripwire: TripWire | None = None
    # step ids in the order in which the steps first ran
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
    # the id of its workflow
    workflow_id: str
    # the id of the user, customer or thing that the run is for
    resource_id: str | None
    # the status after the last commit
    status: RunStatus
    # the moment at which the run was created, or the nested workflow began
    created_at: datetime
    # the moment of the last commit
    updated_at: datetime
    # the fields from here on are read on demand; each is as in `RunResult`
    input: Any = None
    result: Any = None
    error: BaseException | None = None
    state: dict[str, Any] | None = None
    steps: dict[str, StepResult] | None = None
    suspended: list[list[str]] | None = None
    resume_labels: dict[str, dict[str, Any]] | None = None
    resume_tokens: dict[str, dict[str, Any]] | None = None
    # the values that travel with the run, as the last step left them; `"***"` for those that are stored encrypted
    request_context: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able dict of the fields that are not None: times in ms since 1970, errors without a stack."""
        return _to_dict(self)


def _to_dict(value: Any) -> dict[str, Any]:
    shown = {f.name: getattr(value, f.name) for f in fields(value)}
    return {name: _plain(part) for name, part in shown.items() if part is not None}


def _plain(value: Any) -> Any:
    # Not `dataclasses.asdict`: users' values may be dataclasses too, and the codec decides how they look in JSON.
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
    """Return a stored time as an aware datetime; None for 0."""
    return datetime.fromtimestamp(ms / 1000, UTC) if ms else None
