"""The traces of starts by `delay` and by name, and the runs that a purge removes."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator

import pytest
from celery import Celery

from orchestrator import BrokerUnavailable, InputInvalid, Orchestrator, Workflow, step
from orchestrator.stores import MemoryStore
from orchestrator.testing import VirtualClock
from tests.vendor import free_port


@step
def ship(number: int) -> str:
    return f"shipped {number}"


@step
def refund(number: int) -> str:
    return f"refunded {number}"


def shipping() -> Workflow:
    return Workflow("orders", input=int).then(ship).commit()


def refunding() -> Workflow:
    return Workflow("orders", input=int).then(refund).commit()


@pytest.fixture
def app() -> Iterator[Celery]:
    """An app whose tasks are called in this process, by their functions' own apply()."""
    app = Celery("doors", broker="memory://", backend="cache+memory://", set_as_current=False)
    yield app
    app.close()


def test_run_ids_are_uuids_of_version_4() -> None:
    """As validators want them (`pydantic.UUID4`, npm's `uuid`)."""
    with Orchestrator(workflows=[shipping()]) as orchestrator:
        run_id = orchestrator.create_run("orders").run_id
    assert (str(uuid.UUID(run_id)), uuid.UUID(run_id).version) == (run_id, 4)


def test_two_different_workflows_of_one_id_are_refused() -> None:
    """Neither runs in the other's place, however they come to be registered."""
    with pytest.raises(ValueError, match="two different workflows have the id 'orders'"):
        Orchestrator(workflows=[shipping(), refunding()])
    with Orchestrator() as orchestrator:
        assert orchestrator.create_run(shipping()).start(1).result == "shipped 1"
        with pytest.raises(ValueError, match="give one of them another id"):
            orchestrator.create_run(refunding())


def test_the_same_workflow_made_again_takes_the_place_of_the_first() -> None:
    """As when a module is loaded again: what is handed over is what runs."""
    made: list[str] = []

    def flow(name: str) -> Workflow:
        return Workflow("orders", input=int).then(step(lambda number: made.append(name), id="note")).commit()

    with Orchestrator(workflows=[flow("first")]) as orchestrator:
        orchestrator.create_run("orders").start(1)
        orchestrator.create_run(flow("second")).start(1)
        orchestrator.create_run("orders").start(1)
    assert made == ["first", "second", "second"]


def test_a_delay_that_is_refused_leaves_no_run() -> None:
    """Neither one whose input does not fit, nor one that no broker took; a pending run of the caller's own stays."""
    flow = shipping()
    app = Celery("away", broker=f"redis://127.0.0.1:{free_port()}/0", set_as_current=False)
    app.conf.broker_transport_options = {"max_retries": 0}
    with Orchestrator(app, store=MemoryStore(), workflows=[flow], broker_away="refuse") as orchestrator:
        with pytest.raises(InputInvalid):
            flow.delay("many")
        with pytest.raises(InputInvalid):
            flow.apply_async(("many",), run_id="r1")
        with pytest.raises(BrokerUnavailable):
            flow.delay(1)
        assert orchestrator.runs.list().total == 0
        orchestrator.create_run(flow, run_id="r2")
        with pytest.raises(InputInvalid):
            flow.apply_async(("many",), run_id="r2")
        assert [run.run_id for run in orchestrator.runs.list().runs] == ["r2"]
    app.close()


@pytest.mark.parametrize("how", ["chain", "callbacks", "errbacks", "chord"])
def test_a_workflows_task_cannot_be_followed_by_others(how: str, app: Celery) -> None:
    """It ends when the run has begun: what is linked would come too early, or, as its result is ignored, never."""
    with Orchestrator(app, store=MemoryStore(), workflows=[shipping()]) as orchestrator:
        task = app.tasks["orders"]
        task.push_request(id="message", **{how: [app.signature("orders", args=[2])]})
        try:
            with pytest.raises(ValueError, match=f"'orders' cannot be followed by others \\({how}\\)"):
                task.run(1)
        finally:
            task.pop_request()
        assert orchestrator.runs.list().total == 0


@pytest.mark.parametrize("args, kwargs", [([1, 2], {}), ([], {"number": 1}), ([1], {"other": 2})])
def test_a_workflow_that_is_started_by_its_name_takes_one_input(
    args: list[int], kwargs: dict[str, int], app: Celery
) -> None:
    """Any other call says so, and starts nothing."""
    with Orchestrator(app, store="memory://", workflows=[shipping()]) as orchestrator:
        with pytest.raises(TypeError, match="workflow 'orders' takes one input, which may be a dict"):
            app.tasks["orders"].apply(args=args, kwargs=kwargs, throw=True)
        assert orchestrator.runs.list().total == 0


def test_a_workflow_that_is_called_as_a_function_is_started(app: Celery) -> None:
    """Celery's own `starmap` does that: a caller would wait for ever for the result of an ignored task."""
    with Orchestrator(app, store="memory://", workflows=[shipping()]) as orchestrator:
        run_id = app.tasks["orders"](3)
        assert orchestrator.get_run(run_id).status == "running"


def test_an_app_purges_its_own_runs_only(app: Celery) -> None:
    """Two apps share a store: neither removes what is the other's. Without an app, all of the store's are meant."""
    clock = VirtualClock()
    store = MemoryStore(clock)
    other = Celery("other", broker="memory://", set_as_current=False)
    with (
        Orchestrator(app, store=store, workflows=[shipping()]) as ours,
        Orchestrator(other, store=store, workflows=[shipping()]) as theirs,
        Orchestrator(store=store) as alone,
    ):
        for number in range(3):
            ours.create_run("orders", run_id=f"r{number}").cancel()
        clock.advance(60)
        assert theirs.runs.purge(older_than=59) == 0
        assert ours.runs.purge(older_than=59) == 3
        theirs.create_run("orders").cancel()
        clock.advance(1)
        assert alone.runs.purge(older_than=0) == 1
    other.close()


def test_an_attempt_that_is_followed_by_another_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """With its number, what it failed with and when the next comes, and the fields of every record of a step."""
    failing = [ConnectionError("bank away")]

    def charge(number: int) -> int:
        if failing:
            raise failing.pop()
        return number

    flow = Workflow("paying", input=int).then(step(charge, retries=1, retry_delay=0.01, retry_jitter=False)).commit()
    with Orchestrator(workflows=[flow]) as orchestrator, caplog.at_level(logging.INFO):
        run = orchestrator.create_run(flow)
        assert run.start(1).status == "success"
    [record, settled] = caplog.records
    assert settled.getMessage() == f"run {run.run_id} of paying is success"
    assert record.getMessage() == (
        f"attempt 1 of step charge of run {run.run_id} (paying) failed, the next follows in 0.0 s: "
        "ConnectionError('bank away')"
    )
    assert (record.__dict__["run_id"], record.__dict__["step"]) == (run.run_id, "charge")
