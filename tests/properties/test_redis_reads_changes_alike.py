"""The Lua scripts read a change as `core.apply` does: one random history, driven through both stores, looks the same.

The memory store calls `core.apply`; its clock stands still. Durations are none at all or very long, so that the two
clocks never disagree on whether a moment has come. Times themselves are left out of the comparison.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.core import flow
from orchestrator.core.changes import (
    Ask,
    Caller,
    Change,
    Claimed,
    Committed,
    Dispatch,
    Expect,
    Holder,
    Mail,
    Put,
    Refused,
    Run,
    Set,
    mark,
)
from orchestrator.core.graph import Branch, Foreach, Graph, Loop, Nested, Node, Parallel, Route, Sleep, Step, Wait
from orchestrator.core.plan import Done, Failed, Plan, Spot
from orchestrator.core.records import HELD, Header, Phase, Record, Role, RunState, Status
from orchestrator.ports import Holding, Store
from orchestrator.stores.memory import MemoryStore
from orchestrator.stores.redis import RedisStore
from orchestrator.testing import VirtualClock
from tests.servers import RedisServer

LONG = 10_000_000
ACTIVE = frozenset({RunState.RUNNING, RunState.SUSPENDED, RunState.PAUSED})
_runs = itertools.count()

# --- graphs ----------------------------------------------------------------------------------------------------------


def _route(name: str) -> Route:
    return Route(name, queue="q/é" if len(name) % 2 else None)


def _node(draw: st.DrawFn, names: Iterator[str], depth: int) -> Node:
    kinds = ["step", "step", "map", "sleep", "wait"]
    if depth:
        kinds += ["parallel", "branch", "loop", "foreach", "nested", "foreach"]
    name = next(names)
    route = _route(name)
    match draw(st.sampled_from(kinds)):
        case "map":
            return Step(name, "MAPPING", route, control=True)
        case "sleep":
            return Sleep(name, route, draw(st.sampled_from([None, 0.0, LONG / 1000])))
        case "wait":
            return Wait(name, route, "event", None, None)
        case "parallel":
            return Parallel(name, route, _nodes(draw, names, depth - 1, 3), draw(st.booleans()))
        case "branch":
            return Branch(name, route, _nodes(draw, names, depth - 1, 2))
        case "loop":
            return Loop(name, route, _node(draw, names, depth - 1), True)
        case "foreach":
            return Foreach(name, route, _node(draw, names, depth - 1), None)
        case "nested":
            return Nested(name, route, _nodes(draw, names, depth - 1, 2), draw(st.booleans()))
        case _:
            return Step(name, "STEP", route, inline=draw(st.booleans()))


def _nodes(draw: st.DrawFn, names: Iterator[str], depth: int, most: int) -> tuple[Node, ...]:
    return tuple(_node(draw, names, depth) for _ in range(draw(st.integers(1, most))))


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Give a small graph with blocks in blocks."""
    return Graph("w", _nodes(draw, (f"s{n}" for n in itertools.count()), 2, 3), "f")


# --- what is compared ------------------------------------------------------------------------------------------------

_MOMENTS = ("created_at", "started_at", "updated_at", "ended_at", "queued_at", "suspended_at", "resumed_at", "due")


def _plain(doc: dict[str, Any]) -> dict[str, Any]:
    """Leave out how late it is, but not whether there is a moment at all."""
    doc = {name: bool(value) if name in _MOMENTS else value for name, value in doc.items()}
    if doc.get("answer"):
        doc["answer"] = json.loads(doc["answer"])
    return doc


def _answer(answer: Claimed | Committed | Refused | None) -> Any:
    match answer:
        case None:
            return None
        case Refused(reason=reason, header=header):
            return reason, header and _plain(header.doc())
        case Claimed(header=header, record=record):
            package = (dict(answer.values), dict(answer.state), dict(answer.context))
            return _plain(header.doc()), _plain(record.doc()), package
        case Committed(header=header, dispatches=dispatches, claimed=claimed):
            return _plain(header.doc()), dispatches, _answer(claimed)


def _snapshot(store: Store, run_id: str, namespace: str) -> dict[str, Any]:
    header = store.header(run_id)
    return {
        "header": header and _plain(header.doc()),
        "records": [_plain(record.doc()) for record in store.load(run_id)],
        "held": [record.path for record in store.load(run_id, held=True)],
        "events": [dict(event.doc) for event in store.events(run_id)],
        "state": store.state(run_id),
        "context": store.context(run_id),
        "mail": store.mail(run_id, "event"),
        "due": sorted(due.record.path for due in store.due(namespace)),
    }


# --- one history -----------------------------------------------------------------------------------------------------


@dataclass
class History:
    """Two stores that are told the same."""

    memory: MemoryStore
    redis: RedisStore
    graph: Graph
    draw: Any
    run_id: str = field(default_factory=lambda: f"run/{next(_runs)}")
    told: list[Dispatch] = field(default_factory=list)
    claims: list[Record] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    tokens: Iterator[int] = field(default_factory=itertools.count)

    def begin(self) -> None:
        fields = {"workflow_id": "w", "namespace": self.run_id, "runtime": self.pick(["celery", "celery", "local"])}
        flags = {name: self.pick([False, False, True]) for name in ("quiet", "per_step")}
        header = Header(run_id=self.run_id, auto_restart=self.pick([True, True, False]), **flags, **fields)
        assert _plain(self.memory.create(header).doc()) == _plain(self.redis.create(header).doc())
        plan = flow.start(self.graph, header, "in")
        guard = Caller(self.token(), frozenset({RunState.PENDING}))
        self.commit(self.change(guard, plan, values={"in": '={"items":[]}'}, context={"user": '="ü"'}))

    def pick(self, options: Sequence[Any]) -> Any:
        return self.draw(st.sampled_from(options))

    def token(self) -> str:
        return f"token{next(self.tokens)}"

    def change(self, guard: Holder | Caller, plan: Plan, **more: Any) -> Change:
        made = {**plan.values, **more.pop("values", {})}
        rest = self.pick(["", self.token()])
        parts = {"values": made, "events": tuple(plan.events), "rest_now": plan.rest_now, "rest": rest}
        return Change(guard, tuple(plan.ops), **parts, **self.spans(), **more)

    def lease(self) -> int:
        return int(self.pick([0, LONG, LONG]))

    def spans(self) -> dict[str, Any]:
        return {"lease": self.lease(), "grace": self.lease()}

    def claim(self, path: str, seq: int, token: str | None = None) -> Claimed | None:
        ask = Ask(self.run_id, path, seq, token or self.token(), self.lease())
        mine, theirs = self.memory.claim(ask), self.redis.claim(ask)
        assert _answer(theirs) == _answer(mine)
        if isinstance(mine, Claimed):
            self.claims.append(mine.record)
            return mine
        return None

    def commit(self, change: Change) -> Claimed | None:
        mine, theirs = self.memory.commit(self.run_id, change), self.redis.commit(self.run_id, change)
        assert _answer(theirs) == _answer(mine)
        self.changes.append(change)
        if isinstance(mine, Refused):
            return None
        self.told += mine.dispatches
        if mine.claimed:
            self.claims.append(mine.claimed.record)
        return mine.claimed

    def compare(self) -> None:
        mine, theirs = (_snapshot(store, self.run_id, self.run_id) for store in (self.memory, self.redis))
        assert theirs == mine

    # What may happen next.

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
        more = {"state": patch, "values": {"o" + record.token: "=1", "in": "=another"}}
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

    def again(self) -> None:
        """A change is sent again, at once or when others have gone on."""
        self.commit(self.pick(self.changes[:-6:-1]))

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
        self.commit(
            Change(
                Caller(self.token(), ACTIVE),
                (words,),
                rest_now=True,
                rest=self.pick(["", self.token()]),
                **self.spans(),
            )
        )
        if self.draw(st.booleans()):
            self.resume()

    def mail(self) -> None:
        """An event comes for somebody, or is taken away."""
        queued = self.memory.mail(self.run_id, "event")
        expect, push = self.pick([None, mark(queued), "1:other"]), self.pick(["", "in", "é/"])
        pop = self.pick(["", "unknown", *queued])
        self.commit(Change(Caller(self.token(), ACTIVE), mail=Mail("event", expect, push, pop)))

    def travel(self) -> None:
        """Records go away and are written afresh, in a run that has ended or has not."""
        records = self.memory.load(self.run_id)
        record = self.pick([*records, *[record for record in records if record.status in HELD] * 5])
        if not record.path:
            return
        fresh = Record(path=record.path, step=record.step, visit=record.visit, route=record.route, input="in")
        fresh = replace(fresh, role=Role.ITEM, index=self.pick([-1, 0, 2]), quiet=self.draw(st.booleans()))
        ops = (
            Set("", {"status": Status.OPEN.value}),
            Run({"status": RunState.RUNNING.value, "life": 1, "closed": False}),
        )
        states = self.pick([frozenset(RunState), ACTIVE])
        drop = self.pick([(), (record.path,)])
        put = Put(fresh, self.pick(["", self.token()]))
        self.commit(
            Change(Caller(self.token(), states), (*ops, put), drop=drop, context={"user": None}, **self.spans())
        )

    def renew(self) -> None:
        """The keeper renews what is held, and what is not."""
        holdings = [Holding(self.run_id, record.path, record.token) for record in self.claims[-5:]]
        assert self.redis.renew(holdings, LONG) == self.memory.renew(holdings, LONG)

    def chunk(self) -> None:
        """A claim writes to the stream and goes on, a first time or once more."""
        if self.claims:
            record = self.pick(self.claims[-5:])
            guard = Holder(record.path, record.token, self.draw(st.integers(1, 3)))
            self.commit(Change(guard, events=({"type": "chunk", "text": "é"},), **self.spans()))

    def forget(self) -> None:
        """The run is deleted if it has ended."""
        states = frozenset({RunState.SUCCESS, RunState.FAILED})
        assert self.redis.delete(self.run_id, states) == self.memory.delete(self.run_id, states)


_ACTIONS = [History.work] * 12 + [
    History.leave,
    History.leave,
    History.take_over,
    History.take_over,
    History.take_over,
    History.zombie,
    History.again,
    History.again,
    History.resume,
    History.resume,
    History.resume,
    History.cancel,
    History.mail,
    History.travel,
    History.renew,
    History.chunk,
    History.chunk,
    History.forget,
]


@pytest.fixture(scope="module")
def redis_store(redis_server: RedisServer) -> Iterator[RedisStore]:
    store = RedisStore(redis_server.url(), prefix="alike", shards=3)
    yield store
    store.close()


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(graph=graphs(), data=st.data())
def test_one_history_looks_the_same_in_both_stores(redis_store: RedisStore, graph: Graph, data: st.DataObject) -> None:
    """Answers, refusals, headers, records, events, held records and due entries are equal after every step."""
    history = History(MemoryStore(VirtualClock()), redis_store, graph, data.draw)
    history.begin()
    history.compare()
    for number in range(data.draw(st.integers(10, 40))):
        if history.memory.header(history.run_id) is None:
            break
        data.draw(st.sampled_from(_ACTIONS))(history)
        if number % 4 == 0:  # answers are compared every time
            history.compare()
    history.compare()
