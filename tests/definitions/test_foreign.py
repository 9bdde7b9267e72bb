"""Existing Celery tasks, signatures and names as entries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, chain, group
from celery.app.task import Context as Request

from orchestrator import StepNotFound, Workflow, clone_workflow, from_step, step
from orchestrator.codec import ANY
from orchestrator.definitions.bodies import TaskBody
from orchestrator.definitions.foreign import TaskEntry, is_signature, is_task
from orchestrator.rules import graph


@pytest.fixture
def app() -> Iterator[Celery]:
    """Make an app with two tasks."""
    app = Celery("shop", broker="memory://", set_as_current=False)

    @app.task(name="shop.tasks.double", soft_time_limit=7, time_limit=9, shared=False)
    def double(value: int, plus: int = 0) -> int:
        """Twice as much.

        Or more.
        """
        return value * 2 + plus

    @app.task(name="random-tool", bind=True, shared=False)
    def random_tool(self: Any, *args: Any) -> Any:
        assert isinstance(self.request, Request)
        return args

    with app:
        yield app


def entry(given: Any, **kwargs: Any) -> TaskEntry:
    """Return the entry that a workflow makes of a task."""
    [made] = Workflow("w").then(given, **kwargs).steps.values()
    assert isinstance(made, TaskEntry)
    return made


def test_a_task_is_an_entry_under_the_last_part_of_its_name(app: Celery) -> None:
    """It keeps its own options and description."""
    made = entry(app.tasks["shop.tasks.double"])
    assert (made.id, made.name, made.component) == ("double", "shop.tasks.double", "TASK")
    assert made.description == "Twice as much."
    assert (made.args, made.kwargs, made.immutable) == ((), {}, False)
    assert made.options == {"time_limit": 9, "soft_time_limit": 7}
    assert made.arguments({"a": 1}) == (({"a": 1},), {})


def test_a_signature_keeps_its_arguments_and_options(app: Celery) -> None:
    """The data comes first, as in a chain."""
    made = entry(app.tasks["shop.tasks.double"].s(5, plus=1).set(queue="other", priority=3))
    assert made.arguments(1) == ((1, 5), {"plus": 1})
    assert made.options == {"queue": "other", "time_limit": 9, "soft_time_limit": 7, "priority": 3}


def test_an_immutable_signature_does_not_get_the_data(app: Celery) -> None:
    """Neither does it in a Celery chain."""
    assert entry(app.tasks["shop.tasks.double"].si(5)).arguments(1) == ((5,), {})


def test_a_signature_from_json_is_one_too(app: Celery) -> None:
    """It is known by its name alone."""
    plain = json.loads(json.dumps(app.tasks["shop.tasks.double"].s(5)))
    made = entry(plain)
    assert (made.id, made.args, made.task) == ("double", (5,), None)


def test_a_name_is_an_entry() -> None:
    """Nothing but the name is known of the task."""
    made = entry("proj.tasks.double-tool")
    assert (made.id, made.name, made.description, made.options) == ("double-tool", "proj.tasks.double-tool", "", {})
    assert entry("double", id="other").id == "other"


def test_a_task_compiles_to_a_step_with_its_name_in_the_route(app: Celery) -> None:
    """Nothing is declared of its output."""
    task = app.tasks["shop.tasks.double"]
    [node] = Workflow("w", retries=2).then(task).commit().compiled.flow
    assert isinstance(node, graph.Step)
    assert (node.id, node.component, node.control, node.retry.attempts) == ("double", "TASK", False, 2)
    assert node.route == graph.Route("w.double", soft_time_limit=7, time_limit=9, task="shop.tasks.double")
    assert isinstance(node.body, TaskBody)
    assert (node.body.task.name, node.body.given, node.body.made) == ("shop.tasks.double", ANY, ANY)


def test_a_canvas_is_refused_with_the_remedy(app: Celery) -> None:
    """The message says how to add its parts, which are entries."""
    task = app.tasks["shop.tasks.double"]
    for canvas, name in ((group(task.s(), task.s()), "group"), (chain(task.s(1), task.s()), "chain")):
        with pytest.raises(TypeError, match=rf"a Celery {name} is no entry: add its tasks with \.then"):
            Workflow("w").then(canvas)


def test_tasks_are_told_from_steps_and_functions(app: Celery) -> None:
    """The shape tells them apart, without an import of Celery."""
    task = app.tasks["random-tool"]
    assert is_task(task)
    assert is_signature(task.s())
    assert not is_signature({"task": 1})
    for other in (len, Workflow("w"), step(lambda: 1, id="a"), SimpleNamespace(name="x"), "x", type(task)):
        assert not is_task(other)
        assert not is_signature(other)


def test_step_of_a_task_is_the_task_as_an_entry(app: Celery) -> None:
    """`step` may give it another id or queue."""
    made: Any = step(app.tasks["random-tool"], id="tool", queue="q", description="random-tool")
    assert isinstance(made, TaskEntry)
    assert (made.id, made.name, made.options, made.description) == (
        "tool",
        "random-tool",
        {"queue": "q"},
        "random-tool",
    )


def test_a_mapping_can_speak_of_a_task(app: Celery) -> None:
    """It names the task itself, its signature or its name."""
    task = app.tasks["shop.tasks.double"]
    assert from_step([task, task.s(1), "double"]).steps == ("double", "double", "double")
    with pytest.raises(TypeError, match=r"is an entry.*from_step\(\)"):
        Workflow("w").map({"x": task})
    with pytest.raises(TypeError, match="is an entry"):
        Workflow("w").map(task.s(1))


def test_a_task_runs_here_as_in_eager_mode(app: Celery) -> None:
    """It has a request of its own, and its exception comes out as it is."""
    assert entry(app.tasks["shop.tasks.double"].s(plus=1)).invoke(4, None) == 9
    assert entry(app.tasks["random-tool"].s("b")).invoke("a", None) == ("a", "b")
    with pytest.raises(TypeError):
        entry(app.tasks["shop.tasks.double"]).invoke(None, None)


def test_a_name_is_looked_up_in_the_app_when_it_runs(app: Celery) -> None:
    """Without an app, or without the task, the message says so."""
    owner = SimpleNamespace(app=app)
    assert entry("shop.tasks.double").invoke(4, owner) == 8
    with pytest.raises(StepNotFound, match="No task 'nope' is registered in the Celery app 'shop'"):
        entry("nope").invoke(4, owner)
    with pytest.raises(StepNotFound, match="give the Orchestrator the Celery app"):
        entry("nope").invoke(4, None)


def test_a_clone_of_a_workflow_keeps_its_tasks() -> None:
    workflow = Workflow("w").then("a.b").commit()
    assert list(clone_workflow(workflow, id="v").steps) == ["b"]
