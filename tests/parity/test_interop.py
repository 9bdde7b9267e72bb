"""INTEROP: an existing Celery task is an entry like any other, by object, signature or registered name."""

from __future__ import annotations

import pytest

from tests.parity.app_tasks import TASKS
from tests.parity.calls import calls, count
from tests.parity.flows import interop
from tests.parity.harness import Harness


@pytest.mark.parity("INTEROP-01")
def test_a_task_follows_a_step_and_gets_its_output(runtime: Harness) -> None:
    """The definition shows the task's id, that it is a task, and what it is for."""
    before = count(TASKS, "random-tool")

    result = runtime.with_app().execute(interop.interop_01, {})

    assert count(result.run_id, "step1") == 1
    assert calls(TASKS, "random-tool")[before:] == [{"name": "step1"}]
    for step_id in ("step1", "random-tool"):
        assert result.steps[step_id].status == "success"
        assert result.steps[step_id].output == {"name": "step1"}
    entry = interop.interop_01.steps["random-tool"]
    assert entry.component == "TASK"
    assert entry.description == "random-tool"


@pytest.mark.parity("INTEROP-02")
def test_a_task_may_be_the_only_entry(runtime: Harness) -> None:
    """It gets the run's input."""
    result = runtime.with_app().execute(interop.interop_02, {"value": 5})

    assert result.status == "success"
    assert result.steps["double-tool"].output == {"doubled": 10}
    assert interop.interop_02.steps["double-tool"].component == "TASK"


@pytest.mark.parity("INTEROP-03")
def test_a_task_gets_what_a_function_map_made(runtime: Harness) -> None:
    """The map's value is the task's first argument."""
    result = runtime.with_app().execute(interop.interop_03, {"value": 5})

    assert result.status == "success"
    assert result.steps["double-tool"].output == {"doubled": 12}


@pytest.mark.parity("INTEROP-04")
def test_a_signature_of_a_task_is_an_entry(runtime: Harness) -> None:
    """The data goes before the signature's own arguments, as in a chain."""
    result = runtime.with_app().execute(interop.interop_04, {"value": 5})

    assert result.status == "success"
    assert result.steps["double-tool"].output == {"doubled": 10}


@pytest.mark.parity("INTEROP-05")
def test_a_task_runs_beside_a_step_that_streams(runtime: Harness) -> None:
    """Both get the same input."""
    result = runtime.with_app().execute(interop.interop_05, {"value": 4, "prompt": "hi"})

    assert result.status == "success"
    assert result.steps["double-tool"].output == {"doubled": 8}
    assert result.steps["writer"].output["text"] == "hello world"


@pytest.mark.parity("INTEROP-06")
def test_a_task_is_found_by_its_registered_name_when_it_runs(runtime: Harness) -> None:
    """The definition has no more than the name."""
    result = runtime.with_app().execute(interop.interop_06, {"value": 7})

    assert result.status == "success"
    assert result.steps["double-tool"].output == {"doubled": 14}
