"""The commits of workers and users, built by the engine's own commands, with user code that is data.

The behaviour of a node stands in its `body`, in place of a function. The commands of `orchestrator/rules` turn it into
changes, called as the engine calls them. Nothing here carries messages or makes time pass.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.definitions.definition import Definition
from orchestrator.engine.read.value_reader import Values
from orchestrator.ports import Store
from orchestrator.rules import attempt_commands, commands, flow, iterations, reports, values
from orchestrator.rules.change import Change, Claimed, UpdateActivation
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
from orchestrator.rules.mailbox import MailboxUpdate
from orchestrator.rules.model import Activation, ActivationStatus, Phase, Report, RunHeader, StoredStatus, is_report
from orchestrator.rules.pending_resumes import Progress
from orchestrator.rules.plan import ClaimedNode, Done, Failed, Plan
from orchestrator.rules.value_ids import make_items_prefix

LEASE = 30_000
REDELIVERY_DELAY = 10_000
LIMITS = CommitLimits(LEASE, REDELIVERY_DELAY)
RUN = "run"
NAMESPACE = "simulation"
FINGERPRINT = "fingerprint"
MAX_ABANDONED = 3
DEFERRAL = 5_000
EVENT = "event"
NOTES = "notes"  # a key of the run's state
AGAIN = "again"  # resume data on which a step suspends once more

Fresh = Callable[[], str]


@dataclass(frozen=True)
class Act:
    """The behaviour of a step."""

    fails: int = 0  # how many attempts fail before one ends well
    suspends: int = 0  # not zero: it suspends until it is resumed
    label: str = ""  # it suspends under this and its path
    closes: str = ""  # "bail" or "abort": it closes the run
    notes: bool = False  # it appends its path to the run's state, by a function of what it has read there
    bad: frozenset[int] = frozenset()  # as the body of a foreach: the items for which it fails, whatever its retries


@dataclass(frozen=True)
class Reports:
    """Those that are told how the run settles."""

    told: reports.Told = reports.NOBODY
    fails: int = 0  # how many attempts at each fail before one ends well


@dataclass(frozen=True)
class Items:
    """The input of a foreach: it finds so many items."""

    count: int


@dataclass(frozen=True)
class Arms:
    """The conditions of a branch, of which these hold."""

    chosen: tuple[int, ...]


@dataclass(frozen=True)
class Times:
    """The condition of a loop: it runs its body so many times."""

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


def new_header(runtime: str = "celery") -> RunHeader:
    """The header of a pending run."""
    return RunHeader(run_id=RUN, workflow_id="workflow", fingerprint=FINGERPRINT, namespace=NAMESPACE, runtime=runtime)


def start_change(of: Graph, header: RunHeader, fresh: Fresh, *, delay: int = 0, by: str = "") -> Change:
    """The run begins, at once or later. A user of a name begins it with state and context and a resource of its own."""
    kept = {by: _text(by)} if by else {}
    texts = StoredTexts({"input": _text("input")}, kept, kept)
    begins = replace(header, resource_id=by)
    return commands.start(of, begins, "input", fresh(), texts, LIMITS, delay=delay)


def resume_change(header: RunHeader, activation: Activation, fresh: Fresh) -> Change:
    """A user resumes the activation as it was read."""
    return resume_all(header, [activation], fresh)


def resume_all(
    header: RunHeader,
    activations: Sequence[Activation],
    fresh: Fresh,
    *,
    data: str = "data",
    per_step: bool = False,
    context: Mapping[str, str | None] | None = None,
) -> Change:
    """A user resumes these activations, which were read together, or lets a paused run go on."""
    data_ids = {activation.path: data for activation in activations if activation.status != ActivationStatus.PAUSED}
    texts = StoredTexts({data: _text(data)} if data_ids else {}, context=context or {})
    return commands.resume(header, activations, data_ids, fresh(), texts, LIMITS, per_step=per_step)


def cancel_change(
    header: RunHeader, fresh: Fresh, *, begun: bool = True, told: reports.Told = reports.NOBODY
) -> Change:
    """A user cancels the run, without knowing its workflow. `begun` says that its own activation has been seen."""
    told = replace(told, hooks_here=False)
    return commands.cancel(header, fresh(), has_begun=begun, told=told, token=fresh(), limits=LIMITS)


def send_change(entries: Sequence[str], waiting: Activation | None, value: str, fresh: Fresh) -> Change:
    """A user sends an event, having read the first of the mailbox, and the activation if that is a wait."""
    texts = StoredTexts({value: _text(value)})
    return commands.send_event(EVENT, next(iter(entries), ""), waiting, value, fresh(), texts, LIMITS)


def _text(value: Any) -> str:
    return values.own(json.dumps(value))


# --- a claimed activation -------------------------------------------------------------------------------------


def changes(
    of: Graph,
    store: Store,
    claimed: Claimed,
    fresh: Fresh,
    *,
    inline: bool = False,
    entries: Sequence[str] = (),
    tells: Reports = Reports(),
    keep: int = 0,
) -> list[Change]:
    """The commits of one claimed activation, in order: pages of item values, then its outcome.

    `entries` is the first of the mailbox as the worker has read it, if the activation awaits an event. Of the finished
    iterations of a loop the newest `keep` keep their values, or all.
    """
    activation, header = claimed.activation, claimed.header
    claim = ClaimedNode(of, header, activation, fresh(), inline)
    pages: list[Change] = []
    written: dict[str, str] = {}
    mail: MailboxUpdate | None = None
    if is_report(activation.path):
        plan = _report(claim, tells, written)
    elif activation.phase == Phase.SETTLE:
        plan = _settle(claim, tells)
    elif attempt_commands.must_give_up(activation):
        plan = attempt_commands.give_up(claim, "lost")
        written["lost"] = _text("lost")
    elif activation.phase == Phase.FAN_OUT:
        plan = _split(claim, store, pages)
    elif activation.phase == Phase.AWAIT_EVENT:
        plan, mail = attempt_commands.await_event(claim, next(iter(entries), ""))
    elif activation.phase == Phase.EVENT_TIMEOUT:
        plan, mail = attempt_commands.time_out_event(claim, "late")
        written["late"] = _text("late")
    elif activation.phase == Phase.EVALUATE_LOOP:
        plan = _check(claim, store, keep)
    else:
        plan = _plan(claim, store, written)
    outcome = _outcome(activation, plan, written, mail, fresh())
    return [*pages, _note(outcome, claimed) if _has_noted(claim, plan) else outcome]


def _has_noted(claim: ClaimedNode, plan: Plan) -> bool:
    """Tell whether the step writes a note: it does so in an attempt that ends well."""
    act = act_at(claim.graph, claim.activation)
    done = {"status": ActivationStatus.SUCCESS.value}
    updates = (op.fields for op in plan.ops if isinstance(op, UpdateActivation) and op.path == claim.activation.path)
    return act is not None and act.notes and any(fields.items() >= done.items() for fields in updates)


def act_at(of: Graph, activation: Activation) -> Act | None:
    """What the step of an activation does; None for a block, for the run's own activation and for a report."""
    is_node = bool(activation.path) and not is_report(activation.path)
    body = getattr(of.node(activation.at), "body", None) if is_node else None
    return body if isinstance(body, Act) else None


def _note(outcome: Change, claimed: Claimed) -> Change:
    """The outcome with the notes that the worker has read, and one more."""
    notes = (*notes_of(claimed.state), claimed.activation.path)
    return replace(outcome, state=state_of(notes), expect_state=claimed.header.state_version)


def notes_of(state: Mapping[str, str]) -> tuple[str, ...]:
    """The notes in the run's state."""
    return tuple(json.loads(state[NOTES][1:])) if NOTES in state else ()


def state_of(notes: Sequence[str]) -> dict[str, str]:
    """The run's state with these notes."""
    return {NOTES: _text(list(notes))} if notes else {}


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


def _settle(claim: ClaimedNode, tells: Reports) -> Plan:
    status, plan = flow.settled_status(claim.header), flow.on_settled(claim, tells.told)
    is_lost = attempt_commands.is_lost_too_often(claim.activation)
    if status is StoredStatus.SUSPENDED and Report.ON_FINISH in tells.told.hooks and (is_lost or tells.fails):
        plan.ops.append(reports.begin_again(claim, status, is_lost=is_lost))
    return plan


def _report(claim: ClaimedNode, tells: Reports, written: dict[str, str]) -> Plan:
    here = tells.told.hooks_here
    if attempt_commands.must_give_up(claim.activation):
        written["lost"] = _text("lost")
        return reports.give_up_report(claim, "lost", here=here)
    if claim.activation.attempt >= tells.fails:
        return reports.on_report_done(claim, here=here)
    return _fail_report(claim, here, written)


def _fail_report(claim: ClaimedNode, here: bool, written: dict[str, str]) -> Plan:
    pause = reports.find_report_pause(claim.activation)
    if pause is not None:
        return reports.retry_report(claim, pause, here=here)
    key = f"{claim.activation.lease_token}!"
    written[key] = _text("untold")
    return reports.give_up_report(claim, key, here=here)


def fail_claim_change(of: Graph, claimed: Claimed, ender: str) -> Change:
    """The commit by which a process ends the claim of its child, which ran into a time limit; it claims nothing."""
    claim = ClaimedNode(of, claimed.header, claimed.activation, "")
    written: dict[str, str] = {}
    is_node = not is_report(claimed.activation.path)
    plan = _fail(claim, "time", written) if is_node else _fail_report(claim, False, written)
    return _outcome(claimed.activation, plan, written, None, "", ender)


def defer_change(claimed: Claimed) -> Change:
    """The commit by which a worker that has another graph gives the claim back."""
    delay = attempt_commands.find_deferral(claimed.header, claimed.activation, DEFERRAL)
    return attempt_commands.defer_unrunnable(claimed.activation, "another graph", delay)


def flush_change(claimed: Claimed, number: int) -> Change:
    """The commit by which a step that runs appends to its stream."""
    return attempt_commands.flush_events(claimed.activation, number, [{"type": "chunk", "number": number}], LIMITS)


def _split(claim: ClaimedNode, store: Store, pages: list[Change]) -> Plan:
    node, activation = claim.node, claim.activation
    assert isinstance(node, Foreach)
    assert isinstance(node.body, Items)
    count = node.body.count
    given = plain(store, activation.input)
    prefix = make_items_prefix(activation.path, activation.visit, claim.header.generation)
    if count:
        texts = {f"{prefix}.{n}": _text(item_of(given, n)) for n in range(count)}
        pages.append(attempt_commands.write_items(activation, texts, LIMITS))
    return flow.on_items(claim, Progress(count), node.concurrency or 1)


def _check(claim: ClaimedNode, store: Store, keep: int) -> Plan:
    node, activation = claim.node, claim.activation
    assert isinstance(node, Loop)
    assert isinstance(node.body, Times)
    holds = (activation.iteration < node.body.count) is not node.until
    if not keep or not flow.goes_on(node, holds):
        return flow.on_loop_checked(claim, holds)
    iteration = iterations.FinishedIteration(claim)
    while iteration.paths:
        iteration.add(store.load(RUN, iteration.paths))
    texts = store.values(RUN, [*iteration.manifests, *iterations.find_outgoing(activation, keep)])
    in_use = Values(store.values, RUN).closure(activation.input)
    return flow.on_loop_checked(claim, holds, iterations.release(claim, iteration, keep, texts, in_use))


def _plan(claim: ClaimedNode, store: Store, written: dict[str, str]) -> Plan:
    activation = claim.activation
    node = claim.node
    match Phase(activation.phase), node.body if not isinstance(node, Parallel) else None:
        case Phase.RUN, Act() as act:
            return _run(claim, act, store, written)
        case Phase.VALIDATE_INPUT, _:
            return flow.on_input_valid(claim, Done(activation.input, tuple(activation.needs.split())))
        case Phase.EVALUATE_BRANCH, Arms(chosen=chosen):
            return flow.on_branch_chosen(claim, chosen[:1] if claim.header.per_step else chosen)
        case Phase.START_ITEMS, _:
            return flow.on_items_left(claim)
        case Phase.JOIN, _:
            places = len(node.arms) if isinstance(node, Branch) else activation.total
            return flow.on_children_done(
                claim, store.load(RUN, [f"{activation.path}.{index}" for index in range(places)])
            )
        case Phase.COMPUTE_SLEEP, _:
            return flow.on_sleep_computed(claim, 1.0)
        case Phase.SLEEP_OVER, _:
            return flow.on_sleep_over(claim)
        case Phase.EVENT_RECEIVED, _:
            return flow.on_event(claim, activation.resume)
        case phase, body:
            raise AssertionError(f"{activation.path} cannot do {phase} with {body}")


def _run(claim: ClaimedNode, act: Act, store: Store, written: dict[str, str]) -> Plan:
    activation, node = claim.activation, claim.node
    assert isinstance(node, Step)
    key = activation.lease_token
    if act.suspends and (not activation.resumed or activation.resume == AGAIN):
        written[f"{key}p"] = _text("payload")
        return flow.suspend(claim, f"{key}p", f"{act.label} {activation.path}" if act.label else "")
    if act.closes == "abort":
        return flow.abort(claim)
    if activation.attempt < act.fails or activation.index in act.bad:
        return _fail(claim, error_of(node.id, plain(store, activation.input)), written)
    written[key] = _text(output_of(node.id, plain(store, activation.input)))
    if act.closes == "bail":
        return flow.bail(claim, key)
    return flow.on_result(claim, Done(key))


def _fail(claim: ClaimedNode, error: str, written: dict[str, str]) -> Plan:
    """Retry an attempt that has failed, or let the step fail."""
    pause = attempt_commands.find_retry_pause(claim, 0.0, is_retryable=True)
    if pause is not None:
        return attempt_commands.retry(claim, pause)
    key = f"{claim.activation.lease_token}!"
    written[key] = _text(error)
    return flow.on_result(claim, Failed(key))


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
    """The output of the step of this name for its input."""
    return _short("output", name, given)


def error_of(name: str, given: Any) -> str:
    """The error of the step of this name for its input."""
    return _short("error", name, given)


def item_of(given: Any, index: int) -> str:
    """One item that a foreach finds in its input."""
    return _short("item", str(index), given)
