"""Draws `docs/trace.svg`: a run of `tests/telemetry/flows.py` in the default runtime, from the spans that it exported.

Run it from the top of the checkout: `python -m docs.trace`. Times differ from run to run; the tree does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from orchestrator import Orchestrator
from tests.telemetry.flows import checkout
from tests.telemetry.listening import Seen, Trace, seen

ROW, LEFT, WIDTH = 22, 330, 460
COLOURS = {"ERROR": "#c0392b", "UNSET": "#2e86c1", "foreign": "#7d6608"}


def exported() -> Trace:
    """The spans of one run: a request starts it, it is suspended, and another request resumes it."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    tracer = trace.get_tracer("shop")
    with Orchestrator(workflows=[checkout]) as orchestrator:
        run = orchestrator.create_run(checkout)
        with tracer.start_as_current_span("POST /orders"):
            run.start({"sku": "x"})
        run.resume("yes")
    return seen(exporter.get_finished_spans())


def rows(found: Trace, parent: str | None = None, depth: int = 0) -> Iterator[tuple[int, Seen]]:
    """Each span below its parent, as they began; what closes a block comes last."""
    children = [span for span in found.spans if span.parent == parent]
    for span in sorted(children, key=lambda span: (": " in span.name and span.end, span.begin)):
        yield depth, span
        yield from rows(found, span.id, depth + 1)


def drawn(found: Trace) -> str:
    """The picture."""
    begin, end = min(span.begin for span in found.spans), max(span.end for span in found.spans)
    lines = list(rows(found))
    parts = []
    for number, (depth, span) in enumerate(lines):
        y = 10 + number * ROW
        x = LEFT + (span.begin - begin) / (end - begin) * WIDTH
        wide = max(2.0, (span.end - span.begin) / (end - begin) * WIDTH)
        kind = "foreign" if "orchestrator.run.id" not in span.attributes else span.status
        note = "".join(f" ({event})" for event in span.events if event != "exception")
        label = f'<text x="{10 + depth * 16}" y="{y + 14}">{escape(span.name + note)}</text>'
        bar = f'<rect x="{x:.1f}" y="{y + 3}" width="{wide:.1f}" height="14" rx="2" fill="{COLOURS[kind]}"/>'
        parts.append(label + bar)
    size = f'width="{LEFT + WIDTH + 20}" height="{len(lines) * ROW + 20}"'
    style = "<style>text{font:13px sans-serif;fill:#2c3e50}</style>"
    ground = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', style, ground, *parts, "</svg>", ""])


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(drawn(exported()))
