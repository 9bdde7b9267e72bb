"""Events from callers: each goes to the first wait for it, or into its mailbox until a wait begins."""

from __future__ import annotations

from typing import Any

from orchestrator.codec import validate
from orchestrator.definitions.bodies import WaitBody, body_of
from orchestrator.engine.client_ops import graph_of, publish
from orchestrator.engine.executor import Executor
from orchestrator.engine.read.value_reader import encode_value
from orchestrator.errors import RunNotActive, RunNotFound, StepNotFound
from orchestrator.host import new_token
from orchestrator.rules import commands
from orchestrator.rules.change import Change, Committed
from orchestrator.rules.envelope import StoredTexts
from orchestrator.rules.flow import waiter_path
from orchestrator.rules.graph import Wait
from orchestrator.rules.model import FINAL, RunHeader
from orchestrator.rules.value_ids import make_event_id

_MAX_SENDS = 50  # tries to put one event into a mailbox that others change meanwhile


def send_event(executor: Executor, header: RunHeader, name: str, data: Any) -> RunHeader:
    """Give `data` to the first wait for the event, in path order. Without one, keep it in the mailbox for the next.

    One wait receives each event. Raises `InputInvalid` where the data does not fit, `StepNotFound` where the workflow
    waits for no such event, `RunNotActive` where the run has ended.
    """
    graph = graph_of(executor, header)
    waits = [node for node in graph.walk() if isinstance(node, Wait) and node.event == name]
    log_context = {"run_id": header.run_id, "workflow_id": header.workflow_id}
    if not waits:
        known = ", ".join(sorted({node.event for node in graph.walk() if isinstance(node, Wait)})) or "none"
        raise StepNotFound(
            f"workflow {header.workflow_id!r} waits for no event {name!r} (it waits for: {known})", **log_context
        )
    body = body_of(waits[0])
    schema = body.schema if isinstance(body, WaitBody) else None
    fitted = data if schema is None else validate(schema, data, header="Invalid event data: ")
    # One id for all tries: the value is written by the one that is accepted, and once.
    key = make_event_id(new_token())
    text = encode_value(fitted, f"event {name!r}", executor.settings.packing)
    if header.status in FINAL:
        header = _require_unended(executor, header)
    for _ in range(_MAX_SENDS):
        change = _send_change(executor, header.run_id, name, key, text)
        answer = executor.store.commit(header.run_id, change)
        if isinstance(answer, Committed) and change.values:
            # Nothing is undone where the broker is away: the event has been taken, and its timer brings the message.
            publish(executor, answer)
            return answer.header
        if isinstance(answer, Committed):  # this change only took a wait that is over out of the mailbox
            continue
        # Refused: the mailbox has changed, or the run has ended. Only the first is worth another try.
        header = _require_unended(executor, header)
    raise RunNotActive(
        f"run {header.run_id!r} moves too fast: the event {name!r} was not taken; send it again", **log_context
    )


def _send_change(executor: Executor, run_id: str, name: str, key: str, text: str) -> Change:
    """Read the mailbox and the first wait in it, and make the change."""
    # The change carries the mailbox version that was read here, and is refused where the mailbox has changed since. A
    # count of its entries would not do: one wait that went and one event that came leave the count as it was.
    entries = executor.store.mail(run_id, name)
    first = commands.find_first_waiter(entries)
    found = executor.store.load(run_id, [waiter_path(first)]) if first else []
    waiting = found[0] if found else None
    texts = StoredTexts({key: text})
    return commands.send_event(name, entries, waiting, key, new_token(), texts, executor.settings.limits)


def _require_unended(executor: Executor, header: RunHeader) -> RunHeader:
    """Read the header again. Raises `RunNotFound` or `RunNotActive`."""
    # A caller may have an old header, and a run that had ended may have travelled in time since.
    found = executor.store.header(header.run_id)
    if found is None:
        raise RunNotFound(f"there is no run {header.run_id!r}", run_id=header.run_id)
    if found.status in FINAL:
        text = f"run {header.run_id!r} is {found.status}: no step will receive the event"
        raise RunNotActive(text, run_id=header.run_id, workflow_id=header.workflow_id, actual_status=found.status)
    return found
