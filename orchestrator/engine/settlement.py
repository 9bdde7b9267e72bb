"""Settling: the status of a run in which nothing is live any more is decided, reported and committed.

The hooks are called and the result is delivered first, perhaps again after a crash. The status is committed last, and
once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from orchestrator.definitions import Workflow
from orchestrator.definitions.bodies import definition_at
from orchestrator.definitions.context import RunInfo
from orchestrator.engine.attempt import Attempt
from orchestrator.engine.calling import resolve_value
from orchestrator.engine.logs import RunLogger, log_context
from orchestrator.engine.read.run_reader import Reader
from orchestrator.engine.services import Services
from orchestrator.errors import StoreUnavailable
from orchestrator.ports import Runtime
from orchestrator.rules import flow
from orchestrator.rules.graph import Graph
from orchestrator.rules.model import FINAL, RunHeader, StoredStatus
from orchestrator.rules.plan import Plan

log = logging.getLogger("orchestrator")

_MAX_DELIVERIES = 3  # tries to deliver a run's end to the runtime; then the run ends without


def settle(attempt: Attempt, runtime: Runtime) -> Plan:
    """Call the hooks, report the end to the runtime, and plan to store the new status."""
    status = flow.settled_status(attempt.header)
    workflow = definition_at(attempt.graph, ())
    # Hooks see the run as callers will see it after the commit that follows.
    reader = Reader(attempt.store, with_settled_status(attempt.header, status), attempt.graph)
    # A run that is paused goes on when its caller resumes it: nothing has finished.
    if workflow.on_finish is not None and status is not StoredStatus.PAUSED:
        _call_hook(workflow.on_finish, attempt.services, reader, "on_finish", attempt.claimed.context)
    if workflow.on_error is not None and status in (StoredStatus.FAILED, StoredStatus.TRIPWIRE):
        _call_hook(workflow.on_error, attempt.services, reader, "on_error", attempt.claimed.context)
    # The result is delivered first and the status committed last. After a crash in between, the result is delivered
    # again, and a backend keeps it once. The other way round, a crash would leave an ended run without a result.
    if status in FINAL:
        _deliver_end(attempt, reader, runtime)
    return flow.on_settled(attempt.as_claimed_node())


def _deliver_end(attempt: Attempt, reader: Reader, runtime: Runtime) -> None:
    """Give the end of the run to the runtime, which writes it to a result backend, say."""
    try:
        runtime.on_end(reader.header, reader.result, reader.error)
    except StoreUnavailable:
        raise
    except Exception:  # a result backend may raise anything
        # The error abandons this attempt: another one delivers when the lease is over. After the third the run ends
        # without the delivery, so that no run stays unfinished because a result backend is broken.
        if attempt.activation.abandoned_attempts + 1 < _MAX_DELIVERIES:
            raise
        text = "the result of run %s could not be delivered"
        log.exception(text, attempt.header.run_id, extra=log_context(attempt.header))


def with_settled_status(header: RunHeader, status: StoredStatus) -> RunHeader:
    """Return the header as the commit that settles the run will leave it."""
    return replace(header, status=status.value, error=header.error or header.failure)


def report_cancel(
    services: Services, runtime: Runtime, header: RunHeader, workflow: Workflow | None, graph: Graph | None
) -> None:
    """Call the hook of a run that a caller has canceled, and report its end to the runtime; at most once.

    The hook is called only where the workflow is known here, and for a run that had begun. Errors are logged.
    """
    # In the caller's process: a canceled run has no settling, so no worker reports its end.
    reader = Reader(services.store, header, graph)
    try:
        # A process may cancel a run whose workflow it does not know: the command line can.
        if workflow is not None and workflow.on_finish is not None and header.started_at:
            _call_hook(workflow.on_finish, services, reader, "on_finish", services.store.context(header.run_id))
        runtime.on_end(header, reader.result, reader.error)
    except Exception:  # the run is canceled already; a backend may raise anything
        log.exception("run %s is canceled, but its end could not be reported", header.run_id, extra=log_context(header))


def _call_hook(
    hook: Callable[[RunInfo], Any], services: Services, reader: Reader, name: str, context: Mapping[str, str]
) -> None:
    header = reader.header
    try:
        resolve_value(hook(run_info(services.owner, reader, services.contexts.read(header.run_id, context))))
    # A hook does not decide how its run ends: its error is logged, and the run's status stands.
    except BaseException as error:  # a user's function, which may also say `sys.exit()`
        services.signs.raise_if_dying(error)
        log.exception("%s of run %s raised", name, header.run_id, extra=log_context(header))


def run_info(owner: Any, reader: Reader, context: dict[str, Any]) -> RunInfo:
    """Make the argument of a hook of a run that has settled."""
    header, result = reader.header, reader.run_result()
    return RunInfo(
        status=str(result.status),
        result=result.result,
        error=result.error,
        steps=result.steps,
        tripwire=result.tripwire,
        state=result.state,
        run_id=header.run_id,
        workflow_id=header.workflow_id,
        resource_id=header.resource_id or None,
        init_data=result.input,
        request_context=context,
        logger=RunLogger(log_context(header)),
        orchestrator=owner,
        execution_path=result.execution_path,
    )


def started_info(
    owner: Any, workflow: Workflow, header: RunHeader, given: Any, state: Any, context: dict[str, Any]
) -> RunInfo:
    """Make the argument of `on_start`."""
    # Of the given values, because nothing is stored yet.
    return RunInfo(
        status=StoredStatus.PENDING.value,
        result=None,
        error=None,
        steps={},
        tripwire=None,
        state=state,
        run_id=header.run_id,
        workflow_id=workflow.id,
        resource_id=header.resource_id or None,
        init_data=given,
        request_context=context,
        logger=RunLogger(log_context(header)),
        orchestrator=owner,
        execution_path=[],
    )
