"""Between rows and activations: what a transaction reads of a run, and how it writes what has changed.

Names (ids, keys, paths) are stored as JSON writes them between its quotes, which is nearly always as they are: so none
holds a character that a database refuses, and any text may be looked up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.host import chance
from orchestrator.ports import TRIMMED
from orchestrator.rules.apply import Applied
from orchestrator.rules.change import Change, Claimed, MailboxUpdate, mailbox_version
from orchestrator.rules.model import AWAITING, Activation, RunHeader
from orchestrator.rules.timers import has_timer, is_swept
from orchestrator.stores.common import SLACK
from orchestrator.stores.sql import queries as q
from orchestrator.stores.sql.link import Tx


@dataclass(frozen=True, slots=True)
class Locked:
    """A run under its lock: what a change may look at. Without a header there is no such run."""

    header: RunHeader | None
    events: int
    activations: Mapping[str, Activation]
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


def header(doc: str) -> RunHeader:
    """A stored header."""
    return RunHeader.parse(json.loads(doc))


def activation(doc: str) -> Activation:
    """A stored activation."""
    return Activation.parse(json.loads(doc))


def pack(doc: Mapping[str, Any]) -> str:
    """A document as it is stored."""
    return json.dumps(doc, separators=(",", ":"))


def columns(of: RunHeader) -> dict[str, Any]:
    """Return the columns that are stored of a header, except those that never change."""
    return {
        "workflow_id": encode_name(of.workflow_id),
        "resource_id": encode_name(of.resource_id),
        "status": of.status,
        "updated_at": of.updated_at,
        "settle_count": of.settle_count,
        "doc": pack(of.doc()),
    }


def lock(tx: Tx, run: str, paths: Sequence[str], mail: MailboxUpdate | None = None) -> Locked:
    """Lock the run and read what is wanted of it: one round trip."""
    locked = tx.send(q.LOCK, run=run)
    read = tx.send(q.READ, run=run, paths=[encode_name(path) for path in paths])
    letters = tx.send(q.MAILBOX, run=run, name=encode_name(mail.name)) if mail else None
    found = locked.fetchall()
    (_, _, now), *activations = read.fetchall()
    box = mailbox_version([decode_name(value) for (value,) in letters.fetchall()]) if letters else ""
    doc, events, followed, awaited = found[0] if found else ("", 0, 0, 0)
    stored = header(doc) if found else None
    parsed = (activation(doc) for _, _, doc in activations)
    return Locked(stored, events, {one.path: one for one in parsed}, box, int(now), followed, awaited)


def is_heard(locked: Locked, applied: Applied) -> bool:
    """Tell if somebody waits for what this answer writes."""
    if applied.repeated or locked.header is None:
        return False
    settle_count = applied.header.settle_count != locked.header.settle_count
    return (bool(applied.events) and locked.followed > locked.now) or (settle_count and locked.awaited > locked.now)


def write(tx: Tx, run: str, locked: Locked, applied: Applied, keep: int = 0, max_event_age: int = 0) -> None:
    """Write the header, the activations and the events of an answer; the last two say how many events stay, how long."""
    if applied.repeated:
        return
    first = locked.events + 1
    tx.write(q.UPDATE_RUN, run=run, events=locked.events + len(applied.events), **columns(applied.header))
    if applied.events:
        docs = enumerate(applied.events, first)
        tx.put(q.PUT_EVENTS, [(run, number, locked.now, pack(doc)) for number, doc in docs])
    _keep(tx, run, applied.header, list(applied.activations.values()))
    if applied.events:  # at last: it looks at what was written, so it cannot be written together with that
        _trim(tx, run, locked, len(applied.events), keep, max_event_age)


def _trim(tx: Tx, run: str, locked: Locked, told: int, keep: int, max_event_age: int) -> None:
    """The oldest events go, some at a time; the newest of them stays, to mark the gap from now on.

    How old they are is looked at by chance, once in `SLACK` events. Were it at each multiple of that, a claim might be
    the one that gets there every time: it tells an event too, but knows of no limits.
    """
    first, young = locked.events + told - keep, locked.now - max_event_age
    too_long = keep and first > SLACK
    too_old = max_event_age and young > 0 and chance() * SLACK < told
    if too_long:
        tx.send(q.DROP_EVENTS, run=run, first=first, slack=SLACK)
    if too_old:
        tx.send(q.DROP_OLD_EVENTS, run=run, young=young)
    if too_long or too_old:
        tx.send(q.MARK_GAP, run=run, doc=pack({"type": TRIMMED}))


def keep_many(tx: Tx, of_runs: Sequence[tuple[RunHeader, Sequence[Activation]]]) -> None:
    """Write live activations of several runs."""
    if of_runs:
        each = [(encode_name(of.run_id), of, kept) for of, activations in of_runs for kept in activations]
        tx.put(q.PUT_ACTIVATIONS, [_row(run, kept) for run, _, kept in each])
        due = [_due_row(run, of, kept) for run, of, kept in each if has_timer(of, kept)]
        if due:
            tx.put(q.PUT_TIMERS, due)


def _keep(tx: Tx, run: str, of: RunHeader, activations: Sequence[Activation]) -> None:
    kept = [activation for activation in activations if activation.status]
    gone = [encode_name(activation.path) for activation in activations if not activation.status]
    if kept:
        tx.put(q.PUT_ACTIVATIONS, [_row(run, activation) for activation in kept])
    if gone:
        tx.write(q.DROP_ACTIVATIONS, run=run, paths=gone)
    if not is_swept(of):
        return  # it has never had any, so there is nothing to drop
    due = [_due_row(run, of, activation) for activation in kept if has_timer(of, activation)]
    quiet = gone + [encode_name(activation.path) for activation in kept if not has_timer(of, activation)]
    if due:
        tx.put(q.PUT_TIMERS, due)
    if quiet:
        tx.write(q.DROP_TIMERS, run=run, paths=quiet)


def _row(run: str, activation: Activation) -> tuple[Any, ...]:
    return (
        run,
        encode_name(activation.path),
        activation.status,
        int(activation.status in AWAITING),
        pack(activation.doc()),
    )


def _due_row(run: str, of: RunHeader, activation: Activation) -> tuple[Any, ...]:
    return run, encode_name(activation.path), encode_name(of.namespace), activation.deadline


def write_extras(tx: Tx, run: str, change: Change) -> None:
    """Write the values, patches and mail of a change."""
    if change.values:
        tx.put(q.PUT_VALUES, [(run, encode_name(key), text) for key, text in change.values.items()])
    _patch(tx, run, change.state, q.PUT_STATE, q.DROP_STATE)
    _patch(tx, run, change.context, q.PUT_CONTEXT, q.DROP_CONTEXT)
    if change.mailbox is not None:
        box = encode_name(change.mailbox.name)
        if change.mailbox.push:
            # A letter that is taken out in the same change has to be there by then.
            (tx.send if change.mailbox.pop else tx.write)(
                q.PUSH_TO_MAILBOX, run=run, name=box, value=encode_name(change.mailbox.push)
            )
        if change.mailbox.pop:
            tx.write(q.POP_FROM_MAILBOX, run=run, name=box, value=encode_name(change.mailbox.pop))


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
