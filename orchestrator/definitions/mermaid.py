"""A graph as the text of a Mermaid flowchart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from orchestrator.definitions.bodies import ForeachBody, NestedBody, SleepBody
from orchestrator.definitions.picture import condition_name, condition_names
from orchestrator.rules import graph
from orchestrator.rules.graph import Graph, Node

_COLOURS = {
    "queued": "fill:#eceff1,stroke:#78909c",
    "running": "fill:#e3f2fd,stroke:#1e88e5",
    "retrying": "fill:#fff8e1,stroke:#ffb300",
    "waiting": "fill:#ede7f6,stroke:#7e57c2",
    "suspended": "fill:#f3e5f5,stroke:#8e24aa",
    "paused": "fill:#ede7f6,stroke:#5e35b1",
    "success": "fill:#e8f5e9,stroke:#43a047",
    "failed": "fill:#ffebee,stroke:#e53935",
    "skipped": "fill:#fafafa,stroke:#bdbdbd,stroke-dasharray:4 3",
    "canceled": "fill:#efebe9,stroke:#6d4c41",
}
_SPECIAL = {"#": "#35;", "&": "#amp;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "`": "#96;", "\n": "<br/>"}

Exits = tuple[tuple[str, str], ...]  # where a drawn node is left: id, and the label of the arrow that leaves


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A drawn node, as the arrows see it."""

    # The id to which the arrows into it go.
    head: str
    # The places from which the arrows out of it come.
    exits: Exits


def draw(whole: Graph, states: Mapping[str, str]) -> str:
    """The picture, from top to bottom. `states`: dotted ids of entries to statuses, which colour them."""
    return _Picture(states).whole(whole)


class _Picture:
    # More public methods than most classes: one for each kind of node.

    def __init__(self, states: Mapping[str, str]) -> None:
        self.states = {key: str(status) for key, status in states.items()}
        self.lines: list[str] = ["flowchart TD"]
        self.classes: dict[str, list[str]] = {}
        self.depth = 1

    def whole(self, whole: Graph) -> str:
        self.line('start(["start"])')
        last = self.flow(whole.flow, "n", "", (("start", ""),))
        self.line('done(["done"])')
        self.arrows(last, "done")
        for status in sorted(self.classes):
            self.line(f"classDef {status} {_COLOURS[status]}")
            self.line(f"class {','.join(self.classes[status])} {status}")
        return "\n".join(self.lines) + "\n"

    def line(self, text: str) -> None:
        self.lines.append("    " * self.depth + text)

    def arrows(self, exits: Exits, head: str) -> None:
        for tail, label in exits:
            self.arrow(tail, head, label)

    def arrow(self, tail: str, head: str, label: str = "") -> None:
        self.line(f'{tail} -->|"{_text(label)}"| {head}' if label else f"{tail} --> {head}")

    def flow(self, nodes: Sequence[Node], place: str, scope: str, exits: Exits, number: int = 0) -> Exits:
        """Draw a sequence after these exits; return its own. `place` begins the ids, `scope` the dotted ids."""
        for index, node in enumerate(nodes, number):
            drawn = self.node(node, f"{place}{index}", scope)
            self.arrows(exits, drawn.head)
            exits = drawn.exits
        return exits

    def node(self, node: Node, place: str, scope: str) -> _Drawn:
        match node:
            case graph.Step():
                left, right = ("[/", "/]") if node.component == "MAP" else ("[", "]")
                label = f"{node.id} (task)" if node.component == "TASK" else node.id
                return self.leaf(place, scope + node.id, left, label, right)
            case graph.Sleep():
                return self.leaf(place, scope + node.id, "([", f"{node.id}: {_how_long(node)}", "])")
            case graph.Wait():
                return self.wait(node, place, scope)
            case graph.Nested():
                return self.nested(node, place, scope)
            case graph.Parallel(arms=arms):
                return self.arms(place, scope, f'{place}((" "))', [(arm, "") for arm in arms])
            case graph.Branch(arms=arms):
                labelled = list(zip(arms, condition_names(node), strict=True))
                return self.arms(place, scope, f'{place}{{"which?"}}', labelled)
            case graph.Loop():
                return self.loop(node, place, scope)
            case graph.Foreach():
                return self.foreach(node, place, scope)
            case _:
                assert_never(node)

    def leaf(self, place: str, dotted: str, left: str, label: str, right: str) -> _Drawn:
        self.line(f'{place}{left}"{_text(label)}"{right}')
        self.colour(place, dotted)
        return _Drawn(place, ((place, ""),))

    def colour(self, place: str, dotted: str) -> None:
        status = self.states.get(dotted, "")
        if status in _COLOURS:
            self.classes.setdefault(status, []).append(place)

    def arms(self, place: str, scope: str, fork: str, arms: Sequence[tuple[Node, str]]) -> _Drawn:
        """A fork, the arms side by side, and a join."""
        self.line(fork)
        join = f"{place}j"
        drawn = [(self.node(arm, f"{place}_{index}", scope), label) for index, (arm, label) in enumerate(arms)]
        self.line(f'{join}((" "))')
        for arm, label in drawn:
            self.arrow(place, arm.head, label)
            self.arrows(arm.exits, join)
        return _Drawn(place, ((join, ""),))

    def loop(self, node: graph.Loop, place: str, scope: str) -> _Drawn:
        body = self.node(node.body_node, f"{place}_0", scope)
        again, on = ("no", "yes") if node.until else ("yes", "no")
        word = "until" if node.until else "while"
        self.line(f'{place}{{"{_text(f"{word} {condition_name(node)}?")}"}}')
        self.arrows(body.exits, place)
        self.arrow(place, body.head, f"{again}: again")
        return _Drawn(body.head, ((place, on),))

    def foreach(self, node: graph.Foreach, place: str, scope: str) -> _Drawn:
        computed = node.body.concurrency if isinstance(node.body, ForeachBody) else None
        width = computed.name if computed else node.concurrency
        return self.group(place, f"foreach, {width} at a time", lambda: self.node(node.body_node, f"{place}_0", scope))

    def nested(self, node: graph.Nested, place: str, scope: str) -> _Drawn:
        version = node.body.definition.version if isinstance(node.body, NestedBody) else None
        title = node.id if version is None else f"{node.id} (version {version})"

        def inside() -> _Drawn:
            dotted = f"{scope}{node.id}."
            first = self.node(node.flow[0], f"{place}_0", dotted)
            return _Drawn(first.head, self.flow(node.flow[1:], f"{place}_", dotted, first.exits, 1))

        drawn = self.group(place, title, inside)
        self.colour(place, scope + node.id)
        return drawn

    def group(self, place: str, title: str, inside: Callable[[], _Drawn]) -> _Drawn:
        self.line(f'subgraph {place}["{_text(title)}"]')
        self.depth += 1
        drawn = inside()
        self.depth -= 1
        self.line("end")
        return drawn

    def wait(self, node: graph.Wait, place: str, scope: str) -> _Drawn:
        waiting = self.leaf(place, scope + node.id, "{{", f"wait for {node.event}", "}}")
        if node.otherwise is None:
            return waiting
        late = self.node(node.otherwise, f"{place}_0", scope)
        self.arrow(place, late.head, f"after {_seconds(node.timeout or 0.0)}")
        return _Drawn(place, (*waiting.exits, *late.exits))


def _how_long(node: graph.Sleep) -> str:
    if node.seconds is not None:
        return _seconds(node.seconds)
    body = node.body
    if isinstance(body, SleepBody) and body.until is not None:
        return f"until {body.until.isoformat()}"
    return body.callback.name if isinstance(body, SleepBody) and body.callback else "computed"


def _seconds(seconds: float) -> str:
    return f"{seconds:g} s"


def _text(text: str) -> str:
    """A text that may stand between double quotes."""
    return "".join(_SPECIAL.get(char, char if char.isprintable() else " ") for char in text)
