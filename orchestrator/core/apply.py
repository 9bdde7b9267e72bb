"""The reference reading of a `Change`: what a commit, a claim or a renewal does to records.

Stores that hold a lock on the run (memory, SQL) call these functions on the few records that the change names; the
Redis script does the same on the server, and one test compares the two on generated histories. Only bookkeeping
happens here: comparing guards, counting live and held records, and stamping, as the table of `transitions` says. Where
a run goes is decided in `flow`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, assert_never

from orchestrator.core.changes import (
    Ask,
    Caller,
    Change,
    Dispatch,
    Doc,
    Down,
    Expect,
    Holder,
    Next,
    Op,
    Put,
    Refused,
    Run,
    Set,
    Shut,
    Tell,
)
from orchestrator.core.records import Header, Phase, Record, RunState, Status
from orchestrator.core.stamps import Stamps, dispatch_of, start_event
from orchestrator.core.transitions import ABSENT, TABLE, Claim, Kind, check_run

UNKNOWN = "unknown"  # no such run, or no such record
ENDED_RUN = "ended"  # the run is not active
STALE = "stale"  # the record has moved on since the message was sent
EARLY = "early"  # its moment has not come
BUSY = "busy"  # a live claim holds it
LOST = "lost"  # the token does not hold the record (any more)
MOVED = "moved"  # something that was read has changed since
MAIL = "mail"  # the mailbox has changed since it was read
TAKEN = "taken"  # a live record stands where a fresh one was to be put

REMEMBERED = 50  # dispatches that an answer keeps; beyond that a repeat leaves publishing to the due entries


@dataclass(frozen=True, slots=True)
class Applied:
    """Everything to write: the header, the records that changed, what goes away, events, and the answer for the caller.

    `repeated` says that nothing is to be written: the change had been applied before, and this is its first answer.
    """

    header: Header
    records: Mapping[str, Record]
    events: tuple[Doc, ...] = ()
    dispatches: tuple[Dispatch, ...] = ()
    claimed: str | None = None
    repeated: bool = False


def claim(ask: Ask, header: Header | None, record: Record | None, now: int) -> Applied | Refused:
    """Take a queued record, one whose moment has come, or one whose lease is over. A repeat gets the first answer."""
    if header is None or record is None:
        return Refused(UNKNOWN, header)
    if is_shut(header, record.path):
        return Refused(ENDED_RUN, header)
    # A client library may send a claim again whose answer was lost: its token tells it from somebody else's.
    if record.status == Status.RUNNING and record.token == ask.token:
        return Applied(header, {}, claimed=record.path, repeated=True)
    if record.seq != ask.seq:
        return Refused(STALE, header)
    over = record.due <= now
    match TABLE[record.status].claim:
        case Claim.NEVER:
            return Refused(STALE, header)
        # The first message of a step may come twice, the second time when it waits for its next attempt.
        case Claim.AT_DEADLINE if not over:
            return Refused(EARLY, header)
        case Claim.LEASE_OVER if not over or not header.auto_restart:
            return Refused(BUSY, header)
        case Claim.LEASE_OVER:
            record = replace(record, lost=record.lost + 1, restarted=True)
        case Claim.AT_ONCE | Claim.AT_DEADLINE:
            pass
        case unknown:
            assert_never(unknown)
    work = _Work(header, {record.path: record}, Stamps(now, ask.lease, 0))
    work.put(record, {"status": Status.RUNNING}, ask.token, 0)
    return work.applied()


def renew(
    header: Header | None, record: Record | None, path: str, token: str, lease: int, now: int
) -> Record | Refused:
    """Push the lease of a claim on. A lease that is over but has not been taken is renewed.

    After the store was away every lease is over at once, and nearly every worker is alive: the heartbeats of those save
    what nobody has touched. A renewal is no commit: the run's number stays, and a sweep that read the record before is
    refused by the moment that it expects.
    """
    if header is None:
        return Refused(UNKNOWN)
    if reason := _lease_refusal(header, record, path, token):
        return Refused(reason, header)
    assert record is not None
    return replace(record, due=now + lease)


def is_shut(header: Header, path: str) -> bool:
    """Tell whether nothing may go on at `path`: the run is at rest, or is closed and this is not its settling."""
    return header.status != RunState.RUNNING or (header.closed and path != "")


def _lease_refusal(header: Header, record: Record | None, path: str, token: str) -> str:
    """The reason why `token` does not hold the record (any more); empty where it does.

    The token alone counts, and not the number that the message named: two claims of one message have the same number,
    and the first of them may wake up when the second holds the record.
    """
    if is_shut(header, path):
        return ENDED_RUN
    return LOST if record is None or record.status != Status.RUNNING or record.token != token else ""


def apply(
    change: Change, header: Header | None, records: Mapping[str, Record], mail: str, now: int
) -> Applied | Refused:
    """Compare the guards of `change` and say what to write.

    `records` holds what exists of `change.reads()`; `mail` is the mark of the mailbox it names.
    """
    if header is None:
        return Refused(UNKNOWN)
    guarded = _guard(change, header, records)
    if guarded is not None:
        return guarded
    # Sender and listener each read the mailbox before they write: without its mark both could find it empty, one would
    # put the event in it, and the other would wait for ever.
    if change.mail is not None and change.mail.expect not in (None, mail):
        return Refused(MAIL, header)
    # A fresh record over a live one would leave two claims on one activation, or count it twice.
    standing = records.keys() - set(change.drop)
    if any(isinstance(op, Put) and op.record.path in standing and records[op.record.path].live for op in change.ops):
        return Refused(TAKEN, header)
    work = _Work(header, dict(records), Stamps(now, change.lease, change.grace))
    work.drop(change.drop)
    for event in change.events:
        work.events.append(event)
    for op in change.ops:
        work.do(op)
    work.rest(change.rest, change.rest_now)
    return work.applied(change.guard)


def _guard(change: Change, header: Header, records: Mapping[str, Record]) -> Applied | Refused | None:
    match change.guard:
        case Holder(path=path, token=token, part=part):
            record = records.get(path)
            # The answer of a commit may get lost on the way. Its token has ended here by a commit, and by no other: so
            # this is that commit, sent again.
            if record is not None and record.was == token:
                return _first_answer(header, records, record.answer)
            if reason := _lease_refusal(header, record, path, token):
                return Refused(reason, header)
            # Parts come one after the other, so a lower number is one that was sent again.
            if part and record is not None and part <= record.part:
                return Applied(header, {}, repeated=True)
        case Caller(id=id_, states=states, life=life, rests=rests):
            # One answer is enough: a caller repeats a change before it makes another.
            if id_ and header.last == id_:
                return _first_answer(header, records, header.answer)
            if header.status not in states or life not in (None, header.life) or rests not in (None, header.rests):
                return Refused(ENDED_RUN, header)
            if id_ and _is_too_late(change, header):
                return Refused(ENDED_RUN, header)
    if not all(_holds(expect, records.get(expect.path)) for expect in change.expect):
        return Refused(MOVED, header)
    return None


def _is_too_late(change: Change, header: Header) -> bool:
    """Tell whether a resume comes into a closed run: it would take the rest away, and nothing else follows there."""
    return header.closed and header.status == RunState.RUNNING and any(expect.path for expect in change.expect)


def _holds(expect: Expect, record: Record | None) -> bool:
    if record is None or record.status != expect.status or record.seq != expect.seq:
        return False
    return expect.due is None or record.due == expect.due


def _first_answer(header: Header, records: Mapping[str, Record], answer: str) -> Applied:
    """Answer as the change was answered when it was applied; a claim that it made is told of while it holds."""
    told, claimed, token = json.loads(answer) if answer else ([], None, "")
    held = records.get(claimed) if claimed is not None else None
    if held is None or held.status != Status.RUNNING or held.token != token:
        claimed = None  # somebody else holds it by now, or it has ended
    dispatches = tuple(Dispatch(path, seq, route, delay) for path, seq, route, delay in told)
    return Applied(header, {}, dispatches=dispatches, claimed=claimed, repeated=True)


@dataclass(slots=True)
class _Work:
    """A run in the middle of one change."""

    header: Header
    records: dict[str, Record]
    stamps: Stamps
    touched: dict[str, Record] = field(default_factory=dict)
    events: list[Doc] = field(default_factory=list)
    dispatches: list[Dispatch] = field(default_factory=list)
    claimed: str | None = None

    def __post_init__(self) -> None:
        self.header = replace(self.header, commits=self.header.commits + 1, updated_at=self.stamps.now)

    def do(self, op: Op) -> None:
        match op:
            case Put(record=record, claim=token, delay=delay):
                self._leave(record.path)
                self.put(replace(record, status=ABSENT), {"status": record.status}, token, delay)
            case Set(path=path, fields=fields, claim=token, delay=delay):
                self.put(self.records[path], fields, token, delay)
            case Next(path=path, template=template, prefix=prefix):
                self._next(path, template, prefix)
            case Shut(path=path):
                block = self.records[path]
                # An item has failed. Those that have not begun are finished by that, so that the last of the others
                # brings the join about.
                never = block.total - block.next
                self._write(replace(block, left=block.left - never, next=block.total, skipped=block.skipped + never))
            case Down(path=path, then=then, event=event):
                self._down(path, then, event)
            case Tell(path=path, event=event):
                self._tell(self.records[path], event)
            case Run(fields=fields, unless=unless):
                # The first failure stands: those that come later are what it has led to.
                if not unless or not getattr(self.header, unless):
                    self.header = self._stamp_header(replace(self.header, **fields))
            case _:
                assert_never(op)

    def put(self, record: Record, fields: Mapping[str, Any], token: str, delay: int) -> None:
        """Move `record` to what `fields` say, with all that its new status brings along."""
        before = record.status
        record = replace(record, **fields)
        if token:
            record = replace(record, status=Status.RUNNING.value)
        if "status" in fields or token:
            record = self._stamp(record, before, token, delay)
        elif delay:
            record = replace(record, due=self.stamps.now + delay)
        self._count(before, -1, record.path)
        self._count(record.status, +1, record.path)
        self._write(record)

    def drop(self, paths: tuple[str, ...]) -> None:
        for path in paths:
            self._leave(path)

    def rest(self, token: str, at_once: bool) -> None:
        """Claim the run's rest activation if nothing is live any more, or at once where the run ends by a word."""
        # The commit that takes the count to zero claims it itself: were it left to somebody else, a crash in between
        # would leave a run in which nobody moves.
        root = self.records.get("")
        if root is None or self.header.status != RunState.RUNNING:
            return
        if at_once or (self.header.live == 0 and root.status == Status.OPEN):
            self.put(root, {"status": Status.QUEUED, "phase": Phase.REST, "lost": 0}, token, 0)

    def applied(self, guard: Holder | Caller | None = None) -> Applied:
        dispatches = tuple(self.dispatches)
        if guard is not None:
            told = [[d.path, d.seq, d.route, d.delay] for d in dispatches[:REMEMBERED]]
            token = self.records[self.claimed].token if self.claimed is not None else ""
            answer = json.dumps([told, self.claimed, token], separators=(",", ":")) if told or token else ""
            self._remember(guard, answer)
        return Applied(self.header, self.touched, tuple(self.events), dispatches, self.claimed)

    def _remember(self, guard: Holder | Caller, answer: str) -> None:
        match guard:
            case Caller(id=id_):
                if id_:
                    self.header = replace(self.header, last=id_, answer=answer)
            case Holder(path=path, token=token, part=part):
                record = self.records[path]
                # A claim that goes on has nothing to repeat by: its next commit is another one.
                if record.token != token:
                    self._write(replace(record, was=token, answer=answer))
                elif part:
                    self._write(replace(record, part=part))

    def _stamp(self, record: Record, before: str, token: str, delay: int) -> Record:
        """Give the record what the row of its new status says, and tell those who have to know."""
        if record.status == Status.RUNNING:
            self.claimed = record.path
            if (event := start_event(record)) is not None:
                self.events.append(event)
        record = self.stamps.stamp(record, before, token, delay, self.header.commits)
        if (dispatch := dispatch_of(record, delay)) is not None:
            self.dispatches.append(dispatch)
        return record

    def _stamp_header(self, header: Header) -> Header:
        check_run(self.header.status, header.status)
        begun = header.started_at or (self.stamps.now if header.status == RunState.RUNNING else 0)
        return replace(header, started_at=begun, ended_at=self.stamps.now if header.final else 0)

    def _next(self, path: str, template: Record, prefix: str) -> None:
        # The place is read here, under the lock. Read at the claim, two items that end together would both take it; had
        # it come back from the commit, a crash after it would lose an item.
        block = self.records[path]
        if block.next >= block.total:
            return
        child = f"{path}.{block.next}"
        value = f"{prefix}.{block.next}"
        self._write(replace(block, next=block.next + 1))
        item = replace(template, path=child, index=block.next, input=value, status=ABSENT)
        self.put(item, {"status": template.status}, "", 0)

    def _down(self, path: str, then: Set, event: Doc | None) -> None:
        block = self.records[path]
        block = replace(block, left=block.left - 1)
        self._write(block)
        if event is not None:
            self._tell(block, event)
        # The consequence is in the same commit as the count. The last child may die right after it.
        if block.left == 0:
            self.do(then)

    def _tell(self, block: Record, event: Doc) -> None:
        self.events.append({**event, "completed": block.total - block.left - block.skipped, "total": block.total})

    def _leave(self, path: str) -> None:
        """The record at `path` stops counting: it goes away or is written afresh."""
        old = self.records.get(path)
        if old is not None:
            self._count(old.status, -1, path)
            gone = replace(old, status=ABSENT)
            self.records[path] = gone
            self.touched[path] = gone

    def _count(self, status: str, by: int, path: str) -> None:
        # The run's own record never counts: the settling would then keep the run from settling.
        kind = TABLE[status].kind if path else Kind.ABSENT
        if kind is Kind.LIVE:
            self.header = replace(self.header, live=self.header.live + by)
        elif kind is Kind.AWAITING:
            self.header = replace(self.header, **{str(status): getattr(self.header, status) + by})

    def _write(self, record: Record) -> None:
        self.records[record.path] = record
        self.touched[record.path] = record
