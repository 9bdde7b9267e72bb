"""LOOP: bodies that run until a condition says so."""

from __future__ import annotations

from orchestrator import Workflow, step


@step
def increment(data: dict[str, int]) -> dict[str, int]:
    return {"value": data["value"] + 1}


@step
def final(data: dict[str, int]) -> dict[str, int]:
    return {"finalValue": data["value"]}


until = (
    Workflow("loop-until", validate_inputs=False)
    .do_until(increment, lambda data: data["value"] >= 12)
    .then(final)
    .commit()
)

_nested_body = Workflow("nested-loops-until-counter-increment", validate_inputs=False).then(increment).commit()

until_nested = (
    Workflow("loop-until-nested", validate_inputs=False)
    .do_until(_nested_body, lambda data: data["value"] >= 12)
    .then(final)
    .commit()
)

while_ = (
    Workflow("loop-while", validate_inputs=False)
    .do_while(increment, lambda data: data["value"] < 12)
    .then(final)
    .commit()
)


@step(id="step1")
def count_up(data: dict[str, int]) -> dict[str, int]:
    return {"count": data["count"] + 1}


at_least_once = Workflow("loop-at-least-once").do_while(count_up, lambda data: data["count"] < 10).commit()
