"""R-EFC, R-FFP, R-FSP, R-FNW: each item of a foreach has a place, a payload and an end of its own."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator import GraphInvalid, RunResult, Workflow
from tests.parity.calls import calls, count
from tests.parity.flows import robust_items as flows
from tests.parity.harness import Harness
from tests.parity.robust import eventually, lose, restart, statuses, stored, strand

META = "__workflow_meta"


def meta_of(result: RunResult, step_id: str) -> dict[str, Any]:
    """Return what the result of a suspended foreach says beside the payload."""
    return dict(result.steps[step_id].suspend_payload[META])


def payloads(result: RunResult, step_id: str) -> list[Any]:
    """Return the payload of each item that has been started, None for those that have ended."""
    items = [item and dict(item.get("suspend_payload") or {}) for item in meta_of(result, step_id)["foreach_output"]]
    return [item and {key: value for key, value in item.items() if key != META} for item in items]


def labels(result: RunResult) -> dict[str, int]:
    """Return the items that wait, by their labels."""
    return {label: where["foreach_index"] for label, where in result.resume_labels.items()}


@pytest.mark.parity("R-EFC-01")
def test_a_computed_concurrency_sees_the_input_and_the_init_data(runtime: Harness) -> None:
    """Three of five items are begun."""
    result = runtime.start(flows.computed, {"items": [1, 2, 3, 4, 5], "width": 3})

    assert result.status == "suspended"
    assert calls(result.run_id, "width") == [{"data": [1, 2, 3, 4, 5], "init": 3}]
    assert sorted(calls(result.run_id, "hold")) == [0, 1, 2]
    assert labels(result) == {"item-0": 0, "item-1": 1, "item-2": 2}


@pytest.mark.parametrize("width, others", [(1, 1), (3, 2)])
@pytest.mark.parity("R-EFC-02")
def test_a_restart_runs_the_items_again_that_had_not_ended(runtime: Harness, width: int, others: int) -> None:
    """Those that had are left alone."""
    items = [{"number": number, "others": others} for number in range(3)]
    run_id = lose(runtime, flows.LOST_ITEM[width], items)
    ended = ["item[0].work", "item[2].work"][:others]
    eventually(lambda: all(statuses(runtime, run_id).get(name) == "success" for name in ended))

    result = restart(runtime, run_id)

    assert result.status == "success"
    assert result.result == [0, 10, 20]
    assert sorted(calls(run_id, "done")) == [0, 1, 2]


@pytest.mark.parity("R-EFC-03")
def test_a_restart_behind_a_foreach_hands_its_list_on(runtime: Harness) -> None:
    """No item runs again."""
    run_id = lose(runtime, flows.lost_behind, [1, 2, 3])

    result = restart(runtime, run_id)

    assert result.status == "success"
    assert calls(run_id, "next") == [[10, 20, 30]]
    assert calls(run_id, "item") == [0, 1, 2]


@pytest.mark.parity("R-EFC-04")
def test_a_run_that_died_before_its_foreach_begins_with_the_items(runtime: Harness) -> None:
    """Each item runs once."""
    run_id = strand(runtime, flows.stranded, [1, 2, 3])

    result = restart(runtime, run_id)

    assert result.status == "success"
    assert result.result == [10, 20, 30]
    assert sorted(calls(run_id, "item")) == [0, 1, 2]


@pytest.mark.parity("R-EFC-06")
def test_a_restarted_run_whose_only_place_is_suspended_suspends(runtime: Harness) -> None:
    """Nothing runs for it, and the item can be resumed."""
    run_id = lose(runtime, flows.lost_in_settling, [1, 2])
    assert stored(runtime, run_id).status == "running"

    result = restart(runtime, run_id)

    assert result.status == "suspended"
    assert calls(run_id, "hold") == [0]
    assert labels(runtime.resume(flows.lost_in_settling, run_id, 5)) == {"item-1": 1}
    assert runtime.resume(flows.lost_in_settling, run_id, 6).result == [15, 26]


@pytest.mark.parity("R-EFC-07")
def test_a_fixed_concurrency_says_how_many_items_are_begun(runtime: Harness) -> None:
    """The others wait for a place."""
    result = runtime.start(flows.static, [1, 2, 3, 4, 5])

    assert result.status == "suspended"
    assert sorted(calls(result.run_id, "hold")) == [0, 1]


@pytest.mark.parametrize("width", [0, -1, "two", None])
@pytest.mark.parity("R-EFC-08")
def test_a_computed_concurrency_that_is_none_fails_the_run(runtime: Harness, width: Any) -> None:
    """It is not taken for one: bad input gets a clear error."""
    result = runtime.start(flows.computed, {"items": [1, 2], "width": width})

    assert result.status == "failed"
    assert "concurrency" in str(result.error)
    assert count(result.run_id, "hold") == 0


@pytest.mark.parity("R-EFC-08")
def test_a_fixed_concurrency_that_is_none_is_refused() -> None:
    """The workflow cannot be committed."""
    with pytest.raises(GraphInvalid, match="concurrency"):
        Workflow("robust-items-none").foreach(flows.hold, concurrency=0).commit()


@pytest.mark.parametrize("width, begun", [(1, [0]), (2, [0, 1, 2, 3])])
@pytest.mark.parity("R-EFC-09")
def test_a_suspended_item_keeps_its_place(runtime: Harness, width: int, begun: list[int]) -> None:
    """The others go on only where another place is left."""
    result = runtime.start(flows.FIRST_HOLDS[width], [1, 2, 3, 4])

    assert result.status == "suspended"
    assert sorted(calls(result.run_id, "item")) == begun

    resumed = runtime.resume(flows.FIRST_HOLDS[width], result.run_id, {})

    assert resumed.result == [10, 20, 30, 40]


@pytest.mark.parity("R-EFC-10")
def test_a_suspended_foreach_tells_what_each_item_has_come_to(runtime: Harness) -> None:
    """It names the first that waits, and has the output of those that do not."""
    result = runtime.start(flows.partly, [1, 2, 3])

    meta = meta_of(result, "last-holds")
    assert meta["foreach_index"] == 1
    assert [item["status"] for item in meta["foreach_output"]] == ["success", "suspended", "suspended"]
    assert meta["foreach_output"][0]["output"] == 10
    assert payloads(result, "last-holds") == [{}, {"number": 2}, {"number": 3}]
    assert runtime.resume(flows.partly, result.run_id, {}).result == [10, 20, 30]


@pytest.mark.parity("R-EFC-11")
def test_a_finished_item_gives_its_place_to_the_next(runtime: Harness) -> None:
    """One after the other suspends and is resumed."""
    result = runtime.start(flows.one_by_one, [1, 2, 3])
    run_id, begun = result.run_id, []
    for data in (1, 2, 3):
        begun.append(labels(result))
        result = runtime.resume(flows.one_by_one, run_id, data)

    assert begun == [{"item-0": 0}, {"item-1": 1}, {"item-2": 2}]
    assert result.result == [11, 22, 33]
    assert calls(run_id, "hold") == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    "width",
    [pytest.param(1, marks=pytest.mark.parity("R-FFP-03")), pytest.param(2, marks=pytest.mark.parity("R-FFP-04"))],
)
def test_a_restart_of_a_run_that_failed_in_an_item_runs_nothing(runtime: Harness, width: int) -> None:
    """It tells what the run had come to."""
    failed = runtime.start(flows.FAILING[width], [1, 2, 3])
    called = calls(failed.run_id, "item")

    again = restart(runtime, failed.run_id)

    assert (failed.status, again.status) == ("failed", "failed")
    assert str(again.error) == "the second fails"
    assert calls(failed.run_id, "item") == called


@pytest.mark.parity("R-FSP-01")
def test_each_suspended_item_keeps_its_own_payload(runtime: Harness) -> None:
    """Resuming one leaves those of the others as they are."""
    started = runtime.start(flows.all_at_once, [1, 2, 3])
    assert payloads(started, "hold") == [{"number": 1}, {"number": 2}, {"number": 3}]
    record = stored(runtime, started.run_id)
    assert record.steps is not None
    assert record.steps["hold"].suspend_payload == started.steps["hold"].suspend_payload

    resumed = runtime.resume(flows.all_at_once, started.run_id, 5, step="hold", index=0)

    assert resumed.status == "suspended"
    assert payloads(resumed, "hold") == [{}, {"number": 2}, {"number": 3}]
    assert meta_of(resumed, "hold")["foreach_output"][0]["output"] == 15


@pytest.mark.parity("R-FSP-03")
def test_suspended_items_are_resumed_one_after_the_other(runtime: Harness) -> None:
    """The run goes on when the last one has ended."""
    started = runtime.start(flows.all_at_once, [1, 2, 3])

    results = [runtime.resume(flows.all_at_once, started.run_id, n, step="hold", index=n) for n in (2, 0, 1)]

    assert [result.status for result in results] == ["suspended", "suspended", "success"]
    assert results[-1].result == [10, 21, 32]


@pytest.mark.parity("R-FNW-01")
def test_each_item_has_a_nested_run_of_its_own(runtime: Harness) -> None:
    """Their ids differ, and each can be looked up by its own."""
    result = runtime.start(flows.children_2, [1, 3])

    ids = [item["suspend_payload"][META]["run_id"] for item in meta_of(result, "child")["foreach_output"]]
    assert len(set(ids)) == 2
    assert set(ids) == set(calls(result.run_id, "child"))
    record = stored(runtime, result.run_id)
    assert {name: str(found.status) for name, found in (record.steps or {}).items()} == {
        "child": "suspended",
        "child[0].odd": "suspended",
        "child[1].odd": "suspended",
    }
    children = [stored(runtime, child_id) for child_id in ids]
    assert [(child.run_id, child.workflow_id, str(child.status)) for child in children] == [
        (ids[0], "child", "suspended"),
        (ids[1], "child", "suspended"),
    ]
    assert [child.input for child in children] == [1, 3]
    assert [child.suspended for child in children] == [[["odd"]], [["odd"]]]


@pytest.mark.parametrize("width", [1, 5, 10])
@pytest.mark.parity("R-FNW-02")
def test_nested_items_are_resumed_by_index_and_path(runtime: Harness, width: int) -> None:
    """Each has a child of its own, and the results are in the order of the items."""
    workflow = flows.CHILDREN[width]
    result = runtime.start(workflow, list(range(10)))
    for index in (1, 3, 5, 7, 9):
        assert result.status == "suspended"
        result = runtime.resume(workflow, result.run_id, f"r{index}", step=["child", "odd"], index=index)

    assert result.status == "success"
    assert result.result == [f"{n}:r{n}" if n % 2 else f"{n}:even" for n in range(10)]
    assert len(set(calls(result.run_id, "child"))) == 5
