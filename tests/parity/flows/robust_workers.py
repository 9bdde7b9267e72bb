"""Workflows of the entries in which workers come and go and stores refuse: R-ESL, R-ENC, R-CKP and R-WTO."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator import Context, Workflow, step
from tests.parity.calls import count, note
from tests.parity.flows.robust_app import GONE, TOKEN, UNSURE

Data = dict[str, Any]
NAP = 0.8
TOO_LARGE = 17 * 1024 * 1024


@step(id="before")
def before(ctx: Context) -> Data:
    """Come before the sleep."""
    note(ctx, "before")
    return {"value": 1}


@step(id="after")
def after(data: Data, ctx: Context) -> Data:
    """Come after the sleep, with what the caller has sent along."""
    note(ctx, "after", {key: ctx.request_context.get(key) for key in (TOKEN, "tenant")})
    return {"value": data["value"] + 1}


def soon() -> datetime:
    """Return the moment to sleep until."""
    return datetime.now(UTC) + timedelta(seconds=NAP)


napping = Workflow("robust-worker-nap").then(before).sleep(NAP, id="nap").then(after).commit()
napping_until = Workflow("robust-worker-nap-until").then(before).sleep_until(lambda ctx: soon(), id="nap").then(after)
napping_until.commit()


@step(id="make")
def make(ctx: Context) -> Data:
    """Make something."""
    note(ctx, "make")
    return {"value": 1}


@step(id="make")
def make_without_store(ctx: Context) -> Data:
    """Make something, the first time while the store goes away."""
    note(ctx, "make")
    if count(ctx.run_id, "make") == 1:
        note(ctx, GONE)
    return {"value": 1}


@step(id="make")
def make_with_doubts(ctx: Context) -> Data:
    """Make something while the store's answers get lost."""
    note(ctx, "make")
    note(ctx, UNSURE)
    return {"value": 1}


@step(id="next")
def go_on(data: Data, ctx: Context) -> Data:
    """Have the effect that must not happen before the result is stored."""
    note(ctx, "next")
    return {"value": data["value"] + 1}


made = Workflow("robust-made").then(make).then(go_on).commit()
made_without_store = Workflow("robust-made-without-store").then(make_without_store).then(go_on).commit()
made_with_doubts = Workflow("robust-made-with-doubts").then(make_with_doubts).then(go_on).commit()


@step(id="large")
def make_too_much(ctx: Context) -> str:
    """Return more than a value may have."""
    note(ctx, "large")
    return "x" * TOO_LARGE


@step(id="last")
def finish(ctx: Context) -> None:
    """Note the call that must not happen."""
    note(ctx, "last")


refused = Workflow("robust-refused").then(make).then(make_too_much).then(finish).commit()


class TooMuch(Exception):
    """An error that cannot be stored as it is."""


@step(id="large")
def fail_with_too_much(ctx: Context) -> str:
    """Raise an error with more than a value may have, and with something that cannot be stored at all."""
    note(ctx, "large")
    error = TooMuch("more than can be stored")
    error.load = "x" * TOO_LARGE  # type: ignore[attr-defined]
    error.lock = threading.Lock()  # type: ignore[attr-defined]
    raise error


refused_error = Workflow("robust-refused-error").then(make).then(fail_with_too_much).then(finish).commit()
