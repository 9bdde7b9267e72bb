"""A run that a test plays by hand, one act at a time: the verbs of the named histories."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

from orchestrator.rules.change import Change, Claimed, ClaimRequest, Committed, Dispatch, Refused
from orchestrator.rules.graph import Graph
from orchestrator.rules.model import Activation, ActivationStatus, RunHeader
from orchestrator.rules.timers import on_deadline
from orchestrator.stores.memory import MemoryStore
from orchestrator.testing import VirtualClock
from tests.simulation import acts
from tests.simulation.acts import RUN


class Play:
    """One run. Dispatches are noted in `told`; nothing is delivered unless the test says so."""

    def __init__(self, graph: Graph, *, started: bool = True, per_step: bool = False, keep: int = 0) -> None:
        self.graph, self.clock = graph, VirtualClock()
        self.keep = keep  # finished iterations of a loop whose values stay; 0: all
        self.store = MemoryStore(self.clock)
        self.told: list[Dispatch] = []
        self._tokens = count()
        header = self.store.create(acts.new_header())
        if started:
            self.send(acts.start_change(graph, replace(header, per_step=per_step), self.fresh))

    def fresh(self) -> str:
        return f"t{next(self._tokens)}"

    @property
    def header(self) -> RunHeader:
        header = self.store.header(RUN)
        assert header is not None
        return header

    def activation(self, path: str) -> Activation:
        (activation,) = self.store.load(RUN, [path])
        return activation

    def status(self, *paths: str) -> list[str]:
        return [self.activation(path).status for path in paths]

    # Workers

    def ask(self, path: str, seq: int | None = None) -> ClaimRequest:
        return ClaimRequest(RUN, path, self.activation(path).seq if seq is None else seq, self.fresh(), acts.LEASE)

    def claim(self, path: str, seq: int | None = None) -> Claimed:
        answer = self.store.claim(self.ask(path, seq))
        assert isinstance(answer, Claimed), answer
        return answer

    def refused(self, path: str, seq: int | None = None) -> str:
        answer = self.store.claim(self.ask(path, seq))
        assert isinstance(answer, Refused)
        return answer.reason

    def outcome(self, claimed: Claimed) -> Change:
        """The commit of what came of the claim, not sent yet."""
        return acts.changes(self.graph, self.store, claimed, self.fresh, keep=self.keep)[-1]

    def send(self, change: Change) -> Committed | Refused:
        answer = self.store.commit(RUN, change)
        if isinstance(answer, Committed):
            self.told.extend(answer.dispatches)
        return answer

    def end(self, claimed: Claimed) -> Claimed | None:
        """Commit the claim's outcome; returns what that claims in turn."""
        answer = self.send(self.outcome(claimed))
        assert isinstance(answer, Committed), answer
        return answer.claimed

    def run(self, path: str) -> Claimed | None:
        """Claim, and commit."""
        return self.end(self.claim(path))

    def through(self) -> RunHeader:
        """No further faults: whatever is live is run, until the run settles."""
        while self.header.status == "running":
            live = [r for r in self.store.load(RUN) if r.status == ActivationStatus.QUEUED]
            if live:
                self.go_on(self.claim(live[0].path))
            else:
                self.pass_time()
                self.tick()
        return self.header

    def go_on(self, claimed: Claimed | None) -> None:
        """Commit, and go on with what was claimed, as far as it goes."""
        while claimed is not None:
            claimed = self.end(claimed)

    # Others

    def resume(self, path: str) -> Committed | Refused:
        return self.send(acts.resume_change(self.header, self.activation(path), self.fresh))

    def pass_time(self) -> None:
        """Until the next moment of something."""
        moments = [activation.deadline for activation in self.store.load(RUN) if activation.deadline]
        self.clock.advance(max(0, min(moments) - self.clock.now()) / 1000)

    def tick(self) -> list[str]:
        """One sweep; returns the paths that are published again."""
        told: list[Dispatch] = []
        for due in self.store.due_timers(acts.NAMESPACE):
            todo = on_deadline(due.header, due.activation, acts.REDELIVERY_DELAY)
            answer = self.store.commit(RUN, todo.change) if todo else None
            if todo and isinstance(answer, Committed):
                told += (*answer.dispatches, *todo.again)
        self.told += told
        return [dispatch.path for dispatch in told]

    def lease_ends(self, claimed: Claimed) -> None:
        """Time passes until the claim's lease is over, and the scheduler takes it away."""
        self.clock.advance(acts.LEASE / 1000)
        self.tick()
        assert self.activation(claimed.activation.path).lease_token != claimed.activation.lease_token
