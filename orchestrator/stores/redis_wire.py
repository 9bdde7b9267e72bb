"""Writes changes for the Redis scripts, and reads their answers. It knows neither a connection nor a key.

A change goes as one JSON document that the script decodes (guards, operations, flat activations), followed by the texts
that it must never decode, since Lua would change numbers and empty lists: values, state, context and events.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Any, assert_never

from pydantic_core import from_json, to_json

from orchestrator.ports import StoredEvent
from orchestrator.rules.change import (
    CancelPendingItems,
    Change,
    Claimed,
    Committed,
    CountDown,
    CreateActivation,
    EmitProgress,
    LeaseGuard,
    Op,
    Refused,
    RequestGuard,
    StartNextItem,
    UpdateActivation,
    UpdateRun,
)
from orchestrator.rules.events import EventType, make_events_trimmed
from orchestrator.rules.mailbox import MAILBOX_CHANGED, MAILBOX_FULL, WAITER
from orchestrator.rules.model import UNSWEPT_RUNTIMES, Activation, Report, RunHeader, report_counter, report_path
from orchestrator.rules.replies import REMEMBERED, REQUEST_MEMORY, UNDONE, Reply, parse_reply, read_reply
from orchestrator.rules.stamps import STARTING
from orchestrator.rules.timers import LANE_OF, SWEPT
from orchestrator.rules.transitions import tables


class Script:
    """A Lua script: its text, and the digest by which the server knows it."""

    def __init__(self, *texts: str) -> None:
        self.text = "\n".join(texts)
        self.sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()


# Scripts that read headers or activations begin with `rules`; those that change them have `run` as well.
_PARTS = {
    "acquire_sweep": ("rules", "acquire_sweep"),
    "claim": ("rules", "run", "claim"),
    "commit": ("rules", "run", "change", "commit"),
    "commit_many": ("rules", "run", "change", "commit_many"),
    "create": ("rules", "create"),
    "delete": ("rules", "delete"),
    "read_timers": ("rules", "read_timers"),
    "renew": ("rules", "renew"),
}


@cache
def script(name: str) -> Script:
    """Return the script of this name, read once."""
    parts = _PARTS.get(name, (name,))
    texts = [files(__package__).joinpath("scripts", f"{part}.lua").read_text(encoding="utf-8") for part in parts]
    return Script(*([rules()] if "rules" in parts else []), *texts)


def rules() -> str:
    """Write all that the scripts know of statuses, timers and defaults as the Lua table RULES, from `rules`.

    It is a constructor and not JSON in a string: the server needs a third of the time for it, in each call of a script.
    """
    known = {
        **tables(),
        "activation": {field.name: field.default for field in fields(Activation)},
        "header": {field.name: field.default for field in fields(RunHeader)},
        "step_start": EventType.STEP_START.value,
        "waiter": WAITER,
        "mailbox_changed": MAILBOX_CHANGED,
        "mailbox_full": MAILBOX_FULL,
        "starting": dict.fromkeys(STARTING, True),
        "swept": dict.fromkeys(SWEPT, True),
        "report_counter": {str(place): report_counter(report_path(1, report)) for place, report in enumerate(Report)},
        "unswept": dict.fromkeys(UNSWEPT_RUNTIMES, True),
        "remembered": REMEMBERED,
        "undone": UNDONE,
        "request_memory": REQUEST_MEMORY,
        "lane": {deadline.value: lane.offset for deadline, lane in LANE_OF.items() if lane.offset},
    }
    return f"local RULES = {_lua(known)}"


def _lua(value: Any) -> str:
    match value:
        case dict():
            return "{" + ",".join(f"[{_lua(name)}]={_lua(value[name])}" for name in sorted(value)) + "}"
        case tuple():
            return "{" + ",".join(map(_lua, value)) + "}"
        case str() | int():  # texts here are names; numbers and truth values look alike in both languages
            return dumps(value)
        case _:
            raise TypeError(f"{value!r} has no form in a script")


def dumps(value: Any) -> str:
    """Return compact JSON."""
    return to_json(value).decode()


# --- there -----------------------------------------------------------------------------------------------------------


def change_words(change: Change) -> list[str]:
    """Return the arguments of the commit script after the run's id."""
    values = _pairs(change.values)
    state, no_state = _patch(change.state)
    context, no_context = _patch(change.context)
    events = [dumps(event) for event in change.events]
    parts = (change.drop_values, values, state, no_state, context, no_context, events)
    doc: dict[str, Any] = {
        "lease": change.lease,
        "redelivery_delay": change.redelivery_delay,
        "settle_token": change.settle_token,
        "ops": _ops(change.ops),
    } | ({} if change.expect_state is None else {"expect_state": change.expect_state})
    doc["n"] = [len(part) for part in parts]
    match change.guard:
        case LeaseGuard(path=path, token=token, flush_seq=number, ender=ender):
            doc |= {"by_lease": True, "by": [path, token, number, ender] if ender else [path, token, number]}
        case RequestGuard(id=id_, statuses=statuses, generation=generation, settle_count=settle_count) as guard:
            doc["by"] = [id_, sorted(statuses), generation, settle_count, guard.commits, guard.undoes]
        case _:
            assert_never(change.guard)
    if change.expect:
        doc["expect"] = [
            [e.path, e.status, e.seq] if e.deadline is None else [e.path, e.status, e.seq, e.deadline]
            for e in change.expect
        ]
    if change.max_events:
        doc["max_events"] = change.max_events
    if change.max_event_age:
        doc["max_event_age"] = change.max_event_age
    for name in ("drop", "drop_events", "settle_now"):  # left out where they say nothing
        if value := getattr(change, name):
            doc[name] = value
    if change.mailbox is not None:
        mail = change.mailbox
        doc["mailbox"] = [mail.name, mail.push, mail.pop, mail.size, mail.max_events, mail.max_bytes, mail.anywhere]
    words = [dumps(doc)]
    for part in parts:
        words += part
    return words


def _pairs(texts: Mapping[str, str]) -> list[str]:
    return [word for pair in texts.items() for word in pair]


def _patch(patch: Mapping[str, str | None]) -> tuple[list[str], list[str]]:
    kept = {key: text for key, text in patch.items() if text is not None}
    return _pairs(kept), [key for key, text in patch.items() if text is None]


def _ops(ops: Sequence[Op]) -> list[list[Any]]:
    """Write one small list for each operation. A repeated `StartNextItem`, for a foreach's window, is written once."""
    words: list[list[Any]] = []
    last: Op | None = None
    for op in ops:
        if isinstance(op, StartNextItem) and op is last:
            words[-1][4] += 1
        else:
            words.append(_op(op))
        last = op
    return words


def _op(op: Op) -> list[Any]:
    match op:
        case CreateActivation(activation=activation, claim=claim, delay=delay):
            return ["p", activation.doc(), claim, delay]
        case UpdateActivation(path=path, fields=fields, claim=claim, delay=delay):
            return ["s", path, dict(fields), claim, delay]
        case StartNextItem(path=path, template=template, prefix=prefix):
            return ["n", path, template.doc(), prefix, 1]
        case CancelPendingItems(path=path):
            return ["u", path]
        case CountDown(path=path, then=then, event=event):
            return ["d", path, _op(then), dumps(event)[:-1] if event else ""]
        case EmitProgress(path=path, event=event):
            return ["t", path, dumps(event)[:-1]]
        case UpdateRun(fields=fields, unless=unless):
            return ["r", dict(fields), unless]
        case _:
            assert_never(op)


# --- and back --------------------------------------------------------------------------------------------------------


def header_of(text: bytes) -> RunHeader:
    """Read a header from a script's answer."""
    return RunHeader.parse(from_json(text))


def activation_of(path: str, text: bytes) -> Activation:
    """Read the activation that is stored at `path`."""
    return Activation.parse({**from_json(text), "path": path})


def due_of(path: str, pair: Sequence[bytes]) -> tuple[RunHeader, Activation]:
    """Read the header and the activation of a timer."""
    return header_of(pair[0]), activation_of(path, pair[1])


def events_of(reply: Sequence[Any]) -> list[StoredEvent]:
    """Read the answer of the events script. Where the log has lost its beginning, the first event marks the gap."""
    found, trimmed = reply
    return [
        StoredEvent(
            cursor.decode(),
            int(cursor.partition(b"-")[0]),
            make_events_trimmed() if cursor == trimmed else from_json(fields[1]),
        )
        for cursor, fields in found
    ]


def texts_of(words: Sequence[bytes]) -> dict[str, str]:
    """Return keys and texts, which come by turns, as a dict."""
    return {words[at].decode(): words[at + 1].decode() for at in range(0, len(words), 2)}


def found_of(names: Iterable[str], texts: Iterable[bytes | None]) -> dict[str, str]:
    """Return the texts that were found, by their names."""
    return {name: text.decode() for name, text in zip(names, texts, strict=True) if text is not None}


def claimed_of(reply: Sequence[Any]) -> Claimed | Refused:
    """Read the answer of the claim script."""
    if reply[0]:
        return _refused(reply)
    return _package(header_of(reply[1]), reply[2:])


def committed_of(reply: Sequence[Any]) -> Committed | Refused:
    """Read the answer of the commit script."""
    if reply[0]:
        return _refused(reply)
    header = header_of(reply[1])
    return _committed(header, parse_reply(reply[2]), _package(header, reply[3:]) if len(reply) > 3 else None)


def many_committed_of(text: bytes) -> list[Committed | Refused]:
    """Read the answer of the script that commits many changes."""
    return [
        Refused(reason, RunHeader.parse(doc) if doc else None)
        if reason
        else _committed(RunHeader.parse(doc), read_reply(reply), None)
        for reason, doc, reply in from_json(text)
    ]


def _committed(header: RunHeader, kept: Reply, claimed: Claimed | None) -> Committed:
    if kept.settle_count is not None and kept.settle_count != header.settle_count:
        header = replace(header, settle_count=kept.settle_count)
    return Committed(header, kept.dispatches, claimed, kept.left_out)


def _package(header: RunHeader, parts: Sequence[Any]) -> Claimed:
    activation, values, state, context = parts
    return Claimed(
        header, Activation.parse(from_json(activation)), texts_of(values), texts_of(state), texts_of(context)
    )


def _refused(reply: Sequence[Any]) -> Refused:
    return Refused(reply[0].decode(), header_of(reply[1]) if len(reply) > 1 else None)
