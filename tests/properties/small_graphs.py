"""Small graphs with blocks in blocks, for generated histories."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from hypothesis import strategies as st

from orchestrator.rules.graph import Branch, Foreach, Graph, Loop, Nested, Node, Parallel, Route, Sleep, Step, Wait

LONG = 10_000_000  # ms: what nobody lives to see


def _route(name: str) -> Route:
    return Route(name, queue="q/é" if len(name) % 2 else None)


def _node(draw: st.DrawFn, names: Iterator[str], depth: int) -> Node:
    kinds = ["step", "step", "map", "sleep", "wait"]
    if depth:
        kinds += ["parallel", "branch", "loop", "foreach", "nested", "foreach"]
    name = next(names)
    route = _route(name)
    match draw(st.sampled_from(kinds)):
        case "map":
            return Step(name, "MAPPING", route, control=True)
        case "sleep":
            return Sleep(name, route, draw(st.sampled_from([None, 0.0, LONG / 1000])))
        case "wait":
            return Wait(name, route, "event", None, None)
        case "parallel":
            return Parallel(name, route, _nodes(draw, names, depth - 1, 3), draw(st.booleans()))
        case "branch":
            return Branch(name, route, _nodes(draw, names, depth - 1, 2))
        case "loop":
            return Loop(name, route, _node(draw, names, depth - 1), True)
        case "foreach":
            return Foreach(name, route, _node(draw, names, depth - 1), None)
        case "nested":
            return Nested(name, route, _nodes(draw, names, depth - 1, 2), draw(st.booleans()))
        case _:
            return Step(name, "STEP", route, inline=draw(st.booleans()))


def _nodes(draw: st.DrawFn, names: Iterator[str], depth: int, most: int) -> tuple[Node, ...]:
    return tuple(_node(draw, names, depth) for _ in range(draw(st.integers(1, most))))


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Give a small graph with blocks in blocks."""
    return Graph("w", _nodes(draw, (f"s{n}" for n in itertools.count()), 2, 3), "f")
