"""The reference reading of a `Change`: what a commit, a claim or a renewal does to activations.

Stores that hold a lock on the run (memory, SQL) call these functions on the few records that the change names; the
Redis script does the same on the server, and one test compares the two on generated histories. Only bookkeeping
happens here: comparing guards, counting live and held activations, and stamping, as the table of `transitions` says. Where
a run goes is decided in `flow`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, assert_never

from orchestrator.rules.change import (
    CancelPendingItems,
    Change,
    ClaimRequest,
    CountDown,
    CreateActivation,
    Dispatch,
    Doc,
    EmitProgress,
    LeaseGuard,
    Op,
    Precondition,
    Refused,
    RequestGuard,
    StartNextItem,
    UpdateActivation,
    UpdateRun,
)
from orchestrator.rules.model import Activation, ActivationStatus, Phase, RunHeader, StoredStatus
from orchestrator.rules.stamps import Stamps, dispatch_of, start_event
from orchestrator.rules.transitions import ABSENT, TABLE, Claim, Kind, check_run

UNKNOWN = "unknown"  # no such run, or no such activation
ENDED_RUN = "ended"  # the run is not active
STALE = "stale"  # the activation has moved on since the message was sent
EARLY = "early"  # its moment has not come
BUSY = "busy"  # a live claim holds it
LOST = "lost"  # the token does not hold the activation (any more)
MOVED = "moved"  # something that was read has changed since
MAILBOX = "mail"  # the mailbox has changed since it was read
TAKEN = "taken"  # a live activation stands where a fresh one was to be put

REMEMBERED = 50  # dispatches that an answer keeps; beyond that a repeat leaves publishing to the due entries


@dataclass(frozen=True, slots=True)
class Applied:
    """Everything to write: the header, the records that changed, what goes away, events, and the answer for the caller.

    `repeated` says that nothing is to be written: the change had been applied before, and this is its first answer.
    """

    header: RunHeader
    activations: Mapping[str, Activation]
    events: tuple[Doc, ...] = ()
    dispatches: tuple[Dispatch, ...] = ()
    claimed: str | None = None
    repeated: bool = False


def claim(ask: ClaimRequest, header: RunHeader | None, activation: Activation | None, now: int) -> Applied | Refused:
    """Take a queued activation, one whose moment has come, or one whose lease is over. A repeat gets the first answer."""
    if header is None or activation is None:
        return Refused(UNKNOWN, header)
    if is_shut(header, activation.path):
        return Refused(ENDED_RUN, header)
    # A client library may send a claim again whose answer was lost: its token tells it from somebody else's.
    if activation.status == ActivationStatus.RUNNING and activation.lease_token == ask.token:
        return Applied(header, {}, claimed=activation.path, repeated=True)
    if activation.seq != ask.seq:
        return Refused(STALE, header)
    over = activation.deadline <= now
    match TABLE[activation.status].claim:
        case Claim.NEVER:
            return Refused(STALE, header)
        # The first message of a step may come twice, the second time when it waits for its next attempt.
        case Claim.AT_DEADLINE if not over:
            return Refused(EARLY, header)
        case Claim.LEASE_OVER if not over or not header.auto_restart:
            return Refused(BUSY, header)
        case Claim.LEASE_OVER:
            activation = replace(activation, abandoned_attempts=activation.abandoned_attempts + 1, restarted=True)
        case Claim.AT_ONCE | Claim.AT_DEADLINE:
            pass
        case unknown:
            assert_never(unknown)
    work = _Work(header, {activation.path: activation}, Stamps(now, ask.lease, 0))
    work.put(activation, {"status": ActivationStatus.RUNNING}, ask.token, 0)
    return work.applied()


def renew(
    header: RunHeader | None, activation: Activation | None, path: str, token: str, lease: int, now: int
) -> Activation | Refused:
    """Push the lease of a claim on. A lease that is over but has not been taken is renewed.

    After the store was away every lease is over at once, and nearly every worker is alive: the heartbeats of those save
    what nobody has touched. A renewal is no commit: the run's number stays, and a sweep that read the activation before is
    refused by the moment that it expects.
    """
    if header is None:
        return Refused(UNKNOWN)
    if reason := _lease_refusal(header, activation, path, token):
        return Refused(reason, header)
    assert activation is not None
    return replace(activation, deadline=now + lease)


def is_shut(header: RunHeader, path: str) -> bool:
    """Tell whether nothing may go on at `path`: the run is at rest, or is closed and this is not its settling."""
    return header.status != StoredStatus.RUNNING or (header.closed and path != "")


def _lease_refusal(header: RunHeader, activation: Activation | None, path: str, token: str) -> str:
    """The reason why `token` does not hold the activation (any more); empty where it does.

    The token alone counts, and not the number that the message named: two claims of one message have the same number,
    and the first of them may wake up when the second holds the activation.
    """
    if is_shut(header, path):
        return ENDED_RUN
    return (
        LOST
        if activation is None or activation.status != ActivationStatus.RUNNING or activation.lease_token != token
        else ""
    )


def apply(
    change: Change, header: RunHeader | None, activations: Mapping[str, Activation], mail: str, now: int
) -> Applied | Refused:
    """Compare the guards of `change` and say what to write.

    `records` holds what exists of `change.reads()`; `mail` is the mark of the mailbox it names.
    """
    if header is None:
        return Refused(UNKNOWN)
    guarded = _guard(change, header, activations)
    if guarded is not None:
        return guarded
    # Sender and listener each read the mailbox before they write: without its mark both could find it empty, one would
    # put the event in it, and the other would wait for ever.
    if change.mailbox is not None and change.mailbox.expect not in (None, mail):
        return Refused(MAILBOX, header)
    # A fresh activation over a live one would leave two claims on one activation, or count it twice.
    standing = activations.keys() - set(change.drop)
    if any(
        isinstance(op, CreateActivation) and op.activation.path in standing and activations[op.activation.path].live
        for op in change.ops
    ):
        return Refused(TAKEN, header)
    work = _Work(header, dict(activations), Stamps(now, change.lease, change.redelivery_delay))
    work.drop(change.drop)
    for event in change.events:
        work.events.append(event)
    for op in change.ops:
        work.do(op)
    work.rest(change.settle_token, change.settle_now)
    return work.applied(change.guard)


def _guard(change: Change, header: RunHeader, activations: Mapping[str, Activation]) -> Applied | Refused | None:
    match change.guard:
        case LeaseGuard(path=path, token=token, flush_seq=part, ender=ender):
            activation = activations.get(path)
            # The answer of a commit may get lost on the way. Its token has ended here by a commit, and by no other: so
            # this is that commit, sent again.
            if activation is not None and activation.last_lease_token == (ender or token):
                return _first_answer(header, activations, activation.last_reply)
            if reason := _lease_refusal(header, activation, path, token):
                return Refused(reason, header)
            # Parts come one after the other, so a lower number is one that was sent again.
            if part and activation is not None and part <= activation.flush_seq:
                return Applied(header, {}, repeated=True)
        case RequestGuard(id=id_, statuses=states, generation=generation, settle_count=settle_count):
            # One answer is enough: a caller repeats a change before it makes another.
            if id_ and header.last_request_id == id_:
                return _first_answer(header, activations, header.last_reply)
            if (
                header.status not in states
                or generation not in (None, header.generation)
                or settle_count not in (None, header.settle_count)
            ):
                return Refused(ENDED_RUN, header)
            if id_ and _is_too_late(change, header):
                return Refused(ENDED_RUN, header)
    if not all(_holds(expect, activations.get(expect.path)) for expect in change.expect):
        return Refused(MOVED, header)
    return None


def _is_too_late(change: Change, header: RunHeader) -> bool:
    """Tell whether a resume comes into a closed run: it would take the rest away, and nothing else follows there."""
    return header.closed and header.status == StoredStatus.RUNNING and any(expect.path for expect in change.expect)


def _holds(expect: Precondition, activation: Activation | None) -> bool:
    if activation is None or activation.status != expect.status or activation.seq != expect.seq:
        return False
    return expect.deadline is None or activation.deadline == expect.deadline


def _first_answer(header: RunHeader, activations: Mapping[str, Activation], answer: str) -> Applied:
    """Answer as the change was answered when it was applied; a claim that it made is told of while it holds."""
    told, claimed, token = json.loads(answer) if answer else ([], None, "")
    held = activations.get(claimed) if claimed is not None else None
    if held is None or held.status != ActivationStatus.RUNNING or held.lease_token != token:
        claimed = None  # somebody else holds it by now, or it has ended
    dispatches = tuple(Dispatch(path, seq, route, delay) for path, seq, route, delay in told)
    return Applied(header, {}, dispatches=dispatches, claimed=claimed, repeated=True)


@dataclass(slots=True)
class _Work:
    """A run in the middle of one change."""

    header: RunHeader
    activations: dict[str, Activation]
    stamps: Stamps
    touched: dict[str, Activation] = field(default_factory=dict)
    events: list[Doc] = field(default_factory=list)
    dispatches: list[Dispatch] = field(default_factory=list)
    claimed: str | None = None

    def __post_init__(self) -> None:
        self.header = replace(self.header, commits=self.header.commits + 1, updated_at=self.stamps.now)

    def do(self, op: Op) -> None:
        match op:
            case CreateActivation(activation=activation, claim=token, delay=delay):
                self._leave(activation.path)
                self.put(replace(activation, status=ABSENT), {"status": activation.status}, token, delay)
            case UpdateActivation(path=path, fields=fields, claim=token, delay=delay):
                self.put(self.activations[path], fields, token, delay)
            case StartNextItem(path=path, template=template, prefix=prefix):
                self._next(path, template, prefix)
            case CancelPendingItems(path=path):
                block = self.activations[path]
                # An item has failed. Those that have not begun are finished by that, so that the last of the others
                # brings the join about.
                never = block.total - block.next_item
                self._write(
                    replace(
                        block,
                        pending_children=block.pending_children - never,
                        next_item=block.total,
                        never_started=block.never_started + never,
                    )
                )
            case CountDown(path=path, then=then, event=event):
                self._down(path, then, event)
            case EmitProgress(path=path, event=event):
                self._tell(self.activations[path], event)
            case UpdateRun(fields=fields, unless=unless):
                # The first failure stands: those that come later are what it has led to.
                if not unless or not getattr(self.header, unless):
                    self.header = self._stamp_header(replace(self.header, **fields))
            case _:
                assert_never(op)

    def put(self, activation: Activation, fields: Mapping[str, Any], token: str, delay: int) -> None:
        """Move `record` to what `fields` say, with all that its new status brings along."""
        before = activation.status
        activation = replace(activation, **fields)
        if token:
            activation = replace(activation, status=ActivationStatus.RUNNING.value)
        if "status" in fields or token:
            activation = self._stamp(activation, before, token, delay)
        elif delay:
            activation = replace(activation, deadline=self.stamps.now + delay)
        self._count(before, -1, activation.path)
        self._count(activation.status, +1, activation.path)
        self._write(activation)

    def drop(self, paths: tuple[str, ...]) -> None:
        for path in paths:
            self._leave(path)

    def rest(self, token: str, at_once: bool) -> None:
        """Claim the run's rest activation if nothing is live any more, or at once where the run ends by a word."""
        # The commit that takes the count to zero claims it itself: were it left to somebody else, a crash in between
        # would leave a run in which nobody moves.
        root = self.activations.get("")
        if root is None or self.header.status != StoredStatus.RUNNING:
            return
        if at_once or (self.header.live == 0 and root.status == ActivationStatus.OPEN):
            self.put(
                root, {"status": ActivationStatus.QUEUED, "phase": Phase.SETTLE, "abandoned_attempts": 0}, token, 0
            )

    def applied(self, guard: LeaseGuard | RequestGuard | None = None) -> Applied:
        dispatches = tuple(self.dispatches)
        if guard is not None:
            told = [[d.path, d.seq, d.route, d.delay] for d in dispatches[:REMEMBERED]]
            token = self.activations[self.claimed].lease_token if self.claimed is not None else ""
            answer = json.dumps([told, self.claimed, token], separators=(",", ":")) if told or token else ""
            self._remember(guard, answer)
        return Applied(self.header, self.touched, tuple(self.events), dispatches, self.claimed)

    def _remember(self, guard: LeaseGuard | RequestGuard, answer: str) -> None:
        match guard:
            case RequestGuard(id=id_):
                if id_:
                    self.header = replace(self.header, last_request_id=id_, last_reply=answer)
            case LeaseGuard(path=path, token=token, flush_seq=part, ender=ender):
                activation = self.activations[path]
                # A claim that goes on has nothing to repeat by: its next commit is another one.
                if activation.lease_token != token:
                    self._write(replace(activation, last_lease_token=ender or token, last_reply=answer))
                elif part:
                    self._write(replace(activation, flush_seq=part))

    def _stamp(self, activation: Activation, before: str, token: str, delay: int) -> Activation:
        """Give the record what the row of its new status says, and tell those who have to know."""
        if activation.status == ActivationStatus.RUNNING:
            self.claimed = activation.path
            if (event := start_event(activation)) is not None:
                self.events.append(event)
        activation = self.stamps.stamp(activation, before, token, delay, self.header.commits)
        if (dispatch := dispatch_of(activation, delay)) is not None:
            self.dispatches.append(dispatch)
        return activation

    def _stamp_header(self, header: RunHeader) -> RunHeader:
        check_run(self.header.status, header.status)
        begun = header.started_at or (self.stamps.now if header.status == StoredStatus.RUNNING else 0)
        return replace(header, started_at=begun, ended_at=self.stamps.now if header.final else 0)

    def _next(self, path: str, template: Activation, prefix: str) -> None:
        # The place is read here, under the lock. Read at the claim, two items that end together would both take it; had
        # it come back from the commit, a crash after it would lose an item.
        block = self.activations[path]
        if block.next_item >= block.total:
            return
        child = f"{path}.{block.next_item}"
        value = f"{prefix}.{block.next_item}"
        self._write(replace(block, next_item=block.next_item + 1))
        item = replace(template, path=child, index=block.next_item, input=value, status=ABSENT)
        self.put(item, {"status": template.status}, "", 0)

    def _down(self, path: str, then: UpdateActivation, event: Doc | None) -> None:
        block = self.activations[path]
        block = replace(block, pending_children=block.pending_children - 1)
        self._write(block)
        if event is not None:
            self._tell(block, event)
        # The consequence is in the same commit as the count. The last child may die right after it.
        if block.pending_children == 0:
            self.do(then)

    def _tell(self, block: Activation, event: Doc) -> None:
        self.events.append(
            {**event, "completed": block.total - block.pending_children - block.never_started, "total": block.total}
        )

    def _leave(self, path: str) -> None:
        """The activation at `path` stops counting: it goes away or is written afresh."""
        old = self.activations.get(path)
        if old is not None:
            self._count(old.status, -1, path)
            gone = replace(old, status=ABSENT)
            self.activations[path] = gone
            self.touched[path] = gone

    def _count(self, status: str, by: int, path: str) -> None:
        # The run's own activation never counts: the settling would then keep the run from settling.
        kind = TABLE[status].kind if path else Kind.ABSENT
        if kind is Kind.LIVE:
            self.header = replace(self.header, live=self.header.live + by)
        elif kind is Kind.AWAITING:
            self.header = replace(self.header, **{str(status): getattr(self.header, status) + by})

    def _write(self, activation: Activation) -> None:
        self.activations[activation.path] = activation
        self.touched[activation.path] = activation
