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
    """One attempt, as observers see it."""

    # the run, as the claim has left it
    header: RunHeader
    # the activation, as the claim has left it
    activation: Activation
    # the id of the innermost workflow
    workflow_id: str
    # the graph of the run
    graph: Graph
    # reads activations of the run as they are at present
    load: Callable[[list[str]], list[Activation]]
    # reads a value of the run by its id, in plain shapes
    read_value: Callable[[str], Any]


class AttemptObserver(Protocol):
    """Observes one attempt from its claim on. None of its faults may fail the run."""

    # Observers do the work themselves, inside of what they measure, and one observer may wrap another.

    def run(self, work: Callable[[], StepOutcome]) -> StepOutcome:
        """Do the work of the attempt, inside its span."""
        ...

    def condition(self, call: Callable[[], Any], index: int | None = None) -> Any:
        """Evaluate one condition; `index` is that of the arm in a branch."""
        ...

    def on_failure(self, error: BaseException) -> None:
        """Note that the attempt has failed with this error; another may follow."""
        ...

    # The next worker makes its spans below those of this attempt, and learns their ids from the store.
    def add_traces(self, ops: Sequence[Op]) -> Sequence[Op]:
        """Return the operations that are about to be committed, with the span ids that are stored beside them."""
        ...

    def on_committed(self, answer: Committed) -> None:
        """Note that the commit was accepted."""
        ...


class CallObserver(Protocol):
    """Observes one request of a caller."""

    def add_traces(self, ops: Sequence[Op]) -> Sequence[Op]:
        """Return the operations that are about to be committed, with the span ids that are stored beside them."""
        ...


class NullObserver:
    """The observer of a process without an SDK: it does the work and nothing else."""

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
