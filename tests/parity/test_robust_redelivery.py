"""R-EDI, R-ERB, R-ERF: a message that comes again does nothing again, and a lost worker's step is not lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from orchestrator import Orchestrator, RunFailed
from orchestrator.testing import FailingStore, deliver_again
from tests.parity.calls import calls, count, note_for
from tests.parity.flows import robust_redelivery as flows
from tests.parity.harness import Harness
from tests.parity.robust import BRIEF, Own, eventually, working

# Celery calls a method that the Redis client has deprecated, and a worker of this process does so here.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")


@pytest.fixture(scope="module")
def hosts() -> Iterator[Callable[[Harness], Orchestrator]]:
    """Keep one host with short leases for each runtime."""
    begun: dict[str, Orchestrator] = {}
    with ExitStack() as stack:

        def host(runtime: Harness) -> Orchestrator:
            if runtime.name not in begun:
                begun[runtime.name] = stack.enter_context(Own(runtime).host())
            return begun[runtime.name]

        yield host


@pytest.fixture
def brief(runtime: Harness, hosts: Callable[[Harness], Orchestrator]) -> Orchestrator:
    """Give a host whose worker's leases are short."""
    return hosts(runtime)


def parked(orchestrator: Orchestrator, run_id: str) -> str:
    """Return why the step waits for another worker."""
    record = orchestrator.runs.get(run_id)
    assert record is not None
    step = (record.steps or {}).get("late")
    return str((step.metadata or {}).get("parked")) if step is not None else ""


@pytest.mark.parity("R-EDI-02", runtimes="celery")
def test_a_run_that_no_worker_knows_waits_for_one_that_does(runtime: Harness) -> None:
    """It does not fail: its result says why it waits, and it goes on when a worker with its workflow has come."""
    own = Own(runtime)
    with own.client(flows._late) as caller:
        run = caller.create_run(flows._late).submit({})
        with own.host():
            eventually(lambda: "not registered" in parked(caller, run.run_id))
            assert run.status == "running"
            assert count(run.run_id, "late") == 0
        app: Any = caller.app
        with working(app):
            result = run.result(timeout=10)

    assert result.result == "late, but here"
    assert result.steps["late"].metadata is None


@pytest.mark.parity("R-ERB-01", runtimes="celery")
def test_a_step_that_loses_its_third_worker_has_failed(brief: Orchestrator) -> None:
    """It is not tried a fourth time, and its end is told once."""
    run = brief.create_run(flows.lost_always)
    result = run.start({}, timeout=10)
    deliver_again(run)
    assert brief.create_run(flows.quick).start().status == "success"
    events = [event.type for event in run.events()]

    assert result.status == "failed"
    assert isinstance(result.error, RunFailed)
    assert "work" in str(result.error)
    assert count(run.run_id, "work") == 3
    assert events.count("workflow-step-result") == events.count("workflow-finish") == 1


@pytest.mark.parity("R-ERB-03", runtimes="celery")
def test_an_attempt_that_ends_clears_the_count_of_lost_workers(brief: Orchestrator) -> None:
    """Twice two are not four."""
    run = brief.create_run(flows.lost_twice)
    result = run.start({}, timeout=10)

    assert result.status == "success"
    assert result.result == {"attempts": 2}
    assert [attempt for attempt, _ in calls(run.run_id, "work")] == [0, 0, 0, 1, 1, 1]


@pytest.mark.parity("R-ERB-02", runtimes="celery")
@pytest.mark.parity("R-ERF-01", runtimes="celery")
def test_a_message_that_comes_again_while_the_step_runs_does_nothing(runtime: Harness) -> None:
    """Neither then nor afterwards; that the copy has an id of its own does not matter."""
    with runtime.open() as orchestrator:
        run = orchestrator.create_run(flows.held).submit({})
        eventually(lambda: count(run.run_id, "work"))
        deliver_again(run)
        assert orchestrator.create_run(flows.quick).start().status == "success"
        assert count(run.run_id, "work") == 1
        note_for(run.run_id, flows.GO)
        assert run.result().status == "success"
        deliver_again(run)
        assert orchestrator.create_run(flows.quick).start().status == "success"

    assert (count(run.run_id, "work"), count(run.run_id, "behind")) == (1, 1)


@pytest.mark.parity("R-ERF-02", runtimes="celery")
def test_a_step_whose_worker_could_not_store_its_end_runs_again(runtime: Harness) -> None:
    """The claim is over with its lease, and what follows runs once."""

    def ends_the_work(run_id: str, change: Any) -> bool:
        return any(event["type"] == "workflow-step-result" and event["step"] == "work" for event in change.events)

    def failing(store: Any) -> Any:
        return FailingStore(store, times=3, when=ends_the_work, error=RuntimeError("the handler fails, on purpose"))

    with Own(runtime, failing).host() as orchestrator:
        run = orchestrator.create_run(flows.held)
        note_for(run.run_id, flows.GO)
        result = run.start({}, timeout=10)

    assert result.status == "success"
    assert (count(run.run_id, "work"), count(run.run_id, "behind")) == (2, 1)


@pytest.mark.parity("R-ERF-03", runtimes="celery")
def test_the_claim_of_a_lost_worker_keeps_nobody_out(brief: Orchestrator) -> None:
    """The step runs again once the lease is over, and knows it."""
    run = brief.create_run(flows.lost_once)
    result = run.start({}, timeout=10)

    assert result.status == "success"
    assert calls(run.run_id, "work") == [False, True]


@pytest.mark.parity("R-ERB-01", runtimes="celery")
def test_a_run_whose_result_cannot_be_delivered_ends_nevertheless(
    brief: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three times the result backend is asked to take it."""
    asked: list[str] = []

    def refuse(backend: Any, task_id: str, *_: Any, **options: Any) -> None:
        asked.append(task_id)
        raise OSError("the result backend is broken, on purpose")

    app: Any = brief.app
    monkeypatch.setattr(type(app.backend), "store_result", refuse)
    run = brief.create_run(flows.quick)

    assert run.start({}, timeout=10).status == "success"
    assert asked == [run.run_id] * 3


def assert_a_copy_changes_nothing(orchestrator: Orchestrator, lease: float = 0) -> None:
    """Deliver the messages of a finished run again, once the lease of its first claim is over."""
    run = orchestrator.create_run(flows.held)
    note_for(run.run_id, flows.GO)
    result = run.start({}, timeout=15)
    assert result.status == "success"
    before = orchestrator.runs.get(run.run_id)
    began = result.steps["work"].started_at
    assert began is not None
    eventually(lambda: orchestrator.store.now() / 1000 > began.timestamp() + lease)

    deliver_again(run)
    assert orchestrator.create_run(flows.quick).start().status == "success"

    assert orchestrator.runs.get(run.run_id) == before
    assert (count(run.run_id, "work"), count(run.run_id, "behind")) == (1, 1)


@pytest.mark.parity("R-ERF-07", runtimes="celery")
def test_a_step_that_has_a_result_never_runs_again(runtime: Harness) -> None:
    """Its result is what it was."""
    with runtime.open() as orchestrator:
        assert_a_copy_changes_nothing(orchestrator)


@pytest.mark.parity("R-ERF-07", runtimes="celery")
def test_a_step_that_has_a_result_never_runs_again_after_its_lease(brief: Orchestrator) -> None:
    """Its result is what it was."""
    assert_a_copy_changes_nothing(brief, BRIEF["lease_seconds"])
