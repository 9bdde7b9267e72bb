"""What a run is asked to do, by the engine's own commands, with user code that is data.

The behaviour of a node stands in its `body`, in place of a function. What is built of it, and of what users want, are
the core's commands as the engine calls them. Nothing here knows who carries messages, nor when things happen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.core import attempt_commands, commands, flow, values
from orchestrator.core.changes import Change, Claimed, Mail
from orchestrator.core.envelope import CommitLimits, StoredTexts
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
from orchestrator.core.records import Header, Phase, Record, Status
from orchestrator.definitions.definition import Definition
from orchestrator.ports import Store

LEASE = 30_000
GRACE = 10_000
LIMITS = CommitLimits(LEASE, GRACE)
RUN = "run"
NAMESPACE = "simulation"
FINGERPRINT = "fingerprint"
MOST_LOST = 3
DEFERRAL = 5_000
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
    return Step(id_, "STEP", Route(id_), Retry(retries, delay=1.0), control, inline, Act(**act))


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
    return Graph("workflow", flow_, "fingerprint", body=Definition("workflow"))


# --- a run, from the outside ----------------------------------------------------------------------------------


def new_header() -> Header:
    """The header of a pending evented run."""
    return Header(run_id=RUN, workflow_id="workflow", fingerprint=FINGERPRINT, namespace=NAMESPACE, runtime="celery")


def start_change(of: Graph, header: Header, fresh: Fresh, *, delay: int = 0) -> Change:
    """The run begins, at once or later."""
    texts = StoredTexts({"input": _text("input")})
    return commands.start(of, header, "input", fresh(), texts, LIMITS, delay=delay)


def resume_change(header: Header, record: Record, fresh: Fresh) -> Change:
    """A user resumes the record as it was read."""
    return resume_all(header, [record], fresh)


def resume_all(
    header: Header, records: Sequence[Record], fresh: Fresh, *, data: str = "data", per_step: bool = False
) -> Change:
    """A user resumes these records, which were read together, or lets a paused run go on."""
    data_ids = {record.path: data for record in records if record.status != Status.PAUSED}
    texts = StoredTexts({data: _text(data)} if data_ids else {})
    return commands.resume(header, records, data_ids, fresh(), texts, LIMITS, per_step=per_step)


def cancel_change(header: Header, fresh: Fresh, *, begun: bool = True) -> Change:
    """A user cancels the run. `begun` says that the run's own record has been seen."""
    return commands.cancel(header, fresh(), has_begun=begun)


def send_change(entries: Sequence[str], waiting: Record | None, value: str, fresh: Fresh) -> Change:
    """A user sends an event, having read the mailbox and, if somebody waits in it, who that is."""
    texts = StoredTexts({value: _text(value)})
    return commands.send_event(EVENT, entries, waiting, value, fresh(), texts, LIMITS)


def _text(value: Any) -> str:
    return values.own(json.dumps(value))


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
    if attempt_commands.must_give_up(record):
        plan = attempt_commands.give_up(spot, "lost")
        written["lost"] = _text("lost")
    elif record.phase == Phase.SPLIT:
        plan = _split(spot, store, pages)
    elif record.phase == Phase.LISTEN:
        plan, mail = attempt_commands.await_event(spot, entries)
    elif record.phase == Phase.EXPIRE:
        plan, mail = attempt_commands.time_out_event(spot, "late")
        written["late"] = _text("late")
    else:
        plan = _plan(spot, store, written)
    return [*pages, _outcome(record, plan, written, mail, fresh())]


def _outcome(record: Record, plan: Plan, written: Mapping[str, str], mail: Mail | None, token: str) -> Change:
    return attempt_commands.commit_outcome(record, plan, StoredTexts(written), LIMITS, mail=mail, settle_token=token)


def settled_for(of: Graph, claimed: Claimed) -> Change:
    """The commit by which a process ends the claim of its child, which ran into a time limit; it claims nothing."""
    spot = Spot(of, claimed.header, claimed.record, "")
    written: dict[str, str] = {}
    plan = _fail(spot, "time", written)
    return _outcome(claimed.record, plan, written, None, "")


def deferred(claimed: Claimed) -> Change:
    """The commit by which a worker that has another graph gives the claim back."""
    delay = attempt_commands.find_deferral(claimed.header, claimed.record, DEFERRAL)
    return attempt_commands.defer_unrunnable(claimed.record, "another graph", delay)


def flushed(claimed: Claimed, number: int) -> Change:
    """The commit by which a step that is at work appends to its stream."""
    return attempt_commands.flush_events(claimed.record, number, [{"type": "chunk", "number": number}], LIMITS)


def _split(spot: Spot, store: Store, pages: list[Change]) -> Plan:
    node, record = spot.node, spot.record
    assert isinstance(node, Foreach)
    assert isinstance(node.body, Items)
    count = node.body.count
    given = plain(store, record.input)
    prefix = items_prefix(record.path, record.visit, spot.header.life)
    if count:
        texts = {f"{prefix}.{n}": _text(item_of(given, n)) for n in range(count)}
        pages.append(attempt_commands.write_items(record, texts, LIMITS))
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
        written[f"{key}p"] = _text("payload")
        return flow.suspend(spot, f"{key}p", f"{act.label} {record.path}" if act.label else "")
    if act.word == "abort":
        return flow.abort(spot)
    if record.attempt < act.fails or record.index in act.bad:
        return _fail(spot, error_of(node.id, plain(store, record.input)), written)
    written[key] = _text(output_of(node.id, plain(store, record.input)))
    if act.word == "bail":
        return flow.bail(spot, key)
    return flow.finish(spot, Done(key))


def _fail(spot: Spot, error: str, written: dict[str, str]) -> Plan:
    """An attempt has failed."""
    pause = attempt_commands.find_retry_pause(spot, 0.0, is_retryable=True)
    if pause is not None:
        return attempt_commands.retry(spot, pause)
    key = f"{spot.record.token}!"
    written[key] = _text(error)
    return flow.finish(spot, Failed(key))


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
