"""The engine's events: what each says, and that their types are written down once."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from orchestrator.rules import events
from orchestrator.rules.events import EventType
from orchestrator.rules.model import Activation

STEP = Activation(path="0.1", visit="2", step="a", input="i")
ABOUT = {"path": "0.1", "visit": "2", "step": "a"}


@pytest.mark.parametrize(
    "made, wanted",
    [
        (events.make_workflow_start("v"), {"type": "workflow-start", "input": "v"}),
        (events.make_workflow_paused(), {"type": "workflow-paused"}),
        (events.make_workflow_canceled(), {"type": "workflow-canceled"}),
        (events.make_workflow_finish("failed", 3), {"type": "workflow-finish", "status": "failed", "settle_count": 3}),
        (events.make_events_trimmed(), {"type": "workflow-events-trimmed"}),
        (events.make_step_start(STEP), {"type": "workflow-step-start", **ABOUT, "input": "i"}),
        (events.make_step_start(STEP, ""), {"type": "workflow-step-start", **ABOUT, "input": "i", "resume": ""}),
        (
            events.make_step_retrying(STEP, 7, 2),
            {"type": "workflow-step-retrying", **ABOUT, "attempt": 7, "retry_count": 2},
        ),
        (events.make_step_waiting(STEP), {"type": "workflow-step-waiting", **ABOUT, "input": "i"}),
        (
            events.make_step_suspended(STEP, "p"),
            {"type": "workflow-step-suspended", **ABOUT, "input": "i", "suspend": "p"},
        ),
        (
            events.make_step_suspended(STEP, "p", 0),
            {"type": "workflow-step-suspended", **ABOUT, "input": "i", "suspend": "p", "index": 0},
        ),
        (
            events.make_step_success(STEP, "o"),
            {"type": "workflow-step-result", **ABOUT, "status": "success", "output": "o"},
        ),
        (
            events.make_step_failure(STEP, "e"),
            {"type": "workflow-step-result", **ABOUT, "status": "failed", "error": "e"},
        ),
        (events.make_step_finish(STEP), {"type": "workflow-step-finish", **ABOUT}),
        (
            events.make_step_progress(STEP, 0, "suspended"),
            {"type": "workflow-step-progress", **ABOUT, "index": 0, "status": "suspended"},
        ),
        (
            events.make_step_progress(STEP, 1, "success", ""),
            {"type": "workflow-step-progress", **ABOUT, "index": 1, "status": "success", "output": ""},
        ),
    ],
)
def test_what_an_event_says(made: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Plain data: a store that keeps documents as they are reads back what one that writes JSON does."""
    assert made == wanted
    assert type(made["type"]) is str


def test_what_a_step_writes_is_told_with_its_source_and_attempt() -> None:
    """Under whatever type the step has chosen."""
    for type_ in (EventType.STEP_OUTPUT, "order-packed"):
        made = events.make_written(type_, STEP, "=1", "w.a", 7)
        assert made == {"type": str(type_), **ABOUT, "text": "=1", "source": "w.a", "attempt": 7}
        assert type(made["type"]) is str


def test_the_types_of_the_engine_are_reserved() -> None:
    """A step that chose one of them would be taken for the engine."""
    assert all(events.is_reserved(type) for type in EventType)
    assert not events.is_reserved("order-workflow-start")


def test_no_type_is_written_down_twice() -> None:
    """Anywhere in the library; the contract of the stores says them again, to compare."""
    root = Path(orchestrator.__file__).parent
    types = set(map(str, EventType))
    files = {*root.rglob("*.py"), *(root / "canvas").glob("*.py")} - {Path(events.__file__)}
    found = [
        f"{path.relative_to(root)}:{node.lineno}"
        for path in sorted(files)
        if path.parent != root / "testing" / "contract"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in types
    ]
    assert found == []
