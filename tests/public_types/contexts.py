"""What a user's context promises: checked by mypy, never run."""

from __future__ import annotations

from typing import Any, assert_type

from orchestrator import Context, Workflow
from tests.public_types.usage import Receipt, charge, streamed


def plain_context(ctx: Context) -> None:
    """`Context` alone is `Context[Any]`."""
    assert_type(ctx.resume_data, Any)


def results(ctx: Context[Any], workflow: Workflow) -> None:
    """The result of a step is its output, also of an async one and of a generator."""
    assert_type(ctx.result(charge), Receipt | None)
    assert_type(ctx.result(streamed), Receipt | None)
    assert_type(ctx.result(workflow), Any)
