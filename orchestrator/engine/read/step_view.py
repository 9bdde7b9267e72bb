"""A record as the step result that callers see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.codec import ANY
from orchestrator.core.graph import Graph, Path
from orchestrator.core.records import ENDED, HELD, LIVE, Record, Status, dotted
from orchestrator.definitions.bodies import shape_made
from orchestrator.engine.declarations import input_shape
from orchestrator.engine.read.final_status import FinalStatus
from orchestrator.engine.read.names import Names
from orchestrator.engine.read.results import StepResult, moment
from orchestrator.engine.read.value_reader import Values


def payload_dict(payload: Any) -> dict[str, Any]:
    """A suspend payload as a dict, whatever it is: one that has no keys of its own is the `value`."""
    if payload is None:
        return {}
    return payload if isinstance(payload, dict) else {"value": payload}


class StepView:
    """Shows the records of one run as step results, with values as their declared types where `graph` is known."""

    def __init__(
        self,
        run_id: str,
        graph: Graph | None,
        records: Mapping[Path, Record],
        names: Names,
        final: FinalStatus,
        values: Values,
    ) -> None:
        self._run_id = run_id
        self._graph = graph
        self._records = records
        self._names = names
        self._final = final
        self._values = values

    def results(self, records: Iterable[Record]) -> dict[str, StepResult]:
        """Step results of these records by their names."""
        shown = [self._final.with_final_status(record) for record in records]
        # All at once: one by one, each value would be a round trip.
        self._values.fetch(
            key
            for record in shown
            for key in (record.input, record.output, record.error, record.suspend, record.resume)
        )
        return {self._names.dotted_name(record): self._result(record) for record in shown}

    def _result(self, record: Record) -> StepResult:
        given = input_shape(self._graph, record.at) if self._graph and record.path else ANY
        made = shape_made(self._graph.node(record.at)) if self._graph and record.path else ANY
        ended = record.status in ENDED
        error = self._values.plain(record.error) if record.error else None
        # A wait that is open has run into its timeout: its own suspension is the one to show.
        shown = self._leaf(record) if record.status == Status.OPEN and not record.suspended_at else record
        return StepResult(
            status=self._final.step_status(record),
            payload=self._values.as_type(record.input, given),
            output=self._values.as_type(record.output, made) if record.status == Status.SUCCESS else None,
            error=error if isinstance(error, BaseException) else None,
            started_at=moment(record.started_at),
            ended_at=moment(record.ended_at) if ended else None,
            suspend_payload=self._suspend_payload(record, shown),
            suspended_at=moment(shown.suspended_at),
            resume_payload=self._values.plain(shown.resume) if shown.resume else None,
            resumed_at=moment(shown.resumed_at if shown.resume else record.resumed_at),
            metadata={"parked": record.parked} if record.parked else None,
        )

    def _leaf(self, record: Record) -> Record:
        """The record below whose suspension an open one shows.

        The first that waits, else the first that was resumed and runs, else the open one itself.
        """
        # A block has no suspension of its own, but its reader asks one thing: for what, and whom, does it wait?
        below = self._find_below(record)
        held = [found for found in below if found.status in HELD and found.status != Status.PAUSED]
        resumed = [found for found in below if found.status in LIVE and found.resumed]
        return (held or resumed or [record])[0]

    def _suspend_payload(self, record: Record, leaf: Record) -> dict[str, Any] | None:
        # A wait suspends without a payload, and is shown all the same: somebody is waited for.
        if not leaf.suspend and (leaf is record or leaf.status != Status.WAITING):
            return None
        payload = payload_dict(self._values.plain(leaf.suspend))
        if leaf is record:
            return payload
        # The payload is the leaf's, so its reader is told where that stands: enough to resume it from here.
        meta: dict[str, Any] = {"path": self._names.step_ids(leaf)[len(self._names.step_ids(record)) :]}
        nested = [cut for cut in self._names.scope_lengths(leaf) if cut >= len(record.at)]
        if nested:
            meta["run_id"] = f"{self._run_id}/{dotted(leaf.at[: min(nested)])}"
        index = self._names.item_index(leaf)
        if index >= 0:
            meta["foreach_index"] = index
        if record.component == "FOREACH":
            meta["foreach_output"] = self._items(record)
        return {**payload, "__workflow_meta": meta}

    def _items(self, foreach: Record) -> list[dict[str, Any] | None]:
        """The items of a foreach as they are by now, in item order; None for one that has not been started."""
        # Items alone, and not what stands below them: an item may be a block.
        depth = len(foreach.at) + 1
        items = {found.index: found for found in self._find_below(foreach) if len(found.at) == depth}
        leaves = {index: self._leaf(item) for index, item in items.items()}
        self._values.fetch(key for item in (*items.values(), *leaves.values()) for key in (item.output, item.suspend))
        return [self._item(items[index], leaves[index]) if index in items else None for index in range(foreach.next)]

    def _item(self, item: Record, leaf: Record) -> dict[str, Any]:
        shown: dict[str, Any] = {"status": str(self._final.step_status(item))}
        if item.status == Status.SUCCESS:
            return shown | {"output": self._values.plain(item.output)}
        payload = self._suspend_payload(item, leaf)
        return shown if payload is None else shown | {"suspend_payload": payload}

    def _find_below(self, record: Record) -> list[Record]:
        depth = len(record.at)
        return [found for path, found in sorted(self._records.items()) if path[:depth] == record.at]
