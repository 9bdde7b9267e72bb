"""The steps of a run as rows, in the order of the graph: what `show` lists and what a waiting command follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.cli.texts import NONE, duration_text, error_text, time_text
from orchestrator.engine.read.results import moment
from orchestrator.engine.read.run_reader import Reader
from orchestrator.rules.graph import Path
from orchestrator.rules.model import FINAL, Activation, Role, RunHeader

if TYPE_CHECKING:
    from datetime import datetime

    from orchestrator.app import Orchestrator, Run

COLUMNS = ("STEP", "STATUS", "STARTED", "DURATION", "ATTEMPT", "ERROR")


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
    # that no worker listens on its queue, the reason why it is parked, or the number of abandoned attempts
    note: str
    # the items of a foreach that have ended
    done: int
    # the items of a foreach; 0 for other steps
    total: int
    # its queue, where it is known that no worker listens on that
    unheard: str = ""

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
        return error_text(self.error) if self.error is not None or not self.note else self.note

    @property
    def indented(self) -> str:
        """The step's own name, set in by its depth."""
        return "  " * self.depth + self.step


def rows_of(orchestrator: Orchestrator, run: Run, *, with_listeners: bool = False) -> list[Row]:
    """All steps of the run that have been reached.

    `with_listeners` also tells of those whose queue no worker listens on, which asks the store once more.
    """
    reader = orchestrator.client.reader(run.header())
    shown = [
        activation
        for _, activation in sorted(reader.activations.items())
        if activation.path and activation.role != Role.BLOCK
    ]
    found = [reader.with_final_status(activation) for activation in shown]
    reader.values.fetch(activation.error for activation in found)
    now = orchestrator.store.now()
    unheard = _unheard_queues(orchestrator, reader.header, found) if with_listeners else {}
    return [_row(reader, activation, now, unheard.get(activation.path, "")) for activation in found]


def _unheard_queues(
    orchestrator: Orchestrator, header: RunHeader, activations: Sequence[Activation]
) -> Mapping[str, str]:
    client = orchestrator.client
    if not client.runtime.is_shared or not client.is_own(header):
        return {}
    from orchestrator.canvas.listeners import unheard_queues

    return unheard_queues(orchestrator.app, client.store, header.namespace, header, activations)


def _row(reader: Reader, activation: Activation, now: int, unheard: str) -> Row:
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
        note=_note(activation, unheard),
        unheard=unheard,
        done=activation.total - activation.pending_children,
        total=activation.total,
    )


def _note(activation: Activation, unheard: str) -> str:
    if unheard:
        return f"no worker listens on {unheard!r}"
    if activation.parked:
        return f"parked: {activation.parked}"
    return f"{activation.abandoned_attempts} attempt(s) abandoned" if activation.abandoned_attempts else ""


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
