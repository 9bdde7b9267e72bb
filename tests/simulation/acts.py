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

from orchestrator.definitions.definition import Definition
from orchestrator.ports import Store
from orchestrator.rules import attempt_commands, commands, flow, values
from orchestrator.rules.change import Change, Claimed, MailboxUpdate
from orchestrator.rules.envelope import CommitLimits, StoredTexts
from orchestrator.rules.graph import (
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
from orchestrator.rules.model import Activation, ActivationStatus, Phase, RunHeader
from orchestrator.rules.plan import ClaimedNode, Done, Failed, Plan, items_prefix

LEASE = 30_000
GRACE = 10_000
LIMITS = CommitLimits(LEASE, GRACE)
RUN = "run"
NAMESPACE = "simulation"
FINGERPRINT = "fingerprint"
MAX_LOST = 3
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


def new_header() -> RunHeader:
    """The header of a pending evented run."""
    return RunHeader(run_id=RUN, workflow_id="workflow", fingerprint=FINGERPRINT, namespace=NAMESPACE, runtime="celery")


def start_change(of: Graph, header: RunHeader, fresh: Fresh, *, delay: int = 0) -> Change:
    """The run begins, at once or later."""
    texts = StoredTexts({"input": _text("input")})
    return commands.start(of, header, "input", fresh(), texts, LIMITS, delay=delay)


def resume_change(header: RunHeader, activation: Activation, fresh: Fresh) -> Change:
    """A user resumes the activation as it was read."""
    return resume_all(header, [activation], fresh)


def resume_all(
    header: RunHeader, activations: Sequence[Activation], fresh: Fresh, *, data: str = "data", per_step: bool = False
) -> Change:
    """A user resumes these activations, which were read together, or lets a paused run go on."""
    data_ids = {activation.path: data for activation in activations if activation.status != ActivationStatus.PAUSED}
    texts = StoredTexts({data: _text(data)} if data_ids else {})
    return commands.resume(header, activations, data_ids, fresh(), texts, LIMITS, per_step=per_step)


def cancel_change(header: RunHeader, fresh: Fresh, *, begun: bool = True) -> Change:
    """A user cancels the run. `begun` says that the run's own activation has been seen."""
    return commands.cancel(header, fresh(), has_begun=begun)


def send_change(entries: Sequence[str], waiting: Activation | None, value: str, fresh: Fresh) -> Change:
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
    activation, header = claimed.activation, claimed.header
    spot = ClaimedNode(of, header, activation, fresh(), inline)
    pages: list[Change] = []
    written: dict[str, str] = {}
    mail: MailboxUpdate | None = None
    if attempt_commands.must_give_up(activation):
        plan = attempt_commands.give_up(spot, "lost")
        written["lost"] = _text("lost")
    elif activation.phase == Phase.FAN_OUT:
        plan = _split(spot, store, pages)
    elif activation.phase == Phase.AWAIT_EVENT:
        plan, mail = attempt_commands.await_event(spot, entries)
    elif activation.phase == Phase.EVENT_TIMEOUT:
        plan, mail = attempt_commands.time_out_event(spot, "late")
        written["late"] = _text("late")
    else:
        plan = _plan(spot, store, written)
    return [*pages, _outcome(activation, plan, written, mail, fresh())]


def _outcome(
    activation: Activation,
    plan: Plan,
    written: Mapping[str, str],
    mail: MailboxUpdate | None,
    token: str,
    ender: str = "",
) -> Change:
    return attempt_commands.commit_outcome(
        activation, plan, StoredTexts(written), LIMITS, mail=mail, settle_token=token, ender=ender
    )


def settled_for(of: Graph, claimed: Claimed, ender: str) -> Change:
    """The commit by which a process ends the claim of its child, which ran into a time limit; it claims nothing."""
    spot = ClaimedNode(of, claimed.header, claimed.activation, "")
    written: dict[str, str] = {}
    plan = _fail(spot, "time", written)
    return _outcome(claimed.activation, plan, written, None, "", ender)


def deferred(claimed: Claimed) -> Change:
    """The commit by which a worker that has another graph gives the claim back."""
    delay = attempt_commands.find_deferral(claimed.header, claimed.activation, DEFERRAL)
    return attempt_commands.defer_unrunnable(claimed.activation, "another graph", delay)


def flushed(claimed: Claimed, number: int) -> Change:
    """The commit by which a step that is at work appends to its stream."""
    return attempt_commands.flush_events(claimed.activation, number, [{"type": "chunk", "number": number}], LIMITS)


def _split(spot: ClaimedNode, store: Store, pages: list[Change]) -> Plan:
    node, activation = spot.node, spot.activation
    assert isinstance(node, Foreach)
    assert isinstance(node.body, Items)
    count = node.body.count
    given = plain(store, activation.input)
    prefix = items_prefix(activation.path, activation.visit, spot.header.generation)
    if count:
        texts = {f"{prefix}.{n}": _text(item_of(given, n)) for n in range(count)}
        pages.append(attempt_commands.write_items(activation, texts, LIMITS))
    return flow.on_items(spot, count, node.concurrency or 1)


def _plan(spot: ClaimedNode, store: Store, written: dict[str, str]) -> Plan:
    activation = spot.activation
    if activation.phase == Phase.SETTLE:
        return flow.on_settled(spot)
    node = spot.node
    match Phase(activation.phase), node.body if not isinstance(node, Parallel) else None:
        case Phase.RUN, Act() as act:
            return _run(spot, act, store, written)
        case Phase.VALIDATE_INPUT, _:
            return flow.on_input_valid(spot, Done(activation.input, tuple(activation.needs.split())))
        case Phase.EVALUATE_BRANCH, Arms(chosen=chosen):
            return flow.on_branch_chosen(spot, chosen[:1] if spot.header.per_step else chosen)
        case Phase.EVALUATE_LOOP, Times(count=count):
            assert isinstance(node, Loop)
            return flow.on_loop_checked(spot, (activation.iteration < count) is not node.until)
        case Phase.JOIN, _:
            places = len(node.arms) if isinstance(node, Branch) else activation.total
            return flow.on_children_done(
                spot, store.load(RUN, [f"{activation.path}.{index}" for index in range(places)])
            )
        case Phase.COMPUTE_SLEEP, _:
            return flow.on_sleep_computed(spot, 1.0)
        case Phase.SLEEP_OVER, _:
            return flow.on_sleep_over(spot)
        case Phase.EVENT_RECEIVED, _:
            return flow.on_event(spot, activation.resume)
        case phase, body:
            raise AssertionError(f"{activation.path} cannot do {phase} with {body}")


def _run(spot: ClaimedNode, act: Act, store: Store, written: dict[str, str]) -> Plan:
    activation, node = spot.activation, spot.node
    assert isinstance(node, Step)
    key = activation.lease_token
    if act.suspends and (not activation.resumed or activation.resume == AGAIN):
        written[f"{key}p"] = _text("payload")
        return flow.suspend(spot, f"{key}p", f"{act.label} {activation.path}" if act.label else "")
    if act.word == "abort":
        return flow.abort(spot)
    if activation.attempt < act.fails or activation.index in act.bad:
        return _fail(spot, error_of(node.id, plain(store, activation.input)), written)
    written[key] = _text(output_of(node.id, plain(store, activation.input)))
    if act.word == "bail":
        return flow.bail(spot, key)
    return flow.on_result(spot, Done(key))


def _fail(spot: ClaimedNode, error: str, written: dict[str, str]) -> Plan:
    """An attempt has failed."""
    pause = attempt_commands.find_retry_pause(spot, 0.0, is_retryable=True)
    if pause is not None:
        return attempt_commands.retry(spot, pause)
    key = f"{spot.activation.lease_token}!"
    written[key] = _text(error)
    return flow.on_result(spot, Failed(key))


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
