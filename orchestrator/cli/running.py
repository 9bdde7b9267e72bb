"""The commands that start, resume and cancel runs, and the report of how that ended."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from orchestrator.app import Orchestrator, Run
from orchestrator.cli import exits
from orchestrator.cli.access import Session
from orchestrator.cli.exits import Problem
from orchestrator.cli.options import NOTHING
from orchestrator.cli.output import STATUS
from orchestrator.cli.progress import show_while_waiting
from orchestrator.cli.stored import waiting_lines
from orchestrator.cli.texts import compact, error_text, plain
from orchestrator.codec import error_to_dict
from orchestrator.engine.read.results import RunResult, RunStatus
from orchestrator.errors import OrchestratorError, StoreUnavailable
from orchestrator.rules.model import ActivationStatus, StoredStatus

CODES = {RunStatus.SUCCESS: exits.OK} | dict.fromkeys(
    (RunStatus.FAILED, RunStatus.CANCELED, RunStatus.TRIPWIRE), exits.FAILED
)


@dataclass(frozen=True, slots=True)
class Start:
    """The arguments of `start`."""

    workflow: str
    input: Any
    run_id: str | None
    resource: str | None
    state: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Resume:
    """The arguments of `resume`."""

    run_id: str
    data: Any
    step: str | None
    label: str | None
    index: int | None
    token: str | None = None
    per_step: bool = False


def start(at: Session, args: Start, *, wait: bool, timeout: float | None) -> int:
    """Start a run; returns the exit code. A run that could not be started is not kept, unless its id was given."""
    check_may_detach(at.orchestrator, wait, timeout)
    try:
        run = at.orchestrator.create_run(args.workflow, run_id=args.run_id, resource_id=args.resource)
    except ValueError as error:
        raise Problem(str(error)) from error
    require_same_runtime(at.orchestrator, run)
    value = None if args.input is NOTHING else args.input
    try:
        if not wait:
            return report_left(at, run.submit(value, state=args.state))
        return wait_and_report(at, run, lambda: run.start(value, state=args.state, timeout=timeout))
    except OrchestratorError:
        if args.run_id is None:
            with suppress(StoreUnavailable):
                at.orchestrator.store.delete(run.run_id, frozenset({StoredStatus.PENDING.value}))
        raise


def resume(at: Session, args: Resume, *, wait: bool, timeout: float | None) -> int:
    """Resume a run; returns the exit code."""
    check_may_detach(at.orchestrator, wait, timeout)
    run = at.orchestrator.get_run(args.run_id)
    require_same_runtime(at.orchestrator, run)
    given = {} if args.data is NOTHING else {"data": args.data}
    target: dict[str, Any] = {"step": args.step, "label": args.label, "index": args.index, "token": args.token}
    target["per_step"] = args.per_step
    if not wait:
        return report_left(at, run.submit_resume(**given, **target))
    return wait_and_report(at, run, lambda: run.resume(**given, **target, timeout=timeout))


def cancel(at: Session, run_id: str) -> int:
    """Cancel a run; returns the exit code."""
    report = at.orchestrator.get_run(run_id).cancel()
    if at.output.as_json:
        at.output.json({"run_id": report.run_id, "status": str(report.status), "failed": report.failed})
    else:
        at.output.fields([("RUN", report.run_id), (STATUS, str(report.status))])
        if report.status != RunStatus.CANCELED:
            at.output.note("the run had ended before; it stays as it is")
    if report.failed:
        raise Problem(f"could not be canceled: {', '.join(report.failed)}", code=exits.FAILED)
    return exits.OK


def check_may_detach(orchestrator: Orchestrator, wait: bool, timeout: float | None) -> None:
    """Refuse not to wait where the run would end with this process."""
    if not wait and timeout is not None:
        raise Problem("--timeout says how long to wait, and --no-wait not to", "leave one of them out")
    if not wait and not orchestrator.client.runtime.is_shared:
        raise Problem("the run would end with this process, in which it runs", "leave --no-wait out")


def require_same_runtime(orchestrator: Orchestrator, run: Run) -> None:
    """Refuse a run that others work on: its steps would run in the wrong process."""
    theirs, runtime = run.header().runtime, orchestrator.client.runtime
    if theirs and theirs != runtime.name:
        where = "orchestrator --store … --workflows …" if runtime.is_shared else "celery -A proj workflow …"
        raise Problem(f"run {run.run_id!r} belongs to the runtime {theirs!r}, which this is not", f"use {where}")


def report_left(at: Session, run: Run) -> int:
    """Report the status of a run without waiting for it any longer; returns the exit code."""
    header = run.header()
    if at.output.as_json:
        at.output.json({"run_id": run.run_id, "workflow_id": run.workflow_id, "status": str(header.status)})
    else:
        at.output.fields([("RUN", run.run_id), (STATUS, str(header.status))])
    return exits.OK


def wait_and_report(at: Session, run: Run, work: Callable[[], RunResult]) -> int:
    """Wait, showing progress to people, and report the result."""
    try:
        result = work() if at.output.as_json else show_while_waiting(at, run, work)
    except TimeoutError as error:
        raise Problem(str(error), what_then(at, run), exits.TIMED_OUT) from error
    except KeyboardInterrupt as error:
        text = f"interrupted while waiting for run {run.run_id}"
        raise Problem(text, what_then(at, run), exits.INTERRUPTED) from error
    return _report(at, run, result)


def what_then(at: Session, run: Run) -> str:
    """The remedy that says what becomes of a run that is waited for no longer."""
    if not at.orchestrator.client.runtime.is_shared:
        return "its steps run in this process and stop with it"
    return f"it goes on: `show {run.run_id}` tells how, `cancel {run.run_id}` ends it"


def _report(at: Session, run: Run, result: RunResult) -> int:
    if at.output.as_json:
        at.output.json(as_json(run, result))
    else:
        at.output.fields(_fields_of(at, run, result))
    code = CODES.get(result.status, exits.HELD)
    if code == exits.FAILED:
        raise Problem(_why_failed(result), f"`show {run.run_id}` shows its steps", code)
    if code == exits.HELD:
        at.output.note(f"run {run.run_id} is {result.status}: {_remedy(at, run)}")
    return code


def _remedy(at: Session, run: Run) -> str:
    awaiting = at.orchestrator.client.reader(run.header()).awaiting_activations(paused=False)
    if awaiting and all(activation.status == ActivationStatus.WAITING for activation in awaiting):
        return "it goes on when the event is sent to it"
    return f"`resume {run.run_id}` goes on with it"


def _fields_of(at: Session, run: Run, result: RunResult) -> list[tuple[str, str]]:
    pairs = [("RUN", run.run_id), (STATUS, str(result.status))]
    if result.status == RunStatus.SUCCESS:
        pairs.append(("RESULT", compact(result.result)))
    if result.suspended:
        pairs += [("WAITS FOR", text) for text in waiting_lines(at.orchestrator.client.reader(run.header()))]
    return pairs


def _why_failed(result: RunResult) -> str:
    match result.status:
        case RunStatus.CANCELED:
            return f"run {result.run_id} was canceled"
        case RunStatus.TRIPWIRE:
            return f"run {result.run_id} ended by a tripwire: {result.tripwire}"
        case _:
            return f"run {result.run_id} failed: {error_text(result.error)}"


def as_json(run: Run, result: RunResult) -> dict[str, Any]:
    """The result of a run, as JSON has it."""
    shown: dict[str, Any] = {
        "run_id": result.run_id,
        "workflow_id": run.workflow_id,
        "status": str(result.status),
        "result": plain(result.result),
        "error": None if result.error is None else error_to_dict(result.error),
        "state": plain(result.state),
        "suspended": result.suspended,
        "suspend_payload": plain(result.suspend_payload),
        "resume_labels": plain(result.resume_labels),
        "resume_tokens": plain(result.resume_tokens),
    }
    wire = result.tripwire
    if wire is not None:
        shown["tripwire"] = {"reason": wire.reason, "retry": wire.retry, "metadata": plain(wire.metadata)}
    return shown
