"""R-ESL, R-ENC, R-CKP, R-WTO: workers come and go, and writes fail; nothing is lost, done too early or left hanging."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from orchestrator import NoConsumer, RunRecord, RunResult, StoreUnavailable, Workflow
from tests.parity.calls import calls, count
from tests.parity.flows import robust_app
from tests.parity.flows import robust_workers as flows
from tests.parity.harness import Harness, Place
from tests.vendor import WorkerNode


@dataclass(frozen=True)
class OwnPlace(Place):
    """The servers of a runtime, for an application whose workers the test starts and kills itself."""

    own: str = ""

    def app(self) -> Celery | None:
        """Build an app with a namespace and a queue of its own."""
        return robust_app.own_app(self.broker, str(self.backend), self.own) if self.broker else None


@dataclass(frozen=True)
class Own(Harness):
    """A runtime as an application of its own sees it, which has no workers yet."""

    start_process: Callable[..., WorkerNode]
    folder: Path

    def work(self, **faults: str) -> WorkerNode:
        """Start a worker process, perhaps with faults."""
        place = self.place
        assert isinstance(place, OwnPlace)
        env = {
            "BROKER_URL": str(place.broker),
            "RESULT_BACKEND": str(place.backend),
            "ORCHESTRATOR_STORE": place.store,
            robust_app.NAME: place.own,
            **faults,
        }
        return self.start_process("tests.parity.flows.robust_app:app", env=env, cwd=self.folder, pool="threads")


@pytest.fixture
def own(runtime: Harness, worker_factory: Callable[..., WorkerNode], tmp_path: Path) -> Own:
    """Give the runtime to an application of its own.

    No process shares the broker in memory with another: there a folder is the broker.
    """
    place, name = runtime.place, f"robust-{uuid.uuid4().hex[:8]}"
    broker, backend = place.broker, place.backend
    if broker and broker.startswith("memory:"):
        broker, backend = f"filesystem://{tmp_path / 'broker'}", "cache+memory://"
    return Own(OwnPlace(place.name, place.store, broker, backend, own=name), worker_factory, tmp_path)


def eventually(condition: Callable[[], Any], seconds: float = 15.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not so within {seconds} s"
        time.sleep(0.02)


def stored(runtime: Harness, run_id: str) -> RunRecord:
    """Look a run up with all its steps."""
    record = runtime.runs.get(run_id)
    assert record is not None
    return record


def sleeps(runtime: Harness, run_id: str) -> bool:
    """Tell whether the run has come to its sleep."""
    return "nap" in (stored(runtime, run_id).steps or {})


def submit(runtime: Harness, *workflows: Workflow, **options: Any) -> list[str]:
    """Start runs without waiting; return their ids."""
    with runtime.open() as orchestrator:
        return [orchestrator.create_run(workflow).submit({}, **options).run_id for workflow in workflows]


def raw(runtime: Harness, run_id: str) -> str:
    """Return all that the store has of a run, as it has it."""
    with runtime.open() as orchestrator:
        store = orchestrator.store
        records, events = store.load(run_id), store.events(run_id)
        keys = {key for record in records for key in (record.input, record.output)}
        return repr([store.header(run_id), records, events, store.context(run_id), store.values(run_id, keys)])


def result_of(runtime: Harness, run_id: str) -> RunResult:
    """Wait for a run on a fresh host."""
    with runtime.open() as orchestrator:
        return orchestrator.get_run(run_id).result(timeout=15)


# ------------------------------------------------------------------------------------------------- an outage, told once


SENT = {robust_app.TOKEN: "Bearer not-for-the-store", "tenant": "acme"}


@dataclass(frozen=True)
class Outage:
    """The fate of an application whose only worker could send no messages, was killed, and got a successor."""

    refused: NoConsumer
    unpublished: RunResult
    complaint: str
    slept: list[RunResult]
    timer: str
    early: list[int]
    back_at: float
    accepted: RunResult


@pytest.fixture(scope="module")
def outages() -> dict[str, Outage]:
    """Keep what an outage has shown: it takes long, and several entries speak of it."""
    return {}


@pytest.fixture
def outage(own: Own, outages: dict[str, Outage]) -> Outage:
    """Go through the outage once for each runtime."""
    if own.name not in outages:
        outages[own.name] = _go_through(own)
    return outages[own.name]


def _go_through(own: Own) -> Outage:
    with own.open() as orchestrator:
        late = orchestrator.create_run(flows.made)
        with pytest.raises(NoConsumer) as refused:
            late.start({})

    worker = own.work(**{robust_app.MUTE: "1"})
    (unpublished,) = submit(own, flows.napping, request_context=SENT)
    eventually(lambda: "tick: the broker does not answer" in worker.process.logs_since_start())
    complaint = worker.process.logs_since_start()
    run_ids = submit(own, flows.napping, flows.napping_until, request_context=SENT)
    eventually(lambda: all(sleeps(own, run_id) for run_id in run_ids))
    timer = raw(own, run_ids[0])
    worker.kill()

    passed = time.monotonic() + flows.NAP
    eventually(lambda: time.monotonic() > passed)
    early = [count(run_id, "after") for run_id in (unpublished, *run_ids)]
    with own.open() as orchestrator:
        assert set(orchestrator.restart_active()) == set(orchestrator.restart_active()) == {unpublished, *run_ids}
        own.work()
        back_at = time.time()
        slept = [result_of(own, run_id) for run_id in run_ids]
        eventually(lambda: orchestrator.store.workers(orchestrator.settings.namespace))
        accepted = orchestrator.get_run(late.run_id).start({})
    return Outage(refused.value, result_of(own, unpublished), complaint, slept, timer, early, back_at, accepted)


def assert_slept_once(result: RunResult) -> None:
    """Each of the steps around the sleep has run once, and nothing of the sleep is left over."""
    assert result.status == "success"
    assert result.result == {"value": 2}
    assert result.steps["nap"].status == "success"
    assert (count(result.run_id, "before"), count(result.run_id, "after")) == (1, 1)


@pytest.mark.slow
@pytest.mark.parity("R-ESL-04", runtimes="celery")
def test_a_sleep_outlives_its_worker(outage: Outage) -> None:
    """Its worker was killed; the next one carries it out, once, though there is a bulk restart, twice."""
    assert outage.early == [0, 0, 0]
    assert_slept_once(outage.slept[0])


@pytest.mark.parity("R-ESL-04", runtimes="celery")
def test_a_bulk_restart_leaves_the_runs_of_other_applications_alone(own: Own, runtime: Harness) -> None:
    """Two may share a store: what runs in one of them has its own workers, which live."""
    (run_id,) = submit(runtime, flows.napping)
    eventually(lambda: sleeps(runtime, run_id))

    with own.open() as orchestrator:
        assert orchestrator.restart_active() == []

    assert_slept_once(result_of(runtime, run_id))


@pytest.mark.parity("R-ESL-05", runtimes="celery")
def test_a_sleep_until_a_moment_outlives_its_worker(outage: Outage) -> None:
    """The next worker keeps the moment, and does not begin the sleep anew."""
    assert_slept_once(outage.slept[1])


@pytest.mark.parity("R-ESL-06", runtimes="celery")
def test_a_timer_that_was_missed_fires_as_soon_as_there_is_a_worker(outage: Outage) -> None:
    """The sleep does not begin again, and the moment is not waited for once more."""
    for result in outage.slept:
        ended, began = result.steps["nap"].ended_at, result.steps["nap"].started_at
        assert ended is not None
        assert began is not None
        assert ended.timestamp() >= began.timestamp() + flows.NAP - 0.05
        assert ended.timestamp() < outage.back_at + 3


@pytest.mark.parity("R-ESL-10", runtimes="celery")
def test_a_timer_does_not_tell_the_callers_token(outage: Outage) -> None:
    """It stands nowhere in what is stored, other keys do; the step after the sleep has both."""
    assert "not-for-the-store" not in outage.timer
    assert "acme" in outage.timer
    assert calls(outage.slept[0].run_id, "after") == [SENT]


@pytest.mark.parity("R-ESL-11", runtimes="celery")
def test_a_timer_that_could_not_be_published_is_not_lost(outage: Outage) -> None:
    """The worker that tried says so and lives on; another one, which reaches the broker, carries it out."""
    assert "the broker does not answer" in outage.complaint
    assert_slept_once(outage.unpublished)


@pytest.mark.parity("R-ENC-03", runtimes="celery")
def test_a_start_that_was_refused_for_want_of_workers_succeeds_once_there_are(outage: Outage) -> None:
    """The refusal has left nothing behind."""
    run_id = outage.accepted.run_id

    assert outage.refused.details["run_id"] == run_id
    assert outage.accepted.status == "success"
    assert (count(run_id, "make"), count(run_id, "next")) == (1, 1)


# ------------------------------------------------------------------------------------------------- writes that go wrong


def begin_on_failing_store(own: Own, workflow: Workflow) -> str:
    """Start a run where the writes of its first step go wrong; return its id once that step has run."""
    if own.place.broker:
        own.work(**{robust_app.FAILING: "1"})
        (run_id,) = submit(own, workflow)
        eventually(lambda: count(run_id, "make"))
        return run_id
    place = own.place
    store = robust_app.failing(place.store)
    with Harness(Place(place.name, store)).open() as orchestrator:
        run = orchestrator.create_run(workflow)
        run_id = run.run_id
        if workflow is flows.made_without_store:
            with pytest.raises(StoreUnavailable):
                run.start({})
        else:
            run.start({})
    return run_id


@pytest.mark.slow
@pytest.mark.parity("R-CKP-07")
def test_nothing_follows_a_result_that_was_not_stored(own: Own, runtime: Harness) -> None:
    """Not before the step has run again where its result can be stored."""
    run_id = begin_on_failing_store(own, flows.made_without_store)
    assert count(run_id, "next") == 0
    assert stored(own, run_id).status == "running"
    assert (stored(own, run_id).steps or {})["make"].status == "running"

    with runtime.open() as orchestrator:
        result = orchestrator.get_run(run_id).restart()

    assert result.status == "success"
    assert (count(run_id, "make"), count(run_id, "next")) == (2, 1)


@pytest.mark.parity("R-WTO-02")
def test_a_result_that_the_store_refuses_fails_the_run(runtime: Harness) -> None:
    """At once: nobody waits, and nothing follows."""
    result = runtime.execute(flows.refused, {})

    assert result.status == "failed"
    assert result.steps["make"].status == "success"
    assert result.steps["large"].status == "failed"
    assert "large" in str(result.error)
    assert (count(result.run_id, "large"), count(result.run_id, "last")) == (1, 0)


@pytest.mark.slow
@pytest.mark.parity("R-WTO-02")
def test_a_result_whose_write_got_no_answer_is_written_again(own: Own) -> None:
    """The step is not called again: its outcome is fixed."""
    run_id = begin_on_failing_store(own, flows.made_with_doubts)

    result = result_of(own, run_id)

    assert result.status == "success"
    assert (count(run_id, "make"), count(run_id, "next")) == (1, 1)


@pytest.mark.parity("R-WTO-03")
def test_an_error_that_cannot_be_stored_either_fails_the_run(runtime: Harness) -> None:
    """It loses what cannot be stored, and the end is told of."""
    streamed = runtime.stream(flows.refused_error, {})

    assert streamed.result.status == "failed"
    assert "more than can be stored" in str(streamed.result.error)
    assert [event.payload["workflow_status"] for event in streamed.of_type("workflow-finish")] == ["failed"]
    assert (count(streamed.result.run_id, "large"), count(streamed.result.run_id, "last")) == (1, 0)
