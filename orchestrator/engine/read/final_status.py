"""The statuses that are computed when somebody looks: of blocks, and of what an ended run has left open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property

from orchestrator.engine.read.results import StepStatus
from orchestrator.rules.graph import Graph, Parallel, Path
from orchestrator.rules.model import ENDED, FINAL, Activation, ActivationStatus, RunHeader, StoredStatus

_BAD = frozenset({StoredStatus.FAILED, StoredStatus.TRIPWIRE})
_AT_WORK = frozenset(
    {ActivationStatus.QUEUED, ActivationStatus.RUNNING, ActivationStatus.RETRYING, ActivationStatus.SLEEPING}
)


class FinalStatus:
    """Statuses of the activations of one run, as readers see them. `graph` is None where the workflow is not known."""

    # A block does not store what its children are at: each of them would have to write it at each step, and all of
    # them would meet at that one activation. It counts who is unfinished, and the rest is computed here.

    def __init__(self, header: RunHeader, graph: Graph | None, activations: Mapping[Path, Activation]) -> None:
        self._header = header
        self._graph = graph
        self._activations = activations

    def with_final_status(self, activation: Activation) -> Activation:
        """The activation; one that was open when its run ended, with what it came to by that.

        A run that fails, or that a step bails out of, does not wait for what is held beside that step: the blocks and
        nested workflows around it are left open. They have failed as it has, or succeeded with what it has bailed with.
        """
        if activation.status != ActivationStatus.OPEN or self._header.status not in FINAL:
            return activation
        cause = self._final_causes.get(activation.at)
        if cause is None:
            return activation
        end = self._header.ended_at or cause.ended_at
        activation = replace(activation, status=cause.status, ended_at=end)
        return replace(activation, output=cause.output, error=cause.error, tripwire=cause.tripwire)

    def step_status(self, activation: Activation) -> StepStatus:
        """The activation's status as a reader sees it.

        Computed for what has children, canceled for what an ended run left.
        """
        activation = self.with_final_status(activation)
        if activation.status in ENDED:
            return StepStatus(activation.status)
        if self._header.status in FINAL:
            return StepStatus.CANCELED
        match activation.status:
            case ActivationStatus.SLEEPING | ActivationStatus.WAITING:
                return StepStatus.WAITING
            case ActivationStatus.OPEN:
                return self._open_status(activation)
            case status:
                return StepStatus(status)

    def _open_status(self, activation: Activation) -> StepStatus:
        depth = len(activation.at)
        below = {
            found.status
            for path, found in self._activations.items()
            if path[:depth] == activation.at and path != activation.at
        }
        if below & _AT_WORK:
            return StepStatus.RUNNING
        if below & {ActivationStatus.SUSPENDED, ActivationStatus.WAITING}:
            return StepStatus.SUSPENDED
        return StepStatus.PAUSED if ActivationStatus.PAUSED in below else StepStatus.RUNNING

    @cached_property
    def _final_causes(self) -> dict[Path, Activation]:
        """The activation that has ended each open one of an ended run, by the path of the open one."""
        return dict(self._pairs())

    def _pairs(self) -> Iterator[tuple[Path, Activation]]:
        # Of several causes the one whose error the run has is told, else the earliest. It is given last, so that the
        # dict keeps it.
        rank = {cause.at: (cause.error != self._header.error, cause.ended_at, cause.at) for cause in self._causes()}
        for at in sorted(rank, key=rank.__getitem__, reverse=True):
            cause = self._activations[at]
            for cut in range(len(cause.at) - 1, 0, -1):
                above = self._activations.get(cause.at[:cut])
                if above is None or above.status != ActivationStatus.OPEN or self._tolerates(above, cause):
                    break
                yield above.at, cause

    def _causes(self) -> list[Activation]:
        header, found = self._header, self._activations.values()
        if header.status in _BAD:
            failed = [activation for activation in found if activation.status == ActivationStatus.FAILED]
            # Without the graph nobody knows which block tolerates failures: only the run's own error is certain.
            return [activation for activation in failed if self._graph is not None or activation.error == header.error]
        bailed = header.output if header.status == StoredStatus.SUCCESS and header.closed else None
        return [
            activation
            for activation in found
            if activation.status == ActivationStatus.SUCCESS and activation.output == bailed
        ]

    def _tolerates(self, above: Activation, cause: Activation) -> bool:
        node = self._graph.node(above.at) if self._graph is not None else None
        return cause.status == ActivationStatus.FAILED and isinstance(node, Parallel) and node.allow_failure
