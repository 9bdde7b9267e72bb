"""From a definition to the graph that runs: ids, routes, retries, and the shapes of values that follow from types."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, assert_never

from orchestrator.codec import ANY, ListOf, Shape, shape_at
from orchestrator.definitions import definition as blocks
from orchestrator.definitions.bodies import (
    BranchBody,
    Callback,
    ForeachBody,
    LoopBody,
    MapBody,
    NestedBody,
    SleepBody,
    StepBody,
    TaskBody,
    WaitBody,
    shape_made,
)
from orchestrator.definitions.definition import BlockEntry, Definition
from orchestrator.definitions.foreign import TaskEntry
from orchestrator.definitions.sources import Known, shape_of, union_of
from orchestrator.definitions.step import Step
from orchestrator.rules import graph
from orchestrator.rules.graph import Graph, Node, Retry, Route

_FAR = str(10**9)  # an index that only a list of any length has
_FINGERPRINT = 16  # hexadecimal digits


def compile_definition(definition: Definition) -> Graph:
    """The graph of a definition that has been checked: the same for the same definition, in every process."""
    flow = _Flow(definition, shape_of(definition.input), None, {}).compile()
    return Graph(definition.id, flow, _fingerprint(definition, flow), body=definition)


# The nodes of nested workflows that are compiled already, with what they were compiled for: the shape of the input, and
# the queue of the step before and behind. Loops compile their bodies twice, so that loops around loops would otherwise
# compile the innermost one some 2^n times.
_Compiled = dict[Definition, list[tuple[Shape, str | None, tuple[Node, ...], str | None]]]


class _Flow:
    """One flow while it is compiled."""

    def __init__(self, definition: Definition, given: Shape, queue: str | None, compiled: _Compiled) -> None:
        self.definition = definition
        self.compiled = compiled
        self.given = given  # the shape of the flow's input
        # The queue of the step before. Nodes without one of their own (mappings, conditions, sleeps) go where it went,
        # so that the workers which take the steps take them too.
        self.queue = _first_queue(definition) if queue is None else queue
        self.results: dict[str, Shape] = {}  # of the entries compiled so far, by their ids

    def compile(self) -> tuple[Node, ...]:
        """The nodes of the flow, in order."""
        nodes: list[Node] = []
        given = self.given
        for name, block in self.definition.identify_blocks():
            nodes.append(self._node(name, block, given))
            given = shape_made(nodes[-1])
        return tuple(nodes)

    def _node(self, name: str, block: blocks.Block, given: Shape) -> Node:
        match block:
            case blocks.Then(entry=entry):
                return self._entry(entry, given)
            case blocks.Parallel(entries=entries, allow_failure=allow_failure):
                route = self._route(name)
                return graph.Parallel(name, route, tuple(self._entry(entry, given) for entry in entries), allow_failure)
            case blocks.Branch(arms=arms):
                route, body = self._route(name), BranchBody(tuple(condition for condition, _ in arms), given)
                return graph.Branch(name, route, tuple(self._entry(entry, given) for _, entry in arms), body)
            case blocks.Loop():
                return self._loop(name, block, given)
            case blocks.Foreach():
                return self._foreach(name, block, given)
            case blocks.Map(spec=spec):
                made = spec.shape(Known(self.results, self.given))
                body_of_map = MapBody(spec, given, made)
                route, retry = self._route(name), Retry(self.definition.retries, self.definition.retry_delay)
                return self._keep_result(graph.Step(name, "MAP", route, retry, control=True, body=body_of_map))
            case blocks.Sleep(seconds=seconds, until=until, callback=callback):
                return self._keep_result(
                    graph.Sleep(name, self._route(name), seconds, SleepBody(callback, until, given))
                )
            case blocks.Wait():
                return self._wait(name, block, given)
            case _:
                assert_never(block)

    def _route(self, name: str) -> Route:
        return Route(f"{self.definition.id}.{name}", queue=self.queue)

    def _keep_result(self, node: Node) -> Node:
        """Note the shape of the result that the flow keeps under the node's id."""
        self.results[node.id] = shape_made(node)
        return node

    def _loop(self, name: str, block: blocks.Loop, given: Shape) -> Node:
        route, queue = self._route(name), self.queue
        body = self._entry(block.entry, given)
        both = union_of(given, shape_made(body))
        if both != given:  # later iterations get something else than the first
            self.queue = queue
            body = self._entry(block.entry, both)
        return graph.Loop(name, route, body, block.until, LoopBody(block.condition, shape_made(body)))

    def _foreach(self, name: str, block: blocks.Foreach, given: Shape) -> Node:
        route = self._route(name)
        # All items have one shape where the first has that of any other: in a tuple each place may have its own.
        item = shape_at(given, "0")
        body = self._entry(block.entry, item if item == shape_at(given, _FAR) else ANY)
        self.results[body.id] = ListOf(shape_made(body))
        computed = block.concurrency if isinstance(block.concurrency, Callback) else None
        concurrency = None if isinstance(block.concurrency, Callback) else block.concurrency
        return graph.Foreach(name, route, body, concurrency, ForeachBody(computed, given))

    def _wait(self, name: str, block: blocks.Wait, given: Shape) -> Node:
        route = self._route(name)
        otherwise = None if block.on_timeout is None else self._entry(block.on_timeout, given)
        event = shape_of(block.schema)
        made = event if otherwise is None else union_of(event, shape_made(otherwise))
        body = WaitBody(block.schema, given, made)
        return self._keep_result(graph.Wait(name, route, block.event, block.timeout, otherwise, body))

    def _entry(self, entry: BlockEntry, given: Shape) -> Node:
        match entry:
            case Step():
                return self._keep_result(self._step(entry, given))
            case TaskEntry():
                return self._keep_result(self._task(entry, given))
            case _:
                return self._keep_result(self._nested(entry.definition, given))

    def _step(self, step: Step[Any, Any, Any], given: Shape) -> Node:
        self.queue = step.queue
        name = f"{self.definition.id}.{step.id}"
        route = Route(name, step.queue, step.priority, step.time_limit, step.soft_time_limit)
        inline = self.definition.inline if step.inline is None else step.inline
        validate = step.input is not None and self.definition.validate_inputs
        body = StepBody(step, given, shape_of(step.output), validate)
        return graph.Step(step.id, step.component, route, self._retry(step), inline=inline, body=body)

    def _retry(self, step: Step[Any, Any, Any]) -> Retry:
        attempts = self.definition.retries if step.retries is None else step.retries
        delay = self.definition.retry_delay if step.retry_delay is None else step.retry_delay
        if step.retry_delay is None and step.retry_backoff and not isinstance(step.retry_backoff, bool):
            delay = float(step.retry_backoff)
        return Retry(attempts, delay, bool(step.retry_backoff), step.retry_backoff_max, step.retry_jitter)

    def _task(self, task: TaskEntry, given: Shape) -> Node:
        limits = {key: task.options.get(key) for key in ("queue", "priority", "time_limit", "soft_time_limit")}
        if task.task is None:
            limits["queue"] = None  # a name may be another code base's: nobody there takes messages of ours
        route = Route(f"{self.definition.id}.{task.id}", **limits, task=task.name)
        retry = Retry(
            self.definition.retries if task.retries is None else task.retries,
            self.definition.retry_delay if task.retry_delay is None else task.retry_delay,
        )
        return graph.Step(task.id, task.component, route, retry, body=TaskBody(task, given, ANY))

    def _nested(self, definition: Definition, given: Shape) -> Node:
        route = self._route(definition.id)
        declared_input = given if definition.input is None else shape_of(definition.input)
        flow = self._flow_of(definition, declared_input)
        made = shape_made(flow[-1]) if definition.output is None else shape_of(definition.output)
        checks = definition.input is not None and definition.validate_inputs
        return graph.Nested(definition.id, route, flow, checks, NestedBody(definition, given, made, checks))

    def _flow_of(self, definition: Definition, given: Shape) -> tuple[Node, ...]:
        """The nodes of a nested workflow, compiled once for the same input and queue."""
        known = self.compiled.setdefault(definition, [])
        for shape, before, flow, behind in known:
            if before == self.queue and shape == given:
                self.queue = behind
                return flow
        inner = _Flow(definition, given, self.queue, self.compiled)
        flow = inner.compile()
        known.append((given, self.queue, flow, inner.queue))
        self.queue = inner.queue
        return flow


def _first_queue(definition: Definition) -> str | None:
    """The queue of the first step of a flow."""
    for _, _, entry in definition.walk_entries():
        match entry:
            case Step():
                return entry.queue
            case TaskEntry() | blocks.ControlEntry():
                continue
            case _:
                return _first_queue(entry.definition)
    return None


# A run goes on only in a graph of the same fingerprint. Its stored paths mean places in the graph, so structure, ids
# and kinds are in. Functions, options and types may change under a run; a user who does not want that counts `version`.
def _fingerprint(definition: Definition, flow: Sequence[Node]) -> str:
    text = json.dumps([definition.id, definition.version, *map(_outline, flow)], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_FINGERPRINT]


def _outline(node: Node) -> list[Any]:
    """The parts of a node that a run relies on: kinds, ids and structure, but not what functions do."""
    match node:
        case graph.Step(id=id, component=component, route=route):
            return ["step", component, id, route.task]
        case graph.Sleep(id=id):
            return ["sleep", id]
        case graph.Wait(id=id, event=event, otherwise=otherwise):
            return ["wait", id, event, None if otherwise is None else _outline(otherwise)]
        case graph.Nested(id=id, flow=flow, body=body):
            version = body.definition.version if isinstance(body, NestedBody) else None
            return ["nested", id, version, *map(_outline, flow)]
        case graph.Parallel(arms=arms):
            return ["parallel", *map(_outline, arms)]
        case graph.Branch(arms=arms):
            return ["branch", *map(_outline, arms)]
        case graph.Loop(body_node=body_node, until=until):
            return ["until" if until else "while", _outline(body_node)]
        case graph.Foreach(body_node=body_node):
            return ["foreach", _outline(body_node)]
        case _:
            assert_never(node)
