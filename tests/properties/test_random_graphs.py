"""Any workflow, whatever happens to its messages and workers, comes to what a simple interpreter says it comes to."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import count
from random import Random
from typing import Any

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from orchestrator.engine.read.value_reader import Values
from orchestrator.rules.change import Change, Claimed, ClaimRequest, Committed, Dispatch, Refused
from orchestrator.rules.graph import Branch, Foreach, Graph, Loop, Nested, Node, Parallel, Sleep, Step
from orchestrator.rules.model import AWAITING, ENDED, LIVE, ActivationStatus, StoredStatus
from orchestrator.rules.timers import on_deadline
from orchestrator.stores.memory import MemoryStore
from orchestrator.testing import VirtualClock
from tests.simulation import acts
from tests.simulation.acts import RUN, Act, Arms, Items, Times

# --- the reference --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Good:
    """Ended well with a value."""

    value: Any


@dataclass(frozen=True)
class Bad:
    """Ended badly with an error."""

    error: str


Outcome = Good | Bad


def interpret(node: Node, value: Any, index: int = -1) -> Outcome:
    """What becomes of a node, step by step, as its documentation says: no messages, no activations, no faults."""
    match node:
        case Step(body=Act() as act):
            bad = act.fails > node.retry.attempts or index in act.bad
            return Bad(acts.error_of(node.id, value)) if bad else Good(acts.output_of(node.id, value))
        case Sleep():
            return Good(value)
        case Nested(flow=flow):
            return in_sequence(flow, value)
        case Parallel(arms=arms):
            return together({named(arm): interpret(arm, value) for arm in arms}, node.allow_failure)
        case Branch(arms=arms, body=Arms(chosen=chosen)):
            return together({named(arms[n]): interpret(arms[n], value) for n in chosen}, False)
        case Loop(body_node=body, body=Times(count=times)):
            return in_sequence((body,) * times, value)
        case Foreach(body_node=body, body=Items(count=items)):
            ended = [interpret(body, acts.item_of(value, n), n) for n in range(items)]
            return first_error(ended) or Good([end.value for end in ended if isinstance(end, Good)])
        case _:
            raise AssertionError(node)


def named(arm: Node) -> str:
    """Under which name the output of an arm stands: a foreach goes by its body's."""
    return arm.body_node.id if isinstance(arm, Foreach) else arm.id


def in_sequence(flow: tuple[Node, ...], value: Any) -> Outcome:
    """One after the other, each with the output of the one before, until one fails."""
    for node in flow:
        match interpret(node, value):
            case Good(value=value):
                pass
            case Bad() as bad:
                return bad
    return Good(value)


def together(ended: dict[str, Outcome], allow_failure: bool) -> Outcome:
    """All of them, side by side."""
    if not allow_failure and (bad := first_error(ended.values())):
        return bad
    return Good({name: end.value if isinstance(end, Good) else None for name, end in ended.items()})


def first_error(ended: Any) -> Bad | None:
    """The first that ended badly, in the order in which they stand."""
    return next((end for end in ended if isinstance(end, Bad)), None)


# --- graphs ---------------------------------------------------------------------------------------------------

steps = st.builds(
    lambda fails, retries, suspends, inline, control: acts.step(
        "step", fails=fails, retries=retries, suspends=suspends, inline=inline, control=control
    ),
    st.sampled_from([0, 0, 0, 0, 0, 1, 2]),
    st.sampled_from([0, 1, 2]),
    st.sampled_from([0, 0, 0, 0, 1]),
    st.booleans(),
    st.sampled_from([False, False, False, True]),
)
item_steps = st.builds(
    lambda node, bad: replace(node, control=False, body=replace(node.body, bad=bad)),
    steps,
    st.sampled_from([frozenset(), frozenset(), frozenset({1}), frozenset({0, 2})]),
)
sleeps = st.builds(lambda seconds: acts.sleep("sleep", seconds), st.sampled_from([0.0, 1.0, None]))


def nesteds(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Nested]:
    """Nested workflows of these nodes."""
    flows = st.lists(inner, min_size=1, max_size=3)
    return st.builds(lambda flow, checks: acts.nested("nested", *flow, checks=checks), flows, st.booleans())


def blocks(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    """Every kind of block, of these nodes."""
    arms = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        nesteds(inner),
        st.builds(lambda arms, soft: acts.parallel("parallel", *arms, allow_failure=soft), arms, st.booleans()),
        arms.flatmap(
            lambda arms: st.builds(
                lambda chosen: acts.branch("branch", tuple(sorted(chosen)), *arms),
                st.sets(st.integers(0, len(arms) - 1)),
            )
        ),
        st.builds(
            lambda times, body, until: acts.loop("loop", times, body, until=until),
            st.integers(1, 3),
            inner,
            st.booleans(),
        ),
        st.builds(
            lambda items, width, body: acts.foreach("foreach", items, width, body),
            st.integers(0, 5),
            st.integers(1, 3),
            st.one_of(item_steps, nesteds(inner)),
        ),
    )


nodes = st.recursive(st.one_of(steps, steps, sleeps), blocks, max_leaves=8)


def numbered(node: Any, numbers: Any) -> Any:
    """The same node with ids of their own, for it and for all within."""
    own = {"id": f"{node.id}-{next(numbers)}"}
    match node:
        case Nested(flow=flow):
            return replace(node, **own, flow=tuple(numbered(inner, numbers) for inner in flow))
        case Parallel(arms=arms) | Branch(arms=arms):
            return replace(node, **own, arms=tuple(numbered(arm, numbers) for arm in arms))
        case Loop(body_node=body) | Foreach(body_node=body):
            return replace(node, **own, body_node=numbered(body, numbers))
        case _:
            return replace(node, **own)


def whole(flow: list[Node]) -> Graph:
    """A workflow of these entries."""
    numbers = count()
    return acts.graph(*(numbered(node, numbers) for node in flow))


graphs = st.lists(nodes, min_size=1, max_size=4).map(whole)


def suspends(node: Any) -> bool:
    """Whether anything in the node ever suspends."""
    match node:
        case Step(body=Act(suspends=times)):
            return times > 0
        case Nested(flow=inner) | Parallel(arms=inner) | Branch(arms=inner):
            return any(map(suspends, inner))
        case Loop(body_node=body) | Foreach(body_node=body):
            return suspends(body)
        case _:
            return False


# --- the world ------------------------------------------------------------------------------------------------


@dataclass
class World:
    """A store, a broker that loses and repeats messages, and workers that die and dawdle; `chance` decides."""

    graph: Graph
    chance: Random
    faults: int
    keep: int = 0  # finished iterations of a loop whose values stay; 0: all
    clock: VirtualClock = field(default_factory=VirtualClock)
    messages: list[tuple[str, int]] = field(default_factory=list)
    claims: list[Claimed] = field(default_factory=list)
    ended: Counter[tuple[str, str]] = field(default_factory=Counter)
    tokens: Any = field(default_factory=count)

    def __post_init__(self) -> None:
        self.store = MemoryStore(self.clock)
        self.store.create(acts.new_header())
        self.commit(acts.start_change(self.graph, acts.new_header(), self.fresh))

    def fresh(self) -> str:
        return f"t{next(self.tokens)}"

    @property
    def header(self) -> Any:
        return self.store.header(RUN)

    def fault(self, likely: float = 0.15) -> bool:
        """Whether something goes wrong now; it stops one day."""
        if self.faults > 0 and self.chance.random() < likely:
            self.faults -= 1
            return True
        return False

    # What happens

    def live_through(self) -> None:
        """Let things happen in any order until the run has ended for good, and a little longer."""
        for _ in range(20_000):
            if self.header.final and not self.messages and not self.claims:
                return
            self.happen()
            self.check()
        raise AssertionError(f"the run does not come to its end: {self.header}, {self.store.load(RUN)}")

    def happen(self) -> None:
        todo: list[Any] = [self.deliver] * bool(self.messages) + [self.carry_on] * bool(self.claims)
        suspended = [
            activation
            for activation in self.store.load_awaiting(RUN)
            if activation.status == ActivationStatus.SUSPENDED
        ]
        if suspended and not self.header.final and (not todo or self.chance.random() < 0.2):
            todo.append(self.resume)
        if not todo or self.fault(0.1):
            todo = [self.tick] if todo or not self.header.final else []
        if todo:
            self.chance.choice(todo)()

    def deliver(self) -> None:
        path, seq = self.messages.pop(self.chance.randrange(len(self.messages)))
        if self.fault():
            self.messages.append((path, seq))
        ask = ClaimRequest(RUN, path, seq, self.fresh(), acts.LEASE)
        over = self.header.final
        answer = self.store.claim(ask)
        if self.fault():
            assert self.store.claim(ask) == answer or isinstance(answer, Refused)
        if isinstance(answer, Claimed):
            assert not over, "an activation was claimed after the end"
            self.go_on(answer)

    def go_on(self, claimed: Claimed) -> None:
        if not self.kill(claimed):
            self.claims.append(claimed)

    def kill(self, claimed: Claimed) -> bool:
        """Whether the worker dies with its claim. A third loss would end the step: that is another story."""
        return claimed.activation.abandoned_attempts < acts.MAX_ABANDONED - 1 and self.fault()

    def carry_on(self) -> None:
        claimed = self.claims.pop(self.chance.randrange(len(self.claims)))
        inline = self.chance.random() < 0.5
        for change in acts.changes(self.graph, self.store, claimed, self.fresh, inline=inline, keep=self.keep):
            answer = self.commit(change)
            if isinstance(answer, Refused):
                return
            if not change.ops and self.kill(claimed):
                return  # killed between the pages of its items and its outcome
            if answer.claimed is not None:
                self.go_on(answer.claimed)

    def commit(self, change: Change) -> Committed | Refused:
        before = {activation.path: activation for activation in self.store.load(RUN)}
        over = self.header.final
        answer = self.store.commit(RUN, change)
        if isinstance(answer, Refused):
            return answer
        assert not over, "a commit was accepted after the end"
        self.note_ends(before)
        if change.ops and self.fault():
            assert self.store.commit(RUN, change) == answer, "a repeated commit gets another answer"
        self.publish(answer.dispatches)
        return answer

    def note_ends(self, before: dict[str, Any]) -> None:
        for activation in self.store.load(RUN):
            old = before.get(activation.path)
            fresh = old is None or old.visit != activation.visit or old.status not in ENDED
            if activation.status in ENDED and fresh:
                self.ended[activation.path, activation.visit] += 1
                assert self.ended[activation.path, activation.visit] == 1, f"{activation} has ended twice"

    def publish(self, dispatches: tuple[Dispatch, ...]) -> None:
        for dispatch in dispatches:
            if not dispatch.delay and not self.fault():
                self.messages.append((dispatch.path, dispatch.seq))

    def resume(self) -> None:
        suspended = [
            activation
            for activation in self.store.load_awaiting(RUN)
            if activation.status == ActivationStatus.SUSPENDED
        ]
        data = f"{self.fresh()}r"
        self.commit(acts.resume_all(self.header, [self.chance.choice(suspended)], self.fresh, data=data))

    def tick(self) -> None:
        """Time passes, as far as the next moment of something, and a scheduler sweeps."""
        running = [activation for activation in self.store.load(RUN) if activation.status == ActivationStatus.RUNNING]
        owned = {claimed.activation.lease_token for claimed in self.claims}
        moments = [activation.deadline for activation in self.store.load(RUN) if activation.deadline]
        if not moments or any(
            activation.abandoned_attempts >= acts.MAX_ABANDONED - 1 and activation.lease_token in owned
            for activation in running
        ):
            return
        self.clock.advance(max(0, min(moments) - self.clock.now()) / 1000)
        for due in self.store.due_timers(acts.NAMESPACE):
            todo = on_deadline(due.header, due.activation, acts.REDELIVERY_DELAY)
            assert todo is not None
            answer = self.store.commit(RUN, todo.change)
            if isinstance(answer, Committed) and not self.fault():
                self.publish((*answer.dispatches, *todo.again))

    # What must hold

    def check(self) -> None:
        header, activations = self.header, self.store.load(RUN)
        inner = [activation for activation in activations if activation.path]
        counts = Counter(activation.status for activation in inner)
        assert header.live == sum(counts[status] for status in LIVE)
        found = counts[ActivationStatus.SUSPENDED], counts[ActivationStatus.WAITING], counts[ActivationStatus.PAUSED]
        assert (header.suspended, header.waiting, header.paused) == found
        if header.status == StoredStatus.SUSPENDED:
            assert header.suspended
            assert not header.live
        values = Values(self.store.values, RUN)
        for activation in inner:
            if activation.status in LIVE | AWAITING and not header.final:
                for id_ in (activation.input, activation.suspend, activation.resume, *activation.needs.split()):
                    assert values.is_whole(id_), f"{id_} is gone, and {activation} needs it"
        if header.final:
            assert not header.live
            assert all(activation.status in ENDED or header.suspended for activation in inner)


def errors_of(graph: Graph) -> Outcome:
    """What the reference says of the whole workflow."""
    return in_sequence(graph.flow, "input")


@settings(max_examples=int(os.environ.get("ORCHESTRATOR_EXAMPLES", "250")), suppress_health_check=list(HealthCheck))
@given(
    graph=graphs,
    seed=st.integers(0, 2**32),
    faults=st.sampled_from([0, 3, 10, 30]),
    keep=st.sampled_from([0, 1, 1, 2]),
)
def test_every_run_comes_to_what_the_reference_says(graph: Graph, seed: int, faults: int, keep: int) -> None:
    """Status, result and error are the interpreter's, each activation ends once, and the counts are always right.

    Whatever finished iterations let go of, nothing that still runs or waits misses a value.
    """
    world = World(graph, Random(seed), faults, keep)
    world.live_through()
    header = world.header
    note(str(header))
    match errors_of(graph):
        case Good(value=value):
            assert header.status == StoredStatus.SUCCESS
            assert acts.plain(world.store, header.output) == value
        case Bad(error=error):
            assert header.status == StoredStatus.FAILED
            if not any(map(suspends, graph.flow)):  # else the run may settle before the first in order has failed
                assert acts.plain(world.store, header.error) == error
