"""What of a state matters for all that can follow: histories that differ in nothing else meet again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from orchestrator.core import flow
from orchestrator.core.changes import Caller, Change, Claimed, Holder
from orchestrator.core.records import Header, Record
from tests.simulation import acts
from tests.simulation.state import (
    Holds,
    Insists,
    Local,
    Means,
    Parent,
    Read,
    Repeats,
    Sends,
    State,
    Tells,
    Undoes,
    User,
)


def key(state: State, now: int) -> Any:
    """The state with its numbers and tokens renamed, as something that can be compared and hashed."""
    name = _Names(state)
    asked = {local.change.guard for local in state.workers if isinstance(local, Repeats)}
    header = state.header
    return (
        (header.status, header.outcome, bool(header.failure), header.closed, header.rests > 0),
        (header.life, header.per_step, header.rests > state.awaited),
        tuple(_record_key(record, now, name, asked) for record in state.records),
        tuple(sorted((path, name.number(seq)) for path, seq in state.messages)),
        tuple(sorted((_local_key(local, name, now) for local in state.workers), key=repr)),
        _local_key(state.ticker, name, now),
        state.budget,
        state.ended,
        tuple(map(name.entry, state.mail)),
        tuple(sorted((_user_key(user, header, name) for user in state.users), key=repr)),
    )


class _Names:
    """Numbers by their order, tokens by their first appearance among the records."""

    def __init__(self, state: State) -> None:
        numbers = {record.seq for record in state.records} | {seq for _, seq in state.messages}
        for local in (*state.workers, state.ticker):
            match local:
                case Holds(claimed=claimed):
                    numbers.add(claimed.record.seq)
                case Tells(dispatches=dispatches, claimed=claimed):
                    numbers |= {dispatch.seq for dispatch in dispatches}
                    numbers |= {claimed.record.seq} if claimed else set()
                case Read(record=record):
                    numbers.add(record.seq)
                case _:
                    pass
        for user in state.users:
            numbers.update(_numbers_of(user, state.header))
        self.ranks = {number: rank for rank, number in enumerate(sorted(numbers))}
        self.labels = {record.label for record in state.records if record.label}
        self.tokens = {record.token: record.path for record in state.records if record.token}

    def number(self, seq: int) -> int:
        return self.ranks.get(seq, -1)

    def entry(self, entry: str) -> str:
        """An entry of the mailbox: a value, or whether this waiter still waits."""
        if not entry.startswith(flow.WAITER):
            return entry
        return f"{flow.waiter_path(entry)} {'waits' if entry in self.labels else 'has gone'}"

    def token(self, token: str) -> str:
        """Whose token it is; all that hold nothing are alike."""
        return self.tokens.get(token, "-") if token else ""


def _record_key(record: Record, now: int, name: _Names, asked: set[Any]) -> tuple[Any, ...]:
    was: Any = ""
    if record.was and Holder(record.path, record.was) in asked:
        was = ("asked", *_answer_key(record.answer, name))
    return (
        record.path,
        record.status,
        record.phase,
        record.visit,
        name.number(record.seq),
        bool(record.token),
        was,
        bool(record.due) and record.due <= now,
        (record.attempt, record.lost, record.iteration, record.left, record.next, record.total, record.skipped),
        (record.resumed, record.tripwire, bool(record.label), record.resume == acts.AGAIN),
        (record.part, bool(record.parked)),
        tuple(id_ for id_ in (record.resume, record.output) if id_.startswith("v")),
    )


def _answer_key(answer: str, name: _Names) -> tuple[Any, ...]:
    told, claimed, token = json.loads(answer) if answer else ([], None, "")
    return tuple((path, name.number(seq)) for path, seq, _, _ in told), claimed, name.token(token)


# --- who is in the middle of something ------------------------------------------------------------------------


def _local_key(local: Local, name: _Names, now: int) -> Any:
    match local:
        case None:
            return ()
        case Holds(claimed=claimed, at=at, mail=mail, flushed=flushed, unheard=unheard):
            read = None if mail is None else tuple(map(name.entry, mail))
            return ("holds", *_claim_key(claimed, name), at, read, flushed, unheard is not None)
        case Tells(dispatches=dispatches, claimed=claimed):
            told = tuple(sorted((dispatch.path, name.number(dispatch.seq)) for dispatch in dispatches))
            return ("tells", told, _claim_key(claimed, name) if claimed else ())
        case Repeats(change=change):
            guard = change.guard
            assert isinstance(guard, Holder)
            return ("repeats", guard.path, name.token(guard.token))
        case Read(record=record):
            return ("read", record.path, record.status, name.number(record.seq), record.due <= now)


def _claim_key(claimed: Claimed, name: _Names) -> tuple[Any, ...]:
    record, header = claimed.record, claimed.header
    mine = name.token(record.token)
    counts = (record.attempt, record.lost, record.iteration, record.resumed, record.resume == acts.AGAIN)
    about = (header.outcome, bool(header.failure), header.life, header.per_step)
    return (record.path, record.phase, record.visit, mine, counts, about)


def _user_key(user: User, header: Header, name: _Names) -> Any:
    match user:
        case Sends(entries=entries, waiting=waiting, value=value):
            about = (waiting.path, waiting.status, name.number(waiting.seq)) if waiting else ()
            return "sends", tuple(map(name.entry, entries)), about, value
        case Means():
            return "means", *_means_key(user, header, name)
        case Undoes(means=means, changes=changes):
            undone = tuple(_undo_key(change, header, name) for change in changes)
            return "undoes", *_means_key(means, header, name), undone
        case Parent(word=word, record=record, change=change):
            read = () if change is None else tuple((e.path, name.number(e.seq), e.due) for e in change.expect)
            held = name.token(change.guard.token) if change and isinstance(change.guard, Holder) else ""
            mine = (record.path, name.number(record.seq), name.token(record.token))
            return "parent", word, *mine, change is None, read, held
        case Insists(means=means):
            known = _answer_key(header.answer, name) if _is_remembered(means, header) else ()
            return "insists", *_means_key(means, header, name), known


def _means_key(means: Means, header: Header, name: _Names) -> tuple[Any, ...]:
    """Lives and rests only ever grow: what matters is whether they still are as they were read."""
    read, ops = means.header, len(means.change.ops)
    same = read.life == header.life, read.rests == header.rests
    records = tuple((record.path, record.status, name.number(record.seq)) for record in means.records)
    return means.word, read.status, same, ops, records


def _undo_key(change: Change, header: Header, name: _Names) -> tuple[Any, ...]:
    assert isinstance(change.guard, Caller)
    same = change.guard.life == header.life, change.guard.rests == header.rests
    return same, len(change.ops), tuple((expect.path, name.number(expect.seq)) for expect in change.expect)


def _is_remembered(means: Means, header: Header) -> bool:
    return isinstance(means.change.guard, Caller) and means.change.guard.id == header.last


def _numbers_of(user: User, header: Header) -> Iterator[int]:
    match user:
        case Sends(waiting=waiting):
            yield from [waiting.seq] if waiting is not None else []
        case Means(records=records):
            yield from (record.seq for record in records)
        case Undoes(means=means, changes=changes):
            yield from (record.seq for record in means.records)
            yield from (expect.seq for change in changes for expect in change.expect)
        case Parent(record=record, change=change):
            yield record.seq
            yield from () if change is None else (expect.seq for expect in change.expect)
        case Insists(means=means):
            yield from (record.seq for record in means.records)
            if _is_remembered(means, header) and header.answer:
                yield from (seq for _, seq, _, _ in json.loads(header.answer)[0])
