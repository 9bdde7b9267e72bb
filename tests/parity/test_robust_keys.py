"""R-DOI, R-PAF: every activation has an idempotency key of its own; a parallel group may be allowed to fail in part."""

from __future__ import annotations

import pytest

from orchestrator import RunResult, Workflow
from tests.parity.calls import calls, count
from tests.parity.flows import robust_keys as flows
from tests.parity.harness import Harness


def keys(run_id: str, *step_ids: str) -> list[str]:
    """Return the noted keys of these steps."""
    return [key for step_id in step_ids for key in calls(run_id, step_id)]


def assert_unique(noted: list[str]) -> None:
    """Fail if a key comes twice."""
    assert len(set(noted)) == len(noted)
    assert all(noted)


def run(runtime: Harness, workflow: Workflow, input: object) -> RunResult:
    """Run a workflow to its end."""
    result = runtime.start(workflow, input)
    assert result.status == "success"
    return result


@pytest.mark.parity("R-DOI-01")
def test_keys_are_unique_before_and_after_a_suspension(runtime: Harness) -> None:
    """Only the step that is resumed has the same one again: it is the same piece of work."""
    run_id = runtime.start(flows.suspended, {}).run_id
    first = keys(run_id, "before", "gate")
    assert runtime.resume(flows.suspended, run_id, {}).status == "success"

    assert_unique(first)
    assert_unique([*calls(run_id, "gate")[1:], *keys(run_id, "after")])
    assert calls(run_id, "gate") == [first[1]] * 2
    assert_unique([*first, *keys(run_id, "after")])


@pytest.mark.parity("R-DOI-02")
def test_keys_are_unique_in_a_run(runtime: Harness) -> None:
    """Also in steps that run side by side, and in another run of the same workflow."""
    noted = [key for _ in range(2) for key in keys(run(runtime, flows.plain, {}).run_id, "one", "two", "three", "four")]

    assert len(noted) == 8
    assert_unique(noted)


@pytest.mark.parity("R-DOI-03")
def test_keys_are_unique_around_a_sleep(runtime: Harness) -> None:
    """The step after it has one of its own."""
    noted = keys(run(runtime, flows.napping, {}).run_id, "before", "after")

    assert len(noted) == 2
    assert_unique(noted)


@pytest.mark.parametrize("kind", ["until", "while"])
@pytest.mark.parity("R-DOI-04")
def test_keys_are_unique_over_the_iterations_of_a_loop(runtime: Harness, kind: str) -> None:
    """From the second iteration on they say which it is."""
    run_id = run(runtime, flows.LOOPS[kind], {"value": 0}).run_id

    assert_unique(keys(run_id, "count", "beside"))
    second, third = calls(run_id, "count")[1:]
    assert ".iter.2" in second
    assert ".iter.3" in third


@pytest.mark.parity("R-DOI-05")
def test_the_keys_of_a_first_iteration_are_plain(runtime: Harness) -> None:
    """So are those of steps that are in no loop."""
    looped = calls(run(runtime, flows.until, {"value": 0}).run_id, "count")
    single = keys(run(runtime, flows.plain, {}).run_id, "one", "two", "three", "four")

    assert [".iter." in key for key in looped] == [False, True, True]
    assert not any(".iter." in key for key in single)


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parity("R-DOI-06")
def test_every_item_of_a_foreach_has_a_key_of_its_own(runtime: Harness, width: int) -> None:
    """However many run at once."""
    noted = keys(run(runtime, flows.WINDOWS[width], [{"value": n} for n in range(6)]).run_id, "count")

    assert len(noted) == 6
    assert_unique(noted)


@pytest.mark.parity("R-DOI-07")
def test_keys_are_unique_in_a_loop_that_suspends(runtime: Harness) -> None:
    """Each iteration has one, before its suspension and after it."""
    run_id = runtime.start(flows.gated_loop, {"value": 0}).run_id
    while runtime.resume(flows.gated_loop, run_id, {}).status == "suspended":
        pass

    noted = calls(run_id, "gated-count")
    assert len(noted) == 6
    assert noted[::2] == noted[1::2]
    assert_unique(noted[::2])


@pytest.mark.parity("R-PAF-01")
def test_a_failed_arm_counts_as_none_where_failures_are_allowed(runtime: Harness) -> None:
    """Its result says that it has failed."""
    result = runtime.execute(flows.tolerant, {})

    assert result.status == "success"
    assert result.steps["bad"].status == "failed"
    assert str(result.steps["bad"].error) == "one arm fails"
    assert calls(result.run_id, "gather") == [{"good": {"value": 1}, "bad": None}]


@pytest.mark.parity("R-PAF-02")
def test_a_failed_arm_fails_the_run_otherwise(runtime: Harness) -> None:
    """Nothing follows the group."""
    result = runtime.execute(flows.strict, {})

    assert result.status == "failed"
    assert str(result.error) == "one arm fails"
    assert result.steps["good"].status == "success"
    assert count(result.run_id, "gather") == 0


@pytest.mark.parity("R-PAF-03")
def test_all_arms_may_fail_where_failures_are_allowed(runtime: Harness) -> None:
    """Each counts as None in the output."""
    result = runtime.execute(flows.all_fail, {})

    assert result.status == "success"
    assert calls(result.run_id, "gather") == [{"bad": None, "worse": None}]
    assert {result.steps[step_id].status for step_id in ("bad", "worse")} == {"failed"}


@pytest.mark.parity("R-PAF-04")
def test_an_arm_that_waits_outweighs_one_that_has_failed(runtime: Harness) -> None:
    """The run is suspended, and goes on when it is resumed."""
    result = runtime.execute(flows.fail_and_wait, {})
    assert result.status == "suspended"
    assert result.suspended == [["held"]]
    assert result.steps["bad"].status == "failed"

    resumed = runtime.resume(flows.fail_and_wait, result.run_id, {})

    assert resumed.status == "success"
    assert calls(result.run_id, "gather") == [{"bad": None, "held": {"value": 3}}]
