"""Workflows of the catalogue's AGT entries: steps that do what an agent would, alone and nested."""

from __future__ import annotations

from typing import Any

from orchestrator import Context, Workflow, clone_step, constant, from_input, from_step, step

Data = dict[str, Any]


@step(id="agent-like-step")
def answer(data: Data) -> Data:
    """Say that the prompt was processed."""
    return {"text": f"Processed: {data['prompt']}"}


agt_01 = Workflow("agt-01").then(answer).commit()


@step(id="prepare")
def prepare(data: Data) -> Data:
    """Make a prompt of the question."""
    return {"prompt": f"Question: {data['question']}"}


@step(id="post-process")
def post_process(data: Data) -> Data:
    """Return the text in capitals."""
    return {"text": data["text"].upper()}


@step(id="agent-like-step")
def fail_to_answer() -> Data:
    """Fail as an agent does."""
    raise RuntimeError("Agent generation failed")


agt_02 = Workflow("agt-02").then(prepare).then(answer).then(post_process).commit()
agt_03 = Workflow("agt-03").then(prepare).then(fail_to_answer).then(post_process).commit()


@step(id="start")
def start(data: Data) -> Data:
    """Hand the prompts on."""
    return {"prompt_a": data["prompt_a"], "prompt_b": data["prompt_b"]}


@step(id="agent-a")
def agent_a(data: Data) -> Data:
    """Answer the first prompt."""
    return {"text": f"A: {data['prompt_a']}"}


@step(id="agent-b")
def agent_b(data: Data) -> Data:
    """Answer the second prompt."""
    return {"text": f"B: {data['prompt_b']}"}


@step(id="final")
def combine(data: Data) -> Data:
    """Combine what both nested workflows said."""
    return {"text": f"{data['nested-a']['text']} | {data['nested-b']['text']}"}


_nested_a = Workflow("nested-a").then(agent_a).commit()
_nested_b = Workflow("nested-b").then(agent_b).commit()
agt_04 = (
    Workflow("agt-04")
    .then(start)
    .map({"prompt_a": from_step(start, "prompt_a"), "prompt_b": from_step(start, "prompt_b")})
    .parallel(_nested_a, _nested_b)
    .then(combine)
    .commit()
)


@step(id="post")
def pass_text_on(data: Data) -> Data:
    """Hand the text on."""
    return {"text": data["text"]}


_nested_05 = Workflow("nested-agent").then(answer).commit()
agt_05 = Workflow("agt-05").then(prepare).then(_nested_05).then(pass_text_on).commit()


@step(id="agent-like-step")
def echo_options(data: Data) -> Data:
    """Return the options that the step was given."""
    return {"text": data["prompt"], "options": {key: value for key, value in data.items() if key != "prompt"}}


agt_07 = Workflow("agt-07").then(echo_options).commit()

ANSWERS = {"Capital of France, just the name": "Paris", "Capital of UK, just the name": "London"}


@step(id="agent-step-1")
def know_capitals(data: Data) -> Data:
    """Answer from what is known."""
    return {"text": ANSWERS[data["prompt"]], "style": data["style"]}


_know_capitals_too = clone_step(know_capitals, id="agent-step-2")


@step(id="join-step")
def join_texts(ctx: Context) -> Data:
    """Join what both said."""
    return {"text": f"{ctx.result('agent-step-1')['text']} {ctx.result('agent-step-2')['text']}"}


agt_09 = Workflow("agt-09")
_nested_09 = (
    Workflow("nested-workflow")
    .then(clone_step(start, id="start-clone"))
    .map({"prompt": from_input("prompt_a", workflow=agt_09), "style": constant("short")})
    .then(know_capitals)
    .map({"prompt": from_input("prompt_b", workflow=agt_09), "style": constant("short")})
    .then(_know_capitals_too)
    .then(join_texts)
    .commit()
)
agt_09.then(_nested_09).commit()
