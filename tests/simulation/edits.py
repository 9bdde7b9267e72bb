"""The edits by which mutants spoil the changes and plans that commands make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from orchestrator.rules.change import (
    Change,
    CreateActivation,
    Op,
    RequestGuard,
    UpdateActivation,
    UpdateRun,
)
from orchestrator.rules.mailbox import MailboxUpdate
from orchestrator.rules.model import ActivationStatus, StoredStatus
from orchestrator.rules.plan import Plan
from tests.simulation.mutants import Edit

ANY = frozenset(StoredStatus)

# --- edits of a change ---------------------------------------------------------------------------


def guard_is(**fields: Any) -> Edit:
    """Other values in the guard."""
    return lambda change: replace(change, guard=replace(change.guard, **fields))


def no_lease_is_needed(change: Change) -> Change:
    """Any worker may commit, with or without the lease."""
    return replace(change, guard=RequestGuard("", ANY))


def nothing_is_expected(change: Change) -> Change:
    return replace(change, expect=())


def only_the_first_is_expected(change: Change) -> Change:
    return replace(change, expect=change.expect[:1])


def leave_out(*kinds: str) -> Edit:
    """Nothing of these kinds is told."""
    return lambda change: replace(change, events=tuple(e for e in change.events if e["type"] not in kinds))


def without(unwanted: Callable[[Op], bool]) -> Edit:
    """These operations are not done."""
    return lambda change: replace(change, ops=tuple(op for op in change.ops if not unwanted(op)))


def fields_without(*names: str, of: type[UpdateActivation] | type[UpdateRun] = UpdateActivation) -> Edit:
    """These fields stay as they are."""

    def edit(change: Change) -> Change:
        ops = (
            replace(op, fields={k: v for k, v in op.fields.items() if k not in names}) if isinstance(op, of) else op
            for op in change.ops
        )
        return replace(change, ops=tuple(ops))

    return edit


def counts_as_abandoned(change: Change) -> Change:
    """A claim that was given back counts as abandoned."""
    ops = (replace(op, fields={**op.fields, "abandoned_attempts": 1}) for op in change.ops)
    return replace(change, ops=tuple(ops))


def run_is(**fields: Any) -> Callable[[Op], bool]:
    """An operation on the header that sets all of these."""
    return lambda op: isinstance(op, UpdateRun) and fields.items() <= dict(op.fields).items()


def is_move(op: Op) -> bool:
    """An operation that moves an activation which is not the run's own."""
    return isinstance(op, UpdateActivation) and op.path != ""


def is_reopening(op: Op) -> bool:
    """An operation that opens the run's own activation again."""
    return isinstance(op, UpdateActivation) and op.path == ""


def no_values(change: Change) -> Change:
    return replace(change, values={})


def nothing_goes_away(change: Change) -> Change:
    return replace(change, drop=())


def no_mail(change: Change) -> Change:
    return replace(change, mailbox=None)


def one_page_less(change: Change) -> Change:
    return replace(change, values=dict(list(change.values.items())[:-1]))


def no_number(change: Change) -> Change:
    return guard_is(flush_seq=0)(change)


def at_once(change: Change) -> Change:
    """A step that is given back is tried again without a pause."""
    ops = (replace(op, delay=0) if isinstance(op, UpdateActivation) else op for op in change.ops)
    return replace(change, ops=tuple(ops))


def begins_now(change: Change) -> Change:
    """A step that is to begin later begins at once."""
    ops = (
        replace(op, activation=replace(op.activation, status=ActivationStatus.QUEUED.value), delay=0)
        if isinstance(op, CreateActivation) and op.activation.status == ActivationStatus.RETRYING
        else op
        for op in change.ops
    )
    return replace(change, ops=tuple(ops))


def sleeps_now(change: Change) -> Change:
    """A sleep that is to begin later begins at once."""
    ops = (replace(op, delay=1000) if isinstance(op, CreateActivation) and op.delay else op for op in change.ops)
    return replace(change, ops=tuple(ops))


# --- edits of a plan or mailbox update -----------------------------------------------------------------


def edit_plan(edit: Edit) -> Edit:
    """The same edits of a plan, alone or beside its mailbox update."""

    def edited(made: Plan | tuple[Plan, MailboxUpdate]) -> Any:
        plan = made[0] if isinstance(made, tuple) else made
        changed = edit(Change(RequestGuard("", ANY), tuple(plan.ops), events=tuple(plan.events)))
        plan.ops[:], plan.events[:] = changed.ops, changed.events
        return made

    return edited


def edit_mailbox_update(**fields: Any) -> Edit:
    """Other values in the mailbox update beside a plan."""
    return lambda made: (made[0], replace(made[1], **fields))
