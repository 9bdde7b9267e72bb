"""What a time travel carries over of blocks, and what the input of the target or a statement about a step changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.errors import GraphChanged, StepNotFound
from orchestrator.rules import travel
from orchestrator.rules.change import CreateActivation
from orchestrator.rules.model import RunHeader, StoredStatus
from tests.rules.test_travel import go, header, pending_of, puts, stored_run
from tests.simulation.acts import branch, foreach, graph, loop, nested, parallel, sleep, step, wait

FAILED = StoredStatus.FAILED
BOTH = graph(parallel("q", step("a"), step("b")), step("c"))
EMPTY: dict[str, Any] = {"header": RunHeader(run_id="run"), "activations": {}}


# --- blocks before the target ------------------------------------------------------------------------------------


def test_a_block_that_has_succeeded_stays_as_a_whole() -> None:
    """With everything in it, and its output flows on."""
    result = go(stored_run(BOTH, _0="success", _0_0="success", _0_1="success", _1="failed"), "c")
    assert puts(result).keys() == {"", "1"}
    assert (result.drop, result.target_input, puts(result)["1"].needs) == (("1",), "out0", "")


def test_an_arm_that_is_given_makes_the_block_anew() -> None:
    """Its output is gathered from what the arms have made; the target gets it with all that it refers to."""
    run = stored_run(BOTH, _0="success", _0_0="success", _0_1="success")
    result = go(run, "c", overrides={(0, 0): travel.StepOverride("o")})
    made = puts(result)
    assert (made["0.0"].status, made["0.0"].output, made["0.0"].input) == ("success", "o", "start")
    assert (made["0"].status, made["0"].output, made["0"].role) == ("success", "f.1", "block")
    assert result.plan.values == {"f.1": '{"a":"o","b":"out0.1"}'}
    assert (result.target_input, made["1"].needs) == ("f.1", "o out0.1")
    assert "0.1" not in result.drop


def test_two_blocks_that_are_made_anew_have_outputs_of_their_own() -> None:
    of = graph(parallel("q", step("a")), parallel("r", step("b")), step("c"))
    given = {(0, 0): travel.StepOverride("o"), (1, 0): travel.StepOverride("p")}
    result = go(stored_run(of, _0="success", _1="success"), "c", overrides=given)
    assert result.plan.values == {"f.1": '{"a":"o"}', "f.2": '{"b":"p"}'}
    assert (puts(result)["1"].input, result.target_input) == ("f.1", "f.2")


def test_an_arm_that_had_failed_has_made_nothing() -> None:
    """Of a parallel every arm has a part in the output; one of which nothing is known is a gap."""
    result = go(stored_run(BOTH, FAILED, _0="failed", _0_0="success", _0_1="failed"), "c")
    assert result.plan.values == {"f.1": '{"a":"out0.0","b":""}'}
    assert (puts(result)["0.1"].status, puts(result)["0.1"].output) == ("success", "")
    with pytest.raises(GraphChanged, match="step 'b' stands before the target and is neither recorded nor given"):
        go(stored_run(BOTH, FAILED, _0="failed", _0_0="success"), "c")


def test_a_run_that_has_not_begun_may_begin_anywhere_with_an_input() -> None:
    """Without one, what is missing is named: the nearest step before the target."""
    with pytest.raises(GraphChanged, match="nothing is known that 'c' could get: give `input`, or step 'a' in"):
        go({"graph": BOTH, **EMPTY}, "c")
    steps = graph(step("a"), step("b"), step("c"))
    with pytest.raises(GraphChanged, match="or step 'b' in `context`"):
        go({"graph": steps, **EMPTY}, "c")
    result = go({"graph": steps, **EMPTY}, "c", input="i")
    assert (result.target_input, result.begins, puts(result)["1"].output) == ("i", False, "i")
    assert puts(result)["2"].input == "i"


# --- the input of the target --------------------------------------------------------------------------------------


def test_the_input_of_the_target_is_the_output_of_what_stands_before_it() -> None:
    """Whatever the caller has said of that itself. A block before it gets it as a whole."""
    of = graph(step("a"), step("b"))
    given = {(0,): travel.StepOverride("o", "was", suspend="s", has_ended=False, is_suspended=True)}
    result = go(stored_run(of, _0="suspended"), "b", input="i", overrides=given)
    assert (puts(result)["0"].output, puts(result)["0"].input, puts(result)["0"].suspend) == ("i", "was", "s")
    assert (puts(result)["1"].input, header(result)["pending_resumes"]) == ("i", "")
    block = go(stored_run(BOTH, _0="success", _0_0="success", _0_1="success"), "c", input="i")
    assert (puts(block)["0"].output, puts(block)["0"].status) == ("i", "success")
    assert (block.target_input, puts(block)["1"].needs, block.plan.values) == ("i", "", {})


@pytest.mark.parametrize("iteration, visit", [(3, "3"), (0, "1")])
def test_a_loop_before_the_target_is_known_by_its_body(iteration: int, visit: str) -> None:
    """So both end with what the caller gives, in the iteration that the loop was in."""
    of = graph(loop("l", 9, step("a")), step("b"))
    run = stored_run(of, FAILED, _0={"status": "failed", "iteration": iteration}, _0_0={"status": "failed"})
    for how in ({"input": "i"}, {"overrides": {(0, 0): travel.StepOverride("i")}}):
        made = puts(go(run, "b", **how))
        assert [(path, made[path].status, made[path].output) for path in ("0", "0.0")] == [
            ("0", "success", "i"),
            ("0.0", "success", "i"),
        ]
        assert (made["0"].visit, made["0.0"].visit, made["0.0"].step, made["1"].input) == ("", visit, "a", "i")
    assert puts(go({"graph": of, **EMPTY}, "b", input="i"))["0.0"].visit == "1"


def test_the_input_of_a_first_step_is_that_of_its_workflow() -> None:
    """Of the run, or of the nested workflow that the step begins."""
    of = graph(step("a"), nested("n", step("b"), step("c")))
    run = stored_run(of, _0="success", _1="success", _1_0="success", _1_1="success")
    first = go(run, "a", input="i")
    assert (first.begins, first.target_input, header(first)["input"]) == (True, "i", "i")
    assert first.plan.events == [{"type": "workflow-start", "input": "i"}]
    inside = go(run, "n.b", input="i")
    assert (puts(inside)["1"].input, puts(inside)["1.0"].input, header(inside)["input"]) == ("i", "i", "start")
    stored = go(run, "n.b")
    assert (puts(stored)["1"].input, stored.target_input) == ("in1", "in1")
    second = go(run, "n.c", input="i")
    assert (puts(second)["1"].input, puts(second)["1.0"].output) == ("in1", "i")


def test_the_input_that_a_caller_gives_a_first_step_is_that_of_a_run_without_one() -> None:
    """Of one that has an input it stays. What a loop begins with is not known by its body."""
    of = graph(parallel("q", step("a"), step("b")), step("c"))
    given = {(0, 0): travel.StepOverride("o"), (0, 1): travel.StepOverride("p", "given")}
    result = go({"graph": of, **EMPTY}, "c", overrides=given)
    assert (header(result)["input"], puts(result)["0"].input, puts(result)["0.0"].input) == ("given",) * 3
    kept = go(stored_run(of, _0="success"), "c", overrides=given)
    assert header(kept)["input"] == "start"
    looped = graph(loop("l", 2, step("a")), step("c"))
    result = go({"graph": looped, **EMPTY}, "c", overrides={(0, 0): travel.StepOverride("o", "given")})
    assert header(result)["input"] == ""


def test_a_run_without_an_input_begins_without_one() -> None:
    """As a start does: only what stands behind an entry must get something."""
    result = go({"graph": graph(step("a"), step("b")), **EMPTY}, "a")
    assert (result.begins, result.target_input, puts(result)["0"].input) == (True, "", "")


def test_a_success_is_written_as_it_was_but_for_what_is_given() -> None:
    """Its moments and payloads stay; who says when it ended without its start means both."""
    of = graph(step("a"), step("b"))
    old = {"status": "failed", "started_at": 1, "suspended_at": 2, "resumed_at": 3, "ended_at": 4}
    run = stored_run(of, FAILED, _0={**old, "suspend": "s", "resume": "r", "first_seq": 9})
    kept = puts(go(run, "b"))["0"]
    assert (kept.started_at, kept.suspended_at, kept.resumed_at, kept.suspend, kept.resume) == (1, 2, 3, "s", "r")
    assert (kept.first_seq, kept.input, kept.output) == (9, "start", "")
    given = puts(go(run, "b", overrides={(0,): travel.StepOverride("o", ended_at=8, resumed_at=7)}))["0"]
    assert (given.started_at, given.resumed_at, given.output) == (8, 7, "o")
    bare = stored_run(of, FAILED, _0={**old})
    bare["header"] = replace(bare["header"], input="")
    assert puts(go(bare, "b"))["0"].input == "in0"


# --- blocks around the target -------------------------------------------------------------------------------------


def test_arms_beside_the_target_stay_where_the_choice_of_a_branch_stands() -> None:
    """Those that were not chosen are skipped; so are all, where the target was none of the chosen."""
    of = graph(branch("w", (0, 1), step("a"), step("b"), step("c")), step("d"))
    chosen = go(stored_run(of, FAILED, _0="failed", _0_0="success", _0_1="failed"), "b")
    assert "0.0" not in chosen.drop
    made = puts(chosen)
    assert (made["0.2"].status, made["0.2"].step, made["0.2"].input) == ("skipped", "c", "start")
    assert (made["0"].pending_children, made["0"].total, made["0"].next_item) == (1, 3, 3)
    other = go(stored_run(of, FAILED, _0="failed", _0_0="success", _0_1="skipped"), "b")
    assert "0.0" in other.drop
    assert [puts(other)[path].status for path in ("0.0", "0.1", "0.2")] == ["skipped", "queued", "skipped"]
    changed = go(stored_run(graph(step("z"), *of.flow), _0="success", _1_0="success", _1_1="failed"), "b", input="i")
    assert "1.0" in changed.drop


def test_an_arm_that_has_failed_stays_where_failures_are_allowed() -> None:
    """In another parallel it begins again."""
    for allowed in (True, False):
        of = graph(parallel("q", step("a"), step("b"), allow_failure=allowed))
        result = go(stored_run(of, FAILED, _0="failed", _0_0="failed", _0_1="success"), "b")
        assert ("0.0" in result.drop) is not allowed
        assert puts(result)["0"].pending_children == (1 if allowed else 2)


def test_an_arm_beside_the_target_may_be_given() -> None:
    """Then it has ended, with that output."""
    run = stored_run(BOTH, FAILED, _0="failed", _0_0="failed", _0_1="failed")
    made = puts(go(run, "b", overrides={(0, 0): travel.StepOverride("o")}))
    assert (made["0.0"].status, made["0.0"].output, made["0"].pending_children) == ("success", "o", 1)


def test_the_alternative_of_a_wait_is_a_place_to_travel_to() -> None:
    """The wait is open around it."""
    of = graph(step("a"), wait("w", 2.0, step("late")), step("b"))
    run = stored_run(of, _0="success", _1="success", _1_0="success", _2="success")
    result = go(run, "late")
    made = puts(result)
    assert (made["1"].status, made["1"].input, made["1"].step) == ("open", "out0", "w")
    assert (made["1.0"].status, made["1.0"].input, made["1.0"].visit) == ("queued", "out0", "")
    assert set(result.drop) == {"1", "1.0", "2"}


# --- the run ------------------------------------------------------------------------------------------------------


def test_a_travel_clears_the_end_of_the_run() -> None:
    """And begins a generation. Nothing is claimed by it, and a quiet run stays quiet."""
    of = graph(step("a"), step("b", control=True))
    run = stored_run(of, FAILED, _0="success")
    run["header"] = replace(run["header"], generation=4, quiet=True, failure="e", outcome="failed", error="e")
    result = go(run, "b")
    assert header(result) == {
        "status": "running",
        "generation": 5,
        "per_step": False,
        "outcome": "",
        "failure": "",
        "tripwire": False,
        "closed": False,
        "output": "",
        "error": "",
        "fingerprint": "fingerprint",
        "input": "start",
        "pending_resumes": "",
    }
    assert [op.claim for op in result.plan.ops if isinstance(op, CreateActivation)] == ["", ""]
    assert puts(result)["1"].quiet
    assert header(go(run, "b", per_step=True))["per_step"]


def test_a_step_that_is_of_another_name_by_now_is_a_gap() -> None:
    """The graph has changed there."""
    of, before = graph(step("a"), step("b")), graph(step("x"), step("b"))
    run = {**stored_run(before, _0="success"), "graph": of}
    with pytest.raises(GraphChanged, match="'a' stands before the target and is neither recorded nor given"):
        go(run, "b")


def test_the_items_of_a_foreach_that_has_not_begun_begin_with_the_first() -> None:
    """Nothing of it is kept."""
    of = graph(foreach("e", 3, 1, step("item")))
    result = go(stored_run(of, FAILED, _0={"status": "failed", "total": 3, "concurrency": 1}), "item")
    assert (puts(result)["0"].next_item, puts(result)["0"].pending_children) == (0, 3)
    assert result.copies == {f"0@@0.{index}": f"0@@1.{index}" for index in range(3)}


# --- resume data --------------------------------------------------------------------------------------------------


def test_a_target_begins_as_a_resumed_step_with_what_it_had_suspended_with() -> None:
    """Whatever it has come to since; a step that never ran has no payload."""
    of = graph(step("a"), step("b"))
    result = go(stored_run(of, _0={"status": "success", "suspend": "p"}, _1="success"), "a", resume=True)
    begun = puts(result)["0"]
    assert (begun.resumed, begun.resume, begun.suspend) == (True, "fr0", "p")
    assert pending_of(result) == {"0@": ["fr0", "p"]}
    fresh = go({"graph": of, **EMPTY}, "a", resume=True)
    assert pending_of(fresh) == {"0@": ["fr0", ""]}
    assert not puts(go(stored_run(of, _0="success"), "a"))["0"].resumed


def test_what_had_suspended_inside_the_target_gets_the_resume_data() -> None:
    """Before the target nothing does, nor beside it."""
    of = graph(
        step("z"), nested("n", step("a"), parallel("q", nested("m", step("b"), step("c")), step("d"))), step("e")
    )
    held = {"status": "suspended", "suspend": "s"}
    run = stored_run(
        of, _0="success", _1="open", _1_0="success", _1_1="open", _1_1_0="open", _1_1_0_1=held, _1_1_1=held, _2=held
    )
    assert go(run, "n", resume=True).resumed == {"fr0": (1, 1, 0, 1), "fr1": (1, 1, 1), "fr2": (2,)}
    assert go(run, "n.m.b", resume=True).resumed == {"fr0": (1, 1, 0, 1), "fr1": (2,)}
    assert go(run, "n.d", resume=True).resumed == {"fr0": (1, 1, 1), "fr1": (2,)}
    assert go(run, "z", resume=True).resumed.keys() == {"fr0", "fr1", "fr2"}


def test_the_items_of_every_foreach_behind_the_target_go_on_where_they_were() -> None:
    """What has succeeded stays, and nothing else."""
    of = graph(step("a"), foreach("e", 3, 3, step("x")), foreach("f", 2, 2, step("y")))
    held = {"status": "suspended"}
    places: dict[str, Any] = {
        "_0": "success",
        "_1": {"status": "open", "total": 3, "concurrency": 3},
        "_1_0": held,
        "_1_1": "success",
        "_2": {"status": "open", "total": 2, "concurrency": 2},
        "_2_1": held,
    }
    result = go(stored_run(of, StoredStatus.SUSPENDED, **places), "a", resume=True)
    assert pending_of(result) == {
        "1.0@": ["fr0", ""],
        "2.1@": ["fr1", ""],
        "1@": [3, 2, [[1, 2]]],
        "2@": [2, 2, []],
    }
    assert {"1.0", "2.1", "1", "2"} <= set(result.drop)
    assert "1.1" not in result.drop


# --- loops and names ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("iteration", [1, 3])
def test_a_step_in_a_loop_begins_in_the_iteration_that_the_loop_was_in(iteration: int) -> None:
    """With the inputs that loop and body had. Where no body is stored, with the first."""
    of = graph(loop("l", 9, nested("n", step("a"), step("b"))))
    at = {"visit": str(iteration)}
    run = stored_run(
        of,
        FAILED,
        _0={"status": "failed", "iteration": iteration},
        _0_0={"status": "failed", **at},
        _0_0_0={"status": "success", **at},
    )
    made = puts(go(run, "n.b"))
    assert (made["0"].iteration, made["0"].input, made["0.0"].input) == (iteration, "in0", "in0.0")
    assert (made["0.0.1"].visit, made["0.0.1"].input) == (str(iteration), "out0.0.0")
    bodiless = stored_run(of, FAILED, _0={"status": "failed", "iteration": iteration})
    assert puts(go(bodiless, "n.a"))["0"].iteration == 1


def test_where_a_step_is_missing_is_told_in_the_callers_words() -> None:
    """By the ids down to the workflow in which it was looked for."""
    of = graph(nested("n", nested("m", step("a"))))
    with pytest.raises(StepNotFound, match=r"there is no step 'x' in n\.m"):
        travel.find_target(of, ["n", "m", "x"])
    with pytest.raises(GraphChanged, match="give `input`, or the payload of the first step in `context`"):
        go({"graph": graph(sleep("s"), step("b")), **EMPTY}, "b")


def test_a_sleep_passes_on_what_is_new_and_stays_where_nothing_is() -> None:
    """One of which nothing is stored passes on what it gets."""
    of = graph(parallel("q", step("a"), step("b")), sleep("s"), step("c"))
    run = stored_run(of, _0="success", _0_0="success", _0_1="success", _1="success")
    same = go(run, "c")
    assert (same.target_input, same.drop, puts(same).keys()) == ("out1", (), {"", "2"})
    new = go(run, "c", overrides={(0, 1): travel.StepOverride("o")})
    assert (puts(new)["1"].output, new.target_input) == ("f.1", "f.1")
    given = go(run, "c", overrides={(0, 1): travel.StepOverride("")})
    assert given.plan.values == {"f.1": '{"a":"out0.0","b":""}'}
    unknown = go(stored_run(graph(sleep("s"), step("b")), _1="success"), "b")
    assert (unknown.target_input, unknown.begins) == ("start", False)


def test_a_foreach_with_another_input_begins_anew() -> None:
    """Its items are other ones by then."""
    of = graph(foreach("e", 3, 1, step("item")))
    run = stored_run(of, FAILED, _0={"status": "failed", "total": 3, "concurrency": 1}, _0_0="success")
    assert puts(go(run, "item"))["0"].status == "open"
    anew = puts(go(run, "item", input="i"))["0"]
    assert (anew.status, anew.phase, anew.input) == ("queued", "fan_out", "i")


def test_a_gap_in_a_new_run_is_no_value_that_flows_on() -> None:
    """What stands behind it gets nothing from it, and a sleep passes nothing on."""
    steps = graph(step("a"), step("b"), step("c"))
    made = puts(go({"graph": steps, **EMPTY}, "c", overrides={(1,): travel.StepOverride("o")}))
    assert (made["1"].input, made["2"].input) == ("", "o")
    with pytest.raises(GraphChanged, match="or step 'a' in `context`"):
        go({"graph": graph(step("a"), sleep("s"), step("b")), **EMPTY}, "b")
    given = {(0,): travel.StepOverride("o"), (1,): travel.StepOverride("p", "not the first")}
    assert header(go({"graph": steps, **EMPTY}, "c", overrides=given))["input"] == ""


def test_a_workflow_that_has_no_input_of_its_own_gets_what_flows_in() -> None:
    """Because the run had not come there, or because nothing was stored."""
    of = graph(step("a"), nested("n", step("b")))
    for known in ({}, {"_1": {"status": "open", "input": ""}}):
        made = puts(go(stored_run(of, _0="success", **known), "n.b"))
        assert (made["1"].input, made["1.0"].input) == ("out0", "out0")


def test_beside_a_foreach_that_goes_on_nothing_begins_in_a_run_by_single_steps() -> None:
    """Its items are what the caller has asked for."""
    of = graph(parallel("q", foreach("e", 3, 3, step("item")), step("b")))
    block = {"status": "failed", "total": 3, "concurrency": 3}
    run = stored_run(of, FAILED, _0="failed", _0_0=block, _0_0_0="success", _0_0_1="failed", _0_1="failed")
    made = puts(go(run, "e", per_step=True))
    assert (made["0.0"].status, made["0.0.1"].status, made["0.1"].status) == ("open", "queued", "paused")
