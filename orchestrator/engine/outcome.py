"""The outcome of an attempt, as values: the plan, the values and state that it writes, and its status."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from orchestrator.rules.mailbox import MailboxUpdate
from orchestrator.rules.plan import Plan


@dataclass(slots=True)
class Writes:
    """The values, state and context that an attempt writes, in the same commit as its plan."""

    # stored texts by their value ids
    values: dict[str, str] = field(default_factory=dict)
    # keys of the run's state to set, or (None) to delete
    state: Mapping[str, str | None] = field(default_factory=dict)
    # keys of the request context to set, or (None) to delete
    context: Mapping[str, str | None] = field(default_factory=dict)
    # the change of a mailbox; only controls that await an event have one
    mailbox: MailboxUpdate | None = None
    # the version of the state that its writes were computed from; None where they were computed from none
    expect_state: str | None = None


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """The outcome of one attempt, not yet committed."""

    # the consequences, by the rules
    plan: Plan
    # the values and state that it writes
    writes: Writes = field(default_factory=Writes)
    # makes it anew, where what it was made from has changed before the commit; None where nothing can have
    remake: Callable[[], StepOutcome] | None = None


@dataclass(frozen=True, slots=True)
class AttemptOutcome:
    """The outcome of an attempt as its Celery task reports it."""

    # the status that its activation has after it
    status: str
    # the error of a failed attempt
    error: BaseException | None = None
