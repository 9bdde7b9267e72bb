"""The effect of a claim, a renewal or a `Change` on activations: the reference for every store.

Stores that lock the run (memory, SQL) call these functions with the few activations that the change names. The Redis
scripts do the same on the server, and a property test compares the two on generated histories (decision 5). Only
bookkeeping happens here: comparing guards, counting live and awaiting activations, and stamping, as the table of
`transitions` says. This module must not know graphs: where a run goes is decided in `flow`. It has some 400 lines
because a reader who compares a store with it needs the whole reading of a change in one place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never

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
from orchestrator.rules.mailbox import Mailbox, find_refusal, make_entry
from orchestrator.rules.model import (
    UNSWEPT_RUNTIMES,
    Activation,
    ActivationFields,
    ActivationStatus,
    Phase,
    RunHeader,
    StoredStatus,
    is_report,
    report_counter,
    with_fields,
    with_header_fields,
)
from orchestrator.rules.replies import UNDONE, make_reply, parse_reply
from orchestrator.rules.stamps import Stamps, dispatch_of, start_event
from orchestrator.rules.transitions import ABSENT, TABLE, Claim, Kind, check_run
from orchestrator.rules.value_ids import make_item_id

UNKNOWN = "unknown"  # no such run, or no such activation
ENDED_RUN = "ended"  # the run has settled or is closed, or is not as a request expects it
STALE = "stale"  # the activation has moved on since the message was sent
EARLY = "early"  # its delay is not over
BUSY = "busy"  # a claim has it
ELSEWHERE = "elsewhere"  # the run is at work in its caller's process, and the claim is another runtime's
LOST = "lost"  # the token does not have the lease (any more)
MOVED = "moved"  # something that was read has changed since
STATE = "state"  # the run's state was written since it was read
TAKEN = "taken"  # a live activation stands where a fresh one was to be created


@dataclass(frozen=True, slots=True)
class Applied:
    """Everything to write: the run header, the changed activations, events, and the answer."""

    header: RunHeader
    activations: Mapping[str, Activation]  # by path; those with the status ABSENT are deleted
    events: tuple[Doc, ...] = ()
    dispatches: tuple[Dispatch, ...] = ()
    claimed: str | None = None  # path of the activation that was claimed
    repeated: bool = False  # the change was applied before: nothing is written, and this is the first answer
    left_out: int = 0  # dispatches that this first answer leaves out
    # Answers to callers' requests by their ids, for which the header has no room any more. The store keeps them beside
    # the header, in the place of what it keeps of the same ids, for `REQUEST_MEMORY` from now.
    displaced: Mapping[str, str] = field(default_factory=dict)
    posted: str = ""  # the entry that comes into the mailbox of the change; empty: none


def claim(
    request: ClaimRequest, header: RunHeader | None, activation: Activation | None, now: int
) -> Applied | Refused:
    """Take an activation that is queued, or whose delay is over. A repeat gets the first answer."""
    if header is None or activation is None:
        return Refused(UNKNOWN, header)
    if _is_shut(header, activation.path):
        return Refused(ENDED_RUN, header)
    # A client library may send a claim again after its answer was lost. The token tells it from another worker's claim;
    # otherwise the step would wait for the end of its own lease.
    if activation.status == ActivationStatus.RUNNING and activation.lease_token == request.token:
        return Applied(header, {}, claimed=activation.path, repeated=True)
    if _is_elsewhere(header, activation.path, request.runtime):
        return Refused(ELSEWHERE, header)
    if request.sending:
        return _claim_sent(request, header, activation, now)
    if activation.seq != request.seq:
        return Refused(STALE, header)
    over = activation.deadline <= now
    match TABLE[activation.status].claim:
        case Claim.NEVER:
            return Refused(STALE, header)
        # The first message of a step may be delivered again while the step waits for its next attempt. It must not skip
        # the delay.
        case Claim.AT_DEADLINE if not over:
            return Refused(EARLY, header)
        # Also one whose lease is over: a store that was away lets every lease run out, and a copy of the message may
        # be the first to come after that. The sweep knows of it, and lets who lives renew.
        case Claim.HELD:
            return Refused(BUSY, header)
        case Claim.AT_ONCE | Claim.AT_DEADLINE:
            pass
        case unknown:
            assert_never(unknown)
    # Who sends a task is known by its message. Who looks after one that was sent leaves that message as it is.
    fields: ActivationFields = {"status": ActivationStatus.RUNNING}
    if activation.sending and activation.phase == Phase.RUN:
        fields["sender"] = request.token
    return _take(request, header, activation, fields, now)


def _claim_sent(request: ClaimRequest, header: RunHeader, activation: Activation, now: int) -> Applied | Refused:
    """Take the activation of a task by what was sent for it: only by the present message of the present sending."""
    is_present = activation.sending == request.sending and activation.sender == request.sender
    if not is_present or TABLE[activation.status].kind is not Kind.LIVE:
        return Refused(STALE, header)
    fields: ActivationFields = {
        "status": ActivationStatus.RUNNING,
        "phase": Phase.EXECUTE,
        "sender": request.token,
    }
    return _take(request, header, activation, fields, now)


def _take(
    request: ClaimRequest, header: RunHeader, activation: Activation, fields: ActivationFields, now: int
) -> Applied:
    work = _Work(header, {activation.path: activation}, Stamps(now, request.lease, 0))
    work.put(activation, fields, request.token, 0)
    return work.result()


def renew(
    header: RunHeader | None, activation: Activation | None, path: str, token: str, lease: int, now: int
) -> Activation | Refused:
    """Extend the lease of a claim, also one that is over, as long as no worker has taken the activation over.

    After an outage of the store every lease is over at once, while nearly every worker is alive. Their heartbeats save
    what has not been touched. A renewal is no commit, so the number of the run's commits stays. A sweep that had read
    the activation before is refused by the deadline that it expects.
    """
    if header is None:
        return Refused(UNKNOWN)
    if reason := _lease_refusal(header, activation, path, token):
        return Refused(reason, header)
    assert activation is not None
    return replace(activation, deadline=now + lease, lease=lease)


def _is_shut(header: RunHeader, path: str) -> bool:
    """Tell whether nothing may go on at `path`: the run has settled, or it is closed and this is not its settling.

    A report tells of a settling that is recorded, so it goes on whatever has become of the run since.
    """
    if is_report(path):
        return False
    return header.status != StoredStatus.RUNNING or (header.closed and path != "")


def _is_elsewhere(header: RunHeader, path: str, runtime: str) -> bool:
    """Tell whether a claim by this runtime would leave the run without anybody who looks after it.

    Nobody sweeps the timers of a run in its caller's process, so a worker that died with a claim of it would be missed
    by nobody. No command leaves a message behind that could make such a claim (`ownership.adopt`), but whoever may
    publish can write one. The other way round all is well: the timers of what is claimed are swept. A report is told by
    whoever can, wherever the run goes on by then: nobody else has its message.
    """
    return header.runtime in UNSWEPT_RUNTIMES and runtime not in ("", header.runtime) and not is_report(path)


def _lease_refusal(header: RunHeader, activation: Activation | None, path: str, token: str) -> str:
    """Return the reason why `token` does not have the lease of the activation; empty where it does.

    The token alone counts, not the number that the message named. Two claims of one message have the same number, and
    the worker of the first may wake up after the second has taken over (decision 3).
    """
    if _is_shut(header, path):
        return ENDED_RUN
    return (
        LOST
        if activation is None or activation.status != ActivationStatus.RUNNING or activation.lease_token != token
        else ""
    )


def apply(
    change: Change,
    header: RunHeader | None,
    activations: Mapping[str, Activation],
    mail: Mailbox,
    now: int,
    remembered: str | None = None,
) -> Applied | Refused:
    """Compare the guards of `change` and return what to write, or the reason why it is refused.

    `activations` has what exists of `change.reads()`; `mail` is what the mailbox that the change names has in it;
    `remembered` is what the store keeps beside the header as the answer to this very request, if it keeps any.
    """
    if header is None:
        return Refused(UNKNOWN)
    guarded = _guard(change, header, activations, remembered)
    if guarded is not None:
        return guarded
    if change.mailbox is not None and (reason := find_refusal(change.mailbox, mail)):
        return Refused(reason, header)
    # What a step has computed from the state that it has read would undo what another has written there meanwhile.
    if change.expect_state not in (None, header.state_version):
        return Refused(STATE, header)
    # A fresh activation over a live one would leave two claims of one activation, or count it twice.
    standing = activations.keys() - set(change.drop)
    if any(
        isinstance(op, CreateActivation) and op.activation.path in standing and activations[op.activation.path].live
        for op in change.ops
    ):
        return Refused(TAKEN, header)
    work = _Work(header, dict(activations), Stamps(now, change.lease, change.redelivery_delay))
    if change.state:
        work.write_state(change.guard)
    work.drop(change.drop)
    for event in change.events:
        work.events.append(event)
    for op in change.ops:
        work.do(op)
    work.settle(change.settle_token, change.settle_now)
    made = work.result(change.guard)
    return made if change.mailbox is None else replace(made, posted=make_entry(change.mailbox, mail))


def _guard(
    change: Change, header: RunHeader, activations: Mapping[str, Activation], remembered: str | None
) -> Applied | Refused | None:
    match change.guard:
        case LeaseGuard(path=path, token=token, flush_seq=flush_seq, ender=ender):
            activation = activations.get(path)
            # The answer to a commit may be lost on the way. A lease ends by one commit only, so a commit under the
            # token that ended last is that one, sent again.
            if activation is not None and activation.last_lease_token == (ender or token):
                return _first_answer(header, activations, activation.last_reply)
            if reason := _lease_refusal(header, activation, path, token):
                return Refused(reason, header)
            # Flushes come one after the other, so a lower number is a flush that was sent again.
            if flush_seq and activation is not None and flush_seq <= activation.flush_seq:
                return Applied(header, {}, repeated=True)
        case RequestGuard(id=id_) as guard:
            # Of each caller one answer is enough: it repeats a change before it makes another. But others may come
            # between a change and its repeat, so the header alone does not do.
            answer = header.last_reply if id_ and header.last_request_id == id_ else remembered
            if id_ and answer is not None:
                return Refused(ENDED_RUN, header) if answer == UNDONE else _first_answer(header, activations, answer)
            if reason := _request_refusal(guard, header):
                return Refused(reason, header)
            if id_ and _is_too_late(change, header):
                return Refused(ENDED_RUN, header)
    if not all(_holds(expect, activations.get(expect.path)) for expect in change.expect):
        return Refused(MOVED, header)
    return None


def _request_refusal(guard: RequestGuard, header: RunHeader) -> str:
    """Return the reason why the run is not as the guard has it; empty where it is."""
    if (
        header.status not in guard.statuses
        or guard.generation not in (None, header.generation)
        or guard.settle_count not in (None, header.settle_count)
    ):
        return ENDED_RUN
    return "" if guard.commits in (None, header.commits) else MOVED


def _is_too_late(change: Change, header: RunHeader) -> bool:
    """Tell whether a resume has come into a closed run: it would take the settling away, and nothing else follows."""
    inside = (expect.path for expect in change.expect if not is_report(expect.path))
    return header.closed and header.status == StoredStatus.RUNNING and any(inside)


def _holds(expect: Precondition, activation: Activation | None) -> bool:
    if activation is None or activation.status != expect.status or activation.seq != expect.seq:
        return False
    return expect.deadline is None or activation.deadline == expect.deadline


def _first_answer(header: RunHeader, activations: Mapping[str, Activation], answer: str) -> Applied:
    """Answer as when the change was applied. A claim that the change made is part of the answer as long as it lasts."""
    reply = parse_reply(answer)
    claimed = reply.claimed
    activation = activations.get(claimed) if claimed is not None else None
    if activation is None or activation.status != ActivationStatus.RUNNING or activation.lease_token != reply.token:
        claimed = None  # another worker has taken it over, or it has ended
    if reply.settle_count is not None:
        # A caller waits for the next settling after its own change, which may have come before the repeat.
        header = replace(header, settle_count=reply.settle_count)
    return Applied(header, {}, dispatches=reply.dispatches, claimed=claimed, repeated=True, left_out=reply.left_out)


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
    displaced: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.header = with_header_fields(self.header, commits=self.header.commits + 1, updated_at=self.stamps.now)

    def do(self, op: Op) -> None:
        match op:
            case CreateActivation(activation=activation, claim=token, delay=delay):
                self._stop_counting(activation.path)
                self.put(replace(activation, status=ABSENT), {"status": activation.status}, token, delay)
            case UpdateActivation(path=path, fields=fields, claim=token, delay=delay):
                self.put(self.activations[path], fields, token, delay)
            case StartNextItem(path=path, template=template, prefix=prefix):
                self._start_next_item(path, template, prefix)
            case CancelPendingItems(path=path):
                block = self.activations[path]
                # An item has failed. The items that have not begun count as finished now, so the last of the others
                # reaches zero and claims the join.
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
                self._count_down(path, then, event)
            case EmitProgress(path=path, event=event):
                self._emit_progress(self.activations[path], event)
            case UpdateRun(fields=fields, unless=unless):
                # The first failure stays: later ones are what it has led to.
                if not unless or not getattr(self.header, unless):
                    self.header = self._stamp_header(replace(self.header, **fields))
            case _:
                assert_never(op)

    def put(self, activation: Activation, fields: ActivationFields, token: str, delay: int) -> None:
        """Move an activation to what `fields` say, with everything that its new status brings along."""
        before = activation.status
        activation = with_fields(activation, **fields)
        if token:
            activation = replace(activation, status=ActivationStatus.RUNNING.value)
        if "status" in fields or token:
            activation = self._stamp(activation, before, token, delay)
        elif delay:
            activation = replace(activation, deadline=self.stamps.now + delay)
        # A status that is counted as the one before leaves the header as it is, which is copied for each change.
        stays_live = TABLE[before].kind is Kind.LIVE and TABLE[activation.status].kind is Kind.LIVE
        if not stays_live or is_report(activation.path):
            self._count(before, -1, activation.path)
            self._count(activation.status, +1, activation.path)
        self._write(activation)

    def write_state(self, guard: LeaseGuard | RequestGuard) -> None:
        """Give the state a version of its own."""
        # The number says which commit wrote it. After the failover of a store the number may come again, and the token
        # never does.
        token = guard.token if isinstance(guard, LeaseGuard) else guard.id
        self.header = replace(self.header, state_version=f"{self.header.commits}:{token}")

    def drop(self, paths: tuple[str, ...]) -> None:
        # Before the operations: a change may delete an activation and create a fresh one in its place.
        for path in paths:
            self._stop_counting(path)

    def settle(self, token: str, at_once: bool) -> None:
        """Claim the run's settling if nothing is live any more, or at once where a step has ended the run."""
        # The commit that takes the count to zero claims the settling itself. If that were left to a second commit, a
        # crash in between would leave a run in which nothing moves (decision 1).
        root = self.activations.get("")
        if root is None or self.header.status != StoredStatus.RUNNING:
            return
        if at_once or (self.header.live == 0 and root.status == ActivationStatus.OPEN):
            self.put(
                root, {"status": ActivationStatus.QUEUED, "phase": Phase.SETTLE, "abandoned_attempts": 0}, token, 0
            )

    def result(self, guard: LeaseGuard | RequestGuard | None = None) -> Applied:
        dispatches = tuple(self.dispatches)
        if isinstance(guard, LeaseGuard) or (guard is not None and guard.id):  # upkeep is not remembered
            token = self.activations[self.claimed].lease_token if self.claimed is not None else ""
            settle_count = self.header.settle_count if isinstance(guard, RequestGuard) else None
            self._remember(guard, make_reply(dispatches, self.claimed, token, settle_count).text())
        return Applied(
            self.header, self.touched, tuple(self.events), dispatches, self.claimed, displaced=self.displaced
        )

    def _remember(self, guard: LeaseGuard | RequestGuard, answer: str) -> None:
        match guard:
            case RequestGuard(id=id_, undoes=undone):
                before, reply = self.header.last_request_id, self.header.last_reply
                # The request that has created the run is known by its id, and has no answer.
                self.displaced = {before: reply} if reply else {}
                if undone:
                    self.displaced[undone] = UNDONE
                self.header = replace(self.header, last_request_id=id_, last_reply=answer)
            case LeaseGuard(path=path, token=token, flush_seq=flush_seq, ender=ender):
                activation = self.activations[path]
                # A claim that goes on is not remembered by its token: its next commit is another one. Its flushes are
                # told apart by their numbers.
                if activation.lease_token != token:
                    self._write(replace(activation, last_lease_token=ender or token, last_reply=answer))
                elif flush_seq:
                    self._write(replace(activation, flush_seq=flush_seq))

    def _stamp(self, activation: Activation, before: str, token: str, delay: int) -> Activation:
        """Give an activation what the row of its new status says; add its start event and its dispatch."""
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

    def _start_next_item(self, path: str, template: Activation, prefix: str) -> None:
        # The index is read here, inside the commit. If it were read at the claim, two items that end together would
        # start the same one. If a second commit used the index that this one returns, a crash would lose an item.
        block = self.activations[path]
        if block.next_item >= block.total:
            return
        child = f"{path}.{block.next_item}"
        value = make_item_id(prefix, block.next_item)
        self._write(replace(block, next_item=block.next_item + 1))
        item = replace(template, path=child, index=block.next_item, input=value, status=ABSENT)
        self.put(item, {"status": template.status}, "", 0)

    def _count_down(self, path: str, then: UpdateActivation, event: Doc | None) -> None:
        block = self.activations[path]
        block = replace(block, pending_children=block.pending_children - 1)
        self._write(block)
        if event is not None:
            self._emit_progress(block, event)
        # The consequence is in the same commit as the count: the worker of the last child may die right after it.
        if block.pending_children == 0:
            self.do(then)

    def _emit_progress(self, block: Activation, event: Doc) -> None:
        self.events.append(
            {**event, "completed": block.total - block.pending_children - block.never_started, "total": block.total}
        )

    def _stop_counting(self, path: str) -> None:
        """Take the activation at `path` out of the counts: it is deleted or created afresh."""
        old = self.activations.get(path)
        if old is not None:
            self._count(old.status, -1, path)
            gone = replace(old, status=ABSENT)
            self.activations[path] = gone
            self.touched[path] = gone

    def _count(self, status: str, by: int, path: str) -> None:
        # A report keeps no run from settling. It is counted for who waits for a run, and wants the hooks to have been
        # called: those that have failed are tried again later, and nobody waits for that.
        if is_report(path):
            if TABLE[status].claim in (Claim.AT_ONCE, Claim.HELD):
                name = report_counter(path)
                self.header = replace(self.header, **{name: getattr(self.header, name) + by})
            return
        # The run's own activation never counts: the settling would then keep the run from settling.
        kind = TABLE[status].kind if path else Kind.ABSENT
        if kind is Kind.LIVE:
            self.header = replace(self.header, live=self.header.live + by)
        elif kind is Kind.AWAITING:
            self.header = replace(self.header, **{str(status): getattr(self.header, status) + by})

    def _write(self, activation: Activation) -> None:
        self.activations[activation.path] = activation
        self.touched[activation.path] = activation
