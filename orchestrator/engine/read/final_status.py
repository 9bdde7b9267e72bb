"""The statuses that are computed when a run is read: of blocks, and of activations that an ended run has left open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property

from orchestrator.engine.read.results import StepStatus
from orchestrator.engine.read.tree import Tree
from orchestrator.rules.graph import Graph, Parallel, Path
from orchestrator.rules.model import ENDED, FINAL, Activation, ActivationStatus, RunHeader, StoredStatus

_BAD = frozenset({StoredStatus.FAILED, StoredStatus.TRIPWIRE})
_AT_WORK = frozenset(
    {ActivationStatus.QUEUED, ActivationStatus.RUNNING, ActivationStatus.RETRYING, ActivationStatus.SLEEPING}
)


class FinalStatus:
    """Statuses of the activations of one run, as readers see them. `graph` is None where the workflow is not known."""

    # A block does not store how far its children are. All of them would have to write it, at each of their steps, to
    # the same activation. The block counts its unfinished children, and everything else is computed here.

    def __init__(
        self, header: RunHeader, graph: Graph | None, activations: Mapping[Path, Activation], tree: Tree
    ) -> None:
        self._header = header
        self._graph = graph
        self._activations = activations
        self._tree = tree

    def with_final_status(self, activation: Activation) -> Activation:
        """Return the activation. One that was open when its run ended gets the end that this was for it."""
        # A run that fails, or that a step ends with `bail`, does not wait for suspended steps beside that step: the
        # blocks and nested workflows around are left open. They have failed like the step, or succeeded with its value.
        if activation.status != ActivationStatus.OPEN or self._header.status not in FINAL:
            return activation
        cause = self._final_causes.get(activation.at)
        if cause is None:
            return activation
        end = self._header.ended_at or cause.ended_at
        activation = replace(activation, status=cause.status, ended_at=end)
        return replace(activation, output=cause.output, error=cause.error, tripwire=cause.tripwire)

    def step_status(self, activation: Activation) -> StepStatus:
        """Return the activation's status as a reader sees it: computed for blocks, canceled where the run has ended."""
        activation = self.with_final_status(activation)
        if activation.status in ENDED:
            return StepStatus(activation.status)
        # The end of a run is one write to its header, so unfinished activations still have their last status.
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
        below = {found.status for found in self._tree.find_below(activation.at)}
        # In the order in which a run settles: a block at work is running, whatever else waits in it.
        if below & _AT_WORK:
            return StepStatus.RUNNING
        if below & {ActivationStatus.SUSPENDED, ActivationStatus.WAITING}:
            return StepStatus.SUSPENDED
        return StepStatus.PAUSED if ActivationStatus.PAUSED in below else StepStatus.RUNNING

    @cached_property
    def _final_causes(self) -> dict[Path, Activation]:
        """The activation that has ended each open activation of an ended run, by the path of the open one."""
        return dict(self._pairs())

    def _pairs(self) -> Iterator[tuple[Path, Activation]]:
        # Of several causes the one whose error the run has is shown, else the earliest. It comes last, so that the dict
        # keeps it.
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
            # Some blocks tolerate failures, which only the graph knows. Without it the run's own error is the only one
            # that is certain.
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
