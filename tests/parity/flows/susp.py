"""Workflows of the catalogue's SUSP entries: steps that wait for a person, and what they do with the answer."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from orchestrator import Context, Workflow, step
from tests.parity.calls import note

Data = dict[str, Any]

# ------------------------------------------------------------------------------------------------------------ SUSP-01


@step(id="step1")
def succeed(ctx: Context) -> Data:
    """Succeed at once."""
    note(ctx, "step1")
    return {"result": "success"}


susp_01 = Workflow("susp-01").then(succeed).commit()

# ------------------------------------------------------------------------------------------------ SUSP-02 to SUSP-05


@step(id="step1")
def finish_first(ctx: Context) -> Data:
    """Finish before the step that suspends."""
    note(ctx, "step1")
    return {"value": "step1-done"}


@step(id="step2")
def wait_for_approval(ctx: Context) -> Data:
    """Suspend for an approval."""
    note(ctx, "step2")
    ctx.suspend({"reason": "waiting for approval"})


susp_02 = Workflow("susp-02").then(finish_first).then(wait_for_approval).commit()


@step(id="step1")
def wait_without_a_word(ctx: Context) -> Data:
    """Suspend without a payload."""
    ctx.suspend()


susp_03 = Workflow("susp-03").then(wait_without_a_word).commit()


class ApprovalRequest(BaseModel):
    """The question to the person who approves."""

    approval_required: bool
    requested_by: str
    amount: int


@step(id="step1", suspend=ApprovalRequest)
def ask_for_approval(ctx: Context) -> Data:
    """Suspend with a typed payload."""
    note(ctx, "step1")
    ctx.suspend(ApprovalRequest(approval_required=True, requested_by="user-123", amount=500))


susp_04 = Workflow("susp-04").then(ask_for_approval).commit()


@step(id="step2")
def need_approval(ctx: Context) -> Data:
    """Suspend between two steps."""
    note(ctx, "step2")
    ctx.suspend({"reason": "approval needed"})


@step(id="step3")
def come_third(ctx: Context) -> Data:
    """Note the call that must not happen."""
    note(ctx, "step3")
    return {"value": "step3-done"}


susp_05 = Workflow("susp-05").then(finish_first).then(need_approval).then(come_third).commit()

# ------------------------------------------------------------------------------------------------------------ SUSP-06


@step(id="check")
def check(ctx: Context) -> Data:
    """Say that an approval is needed."""
    note(ctx, "check")
    return {"needs_approval": True}


@step(id="approval")
def approval(ctx: Context) -> Data:
    """Suspend for the manager."""
    note(ctx, "approval")
    ctx.suspend({"type": "manager-approval"})


@step(id="autoApprove")
def auto_approve(ctx: Context) -> Data:
    """Note the call that must not happen."""
    note(ctx, "autoApprove")
    return {"approved": True}


susp_06 = (
    Workflow("susp-06")
    .then(check)
    .branch(
        (lambda data: data["needs_approval"], approval),
        (lambda data: not data["needs_approval"], auto_approve),
    )
    .commit()
)

# ------------------------------------------------------------------------------------------------------------ SUSP-07


class OneValue(BaseModel):
    """State with a single value."""

    value: str


@step(id="step2")
def modify_and_wait(ctx: Context) -> Data:
    """Set the state, then suspend."""
    note(ctx, "step2")
    ctx.set_state({"value": ctx.state["value"] + "-modified"})
    ctx.suspend({"reason": "waiting"})


susp_07 = Workflow("susp-07", state=OneValue).then(finish_first).then(modify_and_wait).then(come_third).commit()

# --------------------------------------------------------------------------------------------------- SUSP-08, SUSP-09


@step(id="step1")
def finish_beside(ctx: Context) -> Data:
    """Finish beside a step that suspends."""
    note(ctx, "step1")
    return {"result": "normal-done"}


@step(id="step2")
def wait_beside(ctx: Context) -> Data:
    """Suspend beside a step that finishes."""
    note(ctx, "step2")
    ctx.suspend({"waiting_for": "approval"})


susp_08 = Workflow("susp-08").parallel(finish_beside, wait_beside).commit()


@step(id="step1")
def give_ten() -> Data:
    """Return ten."""
    return {"value": 10}


@step(id="step2")
def give_twenty() -> Data:
    """Return twenty."""
    return {"value": 20}


susp_09 = Workflow("susp-09").parallel(give_ten, give_twenty).commit()

# ------------------------------------------------------------------------------------------------------------ SUSP-10


@step(id="outer-step")
def finish_outside(ctx: Context) -> Data:
    """Finish before the nested workflow."""
    note(ctx, "outer-step")
    return {"value": "outer-done"}


@step(id="inner-step")
def wait_inside(ctx: Context) -> Data:
    """Suspend inside the nested workflow."""
    note(ctx, "inner-step")
    ctx.suspend({"reason": "nested"})


_nested_10 = Workflow("nested-suspend-inner").then(wait_inside).commit()
susp_10 = Workflow("susp-10").then(finish_outside).then(_nested_10).commit()

# --------------------------------------------------------------------------------------------------- SUSP-11, SUSP-12


@step(id="step1")
def begin() -> Data:
    """Finish before the step that suspends."""
    return {"value": "step1-done"}


@step(id="step2")
def ask_the_user(ctx: Context) -> Data:
    """Suspend, and return what the user said."""
    if not ctx.resumed:
        ctx.suspend({"reason": "waiting for user input"})
    return {"result": "completed", "user_input": ctx.resume_data["user_input"]}


@step(id="step2")
def ask_by_label(ctx: Context) -> Data:
    """Suspend under a label, and return what the user said."""
    if not ctx.resumed:
        ctx.suspend({"reason": "waiting for user input"}, label="my-custom-label")
    return {"result": "completed", "user_input": ctx.resume_data["user_input"]}


susp_11 = Workflow("susp-11").then(begin).then(ask_the_user).commit()
susp_12 = Workflow("susp-12").then(begin).then(ask_by_label).commit()

# ------------------------------------------------------------------------------------------------------------ SUSP-13


class Collected(BaseModel):
    """State with a number and a list."""

    count: int
    items: list[str]


@step(id="step1")
def collect_and_wait(ctx: Context) -> Data:
    """Note and change the state, then suspend."""
    if not ctx.resumed:
        note(ctx, "step1 state", dict(ctx.state))
        ctx.set_state({"count": ctx.state["count"] + 1, "items": [*ctx.state["items"], "item-1"]})
        ctx.suspend({})
    return {"proceed": ctx.resume_data["proceed"]}


@step(id="step2")
def observe_state(ctx: Context) -> Data:
    """Note the state."""
    note(ctx, "step2 state", dict(ctx.state))
    return {"done": True}


susp_13 = Workflow("susp-13", state=Collected).then(collect_and_wait).then(observe_state).commit()

# ------------------------------------------------------------------------------------------------------------ SUSP-14


@step(id="multi-resume-step-1")
def wait_for_increment(data: Data, ctx: Context) -> Data:
    """Suspend, and add what the run is resumed with."""
    if not ctx.resumed:
        ctx.suspend({"needs": "increment"})
    return {"result": data["value"] + ctx.resume_data["increment"]}


@step(id="multi-resume-step-2")
def wait_for_multiplier(data: Data, ctx: Context) -> Data:
    """Suspend, and multiply by what the run is resumed with."""
    if not ctx.resumed:
        ctx.suspend({"needs": "multiplier"})
    return {"result": data["value"] * ctx.resume_data["multiplier"]}


susp_14 = Workflow("susp-14").parallel(wait_for_increment, wait_for_multiplier).commit()

# --------------------------------------------------------------------------------------------------- SUSP-15, SUSP-17


@step(id="branch-step-1")
def wait_in_first_arm(data: Data, ctx: Context) -> Data:
    """Suspend in the first arm."""
    if not ctx.resumed:
        ctx.suspend({"arm": 1})
    return {"result": data["value"] * ctx.resume_data["multiplier"]}


@step(id="branch-step-2")
def wait_in_second_arm(data: Data, ctx: Context) -> Data:
    """Suspend in the second arm."""
    if not ctx.resumed:
        ctx.suspend({"arm": 2})
    return {"result": data["value"] * ctx.resume_data["multiplier"]}


susp_15 = (
    Workflow("susp-15").branch((lambda data: True, wait_in_first_arm), (lambda data: True, wait_in_second_arm)).commit()
)
susp_17 = (
    Workflow("susp-17").branch((lambda data: True, wait_in_first_arm), (lambda data: True, wait_in_second_arm)).commit()
)

# ------------------------------------------------------------------------------------------------------------ SUSP-16


@step(id="suspend-step")
def wait_for_extra_data(data: Data, ctx: Context) -> Data:
    """Suspend, and process what the run is resumed with."""
    if not ctx.resumed:
        ctx.suspend({"waiting_for": "extra-data", "original_value": data["value"]})
    return {"result": f"processed-{ctx.resume_data['extra_data']}"}


@step(id="complete-step")
def complete(data: Data) -> Data:
    """Say what was processed."""
    return {"final": f"Completed: {data['result']}"}


susp_16 = Workflow("susp-16").then(wait_for_extra_data).then(complete).commit()

# ------------------------------------------------------------------------------------------------------------ SUSP-19


@step(id="step-1")
def wait_in_loop(data: Data, ctx: Context) -> Data:
    """Suspend in every iteration, and add one when told to continue."""
    if not ctx.resumed or not ctx.resume_data["should_continue"]:
        ctx.suspend({"value": data["value"]})
    value = data["value"] + 1
    return {"value": value, "condition": value >= 10}


susp_19 = Workflow("susp-19").do_until(wait_in_loop, lambda data: data["condition"]).commit()

# ------------------------------------------------------------------------------------------------ SUSP-21 to SUSP-25


def _resumed_value(item: Data, ctx: Context) -> Data:
    return {"value": item["value"] + 11 + ctx.resume_data["value"]}


@step(id="map")
def wait_for_each(item: Data, ctx: Context) -> Data:
    """Suspend for every item."""
    if not ctx.resumed:
        ctx.suspend({"item": item["value"]})
    return _resumed_value(item, ctx)


@step(id="map")
def wait_for_large(item: Data, ctx: Context) -> Data:
    """Suspend for the items above five."""
    if item["value"] <= 5:
        return {"value": item["value"] + 11}
    if not ctx.resumed:
        ctx.suspend({"item": item["value"]})
    return _resumed_value(item, ctx)


@step(id="map")
def wait_by_label(item: Data, ctx: Context) -> Data:
    """Suspend for every item, under a label of its own."""
    if not ctx.resumed:
        ctx.suspend({"item": item["value"]}, label=f"foreach-label-{ctx.index}")
    return _resumed_value(item, ctx)


@step(id="final")
def add_up(items: list[Data]) -> Data:
    """Return the sum of the list."""
    return {"final_value": sum(item["value"] for item in items)}


susp_21 = Workflow("susp-21").foreach(wait_for_each).then(add_up).commit()
susp_22 = Workflow("susp-22").foreach(wait_for_large, concurrency=3).then(add_up).commit()
susp_23 = Workflow("susp-23").foreach(wait_for_each, concurrency=3).then(add_up).commit()
susp_24 = Workflow("susp-24").foreach(wait_by_label, concurrency=3).then(add_up).commit()
susp_25 = Workflow("susp-25").foreach(wait_for_large, concurrency=3).then(add_up).commit()

# --------------------------------------------------------------------------------- SUSP-27, SUSP-28, SUSP-42, SUSP-44


@step(id="begin-step")
def begin_outside(data: Data, ctx: Context) -> Data:
    """Hand the input on."""
    note(ctx, "begin-step")
    return data


@step(id="start")
def start_inside(data: Data, ctx: Context) -> Data:
    """Add one."""
    note(ctx, "start")
    return {"new_value": data["start_value"] + 1}


@step(id="other")
def wait_and_add(data: Data, ctx: Context) -> Data:
    """Suspend, then hand the input on with a second number."""
    note(ctx, "other")
    if not ctx.resumed:
        ctx.suspend({"waiting": True})
    return {"new_value": data["new_value"], "other": 26}


@step(id="other")
def wait_by_nested_label(data: Data, ctx: Context) -> Data:
    """Suspend under a label, then hand the input on with a second number."""
    note(ctx, "other")
    if not ctx.resumed:
        ctx.suspend({"waiting": True}, label="nested-custom-label")
    return {"new_value": data["new_value"], "other": 26}


@step(id="other")
def wait_and_forget(ctx: Context) -> Data:
    """Suspend without a payload, then return a second number alone."""
    note(ctx, "other")
    if not ctx.resumed:
        ctx.suspend()
    return {"other": 26}


@step(id="final")
def add_inputs(data: Data, ctx: Context) -> Data:
    """Add the two numbers of the input."""
    note(ctx, "final")
    return {"final_value": data["new_value"] + data["other"]}


@step(id="final")
def add_results(ctx: Context) -> Data:
    """Add the results of the two steps before."""
    note(ctx, "final")
    return {"final_value": ctx.result("start")["new_value"] + ctx.result("other")["other"]}


@step(id="last-step")
def come_last(ctx: Context) -> Data:
    """Finish after the nested workflow."""
    note(ctx, "last-step")
    return {"success": True}


@step(id="passthrough")
def pass_through(data: Data, ctx: Context) -> Data:
    """Hand the input on, in more than one workflow."""
    note(ctx, "passthrough")
    return data


def _nested(workflow_id: str, other: Any, final: Any) -> Workflow:
    return Workflow(workflow_id, validate_inputs=False).then(start_inside).then(other).then(final).commit()


def _around(workflow_id: str, nested: Workflow) -> Workflow:
    workflow = Workflow(workflow_id, validate_inputs=False)
    return workflow.then(begin_outside).then(nested).then(come_last).commit()


susp_27 = _around("susp-27", _nested("nested-workflow-a", wait_and_add, add_inputs))
susp_28 = _around("susp-28", _nested("nested-workflow-a", wait_by_nested_label, add_inputs))
susp_42 = _around("susp-42", _nested("nested-workflow-a", wait_and_forget, add_results))

_nested_a = _nested("nested-workflow-a", wait_and_forget, add_results)
_nested_b = Workflow("nested-workflow-b", validate_inputs=False).then(pass_through).then(_nested_a).commit()
_nested_c = Workflow("nested-workflow-c", validate_inputs=False).then(pass_through).then(_nested_b).commit()
susp_44 = _around("susp-44", _nested_c)

# ------------------------------------------------------------------------------------------------------------ SUSP-31


@step(id="getUserInput")
def get_user_input(data: Data) -> Data:
    """Hand the input on."""
    return {"user_input": data["input"]}


@step(id="promptAgent")
def prompt_agent(ctx: Context) -> None:
    """Put a message into the request context, suspend, and put another one there when resumed."""
    note(ctx, "promptAgent")
    messages = ctx.request_context.setdefault("messages", [])
    if not ctx.resumed:
        messages.append("first message")
        ctx.suspend({"test_payload": "hello"})
    messages.append("promptAgentAction")


@step(id="requestContextAction")
def read_messages(ctx: Context) -> list[str]:
    """Return the messages of the request context."""
    return list(ctx.request_context["messages"])


susp_31 = (
    Workflow("susp-31", validate_inputs=False).then(get_user_input).then(prompt_agent).then(read_messages).commit()
)

# ------------------------------------------------------------------------------------------------------------ SUSP-35


@step(id="simple-suspend")
def wait_and_multiply(data: Data, ctx: Context) -> Data:
    """Suspend, and multiply by what the run is resumed with."""
    if not ctx.resumed:
        ctx.suspend({"waiting": True})
    return {"result": data["value"] * ctx.resume_data["multiplier"]}


susp_35 = Workflow("susp-35").then(wait_and_multiply).commit()

# ------------------------------------------------------------------------------------------ SUSP-36, SUSP-38 to SUSP-40


class ValueOrDefault(BaseModel):
    """A number that need not be given."""

    value: int = 21


class Value(BaseModel):
    """A number that has to be given."""

    value: int


@step(id="increment")
def increment(data: Data) -> Data:
    """Add one."""
    return {"value": data["value"] + 1}


@step(id="resume", resume=ValueOrDefault)
def wait_for_default(data: Data, ctx: Context[ValueOrDefault]) -> Data:
    """Suspend, and add what the run is resumed with, or the default."""
    if not ctx.resumed:
        ctx.suspend()
    return {"value": data["value"] + ctx.resume_data.value}


@step(id="resume", resume=Value)
def wait_for_value(data: Data, ctx: Context[Value]) -> Data:
    """Suspend, and add what the run is resumed with."""
    if not ctx.resumed:
        ctx.suspend()
    return {"value": data["value"] + ctx.resume_data.value}


susp_36 = Workflow("susp-36").then(increment).then(wait_for_default).commit()
susp_38 = Workflow("susp-38").then(increment).commit()
susp_39 = Workflow("susp-39").then(increment).then(wait_for_value).commit()
susp_40 = Workflow("susp-40").then(increment).then(wait_for_value).commit()

# ------------------------------------------------------------------------------------------------------------ SUSP-37


@step(id="step1")
def process(data: Data) -> Data:
    """Say that the input was processed."""
    return {"result": f"processed-{data['input']}"}


@step(id="step2")
def transform(data: Data) -> Data:
    """Say that the input was transformed."""
    return {"result": f"transformed-{data['input']}"}


@step(id="step3")
def combine(data: Data) -> Data:
    """Combine both results of the first group."""
    return {"result": f"combined-{data['step1']['result']}-{data['step2']['result']}"}


@step(id="step4")
def finish_both(data: Data) -> Data:
    """Finish with both results of the first group."""
    return {"result": f"final-{data['step1']['result']}-{data['step2']['result']}"}


susp_37 = Workflow("susp-37").parallel(process, transform).parallel(combine, finish_both).commit()

# ------------------------------------------------------------------------------------------------------------ SUSP-43


@step(id="setup-step")
def set_up(ctx: Context) -> Data:
    """Put something into the request context."""
    ctx.request_context["test-key"] = "test-context-value"
    return {"set_up": True}


@step(id="suspend-step")
def wait_with_context(ctx: Context) -> Data:
    """Suspend, having looked into the request context."""
    if ctx.request_context.get("test-key") != "test-context-value":
        raise RuntimeError("the request context is not there")
    if not ctx.resumed:
        ctx.suspend({"reason": "waiting"})
    return {"resumed": True}


@step(id="verify-step")
def verify(data: Data, ctx: Context) -> Data:
    """Look at everything that has to be there after the resume."""
    note(ctx, "input", data)
    note(ctx, "init_data", ctx.init_data)
    return {
        "success": ctx.orchestrator is not None and ctx.request_context is not None,
        "has_test_data": ctx.request_context.get("test-key") == "test-context-value",
    }


_nested_43 = Workflow("nested-verify").then(verify).commit()
susp_43 = Workflow("susp-43").then(set_up).then(wait_with_context).then(_nested_43).commit()

# ------------------------------------------------------------------------------------------------------------ SUSP-47


@step(id="suspend-with-data")
def wait_with_data(data: Data, ctx: Context) -> Data:
    """Suspend with a reason, and read it again when resumed."""
    if not ctx.resumed:
        ctx.suspend({"reason": "User confirmation required", "original_value": data["value"]})
    reason, value = ctx.suspend_data["reason"], ctx.suspend_data["original_value"]
    note(ctx, "suspend_data", ctx.suspend_data)
    return {"suspend_reason": reason, "result": f"Processed {value} after {reason}"}


susp_47 = Workflow("susp-47").then(wait_with_data).commit()
