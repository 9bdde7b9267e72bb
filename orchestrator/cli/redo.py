"""The commands on runs that have begun: restart, travel, send an event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestrator.app import Run
from orchestrator.cli import exits
from orchestrator.cli.access import Session
from orchestrator.cli.exits import Problem
from orchestrator.cli.options import NOTHING
from orchestrator.cli.output import STATUS
from orchestrator.cli.running import (
    CODES,
    as_json,
    check_may_detach,
    report_left,
    require_same_runtime,
    wait_and_report,
    what_then,
)
from orchestrator.engine.read.results import RunResult
from orchestrator.host import monotonic
from orchestrator.rules.model import StoredStatus


@dataclass(frozen=True, slots=True)
class Travel:
    """The arguments of `travel`."""

    run_id: str
    step: str
    input: Any
    context: dict[str, Any] | None
    nested_context: dict[str, Any] | None
    state: dict[str, Any] | None
    resume_data: Any
    per_step: bool


def restart(at: Session, run_id: str, *, wait: bool, timeout: float | None) -> int:
    """Restart one run; returns the exit code."""
    run = _load_own_run(at, run_id, wait, timeout)
    if not wait:
        return report_left(at, run.submit_restart())
    return wait_and_report(at, run, lambda: run.restart(timeout=timeout))


def restart_active(at: Session, *, wait: bool, timeout: float | None) -> int:
    """Restart all active runs of the workflows known here; returns the exit code."""
    check_may_detach(at.orchestrator, wait, timeout)
    runs = [at.orchestrator.get_run(run_id) for run_id in at.orchestrator.restart_active()]
    if not wait:
        return _report_all(at, [(run, str(run.header().status), None) for run in runs])
    end = None if timeout is None else monotonic() + timeout
    results = [(run, _await_settled(at, run, end)) for run in runs]
    _report_all(at, [(run, str(result.status), result) for run, result in results])
    codes = [CODES.get(result.status, exits.HELD) for _, result in results]
    if bad := codes.count(exits.FAILED):
        raise Problem(f"{bad} of {len(runs)} runs have not ended well", "`show RUN_ID` shows the steps", exits.FAILED)
    return max(codes, default=exits.OK)


def _await_settled(at: Session, run: Run, end: float | None) -> RunResult:
    try:
        return run.result(None if end is None else max(0.0, end - monotonic()))
    except TimeoutError as error:
        raise Problem(str(error), what_then(at, run), exits.TIMED_OUT) from error
    except KeyboardInterrupt as error:
        text = f"interrupted while waiting for run {run.run_id}"
        raise Problem(text, what_then(at, run), exits.INTERRUPTED) from error


def _report_all(at: Session, found: list[tuple[Run, str, RunResult | None]]) -> int:
    if at.output.as_json:
        about = [
            as_json(run, result) if result else {"run_id": run.run_id, "workflow_id": run.workflow_id, "status": status}
            for run, status, result in found
        ]
        at.output.json({"runs": about})
    else:
        rows = [[run.run_id, run.workflow_id, status] for run, status, _ in found]
        at.output.table(("RUN", "WORKFLOW", STATUS), rows)
        if not found:
            at.output.note("no active runs of the workflows known here")
    return exits.OK


def travel(at: Session, args: Travel, *, wait: bool, timeout: float | None) -> int:
    """Let a run go on from one of its steps; returns the exit code."""
    _check_results("--context", args.context or {})
    for name, results in (args.nested_context or {}).items():
        if not isinstance(results, dict):
            remedy = '--nested-context wants step results: {"inner": {"step": {"status": "success", "output": 1}}}'
            raise Problem(f"the context of {name!r} has no step results", remedy)
        _check_results("--nested-context", results, f"{name}.")
    run = _load_own_run(at, args.run_id, wait, timeout)
    given: dict[str, Any] = {"context": args.context, "nested_context": args.nested_context}
    given |= {"state": args.state, "per_step": args.per_step}
    given |= {} if args.input is NOTHING else {"input": args.input}
    given |= {} if args.resume_data is NOTHING else {"resume_data": args.resume_data}
    if not wait:
        return report_left(at, run.submit_time_travel(args.step, **given))
    return wait_and_report(at, run, lambda: run.time_travel(args.step, **given, timeout=timeout))


def _check_results(option: str, results: dict[str, Any], inside: str = "") -> None:
    for name, result in results.items():
        if not isinstance(result, dict):
            remedy = f'{option} wants step results, as in {{"status": "success", "output": 1}}'
            raise Problem(f"the context of {inside + name!r} is no step result", remedy)


def send_event(at: Session, run_id: str, name: str, data: Any, *, wait: bool, timeout: float | None) -> int:
    """Send an event; returns the exit code. A run that has not been started is not waited for."""
    run = _load_own_run(at, run_id, wait, timeout)
    run.send_event(name, None if data is NOTHING else data)
    if not wait or run.header().status == StoredStatus.PENDING:
        return report_left(at, run)
    return wait_and_report(at, run, lambda: run.result(timeout))


def _load_own_run(at: Session, run_id: str, wait: bool, timeout: float | None) -> Run:
    """Load the run, if it may be worked on here."""
    check_may_detach(at.orchestrator, wait, timeout)
    run = at.orchestrator.get_run(run_id)
    require_same_runtime(at.orchestrator, run)
    return run
