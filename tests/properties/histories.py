"""Histories of runs as the engine writes them: what `core.flow` and `core.timers` say, in any order."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import strategies as st

from orchestrator.core import flow
from orchestrator.core.changes import Caller, Change, Claimed, Expect, Holder, Mail, Put, Run, Set, mark
from orchestrator.core.graph import Branch, Graph
from orchestrator.core.plan import Done, Failed, Plan, Spot
from orchestrator.core.records import HELD, Header, Phase, Record, Role, RunState, Status
from orchestrator.core.timers import on_deadline
from orchestrator.ports import Store
from tests.properties.pair import ACTIVE, Pair
from tests.properties.small_graphs import LONG


@dataclass
class History(Pair):
    """A run of a graph, from its start on."""

    graph: Graph = field(default_factory=lambda: Graph("w", (), "f"))

    def begin(self) -> None:
        header = self.create(runtime=self.pick(["celery", "celery", "local"]))
        plan = flow.start(self.graph, header, "in")
        plan.ops.append(Run(self.begins()))
        guard = Caller(self.token(), frozenset({RunState.PENDING}))
        self.commit(self.change(guard, plan, values={"in": '={"items":[]}'}, context={"user": '="ü"'}))

    def change(self, guard: Holder | Caller, plan: Plan, **more: Any) -> Change:
        made = {**plan.values, **more.pop("values", {})}
        rest = self.pick(["", self.token()])
        parts = {"values": made, "events": tuple(plan.events), "rest_now": plan.rest_now, "rest": rest}
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
        header, record = claimed.header, claimed.record
        spot = Spot(self.graph, header, record, self.pick(["", self.token()]), inline=self.draw(st.booleans()))
        patch = {"k": self.pick([None, "=1", '={"f":1.0,"l":[]}'])}
        more = {"state": patch, "values": {"o" + record.token: "=1", "in": "=another"}, "mail": self.letter([None])}
        return self.commit(self.change(Holder(record.path, record.token), self.plan(spot), **more))

    def plan(self, spot: Spot) -> Plan:
        record = spot.record
        done = Done("o" + record.token, ("in", "nothing"))
        match record.phase:
            case Phase.ENTER:
                return flow.entered(spot, done)
            case Phase.CHOOSE:
                arms = len(spot.node.arms) if isinstance(spot.node, Branch) else 0
                return flow.chosen(spot, self.draw(st.sets(st.integers(0, arms - 1)).map(sorted)))
            case Phase.SPLIT:
                return flow.split(spot, self.draw(st.integers(0, 4)), self.draw(st.integers(1, 3)))
            case Phase.CHECK:
                return flow.checked(spot, self.draw(st.booleans()) or record.iteration > 2)
            case Phase.JOIN:
                children = self.memory.load(self.run_id, [f"{record.path}.{n}" for n in range(record.total)])
                return flow.joined(spot, children)
            case Phase.NAP:
                return flow.asleep(spot, self.pick([0.0, LONG / 1000]))
            case Phase.WAKE:
                return flow.awake(spot)
            case Phase.LISTEN:
                plan = Plan(self.graph, "")
                plan.ops.append(Set(record.path, {"status": Status.WAITING.value}, delay=self.lease()))
                return plan
            case Phase.REST:
                return flow.rested(spot)
            case _:
                return self.outcome(spot, done)

    def outcome(self, spot: Spot, done: Done) -> Plan:
        likely = "retry" if spot.record.lost else "done"
        match self.pick([likely] * 6 + ["failed", "retry", "retry", "suspend", "suspend", "bail", "abort"]):
            case "failed":
                return flow.finish(spot, Failed("e" + spot.record.token, self.draw(st.booleans())))
            case "retry":
                return flow.retry(spot, self.pick([0, LONG]))
            case "suspend":
                return flow.suspend(spot, "o" + spot.record.token, "label")
            case "bail":
                return flow.bail(spot, done.output)
            case "abort":
                return flow.abort(spot)
            case _:
                return flow.finish(spot, done)

    def leave(self) -> None:
        """A worker claims and is never seen again."""
        if self.told:
            dispatch = self.pick(self.told)
            self.claim(dispatch.path, dispatch.seq)

    def take_over(self) -> None:
        """Somebody comes again for what may still be held."""
        records = self.memory.load(self.run_id)
        record = self.pick([*records, *[record for record in records if record.status == Status.RUNNING] * 5])
        claimed = self.claim(record.path, record.seq, self.pick([None, None, record.token or None]))
        while claimed and self.pick([True, True, False]):
            claimed = self.settle(claimed)

    def zombie(self) -> None:
        """A claim of long ago ends, once more or too late."""
        if self.claims:
            record = self.pick(self.claims)
            header = self.memory.header(self.run_id) or Header()
            plan = Plan(self.graph, "")
            if record.path and record.phase == Phase.RUN:
                plan = flow.finish(Spot(self.graph, header, record, ""), Done("late"))
            self.commit(self.change(Holder(record.path, record.token), plan))

    def upkeep(self) -> None:
        """The ticker moves on what is due, and the message of what is queued is sent again."""
        paths = [due.record.path for due in self.memory.due(self.run_id)]
        if paths:
            path, short = self.pick(paths), self.draw(st.booleans())
            mine, theirs = (self._swept(store, path, short) for store in (self.memory, self.other))
            if mine is not None:
                self.commit(mine, theirs)

    def _swept(self, store: Store, path: str, short: bool) -> Change | None:
        header, (record,) = store.header(self.run_id) or Header(), store.load(self.run_id, [path])
        swept = on_deadline(header, record, LONG, short=short)
        return swept and swept.change

    def resume(self) -> None:
        """Somebody outside lets a held record go on, as it is or as it was read too long ago."""
        held = [record for record in self.memory.load(self.run_id) if record.status in HELD]
        if not held:
            return
        record = self.pick(held)
        fields = {"phase": Phase.WAKE.value} if record.status == Status.WAITING else {}
        ops = (*flow.resume(record, "data"), Set(record.path, fields))
        seq = record.seq + self.pick([0] * 6 + [1])
        due = self.pick([None] * 5 + [7])
        header = self.memory.header(self.run_id) or Header()
        life, rests = self.pick([None, header.life]), self.pick([None, *[header.rests] * 4, header.rests + 1])
        guard = Caller(self.pick(["", self.token()]), ACTIVE, life, rests)
        expect = (Expect(record.path, record.status, seq, due),)
        self.commit(Change(guard, ops, expect, {"data": "=[]"}, events=({"type": "resumed"},), **self.spans()))

    def cancel(self) -> None:
        """Somebody ends the run by a word."""
        words = Run({"outcome": RunState.CANCELED.value, "closed": True}, unless=self.pick(["", "outcome"]))
        rest = self.pick(["", self.token()])
        self.commit(Change(Caller(self.token(), ACTIVE), (words,), rest_now=True, rest=rest, **self.spans()))
        if self.draw(st.booleans()):
            self.resume()

    def mail(self) -> None:
        """An event comes for somebody, or is taken away."""
        queued = self.memory.mail(self.run_id, "event")
        letter = self.letter([None, mark(queued), "1:other"])
        self.commit(Change(Caller(self.token(), ACTIVE), mail=letter))

    def letter(self, expect: list[str | None]) -> Mail:
        pop = self.pick(["", "unknown", *self.memory.mail(self.run_id, "event")])
        return Mail("event", self.pick(expect), self.pick(["", "in", "é/"]), pop)

    def travel(self) -> None:
        """Records go away and are written afresh, in a run that has ended or has not."""
        records = self.memory.load(self.run_id)
        record = self.pick([*records, *[record for record in records if record.status in HELD] * 5])
        if not record.path:
            return
        fresh = Record(path=record.path, step=record.step, visit=record.visit, route=record.route, input="in")
        fresh = replace(fresh, role=Role.ITEM, index=self.pick([-1, 0, 2]), quiet=self.draw(st.booleans()))
        again = {"status": RunState.RUNNING.value, "life": 1, "closed": False, "resource_id": self.resource()}
        ops = (Set("", {"status": Status.OPEN.value}), Run(again), Put(fresh, self.pick(["", self.token()])))
        states = self.pick([frozenset(RunState), ACTIVE])
        drop = self.pick([(), (record.path,), (record.path, "7.7")])
        self.commit(Change(Caller(self.token(), states), ops, drop=drop, context={"user": None}, **self.spans()))

    def chunk(self) -> None:
        """A claim writes to the stream and goes on: a first time, once more, or overtaken by a later part."""
        if not self.claims:
            return
        record = self.pick(self.claims[-5:])
        guard = Holder(record.path, record.token, self.draw(st.integers(0, 4)))
        events = self.pick([({"type": "chunk", "text": "é"},), self.burst()])
        more: dict[str, Any] = {}
        if self.draw(st.booleans()):  # a part may say all that a change may
            more = {"state": {"k": self.pick([None, "=part"])}, "context": {"c": "=part"}, "mail": self.letter([None])}
            more |= {"values": {f"part{record.token}": "=1"}, "ops": (Set(record.path, {"label": "part"}),)}
        self.commit(Change(guard, events=events, **more, **self.spans()))

    def trim(self) -> None:
        """A change that says nothing but how much of the log is to be kept."""
        self.commit(Change(Caller(self.pick(["", self.token()]), frozenset(RunState)), **self.kept()))

    def go_on(self) -> None:
        """Let all this happen, in any order."""
        self.drive(
            *[self.work] * 12,
            *[self.leave] * 2,
            *[self.take_over] * 3,
            self.zombie,
            *[self.upkeep] * 2,
            *[self.again] * 2,
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
