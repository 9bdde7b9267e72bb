"""The envelope of a change, around its operations: the texts it writes, and the limits it is committed with.

Commands are given both as plain values, so that none of them needs to know the settings or the codec.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class CommitLimits:
    """Limits in milliseconds: when what a change has moved is looked at again, and how long the run's log may grow."""

    # until a running activation is taken for abandoned
    lease: int = 30_000
    # until the message of a queued activation is taken for lost
    redelivery_delay: int = 30_000
    # the newest events that stay in a log that has grown too long; 0 keeps all
    max_events: int = 0
    # the age from which on events may go; 0 keeps all
    max_event_age: int = 0


@dataclass(frozen=True, slots=True)
class StoredTexts:
    """Texts that a change writes beside its operations, as they are stored."""

    # new values, by ids that never come back
    values: Mapping[str, str] = field(default_factory=dict)
    # the run's state, key by key; None deletes one
    state: Mapping[str, str | None] = field(default_factory=dict)
    # the request context, in the same way
    context: Mapping[str, str | None] = field(default_factory=dict)
