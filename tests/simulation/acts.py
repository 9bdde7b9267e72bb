"""What a worker does with a claimed activation, without a worker: the engine's sequence over `core.flow`, nothing else.

The behaviour of a node stands in its `body`. It must not know who carries messages, nor when things happen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.core import flow, values
from orchestrator.core.changes import Caller, Change, Claimed, Expect, Holder, Mail, Op, Run, Set, mark
from orchestrator.core.graph import (
    Branch,
    Foreach,
    Graph,
    Loop,
    Nested,
    Node,
    Parallel,
    Retry,
    Route,
    Sleep,
    Step,
    Wait,
)
from orchestrator.core.plan import Done, Failed, Plan, Spot, items_prefix
from orchestrator.core.records import Header, Phase, Record, RunState, Status
from orchestrator.ports import Store

LEASE = 30_000
GRACE = 10_000
RUN = "run"
NAMESPACE = "simulation"
FINGERPRINT = "fingerprint"
MOST_LOST = 3
EVENT = "event"
AGAIN = "again"  # resume data on which a step suspends once more

Fresh = Callable[[], str]


@dataclass(frozen=True)
class Act:
    """What a step does: fails so often before it ends well, suspends until it is resumed, or ends the run by a word.

    As the body of a foreach it fails for the items in `bad`, whatever its retries. `label` and its path are what it
    suspends under.
    """

    fails: int = 0
    suspends: int = 0
    label: str = ""
    word: str = ""
    bad: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Items:
    """How many items a foreach finds."""

    count: int


@dataclass(frozen=True)
class Arms:
    """Which conditions of a branch hold."""

    chosen: tuple[int, ...]


@dataclass(frozen=True)
class Times:
    """How often a loop runs its body."""

    count: int


def step(id_: str, *, retries: int = 0, inline: bool = False, control: bool = False, **act: Any) -> Step:
    """A step with this behaviour."""
    return Step(id_, "STEP", Route(id_), Retry(retries), control, inline, Act(**act))


def parallel(id_: str, *arms: Node, allow_failure: bool = False) -> Parallel:
    """All arms at once."""
    return Parallel(id_, Route(id_), arms, allow_failure)


def branch(id_: str, chosen: tuple[int, ...], *arms: Node) -> Branch:
    """The chosen arms at once."""
    return Branch(id_, Route(id_), arms, Arms(chosen))


def loop(id_: str, times: int, body: Node, *, until: bool = False) -> Loop:
    """The body so many times."""
    return Loop(id_, Route(id_), body, until, Times(times))


def foreach(id_: str, count: int, concurrency: int, body: Step | Nested) -> Foreach:
    """The body for so many items, so many at a time."""
    return Foreach(id_, Route(id_), body, concurrency, Items(count))


def sleep(id_: str, seconds: float | None = 1.0) -> Sleep:
    """A sleep; of no known length, it is computed as it begins."""
    return Sleep(id_, Route(id_), seconds)


def wait(id_: str, timeout: float | None = None, otherwise: Node | None = None) -> Wait:
    """A wait for the event, which is the only one there is."""
    return Wait(id_, Route(id_), EVENT, timeout, otherwise)


def nested(id_: str, *flow_: Node, checks: bool = False) -> Nested:
    """A workflow inside the workflow."""
    return Nested(id_, Route(id_), flow_, checks)


def graph(*flow_: Node) -> Graph:
    """A whole workflow."""
    return Graph("workflow", flow_, "fingerprint")


# --- a run, from the outside ----------------------------------------------------------------------------------


def new_header() -> Header:
    """The header of a pending evented run."""
    return Header(run_id=RUN, workflow_id="workflow", fingerprint=FINGERPRINT, namespace=NAMESPACE, runtime="celery")


def start_change(of: Graph, header: Header, fresh: Fresh) -> Change:
    """The run begins."""
    plan = flow.start(of, header, "input")
    text = values.own(json.dumps("input"))
    guard = Caller(fresh(), frozenset({RunState.PENDING}))
    return Change(guard, tuple(plan.ops), values={"input": text}, events=tuple(plan.events), lease=LEASE, grace=GRACE)


RESUMABLE = frozenset({RunState.SUSPENDED, RunState.PAUSED, RunState.RUNNING})


def resume_change(header: Header, record: Record, fresh: Fresh) -> Change:
    """A user resumes the record as it was read."""
    return resume_all(header, [record], fresh)


def resume_all(
    header: Header, records: Sequence[Record], fresh: Fresh, *, data: str = "data", per_step: bool = False
) -> Change:
    """A user resumes these records, which were read together, or lets a paused run go on."""
    ops: list[Op] = []
    for record in records:
        ops += _unpaused(record) if record.status == Status.PAUSED else flow.resume(record, data)
    expect = tuple(Expect(record.path, record.status, record.seq) for record in records)
    guard = Caller(fresh(), RESUMABLE, life=header.life)
    return Change(guard, (*ops, Run({"per_step": per_step})), expect, lease=LEASE, grace=GRACE)


def _unpaused(record: Record) -> list[Op]:
    ready = {"status": Status.QUEUED}
    return [Set("", {"status": Status.OPEN}), Run({"status": RunState.RUNNING}), Set(record.path, ready)]


def cancel_change(header: Header, fresh: Fresh, *, begun: bool = True) -> Change:
    """A user cancels the run: by its header alone. `begun` says that the run's own record has been seen."""
    fields = {"status": RunState.CANCELED, "outcome": RunState.CANCELED, "closed": True, "error": ""}
    taken = (Set("", {"status": Status.OPEN, "phase": Phase.REST}),) if begun else ()
    guard = Caller(fresh(), RESUMABLE if begun else frozenset({RunState.PENDING}), rests=header.rests)
    return Change(guard, (*taken, Run({**fields, "rests": header.rests + 1})))


def send_change(entries: Sequence[str], waiting: Record | None, value: str, fresh: Fresh) -> Change:
    """A user sends an event, having read the mailbox and, if somebody waits in it, who that is."""
    guard = Caller(fresh(), frozenset({RunState.PENDING, *RESUMABLE}))
    first = first_waiter(entries)
    if not first:
        return Change(guard, values={value: "=1"}, mail=Mail(EVENT, mark(entries), push=value), grace=GRACE)
    gone = Mail(EVENT, mark(entries), pop=first)
    if waiting is None or waiting.status != Status.WAITING or waiting.label != first:
        return Change(guard, mail=gone)
    expect = (Expect(waiting.path, waiting.status, waiting.seq),)
    return Change(guard, tuple(flow.deliver(waiting, value)), expect, {value: "=1"}, mail=gone, grace=GRACE)


def first_waiter(entries: Sequence[str]) -> str:
    """The entry of whoever waits first, in the order of the paths."""
    return min((entry for entry in entries if entry.startswith(flow.WAITER)), key=flow.waiter_path, default="")


# --- a claimed activation -------------------------------------------------------------------------------------


def changes(
    of: Graph, store: Store, claimed: Claimed, fresh: Fresh, *, inline: bool = False, entries: Sequence[str] = ()
) -> list[Change]:
    """The commits of one claimed activation, in order: pages of item values, then its outcome.

    `entries` is what it has read in the mailbox, where it is one that looks.
    """
    record, header = claimed.record, claimed.header
    spot = Spot(of, header, record, fresh(), inline)
    pages: list[Change] = []
    written: dict[str, str] = {}
    mail: Mail | None = None
    if record.lost >= MOST_LOST and record.phase != Phase.REST:
        plan = flow.finish(spot, Failed("lost"))
    elif record.phase == Phase.SPLIT:
        plan = _split(spot, store, pages)
    elif record.phase == Phase.LISTEN:
        plan, mail = _listen(spot, entries)
    elif record.phase == Phase.EXPIRE:
        plan, mail = flow.expired(spot, "late"), Mail(EVENT, pop=record.label)
    else:
        plan = _plan(spot, store, written)
    outcome = Change(
        Holder(record.path, record.token),
        tuple(plan.ops),
        values={**plan.values, **written},
        events=tuple(plan.events),
        mail=mail,
        rest=fresh(),
        rest_now=plan.rest_now,
        lease=LEASE,
        grace=GRACE,
    )
    return [*pages, outcome]


def _listen(spot: Spot, entries: Sequence[str]) -> tuple[Plan, Mail]:
    sent = [entry for entry in entries if not entry.startswith(flow.WAITER)]
    if sent:
        return flow.heard(spot, sent[0]), Mail(EVENT, mark(entries), pop=sent[0])
    return flow.listening(spot), Mail(EVENT, mark(entries), push=flow.waiter(spot.record))


def _split(spot: Spot, store: Store, pages: list[Change]) -> Plan:
    node, record = spot.node, spot.record
    assert isinstance(node, Foreach)
    assert isinstance(node.body, Items)
    count = node.body.count
    given = plain(store, record.input)
    prefix = items_prefix(record.path, record.visit, spot.header.life)
    if count:
        texts = {f"{prefix}.{n}": values.own(json.dumps(item_of(given, n))) for n in range(count)}
        pages.append(Change(Holder(record.path, record.token), values=texts, lease=LEASE))
    return flow.split(spot, count, node.concurrency or 1)


def _plan(spot: Spot, store: Store, written: dict[str, str]) -> Plan:
    record = spot.record
    if record.phase == Phase.REST:
        return flow.rested(spot)
    node = spot.node
    match Phase(record.phase), node.body if not isinstance(node, Parallel) else None:
        case Phase.RUN, Act() as act:
            return _run(spot, act, store, written)
        case Phase.ENTER, _:
            return flow.entered(spot, Done(record.input, tuple(record.needs.split())))
        case Phase.CHOOSE, Arms(chosen=chosen):
            return flow.chosen(spot, chosen[:1] if spot.header.per_step else chosen)
        case Phase.CHECK, Times(count=count):
            assert isinstance(node, Loop)
            return flow.checked(spot, (record.iteration < count) is not node.until)
        case Phase.JOIN, _:
            places = len(node.arms) if isinstance(node, Branch) else record.total
            return flow.joined(spot, store.load(RUN, [f"{record.path}.{index}" for index in range(places)]))
        case Phase.NAP, _:
            return flow.asleep(spot, 1.0)
        case Phase.WAKE, _:
            return flow.awake(spot)
        case Phase.HEAR, _:
            return flow.heard(spot, record.resume)
        case phase, body:
            raise AssertionError(f"{record.path} cannot do {phase} with {body}")


def _run(spot: Spot, act: Act, store: Store, written: dict[str, str]) -> Plan:
    record, node = spot.record, spot.node
    assert isinstance(node, Step)
    key = record.token
    if act.suspends and (not record.resumed or record.resume == AGAIN):
        return flow.suspend(spot, f"{key}p", f"{act.label} {record.path}" if act.label else "")
    if act.word == "abort":
        return flow.abort(spot)
    if record.attempt < act.fails or record.index in act.bad:
        if record.attempt < node.retry.attempts:
            return flow.retry(spot, 1000)
        written[f"{key}!"] = values.own(json.dumps(error_of(node.id, plain(store, record.input))))
        return flow.finish(spot, Failed(f"{key}!"))
    written[key] = values.own(json.dumps(output_of(node.id, plain(store, record.input))))
    if act.word == "bail":
        return flow.bail(spot, key)
    return flow.finish(spot, Done(key))


# --- values ---------------------------------------------------------------------------------------------------


def plain(store: Store, id_: str) -> Any:
    """A stored value with its references followed; None for the empty id."""
    if not id_:
        return None
    found = store.values(RUN, [id_])
    if id_ not in found:
        return f"<no value {id_}>"
    text = found[id_]
    if text.startswith(values.OWN):
        return json.loads(text[1:])
    refs = json.loads(text)
    if isinstance(refs, Mapping):
        return {key: plain(store, ref) for key, ref in refs.items()}
    return [plain(store, ref) for ref in refs]


def _short(kind: str, name: str, given: Any) -> str:
    text = json.dumps([kind, name, given], sort_keys=True)
    return f"{kind}:{name}:{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def output_of(name: str, given: Any) -> str:
    """What the step of this name makes of its input."""
    return _short("output", name, given)


def error_of(name: str, given: Any) -> str:
    """How the step of this name fails for its input."""
    return _short("error", name, given)


def item_of(given: Any, index: int) -> str:
    """One item that a foreach finds in its input."""
    return _short("item", str(index), given)
