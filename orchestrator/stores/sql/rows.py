"""Between rows and records: what a transaction reads of a run, and how it writes what has changed.

Names (ids, keys, paths) are stored as JSON writes them between its quotes, which is nearly always as they are: so none
holds a character that a database refuses, and any text may be looked up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.core.apply import Applied
from orchestrator.core.changes import Change, Claimed, Mail, mark
from orchestrator.core.records import HELD, Header, Record
from orchestrator.core.timers import has_timer, is_swept
from orchestrator.host import chance
from orchestrator.ports import TRIMMED
from orchestrator.stores.common import SLACK
from orchestrator.stores.sql import queries as q
from orchestrator.stores.sql.link import Tx


@dataclass(frozen=True, slots=True)
class Locked:
    """A run under its lock: what a change may look at. Without a header there is no such run."""

    header: Header | None
    events: int
    records: Mapping[str, Record]
    mail: str
    now: int
    followed: int  # until when somebody reads the run's events as they come, in ms
    awaited: int  # until when somebody waits for it to rest


def encode_name(text: str) -> str:
    """Write a name as it is stored."""
    return json.dumps(text)[1:-1]


def decode_name(stored: str) -> str:
    """Read a name that `encode_name` wrote."""
    text: str = json.loads(f'"{stored}"')
    return text


def header(doc: str) -> Header:
    """A stored header."""
    return Header.parse(json.loads(doc))


def record(doc: str) -> Record:
    """A stored record."""
    return Record.parse(json.loads(doc))


def pack(doc: Mapping[str, Any]) -> str:
    """A document as it is stored."""
    return json.dumps(doc, separators=(",", ":"))


def columns(of: Header) -> dict[str, Any]:
    """Return the columns that are stored of a header, except those that never change."""
    return {
        "workflow_id": encode_name(of.workflow_id),
        "resource_id": encode_name(of.resource_id),
        "status": of.status,
        "updated_at": of.updated_at,
        "rests": of.rests,
        "doc": pack(of.doc()),
    }


def lock(tx: Tx, run: str, paths: Sequence[str], mail: Mail | None = None) -> Locked:
    """Lock the run and read what is wanted of it: one round trip."""
    locked = tx.send(q.LOCK, run=run)
    read = tx.send(q.READ, run=run, paths=[encode_name(path) for path in paths])
    letters = tx.send(q.LETTERS, run=run, name=encode_name(mail.name)) if mail else None
    found = locked.fetchall()
    (_, _, now), *records = read.fetchall()
    box = mark([decode_name(value) for (value,) in letters.fetchall()]) if letters else ""
    doc, events, followed, awaited = found[0] if found else ("", 0, 0, 0)
    stored = header(doc) if found else None
    parsed = (record(doc) for _, _, doc in records)
    return Locked(stored, events, {one.path: one for one in parsed}, box, int(now), followed, awaited)


def is_heard(locked: Locked, applied: Applied) -> bool:
    """Tell if somebody waits for what this answer writes."""
    if applied.repeated or locked.header is None:
        return False
    rests = applied.header.rests != locked.header.rests
    return (bool(applied.events) and locked.followed > locked.now) or (rests and locked.awaited > locked.now)


def write(tx: Tx, run: str, locked: Locked, applied: Applied, keep: int = 0, keep_for: int = 0) -> None:
    """Write the header, the records and the events of an answer; the last two say how many events stay, how long."""
    if applied.repeated:
        return
    first = locked.events + 1
    tx.write(q.UPDATE_RUN, run=run, events=locked.events + len(applied.events), **columns(applied.header))
    if applied.events:
        docs = enumerate(applied.events, first)
        tx.put(q.PUT_EVENTS, [(run, number, locked.now, pack(doc)) for number, doc in docs])
    _keep(tx, run, applied.header, list(applied.records.values()))
    if applied.events:  # at last: it looks at what was written, so it cannot be written together with that
        _trim(tx, run, locked, len(applied.events), keep, keep_for)


def _trim(tx: Tx, run: str, locked: Locked, told: int, keep: int, keep_for: int) -> None:
    """The oldest events go, some at a time; the newest of them stays, to mark the gap from now on.

    How old they are is looked at by chance, once in `SLACK` events. Were it at each multiple of that, a claim might be
    the one that gets there every time: it tells an event too, but knows of no limits.
    """
    first, young = locked.events + told - keep, locked.now - keep_for
    too_long = keep and first > SLACK
    too_old = keep_for and young > 0 and chance() * SLACK < told
    if too_long:
        tx.send(q.DROP_EVENTS, run=run, first=first, slack=SLACK)
    if too_old:
        tx.send(q.DROP_OLD_EVENTS, run=run, young=young)
    if too_long or too_old:
        tx.send(q.MARK_GAP, run=run, doc=pack({"type": TRIMMED}))


def keep_many(tx: Tx, of_runs: Sequence[tuple[Header, Sequence[Record]]]) -> None:
    """Write live records of several runs."""
    if of_runs:
        each = [(encode_name(of.run_id), of, kept) for of, records in of_runs for kept in records]
        tx.put(q.PUT_RECORDS, [_row(run, kept) for run, _, kept in each])
        due = [_due_row(run, of, kept) for run, of, kept in each if has_timer(of, kept)]
        if due:
            tx.put(q.PUT_DUE, due)


def _keep(tx: Tx, run: str, of: Header, records: Sequence[Record]) -> None:
    kept = [record for record in records if record.status]
    gone = [encode_name(record.path) for record in records if not record.status]
    if kept:
        tx.put(q.PUT_RECORDS, [_row(run, record) for record in kept])
    if gone:
        tx.write(q.DROP_RECORDS, run=run, paths=gone)
    if not is_swept(of):
        return  # it has never had any, so there is nothing to drop
    due = [_due_row(run, of, record) for record in kept if has_timer(of, record)]
    quiet = gone + [encode_name(record.path) for record in kept if not has_timer(of, record)]
    if due:
        tx.put(q.PUT_DUE, due)
    if quiet:
        tx.write(q.DROP_DUE, run=run, paths=quiet)


def _row(run: str, record: Record) -> tuple[Any, ...]:
    return run, encode_name(record.path), record.status, int(record.status in HELD), pack(record.doc())


def _due_row(run: str, of: Header, record: Record) -> tuple[Any, ...]:
    return run, encode_name(record.path), encode_name(of.namespace), record.due


def write_extras(tx: Tx, run: str, change: Change) -> None:
    """Write the values, patches and mail of a change."""
    if change.values:
        tx.put(q.PUT_VALUES, [(run, encode_name(key), text) for key, text in change.values.items()])
    _patch(tx, run, change.state, q.PUT_STATE, q.DROP_STATE)
    _patch(tx, run, change.context, q.PUT_CONTEXT, q.DROP_CONTEXT)
    if change.mail is not None:
        box = encode_name(change.mail.name)
        if change.mail.push:
            # A letter that is taken out in the same change has to be there by then.
            (tx.send if change.mail.pop else tx.write)(
                q.PUSH_MAIL, run=run, name=box, value=encode_name(change.mail.push)
            )
        if change.mail.pop:
            tx.write(q.POP_MAIL, run=run, name=box, value=encode_name(change.mail.pop))


def _patch(tx: Tx, run: str, patch: Mapping[str, str | None], put: str, drop: str) -> None:
    kept = [(run, encode_name(key), text) for key, text in patch.items() if text is not None]
    gone = [encode_name(key) for key, text in patch.items() if text is None]
    if kept:
        tx.put(put, kept)
    if gone:
        tx.write(drop, run=run, keys=gone)


def package(tx: Tx, run: str, of: Header, claimed: Record, change: Change | None = None) -> Callable[[], Claimed]:
    """Ask for all that a claimed activation needs; put together once the transaction has ended.

    What the claiming change itself writes is known without asking, so the question can travel with the writes.
    """
    wanted = [id_ for id_ in (claimed.input, claimed.suspend, claimed.resume, *claimed.needs.split()) if id_]
    asked = tx.send_with_writes(q.PACKAGE, run=run, ids=[encode_name(id_) for id_ in wanted])

    def put_together() -> Claimed:
        found: dict[str, dict[str, str]] = {"value": {}, "state": {}, "context": {}}
        for kind, key, text in asked.fetchall():
            found[kind][decode_name(key)] = text
        values, state, context = found["value"], found["state"], found["context"]
        if change is not None:
            # A stored value stays when it is written again; of state and context, the later text counts.
            values = {id_: text for id_ in wanted if (text := values.get(id_, change.values.get(id_))) is not None}
            state, context = _patched(state, change.state), _patched(context, change.context)
        return Claimed(of, claimed, values, state, context)

    return put_together


def _patched(stored: dict[str, str], patch: Mapping[str, str | None]) -> dict[str, str]:
    return {key: text for key, text in {**stored, **patch}.items() if text is not None}
