"""The chunks that steps write: gathered, sent in flushes, never twice, and never after their claim."""

from __future__ import annotations

import logging
import statistics
import threading
from typing import Any

import pytest

from orchestrator import Context, Orchestrator, Run, Workflow, step
from orchestrator.codec import decode
from orchestrator.engine import chunks as module
from orchestrator.engine.chunks import Chunks, Flush
from orchestrator.errors import StoreUnavailable
from orchestrator.host import monotonic
from orchestrator.rules.change import Change, Committed, LeaseGuard, Refused
from orchestrator.stores import MemoryStore
from orchestrator.testing.clock import VirtualClock
from orchestrator.testing.faults import FailingStore, WorkerLost
from tests.streaming import flows
from tests.streaming.conftest import Opener, eventually


def outputs(run: Run) -> list[Any]:
    """Return what the run's steps have written so far."""
    store = run.orchestrator.store
    docs = [event.doc for event in store.events(run.run_id, limit=100_000)]
    return [decode(doc["text"])["output"] for doc in docs if doc["type"] == "workflow-step-output"]


class _Counting:
    """A store that counts the commits of one kind."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.flushes: list[Change] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def commit(self, run_id: str, change: Change) -> Committed | Refused:
        if isinstance(change.guard, LeaseGuard) and change.guard.flush_seq:
            self.flushes.append(change)
        answer: Committed | Refused = self._store.commit(run_id, change)
        return answer


@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_many_chunks_cost_few_round_trips(opened: Opener) -> None:
    """Those of a step that is quick go with its outcome; a full buffer is sent at once."""
    store = _Counting(MemoryStore())
    run = opened(flows.talking, store=store).create_run(flows.talking)
    run.start(3)
    quick = [change for change in store.flushes if len(change.events) > 3]
    assert not quick
    assert len(outputs(run)) == 9

    store.flushes.clear()
    run = opened(flows.many, store=store).create_run(flows.many)
    run.start(1_200)
    assert len(outputs(run)) == 60 * 1_200
    assert 60 * 2 <= len(store.flushes) <= 60 * 4
    assert max(len(change.events) for change in store.flushes) <= module._MAX_CHUNKS


def test_a_slow_step_is_read_while_it_runs(opened: Opener) -> None:
    """Its chunks are there before it ends."""
    run = opened(flows.gated).create_run(flows.gated)
    for event in run.stream(1):
        if event.type == "workflow-step-output" and event.payload["id"] == "wait_at_the_gate":
            assert run.status == "running"
            flows.gate(run.run_id).set()
    assert run.status == "success"


def test_a_flush_whose_answer_was_lost_is_written_once(opened: Opener, store: Any) -> None:
    """Every store keeps the number of the last flush of a claim."""

    def of_a_flush(run_id: str, change: Change) -> bool:
        return isinstance(change.guard, LeaseGuard) and change.guard.flush_seq > 0

    failing = FailingStore(store, "commit", when=of_a_flush, times=3, lost_reply=True)
    run = opened(flows.talking, store=failing).create_run(flows.talking)
    assert run.start(30).status == "success"
    assert [event.payload["output"] for event in run.events() if event.type == "workflow-step-output"] == [
        *range(30)
    ] * 3


@step
def write_and_be_lost(data: Any, ctx: Context) -> int:
    """Write, wait until it is stored, write again, and be gone at once; the second time write and end."""
    ctx.write("stored" if not ctx.restarted else "again")
    if not ctx.restarted:
        assert flows.gate(ctx.run_id).wait(10)
        ctx.write("never seen")
        raise WorkerLost
    return 1


def test_what_a_lost_worker_had_not_sent_is_lost(opened: Opener) -> None:
    """And what it had sent stays; the step that runs again writes again."""
    workflow = Workflow("lost").then(write_and_be_lost).commit()
    orchestrator = opened(workflow)
    run = orchestrator.create_run(workflow)
    run.submit(1)
    eventually(lambda: len(outputs(run)) == 1, 10, "the first chunk")
    flows.gate(run.run_id).set()
    eventually(lambda: not orchestrator.executor.runtime._queues, 10, "the worker's end")  # type: ignore[attr-defined]
    assert run.restart().status == "success"
    assert outputs(run) == ["stored", "again"]


@step
def talk_on(data: Any, ctx: Context) -> int:
    """Write until the run is canceled, and a little longer."""
    while not ctx.abort_signal.is_set():
        ctx.write("word")
        ctx.abort_signal.wait(0.01)
    for _ in range(10):
        ctx.write("too late")
        threading.Event().wait(0.01)
    return 1


def test_a_canceled_run_has_no_chunks_after_its_end(opened: Opener, caplog: pytest.LogCaptureFixture) -> None:
    """The step hears of it by its next flush at the latest; one line of the log says so."""
    workflow = Workflow("on-and-on").then(talk_on).commit()
    orchestrator, other = opened(workflow), opened(workflow)
    run = orchestrator.create_run(workflow).submit(1)
    eventually(lambda: len(outputs(run)) > 2, 10, "some chunks")
    with caplog.at_level(logging.INFO, "orchestrator"):
        other.get_run(run.run_id).cancel()
        eventually(lambda: not orchestrator.executor.runtime._queues, 10, "the step's end")  # type: ignore[attr-defined]
    types = [event.type for event in run.events()]
    assert types[-1] == "workflow-finish"
    refused = [record for record in caplog.records if "writes to its stream no more" in record.getMessage()]
    assert len(refused) == 1


def test_a_types_prefix_of_ours_is_refused() -> None:
    """A step cannot say that its run has finished."""
    with pytest.raises(ValueError, match="workflow-finish"):
        Context().write_event("workflow-finish", {})


class _Sink:
    """Takes flushes, or does not."""

    def __init__(self) -> None:
        self.flushes: list[Flush] = []
        self.answer: Committed | Refused = Committed(None)  # type: ignore[arg-type]
        self.away = False
        self.refusals: list[str] = []

    def __call__(self, flush: Flush) -> Committed | Refused:
        if self.away:
            raise StoreUnavailable("away")
        self.flushes.append(flush)
        return self.answer

    def chunks(self, patience: float = 0.0) -> Chunks:
        return Chunks(self, self.refusals.append, VirtualClock(), patience, {})


def _doc(number: int) -> dict[str, Any]:
    return {"type": "t", "n": number}


def test_what_gathers_is_sent_as_one_flush() -> None:
    """A flush comes soon, without any call of the step."""
    sink = _Sink()
    chunks = sink.chunks()
    for number in range(5):
        chunks.add(_doc(number), 1)
    eventually(lambda: bool(sink.flushes), 5, "the first flush")
    chunks.add(_doc(5), 1)
    assert chunks.close() == chunks.close()
    (first, *others) = sink.flushes
    assert first == (1, tuple(map(_doc, range(5))))
    assert len(others) + len(chunks.close()) == 1


def test_a_full_buffer_is_sent_by_the_thread_that_fills_it() -> None:
    """By number or by size."""
    sink = _Sink()
    chunks = sink.chunks()
    for number in range(module._MAX_CHUNKS):
        chunks.add(_doc(number), 1)
    assert len(sink.flushes) >= 1
    before = len(sink.flushes)
    chunks.add(_doc(0), module._MAX_TEXT)
    assert len(sink.flushes) == before + 1
    assert chunks.close() == ()


def test_a_writer_waits_for_the_store_only_so_long() -> None:
    """Then it hears that it is away; what it wrote is sent when it is back, under the same number."""
    sink = _Sink()
    chunks = sink.chunks()
    sink.away = True
    with pytest.raises(StoreUnavailable):
        chunks.add(_doc(0), module._MAX_TEXT)
    with pytest.raises(StoreUnavailable):
        chunks.close()
    sink.away = False
    assert chunks.close() == ()
    assert sink.flushes == [(1, (_doc(0),))]


def test_after_a_refusal_nothing_is_sent() -> None:
    """It is told of once."""
    sink = _Sink()
    sink.answer = Refused("lost")
    chunks = sink.chunks()
    for number in range(3):
        chunks.add(_doc(number), module._MAX_TEXT)
    assert (len(sink.flushes), sink.refusals) == (1, ["lost"])
    assert chunks.close() == ()


def test_an_error_in_the_background_is_logged_and_ends_the_writing(caplog: pytest.LogCaptureFixture) -> None:
    """The step goes on without it."""

    def stumble(flush: Flush) -> Committed | Refused:
        raise ZeroDivisionError

    chunks = Chunks(stumble, lambda reason: None, VirtualClock(), 0.0, {})
    with caplog.at_level(logging.ERROR, "orchestrator"):
        chunks.add(_doc(0), 1)
        eventually(lambda: bool(caplog.records), 5, "the line of the log")
    chunks.add(_doc(1), 1)
    eventually(lambda: chunks.close() == (), 5, "the end")


@step(retries=2)
def answer(question: str, ctx: Context) -> Any:
    """Fail once in the middle, ask, and fail once more."""
    yield "Hel"
    if ctx.retry_count == 0:
        raise ConnectionError("the model went away")
    if not ctx.resumed:
        ctx.suspend()
    yield "lo"


answering = Workflow("answers", input=str).then(answer).commit()


def test_the_chunks_of_a_failed_attempt_are_told_from_the_next_ones() -> None:
    """By an event between them, and by a number that grows with each attempt, after a resume too."""
    with Orchestrator(workflows=[answering]) as orchestrator:
        run = orchestrator.create_run(answering)
        assert run.start("?").status == "suspended"
        run.resume()
        events = list(run.events())
    kinds = [event.type.removeprefix("workflow-step-") for event in events if event.type.startswith("workflow-step")]
    failed, again = ["start", "output", "retrying", "output", "suspended"], ["start", "output", "retrying"]
    assert kinds[: len(failed)] == failed
    assert kinds[len(failed) :] == [*again, "output", "output", "result", "finish"]
    written = [event for event in events if event.type == "workflow-step-output"]
    numbers = [event.attempt for event in written]
    assert [event.payload["attempt"] for event in written] == numbers
    assert numbers[-1] == numbers[-2]  # two chunks of one attempt
    assert numbers[:4] == sorted({number for number in numbers if number is not None})
    retrying = [event.payload for event in events if event.type == "workflow-step-retrying"]
    assert [payload["attempt"] for payload in retrying] == [numbers[0], numbers[2]]
    assert [payload["retry_count"] for payload in retrying] == [1, 1]
    assert {event.type for event in events if event.attempt} == {"workflow-step-output", "workflow-step-retrying"}


@step
def say_when(count: int, ctx: Context) -> int:
    """Write what the time is."""
    for _ in range(count):
        ctx.write(monotonic())
        ctx.abort_signal.wait(0.02)
    return count


@pytest.mark.parametrize("url", ["redis"], indirect=True)
def test_a_chunk_is_read_within_tens_of_milliseconds(opened: Opener, record_property: Any) -> None:
    """Measured, for the record; what is asserted leaves room for a slow machine."""
    workflow = Workflow("clock").then(say_when).commit()
    orchestrator: Orchestrator = opened(workflow)
    run = orchestrator.create_run(workflow)
    late = [monotonic() - event.payload["output"] for event in run.stream(50) if event.type == "workflow-step-output"]
    median, most = statistics.median(late), max(late)
    record_property("chunk_latency_ms", {"median": round(median * 1000), "most": round(most * 1000)})
    print(f"chunks on Redis were read after {median * 1000:.0f} ms (median), {most * 1000:.0f} ms (most)")
    assert median < 1.0
