"""Workflows of the catalogue's TRC entries: steps that look at the current span."""

from __future__ import annotations

from typing import Any

from orchestrator import Context, Workflow, step
from tests.parity.calls import note

Data = dict[str, Any]


def _looking(name: str) -> Any:
    @step(id=name)
    def looking(ctx: Context) -> Data:
        """Note whether there is a span, and use it as one would."""
        note(ctx, name, ctx.span is not None)
        ctx.span.set_attribute("order.id", name)
        ctx.span.add_event("looked")
        return {"result": name}

    return looking


trc_01 = Workflow("trc-01").then(_looking("step1")).commit()
trc_03 = Workflow("trc-03").then(_looking("step1")).then(_looking("step2")).commit()
