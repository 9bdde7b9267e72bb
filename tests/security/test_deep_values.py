"""Values that are nested deeply or contain themselves: an error names them, and never a limit of Python's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import BaseModel

from orchestrator import Context, InputInvalid, Orchestrator, ValueNotSerializable, Workflow, step
from orchestrator.cli import exits
from orchestrator.cli.standalone import orchestrator as command
from orchestrator.engine.read.value_reader import Values
from orchestrator.errors import ValueNotReadable
from orchestrator.rules.values import refers_dict, refers_list


class Model(BaseModel):
    inside: Any = None


class Order(BaseModel):
    lines: list[Any]


@dataclass
class Plain:
    inside: Any = None


def deep_list() -> Any:
    value: Any = 0
    for _ in range(100_000):
        value = [value]
    return value


def deep_dict() -> Any:
    value: Any = 0
    for _ in range(100_000):
        value = {"inside": value}
    return value


def deep_models() -> Any:
    value: Any = None
    for _ in range(3_000):
        value = Model.model_construct(inside=value)
    return value


def list_in_itself() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


def model_in_itself() -> Any:
    value = Model()
    value.inside = value
    return value


def dataclass_in_itself() -> Any:
    value = Plain()
    value.inside = [value]
    return value


VALUES: list[Callable[[], Any]] = [
    deep_list, deep_dict, deep_models, list_in_itself, model_in_itself, dataclass_in_itself,
]  # fmt: skip
current: list[Any] = [None]


@step
def give(data: Any) -> Any:
    return current[0]


@step
def write(data: Any, ctx: Context[Any]) -> None:
    ctx.set_state({"it": current[0]})


@step
def pass_on(data: Any, ctx: Context[Any]) -> None:
    ctx.request_context["it"] = current[0]


@step
def ask(data: Any, ctx: Context[Any]) -> Any:
    return ctx.resume_data if ctx.resumed else ctx.suspend(data)


@step
def ask_with_it(data: Any, ctx: Context[Any]) -> Any:
    ctx.suspend(current[0])


STEPS = [Workflow(f"flow-{each.id}").then(each).commit() for each in (give, write, pass_on, ask_with_it)]
asking = Workflow("asking").then(ask).commit()
typed = Workflow("typed", input=Order).then(ask).commit()
waiting = Workflow("waiting").wait_for_event("go").commit()


@pytest.fixture(scope="module")
def orchestrator() -> Iterator[Orchestrator]:
    """The default runtime."""
    with Orchestrator(workflows=[*STEPS, asking, typed, waiting]) as made:
        yield made


@pytest.fixture(params=VALUES, ids=lambda make: make.__name__)
def value(request: pytest.FixtureRequest) -> Iterator[Any]:
    """One of the values, which is also what the steps use."""
    current[0] = request.param()
    yield current[0]
    # Collected piece by piece: some of them nest more deeply than a destructor should go.
    current[0] = None


@pytest.mark.parametrize("flow", STEPS, ids=lambda flow: flow.id)
def test_a_step_that_makes_one_fails_with_its_name(orchestrator: Orchestrator, value: Any, flow: Workflow) -> None:
    """The run has failed, and can be read."""
    result = orchestrator.create_run(flow).start(1, timeout=20)
    assert result.status == "failed"
    assert isinstance(result.error, ValueNotSerializable)


def test_a_caller_that_gives_one_is_refused(orchestrator: Orchestrator, value: Any) -> None:
    """By each request that takes a value; nothing is written."""
    run = orchestrator.create_run(asking)
    assert run.start(1, timeout=20).status == "suspended"
    heard = orchestrator.create_run(waiting)
    heard.submit()
    fresh = orchestrator.create_run
    requests: list[Callable[[], Any]] = [
        lambda: fresh(asking).start(value),
        lambda: fresh(typed).start(value),
        lambda: fresh(asking).start(1, state={"it": value}),
        lambda: fresh(asking).start(1, request_context={"it": value}),
        lambda: run.resume(value),
        lambda: heard.send_event("go", value),
        lambda: run.time_travel(ask, input=value),
        lambda: run.time_travel(ask, context={"ask": {"status": "success", "output": value}}),
    ]
    for number, request in enumerate(requests):
        with pytest.raises((ValueNotSerializable, InputInvalid, ValueError, TypeError)) as caught:
            request()
        assert not isinstance(caught.value, RecursionError), number
    assert run.status == "suspended"


def test_what_is_given_where_something_else_belongs_is_shown_in_part(orchestrator: Orchestrator, value: Any) -> None:
    """Where its type does not forbid it anyway."""
    run = orchestrator.create_run(asking)
    run.start(1, timeout=20)
    with pytest.raises(TypeError, match="the result of step 'ask' in `context`") as caught:
        run.time_travel(ask, context={"ask": (value,)})
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize("make", [deep_list, deep_dict])
def test_a_resource_id_is_a_text(orchestrator: Orchestrator, make: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match="the resource id is a (list|dict)"):
        orchestrator.create_run(asking, resource_id=make())


@pytest.mark.parametrize("refer", [lambda key: refers_dict({"a": key, "b": key}), lambda key: refers_list([key])])
def test_stored_values_that_refer_to_each_other_in_a_circle(refer: Callable[[str], str]) -> None:
    """Whoever may write the store makes a reader say so."""
    stored = {"one": refer("two"), "two": refer("one")}
    values = Values(lambda run_id, ids: {key: stored[key] for key in ids}, "run")
    with pytest.raises(ValueNotReadable, match="'one' of run 'run' refers to itself"):
        values.plain("one")


def test_a_command_is_given_one() -> None:
    """One line, and no traceback."""
    done = CliRunner().invoke(command, ["--store", "memory://", "start", "x", "[" * 100_000])
    assert done.exit_code == exits.USAGE
    assert "the argument is nested too deeply" in done.output
