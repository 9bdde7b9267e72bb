"""R-CCF, R-CCS, R-CCN: a cancel reaches whatever is unfinished, wherever it runs, and nothing that has ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator import RunRecord, Workflow
from tests.parity.calls import calls, count
from tests.parity.flows import robust_cancel
from tests.parity.harness import Harness


def eventually(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not so within {seconds} s"
        time.sleep(0.02)


def cancel(runtime: Harness, run_id: str) -> Any:
    """Cancel a run from a fresh host, by its id."""
    with runtime.open() as orchestrator:
        return orchestrator.get_run(run_id).cancel()


def stored(runtime: Harness, run_id: str) -> RunRecord:
    """Look a run up with all its steps."""
    record = runtime.runs.get(run_id)
    assert record is not None
    return record


def statuses(runtime: Harness, run_id: str) -> dict[str, str]:
    """Return the stored status of every step, nested ones included."""
    return {step_id: str(step.status) for step_id, step in (stored(runtime, run_id).steps or {}).items()}


@pytest.mark.parametrize("outcome", ["success", "failed"])
@pytest.mark.parity("R-CCF-01")
def test_a_cancel_after_the_end_changes_nothing(runtime: Harness, outcome: str) -> None:
    """The run keeps the status that it has ended with."""
    run_id = runtime.start(robust_cancel.finished, {"outcome": outcome}).run_id
    before = stored(runtime, run_id).to_dict()

    report = cancel(runtime, run_id)

    assert (report.status, report.failed) == (outcome, [])
    assert stored(runtime, run_id).to_dict() == before


def assert_cancel_ends_the_sleep(runtime: Harness, workflow: Workflow) -> None:
    """The run is canceled at once and for good, and what follows the sleep is not called."""
    with runtime.open() as orchestrator:
        run = orchestrator.create_run(workflow).submit({})
        eventually(lambda: "nap" in statuses(runtime, run.run_id))
        assert statuses(runtime, run.run_id)["nap"] == "waiting"
        begin = time.monotonic()
        cancel(runtime, run.run_id)
        result = run.result(timeout=5)

    assert time.monotonic() - begin < 5
    assert result.status == "canceled"
    assert stored(runtime, run.run_id).status == "canceled"
    assert statuses(runtime, run.run_id)["nap"] == "canceled"
    assert (count(run.run_id, "before"), count(run.run_id, "after")) == (1, 0)


@pytest.mark.parity("R-CCS-01")
def test_a_cancel_ends_a_sleep_at_once(runtime: Harness) -> None:
    """A minute is not waited for."""
    assert_cancel_ends_the_sleep(runtime, robust_cancel.asleep)


@pytest.mark.parity("R-CCS-02")
def test_a_cancel_ends_a_sleep_until_a_moment_at_once(runtime: Harness) -> None:
    """The moment is not waited for."""
    assert_cancel_ends_the_sleep(runtime, robust_cancel.asleep_until)


@pytest.mark.parity("R-CCN-01")
@pytest.mark.parity("R-CCN-02")
def test_a_fresh_host_cancels_a_run_down_to_its_grandchildren(runtime: Harness) -> None:
    """All three levels are stored as canceled."""
    run_id = runtime.start(robust_cancel.three_levels, {}).run_id
    assert set(statuses(runtime, run_id).values()) == {"suspended"}

    report = cancel(runtime, run_id)

    assert report.status == "canceled"
    assert stored(runtime, run_id).status == "canceled"
    assert statuses(runtime, run_id) == dict.fromkeys(
        ["child", "child.grandchild", "child.grandchild.gate"], "canceled"
    )


@pytest.mark.parity("R-CCN-03")
def test_a_cancel_leaves_finished_children_and_other_runs_alone(runtime: Harness) -> None:
    """Of two nested workflows only the one that waits is canceled."""
    other = runtime.start(robust_cancel.unrelated, {}).run_id
    run_id = runtime.start(robust_cancel.two_children, {}).run_id

    cancel(runtime, run_id)

    assert statuses(runtime, run_id) == {
        "waiting": "canceled",
        "waiting.gate": "canceled",
        "done": "success",
        "done.quick": "success",
    }
    assert stored(runtime, other).status == "suspended"
    assert statuses(runtime, other)["waiting.gate"] == "suspended"


@pytest.mark.parity("R-CCN-10")
def test_a_cancel_that_goes_well_reports_no_failures(runtime: Harness) -> None:
    """Its report names nothing."""
    run_id = runtime.start(robust_cancel.three_levels, {}).run_id

    report = cancel(runtime, run_id)

    assert (report.run_id, report.status, report.failed) == (run_id, "canceled", [])


@pytest.mark.slow
@pytest.mark.parity("R-CCN-11")
def test_a_cancel_reaches_a_hundred_suspended_children(runtime: Harness) -> None:
    """Those that had finished stay finished."""
    result = runtime.start(robust_cancel.many_children, list(range(200)))
    assert result.status == "suspended"

    report = cancel(runtime, result.run_id)

    assert report.failed == []
    after = statuses(runtime, result.run_id)
    assert [after[f"item[{number}].odd-waits"] for number in range(200)] == ["success", "canceled"] * 100


@pytest.mark.parity("R-CCN-12", runtimes="celery")
def test_a_cancel_from_another_host_reaches_a_running_step(runtime: Harness) -> None:
    """The step sees its abort signal, and the caller that started the run hears of the end."""
    results: list[Any] = []
    with runtime.open() as orchestrator:
        run = orchestrator.create_run(robust_cancel.elsewhere)
        starter = threading.Thread(target=lambda: results.append(run.start({})))
        starter.start()
        eventually(lambda: count(run.run_id, "long"))
        cancel(runtime, run.run_id)
        starter.join(10)

    assert [result.status for result in results] == ["canceled"]
    eventually(lambda: count(run.run_id, "heard"))
    assert calls(run.run_id, "heard") == [True]
    assert count(run.run_id, "after") == 0
    assert stored(runtime, run.run_id).status == "canceled"
