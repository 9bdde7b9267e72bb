"""A step that updates the run's state while others write it: the store refuses, and the update is computed anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from orchestrator import Context, Orchestrator, StateConflict, Workflow, step
from orchestrator.codec import encode
from orchestrator.host import new_token
from orchestrator.rules.change import Change, Committed, Refused, RequestGuard
from orchestrator.rules.model import StoredStatus
from orchestrator.stores import MemoryStore
from orchestrator.testing import VirtualClock, make_context
from tests.vendor import wait_until


class BusyStore(MemoryStore):
    """Another writes the state so many times, each time just before a commit that was computed from it."""

    def __init__(self, writes: int) -> None:
        super().__init__(VirtualClock())
        self.writes = writes

    def commit(self, run_id: str, change: Change) -> Committed | Refused:
        """Let the other one be first."""
        if change.expect_state is not None and self.writes:
            self.writes -= 1
            running = frozenset({StoredStatus.RUNNING})
            other = Change(RequestGuard(new_token(), running), state={"other": encode(self.writes)})
            assert isinstance(super().commit(run_id, other), Committed)
        return super().commit(run_id, change)


@dataclass
class Calls:
    """How often the step and its update were called."""

    steps: int = 0
    updates: list[Any] = field(default_factory=list)

    def flow(self, **options: Any) -> Workflow:
        """A step that counts, and streams something on the way."""

        def count(state: Mapping[str, Any]) -> dict[str, Any]:
            self.updates.append(state.get("other"))
            return {"total": state.get("total", 0) + 1}

        def work(data: int, ctx: Context) -> str:
            self.steps += 1
            ctx.write("a chunk")
            ctx.update_state(count)
            return "done"

        return Workflow("counting", input=int).then(step(work, **options)).commit()


def test_the_function_is_called_again_and_the_step_is_not() -> None:
    """On what the others have written; what the step has streamed comes once."""
    calls = Calls()
    with Orchestrator(store=BusyStore(3)) as orchestrator:
        run = orchestrator.create_run(calls.flow())
        result = run.start(1)
        chunks = [event for event in run.events() if event.type == "workflow-step-output"]
    assert (result.status, result.result) == ("success", "done")
    assert result.state == {"other": 0, "total": 1}
    assert (calls.steps, calls.updates) == (1, [None, 2, 1, 0])
    assert len(chunks) == 1


def test_who_never_gets_its_turn_fails_with_the_reason() -> None:
    """After a hundred tries, and as any attempt: the next one has it."""
    calls = Calls()
    with Orchestrator(store=BusyStore(150)) as orchestrator:
        result = orchestrator.create_run(calls.flow(retries=1)).start(1)
        assert (result.status, calls.steps, len(calls.updates)) == ("success", 2, 101 + 50)
        assert result.state["total"] == 1
    with Orchestrator(store=BusyStore(150)) as orchestrator:
        result = orchestrator.create_run(Calls().flow()).start(1)
    assert isinstance(result.error, StateConflict)
    assert "step 'work'" in str(result.error)
    assert "101 times" in str(result.error)


def test_a_step_that_reads_what_it_wrote_itself(orchestrator_local: Orchestrator) -> None:
    """Writes count in their order, and a function may change in place what it is given."""

    def works(data: int, ctx: Context) -> Any:
        def push(state: Any) -> dict[str, Any]:
            state["list"].append(data)
            return {"list": state["list"]}

        ctx.set_state({"list": [0]})
        ctx.update_state(push)
        ctx.update_state(push)
        return [dict(ctx.state), ctx.written_state]

    flow = Workflow("ordered", input=int).then(step(works)).commit()
    result = orchestrator_local.create_run(flow).start(5, state={"list": [9]})
    assert result.result == [{"list": [9]}, {"list": [0, 5, 5]}]
    assert result.state == {"list": [0, 5, 5]}


def test_what_is_no_plain_function_is_refused_where_it_is_given() -> None:
    """By name, with the remedy; a coroutine that comes back nevertheless is refused as well."""
    ctx = make_context(state={"total": 1})

    async def later(state: Any) -> dict[str, Any]:
        return {}

    with pytest.raises(TypeError, match="set_state"):
        ctx.update_state({"total": 2})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="async"):
        ctx.update_state(later)  # type: ignore[arg-type]
    ctx.update_state(lambda state: {"total": state["total"] + 1})
    assert ctx.written_state == {"total": 2}
    ctx.update_state(lambda state: later(state))  # noqa: PLW0108 # type: ignore[arg-type,return-value]
    with pytest.raises(TypeError, match="returned <coroutine"):
        assert ctx.written_state


def test_two_runs_do_not_meet(orchestrator_local: Orchestrator) -> None:
    """The version is the run's own."""
    flow = Calls().flow()
    runs = [orchestrator_local.create_run(flow).submit(1) for _ in range(3)]
    assert wait_until(lambda: all(run.status == "success" for run in runs), 20)
    assert [run.result().state for run in runs] == [{"total": 1}] * 3
