"""Steps that run side by side and update one state: by a function of it, so that none undoes another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field

from orchestrator import Context, Workflow, step

WRITERS = 12


class Tally(BaseModel):
    """A state with a limit, which holds for what all steps have written together."""

    total: int = Field(default=0, le=10)
    seen: list[int] = []


def count(number: int) -> Any:
    """Return an update that counts one more, and notes who it was."""
    return lambda state: {"total": state.get("total", 0) + 1, "seen": [*state.get("seen", []), number]}


@step
def append(number: int, ctx: Context) -> int:
    """Update the state as an item of a foreach."""
    ctx.set_state({f"own-{number}": number})
    ctx.update_state(count(number))
    return number


@step
async def append_async(number: int, ctx: Context) -> int:
    """Do the same in a coroutine."""
    ctx.update_state(count(number))
    return number


@step(retries=1, retry_delay=0)
def append_retried(number: int, ctx: Context) -> int:
    """Update the state, and fail the first time: only the second attempt's update counts."""
    ctx.update_state(count(number))
    if ctx.retry_count == 0:
        raise ConnectionError("once")
    return number


@step
def append_suspended(number: int, ctx: Context) -> int:
    """Update the state before the suspension and after it."""
    ctx.update_state(count(number))
    if not ctx.resumed:
        ctx.suspend({"number": number}, label=f"n{number}")
    return number


def _writer(number: int) -> Any:
    def write(given: Any, ctx: Context) -> int:
        ctx.update_state(count(number))
        return number

    return step(write, id=f"writer-{number}")


def refuse(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return more than a state may hold, once others have written it."""
    raise LookupError(f"nothing for {state}")


@step
def fails(given: Any, ctx: Context) -> None:
    """Update by a function that raises."""
    ctx.update_state(refuse)


@step
def returns_nothing(given: Any, ctx: Context) -> None:
    """Update by a function that forgets to return."""
    ctx.update_state(lambda state: None)  # type: ignore[arg-type,return-value]


_inner = Workflow("state-inner", input=int).then(append).commit()
in_items = Workflow("state-items", input=list[int]).foreach(append, concurrency=WRITERS).commit()
in_coroutines = Workflow("state-coroutines", input=list[int]).foreach(append_async, concurrency=WRITERS).commit()
in_nested = Workflow("state-nested", input=list[int]).foreach(_inner, concurrency=WRITERS).commit()
in_arms = Workflow("state-arms", input=int).parallel(*map(_writer, range(WRITERS))).commit()
in_attempts = Workflow("state-attempts", input=list[int]).foreach(append_retried, concurrency=4).commit()
over_suspensions = Workflow("state-suspended", input=list[int]).foreach(append_suspended, concurrency=4).commit()
limited = Workflow("state-limited", input=list[int], state=Tally).foreach(append_async, concurrency=WRITERS).commit()
raising = Workflow("state-raising", input=int).then(fails).commit()
forgetful = Workflow("state-forgetful", input=int).then(returns_nothing).commit()
