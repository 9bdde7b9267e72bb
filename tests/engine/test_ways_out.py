"""Every way out of a function in the default runtime: each is an outcome, but for what its caller interrupts."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, field_serializer, field_validator

from orchestrator import Context, Orchestrator, Workflow, step
from orchestrator.engine.calling import is_struck
from tests.parity import calls
from tests.workers import ways


@pytest.fixture
def orchestrator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Orchestrator]:
    """An application in this process."""
    monkeypatch.setenv(calls.FOLDER, str(tmp_path))
    with Orchestrator(workflows=ways.FLOWS) as made:
        yield made


@pytest.mark.parametrize("flow", ["leaving", "leaving-async"])
@pytest.mark.parametrize("way", ways.WAYS)
def test_every_way_out_is_an_outcome(orchestrator: Orchestrator, way: str, flow: str) -> None:
    """The table says which; in a coroutine each is the same."""
    if flow == "leaving-async" and way == "stop iteration":
        pytest.skip("a coroutine cannot raise it: Python makes a RuntimeError of it")
    run = orchestrator.create_run(flow)
    run.start(way)
    found = ways.found_in(run)
    assert (found.status, found.error, found.attempts) == ways.expected(way)


@pytest.mark.parametrize("way", ["suspend in a group", "suspends in tasks", "wrapped suspend"])
def test_what_was_suspended_in_a_group_is_resumed(orchestrator: Orchestrator, way: str) -> None:
    """With the payload of the first that asked."""
    run = orchestrator.create_run("leaving")
    assert run.start(way).suspend_payload["leave"] == {"value": "why"}
    assert run.resume().result == "resumed"


def test_ctrl_c_is_the_callers(orchestrator: Orchestrator) -> None:
    """In the main thread it leaves the run as a dead worker would; in another one it can only be the function's own."""

    @step
    def interrupted(data: Any) -> None:
        raise KeyboardInterrupt

    orchestrator.register(Workflow("interrupted").then(interrupted).commit())
    run = orchestrator.create_run("interrupted")
    with pytest.raises(KeyboardInterrupt):
        run.start(1)
    assert run.status == "running"
    other = orchestrator.create_run("interrupted")
    thread = threading.Thread(target=other.start, args=(1,))
    thread.start()
    thread.join()
    assert (other.status, other.result().error.name) == ("failed", "KeyboardInterrupt")  # type: ignore[union-attr]


class SoftTimeLimitExceeded(Exception):
    """Stands for Celery's, which a signal raises in whatever the thread is doing."""


STRUCK: list[str] = []


def strike(where: str) -> None:
    """Be struck the first time."""
    if where not in STRUCK:
        STRUCK.append(where)
        raise SoftTimeLimitExceeded(where)


class Slow(BaseModel):
    """A model whose validator or serializer takes too long once."""

    where: str

    @field_validator("where")
    @classmethod
    def _read(cls, value: str) -> str:
        if value == "reading":
            strike(value)
        return value

    @field_serializer("where")
    def _write(self, value: str) -> str:
        if value == "writing":
            strike(value)
        return value


@pytest.mark.parametrize("where", ["reading", "writing"])
def test_a_limit_that_strikes_beside_the_function_is_a_failed_attempt(orchestrator: Orchestrator, where: str) -> None:
    """While the input is read or the output written: something makes another error of it, and the retry is due."""
    STRUCK.clear()

    @step(retries=1, retry_delay=0)
    def read(data: Slow, ctx: Context[Any]) -> int:
        return ctx.retry_count

    @step(retries=1, retry_delay=0)
    def write(data: Any, ctx: Context[Any]) -> Slow:
        return Slow.model_construct(where="writing" if ctx.retry_count == 0 else "again")

    entry = read if where == "reading" else write
    orchestrator.register(Workflow(where).then(entry).commit())
    run = orchestrator.create_run(where)
    result = run.start({"where": where})
    assert [where] == STRUCK
    assert result.status == "success", result.error


def test_sys_exit_in_a_hook_does_not_keep_the_run_from_its_end(orchestrator: Orchestrator) -> None:
    """It is logged like any error of a hook."""
    flow = Workflow("hooked", on_finish=lambda info: (_ for _ in ()).throw(SystemExit(1))).then(ways.leave).commit()
    orchestrator.register(flow)
    assert orchestrator.create_run("hooked").start("returns").status == "success"


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["time_limit", "soft_time_limit"])
def test_a_time_limit_that_is_no_time_is_refused(name: str, limit: float) -> None:
    """Celery takes 0 for none."""
    with pytest.raises(ValueError, match=name):
        step(lambda data: data, id="limited", **{name: limit})  # type: ignore[call-overload]


def test_a_failure_of_many_parts_costs_their_number() -> None:
    """What struck is looked for in all of them: a group of 100,000 must not hold its worker for minutes."""

    def count_calls(parts: int) -> int:
        group = ExceptionGroup("many", [ValueError(number) for number in range(parts)])
        calls = 0

        def count(frame: object, event: str, argument: object) -> None:
            nonlocal calls
            calls += event == "call"

        sys.setprofile(count)
        try:
            assert not is_struck(group)
        finally:
            sys.setprofile(None)
        return calls

    assert count_calls(2_000) < 20 * count_calls(200)
