"""The steps of a run as rows, in the order of the graph: what `show` lists and what a waiting command follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.cli.texts import NONE, duration_text, error_text, time_text
from orchestrator.engine.read.results import moment
from orchestrator.engine.read.run_reader import Reader
from orchestrator.rules.graph import Path
from orchestrator.rules.model import FINAL, Activation, Role

if TYPE_CHECKING:
    from datetime import datetime

    from orchestrator.app import Orchestrator, Run

COLUMNS = ("STEP", "STATUS", "STARTED", "DURATION", "ATTEMPT", "ERROR")


@dataclass(frozen=True, slots=True)
class Row:
    """One step. `name` is as in the steps of a stored run (`child[0].step`), `step` the last part of it.

    `dotted` is its place in the graph (`child.step`). `attempt` counts from 1; it is 0, and `seconds` is None, before
    it has begun. `note` says why it does not go on, or that workers were lost. `done` of `total` items, where it is a
    foreach.
    """

    name: str
    dotted: str
    step: str
    depth: int
    is_item: bool
    status: str
    started_at: datetime | None
    seconds: float | None
    attempt: int
    error: BaseException | None
    note: str
    done: int
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
        return error_text(self.error) if self.error is not None or not self.note else self.note

    @property
    def indented(self) -> str:
        """The step's own name, set in by its depth."""
        return "  " * self.depth + self.step


def rows_of(orchestrator: Orchestrator, run: Run) -> list[Row]:
    """All steps of the run that have been reached."""
    reader = orchestrator.client.reader(run.header())
    shown = [record for _, record in sorted(reader.activations.items()) if record.path and record.role != Role.BLOCK]
    found = [reader.with_final_status(record) for record in shown]
    reader.values.fetch(record.error for record in found)
    now = orchestrator.store.now()
    return [_row(reader, record, now) for record in found]


def _row(reader: Reader, record: Activation, now: int) -> Row:
    outer = _ancestors(reader, record)
    error = reader.values.plain(record.error) if record.error else None
    is_item = record.role == Role.ITEM
    return Row(
        name=name_of(reader, record),
        dotted=".".join(above.step for above in [*outer, record]),
        step=_own_name(record),
        depth=len(outer) + sum(above.index >= 0 for above in outer) + is_item,
        is_item=is_item or any(above.index >= 0 for above in outer),
        status=str(reader.step_status(record)),
        started_at=moment(record.started_at),
        seconds=_seconds(reader, record, now),
        attempt=record.attempt + 1 if record.started_at else 0,
        error=error if isinstance(error, BaseException) else None,
        note=_note(record),
        done=record.total - record.pending_children,
        total=record.total,
    )


def _note(record: Activation) -> str:
    if record.parked:
        return f"parked: {record.parked}"
    return f"{record.abandoned_attempts} worker(s) lost" if record.abandoned_attempts else ""


def name_of(reader: Reader, record: Activation) -> str:
    """The record's name among the steps of its run: `child[0].step`."""
    return ".".join(map(_own_name, [*_ancestors(reader, record), record]))


def _ancestors(reader: Reader, record: Activation) -> list[Activation]:
    """The nested workflows around a record, outermost first."""
    return [reader.activations[record.at[:cut]] for cut in _scopes(reader, record)]


def _own_name(record: Activation) -> str:
    return f"{record.step}[{record.index}]" if record.index >= 0 else record.step


def _scopes(reader: Reader, record: Activation) -> list[int]:
    """Lengths of their paths."""
    found: list[int] = []
    scope = record.scope
    while scope:
        found.insert(0, scope)
        above: Path = record.at[:scope]
        scope = reader.activations[above].scope if above in reader.activations else 0
    return [cut for cut in found if record.at[:cut] in reader.activations]


def _seconds(reader: Reader, record: Activation, now: int) -> float | None:
    if not record.started_at:
        return None
    over = reader.header.ended_at if reader.header.status in FINAL else now
    return max(0, (record.ended_at or over) - record.started_at) / 1000
