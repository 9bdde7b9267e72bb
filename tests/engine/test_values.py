"""State, request context, resource ids and bytes: the same on every store, and told where they cannot be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from celery import Celery
from celery.backends.base import DisabledBackend
from celery.result import AsyncResult
from click.testing import CliRunner
from pydantic import BaseModel

from orchestrator import Context, Orchestrator, ValueNotSerializable, Workflow, step
from orchestrator.canvas.runtime import CeleryRuntime
from orchestrator.cli import standalone
from orchestrator.cli.texts import plain
from orchestrator.host import new_run_id
from orchestrator.rules.model import RunHeader

STORES = ["memory", "sqlite", "redis", "postgresql"]
DB = 7


class Kind(Enum):
    CARD = "card"
    LEVEL = 3


class File(BaseModel):
    content: bytes


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Each kind of store, empty."""
    match request.param:
        case "redis":
            server = request.getfixturevalue("redis_server")
            server.flush(DB)
            return str(server.url(DB))
        case "postgresql":
            return str(request.getfixturevalue("postgres_server").new_schema())
        case "sqlite":
            return f"sqlite:///{tmp_path}/runs.db"
        case _:
            return "memory://"


@pytest.fixture
def orchestrator(store: str) -> Iterator[Orchestrator]:
    """The default runtime on each kind of store."""
    with Orchestrator(store=store) as orchestrator:
        yield orchestrator


@pytest.fixture
def here() -> Iterator[Orchestrator]:
    """The default runtime, in memory."""
    with Orchestrator() as orchestrator:
        yield orchestrator


def seen() -> tuple[list[Any], Workflow]:
    """A workflow whose first step notes and changes what it sees, and whose second notes what came of it."""
    notes: list[Any] = []

    @step
    def change(data: Any, context: Context) -> Any:
        notes.append((dict(context.state), dict(context.request_context)))
        named: Any = {5: 1, date(2024, 1, 1): 2, Kind.CARD: 3}
        context.set_state(named)
        context.request_context[6] = 2  # type: ignore[index]
        del context.request_context["8"]

    @step
    def look(data: Any, context: Context) -> Any:
        notes.append((dict(context.state), dict(context.request_context)))

    return notes, Workflow("keys").then(change).then(look).commit()


def test_keys_of_state_and_request_context_are_text_everywhere(orchestrator: Orchestrator) -> None:
    notes, flow = seen()
    begin: Any = {"state": {9: 9, UUID(int=1): 8}, "request_context": {8: 8, True: 1}}

    result = orchestrator.create_run(flow).start(None, **begin)

    state = {"9": 9, str(UUID(int=1)): 8}
    after = {**state, "5": 1, "2024-01-01": 2, "card": 3}
    assert result.error is None
    assert notes == [(state, {"8": 8, "true": 1}), (after, {"true": 1, "6": 2})]
    assert result.state == after
    stored = orchestrator.runs.get(result.run_id)
    assert stored is not None
    assert stored.state == after


BAD_KEYS = [None, (1, 2), b"k", object(), "\ud800", "a\udce9b"]


@pytest.mark.parametrize("where", ["state", "request_context"])
@pytest.mark.parametrize("key", BAD_KEYS, ids=ascii)
def test_a_key_that_is_no_text_fails_the_step_that_sets_it(orchestrator: Orchestrator, key: Any, where: str) -> None:
    """By name, at once, and nothing of it is kept."""

    @step
    def charge(data: Any, context: Context) -> Any:
        if where == "state":
            context.set_state({"fine": 1, key: 1})
        else:
            context.request_context[key] = 1

    result = orchestrator.create_run(Workflow("keys").then(charge).commit()).start(None)

    assert result.status == "failed"
    assert isinstance(result.error, ValueNotSerializable)
    assert f"{where} of step 'charge', field " in str(result.error)
    assert "keys must be strings" in str(result.error) or "has a lone surrogate" in str(result.error)
    assert result.state == {}


@pytest.mark.parametrize("where", ["state", "request_context"])
@pytest.mark.parametrize("values", [{None: 1}, {(1, 2): 1}, {"\ud800": 1}, {1: 1, "1": 2}], ids=ascii)
def test_a_key_that_is_no_text_is_refused_at_start(orchestrator: Orchestrator, values: Any, where: str) -> None:
    """Before anything is written: the run can be started with something else."""
    notes, flow = seen()
    run = orchestrator.create_run(flow)

    with pytest.raises(ValueNotSerializable, match=f"^{where}"):
        run.start(None, **{where: values})

    assert run.status == "pending"
    assert run.start(None, request_context={"8": 1}).status == "success"
    assert len(notes) == 2


def test_a_key_that_is_no_text_is_refused_at_resume(orchestrator: Orchestrator) -> None:
    """The step stays suspended; a key that has a text is one."""
    noted: list[Any] = []

    @step
    def ask(data: Any, context: Context) -> Any:
        if not context.resumed:
            context.suspend()
        noted.append(dict(context.request_context))

    run = orchestrator.create_run(Workflow("asking").then(ask).commit())
    run.start(None)
    with pytest.raises(ValueNotSerializable, match="^request_context, field 'None', is a key"):
        run.resume(1, request_context={None: 1})  # type: ignore[dict-item]

    assert run.resume(1, request_context={4: 1}).status == "success"  # type: ignore[dict-item]
    assert noted == [{"4": 1}]


def test_a_key_may_be_set_again_in_its_own_type(here: Orchestrator) -> None:
    """A step's value replaces the one that an earlier step stored under the same text."""
    noted: list[Any] = []

    @step
    def count(data: Any, context: Context) -> Any:
        noted.append(dict(context.request_context))
        context.request_context[6] = len(noted)  # type: ignore[index]
        return len(noted)

    flow = Workflow("again").do_until(count, lambda data: data == 3).commit()

    assert here.create_run(flow).start(None, request_context={"6": 0}).error is None
    assert noted == [{"6": 0}, {"6": 1}, {"6": 2}]


def test_two_keys_that_become_one_are_refused(here: Orchestrator) -> None:
    @step
    def twice(data: Any, context: Context) -> Any:
        context.request_context[6] = 1  # type: ignore[index]
        context.request_context["6"] = 2

    result = here.create_run(Workflow("twice").then(twice).commit()).start(None)

    assert str(result.error) == "request_context of step 'twice' has two keys that both become '6'"


def test_a_secret_key_is_one_in_whatever_type_it_is_named(tmp_path: Path) -> None:
    @step
    def use(data: Any, context: Context) -> Any:
        context.request_context[Kind.CARD] = "4242"  # type: ignore[index]

    url = f"sqlite:///{tmp_path}/runs.db"
    with Orchestrator(store=url, secret_context_keys=["card"], secret_key="the key of a test") as orchestrator:
        assert orchestrator.create_run(Workflow("secrets").then(use).commit()).start(None).error is None
    assert b"4242" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


# -- resource ids -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resource", [42, UUID(int=42), "42", 0], ids=repr)
def test_a_resource_id_is_its_text(orchestrator: Orchestrator, resource: Any) -> None:
    """As the application has it, a number or a UUID; wherever it is given."""
    noted: list[Any] = []

    @step
    def look(data: Any, context: Context) -> Any:
        noted.append(context.resource_id)

    flow = Workflow("looking").then(look).commit()
    first = orchestrator.create_run(flow, resource_id=resource)
    second = orchestrator.create_run(flow)
    other = orchestrator.create_run(flow, resource_id="another")
    first.start(None)
    second.start(None, request_context={"resource_id": resource})
    other.start(None)

    assert noted == [str(resource), str(resource), "another"]
    assert {run.run_id for run in orchestrator.runs.list(resource_id=resource).runs} == {
        first.run_id,
        second.run_id,
    }


def test_a_resource_id_that_is_no_text_is_refused(here: Orchestrator) -> None:
    _, flow = seen()
    with pytest.raises(ValueError, match="lone surrogate"):
        here.create_run(flow, resource_id="\ud800")
    run = here.create_run(flow)
    with pytest.raises(ValueError, match="lone surrogate"):
        run.start(None, request_context={"resource_id": "\ud800"})
    assert here.runs.list().runs[0].status == "pending"


# -- what everybody is shown ------------------------------------------------------------------------------------------


def odd() -> Workflow:
    """Input, output, events, state and error of a run that hold what is no text."""

    @step
    def make(data: Any, context: Context) -> Any:
        context.set_state({"file": File(content=b"\xff")})
        context.write({"chunk": b"\xff", "name": "caf\udce9"})
        context.write_event("mine", b"\xff")
        return {"file": File(content=b"\xff"), "\udce9": 1, "price": {Decimal("1.5"): "\ud800"}}

    @step
    def keep(data: Any) -> File:
        return File(content=b"\xff")

    return Workflow("odd").then(make).then(keep).commit()


def test_bytes_and_lone_surrogates_are_shown_by_every_reader(orchestrator: Orchestrator) -> None:
    flow = odd()
    result = orchestrator.create_run(flow).start(b"\xff")
    run = orchestrator.get_run(result.run_id)
    record = orchestrator.runs.get(result.run_id)
    assert result.error is None
    assert record is not None

    events = {event.type: event.payload for event in run.events()}
    assert events["workflow-start"]["input"] == "/w=="
    assert events["mine"] == "/w=="
    assert events["workflow-step-output"]["output"] == {"chunk": "/w==", "name": "caf\\udce9"}
    shown = record.to_dict()
    assert shown["steps"]["make"]["output"] == {
        "file": {"content": "/w=="},
        "\\udce9": 1,
        "price": {"1.5": "\\ud800"},
    }
    assert shown["steps"]["keep"] == result.steps["keep"].to_dict()
    assert shown["result"] == {"content": "/w=="}
    assert shown["state"] == {"file": {"content": "/w=="}}
    for value in (shown, events, plain(result.result), plain(result.state)):
        json.dumps(value, ensure_ascii=False).encode()


def test_the_command_line_shows_bytes(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    with Orchestrator(store=url) as orchestrator:
        run_id = orchestrator.create_run(odd()).start(b"\xff").run_id

    done = CliRunner().invoke(standalone.orchestrator, ["--store", url, "show", run_id, "--json"])

    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["result"] == {"content": "/w=="}


@pytest.mark.parametrize(
    "result, shown",
    [
        (b"\xff", "/w=="),
        (File(content=b"\xff"), {"content": "/w=="}),
        ({"\ud800": ["\ud800"]}, {"\\ud800": ["\\ud800"]}),
    ],
    ids=ascii,
)
def test_the_result_backend_gets_every_result(result: Any, shown: Any) -> None:
    """A write that fails would be tried again by one worker after another, in vain."""
    run_id = new_run_id()
    app = Celery("backend", broker="memory://", backend="cache+memory://", set_as_current=False)
    runtime = CeleryRuntime(app, SimpleNamespace(tick_seconds=1.0), SimpleNamespace())  # type: ignore[arg-type]
    assert not isinstance(app.backend, DisabledBackend)

    runtime._store_result(RunHeader(run_id=run_id, workflow_id="w", status="success"), lambda: result, lambda: None)

    assert AsyncResult(run_id, app=app).get(timeout=5) == shown
    app.close()


# -- events and their types -------------------------------------------------------------------------------------------


def test_an_event_type_that_is_no_text_fails_the_step(orchestrator: Orchestrator) -> None:
    @step
    def tell(data: Any, context: Context) -> Any:
        context.write_event("\ud800", 1)

    result = orchestrator.create_run(Workflow("telling").then(tell).commit()).start(None)

    assert isinstance(result.error, ValueNotSerializable)
    assert "type of an event of step 'tell'" in str(result.error)


def test_a_label_that_is_no_text_fails_the_step(orchestrator: Orchestrator) -> None:
    @step
    def ask(data: Any, context: Context) -> Any:
        context.suspend(label="\ud800")

    result = orchestrator.create_run(Workflow("labelled").then(ask).commit()).start(None)

    assert str(result.error) == "label of a suspension has a lone surrogate, which is no text"


def test_keys_are_text_after_time_travel_too(orchestrator: Orchestrator) -> None:
    notes, flow = seen()
    run = orchestrator.create_run(flow)
    run.start(None, request_context={"8": 1})
    bad: Any = {None: 1}
    with pytest.raises(ValueNotSerializable, match="^state, field 'None', is a key"):
        run.time_travel("look", state=bad)
    with pytest.raises(ValueNotSerializable, match="^request_context, field 'None', is a key"):
        run.time_travel("look", request_context=bad)

    fresh: Any = {"state": {9: 1}, "request_context": {8: 2}}
    result = run.time_travel("look", **fresh)

    assert result.error is None
    assert result.state == {"9": 1}
    assert notes[-1] == ({"9": 1}, {"6": 2, "8": 2})


# -- what a model is after a step -------------------------------------------------------------------------------------


class Prices(BaseModel):
    by_day: dict[date, Decimal] = {}
    by_price: dict[Decimal, bool] = {}
    by_flag: dict[bool, float] = {}
    by_kind: dict[Kind, int] = {}


def test_the_next_step_gets_the_keys_it_has_declared(orchestrator: Orchestrator) -> None:
    made = Prices(
        by_day={date(2024, 1, 1): Decimal("1.10")},
        by_price={Decimal("1.10"): True},
        by_flag={True: 1.5, False: 2.5},
        by_kind={Kind.CARD: 1, Kind.LEVEL: 2},
    )
    got: list[Any] = []

    @step
    def price(data: Any) -> Prices:
        return made

    @step
    def use(data: Prices) -> dict[date, Decimal]:
        got.append(data)
        return data.by_day

    result = orchestrator.create_run(Workflow("prices").then(price).then(use).commit()).start(None)

    assert result.error is None
    assert got == [made]
    assert result.result == made.by_day
