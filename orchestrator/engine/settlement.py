"""The rest activation: it finds the status of a run in which nothing is live any more, and tells who has to know.

Hooks and delivery come first and may be repeated after a crash; the status is committed last, and once.
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

_MAX_DELIVERIES = 3  # attempts to deliver a run's end before it ends without


def settle(attempt: Attempt, runtime: Runtime) -> Plan:
    """Tell the hooks and the runtime the run's new status, and plan to record it."""
    state = flow.settled_status(attempt.header)
    workflow = definition_at(attempt.graph, ())
    # Hooks see the run as its callers will: as the commit that follows will leave it.
    reader = Reader(attempt.store, as_it_will_be(attempt.header, state), attempt.graph)
    # A run that pauses after a step goes on as soon as its caller says so: nothing has finished.
    if workflow.on_finish is not None and state is not StoredStatus.PAUSED:
        _tell(workflow.on_finish, attempt.services, reader, "on_finish", attempt.claimed.context)
    if workflow.on_error is not None and state in (StoredStatus.FAILED, StoredStatus.TRIPWIRE):
        _tell(workflow.on_error, attempt.services, reader, "on_error", attempt.claimed.context)
    # Told first and committed last. A crash in between tells it again, and a backend that has a result twice has it
    # once; the other way round, a crash would leave a run without one for ever.
    if state in FINAL:
        _deliver(attempt, reader, runtime)
    return flow.on_settled(attempt.spot())


def _deliver(attempt: Attempt, reader: Reader, runtime: Runtime) -> None:
    """Write the end where the runtime's users look for it. What cannot be delivered is tried again when the lease is
    over, and given up the third time: no run stays unfinished because a result backend is broken.
    """
    try:
        runtime.on_end(reader.header, reader.result, reader.error)
    except StoreUnavailable:
        raise
    except Exception:  # a result backend may raise anything
        # Raised, the claim ends without a commit: the next worker tries again when the lease is over, and counts it.
        if attempt.activation.abandoned_attempts + 1 < _MAX_DELIVERIES:
            raise
        text = "the result of run %s could not be delivered"
        log.exception(text, attempt.header.run_id, extra=log_context(attempt.header))


def as_it_will_be(header: RunHeader, state: StoredStatus) -> RunHeader:
    """The header as the rest's commit will leave it."""
    return replace(header, status=state.value, error=header.error or header.failure)


def report_cancel(
    services: Services, runtime: Runtime, header: RunHeader, workflow: Workflow | None, graph: Graph | None
) -> None:
    """Tell of a run that a caller has ended, in the caller's process and once at most; a rest tells of other ends.

    A hook is called only where the workflow is known, and of a run that had begun. Whatever goes wrong is logged: the
    run is canceled already.
    """
    reader = Reader(services.store, header, graph)
    try:
        # A workflow may be canceled by a process that does not know it, by a command for example.
        if workflow is not None and workflow.on_finish is not None and header.started_at:
            _tell(workflow.on_finish, services, reader, "on_finish", services.store.context(header.run_id))
        runtime.on_end(header, reader.result, reader.error)
    except Exception:  # the run is canceled already; a backend may raise anything
        log.exception("run %s is canceled, and somebody could not be told", header.run_id, extra=log_context(header))


def _tell(
    hook: Callable[[RunInfo], Any], services: Services, reader: Reader, name: str, context: Mapping[str, str]
) -> None:
    header = reader.header
    try:
        resolve_value(hook(run_info(services.owner, reader, services.contexts.read(context))))
    # It has no say in how its run ends: an error of a hook is logged, and the run's status stands.
    except BaseException as error:  # a user's function, which may also say `sys.exit()`
        services.signs.raise_if_dying(error)
        log.exception("%s of run %s raised", name, header.run_id, extra=log_context(header))


def run_info(owner: Any, reader: Reader, context: dict[str, Any]) -> RunInfo:
    """The argument of a hook of a run that rests."""
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
    """The argument of `on_start`."""
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
