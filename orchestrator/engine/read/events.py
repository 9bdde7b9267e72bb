"""Events as readers see them. The log refers to values by their ids, and they are filled in here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from orchestrator.codec import as_json, decode, error_to_dict
from orchestrator.engine.read.results import moment
from orchestrator.engine.read.step_view import payload_dict
from orchestrator.engine.read.value_reader import Values
from orchestrator.ports import Store, StoredEvent
from orchestrator.rules.addressing import make_resume_token
from orchestrator.rules.events import EventType, is_reserved

WORKFLOW = "WORKFLOW"
_VALUES = ("input", "output", "error", "suspend", "resume")


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a run's log.

    The type `workflow-events-trimmed` stands for older events that have been trimmed.
    """

    # a cursor: `run.events(after=event.id)` goes on behind it
    id: str
    # `workflow-…`, or a step's own
    type: str
    # of the run as a whole
    run_id: str
    # when it was committed, by the store's clock
    at: datetime
    # JSON-able: a dict, or, for an event of a step's own, whatever the step wrote
    payload: Any = field(default_factory=dict)
    # the writing step's dotted id path, or "WORKFLOW" for every type that begins with `workflow-`
    source: str = WORKFLOW
    # of what a step wrote, and of its retrying: tells the attempts apart, and is greater for a later one; else None
    attempt: int | None = None


class EventReader:
    """Turns stored events of one run into those that readers see."""

    def __init__(self, store: Store, run_id: str) -> None:
        self._store = store
        self._run_id = run_id

    def read_page(self, after: str, limit: int = 500) -> list[Event]:
        """Read the events after the cursor."""
        return self.to_events(self._store.events(self._run_id, after, limit))

    def to_events(self, found: Sequence[StoredEvent]) -> list[Event]:
        """Make events of stored ones, in one more round trip where they refer to values."""
        values = Values(self._store.values, self._run_id)
        # The log does not have the values themselves: a large one is stored once, however many events refer to it.
        values.fetch(str(e.doc[key]) for e in found for key in _VALUES if e.doc.get(key))
        return [self._event(stored, values) for stored in found]

    def _event(self, stored: StoredEvent, values: Values) -> Event:
        doc, kind = stored.doc, str(stored.doc["type"])
        at = moment(stored.at)
        assert at is not None
        # A step may give its own events any type that does not begin with the engine's prefix.
        is_own = not is_reserved(kind)
        payload = decode(str(doc["text"])) if "text" in doc else self._payload(kind, stored, values)
        source = str(doc.get("source", WORKFLOW)) if is_own else WORKFLOW
        shown = as_json(payload)
        if kind == EventType.STEP_OUTPUT:
            about = {"id": doc["step"], "step_call_id": call_id(self._run_id, doc)}
            shown = {**about, "attempt": doc["attempt"], **shown}
        return Event(stored.id, kind, self._run_id, at, shown, source, doc.get("attempt"))

    def _payload(self, kind: str, stored: StoredEvent, values: Values) -> dict[str, Any]:
        doc = stored.doc
        match kind:
            case EventType.WORKFLOW_START:
                return {"run_id": self._run_id, "input": values.plain(str(doc["input"]))}
            case EventType.WORKFLOW_FINISH:
                return {"run_id": self._run_id, "workflow_status": doc["status"], "metadata": {}}
            case EventType.REPORT_FAILED:
                about = {"report": doc["report"], "workflow_status": doc["status"]}
                return {"run_id": self._run_id, **about, **_outcome(doc, values)}
            case EventType.WORKFLOW_PAUSED | EventType.WORKFLOW_CANCELED | EventType.EVENTS_TRIMMED:
                return {"run_id": self._run_id}
            case _:
                return self._about_step(kind, stored, values)

    def _about_step(self, kind: str, stored: StoredEvent, values: Values) -> dict[str, Any]:
        doc = stored.doc
        about: dict[str, Any] = {"id": doc["step"], "step_call_id": call_id(self._run_id, doc)}
        match kind:
            case EventType.STEP_START | EventType.STEP_WAITING:
                status = "running" if kind == EventType.STEP_START else "waiting"
                about |= {"payload": values.plain(str(doc["input"])), "started_at": stored.at, "status": status}
                return about | ({"resume_payload": values.plain(str(doc["resume"]))} if "resume" in doc else {})
            case EventType.STEP_RETRYING:
                return about | {"attempt": doc["attempt"], "retry_count": doc["retry_count"], "status": "retrying"}
            case EventType.STEP_RESULT:
                about |= {"status": doc["status"], "ended_at": stored.at}
                return about | _outcome(doc, values)
            case EventType.STEP_FINISH:
                return about | {"metadata": {}}
            case EventType.STEP_SUSPENDED:
                about |= {"status": "suspended", "payload": values.plain(str(doc["input"]))}
                about |= {"suspend_payload": payload_dict(values.plain(str(doc["suspend"]))), "suspended_at": stored.at}
                about |= {"resume_token": make_resume_token(str(doc["suspend"]))}
                return about | ({"current_index": doc["index"]} if "index" in doc else {})
            case EventType.STEP_PROGRESS:
                about |= {
                    "completed_count": doc["completed"],
                    "total_count": doc["total"],
                    "current_index": doc["index"],
                }
                more = {"iteration_output": values.plain(str(doc["output"]))} if "output" in doc else {}
                return about | {"iteration_status": doc["status"]} | more
            case _:
                return about


def _outcome(doc: Mapping[str, Any], values: Values) -> dict[str, Any]:
    if "error" in doc:
        error = values.plain(str(doc["error"]))
        return {"error": error_to_dict(error) if isinstance(error, BaseException) else error}
    return {"output": values.plain(str(doc["output"]))}


def call_id(run_id: str, doc: Mapping[str, Any]) -> str:
    """Return the id that the events of one activation have in common."""
    # Made of path and visit alone, so that all attempts, in all processes, give the same id.
    visit = doc.get("visit")
    return f"{run_id}/{doc['path']}" + (f"@{visit}" if visit else "")
