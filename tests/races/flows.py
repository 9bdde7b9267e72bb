"""The workflows of the races: a step that runs, one that is suspended, two that are. Effects are noted in files."""

from __future__ import annotations

from typing import Any

from orchestrator import Context, Workflow, step
from tests.parity import calls


@step
def charge(data: Any, ctx: Context[Any]) -> Any:
    """The effect that must happen once."""
    calls.note(ctx, "charge", data)
    return data


def _asking(name: str) -> Any:
    def ask(data: Any, ctx: Context[Any]) -> Any:
        if not ctx.resumed:
            ctx.suspend({"asked": data})
        calls.note(ctx, name, ctx.resume_data)
        return ctx.resume_data

    return step(ask, id=name)


one = Workflow("race-one").then(_asking("ask")).then(charge).commit()
two = Workflow("race-two").parallel(_asking("left"), _asking("right")).then(charge).commit()
plain = Workflow("race-plain").then(charge).commit()
ALL = [one, two, plain]
