"""`delay` and `apply_async`: a workflow is started by whatever it is bound to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator import FlowNotCommitted, Workflow, WorkflowNotRegistered
from tests.definitions.models import reserve


class Recorder:
    """A launcher that only remembers."""

    def __init__(self) -> None:
        self.launched: list[tuple[Any, ...]] = []

    def launch(self, workflow: Workflow, input: Any, **options: Any) -> str:
        """Remember the call, and return a run."""
        said = {name: value for name, value in options.items() if value is not None}
        self.launched.append((workflow, input, said))
        return "run"


def test_delay_asks_the_launcher() -> None:
    """It passes the input on, or None without one."""
    workflow, recorder = Workflow("w").then(reserve).commit(), Recorder()
    workflow.bind(recorder)
    assert workflow.delay({"sku": "a"}) == "run"
    workflow.delay()
    assert recorder.launched == [(workflow, {"sku": "a"}, {}), (workflow, None, {})]


def test_apply_async_takes_the_options_of_a_start() -> None:
    """The input stands in a tuple, as a task's arguments do."""
    workflow, recorder = Workflow("w").then(reserve).commit(), Recorder()
    workflow.bind(recorder)
    eta = datetime(2030, 1, 1, tzinfo=UTC)
    options: dict[str, Any] = {"run_id": "r", "resource_id": "u", "request_context": {"a": 1}, "state": {"b": 2}}
    workflow.apply_async(({"sku": "a"},), eta=eta, **options)
    workflow.apply_async(countdown=timedelta(minutes=1))
    assert recorder.launched == [
        (workflow, {"sku": "a"}, {"eta": eta, **options}),
        (workflow, None, {"countdown": 60.0}),
    ]


def test_the_latest_launcher_counts() -> None:
    """A workflow may be registered several times."""
    workflow, first, second = Workflow("w").then(reserve).commit(), Recorder(), Recorder()
    workflow.bind(first)
    workflow.bind(second)
    workflow.delay(1)
    assert (len(first.launched), len(second.launched)) == (0, 1)


def test_an_unbound_workflow_names_the_remedy() -> None:
    """The message says to register it."""
    with pytest.raises(WorkflowNotRegistered, match=r"'w' is bound to no runtime: register it with Orchestrator"):
        Workflow("w").then(reserve).commit().delay(1)


def test_an_uncommitted_workflow_cannot_be_started() -> None:
    """It makes no difference if it is bound."""
    with pytest.raises(FlowNotCommitted):
        Workflow("w").then(reserve).delay(1)


def test_delay_takes_one_input_too() -> None:
    """It takes no keywords, as a task does: the message shows how to give them, without what they hold."""
    workflow: Any = Workflow("w").then(reserve).commit()
    with pytest.raises(TypeError, match=r"delay\(\{'sku': \.\.\., 'qty': \.\.\.\}\)"):
        workflow.delay(sku="secret", qty=1)
    with pytest.raises(TypeError, match="takes one input"):
        workflow.delay(1, 2)


@pytest.mark.parametrize(
    "option, hint",
    [("queue", "an option of step"), ("task_id", "run_id"), ("kwargs", "may be a dict"), ("nonsense", "")],
)
def test_an_option_that_a_workflow_does_not_have_is_refused(option: str, hint: str) -> None:
    """The message lists the options there are, and where a Celery user finds the other one."""
    workflow: Any = Workflow("w").then(reserve).commit()
    known = "choose from countdown, eta, request_context, resource_id, run_id, state"
    with pytest.raises(TypeError, match=f"no option '{option}'.*{hint}.*: {known}"):
        workflow.apply_async(({"sku": "a"},), **{option: "x"})


@pytest.mark.parametrize("args", [(1, 2), "text", {"sku": "a"}])
def test_a_workflow_takes_one_input(args: Any) -> None:
    """The message shows how to give it."""
    workflow = Workflow("w").then(reserve).commit()
    with pytest.raises(TypeError, match=r"apply_async\(\(input,\)\)"):
        workflow.apply_async(args)
