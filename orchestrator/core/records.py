"""A run: one header, and one record for each activation, addressed by its path.

Both are flat (strings, numbers, truth values), so that every store keeps them as one small document and a script can
read them. Values (inputs, outputs, errors) are never inside: records name them by their ids. Times are milliseconds
since 1970, written by the store's clock alone.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from functools import lru_cache
from typing import Any, Self

from orchestrator.core.graph import Path, Route
from orchestrator.core.transitions import ENDED, FINAL, HELD, LIVE, RunState, Status

__all__ = [
    "ENDED",
    "FINAL",
    "HELD",
    "LIVE",
    "Header",
    "Phase",
    "Record",
    "Role",
    "RunState",
    "Status",
    "belongs",
    "changed",
    "dotted",
    "pack_route",
    "undotted",
    "unpack_route",
    "visits",
]


class Phase(StrEnum):
    """The work of an activation that is claimed."""

    RUN = "run"  # call the function of a step, mapping or task
    ENTER = "enter"  # validate the input of a nested workflow
    CHOOSE = "choose"  # evaluate the conditions of a branch
    SPLIT = "split"  # spread the items of a foreach
    CHECK = "check"  # evaluate the condition of a loop
    JOIN = "join"  # gather the children of a block
    NAP = "nap"  # compute how long to sleep
    WAKE = "wake"  # the moment of a sleep has come
    LISTEN = "listen"  # begin to wait for an event
    HEAR = "hear"  # the event has come
    EXPIRE = "expire"  # the event has not come in time
    REST = "rest"  # decide what the run as a whole has come to


class Role(StrEnum):
    """The way in which a record shows in a scope's step results."""

    STEP = "step"
    BLOCK = "block"  # not at all: its children do
    ITEM = "item"  # only under its foreach


def dotted(path: Path) -> str:
    """A path as text: `0.2.1`; the run itself is the empty text."""
    return ".".join(map(str, path))


def undotted(text: str) -> Path:
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
class Record(_Flat):
    """One activation. `path`, `visit` and `route` are text; value ids are text; absent is the empty text or 0."""

    path: str = ""
    step: str = ""  # id of the entry
    component: str = ""
    role: str = Role.STEP.value
    phase: str = Phase.RUN.value
    status: str = Status.QUEUED.value
    visit: str = ""  # iterations of the loops around it, outermost first
    seq: int = 0  # number of the commit that made it claimable: tells a fresh message from a stale one
    token: str = ""  # of the claim that holds it
    was: str = ""  # token of the last claim that ended by a commit
    answer: str = ""  # what that commit answered, for when it is asked again
    part: int = 0  # number of the last change by which the present claim went on
    order: int = 0  # number of the commit by which it first ran
    route: str = ""  # Route as JSON
    quiet: bool = False  # writes no events of its own
    input: str = ""
    output: str = ""
    error: str = ""
    needs: str = ""  # ids of further values that its run will read, separated by blanks
    scope: int = 0  # length of the path of the scope it belongs to
    attempt: int = 0
    lost: int = 0  # claims in a row that ended without a commit
    iteration: int = 0  # of a loop: runs of its body so far
    index: int = -1  # of a foreach item
    left: int = 0  # unfinished children
    next: int = 0  # next item to start
    total: int = 0
    skipped: int = 0  # items that will never be started
    width: int = 0  # concurrency of a foreach
    suspend: str = ""  # id of the suspend payload
    resume: str = ""  # id of the resume data; present while the activation is a resumption
    resumed: bool = False
    restarted: bool = False
    label: str = ""
    tripwire: bool = False  # failed by a TripWire
    queued_at: int = 0
    started_at: int = 0
    ended_at: int = 0
    suspended_at: int = 0
    resumed_at: int = 0
    due: int = 0  # when somebody has to look at it again
    parked: str = ""  # why no worker can run it now
    trace: str = ""  # ids of the spans of the blocks around it, outermost first, of an open block also its own

    @property
    def at(self) -> Path:
        """The path as a tuple."""
        return undotted(self.path)

    @property
    def where(self) -> Route:
        """The route as a value."""
        return unpack_route(self.route)

    @property
    def live(self) -> bool:
        """True where somebody will go on with it without being asked. The run's own record never counts."""
        return self.status in LIVE and self.path != ""


@dataclass(frozen=True, slots=True)
class Header(_Flat):
    """All that is known of a run as a whole. The counts say how many of its records are in each of these states."""

    run_id: str = ""
    workflow_id: str = ""
    resource_id: str = ""
    fingerprint: str = ""
    namespace: str = ""
    runtime: str = ""
    status: str = RunState.PENDING.value
    life: int = 0  # time travels so far
    commits: int = 0
    rests: int = 0
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
    promises: str = ""  # for whom the resume data of a time travel is (see `promises`)
    last: str = ""  # id of the last change by a caller
    answer: str = ""
    created_at: int = 0
    started_at: int = 0
    updated_at: int = 0
    ended_at: int = 0

    @property
    def final(self) -> bool:
        """True where the run has ended for good."""
        return self.status in FINAL


@lru_cache(maxsize=4096)
def pack_route(route: Route) -> str:
    """A route as compact JSON, without what is absent."""
    return json.dumps({k: v for k, v in asdict(route).items() if v is not None}, separators=(",", ":"))


@lru_cache(maxsize=4096)
def unpack_route(text: str) -> Route:
    """The opposite of `pack_route`."""
    return Route(**json.loads(text)) if text else Route("")


def visits(record: Record) -> tuple[int, ...]:
    """The visit as numbers."""
    return undotted(record.visit)


def belongs(child: Record, ancestor: Record) -> bool:
    """Tell whether `child` is of the ancestor's present visit, and not left over from an earlier iteration."""
    mine, theirs = visits(child), visits(ancestor)
    return mine[: len(theirs)] == theirs


def changed(record: Record, **values: Any) -> Record:
    """The record with other values in some fields."""
    return replace(record, **values)
