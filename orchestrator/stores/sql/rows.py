"""Reads rows as headers and activations, and writes the answer of `rules.apply` as rows.

Names (ids, keys, paths) are stored as JSON writes them between its quotes, which is nearly always as they are. So no
name has a character that a database refuses, and any text may be looked up.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from orchestrator.host import chance
from orchestrator.ports import DueTimer
from orchestrator.rules.apply import Applied
from orchestrator.rules.change import Change, Claimed, RequestGuard
from orchestrator.rules.events import make_events_trimmed
from orchestrator.rules.mailbox import Mailbox
from orchestrator.rules.model import AWAITING, Activation, RunHeader
from orchestrator.rules.replies import REQUEST_MEMORY
from orchestrator.rules.timers import has_timer, is_swept, place_of
from orchestrator.stores.common import SLACK, compact_json, list_header, read_activation, read_due, read_header
from orchestrator.stores.sql import queries as q
from orchestrator.stores.sql.link import Tx

_REMEMBERED = 1_000  # documents of each kind that are not read twice: more than one round of a scheduler finds
_PLAIN = re.compile(r"[ !#-\[\]-~]*")  # what JSON writes as it is: printable ASCII without quotes and backslashes


@dataclass(frozen=True, slots=True)
class Locked:
    """A run under its lock, as far as a change may look at it."""

    header: RunHeader | None  # None where there is no such run
    events: int  # number of its newest event
    activations: Mapping[str, Activation]  # by path: those of the paths asked for that exist
    mailbox: Mailbox  # the mailbox asked for
    now: int  # the store's clock, in ms
    followed_until: int  # ms; readers follow its events until then
    settle_awaited_until: int  # ms; callers wait for it to settle until then
    remembered: str | None = None  # kept beside the header as the answer to this very request


def encode_name(text: str) -> str:
    """Write a name as it is stored."""
    return text if _PLAIN.fullmatch(text) else compact_json(text)[1:-1]


def decode_name(stored: str) -> str:
    """Read a name that `encode_name` wrote."""
    if "\\" not in stored:
        return stored
    text: str = json.loads(f'"{stored}"')
    return text


# A sweep reads what it has found once more under the lock, where it is the same text, but for what was changed since.
@lru_cache(maxsize=_REMEMBERED)
def header(doc: str) -> RunHeader:
    """Read a stored header."""
    return RunHeader.parse(json.loads(doc))


def header_of(run: str, doc: str) -> RunHeader:
    """The header of this row. Raises `ValueNotReadable`."""
    return read_header(decode_name(run), lambda: header(doc))


def listed_header(run: str, doc: str) -> RunHeader:
    """The header of this row, or what stands for it in a list."""
    return list_header(decode_name(run), lambda: header(doc))


def due(run: str, path: str, of: str, doc: str) -> DueTimer:
    """A timer that is due."""
    return read_due(decode_name(run), decode_name(path), lambda: (header(of), activation(doc)))


@lru_cache(maxsize=_REMEMBERED)
def activation(doc: str) -> Activation:
    """Read a stored activation."""
    return Activation.parse(json.loads(doc))


def activation_of(run: str, doc: str) -> Activation:
    """The activation of this row. Raises `ValueNotReadable`."""
    return read_activation(decode_name(run), lambda: activation(doc))


def readable_activation(doc: str) -> Activation | None:
    """The activation of a row; None where it cannot be read."""
    try:
        return activation(doc)
    except Exception:  # noqa: BLE001 - whatever stands there instead
        return None


def pack(doc: Mapping[str, Any]) -> str:
    """Return a document as it is stored."""
    return compact_json(doc)


def columns(of: RunHeader) -> dict[str, Any]:
    """Return the columns that hold a header, except those that never change."""
    return {
        "workflow_id": encode_name(of.workflow_id),
        "resource_id": encode_name(of.resource_id),
        "status": of.status,
        "awaiting": int(of.is_awaiting),
        "updated_at": of.updated_at,
        "settle_count": of.settle_count,
        "doc": pack(of.doc()),
    }


def lock(tx: Tx, run: str, paths: Sequence[str], change: Change | None = None) -> Locked:
    """Lock the run and read these activations, and what the change asks of it, in one round trip."""
    locked = tx.send(q.LOCK, run=run)
    read = tx.send(q.READ, run=run, paths=[encode_name(path) for path in paths])
    update = change.mailbox if change else None
    entries = tx.send(q.MAILBOX, run=run, name=encode_name(update.name)) if update else None
    request = change.guard.id if change and isinstance(change.guard, RequestGuard) else ""
    replies = tx.send(q.REPLY, run=run, id=encode_name(request)) if request else None
    found = locked.fetchall()
    (_, _, now), *activations = read.fetchall()
    mailbox = Mailbox(*map(decode_name, filter(None, entries.fetchall()[0]))) if entries else Mailbox()
    doc, events, followed_until, settle_awaited_until = found[0] if found else ("", 0, 0, 0)
    stored = header_of(run, doc) if found else None
    by_path = {one.path: one for one in (activation_of(run, doc) for _, _, doc in activations)}
    reply = replies.fetchall() if replies else []
    remembered = reply[0][0] if reply else None
    return Locked(stored, events, by_path, mailbox, int(now), followed_until, settle_awaited_until, remembered)


def must_notify(locked: Locked, applied: Applied) -> bool:
    """Return True if readers in other processes wait for this answer."""
    if applied.repeated or locked.header is None:
        return False
    has_settled = applied.header.settle_count != locked.header.settle_count
    return (bool(applied.events) and locked.followed_until > locked.now) or (
        has_settled and locked.settle_awaited_until > locked.now
    )


def write(tx: Tx, run: str, locked: Locked, applied: Applied, max_events: int = 0, max_event_age: int = 0) -> None:
    """Write the header, the activations and the events of an answer, and cut the log by the limits of the change."""
    if applied.repeated:
        return
    first = locked.events + 1
    tx.write(q.UPDATE_RUN, run=run, events=locked.events + len(applied.events), **columns(applied.header))
    if applied.events:
        docs = enumerate(applied.events, first)
        tx.put(q.PUT_EVENTS, [(run, number, locked.now, pack(doc)) for number, doc in docs])
    if applied.displaced:
        tx.put(q.PUT_REPLY, [(run, encode_name(id_), locked.now, reply) for id_, reply in applied.displaced.items()])
    had_timers = locked.header is not None and is_swept(locked.header)
    _write_activations(tx, run, applied.header, list(applied.activations.values()), had_timers=had_timers)
    if applied.displaced and chance() * SLACK < 1:
        tx.send(q.DROP_REPLIES, run=run, old=locked.now - REQUEST_MEMORY)
    if applied.events:  # last, because it looks at what was written: it cannot be one statement with it
        _trim(tx, run, locked, len(applied.events), max_events, max_event_age)


def _trim(tx: Tx, run: str, locked: Locked, new: int, max_events: int, max_event_age: int) -> None:
    """Drop the oldest events, except the newest of them, which marks the gap from now on.

    Chance decides when to look at their age, once in `SLACK` events. If each multiple of `SLACK` decided, a claim might
    be the one to reach it every time: it writes an event too, but knows no limits.
    """
    first, young = locked.events + new - max_events, locked.now - max_event_age
    too_long = max_events and first > SLACK
    too_old = max_event_age and young > 0 and chance() * SLACK < new
    if too_long:
        tx.send(q.DROP_EVENTS, run=run, first=first, slack=SLACK)
    if too_old:
        tx.send(q.DROP_OLD_EVENTS, run=run, young=young)
    if too_long or too_old:
        tx.send(q.MARK_GAP, run=run, doc=pack(make_events_trimmed()))


def run_row(of: RunHeader, events: int) -> tuple[Any, ...]:
    """Return the row of a run that exists."""
    kept = columns(of)
    names = ("workflow_id", "resource_id", "status", "awaiting")
    about = encode_name(of.run_id), encode_name(of.namespace), *(kept[name] for name in names)
    return *about, of.created_at, of.updated_at, of.settle_count, events, kept["doc"]


def drop_gone(
    tx: Tx, run: str, of: RunHeader, stored: Mapping[str, Activation], written: Mapping[str, Activation]
) -> None:
    """Drop the activations that have gone, and the timers of those that have none any more."""
    gone = [encode_name(path) for path, one in written.items() if not one.status]
    had = [path for path, one in written.items() if path in stored and has_timer(of, stored[path])]
    without = [encode_name(path) for path in had if not (written[path].status and has_timer(of, written[path]))]
    if gone:
        tx.send(q.DROP_ACTIVATIONS, run=run, paths=gone)
    if without:
        tx.send(q.DROP_TIMERS, run=run, paths=without)


def write_many(tx: Tx, of_runs: Sequence[tuple[RunHeader, Sequence[Activation]]]) -> None:
    """Write activations, which all exist, of several runs."""
    if of_runs:
        each = [(encode_name(of.run_id), of, kept) for of, activations in of_runs for kept in activations]
        tx.put(q.PUT_ACTIVATIONS, [_activation_row(run, kept) for run, _, kept in each])
        timers = [_timer_row(run, of, kept) for run, of, kept in each if has_timer(of, kept)]
        if timers:
            tx.put(q.PUT_TIMERS, timers)


def _write_activations(tx: Tx, run: str, of: RunHeader, activations: Sequence[Activation], *, had_timers: bool) -> None:
    kept = [activation for activation in activations if activation.status]
    gone = [encode_name(activation.path) for activation in activations if not activation.status]
    if kept:
        tx.put(q.PUT_ACTIVATIONS, [_activation_row(run, activation) for activation in kept])
    if gone:
        tx.write(q.DROP_ACTIVATIONS, run=run, paths=gone)
    if not (is_swept(of) or had_timers):
        return  # its activations have no timers, so there are none to drop
    timers = [_timer_row(run, of, activation) for activation in kept if has_timer(of, activation)]
    without = gone + [encode_name(activation.path) for activation in kept if not has_timer(of, activation)]
    if timers:
        tx.put(q.PUT_TIMERS, timers)
    if without:
        tx.write(q.DROP_TIMERS, run=run, paths=without)


def _activation_row(run: str, activation: Activation) -> tuple[Any, ...]:
    return (
        run,
        encode_name(activation.path),
        activation.status,
        int(activation.status in AWAITING),
        encode_name(activation.label),
        pack(activation.doc()),
    )


def _timer_row(run: str, of: RunHeader, activation: Activation) -> tuple[Any, ...]:
    return run, encode_name(activation.path), encode_name(of.namespace), place_of(activation)


def write_extras(tx: Tx, run: str, change: Change, posted: str) -> None:
    """Write values, patches and mailbox of a change, after what it drops: `posted` is the entry that comes in."""
    # Not with the writes: on PostgreSQL these are one statement, and one may bring back what is dropped here.
    if change.drop_events:
        tx.send(q.DROP_LOG, run=run)
    if change.drop_values:
        tx.send(q.DROP_VALUES, run=run, ids=[encode_name(id_) for id_ in change.drop_values])
    if change.values:
        tx.put(q.PUT_VALUES, [(run, encode_name(key), text) for key, text in change.values.items()])
    _patch(tx, run, change.state, q.PUT_STATE, q.DROP_STATE)
    _patch(tx, run, change.context, q.PUT_CONTEXT, q.DROP_CONTEXT)
    if change.mailbox is not None:
        mailbox = encode_name(change.mailbox.name)
        # The writes of a change may travel as one statement, in which the second would not find what the first wrote.
        if posted and posted != change.mailbox.pop:
            tx.put(q.PUSH_TO_MAILBOX, [(run, mailbox, encode_name(posted))])
        if change.mailbox.pop:
            tx.write(q.POP_FROM_MAILBOX, run=run, name=mailbox, entry=encode_name(change.mailbox.pop))


def _patch(tx: Tx, run: str, patch: Mapping[str, str | None], put: str, drop: str) -> None:
    kept = [(run, encode_name(key), text) for key, text in patch.items() if text is not None]
    gone = [encode_name(key) for key, text in patch.items() if text is None]
    if kept:
        tx.put(put, kept)
    if gone:
        tx.write(drop, run=run, keys=gone)


def package(
    tx: Tx, run: str, of: RunHeader, claimed: Activation, change: Change | None = None
) -> Callable[[], Claimed]:
    """Ask for all that a claimed activation needs. The function returned builds it once the transaction has ended.

    The texts that the claiming change writes are known without asking, so the question can travel with the writes.
    """
    wanted = [id_ for id_ in (claimed.input, claimed.suspend, claimed.resume, *claimed.needs.split()) if id_]
    asked = tx.send_with_writes(q.PACKAGE, run=run, ids=[encode_name(id_) for id_ in wanted])

    def build() -> Claimed:
        found: dict[str, dict[str, str]] = {"value": {}, "state": {}, "context": {}}
        for kind, key, text in asked.fetchall():
            found[kind][decode_name(key)] = text
        values, state, context = found["value"], found["state"], found["context"]
        if change is not None:
            # A stored value stays when it is written again; of state and context, the later text counts.
            values = {id_: text for id_ in wanted if (text := values.get(id_, change.values.get(id_))) is not None}
            state, context = _patched(state, change.state), _patched(context, change.context)
        return Claimed(of, claimed, values, state, context)

    return build


def _patched(stored: dict[str, str], patch: Mapping[str, str | None]) -> dict[str, str]:
    return {key: text for key, text in {**stored, **patch}.items() if text is not None}
