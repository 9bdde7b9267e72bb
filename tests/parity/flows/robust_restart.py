"""Workflows of the entries in which a process dies and another one goes on: R-ENR, R-EMS, R-EPF, R-CKP and R-ESL."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from pydantic import BaseModel

from orchestrator import Context, Workflow, step
from orchestrator.testing import WorkerLost
from tests.parity.calls import count, note

Data = dict[str, Any]
LOST = "lost"


def _be_lost_once(ctx: Context[Any]) -> None:
    """Leave everything as a killed worker would, the first time in this run."""
    if not count(ctx.run_id, LOST):
        note(ctx, LOST)
        raise WorkerLost


# ----------------------------------------------------------------------------------------- a nested resume, R-ENR


@step(id="gate", resume=bool)
def gate(ctx: Context[bool]) -> Data:
    """Suspend, and be lost on the first resume."""
    if not ctx.resumed:
        ctx.suspend({"question": "approve?"})
    _be_lost_once(ctx)
    note(ctx, "gate", ctx.resume_data)
    return {"approved": ctx.resume_data}


_nested = Workflow("nested").then(gate).commit()
nested_resume = Workflow("robust-nested-resume", auto_restart=False).then(_nested).commit()


# ----------------------------------------------------------------------------------------------- the state, R-EMS


class Steps(BaseModel):
    """The traces that the steps leave behind."""

    first: int = 0
    second: int = 0


@step(id="step1")
def set_first(ctx: Context) -> Data:
    """Write the first key."""
    note(ctx, "step1")
    ctx.set_state({"first": 1})
    return {"value": 1}


@step(id="step2")
def set_second(ctx: Context) -> Data:
    """Be lost, then read and write the state."""
    _be_lost_once(ctx)
    note(ctx, "step2", dict(ctx.state))
    ctx.set_state({"second": 2})
    return {"value": 2}


mid_run_state = Workflow("robust-mid-run-state", state=Steps, auto_restart=False).then(set_first).then(set_second)
mid_run_state.commit()


# --------------------------------------------------------------------------------- before the first step, R-EPF


def _noted(step_id: str) -> Any:
    @step(id=step_id)
    def noting(data: Data, ctx: Context) -> Data:
        """Note the input, and add one."""
        note(ctx, step_id, data)
        return {"value": data["value"] + 1}

    return noting


def is_small(data: Data, ctx: Context) -> bool:
    """Note that the condition was asked."""
    note(ctx, "condition", data)
    return bool(data["value"] < 10)


def is_large(data: Data) -> bool:
    """Choose the other arm."""
    return bool(data["value"] >= 10)


first_step = Workflow("robust-first-step").then(_noted("one")).then(_noted("two")).commit()
first_parallel = Workflow("robust-first-parallel").parallel(_noted("left"), _noted("right")).commit()
first_branch = Workflow("robust-first-branch").branch((is_small, _noted("small")), (is_large, _noted("large"))).commit()
step_then_branch = (
    Workflow("robust-step-then-branch")
    .then(_noted("one"))
    .branch((is_small, _noted("small")), (is_large, _noted("large")))
    .commit()
)


# ------------------------------------------------------------------------------------------ checkpoints, R-CKP


class Custom(BaseModel):
    """A value with a type of its own."""

    at: datetime
    price: Decimal


VALUES: dict[str, Any] = {
    "bytes": b"\x00\xff",
    "custom": Custom(at=datetime(2026, 1, 2, tzinfo=UTC), price=Decimal("1.10")),
    "lock": threading.Lock(),
}


def _making(kind: str) -> Workflow:
    @step(id="make")
    def make(ctx: Context) -> Any:
        """Return a value that JSON does not have."""
        note(ctx, "make")
        return {"value": VALUES[kind]}

    @step(id="take")
    def take(data: Data, ctx: Context) -> str:
        """Note that the step began, and say what came."""
        note(ctx, "take")
        return type(data["value"]).__name__

    return Workflow(f"robust-checkpoint-{kind}").then(make).then(take).commit()


WORKFLOWS = {kind: _making(kind) for kind in VALUES}


@step(id="prepare")
def prepare(data: Data, ctx: Context) -> Data:
    """Write the checkpoint before the step that is lost."""
    note(ctx, "prepare")
    return {"value": data["value"] + 1}


@step(id="effect")
def have_effect_once(data: Data, ctx: Context) -> Data:
    """Have an effect, and be lost after it; the next time the effect is left out."""
    note(ctx, "flag", ctx.restarted)
    if not ctx.restarted:
        note(ctx, "effect", data["value"])
    _be_lost_once(ctx)
    return {"value": data["value"]}


lost_after_checkpoint = Workflow("robust-lost-after-checkpoint", auto_restart=False).then(prepare)
lost_after_checkpoint.then(have_effect_once).commit()


@step(id="add")
def add(data: Data) -> Data:
    """Add one to the number."""
    return {"who": data["who"], "value": data["value"] + 1}


@step(id="double")
def double(data: Data, ctx: Context) -> Data:
    """Double the number, a little later."""
    ctx.abort_signal.wait(0.05)
    return {"who": data["who"], "value": data["value"] * 2}


@step(id="sign")
def sign(data: Data) -> Data:
    """Say whose number it is."""
    return {"text": f"{data['who']}: {data['value']}"}


overlapping = Workflow("robust-overlapping").then(add).then(double).then(sign).commit()


def _stored(ctx: Context, step_id: str) -> Any:
    """Return what the store has of an earlier step at this moment."""
    found = ctx.orchestrator.runs.get(ctx.run_id).steps[step_id]
    return [str(found.status), found.output]


@step(id="second")
def look_at_first(ctx: Context) -> int:
    """Note what is stored of the step before."""
    note(ctx, "stored", _stored(ctx, "first"))
    return 2


@step(id="third")
def look_at_second(ctx: Context) -> int:
    """Note what is stored of the step before."""
    note(ctx, "stored", _stored(ctx, "second"))
    return 3


@step(id="first")
def give_one() -> int:
    """Return a number."""
    return 1


stored_first = Workflow("robust-stored-first").then(give_one).then(look_at_first).then(look_at_second).commit()
stored_first_inline = Workflow("robust-stored-first-inline", inline=True).then(give_one).then(look_at_first)
stored_first_inline.then(look_at_second).commit()


# -------------------------------------------------------------------------------------------------- sleeps, R-ESL


@step(id="after")
def after(ctx: Context) -> Data:
    """Come after a sleep."""
    note(ctx, "after")
    return {"value": 2}


napping = Workflow("robust-napping").sleep(0.7, id="nap").then(after).commit()


@step(id="lost")
def be_lost(ctx: Context) -> Data:
    """Be lost once, then succeed."""
    _be_lost_once(ctx)
    note(ctx, "after")
    return {"value": 1}


left_alone = Workflow("robust-left-alone", auto_restart=False).then(be_lost).commit()
napping_alone = Workflow("robust-napping-alone", auto_restart=False).sleep(0.3, id="nap").then(after).commit()
