"""Workflows of the catalogue's RST entries: a step is lost with its worker, and the run is restarted by hand."""

from __future__ import annotations

from typing import Any

from orchestrator import Context, Workflow, step
from orchestrator.testing import WorkerLost
from tests.parity.calls import count, note

Data = dict[str, Any]
LOST = "lost"


def _be_lost_once(ctx: Context) -> None:
    """Leave everything as a killed worker would, the first time in this run."""
    if not count(ctx.run_id, LOST):
        note(ctx, LOST)
        raise WorkerLost


@step(id="step1")
def succeed(ctx: Context) -> Data:
    """Succeed at once."""
    note(ctx, "step1")
    return {"result": "success"}


rst_01 = Workflow("rst-01", auto_restart=False).then(succeed).commit()


@step(id="counter")
def count_calls(data: Data, ctx: Context) -> Data:
    """Return how often the step came to its end, and its input."""
    _be_lost_once(ctx)
    note(ctx, "counter", ctx.restarted)
    return {"count": count(ctx.run_id, "counter"), "value": data["value"]}


rst_02 = Workflow("rst-02", auto_restart=False).then(count_calls).commit()


@step(id="step1")
def add_ten(data: Data, ctx: Context) -> Data:
    """Add ten."""
    note(ctx, "step1")
    return {"value": data["value"] + 10}


@step(id="step2")
def double(data: Data, ctx: Context) -> Data:
    """Double the value."""
    _be_lost_once(ctx)
    note(ctx, "step2")
    return {"value": data["value"] * 2}


rst_03 = Workflow("rst-03", auto_restart=False).then(add_ten).then(double).commit()


@step(id="failing-step")
def upper(data: Data, ctx: Context) -> Data:
    """Return the text in capitals."""
    _be_lost_once(ctx)
    note(ctx, "failing-step")
    return {"text": data["text"].upper()}


rst_04 = Workflow("rst-04", auto_restart=False).then(upper).commit()


@step(id="getUserInput")
def get_user_input(data: Data, ctx: Context) -> Data:
    """Hand the input on."""
    note(ctx, "getUserInput")
    return {"user_input": data["input"]}


@step(id="promptAgent")
def prompt_agent(ctx: Context) -> Data:
    """Suspend, and return what the model would say."""
    _be_lost_once(ctx)
    note(ctx, "promptAgent")
    if not ctx.resumed:
        ctx.suspend({"test_payload": "hello"})
    return {"model_output": "test output"}


@step(id="evaluateTone")
def evaluate_tone(ctx: Context) -> Data:
    """Return scores."""
    note(ctx, "evaluateTone")
    return {"tone_score": 0.8, "completeness_score": 0.7}


@step(id="improveResponse")
def improve_response(ctx: Context) -> Data:
    """Suspend, and return what is better."""
    note(ctx, "improveResponse")
    if not ctx.resumed:
        ctx.suspend()
    return {"improved_output": "improved output"}


@step(id="evaluateImproved")
def evaluate_improved(ctx: Context) -> Data:
    """Return better scores."""
    note(ctx, "evaluateImproved")
    return {"tone_score": 0.9, "completeness_score": 0.8}


rst_06 = (
    Workflow("rst-06", auto_restart=False)
    .then(get_user_input)
    .then(prompt_agent)
    .then(evaluate_tone)
    .then(improve_response)
    .then(evaluate_improved)
    .commit()
)
