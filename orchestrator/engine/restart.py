"""Restart: a run whose workers are known to be dead goes on, without waiting for their leases."""

from __future__ import annotations

from orchestrator.engine.executor import Executor
from orchestrator.engine.observe import observer
from orchestrator.engine.requests import add_trace, adopt, arm_adopted, graph_of, request, require_secrets
from orchestrator.errors import RestartAlreadyClaimed, RunNotActive
from orchestrator.host import new_token
from orchestrator.rules import commands
from orchestrator.rules.model import RunHeader, StoredStatus


def restart(executor: Executor, header: RunHeader) -> RunHeader:
    """Put the unfinished steps of a run back into the queue. An ended run stays as it is, but for unfinished reports.

    The caller vouches that the run's workers are dead: their leases are taken away. Raises `RunNotActive` for a run
    that was never started or is suspended, `RestartAlreadyClaimed` where another call was first.
    """
    names = {"run_id": header.run_id, "workflow_id": header.workflow_id}
    if not header.final and header.status != StoredStatus.RUNNING:
        text = f"run {header.run_id!r} is {header.status}: only an active run can be restarted"
        raise RunNotActive(text, actual_status=header.status, **names)
    # Nothing of the graph is needed here. But without the workflow no worker of this application would go on.
    if not header.final:
        graph_of(executor, header)
    require_secrets(executor, header)
    with observer.observe_call("restart", header) as observed:
        # All activations are read, though few are live: a restart is rare, and an index of the live ones would cost
        # time in every commit.
        activations = executor.store.load(header.run_id)
        if header.final and not commands.select_unfinished(header, activations):
            return header
        limits = executor.settings.limits
        # By the store's clock, as the deadlines of sleeps: those keep their moments over the restart.
        change = commands.restart(header, activations, executor.store.now(), new_token(), limits)
        # All that was going on begins again here, so no worker keeps any of it.
        change = add_trace(observed, adopt(executor, header, change, takes_all=True))
        changed = request(executor, header, change, lambda answer: _refusal(header))
        arm_adopted(executor, header)
        return changed


def _refusal(header: RunHeader) -> Exception:
    text = f"run {header.run_id!r} has gone on: another caller has restarted it, or its workers live"
    return RestartAlreadyClaimed(text, run_id=header.run_id, workflow_id=header.workflow_id)
