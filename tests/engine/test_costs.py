"""The cost of what callers do with a wide run: activations and values that are read, calls, and lines of code."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FrameType
from typing import Any

import pytest

from orchestrator import Context, Orchestrator, ResumeAmbiguous, Run, RunInfo, StepNotSuspended, Workflow, step
from orchestrator.rules.model import Activation
from orchestrator.stores import MemoryStore
from tests.vendor import wait_until


class CountingStore(MemoryStore):
    """Counts what is read of it, and in how many calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.read = 0  # activations and values

    def load(self, run_id: str, paths: Iterable[str] | None = None) -> list[Activation]:
        found = super().load(run_id, paths)
        self._count("load", len(found))
        return found

    def load_awaiting(
        self, run_id: str, *, below: Sequence[str] | None = None, label: str | None = None
    ) -> list[Activation]:
        found = super().load_awaiting(run_id, below=below, label=label)
        self._count("load_awaiting", len(found))
        return found

    def values(self, run_id: str, ids: Iterable[str]) -> dict[str, str]:
        found = super().values(run_id, ids)
        self._count("values", len(found))
        return found

    def _count(self, verb: str, read: int) -> None:
        self.calls[verb] += 1
        self.read += read

    def forget(self) -> None:
        """Count from zero again."""
        self.calls.clear()
        self.read = 0


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


@pytest.fixture
def orchestrator(store: CountingStore) -> Iterator[Orchestrator]:
    with Orchestrator(store=store) as found:
        yield found


@step
def ask(number: int, ctx: Context[Any]) -> Any:
    return ctx.resume_data if ctx.resumed else ctx.suspend({"number": number}, label=f"number-{number}")


@step
def approve(number: Any, ctx: Context[Any]) -> Any:
    return ctx.resume_data if ctx.resumed else ctx.suspend({"approve": number})


@step
def listed(number: int) -> list[int]:
    return list(range(number))


def crowd(**hooks: Any) -> Workflow:
    """A foreach of as many items as its input says, all of which wait; and a step beside it that waits, too."""
    items = Workflow("items", input=int).then(listed).foreach(ask, concurrency=10_000).commit()
    return Workflow("crowd", input=int, **hooks).parallel(items, approve).commit()


def nested_crowd() -> Workflow:
    """Items that are workflows, each with a foreach in which one item waits."""
    inner = Workflow("inner", input=int).map(lambda number: [number]).foreach(ask).commit()
    return Workflow("nests", input=int).then(listed).foreach(inner, concurrency=10_000).commit()


def started(orchestrator: Orchestrator, flow: Workflow, size: int) -> Run:
    run = orchestrator.create_run(flow)
    assert run.start(size).status == "suspended"
    return run


def reads_of(store: CountingStore, call: Callable[[], Any]) -> int:
    store.forget()
    call()
    return store.read


def settled(store: CountingStore, run: Run, call: Callable[[], Any]) -> None:
    """Call, and wait for the run to settle after it and for its hooks, without reading anything."""
    before = run.header().settle_count
    call()
    header = store.wait_until_settled(run.run_id, before, 20)
    assert header is not None
    assert header.settle_count > before
    assert wait_until(lambda: not run.header().calling, 20)


def lines_of(call: Callable[[], Any]) -> int:
    """Count the lines of code that a call executes, each as often as it is: no clock knows how busy the machine is."""
    count = 0

    def trace(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


# --- a resume ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "meant",
    [{"index": 7}, {"label": "number-7"}, {"step": "items.ask", "index": 7}, {"step": "approve"}],
    ids=" ".join,
)
def test_a_resume_reads_what_it_means(orchestrator: Orchestrator, store: CountingStore, meant: dict[str, Any]) -> None:
    """By an index, a label or a step: as much among three hundred that wait as among thirty."""
    flow, reads = crowd(), []
    for size in (30, 300):
        run = started(orchestrator, flow, size)
        reads.append(reads_of(store, lambda run=run: settled(store, run, lambda: run.submit_resume("yes", **meant))))  # type: ignore[misc]
    assert reads[0] == reads[1] < 20


def test_an_index_in_items_that_are_workflows_is_found_too(orchestrator: Orchestrator) -> None:
    """Of nested lists it is that of the innermost item."""
    run = started(orchestrator, nested_crowd(), 3)
    with pytest.raises(ResumeAmbiguous):
        run.submit_resume("yes", index=0)
    inner = orchestrator.get_run(f"{run.run_id}/1.2")
    inner.submit_resume("yes", index=0)
    assert run.result(timeout=10).steps["inner"].suspend_payload is not None
    with pytest.raises(StepNotSuspended, match=r"inner\.ask is"):
        run.submit_resume("yes", index=5)


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [crowd, nested_crowd])
@pytest.mark.parametrize("read", ["get", "result"])
def test_reading_a_run_in_which_something_waits_is_linear(
    orchestrator: Orchestrator, store: CountingStore, make: Callable[[], Workflow], read: str
) -> None:
    """Four times as many items that wait are four times as much work, and not a call more than pages of values."""
    flow, lines, calls = make(), [], []
    for size in (40, 160):
        run = started(orchestrator, flow, size)
        store.forget()
        lines.append(lines_of(lambda run=run: orchestrator.runs.get(run.run_id) if read == "get" else run.result()))  # type: ignore[misc]
        calls.append(store.calls.total())
    assert lines[1] < 4.5 * lines[0]
    assert calls[1] <= calls[0] + 3


# --- hooks ------------------------------------------------------------------------------------------------------------


def test_a_hook_that_looks_at_nothing_reads_nothing(orchestrator: Orchestrator, store: CountingStore) -> None:
    """A run settles with each answer: a hook that read all of it would read the square of its width."""
    heard: list[str] = []
    flow, reads = crowd(on_finish=lambda info: heard.append(info.status)), []
    for size in (30, 300):
        run = started(orchestrator, flow, size)
        reads.append(reads_of(store, lambda run=run: settled(store, run, lambda: run.submit_resume("yes", index=3))))  # type: ignore[misc]
    assert reads[0] == reads[1] < 20
    assert heard == ["suspended"] * 4


def test_a_hook_reads_what_it_looks_at(orchestrator: Orchestrator) -> None:
    """Whatever it asks for is as the run has settled with it."""
    seen: list[RunInfo] = []

    def look(info: RunInfo) -> None:
        assert info.steps["approve"].suspend_payload == {"approve": 2}
        seen.append(info)

    run = started(orchestrator, crowd(on_finish=look), 2)
    assert [(info.status, info.init_data, info.result, info.error, info.tripwire) for info in seen] == [
        ("suspended", 2, None, None, None)
    ]
    assert (seen[0].run_id, seen[0].state) == (run.run_id, {})
    assert sorted(seen[0].execution_path) == ["approve", "items"]  # which of the two begins first is open
    assert repr(seen[0]) == f"RunInfo({run.run_id!r}, suspended)"


# --- resume data of a time travel -------------------------------------------------------------------------------------


def test_resume_data_that_is_pending_makes_no_commit_larger(orchestrator: Orchestrator, store: CountingStore) -> None:
    """The header is as long for three hundred items that had suspended as for three, and all of them go on."""
    flow, lengths, results = crowd(), [], []
    for size in (3, 300):
        run = started(orchestrator, flow, size)
        run.cancel()
        run.time_travel("items.listed", resume_data="yes")
        header = store.header(run.run_id)
        assert header is not None
        lengths.append(len(str(header.doc())))
        results.append(run.result(timeout=20).steps["items"].output)
    assert abs(lengths[0] - lengths[1]) < 20
    assert results == [["yes"] * 3, ["yes"] * 300]
