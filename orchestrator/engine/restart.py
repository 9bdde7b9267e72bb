"""Restart: whatever a run was doing begins again, after its workers were lost."""

from __future__ import annotations

from orchestrator.engine.client_ops import add_trace, graph_of, request
from orchestrator.engine.executor import Executor
from orchestrator.engine.observe import observer
from orchestrator.errors import RestartAlreadyClaimed, RunNotActive
from orchestrator.host import new_token
from orchestrator.rules import commands
from orchestrator.rules.model import FINAL, RunHeader, StoredStatus


def restart(executor: Executor, header: RunHeader) -> RunHeader:
    """Start again whatever a run was doing. The caller vouches that its workers are dead: their claims are taken away.

    Finished steps stay; unfinished ones run again with their recorded input. An ended run is left as it is. Raises
    `RunNotActive` for one that was never started or is suspended, `RestartAlreadyClaimed` where another call was first.
    """
    about = {"run_id": header.run_id, "workflow_id": header.workflow_id}
    if header.status in FINAL:
        return header
    if header.status != StoredStatus.RUNNING:
        text = f"run {header.run_id!r} is {header.status}: only an active run can be restarted"
        raise RunNotActive(text, actual_status=header.status, **about)
    graph_of(executor, header)
    with observer.observe_call("restart", header) as observed:
        # All activations are read, though few are live: a restart is rare, and an index of the live ones would cost every
        # commit.
        activations = executor.store.load(header.run_id)
        limits = executor.settings.limits
        change = commands.restart(header, activations, executor.store.now(), new_token(), limits)
        return request(executor, header, add_trace(observed, change), lambda answer: _refusal(header))


def _refusal(header: RunHeader) -> Exception:
    text = f"run {header.run_id!r} moves: somebody else has restarted it, or it lives"
    return RestartAlreadyClaimed(text, run_id=header.run_id, workflow_id=header.workflow_id)
