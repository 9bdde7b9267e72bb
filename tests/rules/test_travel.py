"""Time travel: where it leads, what it carries over, and which resumes are pending after it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from orchestrator.errors import GraphChanged, StepNotFound, StepNotSuspended
from orchestrator.rules import flow, travel
from orchestrator.rules.change import CreateActivation, StartNextItem, UpdateActivation, UpdateRun
from orchestrator.rules.graph import Graph, Path
from orchestrator.rules.model import Activation, ActivationStatus, RunHeader, StoredStatus, format_path
from orchestrator.rules.pending_resumes import (
    PendingResumes,
    Progress,
    begin_resumed,
    find_beginning,
    make_progress_id,
    parse_progress,
    ranges,
)
from orchestrator.rules.plan import ClaimedNode
from tests.simulation.acts import branch, foreach, graph, loop, nested, parallel, sleep, step, wait

Fields = str | dict[str, Any]


def stored_run(of: Graph, status: StoredStatus = StoredStatus.SUCCESS, /, **places: Fields) -> dict[str, Any]:
    """Make a run with these activations: `_0_1="success"` for the path 0.1, or a dict of fields."""
    activations: dict[Path, Activation] = {}
    for name, fields in places.items():
        at = tuple(map(int, name.strip("_").split("_")))
        node = of.node(at)
        given = {"status": fields} if isinstance(fields, str) else fields
        named = getattr(node, "body_node", node).id if type(node).__name__ == "Foreach" else node.id
        about = {
            "component": type(node).__name__.upper(),
            "input": f"in{format_path(at)}",
            "output": f"out{format_path(at)}",
        }
        activations[at] = Activation(path=format_path(at), step=named, **{**about, **given})
    return {"graph": of, "header": RunHeader(run_id="run", input="start", status=status), "activations": activations}


def go(run: Mapping[str, Any], target: str, **options: Any) -> travel.TravelPlan:
    """Travel to a step by its dotted ids."""
    return travel.plan_travel(
        travel.TravelRequest(target=travel.find_target(run["graph"], target.split(".")), fresh="f", **run, **options)
    )


def puts(result: travel.TravelPlan) -> dict[str, Activation]:
    """Return the activations that a plan creates, by path."""
    return {op.activation.path: op.activation for op in result.plan.ops if isinstance(op, CreateActivation)}


def header(result: travel.TravelPlan) -> dict[str, Any]:
    """Return what a plan writes into the run header."""
    return next(dict(op.fields) for op in result.plan.ops if isinstance(op, UpdateRun))


def pending_of(result: travel.TravelPlan) -> dict[str, Any]:
    """Return what a plan leaves pending, by the place that it is for."""
    return {id_[2:]: json.loads(text) for id_, text in result.plan.values.items() if id_.startswith("fp")}


def test_a_target_is_found_through_nested_workflows_alone() -> None:
    """An error names the id that is missing, and where it was looked for."""
    of = graph(
        step("a"), nested("n", step("b")), foreach("e", 2, 1, nested("each", step("c"))), loop("l", 2, step("d"))
    )
    assert travel.find_target(of, ["n", "b"]) == (1, 0)
    assert travel.find_target(of, ["each"]) == (2,)
    assert travel.find_target(of, ["d"]) == (3, 0)
    for ids, message in ((["x"], "'x'"), (["n", "x"], "'x' in n"), (["a", "x"], "'x' in a"), ([], "needs a step")):
        with pytest.raises(StepNotFound, match=message):
            travel.find_target(of, ids)
    with pytest.raises(StepNotFound, match="each runs once for each item: travel to each as a whole, and not to 'c'"):
        travel.find_target(of, ["each", "c"])


def test_the_entry_before_a_target_is_found() -> None:
    of = graph(step("a"), nested("n", step("b"), parallel("q", step("c"), step("d"))))
    assert travel.entry_before(of, (0,)) is None
    assert travel.entry_before(of, (1,)) == (0,)
    assert travel.entry_before(of, (1, 0)) is None
    assert travel.entry_before(of, (1, 1, 1)) == (1, 0)


def test_arms_beside_the_target_stay_or_begin() -> None:
    """Successes and what is awaiting stay. The other arms begin, and the block counts all that is unfinished."""
    of = graph(parallel("q", *(step(name) for name in "abcd")))
    run = stored_run(of, _0="open", _0_0="success", _0_1="suspended", _0_2="failed", _0_3="success")

    result = go(run, "d")

    assert result.drop == ("0", "0.2", "0.3")
    assert {path: activation.status for path, activation in puts(result).items()} == {
        "": "open",
        "0": "open",
        "0.2": "queued",
        "0.3": "queued",
    }
    assert (puts(result)["0"].pending_children, puts(result)["0"].total) == (3, 4)
    by_single_steps = puts(go(run, "d", per_step=True))
    assert (by_single_steps["0.3"].status, by_single_steps["0.2"].status) == ("queued", "paused")


def test_an_arm_that_was_cut_off_in_part_begins_anew() -> None:
    """Otherwise the part of it that is awaiting would wait for ever."""
    of = graph(parallel("q", nested("n", parallel("p", step("a"), step("b"))), step("c")))
    places: dict[str, Fields] = {
        "_0": "open",
        "_0_0": "open",
        "_0_0_0": "open",
        "_0_0_0_0": "suspended",
        "_0_1": "failed",
    }
    assert "0.0.0.0" in go(stored_run(of, StoredStatus.CANCELED, **places, _0_0_0_1="running"), "c").drop
    assert "0.0.0.0" not in go(stored_run(of, StoredStatus.FAILED, **places, _0_0_0_1="success"), "c").drop


def test_items_beside_the_target_are_found_in_the_new_generation() -> None:
    """The inputs of those that have not begun are copied to new ids."""
    of = graph(parallel("q", foreach("e", 3, 1, step("item")), step("c")))
    block = {"status": "open", "total": 3, "next_item": 1}
    result = go(stored_run(of, _0="open", _0_0=block, _0_0_0="suspended", _0_1="success"), "c")
    assert result.copies == {"0.0@@0.1": "0.0@@1.1", "0.0@@0.2": "0.0@@1.2"}


def test_a_foreach_goes_on_or_begins_anew() -> None:
    """It goes on with what had not succeeded. The inputs of such items are those stored, of whatever generation."""
    of = graph(step("a"), foreach("e", 4, 2, step("item")))
    block = {"status": "failed", "total": 4, "concurrency": 2, "input": "out0"}
    run = stored_run(of, StoredStatus.FAILED, _0="success", _1=block, _1_0="success", _1_1="failed")

    result = go(run, "item")

    assert result.drop == ("1", "1.1")
    assert (
        puts(result)["1"].pending_children,
        puts(result)["1"].next_item,
        puts(result)["1"].input,
    ) == (
        3,
        2,
        "out0",
    )
    assert puts(result)["1.1"].input == "1@@1.1"
    assert sum(isinstance(op, StartNextItem) for op in result.plan.ops) == 1
    assert result.copies == {"in1.1": "1@@1.1", "1@@0.2": "1@@1.2", "1@@0.3": "1@@1.3"}
    anew = go(run, "item", input="given")
    assert (puts(anew)["1"].phase, puts(anew)["1"].input, puts(anew)["0"].output) == ("fan_out", "given", "given")
    assert puts(go(stored_run(of, _0="success", _1={**block, "status": "success"}), "item"))["1"].phase == "fan_out"


def test_a_loop_goes_on_or_begins_anew() -> None:
    """A failed body keeps its iteration and input. A step inside it gets what stands before it there."""
    of = graph(step("a"), loop("l", 3, nested("n", step("b"), step("c"))))
    inner: dict[str, Fields] = {
        "_1_0": {"status": "failed", "visit": "2"},
        "_1_0_0": {"status": "success", "visit": "2"},
        "_1_0_1": {"status": "failed", "visit": "2"},
    }
    failed = stored_run(of, StoredStatus.FAILED, _0="success", _1={"status": "failed", "iteration": 2}, **inner)

    body = puts(go(failed, "n"))
    assert (body["1"].iteration, body["1.0"].visit, body["1.0"].input) == (2, "2", "in1.0")
    inside = go(failed, "n.c")
    assert (puts(inside)["1.0.1"].visit, puts(inside)["1.0.1"].input) == ("2", "out1.0.0")
    assert inside.drop == ("1", "1.0", "1.0.1")
    ended = stored_run(of, _0="success", _1={"status": "success", "iteration": 2}, **inner)
    body = puts(go(ended, "n"))
    assert (body["1"].iteration, body["1.0"].visit, body["1.0"].input) == (1, "1", "out0")


def test_resume_data_is_pending_for_what_had_suspended_behind_the_target() -> None:
    """A value says so until the run comes to the step, which begins as a resumed one then."""
    of = graph(step("a"), sleep("nap"), parallel("q", step("b"), step("c"), wait("w")))
    held = {"status": "suspended", "suspend": "message"}
    places: dict[str, Fields] = {"_0": "success", "_1": "success", "_2": "open", "_2_0": "success", "_2_1": held}
    run = stored_run(of, StoredStatus.SUSPENDED, **places, _2_2="waiting")

    result = go(run, "a", resume=True)

    assert result.resumed == {"fr0": (2, 1)}
    assert result.drop == ("0", "1", "2", "2.0", "2.1", "2.2")
    assert header(result)["pending_resumes"] == "f"
    assert pending_of(result) == {"2.1@": ["fr0", "message"]}
    running = RunHeader(run_id="run", status=StoredStatus.RUNNING, pending_resumes="f")
    woken = flow.on_sleep_over(
        ClaimedNode(
            of, running, Activation(path="1", status=ActivationStatus.RUNNING, input="x", route='{"name":"a"}'), ""
        )
    )
    assert find_beginning("f", woken.ops) == ["fp2.0@", "fp2.1@"]
    assert find_beginning("", woken.ops) == []
    ops = begin_resumed("f", woken.ops, result.plan.values)
    begun = {op.activation.path: op.activation for op in ops if isinstance(op, CreateActivation)}
    assert [(begun[path].resumed, begun[path].resume, begun[path].suspend) for path in ("2.0", "2.1")] == [
        (False, "", ""),
        (True, "fr0", "message"),
    ]
    assert header(go(run, "a"))["pending_resumes"] == ""
    assert go(run, "b", resume=True).resumed == {"fr0": (2, 0)}, "what stands beside the target goes on by itself"
    for other in (graph(step("a"), sleep("nap")), graph(step("a"), sleep("nap"), parallel("q", step("b"), step("x")))):
        assert go({**run, "graph": other}, "a", resume=True).resumed == {"fr0": (0,)}, "the graph has it no more"


ITEMS = graph(step("a"), loop("l", 2, nested("n", foreach("e", 4, 2, step("item")))))


@pytest.mark.parametrize("visit", ["1", "2"])
def test_resume_data_is_pending_for_items_that_had_suspended(visit: str) -> None:
    """Finished items stay where they are, unless the foreach will come in another visit."""
    places: dict[str, Fields] = {
        "_0": "success",
        "_1": {"status": "open", "iteration": int(visit)},
        "_1_0": {"status": "open", "visit": visit},
        "_1_0_0": {"status": "open", "visit": visit, "total": 4, "concurrency": 2},
        "_1_0_0_0": {"status": "success", "visit": visit},
        "_1_0_0_1": {"status": "suspended", "visit": visit},
        "_1_0_0_2": {"status": "success", "visit": visit},
    }
    result = go(stored_run(ITEMS, StoredStatus.SUSPENDED, **places), "a", resume=True)
    assert pending_of(result) == {
        "1.0.0.1@1": ["fr0", ""],
        "1.0.0@1": [4, 3, [[0, 1], [2, 3]] if visit == "1" else []],
    }
    assert ("1.0.0.0" in result.drop) == (visit == "2")


def test_items_with_pending_resumes_go_on_when_their_foreach_begins() -> None:
    """If the list has another length by then, all items begin."""
    some = PendingResumes({"1.0.0.1@1": ("r", "s")}, {"1.0.0@1": Progress(4, 3, ((0, 1), (2, 3)))})
    texts = some.texts("t")
    head = RunHeader(run_id="run", status=StoredStatus.RUNNING, generation=1, pending_resumes="t")
    claim = ClaimedNode(
        ITEMS, head, Activation(path="1.0.0", visit="1", status=ActivationStatus.RUNNING, route='{"name":"a"}'), ""
    )

    progress = texts[make_progress_id("t", claim.activation)]
    ops = begin_resumed("t", flow.on_items(claim, parse_progress(progress, 4), 2).ops, texts)

    assert isinstance(ops[0], UpdateActivation)
    assert (ops[0].fields["pending_children"], ops[0].fields["next_item"]) == (2, 3)
    assert [op.activation.path for op in ops if isinstance(op, CreateActivation) and op.activation.resumed] == [
        "1.0.0.1"
    ]
    assert sum(isinstance(op, StartNextItem) for op in ops) == 1
    again = flow.on_items(claim, parse_progress(progress, 5), 2).ops
    assert [type(op) for op in again] == [UpdateActivation, StartNextItem, StartNextItem]


def test_resume_data_needs_a_step() -> None:
    """A step can always begin as a resumed one. A block cannot."""
    of = graph(step("a"), nested("n", step("b")))
    run = stored_run(of, _0="success", _1="success", _1_0="success")
    assert go(run, "a", resume=True).resumed == {"fr0": (0,)}
    with pytest.raises(StepNotSuspended, match="at 'n' or behind it"):
        go(run, "n", resume=True)


def test_gaps_are_refused_in_a_run_that_has_run() -> None:
    """A failed step is no gap, and one that is awaiting is.

    Sleeps, loops and foreach blocks may be missing.
    """
    of = graph(step("a"), sleep("s"), loop("l", 2, step("b")), foreach("e", 2, 1, step("c")), step("d"))
    result = go(stored_run(of, _0="success"), "d")
    assert (puts(result)["4"].input, result.target_input) == ("out0", "out0")
    assert puts(go(stored_run(of, StoredStatus.FAILED, _0="failed", _1="success"), "b"))["0"].output == ""
    for status in ("suspended", "queued"):
        with pytest.raises(GraphChanged, match="'a' stands before the target and has not ended"):
            go(stored_run(of, _0=status), "d")
    assert puts(go(stored_run(of, StoredStatus.CANCELED, _0="queued"), "d"))["0"].status == "success"
    with pytest.raises(GraphChanged, match="'a' stands before the target and is neither recorded nor given"):
        go(stored_run(of, _4="success"), "d")


def test_a_branch_before_the_target_needs_one_arm() -> None:
    """An arm that had failed has no part in its output."""
    of = graph(branch("w", (0, 1), step("a"), step("b")), step("c"))
    result = go(stored_run(of, StoredStatus.FAILED, _0="failed", _0_0="success", _0_1="failed"), "c")
    assert (puts(result)["0.1"].status, result.plan.values[result.target_input]) == (
        "skipped",
        '{"a":"out0.0"}',
    )
    result = go(stored_run(of, StoredStatus.FAILED, _0="failed", _0_1="failed"), "c")
    assert (puts(result)["0.1"].status, result.plan.values[result.target_input]) == (
        "success",
        '{"b":""}',
    )


def test_an_override_is_written_with_all_its_fields() -> None:
    """Its end is written after the activation, because the store would stamp the present time."""
    of = graph(step("a"), step("b"))
    given = {(0,): travel.StepOverride("o", "i", suspend="s", resume="r", started_at=1, ended_at=2, suspended_at=3)}
    result = go(stored_run(of, _0="success", _1="success"), "b", overrides=given)
    activation = puts(result)["0"]
    assert (activation.output, activation.input, activation.suspend, activation.resume) == ("o", "i", "s", "r")
    assert (activation.started_at, activation.suspended_at) == (1, 3)
    assert UpdateActivation("0", {"ended_at": 2}) in result.plan.ops
    assert puts(result)["1"].input == "o"


def test_pending_resumes_are_values() -> None:
    """One for each step and each foreach; where nothing is pending there is none."""
    some = PendingResumes({"0.1@2": ("r", "s")}, {"0@2": Progress(5, 3, ((0, 2),))})
    assert some.texts("t") == {"tp0.1@2": '["r","s"]', "tp0@2": "[5,3,[[0,2]]]"}
    assert parse_progress(some.texts("t")["tp0@2"], 5) == some.items["0@2"]
    assert (parse_progress(None, 5), make_progress_id("", Activation(path="0"))) == (Progress(5), "")
    assert PendingResumes().texts("t") == {}
    assert ranges([0, 1, 2, 5, 7, 8]) == ((0, 3), (5, 6), (7, 9))
    assert (some.items["0@2"].pending_children, some.items["0@2"].unfinished_items()) == (3, [2])
