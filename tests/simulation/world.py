"""A run in a real store that is made to hold what a state says, so that it can be asked what would come of a move."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.ports import StoredEvent
from orchestrator.rules import undoing
from orchestrator.rules.addressing import Target
from orchestrator.rules.change import Change, Committed, Dispatch, Refused
from orchestrator.rules.events import EventType, make_workflow_start
from orchestrator.rules.graph import Graph
from orchestrator.rules.model import AWAITING, ENDED
from orchestrator.rules.timers import has_timer
from orchestrator.stores.memory import MemoryStore
from orchestrator.testing import VirtualClock
from tests.simulation import acts, checks
from tests.simulation.acts import RUN
from tests.simulation.state import Holds, Insists, Local, Means, Place, PutsBack, State, Tells, Undoes, User, Violation

Move = tuple[str, bool, State]


class Remembering(MemoryStore):
    """A store that still has the values of other states: what a loop lists is read again in a later one.

    Tokens are drawn once for the whole search, so no two states have different values under one id.
    """

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock)
        self.texts: dict[str, str] = {}

    def commit(self, run_id: str, change: Change) -> Committed | Refused:
        """Remember what is written."""
        self.texts.update(change.values)
        return super().commit(run_id, change)

    def values(self, run_id: str, ids: Iterable[str]) -> dict[str, str]:
        """Return what was ever written."""
        return {id_: self.texts[id_] for id_ in ids if id_ in self.texts}


class World:
    """One graph, how its run is set up, and how much may happen to it.

    `wishes` are the ways in which users name what they resume (else each suspended activation is resumed), `targets`
    the steps, as dotted paths of ids, that they travel to. `delay` is how many milliseconds the run is started early,
    `runtime` to whom it belongs at first, `tells` who is told how it settles, and `keep` of how many finished
    iterations the values stay; 0: of all.
    """

    judges = True  # it is a violation by itself if a user wins, or loses, who must not
    hears = True  # it is a violation by itself if an event is missing, or is not true

    def __init__(
        self,
        graph: Graph,
        *,
        workers: int = 2,
        inline: bool = False,
        per_step: bool = False,
        auto_restart: bool = True,
        wishes: Sequence[Target] = (),
        targets: Sequence[str] = (),
        delay: int = 0,
        runtime: str = "celery",
        tells: acts.Reports = acts.Reports(),  # noqa: B008
        keep: int = 0,
        **budget: int,
    ) -> None:
        self.runtime = runtime
        self.graph, self.inline, self.budget = graph, inline, budget
        self.workers = workers
        self.per_step, self.auto_restart = per_step, auto_restart
        self.wishes, self.targets, self.delay = wishes, targets, delay
        self.tells = tells
        self.clock = VirtualClock()
        self.keep = keep
        self.store = Remembering(self.clock) if keep else MemoryStore(self.clock)
        self.tokens = 0
        self.told: list[StoredEvent] = []

    def first(self) -> State:
        """The run has been started, and the start was published, or could not be."""
        self.tokens, self.told = 0, []
        self.store._runs.clear()
        self.store._timers.clear()
        header = self.store.create(replace(acts.new_header(self.runtime), auto_restart=self.auto_restart))
        self.run = self.store._runs[RUN]
        begins = replace(header, per_step=self.per_step)
        by = "first" if "unstart" in self.budget else ""
        change = acts.start_change(self.graph, begins, self.fresh, delay=self.delay, by=by)
        answer = self.store.commit(RUN, change)
        assert isinstance(answer, Committed)
        budget = tuple(sorted(self.budget.items()))
        state = self.take(State(header, (), frozenset(), (None,) * self.workers, None, budget, frozenset()))
        if self.delay:
            checks.is_delayed(self.graph, state, self.clock.now() + self.delay)
        users: list[User] = []
        if state.may_have("start"):
            second = acts.start_change(self.graph, begins, self.fresh, by="second" if by else "")
            users.append(Means("start", header, (), second))
            state = replace(state, users=tuple(users), budget=state.spend("start"))
        if state.may_have("unstart"):
            means = Means("start", header, (), change)
            users.append(Undoes(means, undoing.undo_start(header, change, answer, self.fresh())))
            return replace(state, users=tuple(users), budget=state.spend("unstart"))
        messages = frozenset((d.path, d.seq) for d in answer.dispatches if not d.delay)
        return replace(state, messages=messages)

    def fresh(self) -> str:
        self.tokens += 1
        return f"t{self.tokens}"

    # --- between states and the store -------------------------------------------------------------------------

    def load(self, state: State) -> None:
        """Make the store hold what the state says."""
        activations = {activation.path: activation for activation in state.activations}
        awaiting = {activation.path for activation in state.activations if activation.status in AWAITING}
        requests = {id_: (self.clock.now(), reply) for id_, reply in state.requests}
        self.told = [StoredEvent(str(n + 1), 0, make_workflow_start("input")) for n in range(state.starts)]
        fresh: dict[str, Any] = {"values": {}, "requests": requests, "events": list(self.told)}
        fresh |= {"state": dict(state.kept) | acts.state_of(state.notes), "context": dict(state.context)}
        mail = {acts.EVENT: list(state.mail)}
        run = replace(
            self.run, header=state.header, activations=activations, awaiting=awaiting, mailboxes=mail, **fresh
        )
        self.store._runs = {RUN: run}
        self.store._timers = {
            (RUN, activation.path): activation.deadline
            for activation in state.activations
            if has_timer(state.header, activation)
        }

    def new_events(self) -> list[Any]:
        """What has been told since the store was made to hold a state."""
        return [event.doc for event in self.store._runs[RUN].events if not any(event is old for old in self.told)]

    def take(self, state: State, *, undone: bool = False, **changes: Any) -> State:
        """The state with what the store holds now. Values of an earlier moment come back where something is undone."""
        run = self.store._runs[RUN]
        activations = tuple(run.activations[path] for path in sorted(run.activations))
        mail = tuple(run.mailboxes.get(acts.EVENT, ()))
        asked = {user.id for user in state.users if isinstance(user, Insists)}
        requests = tuple((id_, reply) for id_, (_, reply) in sorted(run.requests.items()) if id_ in asked)
        found: dict[str, Any] = {"header": run.header, "activations": activations, "mail": mail, "requests": requests}
        kept = {key: text for key, text in run.state.items() if key != acts.NOTES}
        found |= {
            "kept": tuple(sorted(kept.items())),
            "notes": acts.notes_of(run.state),
            "context": tuple(sorted(run.context.items())),
        }
        found["starts"] = sum(event.doc["type"] == EventType.WORKFLOW_START for event in run.events)
        checks.has_its_timers(run.header, activations, {path for _, path in self.store._timers})
        taken = replace(state, **{**found, **changes})
        moved = checks.find_moved(state, taken)
        checks.follows(state.header, run.header, moved, self.clock.now())
        if self.hears:
            checks.has_told(state.header, run.header, moved, self.new_events())
        checks.counts_attempts(self.graph, moved)
        if not undone:
            checks.has_values(state, run.header, moved, run.values)
        return taken

    def publish_all(self, state: State) -> State:
        """Publish everything that is to be published, if nothing can go wrong with it any more."""
        if state.may_have("kill") or state.may_have("lose") or state.may_have("unsent"):
            return state
        messages = set(state.messages)
        locals_: list[Local] = []
        for local in (*state.workers, state.scheduler, state.aside):
            if isinstance(local, Tells):
                messages |= {(dispatch.path, dispatch.seq) for dispatch in local.dispatches}
                local = Holds(local.claimed) if local.claimed else None
            locals_.append(local)
        *workers, scheduler, aside = locals_
        return replace(state, messages=frozenset(messages), workers=tuple(workers), scheduler=scheduler, aside=aside)

    def prune(self, state: State) -> State:
        """Drop the messages that have become stale for ever, where they are taken to be harmless."""
        if "late" in self.budget:
            return state
        seqs = {activation.path: activation.seq for activation in state.activations}
        fresh = frozenset(message for message in state.messages if seqs.get(message[0]) == message[1])
        return state if fresh == state.messages else replace(state, messages=fresh)

    def _ended(self, state: State) -> frozenset[Place]:
        """The places that have ended, this commit's included; none of them twice."""
        before = {activation.path: activation for activation in state.activations}
        now = set(state.ended)
        for activation in self.store._runs[RUN].activations.values():
            old = before.get(activation.path)
            if activation.status not in ENDED or old is activation:
                continue
            if old is not None and old.status in ENDED and old.visit == activation.visit:
                if (old.status, old.output, old.error) != (activation.status, activation.output, activation.error):
                    raise Violation(f"{activation.path} ends again")
                continue
            if (activation.path, activation.visit) in now:
                raise Violation(f"{activation.path} of visit {activation.visit!r} ends twice")
            now.add((activation.path, activation.visit))
        return frozenset(now)

    # --- publishing ---------------------------------------------------------------------------------------

    def at_once(self, dispatches: Sequence[Dispatch]) -> tuple[Dispatch, ...]:
        """The dispatches that are published now; delayed ones only where the budget has a `timer`."""
        return tuple(dispatch for dispatch in dispatches if not dispatch.delay or "timer" in self.budget)

    def publishes(self, state: State, who: str, dispatches: tuple[Dispatch, ...], **done: Any) -> Iterator[Move]:
        """The messages go out, or are lost."""
        told = frozenset((dispatch.path, dispatch.seq) for dispatch in dispatches)
        yield f"{who} publishes {sorted(told)}", True, replace(state, messages=state.messages | told, **done)
        if state.may_have("lose"):
            lost = replace(state, **done, budget=state.spend("lose"))
            yield f"{who} publishes {sorted(told)}, all lost", False, lost
        if state.may_have("unsent") and dispatches:
            back = {"users": (*state.users, PutsBack(dispatches)), "budget": state.spend("unsent"), **done}
            yield f"{who} cannot publish {sorted(told)}", False, replace(state, **back)
            some = frozenset(sorted(told)[:1])
            got = replace(state, messages=state.messages | some, **back)
            yield f"{who} cannot publish {sorted(told)}, it thinks", False, got
