"""The way of changes and answers to the Redis scripts and back. It knows neither a connection nor a key.

A change goes as one JSON document that the script decodes (guards, operations, flat activations), followed by the texts
that it must never decode: values, state, context and events.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Any, assert_never

from pydantic_core import from_json, to_json

from orchestrator.ports import TRIMMED, StoredEvent
from orchestrator.rules.apply import REMEMBERED
from orchestrator.rules.change import (
    CancelPendingItems,
    Change,
    Claimed,
    Committed,
    CountDown,
    CreateActivation,
    Dispatch,
    EmitProgress,
    LeaseGuard,
    Op,
    Refused,
    RequestGuard,
    StartNextItem,
    UpdateActivation,
    UpdateRun,
)
from orchestrator.rules.model import Activation, RunHeader
from orchestrator.rules.stamps import STARTING
from orchestrator.rules.timers import SWEPT, UNSWEPT_RUNTIMES
from orchestrator.rules.transitions import tables


class Script:
    """A Lua script: its text, and the digest by which the server knows it."""

    def __init__(self, *texts: str) -> None:
        self.text = "\n".join(texts)
        self.sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()


# Scripts that read headers or activations stand behind the rules, those that change them behind `run` too.
_PARTS = {
    "claim": ("rules", "run", "claim"),
    "commit": ("rules", "run", "commit"),
    "create": ("rules", "create"),
    "delete": ("rules", "delete"),
    "peek": ("rules", "peek"),
    "renew": ("rules", "renew"),
}


@cache
def script(name: str) -> Script:
    """The script of this name, read once."""
    parts = _PARTS.get(name, (name,))
    texts = [files(__package__).joinpath("scripts", f"{part}.lua").read_text(encoding="utf-8") for part in parts]
    return Script(*([rules()] if "rules" in parts else []), *texts)


def rules() -> str:
    """All that the scripts know of statuses, timers and defaults, from the core, as the Lua table RULES.

    It is written as a constructor and not as JSON text in a string: a server runs one a third as long as it decodes the
    other, and it does so in each call of a script.
    """
    known = {
        **tables(),
        "activation": {field.name: field.default for field in fields(Activation)},
        "header": {field.name: field.default for field in fields(RunHeader)},
        "starting": dict.fromkeys(STARTING, True),
        "swept": dict.fromkeys(SWEPT, True),
        "unswept": dict.fromkeys(UNSWEPT_RUNTIMES, True),
        "remembered": REMEMBERED,
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
    """Compact JSON."""
    return to_json(value).decode()


# --- there -----------------------------------------------------------------------------------------------------------


def change_words(change: Change) -> list[str]:
    """The arguments of the commit script after the run's id."""
    values = _pairs(change.values)
    state, no_state = _patch(change.state)
    context, no_context = _patch(change.context)
    events = [dumps(event) for event in change.events]
    parts = (values, state, no_state, context, no_context, events)
    doc: dict[str, Any] = {
        "lease": change.lease,
        "redelivery_delay": change.redelivery_delay,
        "settle_token": change.settle_token,
    }
    doc["ops"] = _ops(change.ops)
    doc["n"] = [len(part) for part in parts]
    match change.guard:
        case LeaseGuard(path=path, token=token, flush_seq=number, ender=ender):
            doc |= {"holder": True, "by": [path, token, number, ender] if ender else [path, token, number]}
        case RequestGuard(id=id_, statuses=states, generation=generation, settle_count=settle_count):
            doc["by"] = [id_, sorted(states), generation, settle_count]
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
    if change.drop:
        doc["drop"] = change.drop
    if change.settle_now:
        doc["settle_now"] = True
    if change.mailbox is not None:
        doc["mailbox"] = [change.mailbox.name, change.mailbox.expect, change.mailbox.push, change.mailbox.pop]
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
    """One small list for each operation; the same `Next` many times over (the window of a foreach) is written once."""
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
    """A header as a script answers it."""
    return RunHeader.parse(from_json(text))


def activation_of(path: str, text: bytes) -> Activation:
    """The activation that is stored at `path`."""
    return Activation.parse({**from_json(text), "path": path})


def events_of(reply: Sequence[Any]) -> list[StoredEvent]:
    """The answer of the events script. Where the log has lost its beginning, its first event says so and no more."""
    found, trimmed = reply
    return [
        StoredEvent(
            cursor.decode(),
            int(cursor.partition(b"-")[0]),
            {"type": TRIMMED} if cursor == trimmed else from_json(fields[1]),
        )
        for cursor, fields in found
    ]


def texts_of(words: Sequence[bytes]) -> dict[str, str]:
    """Keys and texts by turns, as a dict."""
    return {words[at].decode(): words[at + 1].decode() for at in range(0, len(words), 2)}


def found_of(names: Iterable[str], texts: Iterable[bytes | None]) -> dict[str, str]:
    """The texts that were found, by their names."""
    return {name: text.decode() for name, text in zip(names, texts, strict=True) if text is not None}


def claimed_of(reply: Sequence[Any]) -> Claimed | Refused:
    """The answer of the claim script."""
    if reply[0]:
        return _refused(reply)
    return _package(header_of(reply[1]), reply[2:])


def committed_of(reply: Sequence[Any]) -> Committed | Refused:
    """The answer of the commit script."""
    if reply[0]:
        return _refused(reply)
    header = header_of(reply[1])
    told = from_json(reply[2])[0] if reply[2] else ()
    dispatches = tuple(Dispatch(path, seq, route, int(delay)) for path, seq, route, delay in told)
    return Committed(header, dispatches, _package(header, reply[3:]) if len(reply) > 3 else None)


def _package(header: RunHeader, parts: Sequence[Any]) -> Claimed:
    activation, values, state, context = parts
    return Claimed(
        header, Activation.parse(from_json(activation)), texts_of(values), texts_of(state), texts_of(context)
    )


def _refused(reply: Sequence[Any]) -> Refused:
    return Refused(reply[0].decode(), header_of(reply[1]) if len(reply) > 1 else None)
