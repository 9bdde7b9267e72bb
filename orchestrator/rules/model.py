"""A run: one header, and one activation for each activation, addressed by its path.

Both are flat (strings, numbers, truth values), so that every store keeps them as one small document and a script can
read them. Values (inputs, outputs, errors) are never inside: activations name them by their ids. Times are milliseconds
since 1970, written by the store's clock alone.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from functools import lru_cache
from typing import Any, Self, TypedDict, Unpack

from orchestrator.rules.graph import Path, Route
from orchestrator.rules.transitions import AWAITING, ENDED, FINAL, LIVE, ActivationStatus, StoredStatus

__all__ = [
    "AWAITING",
    "ENDED",
    "FINAL",
    "LIVE",
    "Activation",
    "ActivationFields",
    "ActivationStatus",
    "Phase",
    "Role",
    "RunHeader",
    "RunHeaderFields",
    "StoredStatus",
    "belongs",
    "format_path",
    "pack_route",
    "parse_path",
    "unpack_route",
    "visits",
    "with_fields",
]


class Phase(StrEnum):
    """The work of an activation that is claimed."""

    RUN = "run"  # call the function of a step, mapping or task
    VALIDATE_INPUT = "validate_input"  # validate the input of a nested workflow
    EVALUATE_BRANCH = "evaluate_branch"  # evaluate the conditions of a branch
    FAN_OUT = "fan_out"  # spread the items of a foreach
    EVALUATE_LOOP = "evaluate_loop"  # evaluate the condition of a loop
    JOIN = "join"  # gather the children of a block
    COMPUTE_SLEEP = "compute_sleep"  # compute how long to sleep
    SLEEP_OVER = "sleep_over"  # the moment of a sleep has come
    AWAIT_EVENT = "await_event"  # begin to wait for an event
    EVENT_RECEIVED = "event_received"  # the event has come
    EVENT_TIMEOUT = "event_timeout"  # the event has not come in time
    SETTLE = "settle"  # decide what the run as a whole has come to


class Role(StrEnum):
    """The way in which an activation shows in a scope's step results."""

    STEP = "step"
    BLOCK = "block"  # not at all: its children do
    ITEM = "item"  # only under its foreach


def format_path(path: Path) -> str:
    """A path as text: `0.2.1`; the run itself is the empty text."""
    return ".".join(map(str, path))


def parse_path(text: str) -> Path:
    """The path that `dotted` wrote."""
    return tuple(map(int, text.split("."))) if text else ()


@dataclass(frozen=True, slots=True)
class _Flat:
    def doc(self) -> dict[str, Any]:
        """As a flat dict without what has its default: JSON-able, no lists, no nested dicts, no None."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) != f.default}

    @classmethod
    def parse(cls, doc: dict[str, Any]) -> Self:
        """The opposite of `doc`; fields of a newer version are left out."""
        try:
            return cls(**doc)
        except TypeError:
            known = cls.__dataclass_fields__
            return cls(**{name: value for name, value in doc.items() if name in known})


@dataclass(frozen=True, slots=True)
class Activation(_Flat):
    """One activation. `path`, `visit` and `route` are text; value ids are text; absent is the empty text or 0."""

    path: str = ""
    step: str = ""  # id of the entry
    component: str = ""
    role: str = Role.STEP.value
    phase: str = Phase.RUN.value
    status: str = ActivationStatus.QUEUED.value
    visit: str = ""  # iterations of the loops around it, outermost first
    seq: int = 0  # number of the commit that made it claimable: tells a fresh message from a stale one
    lease_token: str = ""  # of the claim that holds it
    last_lease_token: str = ""  # token of the last claim that ended by a commit
    last_reply: str = ""  # what that commit answered, for when it is asked again
    flush_seq: int = 0  # number of the last change by which the present claim went on
    first_seq: int = 0  # number of the commit by which it first ran
    route: str = ""  # Route as JSON
    quiet: bool = False  # writes no events of its own
    input: str = ""
    output: str = ""
    error: str = ""
    needs: str = ""  # ids of further values that its run will read, separated by blanks
    scope: int = 0  # length of the path of the scope it belongs to
    attempt: int = 0
    abandoned_attempts: int = 0  # claims in a row that ended without a commit
    iteration: int = 0  # of a loop: runs of its body so far
    index: int = -1  # of a foreach item
    pending_children: int = 0  # unfinished children
    next_item: int = 0  # next item to start
    total: int = 0
    never_started: int = 0  # items that will never be started
    concurrency: int = 0  # concurrency of a foreach
    suspend: str = ""  # id of the suspend payload
    resume: str = ""  # id of the resume data; present while the activation is a resumption
    resumed: bool = False
    restarted: bool = False
    label: str = ""  # by which a caller may name its suspension
    waiter: str = ""  # its entry in the mailbox of the event that it waits for
    tripwire: bool = False  # failed by a TripWire
    queued_at: int = 0
    started_at: int = 0
    ended_at: int = 0
    suspended_at: int = 0
    resumed_at: int = 0
    deadline: int = 0  # when somebody has to look at it again
    parked: str = ""  # why no worker can run it now
    trace: str = ""  # ids of the spans of the blocks around it, outermost first, of an open block also its own

    @property
    def at(self) -> Path:
        """The path as a tuple."""
        return parse_path(self.path)

    @property
    def where(self) -> Route:
        """The route as a value."""
        return unpack_route(self.route)

    @property
    def live(self) -> bool:
        """True where somebody will go on with it without being asked. The run's own activation never counts."""
        return self.status in LIVE and self.path != ""


@dataclass(frozen=True, slots=True)
class RunHeader(_Flat):
    """All that is known of a run as a whole. The counts say how many of its activations are in each of these states."""

    run_id: str = ""
    workflow_id: str = ""
    resource_id: str = ""
    fingerprint: str = ""
    namespace: str = ""
    runtime: str = ""
    status: str = StoredStatus.PENDING.value
    generation: int = 0  # time travels so far
    commits: int = 0
    settle_count: int = 0
    live: int = 0
    suspended: int = 0
    waiting: int = 0
    paused: int = 0
    outcome: str = ""  # what the flow has ended with, before the run rests
    failure: str = ""  # id of the first error that nothing can catch any more
    tripwire: bool = False
    closed: bool = False  # ended by `bail`, `abort` or `cancel`: nothing but the rest may follow
    per_step: bool = False
    quiet: bool = False
    auto_restart: bool = True
    input: str = ""
    output: str = ""
    error: str = ""
    trace: str = ""  # the run's span: a W3C `traceparent`, and a `tracestate` behind a blank
    pending_resumes: str = ""  # for whom the resume data of a time travel is (see `promises`)
    last_request_id: str = ""  # id of the last change by a caller
    last_reply: str = ""
    created_at: int = 0
    started_at: int = 0
    updated_at: int = 0
    ended_at: int = 0

    @property
    def final(self) -> bool:
        """True where the run has ended for good."""
        return self.status in FINAL


class ActivationFields(TypedDict, total=False):
    """Some fields of an activation, as a commit names those that it changes.

    The names and types are those of `Activation`, as a test proves. So mypy finds a field that is misspelled or has a
    value of another type; some stores would write it without a word.
    """

    path: str
    step: str
    component: str
    role: str
    phase: str
    status: str
    visit: str
    seq: int
    lease_token: str
    last_lease_token: str
    last_reply: str
    flush_seq: int
    first_seq: int
    route: str
    quiet: bool
    input: str
    output: str
    error: str
    needs: str
    scope: int
    attempt: int
    abandoned_attempts: int
    iteration: int
    index: int
    pending_children: int
    next_item: int
    total: int
    never_started: int
    concurrency: int
    suspend: str
    resume: str
    resumed: bool
    restarted: bool
    label: str
    waiter: str
    tripwire: bool
    queued_at: int
    started_at: int
    ended_at: int
    suspended_at: int
    resumed_at: int
    deadline: int
    parked: str
    trace: str


class RunHeaderFields(TypedDict, total=False):
    """Some fields of a run header, as `ActivationFields` are of an activation."""

    run_id: str
    workflow_id: str
    resource_id: str
    fingerprint: str
    namespace: str
    runtime: str
    status: str
    generation: int
    commits: int
    settle_count: int
    live: int
    suspended: int
    waiting: int
    paused: int
    outcome: str
    failure: str
    tripwire: bool
    closed: bool
    per_step: bool
    quiet: bool
    auto_restart: bool
    input: str
    output: str
    error: str
    trace: str
    pending_resumes: str
    last_request_id: str
    last_reply: str
    created_at: int
    started_at: int
    updated_at: int
    ended_at: int


@lru_cache(maxsize=4096)
def pack_route(route: Route) -> str:
    """A route as compact JSON, without what is absent."""
    return json.dumps({k: v for k, v in asdict(route).items() if v is not None}, separators=(",", ":"))


@lru_cache(maxsize=4096)
def unpack_route(text: str) -> Route:
    """The opposite of `pack_route`."""
    return Route(**json.loads(text)) if text else Route("")


def visits(activation: Activation) -> tuple[int, ...]:
    """The visit as numbers."""
    return parse_path(activation.visit)


def belongs(child: Activation, ancestor: Activation) -> bool:
    """Tell whether `child` is of the ancestor's present visit, and not left over from an earlier iteration."""
    mine, theirs = visits(child), visits(ancestor)
    return mine[: len(theirs)] == theirs


def with_fields(activation: Activation, **values: Unpack[ActivationFields]) -> Activation:
    """The activation with other values in some fields."""
    return replace(activation, **values)
