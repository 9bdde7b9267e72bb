"""The engine's settings, in seconds and bytes as users write them."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr

from orchestrator.codec import Packing, require_method
from orchestrator.codec.packing import ZLIB
from orchestrator.errors import BrokerUnavailable
from orchestrator.rules.bounds import MAX_SECONDS
from orchestrator.rules.envelope import CommitLimits

BROKER_AWAY = ("later", "refuse")
_MIN_SECRET = 8  # characters of a secret key; scrypt makes guessing slow, and not impossible
# settings that are numbers: each with the least and the most that it may be; the least itself only where it is 0
_RANGES: dict[str, tuple[float, float]] = {
    "lease_seconds": (0.0, 24 * 3600.0),
    "tick_seconds": (0.0, 3600.0),
    "republish_seconds": (0.0, 24 * 3600.0),
    "inline_seconds": (0.0, MAX_SECONDS),
    "events_max_age_seconds": (0.0, MAX_SECONDS),
    "max_payload_bytes": (1, 2**30),
    "events_max_per_run": (0, 2**53),
    "iterations_max_kept": (0, 100),
    "compress_above_bytes": (0, 2**30),
    "inline_steps": (0, 2**31),
    "mailbox_max_events": (0, 2**53),
    "mailbox_max_bytes": (0, 2**53),
    "local_threads": (0, 10_000),
}
_POSITIVE = ("lease_seconds", "tick_seconds", "republish_seconds", "max_payload_bytes")
_WHOLE = frozenset(_RANGES) - {name for name in _RANGES if name.endswith("_seconds")}

Secret = str | bytes | SecretStr


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of an application's engine. Times are in seconds."""

    # the length of a lease: a worker that goes silent loses its step after so long
    lease_seconds: float = 30.0
    # the time between two sweeps of the scheduler
    tick_seconds: float = 1.0
    # a queued step that no worker has claimed for so long gets its message sent again
    republish_seconds: float = 30.0
    # the largest single value, as stored
    max_payload_bytes: int = 16 * 1024 * 1024
    # values of so many bytes or more are stored compressed, where that makes them shorter; 0 compresses none
    compress_above_bytes: int = 16 * 1024
    # the way of it: `zlib`, or `zstd` (extra `zstd`, in all processes). What is stored is read whichever it was
    compression: str = ZLIB
    # a longer log of a run is trimmed, to no fewer events than this; 0 keeps all. In the place of trimmed events
    # readers get one of the type `workflow-events-trimmed`
    events_max_per_run: int = 100_000
    # older events of a run are trimmed now and then while the run goes on. The events of a run that goes on no more
    # stay until it is purged. 0 keeps all
    events_max_age_seconds: float = 0
    # of the finished iterations of each loop only so many, the newest, keep the values that they have made; 0 keeps all
    iterations_max_kept: int = 0
    # the events of one name that a run keeps for waits to come, and their bytes; further ones are refused with
    # `MailboxFull`. 0: no limit
    mailbox_max_events: int = 10_000
    mailbox_max_bytes: int = 64 * 1024 * 1024
    # publish each event of the runs on workers to the broker too, for other systems
    publish_events: bool = False
    # keys of the request context that are stored encrypted, with `secret_key`
    secret_context_keys: Collection[str] = ()
    # one key or several: the first encrypts, each decrypts; kept so that neither a repr nor `asdict` shows them
    secret_key: Secret | Sequence[Secret] | None = field(default=None, repr=False)
    # tells the runs of applications that share a store from one another
    namespace: str = "default"
    # what a start or a resume does that no message can be sent of, because the broker is away: `later`, it is accepted
    # and the scheduler sends once the broker is back; `refuse`, it is undone, and `BrokerUnavailable` is raised
    broker_away: str = "later"
    # the most steps of an inline workflow that run by one message
    inline_steps: int = 100
    # after so long no further step runs inline, so that other messages get their turn
    inline_seconds: float = 5.0
    # in the default runtime: the most threads that execute the steps of all runs, as far as no caller lends its own.
    # With 0 all is executed in the threads of callers that wait for a run, and nothing while none does
    local_threads: int = 64

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            _check_number(name, getattr(self, name), least, most)
        if isinstance(self.secret_context_keys, str):
            raise TypeError("orchestrator_secret_context_keys is a list of keys, not one string")
        if self.broker_away not in BROKER_AWAY:
            known = " or ".join(map(repr, BROKER_AWAY))
            raise ValueError(f"orchestrator_broker_away is {known}, not {self.broker_away!r}")
        require_method(self.compression)
        object.__setattr__(self, "secret_key", _hide(self.secret_key))

    def reveal_secret_keys(self) -> tuple[str, ...]:
        """Return the secret keys in clear text, the one that encrypts first."""
        keys = self.secret_key if isinstance(self.secret_key, tuple) else ()
        return tuple(key.get_secret_value() for key in keys if isinstance(key, SecretStr))

    @property
    def lease(self) -> int:
        """The length of a lease in milliseconds."""
        return round(self.lease_seconds * 1000)

    @property
    def redelivery_delay(self) -> int:
        """The milliseconds after which the message of a queued activation is sent again."""
        return round(self.republish_seconds * 1000)

    @property
    def claim_patience(self) -> float:
        """The seconds that a worker waits for a store that is away before it has claimed what a message names."""
        return 10 * self.lease_seconds

    @property
    def tick(self) -> int:
        """The time between two looks of the scheduler, in milliseconds."""
        return max(1, round(self.tick_seconds * 1000))

    def retry_delay_of(self, error: BrokerUnavailable) -> int:
        """The time until it is tried again to send what could not be sent, in milliseconds.

        A broker that is away may be back in the next tick. A message that it does not take is no better by then.
        """
        return self.redelivery_delay if error.is_refused else self.tick

    def may_send_later(self, error: BrokerUnavailable) -> bool:
        """Tell whether a request stands of which no message could be sent. One that is refused is no better later."""
        return self.broker_away == "later" and not error.is_refused

    @property
    def events_max_age(self) -> int:
        """The age in milliseconds up to which events are kept; 0 keeps all."""
        return math.ceil(self.events_max_age_seconds * 1000)

    @property
    def packing(self) -> Packing:
        """The way in which values are written."""
        return Packing(self.max_payload_bytes, self.compress_above_bytes, self.compression)

    @property
    def limits(self) -> CommitLimits:
        """The limits that every change is committed with."""
        return CommitLimits(
            self.lease,
            self.redelivery_delay,
            self.events_max_per_run,
            self.events_max_age,
            self.mailbox_max_events,
            self.mailbox_max_bytes,
        )


def _check_number(name: str, value: Any, least: float, most: float) -> None:
    """Raise ValueError for a number that is none, or out of its range; TypeError for what is no number."""
    if not isinstance(value, int | float) or isinstance(value, bool) or (name in _WHOLE and value != value // 1):
        raise TypeError(f"orchestrator_{name} is a{' whole' if name in _WHOLE else ''} number, not {value!r}")
    if name in _POSITIVE and value <= 0:
        raise ValueError(f"orchestrator_{name} must be positive, not {value!r}")
    if value < least:
        raise ValueError(f"orchestrator_{name} must not be negative, not {value!r}")
    if not value <= most:
        raise ValueError(f"orchestrator_{name} must be a number up to {most:g}, not {value!r}")


def _hide(given: Any) -> tuple[SecretStr, ...] | None:
    """Return secret keys as values that do not show themselves. No error shows them either."""
    if given is None or given == "":
        return None
    keys = [given] if isinstance(given, str | bytes) or hasattr(given, "get_secret_value") else given
    if not isinstance(keys, list | tuple):
        raise TypeError(f"orchestrator_secret_key is a text, or a list of them, not {type(given).__name__}")
    return tuple(SecretStr(_reveal(key)) for key in keys) or None


def _reveal(key: Any) -> str:
    clear = key.get_secret_value() if hasattr(key, "get_secret_value") else key
    if isinstance(clear, bytes):
        clear = clear.decode("utf-8", "surrogateescape")
    if not isinstance(clear, str):
        raise TypeError(f"orchestrator_secret_key is a text, or a list of them, not {type(clear).__name__}")
    if len(clear) < _MIN_SECRET:
        raise ValueError(f"orchestrator_secret_key is too short: {_MIN_SECRET} characters are the least")
    return clear
