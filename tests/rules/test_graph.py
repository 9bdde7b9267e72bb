"""A path names every place of a workflow, and nothing else."""

from __future__ import annotations

import pytest

from orchestrator.rules.graph import Path, Retry, Route, Wait
from tests.simulation.acts import branch, foreach, graph, loop, nested, parallel, sleep, step

WAIT = Wait("wait", Route("wait"), "event", None, step("late"))
GRAPH = graph(
    step("a"),
    parallel("p", step("b"), nested("n", step("c"), loop("l", 2, step("d")))),
    foreach("f", 3, 1, nested("each", step("e"))),
    branch("br", (0,), step("g"), sleep("s")),
    WAIT,
    parallel("soft", loop("soft loop", 2, step("h")), allow_failure=True),
)


@pytest.mark.parametrize(
    "path, name",
    [
        ((0,), "a"),
        ((1,), "p"),
        ((1, 1), "n"),
        ((1, 1, 0), "c"),
        ((1, 1, 1, 0), "d"),
        ((2, 0), "each"),
        ((2, 7), "each"),
        ((2, 7, 0), "e"),
        ((3, 1), "s"),
        ((4, 0), "late"),
    ],
)
def test_a_path_leads_to_its_node(path: Path, name: str) -> None:
    """It leads through flows, arms, bodies, items, and the alternative of a wait."""
    assert GRAPH.node(path).id == name


@pytest.mark.parametrize("path", [(), (9,), (-1,), (0, 0), (1, 2), (1, 1, 9), (1, 1, 1, 1), (2, -1), (3, 0, 0), (4, 1)])
def test_a_path_without_a_node_is_an_error(path: Path) -> None:
    """The path of the run itself is one."""
    with pytest.raises(LookupError):
        GRAPH.node(path)


@pytest.mark.parametrize(
    "path, scope", [((0,), ()), ((1, 1), ()), ((1, 1, 0), (1, 1)), ((1, 1, 1, 0), (1, 1)), ((2, 4, 0), (2, 4))]
)
def test_the_scope_is_the_innermost_nested_workflow_around(path: Path, scope: Path) -> None:
    """A nested workflow itself stands in the scope around it."""
    assert GRAPH.scope(path) == scope


@pytest.mark.parametrize("path, count", [((0,), 0), ((1, 1, 1), 0), ((1, 1, 1, 0), 1), ((5, 0, 0), 1), ((2, 0, 0), 0)])
def test_the_loops_around_a_place_are_counted(path: Path, count: int) -> None:
    """A loop does not stand around itself."""
    assert GRAPH.loops(path) == count


@pytest.mark.parametrize(
    "scope, name, path",
    [
        ((), "a", (0,)),
        ((), "b", (1, 0)),
        ((), "n", (1, 1)),
        ((), "c", None),
        ((), "each", (2,)),
        ((), "g", (3, 0)),
        ((), "late", (4, 0)),
        ((), "wait", (4,)),
        ((1, 1), "c", (1, 1, 0)),
        ((1, 1), "d", (1, 1, 1, 0)),
        ((1, 1), "a", None),
    ],
)
def test_a_step_is_found_in_its_scope_alone(scope: Path, name: str, path: Path | None) -> None:
    """The path is that of its result. A foreach keeps it at its own place, under the id of its body."""
    assert GRAPH.find(scope, name) == path


def test_a_scope_is_a_workflow() -> None:
    """Only a workflow has entries."""
    assert [node.id for node in GRAPH.entries((1, 1))] == ["c", "l"]
    with pytest.raises(LookupError):
        GRAPH.entries((0,))


def test_every_node_has_its_place() -> None:
    """In the order of the flow, outside in. Of the items of a foreach the index is not known."""
    places = {place: node.id for place, node in GRAPH.places()}
    assert list(places.items()) == [
        ((0,), "a"),
        ((1,), "p"),
        ((1, 0), "b"),
        ((1, 1), "n"),
        ((1, 1, 0), "c"),
        ((1, 1, 1), "l"),
        ((1, 1, 1, 0), "d"),
        ((2,), "f"),
        ((2, None), "each"),
        ((2, None, 0), "e"),
        ((3,), "br"),
        ((3, 0), "g"),
        ((3, 1), "s"),
        ((4,), "wait"),
        ((4, 0), "late"),
        ((5,), "soft"),
        ((5, 0), "soft loop"),
        ((5, 0, 0), "h"),
    ]
    assert [node.id for node in GRAPH.walk()] == list(places.values())
    assert [(place, node.id) for place, node in GRAPH.places((1, 1))] == [
        ((1, 1, 0), "c"),
        ((1, 1, 1), "l"),
        ((1, 1, 1, 0), "d"),
    ]
    assert [node.id for node in GRAPH.walk((1, 1))] == ["c", "l", "d"]


@pytest.mark.parametrize(
    "path, tolerated", [((0,), False), ((1, 0), False), ((5,), False), ((5, 0), True), ((5, 0, 0), True)]
)
def test_a_failure_is_tolerated_below_a_block_that_allows_it(path: Path, tolerated: bool) -> None:
    """It is tolerated at any depth below the block, but not at the block itself."""
    assert GRAPH.tolerates_failure(path) is tolerated


@pytest.mark.parametrize(
    "retry, attempt, chance, seconds",
    [
        (Retry(3, 2.0), 1, 0.5, 2.0),
        (Retry(3, 2.0), 3, 0.5, 2.0),
        (Retry(3, 2.0, backoff=True, jitter=False), 3, 0.5, 8.0),
        (Retry(3, 0.0, backoff=True, jitter=False), 1, 0.5, 1.0),
        (Retry(9, 2.0, backoff=True, backoff_max=10.0, jitter=False), 9, 0.5, 10.0),
        (Retry(3, 2.0, backoff=True), 3, 0.5, 4.0),
        (Retry(3, 2.0, backoff=True), 5000, 0.0, 0.0),
    ],
)
def test_a_retry_policy_gives_the_pause(retry: Retry, attempt: int, chance: float, seconds: float) -> None:
    """It is fixed, or doubles up to a limit and is spread by chance."""
    assert retry.pause(attempt, chance) == seconds
