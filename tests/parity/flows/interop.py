"""Workflows of the catalogue's INTEROP entries: the application's own Celery tasks as entries."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from orchestrator import Context, Workflow, step
from tests.parity.app_tasks import double_tool, random_tool
from tests.parity.calls import note


@step(id="step1")
def give_name(ctx: Context) -> dict[str, str]:
    """Return what the task takes."""
    note(ctx, "step1")
    return {"name": "step1"}


@step(id="writer")
def writer(data: dict[str, Any], ctx: Context) -> Generator[str, None, dict[str, str]]:
    """Stream words, then return the text, as an agent with a mock model does."""
    words = ["hello", " ", "world"]
    yield from words
    return {"text": "".join(words)}


interop_01 = Workflow("interop-01").then(give_name).then(random_tool).commit()
interop_02 = Workflow("interop-02").then(double_tool).commit()
interop_03 = Workflow("interop-03").map(lambda data: {"value": data["value"] + 1}).then(double_tool).commit()
interop_04 = Workflow("interop-04").then(double_tool.s()).commit()
interop_05 = Workflow("interop-05").parallel(double_tool, writer).commit()
interop_06 = Workflow("interop-06").then("parity.double-tool").commit()
