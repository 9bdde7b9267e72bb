"""Histories of runs as the engine writes them: what `core.flow` and `core.timers` say, in any order."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import strategies as st

from orchestrator.ports import Store
from orchestrator.rules import flow
from orchestrator.rules.change import (
    Change,
    Claimed,
    CreateActivation,
    LeaseGuard,
    MailboxUpdate,
    Precondition,
    RequestGuard,
    UpdateActivation,
    UpdateRun,
    mailbox_version,
)
from orchestrator.rules.graph import Branch, Graph
from orchestrator.rules.model import AWAITING, Activation, ActivationStatus, Phase, Role, RunHeader, StoredStatus
from orchestrator.rules.plan import ClaimedNode, Done, Failed, Plan
from orchestrator.rules.timers import on_deadline
from tests.properties.pair import ACTIVE, Pair
from tests.properties.small_graphs import LONG


@dataclass
class History(Pair):
    """A run of a graph, from its start on."""

    graph: Graph = field(default_factory=lambda: Graph("w", (), "f"))

    def begin(self) -> None:
        header = self.create(runtime=self.pick(["celery", "celery", "local"]))
        plan = flow.start(self.graph, header, "in")
        plan.ops.append(UpdateRun(self.begins()))
        guard = RequestGuard(self.token(), frozenset({StoredStatus.PENDING}))
        self.commit(self.change(guard, plan, values={"in": '={"items":[]}'}, context={"user": '="ü"'}))

    def change(self, guard: LeaseGuard | RequestGuard, plan: Plan, **more: Any) -> Change:
        made = {**plan.values, **more.pop("values", {})}
        rest = self.pick(["", self.token()])
        parts = {"values": made, "events": tuple(plan.events), "settle_now": plan.settle_now, "settle_token": rest}
        return Change(guard, tuple(plan.ops), **parts, **self.spans(), **more)

    def work(self) -> None:
        """A message is delivered and worked off, with whatever goes on inline."""
        if not self.told:
            return
        dispatch = self.told.pop(self.draw(st.integers(0, len(self.told) - 1)))
        claimed = self.claim(dispatch.path, dispatch.seq)
        while claimed:
            claimed = self.settle(claimed)

    def settle(self, claimed: Claimed) -> Claimed | None:
        header, activation = claimed.header, claimed.activation
        spot = ClaimedNode(
            self.graph, header, activation, self.pick(["", self.token()]), inline=self.draw(st.booleans())
        )
        patch = {"k": self.pick([None, "=1", '={"f":1.0,"l":[]}'])}
        more = {
            "state": patch,
            "values": {"o" + activation.lease_token: "=1", "in": "=another"},
            "mailbox": self.letter([None]),
        }
        return self.commit(self.change(LeaseGuard(activation.path, activation.lease_token), self.plan(spot), **more))

    def plan(self, spot: ClaimedNode) -> Plan:
        activation = spot.activation
        done = Done("o" + activation.lease_token, ("in", "nothing"))
        match activation.phase:
            case Phase.VALIDATE_INPUT:
                return flow.on_input_valid(spot, done)
            case Phase.EVALUATE_BRANCH:
                arms = len(spot.node.arms) if isinstance(spot.node, Branch) else 0
                return flow.on_branch_chosen(spot, self.draw(st.sets(st.integers(0, arms - 1)).map(sorted)))
            case Phase.FAN_OUT:
                return flow.on_items(spot, self.draw(st.integers(0, 4)), self.draw(st.integers(1, 3)))
            case Phase.EVALUATE_LOOP:
                return flow.on_loop_checked(spot, self.draw(st.booleans()) or activation.iteration > 2)
            case Phase.JOIN:
                children = self.memory.load(self.run_id, [f"{activation.path}.{n}" for n in range(activation.total)])
                return flow.on_children_done(spot, children)
            case Phase.COMPUTE_SLEEP:
                return flow.on_sleep_computed(spot, self.pick([0.0, LONG / 1000]))
            case Phase.SLEEP_OVER:
                return flow.on_sleep_over(spot)
            case Phase.AWAIT_EVENT:
                plan = Plan(self.graph, "")
                plan.ops.append(
                    UpdateActivation(activation.path, {"status": ActivationStatus.WAITING.value}, delay=self.lease())
                )
                return plan
            case Phase.SETTLE:
                return flow.on_settled(spot)
            case _:
                return self.outcome(spot, done)

    def outcome(self, spot: ClaimedNode, done: Done) -> Plan:
        likely = "retry" if spot.activation.abandoned_attempts else "done"
        match self.pick([likely] * 6 + ["failed", "retry", "retry", "suspend", "suspend", "bail", "abort"]):
            case "failed":
                return flow.on_result(spot, Failed("e" + spot.activation.lease_token, self.draw(st.booleans())))
            case "retry":
                return flow.retry(spot, self.pick([0, LONG]))
            case "suspend":
                return flow.suspend(spot, "o" + spot.activation.lease_token, "label")
            case "bail":
                return flow.bail(spot, done.output)
            case "abort":
                return flow.abort(spot)
            case _:
                return flow.on_result(spot, done)

    def leave(self) -> None:
        """A worker claims and is never seen again."""
        if self.told:
            dispatch = self.pick(self.told)
            self.claim(dispatch.path, dispatch.seq)

    def take_over(self) -> None:
        """Somebody comes again for what may still be held."""
        activations = self.memory.load(self.run_id)
        activation = self.pick(
            [
                *activations,
                *[activation for activation in activations if activation.status == ActivationStatus.RUNNING] * 5,
            ]
        )
        claimed = self.claim(activation.path, activation.seq, self.pick([None, None, activation.lease_token or None]))
        while claimed and self.pick([True, True, False]):
            claimed = self.settle(claimed)

    def zombie(self) -> None:
        """A claim of long ago ends, once more or too late."""
        if self.claims:
            activation = self.pick(self.claims)
            header = self.memory.header(self.run_id) or RunHeader()
            plan = Plan(self.graph, "")
            if activation.path and activation.phase == Phase.RUN:
                plan = flow.on_result(ClaimedNode(self.graph, header, activation, ""), Done("late"))
            self.commit(self.change(LeaseGuard(activation.path, activation.lease_token), plan))

    def upkeep(self) -> None:
        """The scheduler moves on what is due, and the message of what is queued is sent again."""
        paths = [due.activation.path for due in self.memory.due_timers(self.run_id)]
        if paths:
            path, short = self.pick(paths), self.draw(st.booleans())
            mine, theirs = (self._swept(store, path, short) for store in (self.memory, self.other))
            if mine is not None:
                self.commit(mine, theirs)

    def _swept(self, store: Store, path: str, short: bool) -> Change | None:
        header, (activation,) = store.header(self.run_id) or RunHeader(), store.load(self.run_id, [path])
        swept = on_deadline(header, activation, LONG, short=short)
        return swept and swept.change

    def resume(self) -> None:
        """Somebody outside lets a held activation go on, as it is or as it was read too long ago."""
        held = [activation for activation in self.memory.load(self.run_id) if activation.status in AWAITING]
        if not held:
            return
        activation = self.pick(held)
        fields = {"phase": Phase.SLEEP_OVER.value} if activation.status == ActivationStatus.WAITING else {}
        ops = (*flow.resume(activation, "data"), UpdateActivation(activation.path, fields))
        seq = activation.seq + self.pick([0] * 6 + [1])
        due = self.pick([None] * 5 + [7])
        header = self.memory.header(self.run_id) or RunHeader()
        generation, settle_count = (
            self.pick([None, header.generation]),
            self.pick([None, *[header.settle_count] * 4, header.settle_count + 1]),
        )
        guard = RequestGuard(self.pick(["", self.token()]), ACTIVE, generation, settle_count)
        expect = (Precondition(activation.path, activation.status, seq, due),)
        self.commit(Change(guard, ops, expect, {"data": "=[]"}, events=({"type": "resumed"},), **self.spans()))

    def cancel(self) -> None:
        """Somebody ends the run by a word."""
        words = UpdateRun({"outcome": StoredStatus.CANCELED.value, "closed": True}, unless=self.pick(["", "outcome"]))
        rest = self.pick(["", self.token()])
        self.commit(
            Change(RequestGuard(self.token(), ACTIVE), (words,), settle_now=True, settle_token=rest, **self.spans())
        )
        if self.draw(st.booleans()):
            self.resume()

    def mail(self) -> None:
        """An event comes for somebody, or is taken away."""
        queued = self.memory.mail(self.run_id, "event")
        letter = self.letter([None, mailbox_version(queued), "1:other"])
        self.commit(Change(RequestGuard(self.token(), ACTIVE), mailbox=letter))

    def letter(self, expect: list[str | None]) -> MailboxUpdate:
        pop = self.pick(["", "unknown", *self.memory.mail(self.run_id, "event")])
        return MailboxUpdate("event", self.pick(expect), self.pick(["", "in", "é/"]), pop)

    def travel(self) -> None:
        """Records go away and are written afresh, in a run that has ended or has not."""
        activations = self.memory.load(self.run_id)
        activation = self.pick(
            [*activations, *[activation for activation in activations if activation.status in AWAITING] * 5]
        )
        if not activation.path:
            return
        fresh = Activation(
            path=activation.path, step=activation.step, visit=activation.visit, route=activation.route, input="in"
        )
        fresh = replace(fresh, role=Role.ITEM, index=self.pick([-1, 0, 2]), quiet=self.draw(st.booleans()))
        again = {"status": StoredStatus.RUNNING.value, "generation": 1, "closed": False, "resource_id": self.resource()}
        ops = (
            UpdateActivation("", {"status": ActivationStatus.OPEN.value}),
            UpdateRun(again),
            CreateActivation(fresh, self.pick(["", self.token()])),
        )
        states = self.pick([frozenset(StoredStatus), ACTIVE])
        drop = self.pick([(), (activation.path,), (activation.path, "7.7")])
        self.commit(Change(RequestGuard(self.token(), states), ops, drop=drop, context={"user": None}, **self.spans()))

    def chunk(self) -> None:
        """A claim writes to the stream and goes on: a first time, once more, or overtaken by a later part."""
        if not self.claims:
            return
        activation = self.pick(self.claims[-5:])
        guard = LeaseGuard(activation.path, activation.lease_token, self.draw(st.integers(0, 4)))
        events = self.pick([({"type": "chunk", "text": "é"},), self.burst()])
        more: dict[str, Any] = {}
        if self.draw(st.booleans()):  # a part may say all that a change may
            more = {
                "state": {"k": self.pick([None, "=part"])},
                "context": {"c": "=part"},
                "mailbox": self.letter([None]),
            }
            more |= {
                "values": {f"part{activation.lease_token}": "=1"},
                "ops": (UpdateActivation(activation.path, {"label": "part"}),),
            }
        self.commit(Change(guard, events=events, **more, **self.spans()))

    def trim(self) -> None:
        """A change that says nothing but how much of the log is to be kept."""
        self.commit(Change(RequestGuard(self.pick(["", self.token()]), frozenset(StoredStatus)), **self.kept()))

    def go_on(self) -> None:
        """Let all this happen, in any order."""
        self.drive(
            *[self.work] * 12,
            *[self.leave] * 2,
            *[self.take_over] * 3,
            self.zombie,
            *[self.upkeep] * 2,
            *[self.again] * 2,
            *[self.again_late] * 2,
            *[self.resume] * 3,
            self.cancel,
            self.mail,
            self.travel,
            self.renew,
            *[self.chunk] * 3,
            self.trim,
            self.create_again,
            self.forget,
        )
