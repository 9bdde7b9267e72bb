"""`celery -A proj workflow …`: the real command, on a user's project, with a real worker."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from orchestrator.cli import exits
from orchestrator.ports import RunQuery
from orchestrator.stores import open_store
from tests.cli.conftest import run_python
from tests.servers import RedisServer
from tests.vendor import WorkerNode, free_port

PROJECT = """
import os

from celery import Celery
from pydantic import BaseModel

from orchestrator import Context, Orchestrator, Workflow, step

app = Celery(os.environ.get("APP_NAME", "shop"), broker=os.environ["SHOP_BROKER"])
app.conf.update(
    orchestrator_store=os.environ["SHOP_STORE"],
    broker_connection_retry_on_startup=True,
    task_default_queue=os.environ.get("SHOP_QUEUE", "cli-tests"),
    orchestrator_broker_away=os.environ.get("BROKER_AWAY", "later"),
)


class Order(BaseModel):
    sku: str
    qty: int


@step
def reserve(order: Order) -> int:
    if order.qty > 10:
        raise ValueError("no stock")
    return order.qty


@step
def ask(qty: int, ctx: Context) -> int:
    if not ctx.resumed:
        ctx.suspend({"qty": qty}, label="manager")
    return qty + ctx.resume_data


checkout = Workflow("cli-checkout", input=Order, output=int).then(reserve).then(ask).commit()
quick = Workflow("cli-quick", input=Order, output=int).then(reserve).commit()
slow = Workflow("cli-slow").sleep(600).commit()
paying = Workflow("cli-paying").wait_for_event("paid", timeout=3600).then(lambda data: data, id="paid-now").commit()
nap = Workflow("cli-nap").sleep(0.1).then(lambda data: data, id="awake").commit()
orchestrator = Orchestrator(app, workflows=[checkout, quick, slow, paying, nap], tick_seconds=0.2)
"""
LATE = """
import os

from celery import Celery

app = Celery("late", broker="memory://", include=["late_flows"])
app.conf.orchestrator_store = os.environ["SHOP_STORE"]
"""
LATE_FLOWS = """
from late import app
from orchestrator import Orchestrator

orchestrator = Orchestrator(app)
"""
BARE = """
from celery import Celery

app = Celery("bare", broker="memory://")
eager = Celery("eager", broker="memory://")
eager.conf.task_always_eager = True
"""

Done = subprocess.CompletedProcess[str]
Call = Callable[..., Done]


@pytest.fixture(scope="module")
def servers(redis_server: RedisServer) -> dict[str, str]:
    """Give the places of the project's broker and store."""
    return {"SHOP_BROKER": redis_server.url(10), "SHOP_STORE": redis_server.url(11)}


@pytest.fixture(scope="module")
def call(project: Path, servers: dict[str, str]) -> Call:
    """Run `celery workflow …` in the project's folder."""
    for name, text in {"shop": PROJECT, "late": LATE, "late_flows": LATE_FLOWS, "bare": BARE}.items():
        (project / f"{name}.py").write_text(text)

    def run(*arguments: str, app: str = "shop", **env: str) -> Done:
        chosen = ["-A", app] if app else []
        return run_python("-m", "celery", *chosen, "workflow", *arguments, cwd=project, **{**servers, **env})

    return run


@pytest.fixture(scope="module")
def worker(
    call: Call, project: Path, servers: dict[str, str], session_worker_factory: Callable[..., WorkerNode]
) -> WorkerNode:
    """A worker of the project."""
    return session_worker_factory("shop", env=servers, cwd=project, concurrency=2, queues=["cli-tests"])


def problem(done: Done, code: int) -> str:
    """Return the error of a command that ended with this code: the last of stderr, and one line."""
    assert done.returncode == code, done
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return errors[0]


def data(done: Done, code: int = exits.OK) -> Any:
    """Return what a command that ended with this code printed as JSON."""
    assert done.returncode == code, done
    return json.loads(done.stdout)


def stored(servers: dict[str, str], resource: str) -> int:
    """Return how many runs the project's store has for a resource."""
    store = open_store(servers["SHOP_STORE"])
    try:
        return store.count_runs(RunQuery(resource_id=resource))
    finally:
        store.close()


@pytest.mark.usefixtures("worker")
def test_a_run_goes_through_workers_from_start_to_purge(call: Call) -> None:
    """Start, list, show, graph, resume and purge, each in a process of its own."""
    started = call("start", "cli-checkout", '{"sku": "a", "qty": 2}', "--run-id", "one", "--timeout", "60")
    assert started.returncode == exits.HELD, started
    assert "WAITS FOR  ask (label manager)" in started.stdout
    assert "reserve success" in started.stderr

    listed = data(call("list", "--json", "--workflow", "cli-checkout", "--status", "suspended"))
    assert [run["run_id"] for run in listed["runs"]] == ["one"]
    shown = call("show", "one", "--events")
    assert shown.returncode == exits.OK
    assert "workflow-step-suspended" in shown.stdout
    assert "classDef suspended" in call("graph", "--run", "one").stdout

    assert data(call("resume", "one", "40", "--label", "manager", "--json", "--timeout", "60"))["result"] == 42
    assert data(call("purge", "--older-than", "0s", "--status", "success", "--yes", "--json"))["removed"] >= 1
    assert problem(call("show", "one"), exits.NOT_FOUND)


@pytest.mark.usefixtures("worker")
def test_a_failed_run_ends_with_code_1(call: Call) -> None:
    """JSON on stdout, one line on stderr."""
    done = call("start", "cli-quick", '{"sku": "a", "qty": 99}', "--json", "--timeout", "60")
    assert data(done, exits.FAILED)["status"] == "failed"
    assert "ValueError: no stock" in problem(done, exits.FAILED)


@pytest.mark.usefixtures("worker")
def test_a_run_that_takes_too_long_ends_with_code_6_and_can_be_canceled(call: Call) -> None:
    """The time limit leaves the run as it is."""
    done = call("start", "cli-slow", "--run-id", "slow", "--timeout", "0.3")
    assert "cancel slow" in problem(done, exits.TIMED_OUT)
    assert data(call("cancel", "slow", "--json"))["status"] == "canceled"


@pytest.mark.usefixtures("worker")
def test_a_run_that_is_not_waited_for_is_followed_later(call: Call) -> None:
    """`--no-wait` returns at once; it is the worker that does the rest."""
    started = data(call("start", "cli-quick", '{"sku": "a", "qty": 1}', "--run-id", "left", "--no-wait", "--json"))
    assert started["run_id"] == "left"
    assert started["status"] in ("running", "success")


def test_a_step_that_nobody_takes_is_shown_with_its_queue(call: Call) -> None:
    """Where its message waits, and since when: of a queue without a worker nothing else tells."""
    env = {"SHOP_QUEUE": "nobody-listens"}
    order = '{"sku": "a", "qty": 1}'
    assert call("start", "cli-quick", order, "--run-id", "stuck", "--no-wait", **env).returncode == exits.OK
    row = next(line for line in call("show", "stuck", **env).stdout.splitlines() if line.startswith("reserve"))
    assert "queued" in row
    assert "in queue nobody-listens since 20" in row
    [waiting] = data(call("show", "stuck", "--json", **env))["queued"]
    assert (waiting["step"], waiting["queue"], waiting["sends"]) == ("reserve", "nobody-listens", 1)
    assert waiting["since"] > 0
    assert call("cancel", "stuck", **env).returncode == exits.OK
    assert "in queue" not in call("show", "stuck", **env).stdout


@pytest.mark.usefixtures("worker")
def test_what_waits_on_workers_is_shown_and_goes_on_by_an_event(call: Call) -> None:
    """From another process: `waiting` tells the event and the moment, `send-event` sends it."""
    assert call("start", "cli-paying", "1", "--run-id", "paying", "--timeout", "60").returncode == exits.HELD

    [waiting] = data(call("waiting", "--workflow", "cli-paying", "--json"))["waiting"]
    assert (waiting["run_id"], waiting["kind"], waiting["event"]) == ("paying", "event", "paid")
    assert waiting["until"] - waiting["since"] == 3_600_000
    assert data(call("send-event", "paying", "paid", "7", "--json", "--timeout", "60"))["result"] == 7
    assert data(call("waiting", "--workflow", "cli-paying", "--json")) == {"waiting": []}
    times = data(call("show", "paying", "--follow", "--times", "--json"))["times"]
    assert times["steps"][0]["suspended"] > 0


@pytest.mark.usefixtures("worker")
def test_a_run_on_workers_is_restarted_and_travels(call: Call) -> None:
    """A sleep stays until its moment; one that has ended goes on from where it is told to."""
    call("start", "cli-slow", "--run-id", "napping", "--no-wait")
    assert data(call("restart", "napping", "--no-wait", "--json"))["status"] == "running"
    assert problem(call("restart", "napping", "--timeout", "0.3"), exits.TIMED_OUT)
    call("cancel", "napping")

    call("start", "cli-quick", '{"sku": "a", "qty": 2}', "--run-id", "again", "--timeout", "60")
    told = call("travel", "again", "reserve", "--input", '{"sku": "a", "qty": 5}', "--json", "--timeout", "60")
    assert data(told)["result"] == 5
    assert data(call("restart", "again", "--json"))["result"] == 5


def test_ticks_without_a_worker_publish_what_is_due(
    call: Call, project: Path, servers: dict[str, str], worker_factory: Callable[..., WorkerNode]
) -> None:
    """In a namespace without workers: the timer fires into the queue, where a later worker finds it."""
    here = {"APP_NAME": "ticked", "SHOP_QUEUE": "cli-ticks"}
    started = data(call("start", "cli-nap", "5", "--run-id", "ticked", "--no-wait", "--json", **here))
    assert started["status"] == "running"
    sleep(0.3)  # the timer's moment passes

    ticked = data(call("tick", "--once", "--json", **here))

    assert {name: ticked[name] for name in ("due", "republished", "expired")} == {
        "due": 1,
        "republished": 1,
        "expired": 0,
    }
    assert "due 0" in call("tick", "--once", **here).stdout
    lines = call("tick", "--for", "0.5", "--json", **here).stdout.splitlines()
    assert len(lines) >= 2
    assert all(json.loads(line)["expired"] == 0 for line in lines)
    env = {**servers, **here}
    worker_factory("shop", env=env, cwd=project, pool="solo", queues=["cli-ticks"])
    assert data(call("show", "ticked", "--follow", "--json", **here))["result"] == 5


def test_a_tick_without_store_or_broker_ends_with_code_5(call: Call) -> None:
    """One tick says so; `--for` goes on until its time is over."""
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    assert "store" in problem(call("tick", "--once", SHOP_STORE=nowhere), exits.DOWN)
    here = {"APP_NAME": "unheard", "SHOP_QUEUE": "cli-unheard"}
    call("start", "cli-nap", "5", "--run-id", "unheard", "--no-wait", **here)
    sleep(0.3)  # the timer's moment passes
    assert "later tick" in problem(call("tick", "--once", SHOP_BROKER=nowhere, **here), exits.DOWN)


def test_without_a_worker_a_waiting_start_ends_with_code_5_and_leaves_nothing(
    call: Call, servers: dict[str, str]
) -> None:
    """Another app's name is another namespace, for which no worker has been announced."""
    done = call("start", "cli-slow", "--resource", "lonely", APP_NAME="lonely")
    assert "--no-wait" in problem(done, exits.DOWN)
    assert not stored(servers, "lonely")


@pytest.mark.parametrize("how", ["later", "refuse"])
def test_without_a_broker_a_start_is_accepted_or_ends_with_code_5(
    call: Call, servers: dict[str, str], how: str
) -> None:
    """Nobody listens on that port. A start that is refused leaves nothing."""
    away = {"SHOP_BROKER": f"redis://127.0.0.1:{free_port()}/0", "BROKER_AWAY": how, "APP_NAME": f"unheard-{how}"}
    order = '{"sku": "a", "qty": 1}'
    done = call("start", "cli-quick", order, "--no-wait", "--resource", f"unheard-{how}", **away)
    if how == "later":
        assert done.returncode == exits.OK, done.stderr
        assert "the scheduler will publish" in done.stderr
    else:
        assert "broker" in problem(done, exits.DOWN)
    assert bool(stored(servers, f"unheard-{how}")) is (how == "later")


def test_without_a_store_every_command_ends_with_code_5(call: Call) -> None:
    """Nobody listens on that port."""
    assert "store" in problem(call("list", SHOP_STORE=f"redis://127.0.0.1:{free_port()}/0"), exits.DOWN)


def test_an_orchestrator_in_a_module_that_only_workers_import_is_found(call: Call) -> None:
    """The app's `include` is imported where the app alone has no orchestrator."""
    assert call("list", "--workflow", "nothing", app="late").returncode == exits.OK


def test_an_app_without_orchestrator_is_told_how_to_get_one(call: Call) -> None:
    """The remedy differs for an app in eager mode, and where no app is named."""
    assert "Orchestrator(app, store=" in problem(call("list", app="bare:app"), exits.USAGE)
    assert "orchestrator --workflows" in problem(call("list", app="bare:eager"), exits.USAGE)
    assert "celery -A proj workflow" in problem(call("list", app=""), exits.USAGE)


def test_modules_that_cannot_be_imported_are_named(call: Call) -> None:
    """The mistake is in the user's code, and is told in one line."""
    done = call("list", app="late", SHOP_STORE="mongo://nowhere")
    assert "no store for mongo://" in problem(done, exits.USAGE)


def test_wrong_usage_is_one_line_here_too(call: Call) -> None:
    """Celery's own way of showing usage errors is several."""
    assert "see `" in problem(call("list", "--limit", "none"), exits.USAGE)


def test_the_group_stands_in_celerys_help(project: Path) -> None:
    """With its first sentence, and no warning about a broken plug-in."""
    shown = run_python("-m", "celery", "--help", cwd=project)
    line = next(line for line in shown.stdout.splitlines() if line.split()[:1] == ["workflow"])
    assert "Durable workflows" in line
