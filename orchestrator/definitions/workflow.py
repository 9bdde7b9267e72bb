"""`Workflow`: a builder with a handle on what was built, which users describe, draw and start."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Never, Protocol

from orchestrator.definitions.annotations import require_annotation
from orchestrator.definitions.builder import Builder
from orchestrator.definitions.check import require_flow
from orchestrator.definitions.definition import Definition, Hook
from orchestrator.definitions.entry import Entry
from orchestrator.definitions.mermaid import draw
from orchestrator.definitions.picture import describe
from orchestrator.errors import FlowNotCommitted, WorkflowNotRegistered
from orchestrator.rules.graph import Graph


class Launcher(Protocol):
    """The runtime that a workflow is bound to, so that it can be started like a Celery task."""

    def launch(
        self,
        workflow: Workflow,
        input: Any,
        *,
        run_id: str | None = None,
        countdown: float | None = None,
        eta: datetime | None = None,
        resource_id: str | None = None,
        request_context: Mapping[str, Any] | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> Any:
        """Start a run, at once or at its time, and return its `Run` without waiting."""
        ...


class Workflow(Builder):
    """A workflow: `Workflow("checkout").then(reserve).commit()`.

    * `id`: matches `[A-Za-z0-9_-]+`. `description`, `version`: text; another version is another graph.
    * `input`, `output`, `state`: annotations; None where anything goes. With `validate_inputs` the input is checked
      when a run starts, and that of each step; the output is not checked.
    * `retries`, `retry_delay` (seconds): of the steps that do not say it themselves.
    * `on_start`, `on_finish`, `on_error`: functions, plain or async, that get one `RunInfo`.
    * `auto_restart`: a run whose worker has died goes on by itself. `emit_step_events`: steps show in the stream.
    * `inline`: a step may run at once in the worker that ended the step before, without a message.
    * `committed`: True where the flow is as it was when `commit` was called last. `steps`: each entry by its id.
    """

    _bound: Launcher | None = None

    def __init__(
        self,
        id: str,
        *,
        input: Any = None,
        output: Any = None,
        state: Any = None,
        version: str | int | None = None,
        retries: int = 0,
        retry_delay: float = 0.0,
        validate_inputs: bool = True,
        on_start: Hook | None = None,
        on_finish: Hook | None = None,
        on_error: Hook | None = None,
        auto_restart: bool = True,
        emit_step_events: bool = True,
        inline: bool = False,
        description: str = "",
    ) -> None:
        super().__init__(
            Definition(
                id,
                description,
                require_annotation(input, f"workflow {id!r}: input"),
                require_annotation(output, f"workflow {id!r}: output"),
                require_annotation(state, f"workflow {id!r}: state"),
                version=version,
                retries=retries,
                retry_delay=retry_delay,
                validate_inputs=validate_inputs,
                on_start=on_start,
                on_finish=on_finish,
                on_error=on_error,
                auto_restart=auto_restart,
                emit_step_events=emit_step_events,
                inline=inline,
            )
        )

    @property
    def steps(self) -> dict[str, Entry]:
        """The entries of the flow by id, mappings, sleeps and waits included; not those inside nested workflows."""
        return {entry.id: entry for _, _, entry in self.definition.walk_entries()}

    def require_committed(self) -> None:
        """Raise FlowNotDefined without any entry, and FlowNotCommitted where `commit` is missing."""
        require_flow(self.definition)
        if not self.committed:
            raise FlowNotCommitted(_NOT_COMMITTED.format(self.id), workflow_id=self.id)

    @property
    def compiled(self) -> Graph:
        """The graph, as it was committed. Raises what `require_committed` raises."""
        self.require_committed()
        assert self._graph is not None
        return self._graph

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the graph's shape: ids, kinds, structure and version, but not what functions do.

        A run goes on only where it is the same. Of a workflow that is not committed: of what it would be; raises what
        `commit` raises.
        """
        return self._any_graph().fingerprint

    def _any_graph(self) -> Graph:
        return self.compiled if self.committed else self._build_graph()

    def graph(self) -> dict[str, Any]:
        """The workflow as plain, JSON-able data: `id type description version input output state entries`.

        Each entry has `type` (step, map, task, sleep, wait, workflow, parallel, branch, loop or foreach) and `id`, and
        what belongs to its type: the entries inside it, the JSON schemas of its input and output. Raises what `commit`
        raises.
        """
        return describe(self._any_graph())

    def mermaid(self, states: Mapping[str, str] | None = None) -> str:
        """The workflow as the text of a Mermaid flowchart.

        `states` colours entries by their status: ids (dotted inside nested workflows, `child.step`) to statuses. Raises
        what `commit` raises.
        """
        return draw(self._any_graph(), states or {})

    def bind(self, launcher: Launcher) -> None:
        """Set what `delay` and `apply_async` start runs with. The latest one counts."""
        self._bound = launcher

    def delay(self, input: Any = None, *more: Never, **fields: Never) -> Any:
        """Start a run and return its `Run` at once, as a Celery task's `delay` does.

        Raises what `apply_async` raises; a workflow takes one input, so TypeError for several and for keywords.
        """
        if fields:
            shown = ", ".join(f"{name!r}: ..." for name in fields)
            raise TypeError(f"a workflow takes one input, which may be a dict: delay({{{shown}}})")
        return self.apply_async((input, *more))

    def apply_async(
        self,
        args: Sequence[Any] = (),
        *,
        run_id: str | None = None,
        countdown: float | timedelta | None = None,
        eta: datetime | None = None,
        resource_id: str | None = None,
        request_context: Mapping[str, Any] | None = None,
        state: Mapping[str, Any] | None = None,
        **unknown: Never,
    ) -> Any:
        """Start a run and return its `Run` at once: `workflow.apply_async((input,), countdown=60)`.

        * `args`: the input alone, or nothing. `run_id`: a new one by default.
        * `countdown` (seconds) or `eta`: when it begins; kept in the store, not by a worker. An `eta` without a
          zone is UTC, or the app's zone where Celery's `enable_utc` is off.

        Raises WorkflowNotRegistered where no Orchestrator has the workflow, FlowNotDefined and FlowNotCommitted, and
        TypeError for more than one argument and for options that a workflow does not have.
        """
        self.require_committed()
        if unknown:
            raise TypeError(_no_option(next(iter(unknown))))
        if isinstance(args, (str, bytes, Mapping)) or len(args) > 1:
            raise TypeError(f"a workflow takes one input: apply_async((input,)), not {args!r}")
        if self._bound is None:
            text = "The workflow {!r} is bound to no runtime: register it with Orchestrator(app, workflows=[...]) first"
            raise WorkflowNotRegistered(text.format(self.id), workflow_id=self.id)
        return self._bound.launch(
            self,
            args[0] if args else None,
            run_id=run_id,
            countdown=countdown.total_seconds() if isinstance(countdown, timedelta) else countdown,
            eta=eta,
            resource_id=resource_id,
            request_context=request_context,
            state=state,
        )

    def __repr__(self) -> str:
        state = "" if self.committed else ", not committed"
        return f"<Workflow {self.id!r}: {len(self.definition.blocks)} blocks{state}>"


def _no_option(name: str) -> str:
    """The message that `apply_async` has no such option, with those that it has."""
    parameters = inspect.signature(Workflow.apply_async).parameters.values()
    known = sorted(each.name for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY)
    hint = _INSTEAD.get(name)
    return f"apply_async() has no option {name!r}{f' ({hint})' if hint else ''}: choose from {', '.join(known)}"


# Options that a Celery user may look for, each with the place where it is.
_INSTEAD = {
    "kwargs": "a workflow takes one input, which may be a dict: apply_async(({...},))",
    "task_id": "it is called run_id",
    **dict.fromkeys(("queue", "priority", "time_limit", "soft_time_limit"), "it is an option of step()"),
}
_NOT_COMMITTED = "Uncommitted step flow changes detected: workflow {!r} was changed after, or without, .commit()"
