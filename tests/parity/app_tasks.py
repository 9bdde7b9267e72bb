"""Celery tasks that the application had before it had workflows; shared, so they are in every app of the harness."""

from __future__ import annotations

from typing import Any

from celery import shared_task

from tests.parity import calls

TASKS = "tasks"  # a task knows of no run: its calls are noted under this name, so a test compares before and after


@shared_task(name="parity.random-tool")
def random_tool(data: dict[str, Any]) -> dict[str, Any]:
    """random-tool"""
    calls.note_for(TASKS, "random-tool", data)
    return {"name": data["name"]}


@shared_task(name="parity.double-tool")
def double_tool(data: dict[str, Any]) -> dict[str, Any]:
    """Double the value."""
    calls.note_for(TASKS, "double-tool", data)
    return {"doubled": data["value"] * 2}
