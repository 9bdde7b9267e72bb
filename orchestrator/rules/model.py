"""A run as data: one run header, and one activation for each node that the run has come to, addressed by its path.

Both are flat (strings, numbers, truth values), so every store keeps each as one small document, and a script can read
it. Values (inputs, outputs, errors) are never inside: activations name them by their ids. Times are milliseconds since
1970, written by the clock of the store alone, because the clocks of two workers may differ by more than a lease. This
module must not know how an activation changes: that is `stamps` and `apply`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from functools import cache, lru_cache
from operator import attrgetter
from typing import Any, Self, TypedDict, TypeVar, Unpack

from orchestrator.rules.graph import Path, Route
from orchestrator.rules.transitions import AWAITING, ENDED, FINAL, LIVE, ActivationStatus, StoredStatus

__all__ = [
    "AWAITING",
    "ENDED",
    "FINAL",
    "LIVE",
    "UNSWEPT_RUNTIMES",
    "Activation",
    "ActivationFields",
    "ActivationStatus",
    "Phase",
    "Report",
    "Role",
    "RunHeader",
    "RunHeaderFields",
    "StoredStatus",
    "belongs",
    "format_path",
    "is_report",
    "pack_route",
    "parse_path",
    "report_path",
    "unpack_route",
    "visits",
    "with_fields",
    "with_header_fields",
]


# Runs of these runtimes live in the process of their caller, and no worker needs to know their workflows. A sweep would
# hand their steps to workers all the same, so their timers are nobody's. Only `restart` takes them over.
UNSWEPT_RUNTIMES = frozenset({"local"})


class Phase(StrEnum):
    """The work to be done when an activation is claimed."""

    RUN = "run"  # call the function of a step, mapping or task
    VALIDATE_INPUT = "validate_input"  # validate the input of a nested workflow
    EVALUATE_BRANCH = "evaluate_branch"  # evaluate the conditions of a branch
    FAN_OUT = "fan_out"  # spread the items of a foreach
    START_ITEMS = "start_items"  # start further items of a foreach that may run at once
    EVALUATE_LOOP = "evaluate_loop"  # evaluate the condition of a loop
    JOIN = "join"  # gather the children of a block
    COMPUTE_SLEEP = "compute_sleep"  # compute how long to sleep
    SLEEP_OVER = "sleep_over"  # go on after a sleep
    AWAIT_EVENT = "await_event"  # begin to wait for an event
    EVENT_RECEIVED = "event_received"  # go on with an event
    EVENT_TIMEOUT = "event_timeout"  # go on without the event, which has not come in time
    SETTLE = "settle"  # decide the status of a run in which nothing is live any more
    EXECUTE = "execute"  # call the code of a task, in the message that was sent for it
    LOOK = "look"  # look whether a task that was sent has ended
    SEND_AGAIN = "send_again"  # the same; if it has not, send its message again
    REPORT = "report"  # tell of a settling that is recorded: call a hook, or deliver the result


class Role(StrEnum):
    """The way in which an activation shows among a scope's step results."""

    STEP = "step"  # under its own id
    BLOCK = "block"  # not at all: its children do
    ITEM = "item"  # only under its foreach


class Report(StrEnum):
    """One of those that are told how a run has settled, in the order in which they are."""

    ON_FINISH = "on_finish"
    ON_ERROR = "on_error"
    RESULT = "result"  # the result backend


def format_path(path: Path) -> str:
    """Write a path as text: `0.2.1`. The run itself is the empty text."""
    return ".".join(map(str, path))


def parse_path(text: str) -> Path:
    """Read a path that `format_path` wrote."""
    return tuple(map(int, text.split("."))) if text else ()


def report_path(settle_count: int, report: Report) -> str:
    """Return the path of a report: the settling, below zero, and which report of it. `-2.1`: `on_error` of the second.

    No node of a graph has such a path. Settle counts never come back, so each settling has places of its own.
    """
    return format_path((-settle_count, list(Report).index(report)))


def is_report(path: str) -> bool:
    """Tell whether a report is at this path, and no node of the graph."""
    return path.startswith("-")


def report_counter(path: str) -> str:
    """Return the field of the run header that counts a report at this path while it is queued or at work."""
    return "delivering" if parse_path(path)[-1] == list(Report).index(Report.RESULT) else "calling"


@dataclass(frozen=True, slots=True)
class _Layout:
    """The fields of a class, prepared for reading all of them in few steps."""

    defaults: tuple[tuple[str, Any], ...]
    places: Mapping[str, int]
    values: attrgetter[tuple[Any, ...]]


@cache
def _layout(kind: type[Any]) -> _Layout:
    defaults = tuple((field.name, field.default) for field in fields(kind))
    names = [name for name, _ in defaults]
    return _Layout(defaults, {name: place for place, name in enumerate(names)}, attrgetter(*names))


@dataclass(frozen=True, slots=True)
class _Flat:
    def doc(self) -> dict[str, Any]:
        """Return the fields that do not have their default, as a flat dict that JSON can carry."""
        layout = _layout(type(self))  # type: ignore[arg-type]  # mypy takes the hash of the class for that of its objects
        pairs = zip(layout.defaults, layout.values(self), strict=True)
        return {name: value for (name, default), value in pairs if value != default}

    @classmethod
    def parse(cls, doc: dict[str, Any]) -> Self:
        """Read what `doc` returned. Fields of a newer version are left out."""
        try:
            return cls(**doc)
        except TypeError:
            known = cls.__dataclass_fields__
            return cls(**{name: value for name, value in doc.items() if name in known})


_AFlat = TypeVar("_AFlat", bound=_Flat)


@dataclass(frozen=True, slots=True)
class Activation(_Flat):
    """One activation: a node of the graph in one run, with all attempts at it.

    Absent is the empty text or 0, never None: a script in another language has no trouble with that.
    """

    path: str = ""  # the indices from the outside in, `0.2.1`; empty for the run itself
    step: str = ""  # id of the entry, so that readers need no graph
    component: str = ""  # kind of the entry: STEP, FOREACH, …
    role: str = Role.STEP.value  # a Role
    phase: str = Phase.RUN.value  # a Phase: the work of the next claim
    status: str = ActivationStatus.QUEUED.value  # an ActivationStatus
    visit: str = ""  # iterations of the loops around it, outermost first, `2.1`
    seq: int = 0  # number of the commit that made it claimable; a message with an older one is stale
    lease_token: str = ""  # fencing token of the present claim; guards every write of it
    last_lease_token: str = ""  # lease token of the last claim that ended by a commit
    last_reply: str = ""  # answer to that commit, for a worker that sends it again
    lease: int = 0  # ms that the lease of the present claim lasts each time
    flush_seq: int = 0  # number of the last flush of the present claim
    first_seq: int = 0  # number of the commit by which it first ran: the order of first runs
    route: str = ""  # a Route as JSON, so that the scheduler needs no graph
    quiet: bool = False  # emits no events of its own
    input: str = ""  # id of the input
    output: str = ""  # id of the output
    error: str = ""  # id of the error
    needs: str = ""  # ids of further values that its claim is to bring, between blanks
    scope: int = 0  # length of the path of the scope it belongs to
    attempt: int = 0  # retries so far
    abandoned_attempts: int = 0  # attempts in a row whose lease ended without a commit
    iteration: int = 0  # of a loop: runs of its body so far
    finished: str = ""  # of a loop: ids of the manifests of its newest iterations, oldest first, between blanks
    index: int = -1  # of a foreach item
    pending_children: int = 0  # children of a block that are not finished
    next_item: int = 0  # index of the next item to start
    total: int = 0  # children of a block
    never_started: int = 0  # items that will never start, because one has failed
    concurrency: int = 0  # of a foreach: items at a time
    suspend: str = ""  # id of the suspend payload
    resume: str = ""  # id of the resume data; present while the activation is a resumption
    resumed: bool = False  # its function is called with resume data
    restarted: bool = False  # an attempt was abandoned, or taken away by a restart
    label: str = ""  # the user's own name for its suspension
    waiter: str = ""  # its entry in the mailbox of the event that it waits for
    tripwire: bool = False  # failed by a TripWire
    queued_at: int = 0  # last time it went into the queue
    started_at: int = 0  # first time it ran
    ended_at: int = 0
    suspended_at: int = 0  # last time it began to await something
    resumed_at: int = 0  # last time it went on from that
    deadline: int = 0  # moment at which a worker must look at it again
    sends: int = 1  # messages sent of it since it was queued; 0 where it is known that none could be
    looks: int = 0  # times in a row that a sweep left it in a long queue
    parked: str = ""  # reason why no worker can run it now
    trace: str = ""  # span ids of the blocks around it, outermost first; of an open block also its own
    sending: int = 0  # of a task: number of its present sending, from 1; each has a task id of its own
    sender: str = ""  # lease token of the claim that has sent the present message, which names it
    arguments: str = ""  # id of the arguments of the present message, where the task has chosen others
    task_retries: int = 0  # retries that the task has asked for in the present sending
    sent_at: int = 0  # when the present sending, or what has taken its place, was sent
    settled: str = ""  # of a report: the status that it tells of
    following: str = ""  # of a report: those that begin when it has been tried, between blanks

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
        """True where a worker goes on with it unasked. Neither the run's own activation nor a report ever counts."""
        return self.status in LIVE and self.path != "" and not is_report(self.path)


@dataclass(frozen=True, slots=True)
class RunHeader(_Flat):
    """Everything that is known of a run as a whole."""

    run_id: str = ""
    workflow_id: str = ""
    resource_id: str = ""  # the user's name for the owner of the run
    fingerprint: str = ""  # of the graph that it was started with
    namespace: str = ""  # workers and schedulers look after one namespace
    runtime: str = ""  # name of the runtime that carries its dispatches
    status: str = StoredStatus.PENDING.value  # a StoredStatus
    generation: int = 0  # time travels so far
    commits: int = 0  # number of the last commit
    settle_count: int = 0  # how often it has settled
    live: int = 0  # number of live activations; the commit that takes it to zero settles the run
    suspended: int = 0  # number of suspended activations
    waiting: int = 0  # number of waiting activations
    paused: int = 0  # number of paused activations
    calling: int = 0  # number of hooks that are queued or being called; those that wait for another try do not count
    delivering: int = 0  # the same of deliveries of its result
    outcome: str = ""  # status with which the flow has ended; `status` follows when the run settles
    failure: str = ""  # id of the first error that nothing can tolerate any more
    tripwire: bool = False  # that failure, or the outcome, is a tripwire
    closed: bool = False  # ended by `bail`, `abort` or `cancel`: only the settling may follow
    per_step: bool = False  # goes by single steps, each on a resume
    quiet: bool = False  # emits no events of its steps
    auto_restart: bool = True  # abandoned attempts are taken over; else only `restart` does that
    abandoned_starts: int = 0  # processes that were lost in its start, as far as that is known
    hooks: str = ""  # the hooks of its workflow when it was started, for who ends it without knowing the workflow
    input: str = ""  # id of the input
    output: str = ""  # id of the output
    error: str = ""  # id of the error
    trace: str = ""  # its span: a W3C `traceparent`, and a `tracestate` behind a blank
    pending_resumes: str = ""  # the beginning of the ids of what is pending for steps not reached yet
    state_version: str = ""  # of the run's state: another one means that it was written since it was read
    last_request_id: str = ""  # id of the last change of a caller
    last_reply: str = ""  # answer to that change, for a caller that sends it again
    created_at: int = 0
    started_at: int = 0
    updated_at: int = 0
    ended_at: int = 0

    @property
    def final(self) -> bool:
        """True where the run has ended. Only a time travel lets it go on."""
        return self.status in FINAL

    @property
    def is_awaiting(self) -> bool:
        """True where something in the run needs a resume or an event, whatever else still runs."""
        # Not by the status: a run is suspended only once nothing is live any more. In one that has ended nothing is
        # awaited, though a step that was suspended then is so still.
        return self.suspended + self.waiting + self.paused > 0 and not self.final


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
    lease: int
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
    finished: str
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
    sends: int
    looks: int
    parked: str
    trace: str
    sending: int
    sender: str
    arguments: str
    task_retries: int
    sent_at: int
    settled: str
    following: str


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
    calling: int
    delivering: int
    outcome: str
    failure: str
    tripwire: bool
    closed: bool
    per_step: bool
    quiet: bool
    auto_restart: bool
    abandoned_starts: int
    hooks: str
    input: str
    output: str
    error: str
    trace: str
    pending_resumes: str
    state_version: str
    last_request_id: str
    last_reply: str
    created_at: int
    started_at: int
    updated_at: int
    ended_at: int


# A workflow has few routes, and each activation carries one as text: both directions are remembered.
@lru_cache(maxsize=4096)
def pack_route(route: Route) -> str:
    """Write a route as compact JSON, without what is absent."""
    return json.dumps({k: v for k, v in asdict(route).items() if v is not None}, separators=(",", ":"))


@lru_cache(maxsize=4096)
def unpack_route(text: str) -> Route:
    """Read a route that `pack_route` wrote."""
    if not text:
        return Route("")
    doc = json.loads(text)
    try:
        return Route(**doc)
    except TypeError:  # a newer release's has a field that this one does not know
        return Route(**{name: value for name, value in doc.items() if name in Route.__dataclass_fields__})


def visits(activation: Activation) -> tuple[int, ...]:
    """Return the visit as numbers."""
    return parse_path(activation.visit)


def belongs(child: Activation, ancestor: Activation) -> bool:
    """Tell whether `child` is of the ancestor's present visit, and not left over from an earlier iteration."""
    # Activations of an earlier iteration stay in the store until their places are taken again: deleting them would make
    # the commit of an iteration as large as the loop's body.
    mine, theirs = visits(child), visits(ancestor)
    return mine[: len(theirs)] == theirs


def with_fields(activation: Activation, **values: Unpack[ActivationFields]) -> Activation:
    """Return the activation with other values in some fields."""
    return _copy(activation, values)


def with_header_fields(header: RunHeader, **values: Unpack[RunHeaderFields]) -> RunHeader:
    """Return the run header with other values in some fields."""
    return _copy(header, values)


def _copy(of: _AFlat, values: Mapping[str, Any]) -> _AFlat:
    """Do what `dataclasses.replace` does, in half the time: a sweep copies each header and activation that it moves."""
    if not values:
        return of
    layout = _layout(type(of))  # type: ignore[arg-type]  # as above
    found = list(layout.values(of))
    for name, value in values.items():
        found[layout.places[name]] = value
    return type(of)(*found)
