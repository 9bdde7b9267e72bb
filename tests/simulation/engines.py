"""The real engine around a run that a test plays by hand: what it does for callers, without broker and user code."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from orchestrator.core.records import Header
from orchestrator.errors import BrokerUnavailable
from tests.simulation import acts
from tests.simulation.play import Play

Publish = Callable[[Header, Any], None]


def nobody_hears(header: Header, dispatches: Any) -> None:
    """The broker is away."""
    raise BrokerUnavailable("the broker is away", run_id=header.run_id)


def engine_of(play: Play, publish: Publish = nobody_hears, store: Any = None) -> Any:
    """As much of an engine as starting, resuming, canceling, restarting and traveling ask for."""
    limits = {"lease": acts.LEASE, "grace": acts.GRACE, "max_payload_bytes": 1 << 20, "namespace": acts.NAMESPACE}
    hooks = {"discard_result": lambda run_id: None, "on_end": lambda *about: None}
    runtime = SimpleNamespace(name="celery", is_shared=True, publish=publish, **hooks)
    return SimpleNamespace(
        store=store or play.store,
        settings=SimpleNamespace(**limits),
        registry=SimpleNamespace(get=lambda workflow_id: workflow_of(play)),
        known_graph=lambda header: play.graph,
        contexts=SimpleNamespace(written=lambda context: {}),
        runtime=runtime,
        keeper=SimpleNamespace(abort=lambda run_id: None),
        owner=None,
    )


def workflow_of(play: Play) -> Any:
    """A workflow without hooks and types."""
    hooks = {"on_start": None, "on_finish": None, "on_error": None}
    return SimpleNamespace(compiled=play.graph, id="workflow", validate_inputs=False, state=None, input=None, **hooks)
