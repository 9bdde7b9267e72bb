"""The time that a run took, step by step, for people and as JSON."""

from __future__ import annotations

from typing import Any

from orchestrator.app import Orchestrator, Run
from orchestrator.cli.access import Session
from orchestrator.cli.rows import name_of
from orchestrator.cli.texts import NONE, duration_text
from orchestrator.engine.read.run_reader import Reader
from orchestrator.engine.read.timing import KINDS, TimedActivation, Timing, compute_timing
from orchestrator.ports import StoredEvent

_PAGE = 500
_NOTE = "~ the pauses between attempts are an estimate: the step spreads them by chance"


def show_times(at: Session, run: Run) -> None:
    """Print the times of all steps, their sums, and the critical path."""
    reader, found = _read(at.orchestrator, run)
    at.output.write("\n")
    rows = [
        [
            _name(reader, step.path, step.step),
            *(_cell(step.took[kind]) for kind in KINDS),
            str(step.runs),
            f"{'*' if step.critical else ''}{'~' if step.estimated else ''}" or NONE,
        ]
        for step in found.steps
    ]
    rows.append(["(all steps)", *(_cell(found.took[kind]) for kind in KINDS), NONE, NONE])
    at.output.table(("TIME OF", *(kind.upper() for kind in KINDS), "RUNS", "PATH"), rows)
    at.output.write("\n")
    at.output.fields([("TOTAL", _seconds(found.total)), ("ENGINE", _seconds(found.engine))])
    at.output.write("\n")
    at.output.table(("CRITICAL PATH", "AFTER", "TOOK", "MOSTLY"), [_leg(reader, found, act) for act in found.critical])
    if any(step.estimated for step in found.steps):
        at.output.note(_NOTE)


def times_as_json(orchestrator: Orchestrator, run: Run) -> dict[str, Any]:
    """The times of all steps, their sums and the critical path, in milliseconds."""
    reader, found = _read(orchestrator, run)
    steps = [
        {
            "step": _name(reader, step.path, step.step),
            **step.took,
            "total": step.total,
            "runs": step.runs,
            "critical": step.critical,
            "estimated": step.estimated,
        }
        for step in found.steps
    ]
    path = [
        {
            "step": _name(reader, act.path, act.step),
            "begin": act.begin,
            "end": act.end,
            **{kind: act.took.get(kind, 0) for kind in KINDS},
        }
        for act in found.critical
    ]
    sums = {"total": found.total, "engine": found.engine, **found.took}
    return {"begin": found.begin, "end": found.end, **sums, "steps": steps, "critical_path": path}


def _read(orchestrator: Orchestrator, run: Run) -> tuple[Reader, Timing]:
    reader = orchestrator.client.reader(run.header())
    activations = list(reader.activations.values())
    events = _read_events(orchestrator, run.run_id)
    return reader, compute_timing(reader.header, activations, events, reader.graph, orchestrator.store.now())


def _read_events(orchestrator: Orchestrator, run_id: str) -> list[StoredEvent]:
    found: list[StoredEvent] = []
    while page := orchestrator.store.events(run_id, found[-1].id if found else "", _PAGE):
        found += page
    return found


def _name(reader: Reader, path: str, step: str) -> str:
    activation = next((activation for activation in reader.activations.values() if activation.path == path), None)
    return step if activation is None else name_of(reader, activation)


def _leg(reader: Reader, found: Timing, act: TimedActivation) -> list[str]:
    mostly = max(KINDS, key=lambda kind: act.took.get(kind, 0))
    took = act.end - act.begin
    name = _name(reader, act.path, act.step)
    return [name, _seconds(act.begin - found.begin), _seconds(took), mostly if took else NONE]


def _cell(ms: int) -> str:
    return _seconds(ms) if ms else NONE


def _seconds(ms: int) -> str:
    return duration_text(ms / 1000)
