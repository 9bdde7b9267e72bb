"""R-ECR, R-CST.

Of several who start or resume the same run one wins, and whoever could not begin takes nothing away.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from celery import Celery

from orchestrator import (
    BrokerUnavailable,
    InputInvalid,
    Orchestrator,
    ResumeAlreadyClaimed,
    StartAlreadyClaimed,
    StoreUnavailable,
)
from orchestrator.stores import open_store
from orchestrator.testing import FailingStore
from tests.parity.calls import calls, count
from tests.parity.flows import robust_claims
from tests.parity.harness import Harness, Place, make_app

PATIENCE = 20.0


class MeetingStore:
    """A store whose first write waits until all others that meet there are about to write too."""

    def __init__(self, store: Any, gate: threading.Barrier) -> None:
        self._store = store
        self._gate: threading.Barrier | None = gate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def commit(self, *args: Any) -> Any:
        """Meet the others, once."""
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.wait(PATIENCE)
        return self._store.commit(*args)


@contextmanager
def over(runtime: Harness, wrap: Callable[[Any], Any]) -> Iterator[Orchestrator]:
    """Give a fresh `Orchestrator` over the runtime's store in a wrapper."""
    store = open_store(runtime.place.store)
    try:
        with Harness(replace(runtime.place, store=wrap(store))).open() as orchestrator:
            yield orchestrator
    finally:
        store.close()


def at_once(*asked: Callable[[], Any]) -> list[Any]:
    """Make the calls at the same time, each in a thread of its own; return what each returned or raised."""
    answers: list[Any] = [None] * len(asked)
    gate = threading.Barrier(len(asked))

    def ask(number: int) -> None:
        gate.wait(PATIENCE)
        try:
            answers[number] = asked[number]()
        except Exception as error:  # noqa: BLE001 - a thread's border: the test looks at it
            answers[number] = error

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    return answers


def split(answers: list[Any]) -> tuple[list[Any], list[Exception]]:
    """Return the answers that are results, and those that are errors."""
    errors = [answer for answer in answers if isinstance(answer, Exception)]
    return [answer for answer in answers if not isinstance(answer, Exception)], errors


@dataclass(frozen=True)
class MutePlace(Place):
    """The same place, seen by a client that cannot reach the broker."""

    def app(self) -> Celery:
        """Build an app that nobody answers, and that does not ask for long."""
        app = make_app("amqp://guest@127.0.0.1:1//", self.backend, task_publish_retry=False)
        app.conf.broker_transport_options = {"max_retries": 1, "interval_start": 0, "interval_step": 0}
        app.conf.orchestrator_broker_away = "refuse"  # else the resume stands, and the scheduler sends
        return app


@pytest.mark.parity("R-ECR-01")
def test_of_two_resumes_that_saw_the_same_suspension_one_wins(runtime: Harness) -> None:
    """The other is told so, and what follows is done once."""
    run_id = runtime.start(robust_claims.approval, {}).run_id
    gate = threading.Barrier(2)

    with (
        over(runtime, lambda store: MeetingStore(store, gate)) as one,
        over(runtime, lambda store: MeetingStore(store, gate)) as other,
    ):
        answers = at_once(
            lambda: one.get_run(run_id).resume(data={"approved": True}),
            lambda: other.get_run(run_id).resume(data={"approved": True}),
        )

    (result,), (refused,) = split(answers)
    assert result.status == "success"
    assert isinstance(refused, ResumeAlreadyClaimed)
    assert refused.code == "WORKFLOW_RESUME_ALREADY_CLAIMED"
    assert count(run_id, "downstream") == 1
    assert calls(run_id, "approval") == [None, {"approved": True}]


@pytest.mark.parity("R-ECR-03", runtimes="celery")
def test_a_resume_that_nobody_could_be_told_of_is_taken_back(runtime: Harness) -> None:
    """The caller hears of it, and the run is suspended as before: a second resume succeeds."""
    run_id = runtime.start(robust_claims.approval, {}).run_id
    place = runtime.place
    mute = Harness(MutePlace(place.name, place.store, place.broker, place.backend))

    with pytest.raises(BrokerUnavailable):
        mute.resume(robust_claims.approval, run_id, {"approved": False})

    stored = runtime.runs.get(run_id)
    assert stored is not None
    assert stored.status == "suspended"
    assert stored.steps is not None
    assert stored.steps["approval"].status == "suspended"
    assert stored.steps["approval"].resume_payload is None
    assert runtime.resume(robust_claims.approval, run_id, {"approved": True}).result == {"done": True}
    assert calls(run_id, "approval") == [None, {"approved": True}]
    assert count(run_id, "downstream") == 1


@pytest.mark.parity("R-CST-01")
@pytest.mark.parity("R-CST-03")
def test_of_two_hosts_that_start_the_same_run_one_wins(runtime: Harness) -> None:
    """The step runs once, and the run cannot be started later either."""
    run_id = f"robust-start-{uuid.uuid4().hex}"
    gate = threading.Barrier(2)

    with (
        over(runtime, lambda store: MeetingStore(store, gate)) as one,
        over(runtime, lambda store: MeetingStore(store, gate)) as other,
    ):
        runs = [host.create_run(robust_claims.start, run_id=run_id) for host in (one, other)]
        answers = at_once(lambda: runs[0].start({"value": 1}), lambda: runs[1].start({"value": 1}))

    (result,), (refused,) = split(answers)
    assert result.status == "success"
    assert isinstance(refused, StartAlreadyClaimed)
    assert refused.code == "WORKFLOW_START_ALREADY_CLAIMED"
    with pytest.raises(StartAlreadyClaimed):
        runtime.start(robust_claims.start, {"value": 1}, run_id=run_id)
    assert count(run_id, "work") == 1


@pytest.mark.parity("R-CST-02")
@pytest.mark.parity("R-CST-07")
def test_a_run_whose_starter_died_right_after_the_claim_is_restarted_elsewhere(runtime: Harness) -> None:
    """It has its input, its state and its request context."""
    run_id = f"robust-start-{uuid.uuid4().hex}"
    begin = {"state": {"seed": 7}, "request_context": {"tenant": "acme"}}

    with over(runtime, lambda store: FailingStore(store, lost_reply=True)) as host:
        run = host.create_run(robust_claims.start, run_id=run_id)
        with pytest.raises(StoreUnavailable):
            run.start({"value": 21}, **begin)
    assert count(run_id, "work") == 0

    with runtime.open() as orchestrator:
        result = orchestrator.get_run(run_id).restart()

    assert result.status == "success"
    assert result.result == {"doubled": 42}
    assert calls(run_id, "work") == [{"input": {"value": 21}, "state": {"seed": 7}, "tenant": "acme"}]


@pytest.mark.parity("R-CST-04")
def test_a_completed_run_cannot_be_started_again(runtime: Harness) -> None:
    """Its result stays as it is."""
    first = runtime.start(robust_claims.start, {"value": 1})

    with pytest.raises(StartAlreadyClaimed):
        runtime.start(robust_claims.start, {"value": 1000}, run_id=first.run_id)

    stored = runtime.runs.get(first.run_id)
    assert stored is not None
    assert (stored.status, stored.result, stored.input) == ("success", {"doubled": 2}, {"value": 1})
    assert count(first.run_id, "work") == 1


@pytest.mark.parity("R-CST-05")
def test_a_start_that_was_rejected_leaves_the_run_startable(runtime: Harness) -> None:
    """Neither bad input nor the hook's refusal counts as a start."""
    run_id = f"robust-start-{uuid.uuid4().hex}"

    with pytest.raises(InputInvalid):
        runtime.start(robust_claims.checked, {"value": "many"}, run_id=run_id)
    assert count(run_id, "hook") == 0
    with pytest.raises(PermissionError, match="not today"):
        runtime.start(robust_claims.checked, {"value": 4}, run_id=run_id)
    result = runtime.start(robust_claims.checked, {"value": 4}, run_id=run_id)

    assert result.status == "success"
    assert result.result == 8
    assert count(run_id, "work") == 1
