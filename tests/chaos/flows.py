"""Programs as workflows of the library: the only place that says how a node of the model is written."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from orchestrator import Context, RunInfo, Workflow, step
from tests.chaos import effects
from tests.chaos.programs import (
    FLAKY_ATTEMPTS,
    MODULUS,
    Branch,
    Entry,
    Foreach,
    Loop,
    Nested,
    Node,
    Parallel,
    Program,
    Sleep,
    Step,
    Wait,
    Way,
)

LIMIT = 2  # seconds; far more than a step needs, also on a loaded machine
WAIT_TIMEOUT = 1.5
_OPTIONS: dict[Way, dict[str, Any]] = {
    Way.FLAKY: {"retries": FLAKY_ATTEMPTS, "retry_delay": 0.2},
    # More retries than the model needs: a frozen process outruns its limit once more.
    Way.SOFT: {"retries": 4, "retry_delay": 0.1, "soft_time_limit": LIMIT},
    Way.HARD: {"retries": 4, "retry_delay": 0.1, "time_limit": LIMIT},
    Way.FAIL: {"retries": 1, "retry_delay": 0.1},
}


FAILED = "failed:"  # the beginning of what an attempt writes into the state that will not be recorded


class OnPurpose(Exception):
    """A step failed because the program says so."""


def build(program: Program, folder: Path) -> Workflow:
    """Return the program as a committed workflow whose steps write their effects into the folder."""

    def on_finish(info: RunInfo) -> None:
        effects.note(folder, effects.HOOK, info.run_id, "on_finish", data=str(info.status))

    flow: Workflow = Workflow(program.id, inline=program.inline, on_finish=on_finish)
    return _Builder(folder).along(flow, program.flow)


class _Builder:
    """Writes nodes into a workflow."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def along(self, flow: Workflow, nodes: tuple[Node, ...]) -> Workflow:
        for node in nodes:
            self._add(flow, node)
        return flow.commit()

    def _add(self, flow: Workflow, node: Node) -> None:
        match node:
            case Step() | Nested():
                flow.then(self._entry(node))
            case Parallel(arms, allow_failure):
                flow.parallel(*map(self._entry, arms), allow_failure=allow_failure).map(_total)
            case Branch(arms):
                flow.branch(*((_has(mask), self._entry(arm)) for mask, arm in arms)).map(_total)
            case Loop(body, turns, until):
                flow.map(_round_down(turns))
                add = flow.do_until if until else flow.do_while
                add(self._entry(body), _divides(turns, wanted=until))
            case Foreach(body, items, concurrency):
                flow.map(_spread(items)).foreach(self._entry(body), concurrency=concurrency).map(_sum)
            case Sleep(seconds):
                flow.sleep(seconds)
            case Wait(event, on_timeout):
                options = {"timeout": WAIT_TIMEOUT, "on_timeout": self._entry(on_timeout)} if on_timeout else {}
                flow.wait_for_event(event, **options)

    def _entry(self, entry: Entry) -> Any:
        match entry:
            case Step():
                return step(self._function(entry), id=entry.id, **_OPTIONS.get(entry.way, {}))
            case Nested():
                return self.along(Workflow(entry.id, inline=entry.inline), entry.flow)

    def _function(self, made: Step) -> Any:
        def run(data: Any, ctx: Context[Any]) -> Any:
            name = {"run": ctx.run_id, "step": made.id, "key": ctx.idempotency_key}
            more = {"attempt": ctx.retry_count, "resumed": ctx.resumed, "data": ctx.resume_data}
            effects.note(self.folder, effects.BEGIN, **name, **more)
            time.sleep(made.seconds)
            _begin(made, ctx)
            effects.note(self.folder, effects.END, **name, **more)
            _leave(made, data, ctx)
            return made.value(data)

        return run


def _begin(made: Step, ctx: Context[Any]) -> None:
    """Do what a step does before its end is noted: outrun its limit."""
    if ctx.retry_count == 0 and made.way is Way.SOFT:
        time.sleep(2 * LIMIT)
        raise TimeoutError("no soft limit has struck: this is no prefork pool")
    if ctx.retry_count == 0 and made.way is Way.HARD:
        ctx.abort_signal.wait(20 * LIMIT)
        raise TimeoutError("the signal has come")


def _leave(made: Step, data: int, ctx: Context[Any]) -> None:
    """Leave the step otherwise than by a value, where its way says so."""
    fails = made.way is Way.FAIL or (made.way is Way.FLAKY and ctx.retry_count < FLAKY_ATTEMPTS)
    ctx.set_state({f"{FAILED}{made.id}" if fails else made.id: True})
    match made.way:
        case Way.FLAKY if fails:
            raise OnPurpose(f"attempt {ctx.retry_count}")
        case Way.FAIL:
            raise OnPurpose("always")
        case Way.ASK if not ctx.resumed:
            ctx.suspend({"asks": made.id}, label=f"ask:{ctx.idempotency_key}")
        case Way.STAY:
            ctx.suspend({"stays": made.id}, label=f"stay:{ctx.idempotency_key}")
        case Way.BAIL:
            ctx.bail(made.value(data))
        case Way.ABORT:
            ctx.abort()
        case _:
            pass


def _total(data: dict[str, int | None]) -> int:
    return sum(value or 0 for value in data.values()) % MODULUS


def _sum(data: list[int]) -> int:
    return sum(data) % MODULUS


def _has(mask: int) -> Any:
    return lambda data: bool(data & mask)


def _round_down(turns: int) -> Any:
    return lambda data: data - data % turns


def _divides(turns: int, *, wanted: bool) -> Any:
    return lambda data: (data % turns == 0) is wanted


def _spread(items: int) -> Any:
    return lambda data: [data + index for index in range(items)]
