"""The engine's settings, in seconds and bytes as users write them."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

from orchestrator.core.envelope import CommitLimits


@dataclass(frozen=True, slots=True)
class Settings:
    """Times in seconds.

    * `lease_seconds`: how long a worker that has gone silent keeps its step.
    * `tick_seconds`: how often the ticker looks for what is due.
    * `republish_seconds`: how long a queued step may go unseen before its message is sent again.
    * `max_payload_bytes`: the largest single value, as stored.
    * `publish_events`: publish each event of the runs on workers to the broker too, for other systems.
    * `events_max_per_run`: how many events of a run are kept at least, once its log has grown longer than that; 0 keeps
      all. A reader who comes too late for some is told by an event of the type `workflow-events-trimmed`.
    * `events_max_age_seconds`: older events of a run are dropped now and then, while it goes on; those of a run that
      goes on no more stay until it is purged. 0 keeps all. Readers are told in the same way.
    * `secret_context_keys`: keys of the request context that are stored encrypted, with `secret_key`.
    """

    lease_seconds: float = 30.0
    tick_seconds: float = 1.0
    republish_seconds: float = 30.0
    max_payload_bytes: int = 16 * 1024 * 1024
    events_max_per_run: int = 100_000
    events_max_age_seconds: float = 0
    publish_events: bool = False
    secret_context_keys: Collection[str] = ()
    secret_key: str | None = field(default=None, repr=False)
    namespace: str = "default"
    inline_steps: int = 100
    inline_seconds: float = 5.0

    def __post_init__(self) -> None:
        for name in ("lease_seconds", "tick_seconds", "republish_seconds", "max_payload_bytes"):
            if getattr(self, name) <= 0:
                raise ValueError(f"orchestrator_{name} must be positive, not {getattr(self, name)!r}")
        if isinstance(self.secret_context_keys, str):
            raise TypeError("orchestrator_secret_context_keys is a list of keys, not one string")
        for name in ("events_max_per_run", "events_max_age_seconds"):
            if getattr(self, name) < 0:
                raise ValueError(f"orchestrator_{name} must not be negative, not {getattr(self, name)!r}")
        if not math.isfinite(self.events_max_age_seconds):
            raise ValueError("orchestrator_events_max_age_seconds is a number of seconds; 0 keeps all events")

    @property
    def lease(self) -> int:
        """The lease in milliseconds."""
        return round(self.lease_seconds * 1000)

    @property
    def grace(self) -> int:
        """The time until a queued record is looked at again, in milliseconds."""
        return round(self.republish_seconds * 1000)

    @property
    def events_max_age(self) -> int:
        """How long events are kept, in milliseconds; 0 where age does not matter."""
        return math.ceil(self.events_max_age_seconds * 1000)

    @property
    def limits(self) -> CommitLimits:
        """The limits that every change is committed with."""
        return CommitLimits(self.lease, self.grace, self.events_max_per_run, self.events_max_age)
