"""The statuses that are computed when somebody looks: of blocks, and of what an ended run has left open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property

from orchestrator.core.graph import Graph, Parallel, Path
from orchestrator.core.records import ENDED, FINAL, Header, Record, RunState, Status
from orchestrator.engine.read.results import StepStatus

_BAD = frozenset({RunState.FAILED, RunState.TRIPWIRE})
_AT_WORK = frozenset({Status.QUEUED, Status.RUNNING, Status.RETRYING, Status.SLEEPING})


class FinalStatus:
    """Statuses of the records of one run, as readers see them. `graph` is None where the workflow is not known."""

    # A block does not store what its children are at: each of them would have to write it at each step, and all of
    # them would meet at that one record. It counts who is unfinished, and the rest is computed here.

    def __init__(self, header: Header, graph: Graph | None, records: Mapping[Path, Record]) -> None:
        self._header = header
        self._graph = graph
        self._records = records

    def with_final_status(self, record: Record) -> Record:
        """The record; one that was open when its run ended, with what it came to by that.

        A run that fails, or that a step bails out of, does not wait for what is held beside that step: the blocks and
        nested workflows around it are left open. They have failed as it has, or succeeded with what it has bailed with.
        """
        if record.status != Status.OPEN or self._header.status not in FINAL:
            return record
        cause = self._final_causes.get(record.at)
        if cause is None:
            return record
        end = self._header.ended_at or cause.ended_at
        record = replace(record, status=cause.status, ended_at=end)
        return replace(record, output=cause.output, error=cause.error, tripwire=cause.tripwire)

    def step_status(self, record: Record) -> StepStatus:
        """The record's status as a reader sees it.

        Computed for what has children, canceled for what an ended run left.
        """
        record = self.with_final_status(record)
        if record.status in ENDED:
            return StepStatus(record.status)
        if self._header.status in FINAL:
            return StepStatus.CANCELED
        match record.status:
            case Status.SLEEPING | Status.WAITING:
                return StepStatus.WAITING
            case Status.OPEN:
                return self._open_status(record)
            case status:
                return StepStatus(status)

    def _open_status(self, record: Record) -> StepStatus:
        depth = len(record.at)
        below = {
            found.status for path, found in self._records.items() if path[:depth] == record.at and path != record.at
        }
        if below & _AT_WORK:
            return StepStatus.RUNNING
        if below & {Status.SUSPENDED, Status.WAITING}:
            return StepStatus.SUSPENDED
        return StepStatus.PAUSED if Status.PAUSED in below else StepStatus.RUNNING

    @cached_property
    def _final_causes(self) -> dict[Path, Record]:
        """The record that has ended each open one of an ended run, by the path of the open one."""
        return dict(self._pairs())

    def _pairs(self) -> Iterator[tuple[Path, Record]]:
        # Of several causes the one whose error the run has is told, else the earliest. It is given last, so that the
        # dict keeps it.
        rank = {cause.at: (cause.error != self._header.error, cause.ended_at, cause.at) for cause in self._causes()}
        for at in sorted(rank, key=rank.__getitem__, reverse=True):
            cause = self._records[at]
            for cut in range(len(cause.at) - 1, 0, -1):
                above = self._records.get(cause.at[:cut])
                if above is None or above.status != Status.OPEN or self._tolerates(above, cause):
                    break
                yield above.at, cause

    def _causes(self) -> list[Record]:
        header, found = self._header, self._records.values()
        if header.status in _BAD:
            failed = [record for record in found if record.status == Status.FAILED]
            # Without the graph nobody knows which block tolerates failures: only the run's own error is certain.
            return [record for record in failed if self._graph is not None or record.error == header.error]
        bailed = header.output if header.status == RunState.SUCCESS and header.closed else None
        return [record for record in found if record.status == Status.SUCCESS and record.output == bailed]

    def _tolerates(self, above: Record, cause: Record) -> bool:
        node = self._graph.node(above.at) if self._graph is not None else None
        return cause.status == Status.FAILED and isinstance(node, Parallel) and node.allow_failure
