"""Activations as the step results that callers see."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from orchestrator.codec import ANY
from orchestrator.definitions.bodies import shape_made
from orchestrator.engine.declarations import input_shape
from orchestrator.engine.read.final_status import FinalStatus
from orchestrator.engine.read.names import Names
from orchestrator.engine.read.results import StepResult, moment
from orchestrator.engine.read.tree import Tree
from orchestrator.engine.read.value_reader import Values
from orchestrator.rules.graph import Graph
from orchestrator.rules.model import AWAITING, ENDED, LIVE, Activation, ActivationStatus, format_path


def payload_dict(payload: Any) -> dict[str, Any]:
    """Return a suspend payload as a dict; one that is no dict becomes its `value`."""
    # Callers read payloads by key, and the engine adds `__workflow_meta` to those of blocks.
    if payload is None:
        return {}
    return payload if isinstance(payload, dict) else {"value": payload}


class StepView:
    """Shows the activations of one run as step results, with values as their declared types where `graph` is known."""

    def __init__(
        self,
        run_id: str,
        graph: Graph | None,
        tree: Tree,
        names: Names,
        final: FinalStatus,
        values: Values,
    ) -> None:
        self._run_id = run_id
        self._graph = graph
        self._tree = tree
        self._names = names
        self._final = final
        self._values = values

    def results(self, activations: Iterable[Activation]) -> dict[str, StepResult]:
        """Return the step results of these activations by their names."""
        shown = [self._final.with_final_status(activation) for activation in activations]
        # All values at once: one by one, each would be a round trip.
        self._values.fetch(key for activation in shown for key in self._values_of(activation))
        return {self._names.dotted_name(activation): self._result(activation) for activation in shown}

    def _values_of(self, activation: Activation) -> Iterator[str]:
        """Give the ids of the values that the result of an activation shows."""
        yield from (activation.input, activation.output, activation.error, activation.suspend, activation.resume)
        if activation.status == ActivationStatus.OPEN:
            # Its suspension is that of a step inside, and a foreach that waits shows all of its items.
            leaf = self._leaf(activation)
            yield from (leaf.suspend, leaf.resume)
            if activation.component == "FOREACH" and leaf is not activation:
                for item in self._items_of(activation).values():
                    yield from (item.output, self._leaf(item).suspend)

    def _result(self, activation: Activation) -> StepResult:
        given = input_shape(self._graph, activation.at) if self._graph and activation.path else ANY
        made = shape_made(self._graph.node(activation.at)) if self._graph and activation.path else ANY
        ended = activation.status in ENDED
        error = self._values.plain(activation.error) if activation.error else None
        # A wait that is open has timed out: its own suspension is the one to show.
        shown = (
            self._leaf(activation)
            if activation.status == ActivationStatus.OPEN and not activation.suspended_at
            else activation
        )
        return StepResult(
            status=self._final.step_status(activation),
            payload=self._values.as_type(activation.input, given),
            output=self._values.as_type(activation.output, made)
            if activation.status == ActivationStatus.SUCCESS
            else None,
            error=error if isinstance(error, BaseException) else None,
            started_at=moment(activation.started_at),
            ended_at=moment(activation.ended_at) if ended else None,
            suspend_payload=self._suspend_payload(activation, shown),
            suspended_at=moment(shown.suspended_at),
            resume_payload=self._values.plain(shown.resume) if shown.resume else None,
            resumed_at=moment(shown.resumed_at if shown.resume else activation.resumed_at),
            metadata={"parked": activation.parked} if activation.parked else None,
        )

    def _leaf(self, activation: Activation) -> Activation:
        """Return the activation inside an open block whose suspension the block shows.

        It is the first that is suspended, else the first that was resumed and runs, else the block itself.
        """
        # A block has no suspension of its own, but its reader wants to know what it waits for.
        below = (activation, *self._tree.find_below(activation.at))
        awaiting = [found for found in below if found.status in AWAITING and found.status != ActivationStatus.PAUSED]
        resumed = [found for found in below if found.status in LIVE and found.resumed]
        return (awaiting or resumed or [activation])[0]

    def _suspend_payload(self, activation: Activation, leaf: Activation) -> dict[str, Any] | None:
        # A wait for an event suspends without a payload, and is shown all the same.
        if not leaf.suspend and (leaf is activation or leaf.status != ActivationStatus.WAITING):
            return None
        payload = payload_dict(self._values.plain(leaf.suspend))
        if leaf is activation:
            return payload
        # The payload is that of a step inside, so the reader is told which: enough to resume that step.
        meta: dict[str, Any] = {"path": self._names.step_ids(leaf)[len(self._names.step_ids(activation)) :]}
        nested = [cut for cut in self._names.scope_lengths(leaf) if cut >= len(activation.at)]
        if nested:
            meta["run_id"] = f"{self._run_id}/{format_path(leaf.at[: min(nested)])}"
        index = self._names.item_index(leaf)
        if index >= 0:
            meta["foreach_index"] = index
        if activation.component == "FOREACH":
            meta["foreach_output"] = self._items(activation)
        return {**payload, "__workflow_meta": meta}

    def _items(self, foreach: Activation) -> list[dict[str, Any] | None]:
        """Return the items of a foreach as they are at present, in item order; None for one that has not begun."""
        items = self._items_of(foreach)
        return [
            self._item(items[index], self._leaf(items[index])) if index in items else None
            for index in range(foreach.next_item)
        ]

    def _items_of(self, foreach: Activation) -> dict[int, Activation]:
        # The items alone, without the activations inside them: an item may be a block.
        depth = len(foreach.at) + 1
        return {found.index: found for found in self._tree.find_below(foreach.at) if len(found.at) == depth}

    def _item(self, item: Activation, leaf: Activation) -> dict[str, Any]:
        shown: dict[str, Any] = {"status": str(self._final.step_status(item))}
        if item.status == ActivationStatus.SUCCESS:
            return shown | {"output": self._values.plain(item.output)}
        payload = self._suspend_payload(item, leaf)
        return shown if payload is None else shown | {"suspend_payload": payload}
