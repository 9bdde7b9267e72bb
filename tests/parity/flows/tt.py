"""Workflows of the catalogue's TT entries: sleeps, and runs that begin again in the middle."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel

from orchestrator import Context, Workflow, step
from orchestrator.testing import WorkerLost
from tests.parity.calls import count, note

Data = dict[str, Any]


def _in_milliseconds(milliseconds: int) -> datetime:
    return datetime.now(UTC) + timedelta(milliseconds=milliseconds)


# -------------------------------------------------------------------------------------------------------- sleeps, TT-01


@step(id="step1")
def succeed() -> Data:
    """Finish before a sleep."""
    return {"result": "success"}


@step(id="step2")
def say_slept(data: Data) -> Data:
    """Say what came through the sleep."""
    return {"result": f"slept successfully: {data['result']}"}


tt_01 = Workflow("tt-01").then(succeed).sleep(0.1).then(say_slept).commit()


@step(id="step1")
def give_hundred() -> Data:
    """Return a number of milliseconds."""
    return {"value": 100}


@step(id="step2")
def say_how_long(data: Data) -> Data:
    """Say what came through the sleep."""
    return {"result": f"slept for: {data['value']}"}


tt_02 = (
    Workflow("tt-02")
    .then(give_hundred)
    .sleep(lambda ctx: ctx.result(give_hundred)["value"] / 1000)
    .then(say_how_long)
    .commit()
)


@step(id="check")
def check(ctx: Context) -> Data:
    """Choose the arm that sleeps."""
    note(ctx, "check")
    return {"should_sleep": True}


@step(id="afterSleep")
def after_sleep(ctx: Context) -> Data:
    """Finish after the nested sleep."""
    note(ctx, "afterSleep")
    return {"result": "completed after sleep"}


@step(id="noSleep")
def no_sleep(ctx: Context) -> Data:
    """Note the call that must not happen."""
    note(ctx, "noSleep")
    return {"result": "completed without sleep"}


_sleeping = Workflow("nested-sleep").sleep(0.05).then(after_sleep).commit()
tt_03 = (
    Workflow("tt-03")
    .then(check)
    .branch((lambda data: data["should_sleep"], _sleeping), (lambda data: not data["should_sleep"], no_sleep))
    .commit()
)


@step(id="step1")
def before_sleep(ctx: Context) -> Data:
    """Finish before a sleep."""
    note(ctx, "step1")
    return {"value": "before-sleep"}


@step(id="step2")
def read_over_sleep(ctx: Context) -> Data:
    """Read the result of the step before the sleep by its id."""
    note(ctx, "step2")
    return {"result": f"{ctx.result('step1')['value']} + after-sleep"}


tt_04 = Workflow("tt-04").then(before_sleep).sleep(0.05).then(read_over_sleep).commit()


@step(id="step2")
def say_slept_until(data: Data) -> Data:
    """Say what came through the sleep."""
    return {"result": f"slept until successfully: {data['result']}"}


@step(id="step2")
def say_slept_until_function(data: Data) -> Data:
    """Say what came through the sleep."""
    return {"result": f"slept until fn: {data['value']}"}


tt_05 = Workflow("tt-05").then(succeed).sleep_until(lambda ctx: _in_milliseconds(100)).then(say_slept_until).commit()
tt_06 = (
    Workflow("tt-06")
    .then(give_hundred)
    .sleep_until(lambda data: _in_milliseconds(data["value"]))
    .then(say_slept_until_function)
    .commit()
)

# -------------------------------------------------------------------------------------------------- time travel, TT-07


class Step1Result(BaseModel):
    """The input of the second step."""

    step1_result: int


@step(id="step1")
def give_two(ctx: Context) -> Data:
    """Return two."""
    note(ctx, "step1")
    return {"step1_result": 2}


@step(id="step2")
def add_one(data: Step1Result, ctx: Context) -> Data:
    """Add one."""
    note(ctx, "step2")
    return {"step2_result": data.step1_result + 1}


@step(id="step3")
def add_another(data: Data, ctx: Context) -> Data:
    """Add one more."""
    note(ctx, "step3")
    return {"final": data["step2_result"] + 1}


def _three(workflow_id: str) -> Workflow:
    return Workflow(workflow_id).then(give_two).then(add_one).then(add_another).commit()


tt_07 = _three("tt-07")
tt_09 = _three("tt-09")
tt_10 = _three("tt-10")
tt_15 = _three("tt-15")
tt_18 = _three("tt-18")
tt_20 = _three("tt-20")


@step(id="step1")
def first_beside(ctx: Context) -> Data:
    """Be the first of the parallel."""
    note(ctx, "step1")
    return {"result": "step1"}


@step(id="step2")
def second_beside(ctx: Context) -> Data:
    """Be the second of the parallel."""
    note(ctx, "step2")
    return {"result": "step2"}


@step(id="final")
def combine(data: Data) -> Data:
    """Combine what the parallel gave."""
    return {"combined": f"{data['step1']['result']}-{data['step2']['result']}"}


tt_08 = Workflow("tt-08").parallel(first_beside, second_beside).then(combine).commit()


@step(id="step2")
def wait(ctx: Context) -> Data:
    """Suspend."""
    note(ctx, "step2")
    if not ctx.resumed:
        ctx.suspend({"reason": "waiting"})
    return {"step2_result": 3}


tt_12 = Workflow("tt-12").then(give_two).then(wait).then(add_another).commit()


@step(id="check")
def choose_a(ctx: Context) -> Data:
    """Choose the first arm."""
    note(ctx, "check")
    return {"branch": "A"}


@step(id="branchA")
def arm_a(ctx: Context) -> Data:
    """Be the first arm."""
    note(ctx, "branchA")
    return {"result": "from A"}


@step(id="branchB")
def arm_b(ctx: Context) -> Data:
    """Be the second arm."""
    note(ctx, "branchB")
    return {"result": "from B"}


tt_13 = (
    Workflow("tt-13")
    .then(choose_a)
    .branch((lambda data: data["branch"] == "A", arm_a), (lambda data: data["branch"] == "B", arm_b))
    .commit()
)


@step(id="step2")
def be_lost(data: Step1Result, ctx: Context) -> Data:
    """Be killed with the worker, the first time."""
    note(ctx, "step2")
    if count(ctx.run_id, "step2") == 1:
        raise WorkerLost
    return {"step2_result": data.step1_result + 1}


tt_19 = Workflow("tt-19", auto_restart=False).then(give_two).then(be_lost).then(add_another).commit()
