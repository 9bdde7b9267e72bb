"""Events from callers: each goes to the first wait for it, or into its mailbox until a wait begins."""

from __future__ import annotations

from typing import Any

from orchestrator.codec import validate
from orchestrator.definitions.bodies import WaitBody, body_of
from orchestrator.engine.client_ops import graph_changed
from orchestrator.engine.executor import Executor
from orchestrator.engine.read.value_reader import encode_value
from orchestrator.engine.requests import adopt, arm_adopted, graph_of, publish
from orchestrator.errors import MailboxFull, RunNotActive, RunNotFound, StepNotFound, StepNotSuspended, StoreUnavailable
from orchestrator.host import monotonic, new_token
from orchestrator.rules import commands
from orchestrator.rules.change import Change, Committed
from orchestrator.rules.envelope import StoredTexts
from orchestrator.rules.graph import Path, Wait
from orchestrator.rules.mailbox import MAILBOX_FULL, is_waiter, waiter_path
from orchestrator.rules.model import FINAL, Activation, ActivationStatus, RunHeader, format_path
from orchestrator.rules.value_ids import make_event_id

_PATIENCE = 60.0  # seconds in which an event is tried again that meets waits which come and go


def send_event(executor: Executor, header: RunHeader, name: str, data: Any, scope: Path = ()) -> RunHeader:
    """Give `data` to the first wait for the event, in path order. Without one, keep it in the mailbox for the next.

    With a `scope` only the waits of this nested workflow are meant. One wait receives each event. Raises `InputInvalid`
    where the data does not fit, `StepNotFound` where the workflow waits for no such event, `RunNotActive` where the run
    has ended, `MailboxFull` where it keeps too many already, and `StepNotSuspended` where no wait of the nested
    workflow has begun.
    """
    # The waits for one event have one type, so the first of them tells it.
    waits = _find_waits(executor, header, name, scope)
    body = body_of(waits[0])
    log_context = {"run_id": header.run_id, "workflow_id": header.workflow_id}
    schema = body.schema if isinstance(body, WaitBody) else None
    fitted = data if schema is None else validate(schema, data, header="Invalid event data: ")
    # One id for all tries: the value is written by the one that is accepted, and once.
    key = make_event_id(new_token())
    text = encode_value(fitted, f"event {name!r}", executor.settings.packing)
    if header.status in FINAL:
        header = _require_unended(executor, header)
    end = monotonic() + _PATIENCE
    while True:
        change = _send_change(executor, header, name, key, text, waits, scope)
        answer = executor.store.commit(header.run_id, change)
        if isinstance(answer, Committed) and change.values:
            # Nothing is undone where the broker is away: the event has been taken, and its timer brings the message.
            publish(executor, answer)
            arm_adopted(executor, header)
            return answer.header
        if isinstance(answer, Committed):  # this change only took a wait that is over out of the mailbox
            continue
        if answer.reason == MAILBOX_FULL:
            raise _full(executor, name, **log_context)
        # Refused: a wait has begun or ended meanwhile, or the run has ended. Only the first is worth another try. It
        # means that the run goes on, so with all who send at once each has its turn.
        header = _require_unended(executor, header)
        if monotonic() > end:
            raise StoreUnavailable(
                f"the event {name!r} was not taken: waits of run {header.run_id!r} came and went for {_PATIENCE:.0f} s "
                "between each look and each write; send it again",
                **log_context,
            )


def _full(executor: Executor, name: str, **log_context: str) -> MailboxFull:
    """Say which bound was met, and what can be done."""
    settings = executor.settings
    return MailboxFull(
        f"run {log_context['run_id']!r} has no room for another event {name!r}: of those of one name that no step has "
        f"taken yet, a run keeps {settings.mailbox_max_events} (`orchestrator_mailbox_max_events`) and "
        f"{settings.mailbox_max_bytes} bytes (`orchestrator_mailbox_max_bytes`). Send it again once the run has taken "
        "some, or raise the bound",
        event=name,
        max_events=settings.mailbox_max_events,
        max_bytes=settings.mailbox_max_bytes,
        **log_context,
    )


def _find_waits(executor: Executor, header: RunHeader, name: str, scope: Path) -> list[Wait]:
    """Find the waits for the event in the scope. Raises `StepNotFound`, and `GraphChanged` for a scope that is none."""
    graph = graph_of(executor, header)
    try:
        known = [node for node in graph.walk(scope) if isinstance(node, Wait)]
    except LookupError as error:
        raise graph_changed(header, f"which has no nested workflow at {format_path(scope)}") from error
    if waits := [node for node in known if node.event == name]:
        return waits
    names = ", ".join(sorted({node.event for node in known})) or "none"
    where = f"the nested workflow at {format_path(scope)} of {header.workflow_id!r}" if scope else ""
    raise StepNotFound(
        f"{where or f'workflow {header.workflow_id!r}'} waits for no event {name!r} (it waits for: {names})",
        run_id=header.run_id,
        workflow_id=header.workflow_id,
    )


def _send_change(
    executor: Executor, header: RunHeader, name: str, key: str, text: str, waits: list[Wait], scope: Path
) -> Change:
    """Read the wait that is first in the mailbox, or in the scope, and make the change."""
    texts, limits = StoredTexts({key: text}), executor.settings.limits
    first, waiting = (
        _find_waiter(executor, header, waits, scope) if scope else _first_in_mailbox(executor, header, name)
    )
    if scope and waiting is None:
        raise StepNotSuspended(
            f"nothing in {format_path(scope)} of run {header.run_id!r} waits for the event {name!r} at present: send "
            "it again once it does, or send it to the run as a whole, which keeps it for the next wait",
            run_id=header.run_id,
            workflow_id=header.workflow_id,
        )
    change = commands.send_event(name, first, waiting, key, new_token(), texts, limits, is_scoped=bool(scope))
    # An event that is kept lets nothing go on.
    return adopt(executor, header, change) if change.ops else change


def _first_in_mailbox(executor: Executor, header: RunHeader, name: str) -> tuple[str, Activation | None]:
    # Refused where what was read is no longer so: an event does not join a mailbox in which a wait has begun.
    first = next(iter(executor.store.mail(header.run_id, name)), "")
    found = executor.store.load(header.run_id, [waiter_path(first)]) if is_waiter(first) else []
    return first, found[0] if found else None


def _find_waiter(
    executor: Executor, header: RunHeader, waits: list[Wait], scope: Path
) -> tuple[str, Activation | None]:
    """Find the first wait below the scope, wherever it stands in the mailbox."""
    names = {node.id for node in waits}
    found = executor.store.load_awaiting(header.run_id, below=[format_path(scope)])
    waiting = [one for one in found if one.status == ActivationStatus.WAITING and one.step in names]
    return (waiting[0].waiter, waiting[0]) if waiting else ("", None)


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
