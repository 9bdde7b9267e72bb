"""Reads a stored run for a caller, with its values as their declared types where the workflow is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from orchestrator.codec import ANY, Shape
from orchestrator.core.graph import Graph, Parallel, Path
from orchestrator.core.records import (
    ENDED,
    FINAL,
    HELD,
    LIVE,
    Header,
    Record,
    Role,
    RunState,
    Status,
    belongs,
    dotted,
)
from orchestrator.definitions.bodies import shape_made
from orchestrator.engine.activity import declared, shape_given, view_of_state, workflow_at
from orchestrator.engine.read.results import RunRecord, RunResult, RunStatus, StepResult, StepStatus, moment
from orchestrator.engine.read.value_reader import Values, decoded
from orchestrator.errors import InputInvalid, RunNotFound, TripWire
from orchestrator.ports import Store

_AS_RUN = {StepStatus.QUEUED: RunStatus.PENDING, StepStatus.RETRYING: RunStatus.RUNNING}
_AS_RUN |= {StepStatus.SKIPPED: RunStatus.PENDING}
_AS_RUN |= {status: RunStatus(status) for status in StepStatus if status not in _AS_RUN}
_BAD = frozenset({RunState.FAILED, RunState.TRIPWIRE})


def said(payload: Any) -> dict[str, Any]:
    """What a step suspended with, as a dict whatever it is: what has no keys of its own is the `value`."""
    if payload is None:
        return {}
    return payload if isinstance(payload, dict) else {"value": payload}


class Reader:
    """Reads one run for a caller. `graph` is None where the workflow is not known here: then all is plain.

    With a `scope`, the path of a nested workflow inside the run, it reads that one as if it were a run of its own.
    """

    def __init__(self, store: Store, header: Header, graph: Graph | None, scope: Path = ()) -> None:
        self.store = store
        self.header = header
        self.graph = graph
        self.scope = scope
        self.values = Values(store.values, header.run_id)
        self._records: dict[Path, Record] | None = None
        self._ends: dict[Path, Record] | None = None

    @property
    def records(self) -> dict[Path, Record]:
        """The records of the present visits, by path."""
        if self._records is None:
            self._records = {}
            for record in self.store.load(self.header.run_id):
                above = self._around(record.at)
                if record.path and (above is None or belongs(record, above)):
                    self._records[record.at] = record
        return self._records

    def _around(self, path: Path) -> Record | None:
        found = (self._records or {}).get(path[:-1])
        return found if len(path) > 1 else None

    @property
    def run_id(self) -> str:
        """The id under which what is read here can be looked up."""
        return f"{self.header.run_id}/{dotted(self.scope)}" if self.scope else self.header.run_id

    @property
    def workflow_id(self) -> str:
        """The id of the workflow that is read; where it is not known here, of the step that it is."""
        if not self.scope:
            return self.header.workflow_id
        return workflow_at(self.graph, self.scope).id if self.graph else self.around().step

    def is_there(self) -> bool:
        """Whether what is to be read exists: a path may lead to no nested workflow, or to one that never began."""
        found = self.records.get(self.scope) if self.scope else None
        return not self.scope or (found is not None and found.component == "NESTED")

    def around(self) -> Record:
        """The record of the nested workflow that is read. Raises `RunNotFound` where there is none (any more)."""
        found = self.records.get(self.scope)
        if found is None or not self.is_there():
            text = f"there is no run {self.run_id!r}"
            raise RunNotFound(text, run_id=self.run_id, workflow_id=self.header.workflow_id)
        return found

    def status(self) -> RunStatus:
        """The run's status."""
        if not self.scope:
            return RunStatus(self.header.status)
        record = self.as_ended(self.around())
        return RunStatus.TRIPWIRE if record.tripwire else _AS_RUN[self.step_status(record)]

    def input(self) -> Any:
        """The run's input."""
        key = self.around().input if self.scope else self.header.input
        return self.values.typed(key, declared(workflow_at(self.graph, self.scope).input) if self.graph else ANY)

    def result(self) -> Any:
        """The run's result, None unless it has ended well."""
        if self.status() != RunStatus.SUCCESS:
            return None
        shape: Shape = ANY
        if self.graph is not None:
            workflow = workflow_at(self.graph, self.scope)
            made = shape_made(self.graph.entries(self.scope)[-1])
            shape = declared(workflow.output) if workflow.output is not None else made
        return self.values.typed(self.as_ended(self.around()).output if self.scope else self.header.output, shape)

    def error(self) -> BaseException | None:
        """The run's error."""
        key = self.as_ended(self.around()).error if self.scope else self.header.error
        found = self.values.plain(key) if key else None
        return found if isinstance(found, BaseException) else None

    def state(self) -> dict[str, Any]:
        """The run's state, as its model declares it where it fits. A nested workflow sees what its model declares."""
        plain = decoded(self.store.state(self.header.run_id))
        if self.graph is None:
            return plain
        try:
            seen = view_of_state(workflow_at(self.graph, self.scope), plain)
        except InputInvalid:
            return plain
        return seen if self.scope else {**plain, **seen}

    def steps(self, *, nested: bool = False) -> dict[str, StepResult]:
        """Step results by id.

        With `nested`, those of nested workflows too, as `outer.inner` and `outer[item].inner`.
        """
        shown = [self.as_ended(record) for record in self.records.values() if self._shows(record, nested)]
        self.values.fetch(
            key
            for record in shown
            for key in (record.input, record.output, record.error, record.suspend, record.resume)
        )
        return {self._name(record): self._step(record) for record in shown}

    def _shows(self, record: Record, nested: bool) -> bool:
        if record.status == Status.PAUSED or (record.status == Status.QUEUED and not record.order):
            return False
        return record.role == Role.STEP and self._inside(record) and (nested or record.scope == len(self.scope))

    def _inside(self, record: Record) -> bool:
        return len(record.at) > len(self.scope) and record.at[: len(self.scope)] == self.scope

    def _name(self, record: Record) -> str:
        names = []
        for cut in range(len(self.scope) + 1, len(record.at)):
            above = self.records.get(record.at[:cut])
            if above is not None and cut in self._scopes(record):
                names.append(f"{above.step}[{above.index}]" if above.index >= 0 else above.step)
        return ".".join([*names, record.step])

    def _scopes(self, record: Record) -> set[int]:
        """Lengths of the paths of the nested workflows around a record."""
        found, scope = set(), record.scope
        while scope:
            found.add(scope)
            above = self.records.get(record.at[:scope])
            scope = above.scope if above else 0
        return found

    def as_ended(self, record: Record) -> Record:
        """The record; one that was open when its run ended, with what it came to by that.

        A run that fails, or that a step bails out of, does not wait for what is held beside that step: the blocks and
        nested workflows around it are left open. They have failed as it has, or succeeded with what it has bailed with.
        """
        if record.status != Status.OPEN or self.header.status not in FINAL:
            return record
        if self._ends is None:
            self._ends = dict(self._found_ends())
        cause = self._ends.get(record.at)
        if cause is None:
            return record
        end = self.header.ended_at or cause.ended_at
        record = replace(record, status=cause.status, ended_at=end)
        return replace(record, output=cause.output, error=cause.error, tripwire=cause.tripwire)

    def _found_ends(self) -> Iterator[tuple[Path, Record]]:
        """What has ended the open records of an ended run, by their paths; of several causes, the first comes last."""
        rank = {cause.at: (cause.error != self.header.error, cause.ended_at, cause.at) for cause in self._causes()}
        for at in sorted(rank, key=rank.__getitem__, reverse=True):
            cause = self.records[at]
            for cut in range(len(cause.at) - 1, 0, -1):
                above = self.records.get(cause.at[:cut])
                if above is None or above.status != Status.OPEN or self._tolerates(above, cause):
                    break
                yield above.at, cause

    def _causes(self) -> list[Record]:
        header, found = self.header, self.records.values()
        if header.status in _BAD:
            failed = [record for record in found if record.status == Status.FAILED]
            return [record for record in failed if self.graph is not None or record.error == header.error]
        bailed = header.output if header.status == RunState.SUCCESS and header.closed else None
        return [record for record in found if record.status == Status.SUCCESS and record.output == bailed]

    def _tolerates(self, above: Record, cause: Record) -> bool:
        node = self.graph.node(above.at) if self.graph is not None else None
        return cause.status == Status.FAILED and isinstance(node, Parallel) and node.allow_failure

    def _step(self, record: Record) -> StepResult:
        """One record as a step result."""
        given = shape_given(self.graph, record.at) if self.graph and record.path else ANY
        made = shape_made(self.graph.node(record.at)) if self.graph and record.path else ANY
        ended = record.status in ENDED
        error = self.values.plain(record.error) if record.error else None
        shown = self._leaf(record) if record.status == Status.OPEN and not record.suspended_at else record
        return StepResult(
            status=self.step_status(record),
            payload=self.values.typed(record.input, given),
            output=self.values.typed(record.output, made) if record.status == Status.SUCCESS else None,
            error=error if isinstance(error, BaseException) else None,
            started_at=moment(record.started_at),
            ended_at=moment(record.ended_at) if ended else None,
            suspend_payload=self._suspend_payload(record, shown),
            suspended_at=moment(shown.suspended_at),
            resume_payload=self.values.plain(shown.resume) if shown.resume else None,
            resumed_at=moment(shown.resumed_at if shown.resume else record.resumed_at),
            metadata={"parked": record.parked} if record.parked else None,
        )

    def _leaf(self, record: Record) -> Record:
        """The record below whose suspension an open one shows: the first that waits, else the first that was resumed
        and runs, else the open one itself."""
        below = self._below(record)
        held = [found for found in below if found.status in HELD and found.status != Status.PAUSED]
        resumed = [found for found in below if found.status in LIVE and found.resumed]
        return (held or resumed or [record])[0]

    def _suspend_payload(self, record: Record, leaf: Record) -> dict[str, Any] | None:
        if not leaf.suspend and (leaf is record or leaf.status != Status.WAITING):
            return None
        payload = said(self.values.plain(leaf.suspend))
        if leaf is record:
            return payload
        meta: dict[str, Any] = {"path": self.ids(leaf)[len(self.ids(record)) :]}
        nested = [cut for cut in self._scopes(leaf) if cut >= len(record.at)]
        if nested:
            meta["run_id"] = f"{self.header.run_id}/{dotted(leaf.at[: min(nested)])}"
        if leaf.index >= 0 or self._item_above(leaf) >= 0:
            meta["foreach_index"] = leaf.index if leaf.index >= 0 else self._item_above(leaf)
        if record.component == "FOREACH":
            meta["foreach_output"] = self._items(record)
        return {**payload, "__workflow_meta": meta}

    def _items(self, foreach: Record) -> list[dict[str, Any] | None]:
        """What each item of a foreach has come to, in item order; None for one that has not been started."""
        depth = len(foreach.at) + 1
        items = {found.index: found for found in self._below(foreach) if len(found.at) == depth}
        leaves = {index: self._leaf(item) for index, item in items.items()}
        self.values.fetch(key for item in (*items.values(), *leaves.values()) for key in (item.output, item.suspend))
        return [self._item(items[index], leaves[index]) if index in items else None for index in range(foreach.next)]

    def _item(self, item: Record, leaf: Record) -> dict[str, Any]:
        shown: dict[str, Any] = {"status": str(self.step_status(item))}
        if item.status == Status.SUCCESS:
            return shown | {"output": self.values.plain(item.output)}
        payload = self._suspend_payload(item, leaf)
        return shown if payload is None else shown | {"suspend_payload": payload}

    def _item_above(self, record: Record) -> int:
        for cut in range(len(record.at) - 1, 0, -1):
            above = self.records.get(record.at[:cut])
            if above is not None and above.index >= 0:
                return above.index
        return -1

    def _below(self, record: Record) -> list[Record]:
        depth = len(record.at)
        return [found for path, found in sorted(self.records.items()) if path[:depth] == record.at]

    def step_status(self, record: Record) -> StepStatus:
        """The record's status as a reader sees it.

        Computed for what has children, canceled for what an ended run left.
        """
        record = self.as_ended(record)
        if record.status in ENDED:
            return StepStatus(record.status)
        if self.header.status in FINAL:
            return StepStatus.CANCELED
        match record.status:
            case Status.SLEEPING | Status.WAITING:
                return StepStatus.WAITING
            case Status.OPEN:
                return self._open_status(record)
            case status:
                return StepStatus(status)

    def _open_status(self, record: Record) -> StepStatus:
        depth = len(record.at)
        below = {
            found.status for path, found in self.records.items() if path[:depth] == record.at and path != record.at
        }
        if below & {Status.QUEUED, Status.RUNNING, Status.RETRYING, Status.SLEEPING}:
            return StepStatus.RUNNING
        if below & {Status.SUSPENDED, Status.WAITING}:
            return StepStatus.SUSPENDED
        return StepStatus.PAUSED if Status.PAUSED in below else StepStatus.RUNNING

    def ids(self, record: Record) -> list[str]:
        """The step ids from the outermost workflow down to a record."""
        scopes = sorted(cut for cut in self._scopes(record) if cut > len(self.scope))
        return [*(self.records[record.at[:cut]].step for cut in scopes), record.step]

    def held(self) -> list[Record]:
        """What waits for somebody outside, in declaration order."""
        if self.header.status in FINAL:
            return []
        held = [r for _, r in sorted(self.records.items()) if r.status in (Status.SUSPENDED, Status.WAITING)]
        return [record for record in held if self._inside(record)]

    def suspended(self) -> list[list[str]]:
        """The id paths of what waits, each once."""
        paths: list[list[str]] = []
        for record in self.held():
            ids = self.ids(record)
            if ids not in paths:
                paths.append(ids)
        return paths

    def resume_labels(self) -> dict[str, dict[str, Any]]:
        """Labels, each with the step it belongs to (and the item of a foreach)."""
        labels: dict[str, dict[str, Any]] = {}
        for record in self.held():
            if record.label and record.status == Status.SUSPENDED:  # that of a wait is its place in the mailbox
                index = record.index if record.index >= 0 else self._item_above(record)
                where = {"step_id": ".".join(self.ids(record))}
                labels[record.label] = where | ({"foreach_index": index} if index >= 0 else {})
        return labels

    def execution_path(self) -> list[str]:
        """Ids of the workflow's own steps in the order in which they first ran, each once."""
        own = [r for r in self.records.values() if r.scope == len(self.scope) and self._inside(r)]
        ran = [r for r in own if r.role == Role.STEP and r.order]
        return list(dict.fromkeys(record.step for record in sorted(ran, key=lambda record: record.order)))

    def run_result(self) -> RunResult:
        """Everything a caller gets when the run rests."""
        steps, error = self.steps(), self.error()
        suspended = self.suspended()
        payloads = {ids[0]: steps[ids[0]].suspend_payload or {} for ids in suspended if ids[0] in steps}
        return RunResult(
            run_id=self.run_id,
            status=self.status(),
            input=self.input(),
            result=self.result(),
            error=None if isinstance(error, TripWire) else error,
            steps=steps,
            state=self.state(),
            suspended=suspended,
            suspend_payload=payloads,
            resume_labels=self.resume_labels(),
            tripwire=error if isinstance(error, TripWire) else None,
            execution_path=self.execution_path(),
        )

    def run_record(self, wanted: Mapping[str, bool], nested: bool) -> RunRecord:
        """The stored run with the fields that were asked for."""
        header = self.header
        record = RunRecord(
            self.run_id,
            self.workflow_id,
            header.resource_id or None,
            self.status(),
            moment(self.around().started_at if self.scope else header.created_at) or datetime.fromtimestamp(0, UTC),
            moment(header.updated_at) or datetime.fromtimestamp(0, UTC),
        )
        makers = {
            "input": self.input,
            "result": self.result,
            "error": self.error,
            "state": self.state,
            "steps": lambda: self.steps(nested=nested),
            "suspended": self.suspended,
            "resume_labels": self.resume_labels,
        }
        for name, make in makers.items():
            if wanted.get(name):
                setattr(record, name, make())
        return record
