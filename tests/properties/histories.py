"""Histories of runs as the engine writes them: the plans of `rules.flow` and `rules.timers`, in any order."""

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
    Precondition,
    RequestGuard,
    UpdateActivation,
    UpdateRun,
)
from orchestrator.rules.graph import Branch, Graph
from orchestrator.rules.mailbox import MailboxUpdate, make_waiter
from orchestrator.rules.model import AWAITING, Activation, ActivationStatus, Phase, Role, RunHeader, StoredStatus
from orchestrator.rules.pending_resumes import Progress
from orchestrator.rules.plan import ClaimedNode, Done, Failed, Plan
from orchestrator.rules.reports import HOOKS, Told, give_up_report, on_report_done, retry_report
from orchestrator.rules.timers import QueueState, on_deadline
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
        settle_token = self.pick(["", self.token()])
        parts = {
            "values": made,
            "events": tuple(plan.events),
            "settle_now": plan.settle_now,
            "settle_token": settle_token,
        }
        return Change(guard, tuple(plan.ops), **parts, **self.spans(), **more)

    def work(self) -> None:
        """A message is delivered and worked off, with whatever goes on inline."""
        if not self.dispatches:
            return
        dispatch = self.dispatches.pop(self.draw(st.integers(0, len(self.dispatches) - 1)))
        claimed = self.claim(dispatch.path, dispatch.seq)
        while claimed:
            claimed = self.settle(claimed)

    def settle(self, claimed: Claimed) -> Claimed | None:
        header, activation = claimed.header, claimed.activation
        claimed_node = ClaimedNode(
            self.graph, header, activation, self.pick(["", self.token()]), inline=self.draw(st.booleans())
        )
        patch = {"k": self.pick([None, "=1", '={"f":1.0,"l":[]}'])}
        more = {
            "state": patch,
            "values": {"o" + activation.lease_token: "=1", "in": "=another"},
            "mailbox": self.mailbox_update(),
        }
        return self.commit(
            self.change(LeaseGuard(activation.path, activation.lease_token), self.plan(claimed_node), **more)
        )

    def plan(self, claimed_node: ClaimedNode) -> Plan:
        activation = claimed_node.activation
        done = Done("o" + activation.lease_token, ("in", "nothing"))
        match activation.phase:
            case Phase.VALIDATE_INPUT:
                return flow.on_input_valid(claimed_node, done)
            case Phase.EVALUATE_BRANCH:
                arms = len(claimed_node.node.arms) if isinstance(claimed_node.node, Branch) else 0
                return flow.on_branch_chosen(claimed_node, self.draw(st.sets(st.integers(0, arms - 1)).map(sorted)))
            case Phase.FAN_OUT:
                return flow.on_items(claimed_node, Progress(self.draw(st.integers(0, 4))), self.draw(st.integers(1, 3)))
            case Phase.EVALUATE_LOOP:
                return flow.on_loop_checked(claimed_node, self.draw(st.booleans()) or activation.iteration > 2)
            case Phase.JOIN:
                children = self.memory.load(self.run_id, [f"{activation.path}.{n}" for n in range(activation.total)])
                return flow.on_children_done(claimed_node, children)
            case Phase.COMPUTE_SLEEP:
                return flow.on_sleep_computed(claimed_node, self.pick([0.0, LONG / 1000]))
            case Phase.SLEEP_OVER:
                return flow.on_sleep_over(claimed_node)
            case Phase.AWAIT_EVENT:
                plan = Plan(self.graph, "")
                plan.ops.append(
                    UpdateActivation(activation.path, {"status": ActivationStatus.WAITING.value}, delay=self.lease())
                )
                return plan
            case Phase.SETTLE:
                told = Told(self.pick([(), HOOKS]), *self.draw(st.tuples(st.booleans(), st.booleans())))
                return flow.on_settled(claimed_node, told)
            case Phase.REPORT:
                return self.report(claimed_node)
            case _:
                return self.outcome(claimed_node, done)

    def report(self, claimed_node: ClaimedNode) -> Plan:
        here = self.draw(st.booleans())
        match self.pick(["done", "done", "retry", "give up"]):
            case "retry":
                return retry_report(claimed_node, self.pick([0, LONG]), here=here)
            case "give up":
                return give_up_report(claimed_node, "e" + claimed_node.activation.lease_token, here=here)
            case _:
                return on_report_done(claimed_node, here=here)

    def outcome(self, claimed_node: ClaimedNode, done: Done) -> Plan:
        likely = "retry" if claimed_node.activation.abandoned_attempts else "done"
        match self.pick([likely] * 6 + ["failed", "retry", "retry", "suspend", "suspend", "bail", "abort"]):
            case "failed":
                return flow.on_result(
                    claimed_node, Failed("e" + claimed_node.activation.lease_token, self.draw(st.booleans()))
                )
            case "retry":
                return flow.retry(claimed_node, self.pick([0, LONG]))
            case "suspend":
                return flow.suspend(claimed_node, "o" + claimed_node.activation.lease_token, "label")
            case "bail":
                return flow.bail(claimed_node, done.output)
            case "abort":
                return flow.abort(claimed_node)
            case _:
                return flow.on_result(claimed_node, done)

    def leave(self) -> None:
        """A worker claims and is never seen again."""
        if self.dispatches:
            dispatch = self.pick(self.dispatches)
            self.claim(dispatch.path, dispatch.seq)

    def take_over(self) -> None:
        """A worker claims, perhaps by an old token, an activation that may be claimed already."""
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
        """The scheduler moves timers on; the message of a queued activation is sent again."""
        paths = [due.activation.path for due in self.memory.due_timers(self.run_id)]
        if paths:
            path, short = self.pick(paths), self.draw(st.booleans())
            mine, theirs = (self._swept(store, path, short) for store in (self.memory, self.other))
            if mine is not None:
                self.commit(mine, theirs)

    def _swept(self, store: Store, path: str, short: bool) -> Change | None:
        header, (activation,) = store.header(self.run_id) or RunHeader(), store.load(self.run_id, [path])
        swept = on_deadline(header, activation, LONG, queue=QueueState(is_short=short))
        return swept and swept.change

    def resume(self) -> None:
        """A caller lets an awaiting activation go on, by a state that is fresh or was read too long ago."""
        awaiting = [activation for activation in self.memory.load(self.run_id) if activation.status in AWAITING]
        if not awaiting:
            return
        activation = self.pick(awaiting)
        fields = {"phase": Phase.SLEEP_OVER.value} if activation.status == ActivationStatus.WAITING else {}
        ops = (*flow.resume(activation, "data"), UpdateActivation(activation.path, fields))
        seq = activation.seq + self.pick([0] * 6 + [1])
        deadline = self.pick([None] * 5 + [7])
        header = self.memory.header(self.run_id) or RunHeader()
        generation, settle_count = (
            self.pick([None, header.generation]),
            self.pick([None, *[header.settle_count] * 4, header.settle_count + 1]),
        )
        guard = RequestGuard(self.pick(["", self.token()]), ACTIVE, generation, settle_count)
        expect = (Precondition(activation.path, activation.status, seq, deadline),)
        self.commit(Change(guard, ops, expect, {"data": "=[]"}, events=({"type": "resumed"},), **self.spans()))

    def cancel(self) -> None:
        """A caller cancels the run."""
        words = UpdateRun({"outcome": StoredStatus.CANCELED.value, "closed": True}, unless=self.pick(["", "outcome"]))
        settle_token = self.pick(["", self.token()])
        self.commit(
            Change(
                RequestGuard(self.token(), ACTIVE), (words,), settle_now=True, settle_token=settle_token, **self.spans()
            )
        )
        if self.draw(st.booleans()):
            self.resume()

    def mail(self) -> None:
        """An entry is pushed to the mailbox, or taken away."""
        update = self.mailbox_update()
        self.commit(Change(RequestGuard(self.token(), ACTIVE), mailbox=update))

    def mailbox_update(self) -> MailboxUpdate:
        entries = self.memory.mail(self.run_id, "event", 1000)
        pop = self.pick(["", "unknown", *entries[:1] * 4, *entries])
        waits = [make_waiter((index,), "t") for index in (0, 12, 3)]
        push, size = self.pick(["", "in", "é/", *waits]), self.draw(st.integers(0, 20))
        return MailboxUpdate(
            "event", push, pop, self.draw(st.booleans()), size, self.pick([0, 0, 3]), self.pick([0, 0, 30])
        )

    def write_state(self) -> None:
        """A caller writes the state on the version that it has read, or on one that is too old."""
        header = self.memory.header(self.run_id)
        expect = self.pick([None, header.state_version if header else "", "1:é"])
        patch = {"k": self.pick([None, "=3"]), "é": "=4"}
        self.commit(Change(RequestGuard(self.token(), ACTIVE), state=patch, expect_state=expect))

    def travel(self) -> None:
        """Activations go away and are created afresh, in a run that has ended or has not."""
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
        statuses = self.pick([frozenset(StoredStatus), ACTIVE])
        drop = self.pick([(), (activation.path,), (activation.path, "7.7")])
        self.commit(
            Change(RequestGuard(self.token(), statuses), ops, drop=drop, context={"user": None}, **self.spans())
        )

    def chunk(self) -> None:
        """A claim flushes and goes on: a first time, once more, or overtaken by a later flush."""
        if not self.claims:
            return
        activation = self.pick(self.claims[-5:])
        guard = LeaseGuard(activation.path, activation.lease_token, self.draw(st.integers(0, 4)))
        events = self.pick([({"type": "chunk", "text": "é"},), self.burst()])
        more: dict[str, Any] = {}
        if self.draw(st.booleans()):  # a flush may say all that a change may
            more = {
                "state": {"k": self.pick([None, "=flush"])},
                "context": {"c": "=flush"},
                "mailbox": self.mailbox_update(),
            }
            more |= {
                "values": {f"flush{activation.lease_token}": "=1"},
                "ops": (UpdateActivation(activation.path, {"label": "flush"}),),
            }
        self.commit(Change(guard, events=events, **more, **self.spans()))

    def trim(self) -> None:
        """A change with nothing but the limits of the log."""
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
            self.write_state,
            self.travel,
            self.renew,
            *[self.chunk] * 3,
            self.trim,
            self.create_again,
            self.forget,
        )
