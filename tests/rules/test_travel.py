"""Where a time travel leads, what it keeps, and what it promises: without any store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from orchestrator.errors import GraphChanged, StepNotFound, StepNotSuspended
from orchestrator.rules import flow, travel
from orchestrator.rules.change import CreateActivation, StartNextItem, UpdateActivation, UpdateRun
from orchestrator.rules.graph import Graph, Path
from orchestrator.rules.model import Activation, ActivationStatus, RunHeader, StoredStatus, format_path
from orchestrator.rules.pending_resumes import (
    NO_PENDING_RESUMES,
    PendingResumes,
    Progress,
    parse_pending_resumes,
    ranges,
)
from orchestrator.rules.plan import ClaimedNode, Plan
from tests.simulation.acts import branch, foreach, graph, loop, nested, parallel, sleep, step, wait

Fields = str | dict[str, Any]


def recorded(of: Graph, status: StoredStatus = StoredStatus.SUCCESS, /, **places: Fields) -> dict[str, Any]:
    """A run with these activations: `_0_1="success"` for the path 0.1, or a dict of fields."""
    activations: dict[Path, Activation] = {}
    for name, fields in places.items():
        at = tuple(map(int, name.strip("_").split("_")))
        node = of.node(at)
        told = {"status": fields} if isinstance(fields, str) else fields
        named = getattr(node, "body_node", node).id if type(node).__name__ == "Foreach" else node.id
        about = {
            "component": type(node).__name__.upper(),
            "input": f"in{format_path(at)}",
            "output": f"out{format_path(at)}",
        }
        activations[at] = Activation(path=format_path(at), step=named, **{**about, **told})
    return {"graph": of, "header": RunHeader(run_id="run", input="start", status=status), "activations": activations}


def go(run: Mapping[str, Any], target: str, **options: Any) -> travel.TravelPlan:
    """Travel to a step by its dotted ids."""
    return travel.plan_travel(
        travel.TravelRequest(target=travel.find_target(run["graph"], target.split(".")), fresh="f", **run, **options)
    )


def puts(journey: travel.TravelPlan) -> dict[str, Activation]:
    """The records that a journey writes, by path."""
    return {op.activation.path: op.activation for op in journey.plan.ops if isinstance(op, CreateActivation)}


def header(journey: travel.TravelPlan) -> dict[str, Any]:
    """What a journey writes into the header."""
    return next(dict(op.fields) for op in journey.plan.ops if isinstance(op, UpdateRun))


def test_a_path_leads_through_nested_workflows_alone() -> None:
    """Whatever is not there is named, with where it was looked for."""
    of = graph(
        step("a"), nested("n", step("b")), foreach("e", 2, 1, nested("each", step("c"))), loop("l", 2, step("d"))
    )
    assert travel.find_target(of, ["n", "b"]) == (1, 0)
    assert travel.find_target(of, ["each"]) == (2,)
    assert travel.find_target(of, ["d"]) == (3, 0)
    for ids, said in ((["x"], "'x'"), (["n", "x"], "'x' in n"), (["a", "x"], "'x' in a"), ([], "needs a step")):
        with pytest.raises(StepNotFound, match=said):
            travel.find_target(of, ids)
    with pytest.raises(StepNotFound, match="each runs once for each item: travel to each as a whole, and not to 'c'"):
        travel.find_target(of, ["each", "c"])


def test_what_stands_before_a_target() -> None:
    """In the innermost flow."""
    of = graph(step("a"), nested("n", step("b"), parallel("q", step("c"), step("d"))))
    assert travel.entry_before(of, (0,)) is None
    assert travel.entry_before(of, (1,)) == (0,)
    assert travel.entry_before(of, (1, 0)) is None
    assert travel.entry_before(of, (1, 1, 1)) == (1, 0)


def test_arms_beside_the_target() -> None:
    """What has succeeded or waits stays, the rest begins; the block waits for all that is unfinished."""
    of = graph(parallel("q", *(step(name) for name in "abcd")))
    run = recorded(of, _0="open", _0_0="success", _0_1="suspended", _0_2="failed", _0_3="success")

    journey = go(run, "d")

    assert journey.drop == ("0", "0.2", "0.3")
    assert {path: activation.status for path, activation in puts(journey).items()} == {
        "": "open",
        "0": "open",
        "0.2": "queued",
        "0.3": "queued",
    }
    assert (puts(journey)["0"].pending_children, puts(journey)["0"].total) == (3, 4)
    held_back = puts(go(run, "d", per_step=True))
    assert (held_back["0.3"].status, held_back["0.2"].status) == ("queued", "paused")


def test_what_waits_and_what_is_lost_in_one_arm() -> None:
    """An arm of which a part was cut off begins anew as a whole."""
    of = graph(parallel("q", nested("n", parallel("p", step("a"), step("b"))), step("c")))
    places: dict[str, Fields] = {
        "_0": "open",
        "_0_0": "open",
        "_0_0_0": "open",
        "_0_0_0_0": "suspended",
        "_0_1": "failed",
    }
    assert "0.0.0.0" in go(recorded(of, StoredStatus.CANCELED, **places, _0_0_0_1="running"), "c").drop
    assert "0.0.0.0" not in go(recorded(of, StoredStatus.FAILED, **places, _0_0_0_1="success"), "c").drop


def test_items_that_wait_beside_the_target_are_found_in_the_new_life() -> None:
    """Those that have not begun, by the new life's ids."""
    of = graph(parallel("q", foreach("e", 3, 1, step("item")), step("c")))
    block = {"status": "open", "total": 3, "next_item": 1}
    journey = go(recorded(of, _0="open", _0_0=block, _0_0_0="suspended", _0_1="success"), "c")
    assert journey.copies == {"0.0@@0.1": "0.0@@1.1", "0.0@@0.2": "0.0@@1.2"}


def test_a_foreach_goes_on_or_begins_anew() -> None:
    """It goes on with what had not ended well; the inputs of such items are those recorded, of whatever life."""
    of = graph(step("a"), foreach("e", 4, 2, step("item")))
    block = {"status": "failed", "total": 4, "concurrency": 2, "input": "out0"}
    run = recorded(of, StoredStatus.FAILED, _0="success", _1=block, _1_0="success", _1_1="failed")

    journey = go(run, "item")

    assert journey.drop == ("1", "1.1")
    assert (puts(journey)["1"].pending_children, puts(journey)["1"].next_item, puts(journey)["1"].input) == (
        3,
        2,
        "out0",
    )
    assert puts(journey)["1.1"].input == "1@@1.1"
    assert sum(isinstance(op, StartNextItem) for op in journey.plan.ops) == 1
    assert journey.copies == {"in1.1": "1@@1.1", "1@@0.2": "1@@1.2", "1@@0.3": "1@@1.3"}
    anew = go(run, "item", input="given")
    assert (puts(anew)["1"].phase, puts(anew)["1"].input, puts(anew)["0"].output) == ("fan_out", "given", "given")
    assert puts(go(recorded(of, _0="success", _1={**block, "status": "success"}), "item"))["1"].phase == "fan_out"


def test_a_loop_goes_on_or_begins_anew() -> None:
    """A failed body has its own iteration and input; a step inside it has what stands before it there."""
    of = graph(step("a"), loop("l", 3, nested("n", step("b"), step("c"))))
    inner: dict[str, Fields] = {
        "_1_0": {"status": "failed", "visit": "2"},
        "_1_0_0": {"status": "success", "visit": "2"},
        "_1_0_1": {"status": "failed", "visit": "2"},
    }
    failed = recorded(of, StoredStatus.FAILED, _0="success", _1={"status": "failed", "iteration": 2}, **inner)

    body = puts(go(failed, "n"))
    assert (body["1"].iteration, body["1.0"].visit, body["1.0"].input) == (2, "2", "in1.0")
    inside = go(failed, "n.c")
    assert (puts(inside)["1.0.1"].visit, puts(inside)["1.0.1"].input) == ("2", "out1.0.0")
    assert inside.drop == ("1", "1.0", "1.0.1")
    ended = recorded(of, _0="success", _1={"status": "success", "iteration": 2}, **inner)
    body = puts(go(ended, "n"))
    assert (body["1"].iteration, body["1.0"].visit, body["1.0"].input) == (1, "1", "out0")


def test_resume_data_is_promised_to_what_had_suspended_behind_the_target() -> None:
    """Until the run comes to it the header says so; then it begins as a resumed one."""
    of = graph(step("a"), sleep("nap"), parallel("q", step("b"), step("c"), wait("w")))
    held = {"status": "suspended", "suspend": "said"}
    places: dict[str, Fields] = {"_0": "success", "_1": "success", "_2": "open", "_2_0": "success", "_2_1": held}
    run = recorded(of, StoredStatus.SUSPENDED, **places, _2_2="waiting")

    journey = go(run, "a", resume=True)

    assert journey.resumed == {"fr0": (2, 1)}
    assert journey.drop == ("0", "1", "2", "2.0", "2.1", "2.2")
    promises = header(journey)["pending_resumes"]
    assert parse_pending_resumes(promises) == PendingResumes({"2.1@": ("fr0", "said")})
    running = RunHeader(run_id="run", status=StoredStatus.RUNNING, pending_resumes=promises)
    woken = flow.on_sleep_over(
        ClaimedNode(
            of, running, Activation(path="1", status=ActivationStatus.RUNNING, input="x", route='{"name":"a"}'), ""
        )
    )
    begun = {op.activation.path: op.activation for op in woken.ops if isinstance(op, CreateActivation)}
    assert [(begun[path].resumed, begun[path].resume, begun[path].suspend) for path in ("2.0", "2.1")] == [
        (False, "", ""),
        (True, "fr0", "said"),
    ]
    assert header(go(run, "a"))["pending_resumes"] == ""
    assert go(run, "b", resume=True).resumed == {"fr0": (2, 0)}, "what stands beside the target goes on by itself"
    for other in (graph(step("a"), sleep("nap")), graph(step("a"), sleep("nap"), parallel("q", step("b"), step("x")))):
        assert go({**run, "graph": other}, "a", resume=True).resumed == {"fr0": (0,)}, "the graph has it no more"


ITEMS = graph(step("a"), loop("l", 2, nested("n", foreach("e", 4, 2, step("item")))))


@pytest.mark.parametrize("visit", ["1", "2"])
def test_items_that_had_suspended_are_promised_to_go_on(visit: str) -> None:
    """Finished ones stay where they are, unless the foreach will come in another visit."""
    places: dict[str, Fields] = {
        "_0": "success",
        "_1": {"status": "open", "iteration": int(visit)},
        "_1_0": {"status": "open", "visit": visit},
        "_1_0_0": {"status": "open", "visit": visit, "total": 4, "concurrency": 2},
        "_1_0_0_0": {"status": "success", "visit": visit},
        "_1_0_0_1": {"status": "suspended", "visit": visit},
        "_1_0_0_2": {"status": "success", "visit": visit},
    }
    journey = go(recorded(ITEMS, StoredStatus.SUSPENDED, **places), "a", resume=True)
    promises = parse_pending_resumes(header(journey)["pending_resumes"])
    assert promises.resumes.keys() == {"1.0.0.1@1"}
    assert promises.items == {"1.0.0@1": Progress(4, 3, ((0, 1), (2, 3)) if visit == "1" else ())}
    assert ("1.0.0.0" in journey.drop) == (visit == "2")


def test_promised_items_go_on_when_their_foreach_begins() -> None:
    """Unless the list has another length by now."""
    some = PendingResumes({"1.0.0.1@1": ("r", "s")}, {"1.0.0@1": Progress(4, 3, ((0, 1), (2, 3)))})
    head = RunHeader(run_id="run", status=StoredStatus.RUNNING, generation=1, pending_resumes=some.text())
    claim = ClaimedNode(
        ITEMS, head, Activation(path="1.0.0", visit="1", status=ActivationStatus.RUNNING, route='{"name":"a"}'), ""
    )

    ops = flow.on_items(claim, 4, 2).ops

    assert isinstance(ops[0], UpdateActivation)
    assert (ops[0].fields["pending_children"], ops[0].fields["next_item"]) == (2, 3)
    assert [op.activation.path for op in ops if isinstance(op, CreateActivation) and op.activation.resumed] == [
        "1.0.0.1"
    ]
    assert sum(isinstance(op, StartNextItem) for op in ops) == 1
    assert [type(op) for op in flow.on_items(claim, 5, 2).ops] == [UpdateActivation, StartNextItem, StartNextItem]


def test_nobody_is_there_for_resume_data() -> None:
    """A step can always begin as a resumed one, a block cannot."""
    of = graph(step("a"), nested("n", step("b")))
    run = recorded(of, _0="success", _1="success", _1_0="success")
    assert go(run, "a", resume=True).resumed == {"fr0": (0,)}
    with pytest.raises(StepNotSuspended, match="at 'n' or behind it"):
        go(run, "n", resume=True)


def test_gaps_are_refused_where_something_is_recorded() -> None:
    """What had failed is none, and what waits is one; sleeps, loops and foreach blocks may be missing."""
    of = graph(step("a"), sleep("s"), loop("l", 2, step("b")), foreach("e", 2, 1, step("c")), step("d"))
    journey = go(recorded(of, _0="success"), "d")
    assert (puts(journey)["4"].input, journey.given) == ("out0", "out0")
    assert puts(go(recorded(of, StoredStatus.FAILED, _0="failed", _1="success"), "b"))["0"].output == ""
    for status in ("suspended", "queued"):
        with pytest.raises(GraphChanged, match="'a' stands before the target and has not ended"):
            go(recorded(of, _0=status), "d")
    assert puts(go(recorded(of, StoredStatus.CANCELED, _0="queued"), "d"))["0"].status == "success"
    with pytest.raises(GraphChanged, match="'a' stands before the target and is neither recorded nor given"):
        go(recorded(of, _4="success"), "d")


def test_a_branch_that_has_been_passed() -> None:
    """One of its arms is enough; one that had failed does not leak into its output."""
    of = graph(branch("w", (0, 1), step("a"), step("b")), step("c"))
    journey = go(recorded(of, StoredStatus.FAILED, _0="failed", _0_0="success", _0_1="failed"), "c")
    assert (puts(journey)["0.1"].status, journey.plan.values[journey.given]) == ("skipped", '{"a":"out0.0"}')
    journey = go(recorded(of, StoredStatus.FAILED, _0="failed", _0_1="failed"), "c")
    assert (puts(journey)["0.1"].status, journey.plan.values[journey.given]) == ("success", '{"b":""}')


def test_a_given_record_is_written_with_all_that_it_says() -> None:
    """Its end is set behind the activation, which the store would stamp with the present."""
    of = graph(step("a"), step("b"))
    given = {(0,): travel.StepOverride("o", "i", suspend="s", resume="r", started_at=1, ended_at=2, suspended_at=3)}
    journey = go(recorded(of, _0="success", _1="success"), "b", given=given)
    activation = puts(journey)["0"]
    assert (activation.output, activation.input, activation.suspend, activation.resume) == ("o", "i", "s", "r")
    assert (activation.started_at, activation.suspended_at) == (1, 3)
    assert UpdateActivation("0", {"ended_at": 2}) in journey.plan.ops
    assert puts(journey)["1"].input == "o"


def test_promises_are_text() -> None:
    """Nothing is the empty text."""
    some = PendingResumes({"0.1@2": ("r", "s")}, {"0@2": Progress(5, 3, ((0, 2),))})
    assert parse_pending_resumes(some.text()) == some
    assert (NO_PENDING_RESUMES.text(), parse_pending_resumes("")) == ("", NO_PENDING_RESUMES)
    assert ranges([0, 1, 2, 5, 7, 8]) == ((0, 3), (5, 6), (7, 9))
    assert (some.items["0@2"].pending_children, some.items["0@2"].unfinished()) == (3, [2])
    assert Plan(graph(step("a")), "").pending_resumes is NO_PENDING_RESUMES
