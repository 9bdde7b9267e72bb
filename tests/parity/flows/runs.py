"""Workflows of the catalogue's RUNS entries: runs are apart from each other."""

from __future__ import annotations

from pydantic import BaseModel

from orchestrator import Context, Workflow, step
from tests.parity.calls import count, note, note_for


@step(id="step1")
def first(ctx: Context) -> dict[str, str]:
    """Be the first of three."""
    note(ctx, "step1")
    return {"result": "step1"}


@step(id="step2")
def second(ctx: Context) -> dict[str, str]:
    """Be the second of three."""
    note(ctx, "step2")
    return {"result": "step2"}


@step(id="step3")
def third(ctx: Context) -> dict[str, str]:
    """Be the third of three."""
    note(ctx, "step3")
    return {"result": "step3"}


class Numbered(BaseModel):
    """A run of a row, and the name under which the row is counted."""

    row: str
    run: str


@step(id="step1")
def count_calls(data: Numbered) -> dict[str, int]:
    """Return how many runs of the row have come by."""
    note_for(data.row, "call", data.run)
    return {"run_number": count(data.row, "call")}


runs_01 = Workflow("runs-01").then(first).commit()
runs_02 = Workflow("runs-02").then(first).then(second).then(third).commit()
runs_03 = Workflow("runs-03", input=Numbered).then(count_calls).commit()
