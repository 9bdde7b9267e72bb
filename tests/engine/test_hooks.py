"""Hooks and results of runs: an end is recorded first, and then reported, until it is or is given up and told so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from orchestrator import Context, Orchestrator, Run, Workflow, step
from orchestrator.cli import standalone
from orchestrator.definitions.context import AbortSignal
from orchestrator.engine.lease import LeaseKeeper
from orchestrator.engine.settings import Settings
from orchestrator.rules import reports
from orchestrator.rules.change import UpdateRun
from orchestrator.rules.model import is_report
from orchestrator.stores import MemoryStore
from orchestrator.testing import WorkerLost
from orchestrator.testing.contract.kit import StartedRun, an_activation

PATIENCE = 15.0


@step
def double(data: int) -> int:
    return 2 * data


@step
def fail(data: int) -> int:
    raise ValueError("no")


@step
def ask(data: int, ctx: Context[Any]) -> Any:
    return ctx.resume_data if ctx.resumed else ctx.suspend()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def orchestrator(store: MemoryStore) -> Iterator[Orchestrator]:
    with Orchestrator(store=store) as made:
        yield made


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let attempts follow each other at once, and be two after the first."""
    few = {name: replace(retry, attempts=2, delay=0.05, backoff=False) for name, retry in reports._RETRIES.items()}
    monkeypatch.setattr(reports, "_RETRIES", few)


def eventually(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "not so in time"
        time.sleep(0.01)


def started(orchestrator: Orchestrator, flow: Workflow, data: Any = 1) -> Run:
    orchestrator.register(flow.commit())
    run = orchestrator.create_run(flow.id)
    run.start(data)
    return run


def found(run: Run) -> dict[str, str]:
    """Return the reports of a run with their statuses."""
    return {one.step: one.status for one in run.client.store.load(run.run_id) if is_report(one.path)}


# --- the end comes first ----------------------------------------------------------------------------------------------


def test_a_hook_finds_the_end_of_its_run_recorded(orchestrator: Orchestrator) -> None:
    """Whoever asks while it is being called gets status and result."""
    seen: list[Any] = []

    def look(info: Any) -> None:
        seen.append((info.orchestrator.get_run(info.run_id).status, info.orchestrator.runs.get(info.run_id).result))

    run = started(orchestrator, Workflow("w", on_finish=look).then(double))
    assert seen == [("success", 2)]
    assert found(run) == {"on_finish": "success"}


def test_a_cancel_that_comes_while_the_hook_is_called_finds_the_run_ended(orchestrator: Orchestrator) -> None:
    """The hook is called once, with the status that the run keeps."""
    told: list[str] = []

    def cancel(info: Any) -> None:
        told.append(info.status)
        info.orchestrator.get_run(info.run_id).cancel()

    run = started(orchestrator, Workflow("w", on_finish=cancel).then(double))
    assert (run.status, told) == ("success", ["success"])


def test_a_run_without_hooks_and_result_backend_costs_what_it_did(
    orchestrator: Orchestrator, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit for the step, and one for the settling."""
    commit, changes = store.commit, []
    monkeypatch.setattr(store, "commit", lambda run_id, change: changes.append(change) or commit(run_id, change))
    run = started(orchestrator, Workflow("w").then(double))
    assert len(changes) == 3  # with the start
    assert found(run) == {}


def test_hooks_are_called_in_order_by_the_worker_that_ends_the_run(orchestrator: Orchestrator) -> None:
    called: list[tuple[str, str]] = []

    def note(name: str) -> Callable[[Any], None]:
        return lambda info: called.append((name, threading.current_thread().name))

    flow = Workflow("w", on_finish=note("on_finish"), on_error=note("on_error")).then(fail)
    started(orchestrator, flow)
    assert called == [(name, threading.current_thread().name) for name in ("on_finish", "on_error")]


# --- retries ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("not now"), SystemExit(1)], ids=repr)
def test_a_hook_that_raises_is_called_again(
    orchestrator: Orchestrator, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody waits for that; the other hook is called meanwhile, once."""
    called: list[str] = []

    def finish(info: Any) -> None:
        called.append("on_finish")
        if called.count("on_finish") < 3:
            raise error

    flow = Workflow("w", on_finish=finish, on_error=lambda info: called.append("on_error")).then(fail)
    run = started(orchestrator, flow)
    assert called[:2] == ["on_finish", "on_error"]
    eventually(lambda: found(run) == {"on_finish": "success", "on_error": "success"})
    assert sorted(called) == ["on_error", *["on_finish"] * 3]
    assert "on_finish of run" in caplog.text
    assert run.header().calling == 0


def test_a_hook_that_never_succeeds_is_given_up_and_told_so(
    orchestrator: Orchestrator, caplog: pytest.LogCaptureFixture
) -> None:
    """In the store, in the log of the run, and in that of the process."""

    def finish(info: Any) -> None:
        raise ValueError("never")

    run = started(orchestrator, Workflow("w", on_finish=finish).then(double))
    eventually(lambda: found(run) == {"on_finish": "failed"})
    (event,) = [event for event in run.events() if event.type == "workflow-report-failed"]
    assert (event.payload["report"], event.payload["workflow_status"]) == ("on_finish", "success")
    assert event.payload["error"]["message"] == "never"
    assert "in 3 attempts, and is given up" in caplog.text
    assert run.result(timeout=1).result == 2


def test_a_hook_that_raises_at_a_suspension_is_called_again(orchestrator: Orchestrator) -> None:
    """With the status that it had, although the run may have gone on."""
    told: list[str] = []

    def finish(info: Any) -> None:
        told.append(info.status)
        if len(told) == 1:
            raise ValueError("not now")

    run = started(orchestrator, Workflow("w", on_finish=finish).then(ask))
    assert run.status == "suspended"
    run.resume(7)
    eventually(lambda: len(told) == 3)
    assert sorted(told) == ["success", "suspended", "suspended"]


def test_a_hook_whose_process_is_lost_is_called_again_when_the_run_is_restarted(orchestrator: Orchestrator) -> None:
    """In the default runtime, where nobody else would."""
    told: list[str] = []

    def finish(info: Any) -> None:
        told.append(info.status)
        if len(told) == 1:
            raise WorkerLost

    orchestrator.register(Workflow("w", on_finish=finish).then(double).commit())
    run = orchestrator.create_run("w")
    with pytest.raises(WorkerLost):
        run.start(1)
    assert (run.status, found(run)) == ("success", {"on_finish": "running"})
    assert run.restart().result == 2
    assert (told, found(run)) == (["success", "success"], {"on_finish": "success"})


def test_a_suspension_whose_hook_kills_its_workers_is_recorded_without(
    orchestrator: Orchestrator, caplog: pytest.LogCaptureFixture
) -> None:
    """After the third in a row, and the hook is given up."""
    told: list[str] = []

    def finish(info: Any) -> None:
        told.append(info.status)
        raise WorkerLost

    orchestrator.register(Workflow("w", on_finish=finish).then(ask).commit())
    run = orchestrator.create_run("w").submit(1)
    store = orchestrator.store
    for _ in range(3):
        eventually(lambda: orchestrator.client.runtime.failure_of(run.run_id) is not None)
        (root,) = store.load(run.run_id, [""])
        sweep(orchestrator, run, root)
    eventually(lambda: found(run) == {"on_finish": "failed"})
    assert (run.status, told) == ("suspended", ["suspended"] * 3)
    assert "were abandoned" in caplog.text


def sweep(orchestrator: Orchestrator, run: Run, activation: Any) -> None:
    """Take the claim away, as a scheduler does where there is one, and go on with it here."""
    from orchestrator.rules.timers import on_deadline

    action = on_deadline(run.header(), activation, 1_000)
    assert action is not None
    answer: Any = orchestrator.store.commit(run.run_id, action.change)
    orchestrator.executor.runtime.publish(answer.header, answer.dispatches)
    orchestrator.executor.runtime.drive_in_background(run.run_id)
    eventually(lambda: run.client.store.load(run.run_id, [activation.path])[0].seq != activation.seq)
    time.sleep(0.1)


# --- waiting in hooks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["on_start", "on_finish", "on_error"])
def test_a_hook_must_not_wait_for_a_run(orchestrator: Orchestrator, name: str) -> None:
    """It would hold its worker, which the other run may need. To submit one is fine."""
    orchestrator.register(Workflow("other").then(double).commit())
    errors: list[str] = []

    def wait(info: Any) -> None:
        for call in ("start", "stream"):
            try:
                getattr(info.orchestrator.create_run("other"), call)(1)
            except RuntimeError as error:
                errors.append(str(error))
        info.orchestrator.create_run("other").submit(1)

    hooks: Any = {name: wait}
    started(orchestrator, Workflow("w", **hooks).then(fail))
    assert len(errors) == 2
    assert all("a step must not" in error and "hook" in error for error in errors)


def test_the_command_line_shows_a_hook_that_was_given_up(tmp_path: Path) -> None:
    """Beside the run's result, which stands."""
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    with Orchestrator(store=url) as orchestrator:
        run = started(orchestrator, Workflow("w", on_finish=lambda info: info.nothing).then(double))
        eventually(lambda: found(run) == {"on_finish": "failed"})
    done = CliRunner().invoke(standalone.orchestrator, ["--store", url, "show", run.run_id])
    assert done.exit_code == 0, done.output
    assert "on_finish (success) failed: AttributeError" in done.output


# --- a cancel ---------------------------------------------------------------------------------------------------------


def canceled_elsewhere(store: Any, run_id: str) -> None:
    """Cancel the run in a process that does not know its workflow."""
    with Orchestrator(store=store) as other:
        assert other.get_run(run_id).cancel().status == "canceled"


def test_a_cancel_without_the_workflow_leaves_its_hooks_to_who_has_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in silence; of a suspended run in the default runtime nobody is there but who restarts it."""
    told: list[str] = []
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    flow = Workflow("w", on_finish=lambda info: told.append(info.status)).then(ask).commit()
    with Orchestrator(store=url, workflows=[flow]) as orchestrator:
        run = started(orchestrator, Workflow("w", on_finish=lambda info: told.append(info.status)).then(ask))
        canceled_elsewhere(url, run.run_id)
        assert (run.status, told) == ("canceled", ["suspended"])
        assert "its hooks are for a process that knows workflow w" in caplog.text
        run.restart()
        assert told == ["suspended", "canceled"]
        run.restart()
        assert told == ["suspended", "canceled"]


def test_who_works_on_a_run_calls_the_hooks_of_its_cancel(orchestrator: Orchestrator, store: MemoryStore) -> None:
    """As soon as its step has ended, whose outcome is refused."""
    told: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    @step
    def work(data: int) -> int:
        begun.set()
        go_on.wait(PATIENCE)
        return data

    orchestrator.register(Workflow("w", on_finish=lambda info: told.append(info.status)).then(work).commit())
    run = orchestrator.create_run("w").submit(1)
    assert begun.wait(PATIENCE)
    canceled_elsewhere(store, run.run_id)
    assert (run.status, told) == ("canceled", [])
    go_on.set()
    eventually(lambda: told == ["canceled"])


def test_a_pending_run_that_is_canceled_has_nothing_to_tell(orchestrator: Orchestrator) -> None:
    told: list[str] = []
    orchestrator.register(Workflow("w", on_finish=lambda info: told.append(info.status)).then(double).commit())
    run = orchestrator.create_run("w")
    run.cancel()
    assert (run.status, told, found(run)) == ("canceled", [], {})


# --- the result backend -----------------------------------------------------------------------------------------------


class Backend:
    """A result backend that never replaces what it has, as most do not."""

    def __init__(self) -> None:
        self.results: dict[str, Any] = {}
        self.is_away = False
        self.before: Callable[[], None] = lambda: None
        self.asked = 0

    def discard_result(self, run_id: str) -> None:
        self.asked += 1
        if self.is_away:
            raise ConnectionError("nothing listens there")
        self.results.pop(run_id, None)

    def deliver(self, header: Any, result: Callable[[], Any], error: Callable[[], Any]) -> None:
        self.discard_result(header.run_id)
        told = (header.status, result())
        before, self.before = self.before, lambda: None
        before()
        self.results.setdefault(header.run_id, told)


@pytest.fixture
def backend(orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch) -> Backend:
    made, runtime = Backend(), orchestrator.executor.runtime
    monkeypatch.setattr(runtime, "keeps_results", True)
    monkeypatch.setattr(runtime, "deliver", made.deliver)
    monkeypatch.setattr(runtime, "discard_result", made.discard_result)
    return made


def test_a_backend_that_is_away_costs_no_run_its_end(orchestrator: Orchestrator, backend: Backend) -> None:
    """The hook is called once, and the result is delivered when the backend is back."""
    told: list[str] = []
    backend.is_away = True
    run = started(orchestrator, Workflow("w", on_finish=lambda info: told.append(info.status)).then(double))
    assert (run.status, told, found(run)["result"]) == ("success", ["success"], "retrying")
    backend.is_away = False
    eventually(lambda: backend.results == {run.run_id: ("success", 2)})
    assert told == ["success"]


def test_a_delivery_is_given_up_in_the_end(
    orchestrator: Orchestrator, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says what was away, and speaks of no lost worker."""
    backend.is_away = True
    run = started(orchestrator, Workflow("w").then(double))
    eventually(lambda: found(run) == {"result": "failed"})
    assert "the result of run" in caplog.text
    assert "nothing listens there" in caplog.text
    assert "lost" not in caplog.text
    assert [event.payload["report"] for event in run.events() if event.type == "workflow-report-failed"] == ["result"]


def test_an_id_that_is_used_again_has_its_own_result(orchestrator: Orchestrator, backend: Backend) -> None:
    """Also where the backend was away when the first run was deleted."""
    orchestrator.register(Workflow("w").then(double).commit())
    for data, is_away in ((1, False), (2, True), (3, False)):
        orchestrator.create_run("w", run_id="order-7").start(data)
        assert backend.results == {"order-7": ("success", 2 * data)}
        backend.is_away = is_away
        orchestrator.runs.delete("order-7")
        assert backend.results == ({"order-7": ("success", 4)} if is_away else {})
        backend.is_away = False


def test_a_time_travel_replaces_the_result_whatever_the_backend_does(
    orchestrator: Orchestrator, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """What `forget` raises is logged, and the travel is as if it had not."""
    run = started(orchestrator, Workflow("w").then(double))
    forget, runtime = backend.discard_result, orchestrator.executor.runtime

    def away(run_id: str) -> None:
        runtime.discard_result = forget  # type: ignore[method-assign]
        raise ConnectionError("away")

    runtime.discard_result = away  # type: ignore[method-assign]
    assert run.time_travel(double, input=21).result == 42
    assert backend.results == {run.run_id: ("success", 42)}
    assert "keeps an old result" in caplog.text


@pytest.mark.parametrize("what", ["travels", "is deleted", "is another"])
def test_a_delivery_that_comes_too_late_leaves_the_backend_right(
    orchestrator: Orchestrator, backend: Backend, what: str
) -> None:
    """The run travels, or is deleted, after the old result was read and before it is written."""
    orchestrator.register(Workflow("w").then(double).commit())
    run = orchestrator.create_run("w", run_id="r")

    def meanwhile() -> None:
        if what == "travels":
            run.time_travel(double, input=21)
            return
        orchestrator.runs.delete("r")
        if what == "is another":
            orchestrator.create_run("w", run_id="r").start(5)

    backend.before = lambda: _in_a_thread(meanwhile)
    run.submit(1)
    expected = {"travels": {"r": ("success", 42)}, "is deleted": {}, "is another": {"r": ("success", 10)}}[what]
    eventually(lambda: backend.asked > 2 and backend.results == expected)
    time.sleep(0.1)
    assert backend.results == expected


def _in_a_thread(call: Callable[[], None]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join(2)  # a travel in this process is driven by the thread that is at it


def test_hooks_of_an_end_that_is_traveled_away_from_are_not_called_any_more(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says so, and those of the next end are."""
    slow = {name: replace(retry, delay=60.0) for name, retry in reports._RETRIES.items()}
    monkeypatch.setattr(reports, "_RETRIES", slow)
    told: list[Any] = []

    def finish(info: Any) -> None:
        told.append(info.result)
        if len(told) == 1:
            raise ValueError("not now")

    run = started(orchestrator, Workflow("w", on_finish=finish).then(double))
    assert found(run) == {"on_finish": "retrying"}
    run.time_travel(double, input=4)
    assert (told, found(run)) == ([2, 8], {"on_finish": "success"})
    assert "travels in time before on_finish" in caplog.text


# --- listeners --------------------------------------------------------------------------------------------------------


def test_a_slow_listener_of_an_abort_signal_holds_up_no_renewal() -> None:
    """Nor does one whose step is over its limit: each has a thread of its own."""
    store = MemoryStore()
    first, second = (StartedRun(store, an_activation("0")) for _ in range(2))
    claims = [run.claim("0", lease=900) for run in (first, second)]
    overdue = threading.Event()
    keeper = LeaseKeeper(store, Settings(lease_seconds=0.9), lambda claimed, error: overdue.wait(PATIENCE))  # type: ignore[arg-type]
    stuck = threading.Event()
    with keeper.keep_alive(claims[0]) as signal, keeper.keep_alive(claims[1]):
        signal.add_listener(lambda: stuck.wait(PATIENCE))
        first.commit_request(UpdateRun({"status": "canceled"}))
        eventually(signal.is_set)
        path, run_id = claims[1].activation.path, claims[1].header.run_id
        before = store.load(run_id, [path])[0].deadline
        eventually(lambda: store.load(run_id, [path])[0].deadline > before + 500)
    stuck.set()
    overdue.set()
    keeper.close()


def test_listeners_are_called_once_each() -> None:
    signal, heard = AbortSignal(), []
    signal.add_listener(lambda: heard.append(1))
    signal.add_listener(lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    signal.set()
    signal.set()
    eventually(lambda: heard == [1])
    signal.add_listener(lambda: heard.append(2))
    assert heard == [1, 2]
