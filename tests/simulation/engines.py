"""The real engine around a run that a test plays by hand: what it does for callers, without broker and user code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from orchestrator.core.graph import Graph
from orchestrator.core.records import Header
from orchestrator.definitions import Workflow
from orchestrator.engine.contexts import Contexts
from orchestrator.engine.delivery import Engine
from orchestrator.engine.registry import Registry
from orchestrator.engine.services import Services
from orchestrator.engine.settings import Settings
from orchestrator.errors import BrokerUnavailable
from tests.simulation import acts
from tests.simulation.play import Play

Publish = Callable[[Header, Any], None]


class PlayedRuntime:
    """The runtime of a run that is played by hand: whoever plays it says what becomes of messages."""

    name = "celery"

    def __init__(self, publish: Publish) -> None:
        self.publish = publish

    def adopt(self, workflow: Any) -> None:
        """Nothing is made ready: no entry is called."""

    def forget(self, run_id: str) -> None:
        """There is no result outside the store."""

    def seen(self, header: Header) -> None:
        """Nobody watches."""

    def ended(self, header: Header, result: Callable[[], Any], error: Callable[[], BaseException | None]) -> None:
        """Nobody waits."""


class PlayedWorkflow(Workflow):
    """A workflow without hooks and types, whose graph is the one that is played."""

    def __init__(self, graph: Graph) -> None:
        super().__init__("workflow")
        self._played = replace(graph, fingerprint=acts.FINGERPRINT)

    def require_committed(self) -> None:
        """It is, as it has a graph."""

    @property
    def compiled(self) -> Graph:
        """The graph that is played, as the run was started with it."""
        return self._played


def nobody_hears(header: Header, dispatches: Any) -> None:
    """The broker is away."""
    raise BrokerUnavailable("the broker is away", run_id=header.run_id)


def engine_of(play: Play, publish: Publish = nobody_hears, store: Any = None) -> Engine:
    """An engine of the run's store, with the limits that the simulation has."""
    settings = Settings(lease_seconds=acts.LEASE / 1000, republish_seconds=acts.GRACE / 1000, namespace=acts.NAMESPACE)
    registry = Registry()
    registry.add(workflow_of(play))
    services = Services(store or play.store, settings, play.clock, Contexts(settings), None)
    return Engine(services, registry, PlayedRuntime(publish))


def workflow_of(play: Play) -> Workflow:
    """The workflow of the run."""
    return PlayedWorkflow(play.graph)
