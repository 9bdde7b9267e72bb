"""Lists everything that awaits something from outside, over all runs: steps for a resume, waits for events, pauses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.app import Orchestrator
from orchestrator.cli.access import Session
from orchestrator.cli.rows import name_of
from orchestrator.cli.texts import NONE, compact, milliseconds, plain, time_text
from orchestrator.engine.read.results import moment
from orchestrator.engine.read.run_reader import Reader
from orchestrator.engine.read.step_view import payload_dict
from orchestrator.ports import RunQuery
from orchestrator.rules.addressing import make_resume_token
from orchestrator.rules.graph import Wait
from orchestrator.rules.model import Activation, ActivationStatus, RunHeader

_PAGE = 200
_MAX_PAYLOAD = 80
_COLUMNS = ("RUN", "WORKFLOW", "RESOURCE", "STEP", "WAITS FOR", "SINCE", "UNTIL", "PAYLOAD")


@dataclass(frozen=True, slots=True)
class Waiting:
    """One thing that waits. `kind` is `resume`, `event` or `pause`; what does not apply is None."""

    run_id: str
    workflow_id: str
    resource_id: str | None
    step: str
    kind: str
    since: datetime | None
    until: datetime | None = None
    label: str | None = None
    token: str | None = None
    event: str | None = None
    payload: Any = None

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON has them."""
        about = {"run_id": self.run_id, "workflow_id": self.workflow_id, "resource_id": self.resource_id}
        times = {"since": milliseconds(self.since), "until": milliseconds(self.until)}
        said = {"label": self.label, "token": self.token, "event": self.event, "payload": plain(self.payload)}
        return about | {"step": self.step, "kind": self.kind} | times | said

    def cells(self) -> list[str]:
        """The row of a table."""
        words = {"event": f"event {self.event}", "pause": "a resume by the caller"}
        label = f" (label {self.label})" if self.label else ""
        waits = words.get(self.kind, f"resume{label}")
        payload = NONE if self.payload is None else compact(self.payload, _MAX_PAYLOAD)
        about = [self.run_id, self.workflow_id, self.resource_id or NONE, self.step, waits]
        return [*about, time_text(self.since), time_text(self.until), payload]


def show(at: Session, workflow: str | None, resource: str | None) -> None:
    """Print everything that waits, longest first."""
    found = [
        each
        for header in _headers(at.orchestrator, workflow, resource)
        for each in _waiting_in(at.orchestrator, header)
    ]
    found.sort(key=lambda each: (each.since is None, milliseconds(each.since) or 0))
    if at.output.as_json:
        at.output.json({"waiting": [each.to_dict() for each in found]})
        return
    at.output.table(_COLUMNS, [each.cells() for each in found])
    if not found:
        at.output.note("nothing waits for anybody")


def _headers(orchestrator: Orchestrator, workflow: str | None, resource: str | None) -> Iterator[RunHeader]:
    """Runs in which something waits, each once. One that runs may have an arm that does."""
    seen: set[str] = set()
    offset = 0
    while page := orchestrator.store.runs(
        RunQuery(workflow, resource_id=resource, awaiting=True, limit=_PAGE, offset=offset)
    ):
        offset += len(page)
        for header in page:
            if header.run_id not in seen:
                seen.add(header.run_id)
                yield header


def _waiting_in(orchestrator: Orchestrator, header: RunHeader) -> list[Waiting]:
    reader = orchestrator.client.reader(header)
    paused = [each for each in reader.activations.values() if each.status == ActivationStatus.PAUSED]
    activations = [*reader.awaiting_activations(paused=False), *paused]
    reader.values.fetch(activation.suspend for activation in activations)
    return [_describe(reader, activation) for activation in activations]


def _describe(reader: Reader, activation: Activation) -> Waiting:
    header, name = reader.header, name_of(reader, activation)
    about = (header.run_id, header.workflow_id, header.resource_id or None, name)
    match activation.status:
        case ActivationStatus.WAITING:
            node = reader.graph.node(activation.at) if reader.graph is not None else None
            event = node.event if isinstance(node, Wait) else activation.step
            return Waiting(*about, "event", moment(activation.suspended_at), moment(activation.deadline), event=event)
        case ActivationStatus.PAUSED:
            return Waiting(*about, "pause", moment(header.updated_at))
        case _:
            payload = payload_dict(reader.values.plain(activation.suspend))
            since, label = moment(activation.suspended_at), activation.label or None
            token = make_resume_token(activation.suspend)
            return Waiting(*about, "resume", since, label=label, token=token, payload=payload)
