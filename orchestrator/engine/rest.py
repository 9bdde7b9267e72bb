"""The rest activation: what a run in which nothing is live any more has come to, and who is told of it.

Hooks and delivery come first and may be repeated after a crash; the status is committed last, and once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator.core import flow
from orchestrator.core.plan import Plan
from orchestrator.core.records import FINAL, Header, RunState
from orchestrator.definitions import Workflow
from orchestrator.definitions.context import RunInfo
from orchestrator.engine.activity import Activity
from orchestrator.engine.calling import settled
from orchestrator.engine.logs import RunLogger, about
from orchestrator.engine.reader import Reader
from orchestrator.errors import StoreUnavailable

if TYPE_CHECKING:
    from orchestrator.engine.delivery import Engine

log = logging.getLogger("orchestrator")

_DELIVERIES = 3  # attempts to deliver a run's end before it ends without


def rest(activity: Activity) -> Plan:
    """Tell the hooks and the runtime what the run has come to, and say so in the plan."""
    state = flow.verdict(activity.header)
    workflow: Any = activity.graph.body
    reader = Reader(activity.store, as_it_will_be(activity.header, state), activity.graph)
    if workflow.on_finish is not None and state is not RunState.PAUSED:
        _tell(workflow.on_finish, activity.engine, reader, "on_finish", activity.claimed.context)
    if workflow.on_error is not None and state in (RunState.FAILED, RunState.TRIPWIRE):
        _tell(workflow.on_error, activity.engine, reader, "on_error", activity.claimed.context)
    if state in FINAL:
        _deliver(activity, reader)
    return flow.rested(activity.spot())


def _deliver(activity: Activity, reader: Reader) -> None:
    """Write the end where the runtime's users look for it. What cannot be delivered is tried again when the lease is
    over, and given up the third time: no run stays unfinished because a result backend is broken.
    """
    try:
        activity.engine.runtime.on_end(reader.header, reader.result, reader.error)
    except StoreUnavailable:
        raise
    except Exception:  # a result backend may raise anything
        if activity.record.lost + 1 < _DELIVERIES:
            raise
        text = "the result of run %s could not be delivered"
        log.exception(text, activity.header.run_id, extra=about(activity.header))


def as_it_will_be(header: Header, state: RunState) -> Header:
    """The header as the rest's commit will leave it."""
    return replace(header, status=state.value, error=header.error or header.failure)


def tell_of_cancel(engine: Engine, header: Header) -> None:
    """A caller has ended the run: what a rest does for other ends, done in the caller's process, once at most.

    A hook is called only where the workflow is known, and of a run that had begun. Whatever goes wrong is logged: the
    run is canceled already.
    """
    workflow = engine.registry.get(header.workflow_id)
    reader = Reader(engine.store, header, engine.known_graph(header))
    try:
        if workflow is not None and workflow.on_finish is not None and header.started_at:
            _tell(workflow.on_finish, engine, reader, "on_finish", engine.store.context(header.run_id))
        engine.runtime.on_end(header, reader.result, reader.error)
    except Exception:  # the run is canceled already; a backend may raise anything
        log.exception("run %s is canceled, and somebody could not be told", header.run_id, extra=about(header))


def _tell(
    hook: Callable[[RunInfo], Any], engine: Engine, reader: Reader, name: str, context: Mapping[str, str]
) -> None:
    header = reader.header
    try:
        settled(hook(run_info(engine.owner, reader, engine.contexts.read(context))))
    except Exception:  # a user's function
        log.exception("%s of run %s raised", name, header.run_id, extra=about(header))


def run_info(owner: Any, reader: Reader, context: dict[str, Any]) -> RunInfo:
    """What a hook is told."""
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
        logger=RunLogger(about(header)),
        orchestrator=owner,
        execution_path=result.execution_path,
    )


def started_info(
    owner: Any, workflow: Workflow, header: Header, given: Any, state: Any, context: dict[str, Any]
) -> RunInfo:
    """What `on_start` is told."""
    return RunInfo(
        status=RunState.PENDING.value,
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
        logger=RunLogger(about(header)),
        orchestrator=owner,
        execution_path=[],
    )
