"""The steps of a run as rows, in the order of the graph: what `show` lists and what a waiting command follows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from orchestrator.cli.texts import NONE, duration_text, error_text, milliseconds, time_text
from orchestrator.engine.announcements import read_queues
from orchestrator.engine.read.results import moment
from orchestrator.engine.read.run_reader import Reader
from orchestrator.rules.change import Dispatch
from orchestrator.rules.graph import Path
from orchestrator.rules.model import FINAL, Activation, ActivationStatus, Role, RunHeader
from orchestrator.rules.timers import is_swept

if TYPE_CHECKING:
    from datetime import datetime

    from orchestrator.app import Orchestrator, Run

COLUMNS = ("STEP", "STATUS", "STARTED", "DURATION", "ATTEMPT", "ERROR")


@dataclass(frozen=True, slots=True)
class WaitingMessage:
    """The message of a queued step, which no worker has claimed yet."""

    # "" where the name is not known here: the app's default queue, seen without the app
    queue: str
    # None where that is not stored
    since: datetime | None
    # messages that were sent of it: more than one where nobody has claimed it for long
    sends: int
    # True where it is known that no worker listens on the queue
    is_unheard: bool

    def __str__(self) -> str:
        since = f" since {time_text(self.since)}" if self.since is not None else ""
        sends = f", sent {self.sends} times" if self.sends > 1 else "" if self.sends else ", not sent yet"
        unheard = "; no worker listens there" if self.is_unheard else ""
        return f"in queue {self.queue}{since}{sends}{unheard}" if self.queue else f"in a queue{since}{sends}"

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        unheard = {"no_worker": True} if self.is_unheard else {}
        return {"queue": self.queue or None, "since": milliseconds(self.since), "sends": self.sends, **unheard}


@dataclass(frozen=True, slots=True)
class Row:
    """One step of a run, as the commands show it."""

    # as among the steps of a stored run: `child[0].step`
    name: str
    # its place in the graph: `child.step`
    dotted: str
    # the last part of the name
    step: str
    # the number of nested workflows and items around it
    depth: int
    # True for an item of a foreach
    is_item: bool
    # as callers see it
    status: str
    # None before its first attempt
    started_at: datetime | None
    # the time since then, until its end or now; None before its first attempt
    seconds: float | None
    # counts from 1; 0 before the first
    attempt: int
    # the error of its last attempt
    error: BaseException | None
    # the reason why it is parked, or the number of abandoned attempts
    note: str
    # the message that waits for a worker; None where there is none
    message: WaitingMessage | None
    # the items of a foreach that have ended
    done: int
    # the items of a foreach; 0 for other steps
    total: int

    @property
    def status_text(self) -> str:
        """The status, with the count of a foreach."""
        return f"{self.status} {self.done}/{self.total}" if self.total else self.status

    def cells(self) -> list[str]:
        """The row of a table with `COLUMNS`."""
        attempt = str(self.attempt) if self.attempt else NONE
        return [
            self.name,
            self.status_text,
            time_text(self.started_at),
            duration_text(self.seconds),
            attempt,
            self.remark,
        ]

    @property
    def remark(self) -> str:
        """The error, or what else there is to say."""
        if self.error is not None:
            return error_text(self.error)
        said = [self.note, str(self.message) if self.message is not None else ""]
        return "; ".join(filter(None, said)) or NONE

    @property
    def indented(self) -> str:
        """The step's own name, set in by its depth."""
        return "  " * self.depth + self.step


def rows_of(orchestrator: Orchestrator, run: Run) -> list[Row]:
    """All steps of the run that have been reached."""
    reader = orchestrator.client.reader(run.header())
    shown = [
        activation
        for _, activation in sorted(reader.activations.items())
        if activation.path and activation.role != Role.BLOCK
    ]
    found = [reader.with_final_status(activation) for activation in shown]
    reader.values.fetch(activation.error for activation in found)
    now = orchestrator.store.now()
    queues = _Queues(orchestrator, reader.header)
    return [_row(reader, activation, now, queues) for activation in found]


def _row(reader: Reader, activation: Activation, now: int, queues: _Queues) -> Row:
    outer = _ancestors(reader, activation)
    error = reader.values.plain(activation.error) if activation.error else None
    is_item = activation.role == Role.ITEM
    return Row(
        name=name_of(reader, activation),
        dotted=".".join(above.step for above in [*outer, activation]),
        step=_own_name(activation),
        depth=len(outer) + sum(above.index >= 0 for above in outer) + is_item,
        is_item=is_item or any(above.index >= 0 for above in outer),
        status=str(reader.step_status(activation)),
        started_at=moment(activation.started_at),
        seconds=_seconds(reader, activation, now),
        attempt=activation.attempt + 1 if activation.started_at else 0,
        error=error if isinstance(error, BaseException) else None,
        note=_note(activation),
        message=queues.message_of(activation),
        done=activation.total - activation.pending_children,
        total=activation.total,
    )


def _note(activation: Activation) -> str:
    if activation.parked:
        return f"parked: {activation.parked}"
    return f"{activation.abandoned_attempts} attempt(s) abandoned" if activation.abandoned_attempts else ""


class _Queues:
    """Tells in which queue the message of an activation waits, and whether a worker listens there."""

    def __init__(self, orchestrator: Orchestrator, header: RunHeader) -> None:
        self._app = orchestrator.app
        self._store = orchestrator.store
        self._header = header
        # A foreach has thousands of activations with one route.
        self._by_route: dict[str, str] = {}

    def message_of(self, activation: Activation) -> WaitingMessage | None:
        """Return the message of a queued activation."""
        if activation.status != ActivationStatus.QUEUED or self._header.status in FINAL or not is_swept(self._header):
            return None
        if activation.route not in self._by_route:
            self._by_route[activation.route] = activation.where.queue or self._ask_router(activation)
        queue = self._by_route[activation.route]
        is_unheard = bool(queue) and self._listened is not None and queue not in self._listened
        return WaitingMessage(queue, moment(activation.queued_at), activation.sends, is_unheard)

    @cached_property
    def _listened(self) -> frozenset[str] | None:
        return read_queues(self._store, self._header.namespace)

    def _ask_router(self, activation: Activation) -> str:
        """Return the queue that the app's router chooses; "" where there is no app, or the router fails."""
        if self._app is None:
            return ""
        # Imported here: it imports Celery, which a store of one's own does without.
        from orchestrator.canvas.messages import message, queue_of

        dispatch = Dispatch(activation.path, activation.seq, activation.route)
        try:
            return queue_of(self._app, message(self._app, self._header, dispatch)) or ""
        except Exception:  # noqa: BLE001  (routers are user code, and this only shows)
            return ""


def name_of(reader: Reader, activation: Activation) -> str:
    """Return the activation's name among the steps of its run: `child[0].step`."""
    return ".".join(map(_own_name, [*_ancestors(reader, activation), activation]))


def _ancestors(reader: Reader, activation: Activation) -> list[Activation]:
    """Return the nested workflows around an activation, outermost first."""
    return [reader.activations[activation.at[:cut]] for cut in _scopes(reader, activation)]


def _own_name(activation: Activation) -> str:
    return f"{activation.step}[{activation.index}]" if activation.index >= 0 else activation.step


def _scopes(reader: Reader, activation: Activation) -> list[int]:
    """Return the lengths of the paths of the nested workflows around an activation."""
    found: list[int] = []
    scope = activation.scope
    while scope:
        found.insert(0, scope)
        above: Path = activation.at[:scope]
        scope = reader.activations[above].scope if above in reader.activations else 0
    return [cut for cut in found if activation.at[:cut] in reader.activations]


def _seconds(reader: Reader, activation: Activation, now: int) -> float | None:
    if not activation.started_at:
        return None
    over = reader.header.ended_at if reader.header.status in FINAL else now
    return max(0, (activation.ended_at or over) - activation.started_at) / 1000
