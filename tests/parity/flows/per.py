"""Workflows of the catalogue's PER entries: a run that goes one step at a time."""

from __future__ import annotations

from orchestrator import Context, Workflow, step
from tests.parity.calls import note


@step(id="step1")
def first(ctx: Context) -> dict[str, str]:
    """Be the first of two."""
    note(ctx, "step1")
    return {"result": "step1"}


@step(id="step2")
def second(ctx: Context) -> dict[str, str]:
    """Be the second of two."""
    note(ctx, "step2")
    return {"result": "step2"}


@step(id="A")
def beside_a(ctx: Context) -> dict[str, str]:
    """Be the first of the parallel."""
    note(ctx, "A")
    return {"result": "A"}


@step(id="B")
def beside_b(ctx: Context) -> dict[str, str]:
    """Be the second of the parallel."""
    note(ctx, "B")
    return {"result": "B"}


@step(id="C")
def after_both(ctx: Context) -> dict[str, str]:
    """Come after the parallel."""
    note(ctx, "C")
    return {"result": "C"}


@step(id="outerStep")
def outer(ctx: Context) -> dict[str, str]:
    """Come before the nested workflow."""
    note(ctx, "outerStep")
    return {"result": "outer"}


@step(id="innerStep")
def inner(ctx: Context) -> dict[str, str]:
    """Stand inside the nested workflow."""
    note(ctx, "innerStep")
    return {"result": "inner"}


@step(id="finalStep")
def final(ctx: Context) -> dict[str, str]:
    """Come after the nested workflow."""
    note(ctx, "finalStep")
    return {"result": "final"}


per_01 = Workflow("per-01").then(first).then(second).commit()
per_02 = Workflow("per-02").parallel(beside_a, beside_b).then(after_both).commit()
_nested_04 = Workflow("nested-workflow").then(inner).commit()
per_04 = Workflow("per-04").then(outer).then(_nested_04).then(final).commit()
per_05 = Workflow("per-05").then(first).then(second).commit()
