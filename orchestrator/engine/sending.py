"""Sending an event to a run: to whoever waits for it, else into the mailbox of its name."""

from __future__ import annotations

from typing import Any

from orchestrator.codec import validate
from orchestrator.core import flow
from orchestrator.core.changes import Caller, Change, Committed, Expect, Mail, mark
from orchestrator.core.graph import Wait
from orchestrator.core.records import FINAL, Header, RunState, Status, undotted
from orchestrator.engine.delivery import Engine
from orchestrator.engine.operations import graph_of, publish
from orchestrator.engine.read.value_reader import encode_value
from orchestrator.errors import RunNotActive, RunNotFound, StepNotFound
from orchestrator.host import new_token

_LIVING = frozenset(state.value for state in RunState if state not in FINAL)
_TRIES = 50


def send_event(engine: Engine, header: Header, name: str, data: Any) -> Header:
    """Give `data` to the first that waits for the event, in path order; without one, keep it for the next.

    Each event is heard once. Raises `InputInvalid` where the data does not fit, `StepNotFound` where the workflow waits
    for no such event, `RunNotActive` where the run has ended.
    """
    graph = graph_of(engine, header)
    waits = [node for node in graph.walk() if isinstance(node, Wait) and node.event == name]
    about = {"run_id": header.run_id, "workflow_id": header.workflow_id}
    if not waits:
        known = ", ".join(sorted({node.event for node in graph.walk() if isinstance(node, Wait)})) or "none"
        raise StepNotFound(
            f"workflow {header.workflow_id!r} waits for no event {name!r} (it waits for: {known})", **about
        )
    body: Any = waits[0].body
    fitted = data if body.schema is None else validate(body.schema, data, header="Invalid event data: ")
    key = f"{new_token()}v"
    text = encode_value(fitted, f"event {name!r}", engine.settings.max_payload_bytes)
    if header.status in FINAL:
        header = _still_living(engine, header)
    for _ in range(_TRIES):
        change = _change(engine, header.run_id, name, key, text)
        answer = engine.store.commit(header.run_id, change)
        if isinstance(answer, Committed) and change.values:
            publish(engine, answer)
            return answer.header
        if isinstance(answer, Committed):  # only a waiter that had given up was cleared away
            continue
        header = _still_living(engine, header)
    raise RunNotActive(
        f"run {header.run_id!r} moves too fast: the event {name!r} was not taken; send it again", **about
    )


def _change(engine: Engine, run_id: str, name: str, key: str, text: str) -> Change:
    """One atomic step that both sides cannot miss.

    The length of the mailbox tells whether a waiter has come meanwhile.
    """
    entries = engine.store.mail(run_id, name)
    waiters = sorted((entry for entry in entries if entry.startswith(flow.WAITER)), key=_place)
    guard = Caller(new_token(), _LIVING)
    values, grace = {key: text}, engine.settings.grace
    if not waiters:
        return Change(guard, values=values, mail=Mail(name, mark(entries), push=key), grace=grace)
    first = waiters[0]
    gone = Mail(name, mark(entries), pop=first)
    found = engine.store.load(run_id, [flow.waiter_path(first)])
    if not found or found[0].status != Status.WAITING or found[0].label != first:
        return Change(guard, mail=gone)
    record = found[0]
    expect = (Expect(record.path, record.status, record.seq),)
    ops = tuple(flow.deliver(record, key))
    return Change(guard, ops, expect=expect, values=values, mail=gone, grace=grace)


def _place(entry: str) -> tuple[int, ...]:
    return undotted(flow.waiter_path(entry))


def _still_living(engine: Engine, header: Header) -> Header:
    found = engine.store.header(header.run_id)
    if found is None:
        raise RunNotFound(f"there is no run {header.run_id!r}", run_id=header.run_id)
    if found.status in FINAL:
        text = f"run {header.run_id!r} is {found.status}: nobody will hear the event"
        raise RunNotActive(text, run_id=header.run_id, workflow_id=header.workflow_id, actual_status=found.status)
    return found
