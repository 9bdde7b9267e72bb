"""Resuming: the step that is meant, with which data, in which graph; and runs that go on step by step."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from pydantic import BaseModel

from orchestrator import (
    Context,
    GraphChanged,
    InputInvalid,
    Orchestrator,
    ResumeAmbiguous,
    Run,
    RunNotSuspended,
    RunResult,
    Step,
    StepNotSuspended,
    Workflow,
    step,
)
from orchestrator.stores import MemoryStore
from tests.cli.test_standalone import calling, data

Body = Callable[[Any, Context], Any]


@pytest.fixture
def orchestrator() -> Iterator[Orchestrator]:
    with Orchestrator() as found:
        yield found


@pytest.fixture
def app() -> Iterator[Celery]:
    """An app whose messages no worker takes."""
    app = Celery("resuming", broker="memory://", backend="cache+memory://", set_as_current=False)
    yield app
    app.close()


def a_step(id: str, body: Body = lambda given, ctx: given) -> Step[Any, Any, Any]:
    def call(given: Any, ctx: Context) -> Any:
        return body(given, ctx)

    return step(call, id=id)


def suspends(id: str, label: str | None = None) -> Step[Any, Any, Any]:
    """A step that answers with what it is resumed with."""
    return a_step(id, lambda given, ctx: ctx.resume_data if ctx.resumed else ctx.suspend({"asks": id}, label=label))


def started(orchestrator: Orchestrator, flow: Workflow, given: Any = 0, **options: Any) -> Run:
    run = orchestrator.create_run(flow.commit())
    run.start(given, **options)
    return run


def as_stored(orchestrator: Orchestrator, run: Run) -> tuple[Any, ...]:
    """All that a refusal must leave as it was."""
    return run.header(), tuple(orchestrator.store.load(run.root_id)), orchestrator.store.context(run.root_id)


def success(result: RunResult) -> dict[str, Any]:
    assert result.status == "success", result.error
    return {name: each.output for name, each in result.steps.items()}


# --- the data ---------------------------------------------------------------------------------------------------------


class Answer(BaseModel):
    value: int


class Choice(BaseModel):
    value: int = 21


def typed(resume: Any) -> Workflow:
    def ask(given: int, ctx: Context[Any]) -> Any:
        return [ctx.resume_data] if ctx.resumed else ctx.suspend()

    return Workflow("typed", input=int).then(step(ask, resume=resume))


def test_no_data_is_refused_where_the_step_wants_some(orchestrator: Orchestrator) -> None:
    """With what is missing; the run stays as it was, and takes data that fits."""
    run = started(orchestrator, typed(Answer))
    before = as_stored(orchestrator, run)

    with pytest.raises(InputInvalid) as refused:
        run.resume()

    assert [(issue.path, issue.kind) for issue in refused.value.issues] == [("value", "missing")]
    assert as_stored(orchestrator, run) == before
    assert success(run.resume({"value": 1})) == {"ask": [{"value": 1}]}


@pytest.mark.parametrize(
    "resume, got",
    [(Choice, {"value": 21}), (Choice | None, None), (int | None, None), (dict[str, int], {}), (None, None)],
)
def test_no_data_is_what_the_type_makes_of_it(orchestrator: Orchestrator, resume: Any, got: Any) -> None:
    """None where that fits, else the defaults; None where nothing is declared."""
    assert success(started(orchestrator, typed(resume)).resume()) == {"ask": [got]}


def test_none_is_data(orchestrator: Orchestrator) -> None:
    """It gets no defaults: given and absent differ."""
    run = started(orchestrator, typed(Choice))
    with pytest.raises(InputInvalid):
        run.resume(None)
    assert run.status == "suspended"


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"step": 5}, "`step`"),
        ({"step": {"ask": 1}}, "`step`"),
        ({"step": ["ask", 5]}, "`step`"),
        ({"step": b"ask"}, "`step`"),
        ({"label": 5}, "`label`"),
        ({"index": "0"}, "`index`"),
        ({"index": True}, "`index`"),
        ({"request_context": [1]}, "`request_context` is a mapping, not list"),
    ],
)
def test_what_names_nothing_is_refused_at_once(orchestrator: Orchestrator, wrong: dict[str, Any], said: str) -> None:
    """By a TypeError that says which argument it is, before anything is written."""
    run = started(orchestrator, Workflow("asking").then(suspends("ask")))
    before = as_stored(orchestrator, run)

    with pytest.raises(TypeError, match=said):
        run.resume(1, **wrong)

    assert as_stored(orchestrator, run) == before


# --- items ------------------------------------------------------------------------------------------------------------


def in_items_of_items() -> Workflow:
    inner = Workflow("inner").foreach(suspends("it", label="same"), concurrency=5).commit()
    return Workflow("outer").foreach(inner, concurrency=5)


def test_an_index_means_one_item_or_is_refused(orchestrator: Orchestrator) -> None:
    """If two lists have such an item, the error names the candidates and the nested runs in which each is alone."""
    run = started(orchestrator, in_items_of_items(), [[1, 2], [3, 4]])
    before = as_stored(orchestrator, run)

    with pytest.raises(
        ResumeAmbiguous, match="multiple items .* have item 0: resume in the nested workflow itself"
    ) as refused:
        run.resume("I", index=0)

    assert refused.value.candidates == ("inner[0].it[0]", "inner[1].it[0]")
    assert f"{run.run_id}/0.0 or {run.run_id}/0.1" in str(refused.value)
    assert as_stored(orchestrator, run) == before
    orchestrator.get_run(f"{run.run_id}/0.1").resume("I", index=0)
    left = [activation.path for activation in orchestrator.store.load_awaiting(run.run_id)]
    assert left == ["0.0.0.0", "0.0.0.1", "0.1.0.1"]


def test_without_an_index_all_items_are_meant(orchestrator: Orchestrator) -> None:
    """Those of the inner lists too."""
    run = started(orchestrator, in_items_of_items(), [[1, 2], [3, 4]])
    assert run.resume("all").result == [["all", "all"], ["all", "all"]]


def test_a_label_that_two_items_have_is_refused(orchestrator: Orchestrator) -> None:
    """Told apart by their index where that tells them apart."""
    run = started(orchestrator, Workflow("outer").foreach(suspends("it", label="same"), concurrency=2), [1, 2])

    with pytest.raises(ResumeAmbiguous, match="pass `index`") as refused:
        run.resume("x", label="same")

    assert refused.value.candidates == ("it[0]", "it[1]")
    assert run.resume("x", label="same", index=1).status == "suspended"


def test_ids_inside_a_nested_run_are_its_own(orchestrator: Orchestrator) -> None:
    """The caller can pass what a refusal names as it is."""
    inner = Workflow("inner").parallel(suspends("a"), suspends("b")).commit()
    run = started(orchestrator, Workflow("outer").then(inner))
    nested = orchestrator.get_run(f"{run.run_id}/0")

    with pytest.raises(ResumeAmbiguous) as refused:
        nested.resume(1)
    assert refused.value.candidates == ("a", "b")
    with pytest.raises(StepNotSuspended, match="a, b is"):
        nested.resume(1, step="inner.a")
    nested.resume(1, step="a")
    assert success(run.resume(2, step="inner.b")) == {"inner": {"a": 1, "b": 2}}


# --- another graph ----------------------------------------------------------------------------------------------------


def older() -> Workflow:
    """Two arms wait, the second in a nested workflow; the third waits for a number."""
    inner = Workflow("order").then(suspends("approve", label="A-1")).commit()
    return Workflow("changing").then(a_step("first")).parallel(suspends("check", label="C-1"), inner).commit()


def newer() -> Workflow:
    """Return a workflow whose second entry is gone and whose first is another one that takes numbers."""
    ask = step(lambda given, ctx: ctx.resume_data if ctx.resumed else ctx.suspend(), id="first", resume=Answer)
    return Workflow("changing").then(ask).commit()


@pytest.mark.parametrize("how", [{"label": "A-1"}, {"step": "order.approve"}, {"step": "order"}])
def test_a_run_of_another_graph_is_resumed_by_what_is_stored(app: Celery, how: dict[str, Any]) -> None:
    """By label or by the ids of its own graph; the data is not checked against the new one. It goes on where the old
    graph is."""
    store = MemoryStore()
    with (
        Orchestrator(store=store, workflows=[older()]) as old,
        Orchestrator(app, store=store, workflows=[newer()]) as new,
    ):
        run = old.create_run("changing")
        run.start("given")

        new.get_run(run.run_id).submit_resume("yes", **how)

        assert run.status == "running"
        assert [activation.path for activation in store.load_awaiting(run.run_id)] == ["1.0"]
        assert run.restart().status == "suspended"
        assert success(run.resume("checked", step="check"))["order"] == "yes"


@pytest.mark.parametrize("name", ["first", "approve", "renamed"])
def test_ids_that_the_other_graph_did_not_have_are_refused(app: Celery, name: str) -> None:
    """By an error that names what waits, and the run stays as it was."""
    store = MemoryStore()
    with (
        Orchestrator(store=store, workflows=[older()]) as old,
        Orchestrator(app, store=store, workflows=[newer()]) as new,
    ):
        run = old.create_run("changing")
        run.start("given")
        before = as_stored(old, run)

        with pytest.raises(GraphChanged, match=r"check, order\.approve"):
            new.get_run(run.run_id).submit_resume({"value": 1}, step=name)
        with pytest.raises(ResumeAmbiguous):  # nothing was said of the graph
            new.get_run(run.run_id).submit_resume({"value": 1})

        assert as_stored(old, run) == before


def test_the_default_runtime_refuses_a_run_of_another_graph() -> None:
    """No other process would go on with it: a resume that waits would wait for ever. Nothing is written."""
    store = MemoryStore()
    with Orchestrator(store=store, workflows=[older()]) as old:
        run = old.create_run("changing")
        run.start("given")
    before = as_stored(old, run)
    with Orchestrator(store=store, workflows=[newer()]) as new:
        with pytest.raises(GraphChanged, match="run the code it was started with"):
            new.get_run(run.run_id).resume("yes", label="A-1")
        with pytest.raises(GraphChanged):
            new.get_run(run.run_id).submit_resume("yes", label="A-1")
        assert as_stored(new, run) == before
    with Orchestrator(store=store, workflows=[older()]) as again:
        assert again.get_run(run.run_id).resume("yes", label="A-1").status == "suspended"


# --- step by step -----------------------------------------------------------------------------------------------------


def stepwise() -> Workflow:
    return Workflow("stepwise").parallel(a_step("A"), a_step("B"), a_step("C")).then(a_step("z"))


STEPWISE = stepwise().commit()


def test_a_paused_run_goes_on_to_its_end(orchestrator: Orchestrator) -> None:
    """With all that was held back, and what follows."""
    run = started(orchestrator, stepwise(), 0, per_step=True)
    assert set(run.result().steps) == {"A"}

    assert set(success(run.resume())) == {"A", "B", "C", "z"}


def test_a_paused_run_goes_on_by_one_step(orchestrator: Orchestrator) -> None:
    """Arm by arm, and then on."""
    run = started(orchestrator, stepwise(), 0, per_step=True)

    seen = [set(run.resume(per_step=True).steps) for _ in range(3)]

    assert seen == [{"A", "B"}, {"A", "B", "C"}, {"A", "B", "C", "z"}]
    assert run.status == "success"


def test_the_command_goes_on_by_one_step(tmp_path: Path) -> None:
    """`resume --per-step` pauses again, `resume` goes on to the end."""
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    with Orchestrator(store=url, workflows=[stepwise().commit()]) as orchestrator:
        orchestrator.create_run("stepwise", run_id="one").start(0, per_step=True)
    call = calling("--store", url, "--workflows", "tests.engine.test_resuming:STEPWISE")

    assert json.loads(call("resume", "one", "--per-step", "--json").stdout)["status"] == "paused"
    assert data(call("resume", "one", "--json"))["status"] == "success"


def test_a_paused_arm_goes_on_though_another_waits_for_its_event(orchestrator: Orchestrator) -> None:
    """Nothing is suspended that data could be meant for."""
    wait = Workflow("listening").wait_for_event("paid").commit()
    run = started(orchestrator, Workflow("outer").parallel(wait, a_step("B")), 0, per_step=True)
    assert run.status == "suspended"

    assert run.resume().steps["B"].status == "success"
    with pytest.raises(RunNotSuspended):
        run.resume()


def test_what_is_suspended_is_resumed_before_what_is_paused(orchestrator: Orchestrator) -> None:
    """Data is for the suspended step; the paused one waits for its own resume."""
    run = started(orchestrator, Workflow("outer").parallel(suspends("A"), a_step("B")), 0, per_step=True)
    assert run.status == "suspended"

    paused = run.resume("yes")

    assert (paused.status, set(paused.steps)) == ("paused", {"A"})
    assert success(run.resume()) == {"A": "yes", "B": 0}


def test_items_that_are_workflows_go_on_together_or_one_by_one(orchestrator: Orchestrator) -> None:
    """A resume without `per_step` lets all of them go on."""
    inner = Workflow("inner").then(a_step("a")).then(a_step("b")).commit()
    flow = Workflow("outer").foreach(inner, concurrency=3).commit()
    run = started(orchestrator, flow, [1, 2, 3], per_step=True)
    assert run.resume().result == [1, 2, 3]

    run = started(orchestrator, flow, [1, 2, 3], per_step=True)
    assert [str(run.resume(per_step=True).status) for _ in range(3)] == ["paused", "paused", "success"]
