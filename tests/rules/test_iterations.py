"""The values that a loop's finished iterations have made: which are listed, and which go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.rules import iterations
from orchestrator.rules.graph import Graph, Node
from orchestrator.rules.iterations import FinishedIteration, find_outgoing, parse_manifest, release, write_manifest
from orchestrator.rules.model import Activation, RunHeader
from orchestrator.rules.plan import ClaimedNode
from tests.simulation.acts import branch, foreach, graph, loop, nested, parallel, sleep, step, wait

LOOP = Activation(path="0", lease_token="check", iteration=2, input="out")


def claim(of: Graph, activation: Activation = LOOP, generation: int = 0) -> ClaimedNode:
    """The claim of the loop that is the first entry of this graph."""
    return ClaimedNode(of, RunHeader(generation=generation), activation, "next")


def collected(body: Node, *activations: Activation, generation: int = 0) -> FinishedIteration:
    """Collect from these activations, as a store has them."""
    found = FinishedIteration(claim(graph(loop("l", 9, body)), generation=generation))
    stored = {activation.path: activation for activation in activations}
    while paths := found.paths:
        found.add([stored[path] for path in paths if path in stored])
    return found


def made(body: Node, *activations: Activation, **more: Any) -> list[str]:
    """List what is made by these activations of the second iteration."""
    return collected(body, *activations, **more).list_made({})


def at(path: str, **fields: Any) -> Activation:
    """An activation of the second iteration."""
    return replace(Activation(path=path, visit="2", input="in"), **fields)


# --- what is listed ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({"output": "o"}, ["o"]),
        ({"output": "in"}, []),  # it was passed on
        ({"error": "t!"}, ["t!"]),
        ({"suspend": "s", "resume": "r", "output": "o"}, ["o", "s", "r"]),
        ({"input": "t", "last_lease_token": "t"}, ["t"]),  # as it was validated
        ({"input": "t", "last_lease_token": ""}, []),
        ({"input": "t", "last_lease_token": "other"}, []),
    ],
)
def test_a_node_has_made_what_did_not_come_from_outside(fields: Mapping[str, Any], expected: list[str]) -> None:
    """Its input is the output of what stands before it, perhaps before the loop."""
    assert made(nested("n", step("a")), at("0.0", **fields)) == expected


def test_all_that_is_inside_the_iteration_is_listed_once() -> None:
    """Arms, alternatives, nested workflows and items, level by level."""
    body = nested(
        "n", parallel("p", step("a"), sleep("s")), branch("b", (0,), step("c"), step("d")), wait("w", 1, step("e"))
    )
    found = [
        at("0.0", output="last"),
        at("0.0.0", output="p"),
        at("0.0.0.0", output="a"),
        at("0.0.0.1", output="in"),
        at("0.0.1", output="b"),
        at("0.0.1.1", output="d"),
        at("0.0.2", output="last"),
        at("0.0.2.0", output="last"),
    ]
    assert made(body, *found) == ["last", "p", "b", "a", "d"]


def test_what_an_earlier_iteration_left_is_not_of_this_one() -> None:
    """An arm that was not chosen this time, with all that is inside it."""
    old = [at("0.0.1", output="old", visit="1"), at("0.0.1.0", output="older", visit="1")]
    body = branch("b", (0,), step("a"), nested("n", step("c")))
    assert made(body, at("0.0", output="b"), at("0.0.0", output="a"), *old) == ["b", "a"]


def test_the_inputs_of_items_are_listed() -> None:
    """Of all that were written, also those that never began; and of those that come from an older generation."""
    body = foreach("f", 3, 1, nested("n", step("a"), checks=True))
    first = at("0.0.0", index=0, input="0.0@2@0.0", output="x")
    second = at("0.0.1", index=1, input="t", last_lease_token="t", output="y")
    inner = at("0.0.0.0", input="0.0@2@0.0", output="x")
    found = made(body, at("0.0", total=3, output="all"), first, second, inner, generation=1)
    assert found == ["all", "0.0@2@1.0", "0.0@2@1.1", "0.0@2@1.2", "x", "0.0@2@0.0", "y", "t"]


def test_what_inner_loops_have_kept_belongs_to_the_iteration_around_them() -> None:
    """Their manifests, with what these list. Of the inner loop itself only the latest iteration is there."""
    body = loop("inner", 3, step("a"))
    inner = at("0.0", iteration=3, input="o3", output="o3", finished="m1 m2")
    found = collected(body, inner, at("0.0.0", visit="2.3", output="o3"), at("0.0.0.0", visit="2.3", output="none"))
    assert found.manifests == ["m1", "m2"]
    texts = {"m1": write_manifest(["o1"]), "m2": write_manifest(["o2", "o3"])}
    assert found.list_made(texts) == ["o3", "m1", "m2", "o1", "o2"]
    assert found.list_made({}) == ["o3", "m1", "m2"]
    # The body of an earlier iteration of the inner loop is listed already.
    assert made(body, inner, at("0.0.0", visit="2.2", output="o2")) == ["m1", "m2"]


def test_an_iteration_that_is_too_large_lists_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither places nor values nor manifests may be more; and what is too wide is not read."""
    monkeypatch.setattr(iterations, "MAX_LISTED", 5)
    wide = collected(foreach("f", 5, 5, step("a")), at("0.0", total=5, output="all"))
    assert (wide.is_too_large, wide.paths, wide.list_made({})) == (True, [], [])
    fits = foreach("f", 2, 2, step("a"))
    items = [at(f"0.0.{n}", index=n, input=f"0.0@2@0.{n}", output=f"o{n}") for n in range(2)]
    assert len(made(fits, at("0.0", total=2, output="all"), *items)) == 5
    assert made(fits, at("0.0", total=2, output="all"), items[0], replace(items[1], resume="r")) == []
    many = at("0.0", iteration=1, output="o", finished="m1 m2 m3 m4 m5 m6")
    assert collected(loop("i", 2, step("a")), many).manifests == []
    two = collected(loop("i", 2, step("a")), replace(many, finished="m1 m2"))
    assert two.list_made({"m1": write_manifest(["1", "2", "3", "4"])}) == []


def test_a_manifest_reads_back() -> None:
    """It refers to nothing: readers follow references. One that is gone lists nothing."""
    assert parse_manifest(write_manifest(["a", "0.1@2@0.3"])) == ["a", "0.1@2@0.3"]
    assert parse_manifest(None) == []
    assert iterations.values.references(write_manifest(["a"])) == ()


# --- what goes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "finished, keep, going",
    [("", 1, []), ("a", 1, ["a"]), ("a", 2, []), ("a b", 2, ["a"]), ("a b c d", 1, ["a", "b"]), ("a b c", 9, [])],
)
def test_the_oldest_go(finished: str, keep: int, going: list[str]) -> None:
    """One comes, so one goes; two where fewer are to be kept than before, whose commits must not be large either."""
    assert find_outgoing(replace(LOOP, finished=finished), keep) == going


def test_a_new_manifest_comes_and_an_older_one_goes() -> None:
    """With all that it lists, and with nothing that is in use: that is listed again."""
    of = graph(loop("l", 9, step("a")))
    claimed = claim(of, replace(LOOP, finished="m0 m1"))
    iteration = FinishedIteration(claimed)
    iteration.add([at("0.0", output="out")])
    texts = {"m0": write_manifest(["a", "b", "c"]), "m1": write_manifest(["d"])}
    found = release(claimed, iteration, 2, texts, {"out", "b", "d"})
    assert found.finished == "m1 checkm"
    assert found.values == {"checkm": write_manifest(["out", "b"])}
    assert found.drop_values == ("m0", "a", "c")


def test_what_finds_no_room_in_a_manifest_stays_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that grows by reference makes no manifest larger than any other."""
    monkeypatch.setattr(iterations, "MAX_LISTED", 2)
    claimed = claim(graph(loop("l", 9, step("a"))), replace(LOOP, finished="m0"))
    iteration = FinishedIteration(claimed)
    iteration.add([at("0.0", output="out")])
    found = release(claimed, iteration, 1, {"m0": write_manifest(["a", "b", "c"])}, {"out", "b", "c"})
    assert found.values == {"checkm": write_manifest(["out"])}
    assert found.drop_values == ("m0", "a")


def test_a_manifest_that_is_gone_drops_itself() -> None:
    """Nothing is known of what it listed."""
    claimed = claim(graph(loop("l", 9, step("a"))), replace(LOOP, finished="m0"))
    assert release(claimed, FinishedIteration(claimed), 1, {}, ()).drop_values == ("m0",)
