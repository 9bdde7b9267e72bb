"""The envelope of a change, around its operations: the texts that it writes, and the limits that it is committed with.

Commands take both as plain values, so no command needs to know the settings or the codec.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class CommitLimits:
    """Limits of a commit: how soon an activation is looked at again, and how long the log of the run may grow."""

    # milliseconds until an attempt that sends no heartbeat counts as abandoned
    lease: int = 30_000
    # milliseconds that a queued activation may go unclaimed before its message is sent again
    redelivery_delay: int = 30_000
    # the newest events that stay in a log that has grown too long; 0 keeps all
    max_events: int = 0
    # the age in milliseconds from which on events may go; 0 keeps all
    max_event_age: int = 0
    # the events, and their bytes, that one mailbox keeps for waits to come; 0: no limit
    max_mailbox_events: int = 0
    max_mailbox_bytes: int = 0


@dataclass(frozen=True, slots=True)
class StoredTexts:
    """Texts that a change writes beside its operations, as they are stored."""

    # new values, under ids that are used once
    values: Mapping[str, str] = field(default_factory=dict)
    # the run's state, key by key; None deletes one
    state: Mapping[str, str | None] = field(default_factory=dict)
    # the request context, key by key; None deletes one
    context: Mapping[str, str | None] = field(default_factory=dict)
    # the version of the state that it was computed from; None: it may have any
    expect_state: str | None = None
