"""The undo of a start or resume of which nobody could be told, and what makes such a request final.

An undo leaves nothing: the run is as it was read before, but for its counters. It is made only where nothing else has
happened to the run since. So what another caller was told, or what a worker has begun, is never taken back. A caller
who is refused because another's request stands makes that one final first; otherwise both could end up refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from orchestrator.rules.change import (
    Change,
    Committed,
    CreateActivation,
    Op,
    RequestGuard,
    UpdateActivation,
    UpdateRun,
)
from orchestrator.rules.commands import ACTIVE, expect_unmoved
from orchestrator.rules.model import (
    Activation,
    ActivationFields,
    ActivationStatus,
    RunHeader,
    RunHeaderFields,
    StoredStatus,
)
from orchestrator.rules.timers import is_swept
from orchestrator.rules.transitions import TABLE, Row


def undo_start(header: RunHeader, started: Change, answer: Committed, request_id: str) -> Change:
    """Make the run pending again, as if nothing had been: no message of its start could be sent.

    `header` is as it was read before. All that the start has written goes, its event too; what others have given the
    pending run (an event to keep) stays. Refused where anything has happened since: a worker has begun, because a
    message arrived although the broker's answer did not, or another caller was told that the run goes on.
    """
    fields = _fields_before(header, started)
    return Change(
        _guard_as_left(started, answer, request_id),
        (UpdateRun({**fields, "started_at": header.started_at}),),
        state=dict.fromkeys(started.state),
        context=dict.fromkeys(started.context),
        drop=tuple(op.activation.path for op in started.ops if isinstance(op, CreateActivation)),
        drop_values=tuple(started.values),
        drop_events=True,
        lease=started.lease,
        redelivery_delay=started.redelivery_delay,
    )


def undo_resume(
    header: RunHeader,
    activations: Sequence[Activation],
    context: Mapping[str, str],
    resumed: Change,
    answer: Committed,
    request_id: str,
) -> Change | None:
    """Undo a resume, as if nothing had been: no message of it could be sent.

    `header`, `activations` and `context` (the request context) are as they were read before the resume. None where
    something had happened between that and the resume: then nobody knows how it was before. Refused where anything has
    happened since, as the undo of a start is.
    """
    guard = _guard_as_left(resumed, answer, request_id)
    if guard.commits != header.commits + 1:
        return None
    back: list[Op] = []
    known = {activation.path: activation for activation in activations}
    for op in resumed.ops:
        match op:
            case UpdateActivation(path=path, fields=fields) if path in known:
                back += _put_back(known[path], fields)
            case UpdateActivation(path=path) if path:
                back.append(UpdateActivation(path, {}))  # its timer goes back to whom the run was before
            case _:
                pass
    return Change(
        guard,
        (*back, UpdateRun(_fields_before(header, resumed))),
        context={key: context.get(key) for key in resumed.context},
        drop_values=tuple(resumed.values),
        lease=resumed.lease,
        redelivery_delay=resumed.redelivery_delay,
    )


def _put_back(activation: Activation, written: ActivationFields) -> list[Op]:
    """Let an activation that was resumed be as it was, but for its number: that never comes back."""
    there, here = TABLE[ActivationStatus.QUEUED], TABLE[activation.status]
    stamped = {*written, *_stamped_by(there), *_stamped_by(here)} - {"status"}
    before: dict[str, Any] = {name: getattr(activation, name) for name in sorted(stamped)}
    # Two operations: the status brings new stamps along, and what follows takes them back.
    return [
        UpdateActivation(activation.path, {"status": activation.status}),
        UpdateActivation(activation.path, cast(ActivationFields, before)),
    ]


def _stamped_by(row: Row) -> tuple[str, ...]:
    return (*row.stamps, *row.first_stamps, *row.answer_stamps, *row.resets)


def _guard_as_left(request: Change, answer: Committed, request_id: str) -> RequestGuard:
    """Guard an undo: nothing at all has happened to the run since the undone request."""
    # The header of the answer will not do: that of a repeat is the present one. A commit gives what it dispatches its
    # own number.
    undone = request.guard.id if isinstance(request.guard, RequestGuard) else ""
    return RequestGuard(request_id, ACTIVE, commits=answer.dispatches[0].seq, undoes=undone)


def _fields_before(header: RunHeader, request: Change) -> RunHeaderFields:
    """Return the fields of the run that the request has written, with the values of before."""
    names = {name for op in request.ops if isinstance(op, UpdateRun) for name in op.fields}
    before: dict[str, Any] = {name: getattr(header, name) for name in sorted(names)}
    return cast(RunHeaderFields, before)


# --- requests that are final ---------------------------------------------------------------------------------------


def confirm_start(header: RunHeader) -> Change | None:
    """Make the start of a run final, so that its undo is refused; None where it is final already.

    Of two who start one run one is told that it has been started. If the start were undone after that, nobody would
    have started it. `header` is as the store has refused the second start. The change is refused where the start has
    just been undone: then the second may start the run.
    """
    if header.status != StoredStatus.RUNNING or header.settle_count or header.generation or not is_swept(header):
        return None
    return Change(RequestGuard("", ACTIVE))


def confirm_resume(header: RunHeader, activations: Iterable[Activation]) -> Change | None:
    """Make the resume of these activations final, as `confirm_start` does a start; None where it is final already.

    They are as they were read after the store had refused another resume of them. Refused where they have moved since.
    """
    queued = [activation for activation in activations if activation.status == ActivationStatus.QUEUED]
    if header.status != StoredStatus.RUNNING or not queued or not is_swept(header):
        return None
    return Change(RequestGuard("", ACTIVE), expect=expect_unmoved(queued))


def confirm_all(header: RunHeader) -> Change | None:
    """Make whatever has let the run go on final; None where all of it is final already.

    For a caller who found nothing to resume after having read `header`. Refused where anything has happened since.
    """
    if header.status != StoredStatus.RUNNING or not is_swept(header):
        return None
    return Change(RequestGuard("", ACTIVE, commits=header.commits))


def is_same_suspension(before: Activation, now: Activation) -> bool:
    """Tell whether an activation awaits what it awaited before: it has not moved, or a resume of it has been undone."""
    return replace(now, seq=before.seq) == before
