"""Requests of which nobody can be told: they stand, or are undone so that nothing of them is left."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from celery import Celery

from orchestrator import (
    BrokerUnavailable,
    Context,
    Orchestrator,
    ResumeAlreadyClaimed,
    Run,
    RunNotSuspended,
    StartAlreadyClaimed,
    StoreUnavailable,
    Workflow,
    step,
)
from orchestrator.codec import encode
from orchestrator.ports import Store
from orchestrator.rules.change import Change, RequestGuard
from orchestrator.stores import MemoryStore
from orchestrator.testing import VirtualClock
from tests.vendor import free_port


@step
def ask(_: object, ctx: Context[Any]) -> object:
    if not ctx.resumed:
        ctx.suspend({"for": "an answer"})
    return ctx.resume_data


@step
def plain(number: int) -> int:
    return number


asking = Workflow("asking").then(ask).commit()
counting = Workflow("counting", input=int).then(plain).commit()
waiting = Workflow("waiting", input=int).parallel(Workflow("nap", input=int).sleep(5).commit(), plain).commit()
listening = Workflow("listening").wait_for_event("go").then(ask).commit()
FLOWS = [asking, counting, waiting, listening]


class Between:
    """A store that does something, once, right after a change of a caller was committed and before that is known."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.then: Callable[[], Any] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def commit(self, run_id: str, change: Change) -> Any:
        answer = self.store.commit(run_id, change)
        then, is_request = self.then, isinstance(change.guard, RequestGuard) and bool(change.guard.id)
        if then is not None and is_request:
            self.then = None
            then()
        return answer


@contextmanager
def away(store: Any, **settings: Any) -> Iterator[Orchestrator]:
    """An application whose broker is not there."""
    app = Celery("away", broker=f"redis://127.0.0.1:{free_port()}/0", set_as_current=False)
    app.conf.update(broker_transport_options={"max_retries": 0}, task_publish_retry=False)
    with Orchestrator(app, store=store, workflows=FLOWS, namespace="here", **settings) as orchestrator:
        yield orchestrator
    app.close()


@contextmanager
def suspended(store: Any, flow: Workflow = asking) -> Iterator[Run]:
    """A run that was started in this process, and waits."""
    with Orchestrator(store=store, workflows=FLOWS) as orchestrator:
        run = orchestrator.create_run(flow)
        run.start(None, request_context={"who": "me"})
        yield run


def dump(store: MemoryStore, run_id: str) -> Any:
    """All that is stored of a run, but for what counts its commits, or tells one writing of its state from another."""
    run = store._runs[run_id]
    header = replace(run.header, commits=0, updated_at=0, last_request_id="", last_reply="", state_version="")
    activations = {path: replace(one, seq=0) for path, one in run.activations.items()}
    kept = dict(run.values), dict(run.state), dict(run.context), [event.doc for event in run.events]
    return header, activations, *kept, store._timers.copy()


# --- later ------------------------------------------------------------------------------------------------------------


def test_a_start_stands_while_the_broker_is_away(caplog: pytest.LogCaptureFixture) -> None:
    """Its timer is due in the next tick, and the log says so."""
    clock = VirtualClock()
    store = MemoryStore(clock)
    with away(store) as orchestrator, caplog.at_level(logging.WARNING):
        run = orchestrator.create_run(counting).submit(1)
        assert run.status == "running"
        assert f"run {run.run_id}: the broker does not answer" in caplog.text
        assert "the scheduler will publish" in caplog.text
        clock.advance(orchestrator.settings.tick_seconds)
        assert [due.header.run_id for due in store.due_timers("here")] == [run.run_id]
        assert counting.delay(2).status == "running"


def test_a_resume_stands_while_the_broker_is_away() -> None:
    """Whoever comes second is told so."""
    store = MemoryStore()
    with suspended(store) as run, away(store) as orchestrator:
        mine = orchestrator.get_run(run.run_id)
        assert mine.submit_resume("yes").status == "running"
        with pytest.raises(RunNotSuspended):
            mine.submit_resume("no")


@pytest.mark.parametrize("broker_away", ["later", "refuse"])
def test_an_event_a_restart_and_a_travel_stand_whatever_the_setting(broker_away: str) -> None:
    """A later look finds what each of them has begun."""
    store = MemoryStore()
    with suspended(store, listening) as listens, away(store, broker_away=broker_away) as orchestrator:
        with Orchestrator(store=store, workflows=FLOWS) as local:
            ended, lost = local.create_run(counting), local.create_run(counting)
            ended.start(1)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("orchestrator.local.LocalRuntime.drive_in_background", lambda self, run_id: None)
                lost.submit(1)
        orchestrator.get_run(listens.run_id).send_event("go")
        orchestrator.get_run(lost.run_id).submit_restart()
        orchestrator.get_run(ended.run_id).submit_time_travel("plain", input=2)
        for run in (listens, lost, ended):
            assert (run.status, run.header().runtime) == ("running", "celery")
    with Orchestrator(store=store, workflows=FLOWS) as local:
        assert local.get_run(ended.run_id).restart().result == 2


def test_a_setting_that_is_none_is_refused() -> None:
    """With what may be said."""
    with pytest.raises(ValueError, match="orchestrator_broker_away is 'later' or 'refuse', not 'soon'"):
        Orchestrator(broker_away="soon")


# --- refuse -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", [counting, waiting])
def test_a_start_that_is_undone_leaves_nothing(flow: Workflow) -> None:
    """No state, context, value, resource or event; another with other state is as if it were the first."""
    store = MemoryStore()
    with away(store, broker_away="refuse") as orchestrator:
        run = orchestrator.create_run(flow)
        before = dump(store, run.run_id)
        with pytest.raises(BrokerUnavailable):
            run.submit(1, state={"a": 1}, request_context={"resource_id": "me", "b": 2}, per_step=True)
        assert dump(store, run.run_id) == before
    with Orchestrator(store=store, workflows=FLOWS) as orchestrator:
        run = orchestrator.get_run(run.run_id)
        assert run.start(7, state={"c": 3}).status == "success"
        assert run.resource_id is None
        assert store.state(run.run_id) == {"c": encode(3, where="here")}
        assert [event.type for event in run.events()].count("workflow-start") == 1


class TornApp(Celery):
    """An app whose transport finds its channel gone, which none of the errors of a broker says."""

    torn = 0  # the number of times that it does so

    def producer_or_acquire(self, producer: Any = None) -> Any:
        if self.torn:
            self.torn -= 1
            raise AttributeError("'NoneType' object has no attribute 'client'")
        return super().producer_or_acquire(producer)


@pytest.mark.parametrize("torn, status", [(1, "running"), (2, "pending")])
def test_whatever_a_transport_raises_nobody_is_left_without_an_answer(torn: int, status: str) -> None:
    """The messages are sent once more; if that fails too, the start is undone, as where the broker is away."""
    app = TornApp("torn", broker="memory://", set_as_current=False)
    with Orchestrator(app, store=MemoryStore(), workflows=FLOWS) as orchestrator:
        run = orchestrator.create_run(counting)
        app.torn = torn
        refused = False
        try:
            run.submit(1)
        except BrokerUnavailable as error:
            refused = error.is_refused
        assert (run.status, refused) == (status, status == "pending")
        assert app.torn == 0


def test_a_resume_that_is_undone_leaves_nothing() -> None:
    """Also not in the request context, and since when it waits stays."""
    store = MemoryStore()
    with suspended(store) as run, away(store, broker_away="refuse") as orchestrator:
        before = dump(store, run.run_id)
        with pytest.raises(BrokerUnavailable):
            orchestrator.get_run(run.run_id).submit_resume("no", request_context={"who": "you", "more": 1})
        assert dump(store, run.run_id) == before
        assert run.resume("yes").result == "yes"


def test_who_cannot_know_whether_it_was_undone_is_told_so() -> None:
    """The store is away as well: the run goes on by its timer."""
    store: Any = MemoryStore()
    with away(store, broker_away="refuse", lease_seconds=0.2) as orchestrator:
        run = orchestrator.create_run(counting)
        commit, asked = store.commit, []

        def go_away(run_id: str, change: Change) -> Any:
            asked.append(change)
            if len(asked) > 1:
                raise StoreUnavailable("it does not answer, on purpose")
            return commit(run_id, change)

        store.commit = go_away
        with pytest.raises(StoreUnavailable):
            run.submit(1)
        assert run.status == "running"
        assert any(run_id == run.run_id for run_id, _ in store._timers)


def test_who_was_told_that_the_run_is_started_was_told_the_truth() -> None:
    """A second caller comes while the first cannot be told of: then the first stands."""
    store: Any = Between(MemoryStore())
    with away(store, broker_away="refuse") as orchestrator:
        run = orchestrator.create_run(counting)

        def start_too() -> None:
            with pytest.raises(StartAlreadyClaimed):
                orchestrator.get_run(run.run_id).submit(2)

        store.then = start_too
        assert run.submit(1).status == "running"


def test_who_had_seen_a_start_that_was_undone_meanwhile_leaves_nothing_of_either() -> None:
    """Its own start is undone to the pending run, and not to the run that it had seen running."""
    inner = MemoryStore()
    store: Any = Between(inner)
    with away(store, broker_away="refuse") as orchestrator:
        run = orchestrator.create_run(counting)
        pending = dump(inner, run.run_id)
        seen: list[Any] = []
        store.then = lambda: seen.append(run.header())
        with pytest.raises(BrokerUnavailable):
            run.submit(1)
        (started,) = seen
        assert started.status == "running"
        late = orchestrator.get_run(run.run_id)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(late, "header", lambda: started)
            with pytest.raises(BrokerUnavailable):
                late.submit(2)
        assert dump(inner, run.run_id) == pending


def test_who_was_told_that_the_step_is_resumed_was_told_the_truth() -> None:
    """In the same way; whether it had seen the step suspended or not."""
    for refusal, look in ((RunNotSuspended, False), (ResumeAlreadyClaimed, True)):
        inner = MemoryStore()
        store: Any = Between(inner)
        with suspended(inner) as run, away(store, broker_away="refuse") as orchestrator:
            seen = inner.load_awaiting(run.run_id)

            def resume_too(seen: Any = seen, look: bool = look, refusal: Any = refusal, run: Run = run) -> None:
                with pytest.MonkeyPatch.context() as patch:
                    if look:
                        patch.setattr(MemoryStore, "load_awaiting", lambda self, run_id: seen)
                    with pytest.raises(refusal):
                        orchestrator.get_run(run.run_id).submit_resume("no")

            store.then = resume_too
            assert orchestrator.get_run(run.run_id).submit_resume("yes").status == "running"


def test_who_comes_while_a_resume_is_undone_resumes() -> None:
    """What it had seen is there again: of the two, one gets it."""
    inner = MemoryStore()
    store: Any = Between(inner)
    with suspended(inner) as run, away(store, broker_away="refuse") as refusing, away(inner) as other:
        seen, header = inner.load_awaiting(run.run_id), run.header()
        with pytest.raises(BrokerUnavailable):
            refusing.get_run(run.run_id).submit_resume("no")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(MemoryStore, "load_awaiting", lambda self, run_id: seen)
            patch.setattr(Run, "header", lambda self: header)
            other.get_run(run.run_id).submit_resume("yes")
        assert inner.header(run.run_id).status == "running"  # type: ignore[union-attr]


def test_an_event_that_was_sent_meanwhile_stays() -> None:
    """It is the run's and not the start's."""
    inner = MemoryStore()
    store: Any = Between(inner)
    with away(store, broker_away="refuse") as orchestrator:
        run = orchestrator.create_run(listening)
        run.send_event("go", 1)
        with pytest.raises(BrokerUnavailable):
            run.submit(None)
        assert len(inner.mail(run.run_id, "go")) == 1


# --- launching --------------------------------------------------------------------------------------------------------


def test_a_launch_that_is_refused_removes_only_what_it_has_created() -> None:
    """Another process makes a run of the same id just before."""
    store = MemoryStore()
    with away(store, broker_away="refuse") as orchestrator:
        create = store.create

        def create_later(header: Any) -> Any:
            create(replace(header, last_request_id="another"))
            return create(header)

        store.create = create_later  # type: ignore[method-assign]
        with pytest.raises(BrokerUnavailable):
            counting.apply_async((1,), run_id="both")
        assert orchestrator.get_run("both").status == "pending"


def test_a_launch_creates_anew_what_another_has_removed() -> None:
    """The other was refused, and took its pending run along."""
    store: Any = MemoryStore()
    with Orchestrator(store=store, workflows=FLOWS):
        commit = store.commit

        def remove_first(run_id: str, change: Change) -> Any:
            store.commit = commit
            store.delete(run_id)
            return commit(run_id, change)

        store.commit = remove_first
        assert counting.apply_async((1,), run_id="again").result(20).result == 1


@pytest.mark.parametrize("count", [0, 1, 2, 5, 6])
def test_all_active_runs_are_restarted_however_many(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are listed by pages; none is passed over."""
    monkeypatch.setattr("orchestrator.app.orchestrator._PAGE", 2)
    store = MemoryStore(VirtualClock())
    with Orchestrator(store=store, workflows=FLOWS) as orchestrator:
        runs = [orchestrator.create_run(counting).run_id for _ in range(count)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("orchestrator.local.LocalRuntime.drive_in_background", lambda self, run_id: None)
            for run_id in runs:
                orchestrator.get_run(run_id).submit(1)
    with Orchestrator(store=store, workflows=FLOWS) as orchestrator:
        assert sorted(orchestrator.restart_active()) == sorted(runs)
        assert all(orchestrator.get_run(run_id).result(20).result == 1 for run_id in runs)


# --- runs of the other runtime ----------------------------------------------------------------------------------------


def test_a_run_of_this_process_that_goes_on_on_workers_has_timers() -> None:
    """Whichever way: a start, a resume, an event, a restart, a time travel."""
    store = MemoryStore()
    with suspended(store) as asked, suspended(store, listening) as listens, away(store) as orchestrator:
        with Orchestrator(store=store, workflows=FLOWS) as local:
            pending, ended = local.create_run(counting), local.create_run(counting)
            ended.start(1)
        orchestrator.get_run(pending.run_id).submit(1)
        orchestrator.get_run(asked.run_id).submit_resume("yes")
        orchestrator.get_run(listens.run_id).send_event("go")
        orchestrator.get_run(ended.run_id).submit_time_travel("plain")
        for run in (pending, asked, listens, ended):
            header = store.header(run.run_id)
            assert header is not None
            assert (header.runtime, header.namespace) == ("celery", "here")
            assert any(run_id == run.run_id for run_id, _ in store._timers)
        with Orchestrator(store=store, workflows=FLOWS) as local:
            assert local.get_run(pending.run_id).restart().result == 1
        assert not any(run_id == pending.run_id for run_id, _ in store._timers)


def test_a_run_of_workers_goes_on_in_this_process_with_its_timeouts() -> None:
    """No worker lives any more: a wait that it has left behind still ends."""
    late = step(lambda: "late", id="late")
    listens = Workflow("l").wait_for_event("go", timeout=0.3, on_timeout=late).commit()
    flow = Workflow("both").parallel(ask, listens).commit()
    store = MemoryStore()
    with Orchestrator(store=store, workflows=[flow]) as orchestrator:
        run = orchestrator.create_run(flow)
        run.start(None)
        header = run.header()
        store._runs[run.run_id].header = replace(header, runtime="celery", namespace="there")
    with Orchestrator(store=store, workflows=[flow]) as orchestrator:
        again = orchestrator.get_run(run.run_id)
        again.submit_resume("yes", step="ask")
        assert again.wait_until_settled(0, 20, final=True).status == "success"
