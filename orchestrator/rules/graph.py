"""A workflow as data: an immutable tree of blocks, in which a path names every place.

A path is the index in the flow, then the index of the arm, item or inner entry, and so on down. `()` is the run itself.
A node's `body` is what the engine executes there. The rules carry it and must never look inside, because a graph stays
comparable and testable without user code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import assert_never

Path = tuple[int, ...]
Place = tuple[int | None, ...]  # a path in the graph alone, in which None stands for the index of an item


@dataclass(frozen=True, slots=True)
class Retry:
    """The retry policy of a step: how many more attempts it has, and how long each waits."""

    attempts: int = 0  # attempts after the first
    delay: float = 0.0  # seconds before each, or before the first of a backoff
    backoff: bool = False  # doubles the delay with each attempt
    backoff_max: float = 600.0  # seconds that no delay of a backoff exceeds
    jitter: bool = True  # spreads a backoff by chance

    def pause(self, attempt: int, chance: float) -> float:
        """Return the seconds before attempt `attempt`; the first retry is 1. `chance` in [0, 1) spreads a backoff."""
        if not self.backoff:
            return self.delay
        # A delay of 0 cannot double, so a backoff begins at one second. The bounded exponent keeps the power finite.
        full = min(self.backoff_max, max(self.delay, 1.0) * 2.0 ** min(attempt - 1, 60))
        # Steps that failed together (a service went away) must not all come back at one moment.
        return full * chance if self.jitter else full


@dataclass(frozen=True, slots=True)
class Route:
    """The data that a step's message needs: its name, queue, priority and time limits.

    A route is stored with its activation, so the scheduler can send the message without the graph.
    """

    name: str  # what logs and monitors show
    queue: str | None = None
    priority: int | None = None
    time_limit: float | None = None  # seconds until the worker kills the attempt
    soft_time_limit: float | None = None  # seconds until the function gets an exception
    task: str | None = None  # the registered task that carries the step itself, where there is one

    @property
    def has_limit(self) -> bool:
        """True where the message has a time limit of its own, which is for nobody but the step that it is for."""
        return bool(self.time_limit or self.soft_time_limit)


@dataclass(frozen=True, slots=True)
class Step:
    """A leaf that runs a function: a step, a mapping or an existing task."""

    id: str
    component: str  # the kind that readers are shown: STEP, MAP, TASK
    route: Route
    retry: Retry = Retry()
    control: bool = False  # runs in the worker of its predecessor, without a message: a mapping
    inline: bool = False  # may run in the worker of its predecessor
    body: object = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Sleep:
    """A pause: passes its input on after `seconds`."""

    id: str
    route: Route
    seconds: float | None  # None: computed when the sleep begins
    body: object = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Wait:
    """A wait for an event by name. `otherwise` runs when `timeout` seconds have passed without one."""

    id: str
    route: Route
    event: str
    timeout: float | None  # None: no limit
    otherwise: Node | None  # None: the wait fails at its timeout
    body: object = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Nested:
    """A workflow inside a workflow: a scope with its own input and its own step results."""

    id: str
    route: Route
    flow: tuple[Node, ...]
    checks: bool  # its input is validated on entry, which takes an activation of its own
    body: object = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Parallel:
    """All arms at once; the output is a dict of the outputs of the arms."""

    id: str
    route: Route
    arms: tuple[Node, ...]
    allow_failure: bool = False  # a failed arm counts as None instead of failing the block


@dataclass(frozen=True, slots=True)
class Branch:
    """Every arm whose condition holds, at once; the output is a dict of the arms that ran."""

    id: str
    route: Route
    arms: tuple[Node, ...]
    body: object = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Loop:
    """The body, then a condition on its output: another iteration while it holds, or until it holds."""

    id: str
    route: Route
    body_node: Node
    until: bool  # the loop ends when its condition holds; else it ends when the condition does not hold
    body: object = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Foreach:
    """The body once for each item of the input; the output is a list."""

    id: str
    route: Route
    body_node: Node
    concurrency: int | None  # items at a time; None: computed when the block begins
    body: object = field(default=None, compare=False)


Node = Step | Sleep | Wait | Nested | Parallel | Branch | Loop | Foreach
Block = Parallel | Branch | Loop | Foreach


@dataclass(frozen=True, slots=True)
class Graph:
    """A whole workflow: its id, its flow, and the fingerprint of its shape."""

    id: str
    flow: tuple[Node, ...]
    fingerprint: str  # a run goes on only where the graph has the same one, since paths are positions
    body: object = field(default=None, compare=False)

    def node(self, path: Path) -> Node:
        """Return the node at `path`. Raise LookupError where the graph has no such node, as for the run itself."""
        node: Node | None = None
        flow: tuple[Node, ...] | None = self.flow
        for index in path:
            node = _child(node, flow, index)
            flow = node.flow if isinstance(node, Nested) else None
        if node is None:
            raise LookupError("the run itself is not a node of its graph")
        return node

    def scope(self, path: Path) -> Path:
        """Return the path of the innermost nested workflow around `path`; `()` for the run itself."""
        # The node at `path` itself is left out: a nested workflow stands in the scope around it.
        for cut in range(len(path) - 1, 0, -1):
            if isinstance(self.node(path[:cut]), Nested):
                return path[:cut]
        return ()

    def loops(self, path: Path) -> int:
        """Count the loops around `path`. An activation there has a visit of this length."""
        return sum(isinstance(self.node(path[:cut]), Loop) for cut in range(1, len(path)))

    def entries(self, scope: Path) -> tuple[Node, ...]:
        """Return the flow of the scope at `scope`."""
        if not scope:
            return self.flow
        node = self.node(scope)
        if not isinstance(node, Nested):
            raise LookupError(f"{scope} is not a nested workflow")
        return node.flow

    def find(self, scope: Path, step_id: str) -> Path | None:
        """Find the path under which the scope keeps the result of `step_id`; None if it has no such step."""
        for index, node in enumerate(self.entries(scope)):
            for path, found in _results((*scope, index), node):
                if found == step_id:
                    return path
        return None

    def walk(self, scope: Path = ()) -> Iterator[Node]:
        """Give every node of the scope, outside in, in the order of the flow, those of nested workflows in it too."""
        for node in self.entries(scope):
            yield from _walk(node)

    def places(self, scope: Path = ()) -> Iterator[tuple[Place, Node]]:
        """Give every node inside a scope with its place."""
        for index, node in enumerate(self.entries(scope)):
            yield from _places((*scope, index), node)

    def tolerates_failure(self, path: Path) -> bool:
        """Tell whether a failure at `path` can end at a parallel block that allows failures."""
        # Asked before the failure is written: one that can still be tolerated must not be the failure of the run.
        above = (self.node(path[:cut]) for cut in range(1, len(path)))
        return any(isinstance(node, Parallel) and node.allow_failure for node in above)


def _walk(node: Node) -> Iterator[Node]:
    return (found for _, found in _places((), node))


def _places(path: Place, node: Node) -> Iterator[tuple[Place, Node]]:
    yield path, node
    match node:
        case Parallel(arms=inner) | Branch(arms=inner) | Nested(flow=inner):
            for index, each in enumerate(inner):
                yield from _places((*path, index), each)
        case Loop(body_node=body):
            yield from _places((*path, 0), body)
        case Foreach(body_node=body):
            yield from _places((*path, None), body)
        case Wait(otherwise=otherwise) if otherwise is not None:
            yield from _places((*path, 0), otherwise)
        case Step() | Sleep() | Wait():
            pass
        case _:
            assert_never(node)


def _child(node: Node | None, flow: tuple[Node, ...] | None, index: int) -> Node:
    if flow is not None:
        if 0 <= index < len(flow):
            return flow[index]
        raise LookupError(f"no entry {index}")
    match node:
        case Parallel(arms=arms) | Branch(arms=arms) if 0 <= index < len(arms):
            return arms[index]
        # The graph does not know how many items there will be, so every index leads to the body.
        case Foreach(body_node=body) if index >= 0:
            return body
        case Loop(body_node=body) if index == 0:
            return body
        case Wait(otherwise=otherwise) if index == 0 and otherwise is not None:
            return otherwise
        case _:
            raise LookupError(f"no child {index}")


def _results(path: Path, node: Node) -> Iterator[tuple[Path, str]]:
    """Give the places of one entry under which a scope keeps step results, with the ids of the steps."""
    match node:
        case Parallel(arms=arms) | Branch(arms=arms):
            yield from (((*path, index), arm.id) for index, arm in enumerate(arms))
        case Loop(body_node=body):
            yield (*path, 0), body.id
        # The result of a foreach is one list, so it stands at the block, under the id of the body.
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
