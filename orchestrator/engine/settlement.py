"""Settling: the status of a run in which nothing is live any more is decided and committed, and then it is reported.

The reports of an end (`on_finish`, `on_error`, the delivery to the result backend) are activations of their own, which
the commit of the status begins (`rules/reports.py`). A hook that fails is called again, and keeps nothing from its end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from orchestrator.definitions import Workflow
from orchestrator.definitions.bodies import definition_at
from orchestrator.definitions.definition import Definition
from orchestrator.definitions.run_info import RunInfo
from orchestrator.definitions.statuses import RunStatus
from orchestrator.engine.attempt import Attempt
from orchestrator.engine.calling import call_hook
from orchestrator.engine.logs import RunLogger, log_context
from orchestrator.engine.outcome import StepOutcome, Writes
from orchestrator.engine.read.run_reader import Reader
from orchestrator.engine.read.value_reader import encode_error
from orchestrator.engine.services import Services
from orchestrator.errors import CompressionUnavailable
from orchestrator.host import monotonic
from orchestrator.ports import Runtime
from orchestrator.rules import attempt_commands, flow, reports
from orchestrator.rules.graph import Graph
from orchestrator.rules.model import FINAL, Report, RunHeader, StoredStatus
from orchestrator.rules.reports import Told
from orchestrator.rules.value_ids import make_error_id

log = logging.getLogger("orchestrator")

_MORE_ASKS, _PAUSE = 2, 0.05  # of one delivery, as long as they take no longer than that together
_AT_ONCE = 0.5  # seconds
_MAX_LOOKS = 5  # at a run whose end moves on while it is delivered


def declared_hooks(workflow: Definition | Workflow) -> frozenset[str]:
    """Return the names of the hooks that are called when a run of the workflow ends."""
    return frozenset(report.value for report in reports.HOOKS if _hook_of(workflow, report) is not None)


def _hook_of(workflow: Definition | Workflow, report: Report) -> Callable[[RunInfo], Any] | None:
    return workflow.on_finish if report is Report.ON_FINISH else workflow.on_error


# --- settling ---------------------------------------------------------------------------------------------------------


def settle(attempt: Attempt, runtime: Runtime, *, hooks_here: bool) -> StepOutcome:
    """Plan to store the new status, and to report it: in this process, as far as `hooks_here` allows."""
    status = flow.settled_status(attempt.header)
    claim = attempt.as_claimed_node()
    hooks = declared_hooks(definition_at(attempt.graph, ()))
    plan = flow.on_settled(claim, Told(hooks, runtime.keeps_results, hooks_here))
    # Of a suspension the hook is told before it is recorded: whoever resumes a run can rely on the hook having been
    # called, and a worker that is lost in it leaves a run that runs (decision 11). A pause is told to no hook.
    if status is StoredStatus.SUSPENDED and Report.ON_FINISH in hooks:
        is_lost = attempt_commands.is_lost_too_often(attempt.activation)
        if is_lost or not _tell_of_suspension(attempt, status):
            plan.ops.append(reports.begin_again(claim, status, is_lost=is_lost))
    return StepOutcome(plan)


def _tell_of_suspension(attempt: Attempt, status: StoredStatus) -> bool:
    """Call `on_finish` of a run that is about to be suspended. Returns False where it has failed."""
    reader = Reader(attempt.store, with_settled_status(attempt.header, status), attempt.graph)
    try:
        _call(attempt, Report.ON_FINISH, definition_at(attempt.graph, ()), reader)
    except BaseException as error:
        attempt.services.signs.raise_if_dying(error)
        text = "on_finish of run %s raised; it is called again"
        log.warning(text, attempt.header.run_id, exc_info=error, extra=log_context(attempt.header))
        return False
    return True


def with_settled_status(header: RunHeader, status: StoredStatus) -> RunHeader:
    """Return the header as the commit that settles the run with this status leaves it."""
    return replace(header, status=status.value, error=header.error or header.failure)


# --- reports ----------------------------------------------------------------------------------------------------------


def report(attempt: Attempt, runtime: Runtime, graph: Graph | None, *, here: bool) -> StepOutcome:
    """Call the hook, or deliver the result, that this activation is for. Its failure is an attempt that has failed.

    `graph` is the one that the run was started with, None where it is not known here; `here` allows the next report to
    follow in this process. Raises what a process dies of, and nothing else.
    """
    told = Report(attempt.activation.step)
    status = StoredStatus(attempt.activation.settled)
    reader = Reader(attempt.store, with_settled_status(attempt.header, status), graph)
    try:
        if told is Report.RESULT:
            _deliver(runtime, attempt, reader)
        else:
            _call(attempt, told, definition_at(attempt.graph, ()), reader)
    except CompressionUnavailable:
        raise  # another worker can read what it tells of
    except BaseException as error:  # noqa: BLE001  (a user's function, which may also say `sys.exit()`, or a backend)
        attempt.services.signs.raise_if_dying(error)
        return fail_report(attempt, error, here=here)
    return StepOutcome(reports.on_report_done(attempt.as_claimed_node(), here=here))


def _call(attempt: Attempt, told: Report, workflow: Definition, reader: Reader) -> None:
    hook = _hook_of(workflow, told)
    if hook is None:
        text = "run %s has an %s to call, which this release of %s has no more"
        log.warning(text, reader.run_id, told.value, workflow.id, extra=log_context(reader.header))
        return
    services = attempt.services
    info = run_info(services.owner, reader, services.contexts.read(attempt.header.run_id, attempt.claimed.context))
    call_hook(lambda: hook(info), services.signs)


def _deliver(runtime: Runtime, attempt: Attempt, reader: Reader) -> None:
    header = attempt.header
    # A time travel takes its reports along. Should one be left, its end is no more.
    if header.status not in FINAL or header.settle_count != -attempt.activation.at[0]:
        return
    # A backend that refuses at once is asked again at once: most are back by then. One that is waited for is not, for
    # its own client has tried for long already, and this worker has other things to do.
    began = monotonic()
    for _ in range(_MORE_ASKS):
        try:
            runtime.deliver(header, reader.result, reader.error)
            return
        except Exception:  # a result backend may raise anything
            if monotonic() - began > _AT_ONCE:
                raise
            attempt.services.clock.sleep(_PAUSE)
    runtime.deliver(header, reader.result, reader.error)


def fail_report(attempt: Attempt, error: BaseException, *, here: bool) -> StepOutcome:
    """Plan another attempt at a report, or give it up."""
    header, activation = attempt.header, attempt.activation
    claim = attempt.as_claimed_node()
    what = "the result" if activation.step == Report.RESULT else activation.step
    done = "could not be delivered" if activation.step == Report.RESULT else "raised"
    pause = reports.find_report_pause(activation)
    attempt.error = error
    attempt.observer.on_failure(error)
    if pause is not None:
        text = "%s of run %s %s (attempt %d), the next attempt follows in %.1f s: %r"
        names = (what, header.run_id, done, activation.attempt + 1, pause / 1000, error)
        # Where it lies is in the author's code. Of a backend that is away the error says enough.
        trace = None if activation.step == Report.RESULT else error
        log.warning(text, *names, exc_info=trace, extra=attempt.log_context)
        return StepOutcome(reports.retry_report(claim, pause, here=here))
    text = "%s of run %s %s in %d attempts, and is given up: %r"
    log.error(text, what, header.run_id, done, activation.attempt + 1, error, exc_info=error, extra=attempt.log_context)
    return give_up(attempt, error, here=here)


def give_up(attempt: Attempt, error: BaseException, *, here: bool) -> StepOutcome:
    """Plan to leave a report as failed, with this error."""
    key = make_error_id(attempt.activation.lease_token)
    text = encode_error(error, attempt.services.settings.packing)
    return StepOutcome(reports.give_up_report(attempt.as_claimed_node(), key, here=here), Writes({key: text}))


# --- the result backend and the store ---------------------------------------------------------------------------------


def discard_result(runtime: Runtime, header: RunHeader) -> None:
    """Let the result backend forget the result of a run that goes on after it, or is gone. Never raises."""
    try:
        runtime.discard_result(header.run_id)
    except Exception as error:  # noqa: BLE001  (a result backend may raise anything)
        # What stands there is replaced by the next end under this id.
        text = "the result backend keeps an old result of run %s: %r"
        log.warning(text, header.run_id, error, extra=log_context(header))


def restore_result(services: Services, runtime: Runtime, header: RunHeader, graph: Graph | None) -> None:
    """Make the result backend hold what the store does. Never raises.

    For a worker whose delivery came too late: the run has travelled in time meanwhile, or it is gone, and its id
    perhaps another run's. Whoever has delivered since was replaced by it.
    """
    try:
        for _ in range(_MAX_LOOKS):
            found = services.store.header(header.run_id)
            if found is None or not found.final:
                runtime.discard_result(header.run_id)
            else:
                reader = Reader(services.store, found, graph)
                runtime.deliver(found, reader.result, reader.error)
            now = services.store.header(header.run_id)
            if _end_of(now) == _end_of(found):
                return
    except Exception as error:  # noqa: BLE001  (a result backend may raise anything)
        text = "the result backend may have an old result of run %s: %r"
        log.warning(text, header.run_id, error, extra=log_context(header))


def _end_of(header: RunHeader | None) -> tuple[int, int] | None:
    return None if header is None or not header.final else (header.created_at, header.settle_count)


def show_end(services: Services, runtime: Runtime, header: RunHeader, graph: Graph | None) -> None:
    """Show the end of a run in monitors. Never raises."""
    reader = Reader(services.store, header, graph)
    try:
        runtime.on_end(header, reader.result, reader.error)
    except Exception:  # the run has ended all the same
        log.exception("the end of run %s is not shown in monitors", header.run_id, extra=log_context(header))


# --- what a hook gets -------------------------------------------------------------------------------------------------


def run_info(owner: Any, reader: Reader, context: dict[str, Any]) -> RunInfo:
    """Make the argument of a hook of a run that has settled."""
    header = reader.header
    read: dict[str, Callable[[], Any]] = {
        name: getattr(reader, name) for name in ("result", "error", "steps", "state", "input", "execution_path")
    }
    return RunInfo(RunStatus(header.status), header, context, RunLogger(log_context(header)), owner, read)


def started_info(
    owner: Any, workflow: Workflow, header: RunHeader, given: Any, state: Any, context: dict[str, Any]
) -> RunInfo:
    """Make the argument of `on_start`."""
    # Of the given values, because nothing is stored yet.
    begun = replace(header, workflow_id=workflow.id)
    read: dict[str, Callable[[], Any]] = {"state": lambda: state, "input": lambda: given}
    return RunInfo(RunStatus.PENDING, begun, context, RunLogger(log_context(header)), owner, read)
