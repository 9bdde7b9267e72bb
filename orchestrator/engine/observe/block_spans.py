"""The spans that a change opens: those of its blocks, and that of a run which has none yet.

They are begun before the commit, because their ids are stored with it, and ended once it is accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from opentelemetry.trace import Span, SpanContext

from orchestrator.engine.observe.spans import (
    ROOT,
    SpanLineage,
    attributes,
    encode_run_span,
    end,
    never_fail,
    span_name,
)
from orchestrator.rules.change import CreateActivation, Op, StartNextItem, UpdateRun
from orchestrator.rules.graph import Path
from orchestrator.rules.model import Activation, RunHeader, parse_path
from orchestrator.rules.model import ActivationStatus as Is

# Kinds of activations that have others inside, and so an opening as the parent of their spans.
_BLOCKS = frozenset({"NESTED", "PARALLEL", "BRANCH", "LOOP", "FOREACH", "WAIT"})

# Begins a span with this name below this parent, with these attributes.
Begin = Callable[[str, SpanContext, dict[str, Any]], Span]


class BlockSpans:
    """The openings of the blocks that a commit opens, and the operations that store their ids."""

    def __init__(self, begin: Begin, header: RunHeader, workflow_id: Callable[[Path], str]) -> None:
        self._begin = begin
        self._header = header
        self._workflow_id = workflow_id
        self._spans: list[Span] = []

    def write(self, ops: Sequence[Op], place: Path, lineage: SpanLineage) -> list[Op]:
        """Return the operations with the ids of openings. They are those of the activation at `place`.

        `lineage` is that of the activation, its own opening included.
        """
        self._spans = []
        known = {place: lineage}
        # The first items of a foreach are started by one operation many times over. It stays one.
        written: dict[int, Op] = {}
        for op in ops:
            if id(op) not in written:
                written[id(op)] = self._write_op(op, known, lineage)
        return [written[id(op)] for op in ops]

    def _write_op(self, op: Op, known: dict[Path, SpanLineage], lineage: SpanLineage) -> Op:
        match op:
            case CreateActivation(activation=activation) if activation.path != ROOT:
                # A new activation stores the ids of the openings around it: its worker may be another process.
                return replace(op, activation=self._write_trace(activation, known, lineage))
            case StartNextItem(path=path, template=template):
                found = known.get(parse_path(path), lineage).cut(len(parse_path(path)))
                return replace(op, template=replace(template, trace=found.text))
            case _:
                return op

    def _write_trace(self, activation: Activation, known: dict[Path, SpanLineage], lineage: SpanLineage) -> Activation:
        at = activation.at
        found = known.get(at[:-1], lineage).cut(len(at) - 1)
        # A block opens in the commit of its predecessor, together with its first children. These need its id.
        if activation.status == Is.OPEN and activation.component in _BLOCKS:
            about = attributes(self._header, activation, self._workflow_id(at))
            span = self._begin(span_name(activation), found.context(len(at)), about)  # ended in `end`
            self._spans.append(span)
            known[at] = found = found.open_block(len(at), span)
        return replace(activation, trace=found.text)

    def end(self) -> None:
        """End the openings, whose commit was accepted."""
        for span in self._spans:
            end(span)


class CallSpans:
    """The spans of a caller's request. With `keep` the run's span is stored, because the run has none yet."""

    def __init__(self, begin: Begin, header: RunHeader, run: SpanContext, keep: bool) -> None:
        self._blocks = BlockSpans(begin, header, lambda path: "")
        self._run = run
        self._keep = keep

    def add_traces(self, ops: Sequence[Op]) -> Sequence[Op]:
        """Return the operations with the ids of the openings, and that of the run's span."""
        with never_fail:
            written = self._blocks.write(ops, (), SpanLineage(self._run))
            # A request that is refused has stored nothing, and the next one begins another span for the run.
            return [*written, UpdateRun({"trace": encode_run_span(self._run)})] if self._keep else written
        return ops

    def end(self) -> None:
        """End the openings, whose commit was accepted."""
        self._blocks.end()
