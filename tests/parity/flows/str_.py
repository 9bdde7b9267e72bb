"""Workflows of the catalogue's STR and STRX entries: what a stream shows of steps, of suspensions and of agents."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from pydantic import BaseModel

from orchestrator import Context, TripWire, Workflow, step
from tests.parity.calls import note

Data = dict[str, Any]

# ------------------------------------------------------------------------------------------------------------- STR-01


class Text(BaseModel):
    """The input that the second step declares, and does not get."""

    text: str


@step(id="step1")
def give_a_result() -> Data:
    """Return a number where the next step declares a text."""
    return {"value": 1}


@step(id="step2", input=Text)
def take_whatever_comes(data: Any) -> Data:
    """Take the input as it is."""
    return {"result": "success2"}


str_01 = Workflow("str-01", validate_inputs=False).then(give_a_result).then(take_whatever_comes).commit()

# ------------------------------------------------------------------------------------------------------------- STR-02


def _noted(name: str) -> Any:
    @step(id=name)
    def noted(ctx: Context) -> Data:
        """Note the call."""
        note(ctx, name)
        return {"value": name}

    return noted


str_02 = Workflow("str-02").then(_noted("step1")).then(_noted("step2")).then(_noted("step3")).commit()
str_04 = Workflow("str-04").parallel(_noted("step1"), _noted("step2"), _noted("step3")).commit()

# ------------------------------------------------------------------------------------------------------------- STR-05


@step(id="step2")
def wait_for_approval(ctx: Context) -> Data:
    """Suspend for an approval."""
    note(ctx, "step2")
    if not ctx.resumed:
        ctx.suspend({"reason": "approval needed"})
    return {"approved": ctx.resume_data["approved"]}


str_05 = Workflow("str-05").then(_noted("step1")).then(wait_for_approval).commit()
str_09 = Workflow("str-09").then(_noted("step1")).then(wait_for_approval).then(_noted("step3")).commit()

# ---------------------------------------------------------------------------------------------------- STR-06 to STR-08


@step(id="step1")
def double(data: Data) -> Data:
    """Double the value."""
    return {"doubled": data["value"] * 2}


@step(id="step2")
def add_one(data: Data) -> Data:
    """Add one."""
    return {"result": data["doubled"] + 1}


str_07 = Workflow("str-07").then(double).then(add_one).commit()

# ------------------------------------------------------------------------------------------------------------- STR-10


@step(id="get-input")
def get_input(data: Data) -> Data:
    """Hand the input on."""
    return {"user_input": data["input"]}


@step(id="prompt-agent")
def prompt_agent(ctx: Context) -> Data:
    """Suspend until a resume brings what the model says."""
    note(ctx, "prompt-agent")
    if not ctx.resumed:
        ctx.suspend({"test_payload": "hello"})
    return {"model_output": ctx.resume_data["model_output"]}


@step(id="improve")
def improve(data: Data, ctx: Context) -> Data:
    """Work on what was said."""
    note(ctx, "improve")
    return {"improved": data["model_output"] + "!"}


str_10 = Workflow("str-10").then(get_input).then(prompt_agent).then(improve).commit()

# ------------------------------------------------------------------------------------------------------------- STR-11


@step(id="talker")
def talk_and_wait(ctx: Context) -> Data:
    """Say something of each kind, then suspend; say the remainder when resumed."""
    if not ctx.resumed:
        ctx.write({"said": "before"})
        ctx.write_event("custom-event", {"n": 1})
        ctx.suspend({"reason": "more?"})
    ctx.write({"said": "after"})
    return {"done": True}


str_11 = Workflow("str-11").then(talk_and_wait).commit()

# ------------------------------------------------------------------------------------------------------------- STR-12


class TooManyRequests(Exception):
    """The error of a model's client."""

    def __init__(self, message: str, status_code: int, response_headers: Data) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.response_headers = response_headers


@step(id="step1")
def be_limited() -> Data:
    """Fail as a client that was too fast."""
    raise TooManyRequests("Rate limit exceeded", 429, {"retry-after": "60"})


str_12 = Workflow("str-12").then(be_limited).commit()

# ------------------------------------------------------------------------------------------- agents: STR-13 to STR-23


@step(id="start")
def make_prompts(data: Data) -> Data:
    """Hand the first prompt on."""
    return {"prompt": data["prompt1"]}


def _agent(name: str, description: str) -> Any:
    @step(id=name, description=description)
    def agent(data: Data) -> Generator[Data, None, Data]:
        """Say the answer word by word."""
        text = {"Capital of France": "Paris is it", "Capital of UK": "London it is"}[data["prompt"]]
        for word in text.split():
            yield {"delta": word}
        return {"text": text.split()[0] if text.startswith("Paris") else "London"}

    return agent


agent_1 = _agent("test-agent-1", "Knows France")
agent_2 = _agent("test-agent-2", "Knows the UK")
str_13 = (
    Workflow("str-13")
    .then(make_prompts)
    .then(agent_1)
    .map(lambda ctx: {"prompt": ctx.init_data["prompt2"]}, id="second-prompt")
    .then(agent_2)
    .commit()
)


@step(id="guarded-agent")
def be_stopped(data: Data) -> Data:
    """Be stopped before the model is asked."""
    raise TripWire(
        "Content blocked by policy",
        retry=data["retry"],
        metadata=data.get("metadata"),
        processor_id="content-blocker",
    )


@step(id="guarded-agent")
def be_stopped_while_talking(data: Data) -> Generator[Data, None, Data]:
    """Be stopped in the middle of the answer."""
    yield {"delta": "Some"}
    yield {"delta": "thing"}
    raise TripWire("Output stream blocked", retry=True, processor_id="output-blocker")


str_20 = Workflow("str-20").then(be_stopped).then(_noted("after")).commit()
str_22 = Workflow("str-22").then(be_stopped_while_talking).then(_noted("after")).commit()


class Article(BaseModel):
    """The answer of the agent."""

    title: str
    summary: str
    tags: list[str]


@step(id="writer")
def write_article(data: Data) -> Article:
    """Answer with an object."""
    return Article(title="A", summary="B", tags=["test", "workflow"])


@step(id="reader")
def read_article(article: Article) -> Data:
    """Read the object."""
    return {"processed": isinstance(article, Article), "tag_count": len(article.tags)}


str_23 = Workflow("str-23").then(write_article).then(read_article).commit()

# --------------------------------------------------------------------------------------------------------------- STRX


@step(id="map")
def add_eleven(value: int) -> int:
    """Add eleven."""
    return value + 11


@step(id="map")
def refuse_one(value: int) -> int:
    """Fail on 22."""
    if value == 22:
        raise ValueError("22 is not allowed")
    return value + 11


strx_01 = Workflow("strx-01").foreach(add_eleven).commit()
strx_02 = Workflow("strx-02").foreach(add_eleven, concurrency=3).commit()
strx_03 = Workflow("strx-03").foreach(refuse_one).commit()

# --------------------------------------------------------------------------------------------------- what else follows


@step(id="map")
def ask_about_one(value: int, ctx: Context) -> int:
    """Suspend on 22."""
    if value == 22 and not ctx.resumed:
        ctx.suspend({"value": value})
    return value + 11


@step(id="body")
def count_up(value: int, ctx: Context) -> int:
    """Say where it stands."""
    ctx.write(ctx.iteration)
    return value + 1


strx_suspended = Workflow("strx-suspended").foreach(ask_about_one).commit()
strx_loop = Workflow("strx-loop").do_until(count_up, lambda value: value >= 3).commit()
strx_sleep = Workflow("strx-sleep").then(_noted("step1")).sleep(0.01, id="nap").then(_noted("step2")).commit()
strx_quiet = Workflow("strx-quiet", emit_step_events=False).then(talk_and_wait).commit()
