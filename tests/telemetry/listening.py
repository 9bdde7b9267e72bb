"""Exported spans as a tree of names, whichever process exported them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult


@dataclass(frozen=True)
class Seen:
    """One span as it was exported."""

    name: str
    trace: str
    id: str
    parent: str | None
    begin: int
    end: int
    status: str
    attributes: dict[str, Any]
    events: list[str]
    links: list[str]
    pid: int = 0

    def __getitem__(self, name: str) -> Any:
        return self.attributes.get(f"orchestrator.{name}")


@dataclass(frozen=True)
class Trace:
    """All exported spans."""

    spans: list[Seen]

    def __getitem__(self, name: str) -> Seen:
        """The only span of this name."""
        (found,) = self.all(name)
        return found

    def all(self, name: str) -> list[Seen]:
        """Those of this name, as they began."""
        return sorted((span for span in self.spans if span.name == name), key=lambda span: span.begin)

    def parent(self, span: Seen) -> str | None:
        """The name of its parent; None for a root. Fails where the parent was never exported."""
        return None if span.parent is None else next(other.name for other in self.spans if other.id == span.parent)

    def tree(self) -> set[tuple[str, str | None]]:
        """Each name with that of its parent."""
        return {(span.name, self.parent(span)) for span in self.spans}

    @property
    def traces(self) -> set[str]:
        """The ids of the traces."""
        return {span.trace for span in self.spans}

    def of_run(self) -> Trace:
        """Without what is not ours."""
        return Trace([span for span in self.spans if "orchestrator.run.id" in span.attributes])


def to_json(span: ReadableSpan) -> dict[str, Any]:
    """A span as one JSON document."""
    context = span.context
    assert context is not None
    return {
        "name": span.name,
        "trace": f"{context.trace_id:032x}",
        "id": f"{context.span_id:016x}",
        "parent": f"{span.parent.span_id:016x}" if span.parent else None,
        "begin": span.start_time,
        "end": span.end_time,
        "status": span.status.status_code.name,
        "attributes": dict(span.attributes or {}),
        "events": [event.name for event in span.events],
        "links": [f"{link.context.span_id:016x}" for link in span.links],
    }


def seen(spans: Iterable[ReadableSpan]) -> Trace:
    """Return the spans of an exporter in memory."""
    return Trace([Seen(**to_json(span)) for span in spans])


def read(path: Path) -> Trace:
    """Return the spans that processes have written into a file."""
    lines = path.read_text().splitlines() if path.exists() else []
    return Trace([Seen(**cast("dict[str, Any]", json.loads(line))) for line in lines])


class FileExporter(SpanExporter):
    """Writes each span as a line of JSON; several processes may write into one file."""

    def __init__(self, path: Path, pid: Any) -> None:
        self._path = path
        self._pid = pid

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._path.open("a") as file:
            for span in spans:
                file.write(json.dumps({**to_json(span), "pid": self._pid()}) + "\n")
        return SpanExportResult.SUCCESS
