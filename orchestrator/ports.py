"""The ports: what the engine needs from the world, stated as conditions.

A store that keeps these conditions passes `orchestrator.testing.StoreContract`, whatever it is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from orchestrator.rules.change import Change, Claimed, ClaimRequest, Committed, Dispatch, Refused
from orchestrator.rules.model import Activation, RunHeader


@dataclass(frozen=True, slots=True)
class LeaseRef:
    """One claim of this process, to be renewed."""

    run_id: str
    path: str
    token: str


@dataclass(frozen=True, slots=True)
class DueTimer:
    """An activation whose moment has come, with its run's header, as they were read together."""

    header: RunHeader
    activation: Activation


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One event of a run's log. `at` is in ms.

    `id` is a cursor, for the store that gave it and for nobody else to compare: as texts, ids do not sort in the order
    of the log.
    """

    id: str
    at: int
    doc: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Selects runs to list, newest first. `before` (ms) keeps those last written earlier; None matches everything."""

    workflow_id: str | None = None
    status: str | None = None
    resource_id: str | None = None
    before: int | None = None
    limit: int = 100
    offset: int = 0


@dataclass(frozen=True, slots=True)
class RunPageOf:
    """Headers of one page, and how many runs match in all."""

    headers: Sequence[RunHeader]
    total: int


class Store(Protocol):
    """Keeps runs. It compares and writes; it decides nothing.

    Safe to use from several threads. A process uses only connections and locks that it made itself: after a fork a
    store opens its own. Every verb raises `StoreUnavailable` when the store does not answer; after a `commit` that
    raised it the outcome is unknown, and the same change may be sent again.
    """

    def create(self, header: RunHeader) -> RunHeader:
        """Insert a pending run, or return what is stored under its id, untouched.

        Stamps `created_at` and `updated_at`.
        """
        ...

    def claim(self, ask: ClaimRequest) -> Claimed | Refused:
        """Run `core.apply.claim` atomically and bring everything the activation needs, in one round trip if it can.

        A repeat under the same token gets the first answer and changes nothing. `Claimed.values` holds the activation's
        input and all its `needs` that exist, also its suspend payload and resume data; `state` and `context` are whole.
        """
        ...

    def commit(self, run_id: str, change: Change) -> Committed | Refused:
        """Run `core.apply.apply` atomically: everything in the change becomes visible at once, or nothing does.

        A repeat (same holder token, or same caller id) gets the first answer and changes nothing, also when the
        first answer was lost on the way; a repeat gets no more than the first 50 of its dispatches.
        `Committed.claimed` is what `claim` would have returned. Commits of one run exclude each other. Values are
        written under their ids; one that exists already is left as it is. A repeat of a change that let its claim go on
        is one with the same `LeaseGuard.part` or a lower one.
        """
        ...

    def header(self, run_id: str) -> RunHeader | None:
        """The run's header, or None."""
        ...

    def load(self, run_id: str, paths: Iterable[str] | None = None, *, held: bool = False) -> list[Activation]:
        """Records in path order (as numbers): those at `paths` as far as they exist, or all. Consistent in itself.

        With `held` those that wait for somebody outside, without reading the others; `paths` means nothing then.
        """
        ...

    def values(self, run_id: str, ids: Iterable[str]) -> dict[str, str]:
        """Stored text of these values, as far as they exist."""
        ...

    def state(self, run_id: str) -> dict[str, str]:
        """The run's state, key by key, as stored text."""
        ...

    def context(self, run_id: str) -> dict[str, str]:
        """The run's request context, key by key, as stored text."""
        ...

    def mail(self, run_id: str, name: str) -> list[str]:
        """The entries of the mailbox of this event name, oldest first."""
        ...

    def events(self, run_id: str, after: str = "", limit: int = 500) -> list[StoredEvent]:
        """Events after the cursor (or from the beginning), in order. None is ever inserted before one that was read.

        Where some after the cursor were dropped because the log had grown too long (`Change.keep`) or they too old
        (`Change.keep_for`, by the store's clock), the first one has the type `EVENTS_TRIMMED` and stands for them. Only
        commits drop any: in a run without, all stay. Raises ValueError for what is no cursor.
        """
        ...

    def wait_for_events(self, run_id: str, after: str, timeout: float, limit: int = 500) -> list[StoredEvent]:
        """Return the page that `events` returns, as soon as there is one; nothing after `timeout` seconds.

        Any number of readers may wait. Runs that nobody follows pay nothing for it.
        """
        ...

    def last_event(self, run_id: str) -> str:
        """The cursor after the newest event, without reading the log; empty where there is none."""
        ...

    def wait_until_settled(self, run_id: str, settle_count: int, timeout: float) -> RunHeader | None:
        """The header as soon as the run has rested more often than `rests`, or as it is after `timeout` seconds."""
        ...

    def due_timers(self, namespace: str, limit: int = 100) -> list[DueTimer]:
        """Evented runs' activations of this namespace whose moment has come, most overdue first. Entries of runs that
        are no longer active are dropped on the way."""
        ...

    def renew(self, holdings: Sequence[LeaseRef], lease: int) -> dict[LeaseRef, str]:
        """Push the leases on by `lease` ms from now. Returns those that are not held any more, with `core.apply`'s
        reason.

        A lease that is over but has not been taken is renewed."""
        ...

    def runs(self, query: RunQuery) -> RunPageOf:
        """A page of headers."""
        ...

    def delete(self, run_id: str, states: frozenset[str] | None = None) -> bool:
        """Remove the run and all that belongs to it, if its status is one of `states`.

        False where nothing was removed.
        """
        ...

    def acquire_sweep(self, namespace: str, holder: str, lease: int) -> int:
        """Take or keep the right to sweep this namespace for `lease` ms. Returns 0 where another holds it, else the
        ms since the last sweep (1 at least; a very large number where there was none)."""
        ...

    def heartbeat(self, namespace: str, worker: str, ttl: int) -> None:
        """Note that this worker lives, for `ttl` ms."""
        ...

    def workers(self, namespace: str) -> list[str]:
        """The workers that have been announced and whose time is not over."""
        ...

    def now(self) -> int:
        """The store's clock, in ms."""
        ...

    def close(self) -> None:
        """Give connections back. Closing twice is harmless."""
        ...


class Clock(Protocol):
    """Time for what runs in this process: the memory store's clock and the pauses of the default runtime."""

    def now(self) -> int:
        """Milliseconds since 1970."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait, or move a virtual clock on."""
        ...


class WakeupChannel(Protocol):
    """Wakes whoever waits in some process for a run to change, where the database itself cannot.

    A hint, and no more: it may be missed, so whoever waits looks by itself as well, only more rarely.
    """

    def notify(self, run_id: str) -> None:
        """Tell everybody that something has happened to the run. Never waits, never raises."""
        ...

    def count(self, run_id: str) -> int:
        """The notifications of this run that have come here. From the first call on this process listens."""
        ...

    def wait(self, run_id: str, count: int, seconds: float) -> bool:
        """Return as soon as more have come than `count`, or after `seconds`.

        False where none can come at present.
        """
        ...


@runtime_checkable
class WantsWakeups(Protocol):
    """A store whose database wakes nobody: it takes a channel from whoever builds the application."""

    def attach_wakeups(self, channel: WakeupChannel) -> None:
        """Notify, and wait, by this channel from now on. A store that has one keeps it."""
        ...


class Runtime(Protocol):
    """Carries dispatches to the code that executes them.

    The runtimes differ in this and in nothing else: whoever needs to know where runs are executed asks `is_shared`.
    """

    # As the headers of its runs record it: a run stays with the runtime that it was created on.
    name: str
    # Processes share the work: any worker takes any dispatch, a scheduler sweeps the timers, and runs outlive this
    # process. Else this process alone executes them, keeps their timers, and takes them along when it ends.
    is_shared: bool

    def register_workflow(self, workflow: Any) -> None:
        """Make ready what the entries of a committed workflow need. Idempotent."""
        ...

    def publish(self, header: RunHeader, dispatches: Sequence[Dispatch]) -> None:
        """Tell somebody of each dispatch; one with a `delay` only if it is near. Raises `BrokerUnavailable`."""
        ...

    def discard_result(self, run_id: str) -> None:
        """Forget whatever was delivered of the run's end: the run goes on after it."""
        ...

    def on_progress(self, header: RunHeader) -> None:
        """Show watchers the run's header as a claim or a rest in this process has left it. Never raises.

        Many times for one run, and not in every process that its steps pass through."""
        ...

    def on_end(self, header: RunHeader, result: Callable[[], Any], error: Callable[[], BaseException | None]) -> None:
        """Deliver the result of a run that is about to be committed as ended, wherever the runtime's users look for it.

        At least once; `result` and `error` read the store when called."""
        ...

    # What follows does nothing where the runtime is shared: workers do it.

    def drive(self, run_id: str, timeout: float | None = None) -> None:
        """Execute the run here until nothing is left to do; what `timeout` (seconds) leaves undone, in the background.

        Raises what the run's worker, this thread, has died of.
        """
        ...

    def drive_in_background(self, run_id: str) -> None:
        """Execute the run without having the caller wait."""
        ...

    def wake(self, run_id: str) -> None:
        """Look at a run that was changed from outside: it may have been canceled."""
        ...

    def failure_of(self, run_id: str) -> BaseException | None:
        """The exception that this process left the run with, None where it has not; so nobody waits for it in vain."""
        ...

    def arm_timeouts(self, run_id: str) -> None:
        """See to it that each wait of the run ends when its time is over. Idempotent."""
        ...

    def close(self) -> None:
        """Let go of threads. Closing twice is harmless."""
        ...
