"""A workflow as data: an immutable tree of blocks, in which a path names every place.

A path is the index in the flow, then the index of the arm, item or inner entry, and so on down; `()` is the run itself.
A node's `body` is what the engine executes there; the core carries it and never looks inside.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import assert_never

Path = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how late a failed step runs again: `attempts` more runs, `delay` seconds apart or backing off."""

    attempts: int = 0
    delay: float = 0.0
    backoff: bool = False
    backoff_max: float = 600.0
    jitter: bool = True

    def pause(self, attempt: int, chance: float) -> float:
        """Seconds before run number `attempt` (the first retry is 1); `chance` in [0, 1) spreads a backoff."""
        if not self.backoff:
            return self.delay
        full = min(self.backoff_max, max(self.delay, 1.0) * 2.0 ** min(attempt - 1, 60))
        return full * chance if self.jitter else full


@dataclass(frozen=True, slots=True)
class Route:
    """What the message of a step needs, so that it can be published again by someone without the graph.

    `name` is what logs and monitors show. `task` is the name of a registered task that carries the step itself.
    """

    name: str
    queue: str | None = None
    priority: int | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    task: str | None = None

    @property
    def has_limit(self) -> bool:
        """True where the message has a time limit of its own, which is for nobody but the step that it is for."""
        return bool(self.time_limit or self.soft_time_limit)


@dataclass(frozen=True, slots=True)
class Step:
    """A leaf that runs a function: a step, a mapping or an existing task.

    A `control` leaf (a mapping) runs in the worker that ended its predecessor; an `inline` one may.
    """

    id: str
    component: str
    route: Route
    retry: Retry = Retry()
    control: bool = False
    inline: bool = False
    body: object = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Sleep:
    """Passes its input on after `seconds`; None when the moment is computed as the sleep begins."""

    id: str
    route: Route
    seconds: float | None
    body: object = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Wait:
    """Waits for an event by its name; `otherwise` runs when `timeout` seconds have passed without one."""

    id: str
    route: Route
    event: str
    timeout: float | None
    otherwise: Node | None
    body: object = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Nested:
    """A workflow inside a workflow: a scope with its own input and its own step results.

    `checks` says that its input is validated on entry, which takes an activation of its own.
    """

    id: str
    route: Route
    flow: tuple[Node, ...]
    checks: bool
    body: object = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Parallel:
    """All arms at once; the output is a dict of the arms. With `allow_failure` a failed arm counts as None."""

    id: str
    route: Route
    arms: tuple[Node, ...]
    allow_failure: bool = False


@dataclass(frozen=True, slots=True)
class Branch:
    """Every arm whose condition holds, at once; the output is a dict of the arms that ran."""

    id: str
    route: Route
    arms: tuple[Node, ...]
    body: object = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Loop:
    """The body, then the condition: again while it holds, or until it holds."""

    id: str
    route: Route
    body_node: Node
    until: bool
    body: object = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Foreach:
    """The body once for each item of the input, at most `concurrency` at a time (None: computed when it begins)."""

    id: str
    route: Route
    body_node: Node
    concurrency: int | None
    body: object = field(default=None, compare=False)


Node = Step | Sleep | Wait | Nested | Parallel | Branch | Loop | Foreach
Block = Parallel | Branch | Loop | Foreach


@dataclass(frozen=True, slots=True)
class Graph:
    """A whole workflow: its id, its flow and the fingerprint of its shape."""

    id: str
    flow: tuple[Node, ...]
    fingerprint: str
    body: object = field(default=None, compare=False)

    def node(self, path: Path) -> Node:
        """The node at `path` (not the run itself). Raises LookupError where the graph has no such place."""
        node: Node | None = None
        flow: tuple[Node, ...] | None = self.flow
        for index in path:
            node = _child(node, flow, index)
            flow = node.flow if isinstance(node, Nested) else None
        if node is None:
            raise LookupError("the run itself is not a node of its graph")
        return node

    def scope(self, path: Path) -> Path:
        """The path of the innermost nested workflow around `path`, `()` for the run itself."""
        for cut in range(len(path) - 1, 0, -1):
            if isinstance(self.node(path[:cut]), Nested):
                return path[:cut]
        return ()

    def loops(self, path: Path) -> int:
        """How many loops stand around `path`: the length of the visit of an activation there."""
        return sum(isinstance(self.node(path[:cut]), Loop) for cut in range(1, len(path)))

    def entries(self, scope: Path) -> tuple[Node, ...]:
        """The flow of the scope at `scope`."""
        if not scope:
            return self.flow
        node = self.node(scope)
        if not isinstance(node, Nested):
            raise LookupError(f"{scope} is not a nested workflow")
        return node.flow

    def find(self, scope: Path, step_id: str) -> Path | None:
        """Where the scope keeps the result of `step_id`, or None if it has no such step."""
        for index, node in enumerate(self.entries(scope)):
            for path, found in _results((*scope, index), node):
                if found == step_id:
                    return path
        return None

    def walk(self) -> Iterator[Node]:
        """Every node, outside in, in order."""
        for node in self.flow:
            yield from _walk(node)

    def tolerated(self, path: Path) -> bool:
        """Whether a failure at `path` can end at a parallel block that allows failures."""
        above = (self.node(path[:cut]) for cut in range(1, len(path)))
        return any(isinstance(node, Parallel) and node.allow_failure for node in above)


def _walk(node: Node) -> Iterator[Node]:
    yield node
    match node:
        case Parallel(arms=inner) | Branch(arms=inner) | Nested(flow=inner):
            for each in inner:
                yield from _walk(each)
        case Loop(body_node=body) | Foreach(body_node=body):
            yield from _walk(body)
        case Wait(otherwise=otherwise) if otherwise is not None:
            yield from _walk(otherwise)
        case _:
            pass


def _child(node: Node | None, flow: tuple[Node, ...] | None, index: int) -> Node:
    if flow is not None:
        if 0 <= index < len(flow):
            return flow[index]
        raise LookupError(f"no entry {index}")
    match node:
        case Parallel(arms=arms) | Branch(arms=arms) if 0 <= index < len(arms):
            return arms[index]
        case Foreach(body_node=body) if index >= 0:
            return body
        case Loop(body_node=body) if index == 0:
            return body
        case Wait(otherwise=otherwise) if index == 0 and otherwise is not None:
            return otherwise
        case _:
            raise LookupError(f"no child {index}")


def _results(path: Path, node: Node) -> Iterator[tuple[Path, str]]:
    """The places of one entry under which a scope keeps step results, with their ids."""
    match node:
        case Parallel(arms=arms) | Branch(arms=arms):
            yield from (((*path, index), arm.id) for index, arm in enumerate(arms))
        case Loop(body_node=body):
            yield (*path, 0), body.id
        case Foreach(body_node=body):
            yield path, body.id
        case Wait(otherwise=otherwise):
            yield path, node.id
            if otherwise is not None:
                yield (*path, 0), otherwise.id
        case Step() | Sleep() | Nested():
            yield path, node.id
        case _:
            assert_never(node)
