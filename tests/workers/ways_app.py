"""The app of the tests of ends: functions that are left, and processes that end under them, on real workers.

Effects are noted in files that no crash takes back (`tests.parity.calls`).
"""

from __future__ import annotations

import ctypes
import json
import os
import time
from pathlib import Path
from typing import Any

from celery import Celery
from pydantic import BaseModel, field_serializer, field_validator

from orchestrator import Context, Orchestrator, Workflow, step
from tests.parity import calls
from tests.workers import ways

# Long: what comes back within a few seconds was given back, and has not waited for the end of a lease.
TIMES: dict[str, float] = {"lease_seconds": 60, "tick_seconds": 0.2, "republish_seconds": 60}


def note(ctx: Context[Any], name: str) -> None:
    """Remember a call: which attempt, in which process, and whether it is a repetition."""
    calls.note(ctx, name, {"pid": os.getpid(), "restarted": ctx.restarted, "attempt": ctx.retry_count})


def wait_for(path: str) -> None:
    """Stay until the file is there."""
    end = time.monotonic() + 60
    while not Path(path).exists() and time.monotonic() < end:
        time.sleep(0.02)


@step(retries=1, retry_delay=0.1)
def gate(path: str, ctx: Context[Any]) -> str:
    note(ctx, "gate")
    wait_for(path)
    return "through"


@step
def swallowing(path: str, ctx: Context[Any]) -> str:
    """Catches whatever comes, and says that all is well."""
    note(ctx, "gate")
    try:
        wait_for(path)
    except BaseException:  # noqa: BLE001 - as libraries do that keep their own threads alive
        return "swallowed"
    return "through"


@step
def cleaning(path: str, ctx: Context[Any]) -> str:
    """Has a clean-up that fails."""
    note(ctx, "gate")
    try:
        wait_for(path)
    finally:
        if not Path(path).exists():
            raise OSError("the connection is closed already")
    return "through"


@step
async def awaiting(path: str, ctx: Context[Any]) -> str:
    """A coroutine."""
    import asyncio

    note(ctx, "gate")
    await asyncio.to_thread(wait_for, path)
    return "through"


@step
def first(data: Any) -> Any:
    return data


@step(inline=True)
def inline_gate(path: str, ctx: Context[Any]) -> str:
    note(ctx, "gate")
    wait_for(path)
    return "through"


@step(time_limit=1, retries=1, retry_delay=0.1)
def hang(data: Any, ctx: Context[Any]) -> None:
    note(ctx, "hang")
    time.sleep(60)


@step(time_limit=1, retries=2, retry_delay=0.1)
def hang_twice(data: Any, ctx: Context[Any]) -> str:
    note(ctx, "hang")
    if ctx.retry_count < 2:
        time.sleep(60)
    return "third attempt"


@step(time_limit=2, soft_time_limit=1, retries=1, retry_delay=0.1)
def hang_softly(data: Any, ctx: Context[Any]) -> str:
    note(ctx, "hang")
    if ctx.retry_count < 1:
        time.sleep(60)
    return "second attempt"


@step(time_limit=2, retries=1, retry_delay=0.1)
def dying(path: str, ctx: Context[Any]) -> str:
    """Ends its process the first time, in an instant."""
    note(ctx, "dying")
    if not ctx.restarted:
        os._exit(0)
    return f"attempt {ctx.retry_count}"


@step
def holding(data: Any, ctx: Context[Any]) -> str:
    """Keeps the interpreter's lock for far longer than a lease of two seconds, the first time."""
    note(ctx, "holding")
    if ctx.restarted:
        return "second"
    ctypes.PyDLL(None).sleep(8)  # a call into C code that does not give the lock away
    return "first"


class Slow(BaseModel):
    """A model that takes too long to read or to write, once."""

    where: str
    flag: str

    def stall(self) -> None:
        try:
            os.close(os.open(self.flag, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        time.sleep(20)

    @field_serializer("where")
    def _write(self, value: str) -> str:
        if value == "writing":
            self.stall()
        return value


class SlowInput(BaseModel):
    """The same as an input."""

    flag: str

    @field_validator("flag")
    @classmethod
    def _read(cls, value: str) -> str:
        Slow(where="", flag=value).stall()
        return value


@step(soft_time_limit=1, retries=1, retry_delay=0.1)
def write_slowly(flag: str, ctx: Context[Any]) -> Slow:
    note(ctx, "slow")
    return Slow(where="writing", flag=flag)


@step(soft_time_limit=1, retries=1, retry_delay=0.1)
def read_slowly(data: SlowInput, ctx: Context[Any]) -> int:
    note(ctx, "slow")
    return ctx.retry_count


def _limited(number: int, **limits: float) -> Any:
    def limited(data: Any, ctx: Context[Any]) -> Any:
        note(ctx, "limited")
        time.sleep(1.2)
        return data

    return step(limited, id=f"limited-{number}", inline=True, **limits)  # type: ignore[call-overload]


@step(time_limit=0.5, retries=1, retry_delay=0.1)
def heeding(data: Any, ctx: Context[Any]) -> None:
    """Works in small pieces, and heeds the signal after each."""
    note(ctx, "heeding")
    end = time.monotonic() + 30
    while time.monotonic() < end:
        ctx.raise_if_aborted()
        time.sleep(0.02)


@step(time_limit=0.5)
def late(data: Any, ctx: Context[Any]) -> str:
    """Returns long after its limit, whatever anybody says."""
    note(ctx, "late")
    time.sleep(4)
    return "too late"


def hook(info: Any) -> None:
    """Takes longer than the step before it might have."""
    time.sleep(1)
    calls.note_for(info.run_id, "hook")


@step(soft_time_limit=1)
def brief(data: Any) -> Any:
    time.sleep(0.6)
    return data


gates = {
    name: Workflow(name).then(entry).commit()
    for name, entry in {"gate": gate, "swallowing": swallowing, "cleaning": cleaning, "awaiting": awaiting}.items()
}
inline_gated = Workflow("inline-gate").then(first).then(inline_gate).commit()
hanging = Workflow("hang").then(hang).commit()
hanging_twice = Workflow("hang-twice").then(hang_twice).commit()
hanging_softly = Workflow("hang-softly").then(hang_softly).commit()
dead = Workflow("dying").then(dying).commit()
slow_output = Workflow("write-slowly").then(write_slowly).commit()
slow_input = Workflow("read-slowly").then(read_slowly).commit()
soft_chain = Workflow("soft-chain").then(_limited(1, soft_time_limit=2)).then(_limited(2, soft_time_limit=2)).commit()
hard_chain = Workflow("hard-chain").then(_limited(3, time_limit=2)).then(_limited(4, time_limit=2)).commit()
bare_chain = Workflow("bare-chain").then(_limited(5)).then(_limited(6)).commit()
held = Workflow("holding").then(holding).commit()
heeded = Workflow("heeding").then(heeding).commit()
lately = Workflow("late").then(late).commit()
hooked = Workflow("hooked", on_finish=hook).then(brief).commit()

ALL = [
    *ways.FLOWS, *gates.values(), inline_gated, hanging, hanging_twice, hanging_softly, dead, slow_output, slow_input,
    soft_chain, hard_chain, bare_chain, held, heeded, lately, hooked,
]  # fmt: skip


def make(broker: str, store: str, settings: dict[str, Any], **times: float) -> tuple[Celery, Orchestrator]:
    """Build the app and its orchestrator, as workers and callers have them."""
    app = Celery("ways", broker=broker, set_as_current=False)
    app.conf.update(broker_connection_retry_on_startup=True, worker_prefetch_multiplier=1, **settings)

    @app.task(name="existing.hang", time_limit=1, shared=False)  # type: ignore[untyped-decorator]
    def existing_hang(data: Any) -> None:
        time.sleep(60)

    @app.task(name="existing.gate", shared=False)  # type: ignore[untyped-decorator]
    def existing_gate(path: str) -> str:
        calls.note_for(Path(path).name, "gate")
        wait_for(path)
        return "through"

    existing = [Workflow("existing-hang").then(existing_hang), Workflow("existing-gate").then(existing_gate)]
    flows = [*ALL, *(flow.commit() for flow in existing)]
    return app, Orchestrator(app, store=store, workflows=flows, **{**TIMES, **times})


if "WAYS_BROKER" in os.environ:
    app, orchestrator = make(
        os.environ["WAYS_BROKER"],
        os.environ["WAYS_STORE"],
        json.loads(os.environ.get("WAYS_SETTINGS", "{}")),
        **json.loads(os.environ.get("WAYS_TIMES", "{}")),
    )
