"""The commands on stored runs: a page of them, one of them, its graph; and removing old ones."""

from __future__ import annotations

from datetime import timedelta
from itertools import islice
from typing import Any

import click

from orchestrator.app import Run, RunPage
from orchestrator.cli.access import Session
from orchestrator.cli.exits import Problem
from orchestrator.cli.output import STATUS
from orchestrator.cli.rows import COLUMNS, Row, name_of, rows_of
from orchestrator.cli.texts import NONE, compact, duration_text, error_text, milliseconds, time_text
from orchestrator.cli.times import show_times, times_as_json
from orchestrator.definitions import Workflow, svg
from orchestrator.engine.read.events import Event, EventReader
from orchestrator.engine.read.results import RunRecord, moment
from orchestrator.engine.read.run_reader import Reader
from orchestrator.rules.model import FINAL, Activation, ActivationStatus, RunHeader

_MAX_PAYLOAD = 120
_MAX_COUNTED = 1000  # runs that are counted before they are removed: a store reads each of them for that
_URGENT = (
    "failed",
    "suspended",
    "waiting",
    "paused",
    "retrying",
    "running",
    "queued",
    "canceled",
    "success",
    "skipped",
)


# --- list -----------------------------------------------------------------------------------------------------------


def show_page(at: Session, page: RunPage, offset: int) -> None:
    """Print a page of runs."""
    if at.output.as_json:
        at.output.json({"runs": [run.to_dict() for run in page.runs], "total": page.total, "offset": offset})
        return
    columns = ("RUN", "WORKFLOW", STATUS, "RESOURCE", "CREATED", "UPDATED")
    at.output.table(columns, [_cells(run) for run in page.runs])
    end = offset + len(page.runs)
    if not page.runs:
        at.output.note("no runs" if not page.total else f"no runs from {offset} on: there are {page.total}")
    elif end < page.total or offset:
        more = f"; --offset {end} shows more" if end < page.total else ""
        at.output.note(f"runs {offset + 1} to {end} of {page.total}{more}")


def _cells(run: RunRecord) -> list[str]:
    about = [run.run_id, run.workflow_id, str(run.status), run.resource_id or NONE]
    return [*about, time_text(run.created_at), time_text(run.updated_at)]


# --- show -----------------------------------------------------------------------------------------------------------


def show_run(at: Session, run_id: str, *, events: bool, times: bool = False) -> None:
    """Print one run. Raises `RunNotFound`."""
    run = at.orchestrator.get_run(run_id)
    rows = rows_of(at.orchestrator, run)
    if at.output.as_json:
        shown = _as_json(at, run, rows)
        shown |= {"events": [_event(event) for event in _read_events(at, run)]} if events else {}
        shown |= {"times": times_as_json(at.orchestrator, run)} if times else {}
        at.output.json(shown)
        return
    at.output.fields(_fields_of(at.orchestrator.client.reader(run.header()), run))
    if rows:
        at.output.write("\n")
        at.output.table(COLUMNS, [row.cells() for row in rows], [row.indented for row in rows])
    if times:
        show_times(at, run)
    if events:
        at.output.write("\n")
        found = [
            [time_text(e.at), e.type, _step_of(e), compact(e.payload, _MAX_PAYLOAD)] for e in _read_events(at, run)
        ]
        at.output.table(("AT", "TYPE", "STEP", "PAYLOAD"), found)


def _as_json(at: Session, run: Run, rows: list[Row]) -> dict[str, Any]:
    record = at.orchestrator.runs.get(run.run_id)
    header = run.header()
    shown = {} if record is None else record.to_dict()
    attempts = {row.name: row.attempt for row in rows}
    for name, step in shown.get("steps", {}).items():
        step["attempt"] = attempts.get(name, 0)
    if queued := [{"step": row.name, **row.message.to_dict()} for row in rows if row.message is not None]:
        shown["queued"] = queued
    times = {"started_at": header.started_at, "ended_at": header.ended_at}
    return shown | {name: time for name, time in times.items() if time}


def _fields_of(reader: Reader, run: Run) -> list[tuple[str, str]]:
    header = reader.header
    pairs = [
        ("RUN", run.run_id),
        ("WORKFLOW", header.workflow_id),
        (STATUS, str(header.status)),
        ("RESOURCE", header.resource_id or NONE),
        ("CREATED", time_text(moment(header.created_at))),
        ("STARTED", time_text(moment(header.started_at))),
        ("ENDED", time_text(moment(header.ended_at)) if header.status in FINAL else NONE),
        ("DURATION", _duration(reader, header)),
        ("INPUT", compact(reader.input())),
    ]
    if state := reader.state():
        pairs.append(("STATE", compact(state)))
    if header.status == "success":
        pairs.append(("RESULT", compact(reader.result())))
    if error := reader.error():
        pairs.append(("ERROR", error_text(error)))
    pairs += [("REPORT", _report_line(reader, one)) for one in reader.open_reports()]
    return pairs + [("WAITS FOR", text) for text in waiting_lines(reader)]


def _report_line(reader: Reader, report: Activation) -> str:
    """Write a hook, or a delivery of the result, that is still to come or was given up."""
    about = f"{report.step} ({report.settled}) {report.status}"
    if report.parked:
        return f"{about}: {report.parked}"
    if report.error:
        error = reader.values.plain(report.error)
        return f"{about}: {error_text(error) if isinstance(error, BaseException) else error}"
    return f"{about}, attempt {report.attempt + 1}"


def waiting_lines(reader: Reader) -> list[str]:
    """Lines that name each thing that the run waits for: the step, its label and its payload; or the event."""
    found = []
    for activation in reader.awaiting_activations(paused=False):
        label = f" (label {activation.label})" if activation.label else ""
        label = " (an event)" if activation.status == ActivationStatus.WAITING else label
        payload = f": {compact(reader.values.plain(activation.suspend), _MAX_PAYLOAD)}" if activation.suspend else ""
        found.append(f"{name_of(reader, activation)}{label}{payload}")
    return found


def _duration(reader: Reader, header: RunHeader) -> str:
    if not header.started_at:
        return NONE
    end = header.ended_at if header.status in FINAL and header.ended_at else reader.store.now()
    return duration_text(max(0, end - header.started_at) / 1000)


def _read_events(at: Session, run: Run) -> list[Event]:
    """The events so far, without following what comes."""
    reader, found, after = EventReader(at.orchestrator.store, run.run_id), [], ""
    while page := reader.read_page(after):
        found += page
        after = page[-1].id
    return found


def _step_of(event: Event) -> str:
    if event.source != "WORKFLOW":
        return event.source
    return str(event.payload.get("id", NONE))


def _event(event: Event) -> dict[str, Any]:
    about = {"id": event.id, "type": event.type, "run_id": event.run_id, "at": milliseconds(event.at)}
    return about | {"source": event.source, "payload": event.payload}


# --- graph ----------------------------------------------------------------------------------------------------------


def show_graph(at: Session, workflow_id: str | None, run_id: str | None, kind: str) -> None:
    """Print the picture of a workflow, or of a run's. Raises `RunNotFound`, `WorkflowNotRegistered`."""
    if run_id is None:
        _draw(at, at.orchestrator.workflow(str(workflow_id)), kind, None)
        return
    run = at.orchestrator.get_run(run_id)
    workflow = at.orchestrator.workflow(run.workflow_id)
    if run.header().fingerprint != workflow.fingerprint:
        at.output.note(f"Warning: run {run_id} was started with another graph than this present one")
    _draw(at, workflow, kind, _states(rows_of(at.orchestrator, run)))


def _draw(at: Session, workflow: Workflow, kind: str, states: dict[str, str] | None) -> None:
    picture = svg.draw(workflow.compiled, states or {}) if kind == "svg" else workflow.mermaid(states)
    if not at.output.as_json:
        at.output.write(picture if picture.endswith("\n") else f"{picture}\n")
        return
    about = {"workflow_id": workflow.id, kind: picture, "graph": workflow.graph()}
    at.output.json(about if states is None else about | {"states": states})


def _states(rows: list[Row]) -> dict[str, str]:
    """States by place in the graph. The same step in several items has the state that asks for most attention."""
    found: dict[str, str] = {}
    for row in rows:
        before = found.get(row.dotted, row.status)
        found[row.dotted] = min(before, row.status, key=_URGENT.index)
    return found


# --- purge ----------------------------------------------------------------------------------------------------------


def purge(at: Session, older_than: timedelta, status: str | None, *, ask: bool) -> None:
    """Remove old runs, after a question if `ask`."""
    if ask and not _confirm(at, older_than, status):
        at.output.note("nothing was removed")
        removed = 0
    else:
        removed = at.orchestrator.runs.purge(older_than=older_than, status=status)
    if at.output.as_json:
        at.output.json({"removed": removed})
    else:
        at.output.write(f"removed {removed}\n")


def _confirm(at: Session, older_than: timedelta, status: str | None) -> bool:
    store = at.orchestrator.store
    before = store.now() - round(older_than.total_seconds() * 1000)
    states = [status] if status is not None else sorted(FINAL)
    found = islice(at.orchestrator.runs.purgeable(before, status), _MAX_COUNTED + 1)
    count = sum(1 for _ in found)
    if not count:
        return True
    runs = "1 run" if count == 1 else f"{count} runs" if count <= _MAX_COUNTED else f"more than {_MAX_COUNTED} runs"
    question = f"Remove {runs} ({', '.join(states)}) last written before {time_text(moment(before))}?"
    try:
        return click.confirm(question, err=True)
    except click.Abort:
        click.echo(err=True)
        raise Problem("nobody answered, nothing was removed", "--yes does not ask") from None
