"""Protocols of observers, the values that they get, and the observer that does nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from orchestrator.engine.outcome import StepOutcome
from orchestrator.rules.change import Committed, Op
from orchestrator.rules.graph import Graph
from orchestrator.rules.model import Activation, RunHeader


@dataclass(frozen=True, slots=True)
class ObservedAttempt:
    """One claim, as observers see it."""

    # the run and the activation, as the claim has left them
    header: RunHeader
    activation: Activation
    # of the innermost workflow
    workflow_id: str
    graph: Graph
    # read activations of the run as they are by now
    load: Callable[[list[str]], list[Activation]]
    # reads a value of the run by its id, in plain shapes
    read_value: Callable[[str], Any]


class AttemptObserver(Protocol):
    """Observes one claim from the moment it is held. Nothing that it does may become a fault of the run."""

    def run(self, work: Callable[[], StepOutcome]) -> StepOutcome:
        """Do the activation's work, with what observes it as the current span."""
        ...

    def condition(self, call: Callable[[], Any], index: int | None = None) -> Any:
        """Evaluate one condition, of a branch its arm's `index`."""
        ...

    def on_failure(self, error: BaseException) -> None:
        """Note that the attempt has failed with this error; another may follow."""
        ...

    def add_traces(self, ops: Sequence[Op]) -> Sequence[Op]:
        """Return what is about to be committed, and with it whatever has to be stored for those who go on."""
        ...

    def on_committed(self, answer: Committed) -> None:
        """Note that the commit was accepted."""
        ...


class CallObserver(Protocol):
    """Observes what a caller does to a run."""

    def add_traces(self, ops: Sequence[Op]) -> Sequence[Op]:
        """Return what is about to be committed, and with it whatever has to be stored for those who go on."""
        ...


class NullObserver:
    """The observer where nobody listens: it does the work and nothing else."""

    __slots__ = ()

    def run(self, work: Callable[[], StepOutcome]) -> StepOutcome:
        """Do the work."""
        return work()

    def condition(self, call: Callable[[], Any], index: int | None = None) -> Any:
        """Evaluate the condition."""
        return call()

    def on_failure(self, error: BaseException) -> None:
        """Do nothing."""

    def add_traces(self, ops: Sequence[Op]) -> Sequence[Op]:
        """Return the operations as they are."""
        return ops

    def on_committed(self, answer: Committed) -> None:
        """Do nothing."""


NULL_OBSERVER = NullObserver()
