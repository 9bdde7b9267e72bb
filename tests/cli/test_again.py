"""Restart, travel, events from outside, listing what waits, and following a run: in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import Result

from orchestrator import Orchestrator
from orchestrator.cli import exits
from orchestrator.cli.following import fitting_rows, tree_of
from orchestrator.cli.rows import Row
from orchestrator.rules.model import RunHeader
from orchestrator.stores import open_store
from orchestrator.testing import WorkerLost
from tests.cli import flows
from tests.cli.test_standalone import calling, data, problem

Call = Callable[..., Result]


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of this test's own store."""
    return f"memory://cli-{uuid4().hex}" if request.param == "memory" else f"sqlite:///{tmp_path / 'runs.db'}"


@pytest.fixture
def call(store: str) -> Call:
    """Run one command line on that store, over the workflows of these tests."""
    return calling("--store", store, "--workflows", "tests.cli.flows:ALL")


@contextmanager
def losing() -> Iterator[None]:
    """The worker is lost in the step `frail` meanwhile."""
    flows.LOSE.set()
    try:
        yield
    finally:
        flows.LOSE.clear()


def left_behind(store: str, *run_ids: str) -> None:
    """Leave runs as a process leaves them that dies in the middle of a step."""
    with losing(), Orchestrator(store=store, workflows=flows.ALL) as orchestrator:
        for run_id in run_ids:
            with pytest.raises(WorkerLost):
                orchestrator.create_run("lossy", run_id=run_id).start(1)


# --- restart ----------------------------------------------------------------------------------------------------------


def test_a_run_whose_process_died_is_restarted(call: Call, store: str) -> None:
    """Finished steps stay; the result is the run's."""
    left_behind(store, "one")
    assert data(call("show", "one", "--json"))["status"] == "running"

    done = call("restart", "one")

    assert done.exit_code == exits.OK, done.output
    assert done.stdout.splitlines() == ["RUN     one", "STATUS  success", "RESULT  3"]
    assert "a step prints what it likes" not in done.output, "the first step is not run again"
    assert data(call("restart", "one", "--json"))["result"] == 3, "an ended run gives its stored result"


def test_all_active_runs_are_restarted(call: Call, store: str) -> None:
    """One line for each; nothing to do is no error."""
    left_behind(store, "one", "two")
    call("start", "approval", "1", "--run-id", "held")

    done = call("restart", "--active")

    assert done.exit_code == exits.OK, done.output
    rows = sorted(line.split() for line in done.stdout.splitlines()[1:])
    assert rows == [["one", "lossy", "success"], ["two", "lossy", "success"]]
    assert data(call("restart", "--active", "--json")) == {"runs": []}
    assert "no active runs" in call("restart", "--active").stderr


def test_what_cannot_be_restarted_is_refused(call: Call) -> None:
    """Suspended and pending runs are not active."""
    call("start", "approval", "1", "--run-id", "held")

    assert "suspended" in problem(call("restart", "held"), exits.USAGE)
    assert "'nope'" in problem(call("restart", "nope"), exits.NOT_FOUND)
    assert "either" in problem(call("restart"), exits.USAGE)
    assert "either" in problem(call("restart", "held", "--active"), exits.USAGE)
    assert "end with this process" in problem(call("restart", "--active", "--no-wait"), exits.USAGE)


# --- travel -----------------------------------------------------------------------------------------------------------


def test_a_run_travels_back_to_one_of_its_steps(call: Call) -> None:
    """With the stored input, with an input of its own, with another's result, state and resume data."""
    assert data(call("start", "adding", "1", "--run-id", "one", "--json"))["result"] == 2

    assert data(call("travel", "one", "add", "--json"))["result"] == 2
    assert data(call("travel", "one", "add", "--input", "40", "--json"))["result"] == 40
    assert data(call("travel", "one", "add", "--state", '{"more": 5}', "--input", "1", "--json"))["result"] == 6
    given = '{"loud": {"status": "success", "output": 7}}'
    assert data(call("travel", "one", "add", "--context", given, "--state", "{}", "--json"))["result"] == 7
    resumed = call("travel", "one", "add", "--resume-data", "100", "--input", "1", "--json")
    assert data(resumed)["result"] == 101
    shown = call("travel", "one", "loud", "--input", "1")
    assert shown.exit_code == exits.OK
    assert "loud success" in shown.stderr
    assert shown.stdout.splitlines()[-1] == "RESULT  2"


def test_a_travel_step_by_step_pauses(call: Call) -> None:
    """The run is paused after the step, which `waiting` shows, and goes on by a resume without data."""
    call("start", "adding", "1", "--run-id", "one")

    paused = call("travel", "one", "loud", "--per-step")

    assert paused.exit_code == exits.HELD, paused.output
    assert "STATUS  paused" in paused.stdout
    [held] = data(call("waiting", "--json"))["waiting"]
    assert (held["run_id"], held["step"], held["kind"]) == ("one", "add", "pause")
    assert "a resume by the caller" in call("waiting").stdout
    assert data(call("resume", "one", "--json"))["result"] == 2


@pytest.mark.parametrize(
    "arguments, code, said",
    [
        (["nope", "add"], exits.NOT_FOUND, "'nope'"),
        (["one", "nowhere"], exits.NOT_FOUND, "nowhere"),
        (["one", "add", "--context", '{"loud": 1}'], exits.USAGE, "no step result"),
        (["one", "add", "--context", "[1]"], exits.USAGE, "JSON object"),
        (["one", "add", "--input", "{"], exits.USAGE, "--input is not JSON"),
        (["one", "add", "--resume-data", "{"], exits.USAGE, "--resume-data is not JSON"),
        (["one", "add", "--input", '"text"'], exits.USAGE, "int"),
        (["one", "add", "--no-wait"], exits.USAGE, "end with this process"),
    ],
)
def test_a_travel_that_cannot_be_is_refused(arguments: list[str], code: int, said: str) -> None:
    """A refusal leaves the run as it was."""
    call = calling("--store", f"memory://cli-{uuid4().hex}", "--workflows", "tests.cli.flows:ALL")
    call("start", "adding", "1", "--run-id", "one")

    assert said in problem(call("travel", *arguments), code)

    assert data(call("show", "one", "--json"))["result"] == 2


# --- send-event and waiting -------------------------------------------------------------------------------------------


def test_an_event_is_sent_and_the_run_goes_on(call: Call, tmp_path: Path) -> None:
    """Its data is JSON, given in any of the three ways; without data it is null."""
    (tmp_path / "data.json").write_text('{"by": "card"}')
    for run_id in ("one", "two", "three"):
        call("start", "listening", "--run-id", run_id)

    sent = call("send-event", "one", "paid", '{"by": "cash"}')

    assert sent.exit_code == exits.OK, sent.output
    assert sent.stdout.splitlines()[-1] == 'RESULT  {"by": "cash"}'
    told = call("send-event", "two", "paid", "--input", str(tmp_path / "data.json"), "--json")
    assert data(told)["result"] == {"by": "card"}
    assert data(call("send-event", "three", "paid", "--json"))["result"] is None


def test_an_event_that_no_wait_can_receive_is_refused(call: Call) -> None:
    """Another name, an ended run, no run."""
    call("start", "listening", "--run-id", "one")

    assert "paid" in problem(call("send-event", "one", "signed"), exits.NOT_FOUND)
    call("send-event", "one", "paid")
    assert "no step will receive" in problem(call("send-event", "one", "paid"), exits.USAGE)
    assert "'nope'" in problem(call("send-event", "nope", "paid"), exits.NOT_FOUND)
    assert "not JSON" in problem(call("send-event", "one", "paid", "{"), exits.USAGE)


def test_what_waits_is_listed_over_all_runs(call: Call) -> None:
    """For a resume with its label and payload, for an event until its timeout; the longest first."""
    call("start", "approval", "1", "--run-id", "one", "--resource", "customer-7")
    call("start", "timed", "--run-id", "two")
    call("start", "approvals", "[1]", "--run-id", "three")
    call("start", "chatty", "1", "--run-id", "ended")

    found = data(call("waiting", "--json"))["waiting"]

    assert [(waiting["run_id"], waiting["step"], waiting["kind"]) for waiting in found] == [
        ("one", "ask", "resume"),
        ("two", "signature", "event"),
        ("three", "approval[0].ask", "resume"),
    ]
    ask, event, _ = found
    assert (ask["label"], ask["payload"], ask["until"]) == ("manager", {"question": "more?"}, None)
    assert ask["resource_id"] == "customer-7"
    assert (event["event"], event["until"] - event["since"], event["label"]) == ("signed", 3_600_000, None)
    shown = call("waiting").stdout
    assert "resume (label manager)" in shown
    assert "event signed" in shown
    assert '{"question": "more?"}' in shown


def test_what_waits_is_filtered(call: Call) -> None:
    """By workflow and by resource; nothing is no error."""
    call("start", "approval", "1", "--run-id", "one", "--resource", "customer-7")
    call("start", "listening", "--run-id", "two")

    by_workflow = data(call("waiting", "--workflow", "listening", "--json"))["waiting"]
    by_resource = data(call("waiting", "--resource", "customer-7", "--json"))["waiting"]

    assert [waiting["run_id"] for waiting in by_workflow] == ["two"]
    assert [waiting["run_id"] for waiting in by_resource] == ["one"]
    nothing = call("waiting", "--workflow", "nothing")
    assert (nothing.exit_code, len(nothing.stdout.splitlines())) == (exits.OK, 1)
    assert "nothing waits" in nothing.stderr


def test_a_tick_needs_workers_runs() -> None:
    """The default runtime has no scheduler; and one tick is not a sweep."""
    call = calling("--store", "memory://cli-ticks", "--workflows", "tests.cli.flows:ALL")
    assert "no scheduler" in problem(call("tick", "--once"), exits.USAGE)
    assert "leave one of them out" in problem(call("tick", "--once", "--for", "1"), exits.USAGE)


def test_runs_of_celery_workers_are_not_moved_here() -> None:
    """Their steps would run in this process, where no user expects them."""
    store = open_store("memory://cli-theirs")
    store.create(RunHeader(run_id="theirs", workflow_id="listening", runtime="celery"))
    call = calling("--store", "memory://cli-theirs", "--workflows", "tests.cli.flows:ALL")
    for command in (["restart", "theirs"], ["travel", "theirs", "paid"], ["send-event", "theirs", "paid"]):
        assert "belongs to the runtime 'celery'" in problem(call(*command), exits.USAGE)


# --- follow -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_run_is_followed_until_it_settles(call: Call, store: str, more: list[str]) -> None:
    """It may be in any hands: here another thread works on it."""
    flows.RELEASED.clear()
    with Orchestrator(store=store, workflows=flows.ALL) as orchestrator:
        orchestrator.create_run("blocked", run_id="one").submit(5)
        timer = threading.Timer(0.4, flows.RELEASED.set)
        timer.start()

        done = call("show", "one", "--follow", *more)

        timer.join()
    assert done.exit_code == exits.OK, done.output
    if more:
        assert (data(done)["status"], done.stderr) == ("success", "")
    else:
        assert "STATUS    success" in done.stdout
        assert "block running" in done.stderr
        assert "block success" in done.stderr


def test_a_settled_run_is_shown_at_once(call: Call) -> None:
    """There is nothing to follow."""
    call("start", "approval", "1", "--run-id", "one")

    assert "WAITS FOR  ask" in call("show", "one", "--follow").stdout
    assert "'nope'" in problem(call("show", "nope", "--follow"), exits.NOT_FOUND)


def row(step: str, depth: int, status: str = "running", **more: Any) -> Row:
    """One row of a tree."""
    about: dict[str, Any] = {"is_item": False, "done": 0, "total": 0, **more}
    started = datetime(2026, 1, 1, tzinfo=UTC)
    told: dict[str, Any] = {"status": status, "started_at": started, "seconds": 1.0, "attempt": 1, "error": None}
    return Row(step, step, step, depth, note="", message=None, **told, **about)


def test_the_tree_has_the_shape_of_the_run() -> None:
    """Steps of nested workflows below them; items of a foreach that have ended go first where there is no room."""
    rows = [row("order", 0), row("pay", 1), row("charge", 2), row("ship", 0)]
    tree = tree_of(rows)
    assert [str(child.label).split()[0] for child in tree.children] == ["order", "ship"]
    assert [str(child.label).split()[0] for child in tree.children[0].children[0].children] == ["charge"]

    items = [row(f"item[{number}]", 1, "success", is_item=True) for number in range(5)]
    shown, hidden = fitting_rows([row("many", 0), *items, row("last", 0)], 4)
    assert ([row.step for row in shown], hidden) == (["many", "last"], 5)
    assert fitting_rows(rows, 2) == (rows[-2:], 2)
