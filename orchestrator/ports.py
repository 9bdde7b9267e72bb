"""The ports: all that the engine needs of stores, clocks and runtimes, stated as conditions.

A store that keeps the conditions passes `orchestrator.testing.StoreContract`, whatever it is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from orchestrator.errors import BrokerUnavailable
from orchestrator.rules.change import Change, Claimed, ClaimRequest, Committed, Dispatch, Refused
from orchestrator.rules.model import Activation, RunHeader
from orchestrator.rules.timers import QueueState, SweepGrant

UNREADABLE = "unreadable"  # the status of a stored run whose header cannot be read


@dataclass(frozen=True, slots=True)
class LeaseRef:
    """Names one lease of this process, which is to be renewed."""

    run_id: str
    path: str  # of the claimed activation
    token: str  # the lease token of the claim


@dataclass(frozen=True, slots=True)
class DueTimer:
    """An activation whose deadline has come, with its run's header. The two were read together.

    Where one of them cannot be read, `problem` says why, and the two hold no more than run id and path.
    """

    header: RunHeader
    activation: Activation
    problem: str = ""


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One event of a run's log."""

    # A cursor. Only the store that gave it can compare it: as texts, ids do not sort in the order of the log.
    id: str
    at: int  # the store's clock, in ms
    doc: Mapping[str, Any]  # the event as the change wrote it


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Selects runs to list, newest first. None matches everything."""

    workflow_id: str | None = None
    status: str | None = None
    resource_id: str | None = None
    limit: int = 100
    offset: int = 0
    awaiting: bool = False  # keeps the runs with `RunHeader.is_awaiting`


@dataclass(frozen=True, slots=True)
class StalePage:
    """One page of headers of runs that were written last before a moment."""

    headers: Sequence[RunHeader]  # perhaps none, although more follow
    after: str  # the cursor behind what was looked at; empty where nothing follows


class RunStore(Protocol):
    """Keeps the header, the activations and the values of runs.

    A store compares and writes, and decides nothing: `rules.apply` says what a claim or a change does.
    """

    def create(self, header: RunHeader) -> RunHeader:
        """Insert a pending run, stamped with `created_at` and `updated_at`, and return its header.

        If a run has this id already, return the header of that run, which stays untouched.
        """
        ...

    def claim(self, ask: ClaimRequest) -> Claimed | Refused:
        """Do what `rules.apply.claim` says, atomically, and return all that the activation needs.

        `Claimed.values` holds those of the activation's input, suspend payload, resume data and `needs` that exist.
        `state` and `context` are whole. One round trip, if the store can.

        A repeat under the same token gets the first answer and changes nothing.
        """
        ...

    def commit(self, run_id: str, change: Change) -> Committed | Refused:
        """Do what `rules.apply.apply` says, atomically: all of the change becomes visible at once, or nothing of it.

        Commits of one run exclude each other. Values are written under their ids; one that exists already stays as it
        is. `Committed.claimed` is what `claim` would have returned.

        A repeat gets the first answer and changes nothing, also when the first answer was lost on the way; of the
        dispatches it gets the first 50. A change is a repeat if a commit has ended the claim of its lease token, or if
        the run remembers its request id: the last one of all, and earlier ones for `rules.replies.REQUEST_MEMORY` since
        the next one came. One with a `LeaseGuard.flush_seq`, which lets its claim go on, is a
        repeat if that number has been reached.

        What the change drops (`drop`, `drop_values`, `drop_events`) goes before the rest is written. An emptied log
        begins anew: a cursor from before means nothing any more. A request that another has undone
        (`RequestGuard.undoes`) is no repeat any more, and is refused.

        The timer of an activation is written as the header says after the change: where a change gives the run another
        runtime or namespace, the timers of the activations that it names go there, or away.

        After `StoreUnavailable` the outcome is unknown, and the same change may be sent again.
        """
        ...

    def commit_many(self, changes: Sequence[tuple[str, Change]]) -> list[Committed | Refused]:
        """Commit changes of several runs, each by itself, in fewer round trips than one for each if it can.

        An error leaves open which of them were committed.
        """
        ...

    def header(self, run_id: str) -> RunHeader | None:
        """Return the run's header, or None. Raises `ValueNotReadable` where it cannot be read."""
        ...

    def load(self, run_id: str, paths: Iterable[str] | None = None) -> list[Activation]:
        """Return the activations at `paths`, as far as they exist, or all of them, in the order of paths as numbers.

        They are read at one moment: no commit is seen in part.
        """
        ...

    def load_awaiting(
        self, run_id: str, *, below: Sequence[str] | None = None, label: str | None = None
    ) -> list[Activation]:
        """Return the activations with an awaiting status, in the same order and at one moment.

        Of all of them: those at or below one of the paths `below`, or those with this label. The store finds them
        without reading any others: a run may have ten thousand that have ended, and as many that wait.
        """
        ...

    def values(self, run_id: str, ids: Iterable[str]) -> dict[str, str]:
        """Return the stored texts of these values, as far as they exist."""
        ...

    def state(self, run_id: str) -> dict[str, str]:
        """Return the run's state, key by key, as stored texts."""
        ...

    def context(self, run_id: str) -> dict[str, str]:
        """Return the run's request context, key by key, as stored texts."""
        ...

    def mail(self, run_id: str, name: str, limit: int = 1) -> list[str]:
        """Return the first entries of the mailbox of this event name, in the order of their bytes.

        However many there are, reading the first and committing a change of the mailbox cost the same.
        """
        ...

    def wait_until_settled(self, run_id: str, settle_count: int, timeout: float) -> RunHeader | None:
        """Return the header as soon as the run has settled more than `settle_count` times.

        After `timeout` seconds return it as it is. None as soon as there is no such run.
        """
        ...

    def delete(
        self,
        run_id: str,
        statuses: frozenset[str] | None = None,
        *,
        created_at: int | None = None,
        before: int | None = None,
    ) -> bool:
        """Remove the run and all that belongs to it, atomically, if `rules.commands.may_delete` allows it.

        A run whose header cannot be read has the status `UNREADABLE`.

        Return False where nothing was removed; also for a repeat whose first answer was lost, because nothing is left
        that could remember it. Whoever has seen the run before knows by its being gone that it was removed.
        """
        ...


class EventLog(Protocol):
    """Keeps the events of runs, in the order of the commits that wrote them."""

    def events(self, run_id: str, after: str = "", limit: int = 500) -> list[StoredEvent]:
        """Return events behind the cursor (or from the beginning), in order.

        No event ever appears before one that has been read. Where events behind the cursor were dropped, because the
        log had grown too long (`Change.max_events`) or they too old (`Change.max_event_age`, by the store's clock), the
        first event returned has the type `EventType.EVENTS_TRIMMED` and stands for them. Only commits drop events.

        Raise ValueError for a text that is no cursor.
        """
        ...

    def wait_for_events(self, run_id: str, after: str, timeout: float, limit: int = 500) -> list[StoredEvent]:
        """Return the page that `events` returns as soon as it has an event; an empty one after `timeout` seconds.

        Any number of readers may wait. Commits of runs that nobody follows pay nothing for it.
        """
        ...

    def last_event(self, run_id: str) -> str:
        """Return the cursor behind the newest event, without reading the log; empty where there is none."""
        ...


class RunIndex(Protocol):
    """Finds runs."""

    def runs(self, query: RunQuery) -> list[RunHeader]:
        """Return one page of the headers that match, newest first. The store finds them without reading the others.

        One that cannot be read is a header of status `UNREADABLE` that holds its run's id.
        """
        ...

    def count_runs(self, query: RunQuery) -> int:
        """Return how many runs match, on all pages. May cost as much as there are."""
        ...

    def stale_runs(self, status: str, before: int, after: str = "", limit: int = 100) -> StalePage:
        """Return runs of this status that were last written before that moment (ms), behind the cursor.

        Page by page it finds each of them once, the oldest first by their creation. The store looks at `limit` runs at
        most for a page, and at none that was created later. Runs that cannot be read are left out.
        """
        ...


class Timers(Protocol):
    """Finds activations whose deadline has come, and knows the workers and schedulers that look after them."""

    def due_timers(self, namespace: str, limit: int = 100, *, newest: bool = False) -> list[DueTimer]:
        """Return timers of this namespace whose deadline has come, most overdue first; with `newest` the last first.

        At most `limit` of each lane (`rules.timers.Lane`) are found. Those that cannot be read are among them, each
        with its problem, and hide none of the others.

        Only activations with `rules.timers.has_timer` are found. Timers that mean nothing any more, by
        `rules.timers.is_timer_live`, are dropped on the way and never keep others from being found.
        """
        ...

    def set_aside(self, run_id: str, path: str, namespace: str, delay: int) -> None:
        """Have this timer fall due again after `delay` ms, if it is due. Reads nothing of what it belongs to."""
        ...

    def renew(self, refs: Sequence[LeaseRef], lease: int) -> dict[LeaseRef, str]:
        """Extend these leases to `lease` ms from now, and return those that are lost, with the reason.

        `rules.apply.renew` decides: a lease that is over is renewed too, as long as no worker has taken its activation.
        Each is renewed by itself, and the others go on where one is lost. A repeat extends them again.
        """
        ...

    def find_stranded(self, namespace: str, ahead: int, limit: int = 100) -> list[DueTimer]:
        """Return claims whose leases end within `ahead` ms and yet farther off than a lease can, the farthest first.

        `rules.timers.is_stranded` says which: the clock has gone back since they were written.
        """
        ...

    def acquire_sweep(self, namespace: str, holder: str, lease: int, pause: int) -> SweepGrant | None:
        """Do what `rules.timers.take_sweep_right` says, atomically. Return None where another holds the right.

        A repeat whose first answer was lost gets no better one.
        """
        ...

    def heartbeat(self, namespace: str, worker: str, ttl: int) -> None:
        """Note that this worker lives, for `ttl` ms. Idempotent."""
        ...

    def workers(self, namespace: str) -> list[str]:
        """Return the workers of this namespace whose last heartbeat still counts."""
        ...

    def now(self) -> int:
        """Return the time of the store's clock, in ms. All moments and deadlines in the store are by this clock."""
        ...


class Store(RunStore, EventLog, RunIndex, Timers, Protocol):
    """Everything that the engine needs of a database.

    A store may be used from several threads. A process uses only connections and locks that it made itself: after a
    fork a store opens its own. Every verb raises `StoreUnavailable` when the database does not answer.
    """

    def with_own_connections(self) -> Store:
        """Return the same runs behind connections, and locks, that are shared with nobody."""
        ...

    def close(self) -> None:
        """Give connections back. Idempotent."""
        ...


class Clock(Protocol):
    """Time for what runs in this process: the memory store's clock and the pauses of the default runtime."""

    def now(self) -> int:
        """Return the milliseconds since 1970."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait, or move a virtual clock on."""
        ...


class WakeupChannel(Protocol):
    """Wakes the readers that wait for a run to change, in any process, where the database itself cannot.

    A wake-up is a hint and may be missed: readers look at the store by themselves as well, only more rarely.
    """

    def notify(self, run_id: str) -> None:
        """Wake all readers of this run. Never waits, never raises."""
        ...

    def count(self, run_id: str) -> int:
        """Return how many notifications of this run have come here. From the first call on this process listens."""
        ...

    def wait(self, run_id: str, count: int, seconds: float) -> bool:
        """Return True as soon as more than `count` have come, or after `seconds`.

        Return False where none can come at present.
        """
        ...


@runtime_checkable
class WantsWakeups(Protocol):
    """A store whose database wakes no readers: the application gives it a channel."""

    def attach_wakeups(self, channel: WakeupChannel) -> None:
        """Notify, and wait, by this channel from now on. A store that has one keeps it."""
        ...


@dataclass(frozen=True, slots=True)
class TaskMessage:
    """A task as it is sent for a step. All but the options of the entry is of the present sending."""

    name: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    options: Mapping[str, Any]  # of its message, as the entry has them
    carries_value: bool  # word of the end brings the value along
    task_id: str
    run_id: str
    path: str
    sending: int
    sender: str  # the claim that sends it, which an execution names
    retries: int  # that the task has asked for until now


@dataclass(frozen=True, slots=True)
class TaskEnd:
    """The end of a task: its value, or its error."""

    value: Any = None
    error: BaseException | None = None
    is_final: bool = False  # no other attempt of the step follows: somebody has decided that it ends


class TaskCarrier(Protocol):
    """Sends existing tasks as themselves, and looks for their ends."""

    @property
    def default_timeout(self) -> float:
        """Seconds after which a task that cannot be sent again is given up, where its entry names none."""
        ...

    def knows(self, name: str) -> bool:
        """Tell whether the task is one of this process's own code: then its executions claim their steps."""
        ...

    def send(self, message: TaskMessage) -> None:
        """Send a task. Raises `BrokerUnavailable`, and whatever its own `apply_async` raises."""
        ...

    def find_end(self, task_id: str) -> TaskEnd | None:
        """Look into the result backend; None where it says nothing, or there is none."""
        ...

    def revoke(self, task_id: str) -> None:
        """Ask workers not to begin it. Never raises."""


class QueueWatch(Protocol):
    """Knows of the queues of messages what can be seen from outside. For the scheduler: one thread at a time."""

    def state_of(self, header: RunHeader, dispatch: Dispatch) -> QueueState | None:
        """Return what is known of the queue of this dispatch's message; None where the broker does not answer.

        What is a tick old counts as known.
        """
        ...

    def watch(self) -> None:
        """Look at those queues again that were long: how they move says which messages are in them no more.

        Once in a tick. Never waits for long, and raises nothing.
        """
        ...


class Runtime(Protocol):
    """Carries dispatches to the code that executes them.

    The runtimes differ in this and in nothing else: code that needs to know where runs are executed asks `is_shared`.
    """

    # The name that is stored in the headers of its runs: a run belongs to the runtime that has last let it go on.
    name: str
    # True if processes share the work: any worker takes any dispatch, a scheduler sweeps the timers, and runs outlive
    # this process. False if this process alone executes them, keeps their timers, and takes them along when it ends.
    is_shared: bool

    @property
    def tasks(self) -> TaskCarrier | None:
        """The carrier of existing tasks that are steps; None where they are called in the place of their steps."""
        ...

    @property
    def keeps_results(self) -> bool:
        """True if users look for the results of ended runs elsewhere than in the store: in a result backend."""
        ...

    def register_workflow(self, workflow: Any) -> None:
        """Prepare the runtime for the entries of a committed workflow. Idempotent."""
        ...

    def publish(self, header: RunHeader, dispatches: Sequence[Dispatch], *, goes_on: bool = False) -> None:
        """Hand each dispatch to a worker; one with a `delay` only if it is near. Raises `BrokerUnavailable`.

        `goes_on`: the thread that publishes has another activation to run, so it could run none of these soon.
        """
        ...

    def publish_many(self, told: Sequence[tuple[RunHeader, Sequence[Dispatch]]]) -> list[BrokerUnavailable | None]:
        """Tell of the dispatches of many runs; for each, None or why nobody could be told. Never waits for long.

        For the scheduler: one thread at a time.
        """
        ...

    def discard_result(self, run_id: str) -> None:
        """Forget the result that `deliver` has delivered: the run goes on after it, or is gone. Idempotent.

        It raises whatever the result backend raises.
        """
        ...

    def on_progress(self, header: RunHeader) -> None:
        """Show watchers the run's header after a claim or a settling in this process. Never raises.

        It is called many times for one run, and not in every process that its steps pass through.
        """
        ...

    def on_end(self, header: RunHeader, result: Callable[[], Any], error: Callable[[], BaseException | None]) -> None:
        """Show watchers a run whose end has been committed by this process. Never raises.

        `result` and `error` read the store when they are called.
        """
        ...

    def deliver(self, header: RunHeader, result: Callable[[], Any], error: Callable[[], BaseException | None]) -> None:
        """Deliver the result of an ended run to the result backend, in the place of whatever it has of that id.

        It is called at least once for each end, and raises whatever the result backend raises: then it is called again.
        """
        ...

    # The verbs below do nothing where the runtime is shared: workers do the work.

    def drive(self, run_id: str, timeout: float | None = None) -> None:
        """Execute the run in this thread until nothing is left to do.

        After `timeout` seconds the rest is done in the background. Raises the exception by which this thread has left
        the run.
        """
        ...

    def drive_in_background(self, run_id: str) -> None:
        """Execute the run in another thread, and return at once."""
        ...

    def lend_thread(self, run_id: str, timeout: float | None = None) -> None:
        """Let the run use the thread of a caller that waits for it, at most for about `timeout` seconds.

        Returns at once where nothing is to be done here. Raises the exception by which this process has left the run.
        """
        ...

    def wake(self, run_id: str) -> None:
        """Look at a run that a request has changed: it may have been canceled."""
        ...

    def failure_of(self, run_id: str) -> BaseException | None:
        """Return the exception by which this process left the run; None if it has not. So no caller waits in vain."""
        ...

    def arm_timeouts(self, run_id: str) -> None:
        """Make sure that each wait of the run ends at its deadline. Idempotent."""
        ...

    def close(self) -> None:
        """End the runtime's threads. Idempotent."""
        ...
