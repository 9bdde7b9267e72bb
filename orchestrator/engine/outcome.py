"""The outcome of an attempt, as values: what follows from it, what is written beside that, what its caller is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.rules.change import MailboxUpdate
from orchestrator.rules.plan import Plan


@dataclass(slots=True)
class Writes:
    """The writes of an activation beside its plan, in the same commit."""

    # stored texts by their value ids
    values: dict[str, str] = field(default_factory=dict)
    # keys of the run's state to set, or (None) to delete
    state: Mapping[str, str | None] = field(default_factory=dict)
    # keys of the request context to set, or (None) to delete
    context: Mapping[str, str | None] = field(default_factory=dict)
    # what becomes of a mailbox
    mailbox: MailboxUpdate | None = None


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """The outcome of one activation's work, not yet committed."""

    # what follows from it, by the core
    plan: Plan
    # what it writes beside that
    writes: Writes = field(default_factory=Writes)


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of an attempt, as the task that carried it is told."""

    # the status that its activation has now
    status: str
    # what a failed attempt has failed with
    error: BaseException | None = None
