"""Calling a step in a unit test, without a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any

from orchestrator.definitions.context import Context


class _Results:
    """Services of a made context: results and init data are as given, and all that is written is kept."""

    def __init__(self, results: Mapping[str, Any], init_data: Any) -> None:
        self._results = results
        self._init_data = init_data
        self.written: list[tuple[str, Any]] = []

    def init_data(self) -> Any:
        return self._init_data

    def result(self, step_id: str) -> tuple[bool, Any]:
        return step_id in self._results, self._results.get(step_id)

    def write(self, kind: str, payload: Any) -> None:
        self.written.append((kind, payload))


_FIELDS = frozenset(f.name for f in fields(Context)) - {"services", "state_writes", "aborted"}


def make_context(
    *,
    results: Mapping[str, Any] | None = None,
    init_data: Any = None,
    state: Mapping[str, Any] | None = None,
    **values: Any,
) -> Context[Any]:
    """A context for calling a step's function in a unit test: `my_step(value, make_context(resume_data=…))`.

    `results` are what `ctx.result` finds, by step id; `resume_data` makes the step a resumed one; other keywords are
    the context's own (`run_id`, `request_context`, `retry_count`, …). What the step writes is in `ctx.written_state`
    and `ctx.services.written`. Raises TypeError for a keyword that a context does not have.
    """
    unknown = set(values) - _FIELDS
    if unknown:
        raise TypeError(f"a context has no {', '.join(sorted(unknown))}: choose from {', '.join(sorted(_FIELDS))}")
    values.setdefault("resumed", "resume_data" in values)
    values.setdefault("run_id", "test-run")
    values.setdefault("workflow_id", "test-workflow")
    services = _Results(results or {}, init_data)
    return Context(state=MappingProxyType(dict(state or {})), services=services, **values)
