"""`orchestrator …`: every command on a store of its own, in this process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli import exits
from orchestrator.cli.options import STATUSES
from orchestrator.cli.standalone import orchestrator
from orchestrator.rules.model import StoredStatus
from tests.cli import flows

ORDER = '{"sku": "a", "qty": 2}'
Call = Callable[..., Result]


@pytest.fixture(params=["memory", "sqlite"])
def call(request: pytest.FixtureRequest, tmp_path: Path) -> Call:
    """Run one command line on this test's own store, over the workflows of these tests."""
    store = f"memory://cli-{uuid4().hex}" if request.param == "memory" else f"sqlite:///{tmp_path / 'runs.db'}"
    return calling("--store", store, "--workflows", "tests.cli.flows:ALL")


@pytest.fixture
def once() -> Call:
    """Run one command line on a store in memory."""
    return calling("--store", f"memory://cli-{uuid4().hex}", "--workflows", "tests.cli.flows:ALL")


def calling(*before: str) -> Call:
    """Return a function that runs a command line behind these options."""

    def run(*arguments: str, **options: Any) -> Result:
        return CliRunner().invoke(orchestrator, [*before, *arguments], prog_name="orchestrator", **options)

    return run


def problem(result: Result, code: int) -> str:
    """Return the error of a command that ended with this code: the last of stderr, and one line."""
    assert result.exit_code == code, result.output
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Error: "), result.stderr
    assert sum(line.startswith("Error: ") for line in result.stderr.splitlines()) == 1
    return last


def data(result: Result) -> Any:
    """Return what a successful command printed as JSON."""
    assert result.exit_code == exits.OK, result.output
    return json.loads(result.stdout)


def test_a_run_is_started_waited_for_and_shown(call: Call) -> None:
    """Progress goes to stderr, the result to stdout, and the run is stored."""
    done = call("start", "checkout", ORDER, "--run-id", "one", "--resource", "customer-7", "--state", '{"vip": true}')

    assert done.exit_code == exits.OK, done.output
    assert done.stdout.splitlines() == ["RUN     one", "STATUS  success", "RESULT  200"]
    assert any(line.startswith("reserve success") for line in done.stderr.splitlines())
    assert "pay.charge success" in done.stderr
    shown = call("show", "one").stdout
    assert "customer-7" in shown
    assert 'STATE     {"vip": true}' in shown
    row = next(line.split() for line in shown.splitlines() if line.startswith("pay.charge"))
    assert row[1] == "success"
    assert row[-2] == "2", "the second attempt"


def test_json_is_all_there_is_on_stdout(call: Call) -> None:
    """The output of steps goes to stderr; times are milliseconds."""
    done = call("start", "chatty", "1", "--run-id", "one", "--json")

    assert data(done) | {"run_id": "one", "status": "success", "result": 2} == data(done)
    assert "a step prints what it likes" in done.stderr
    listed = data(call("list", "--json"))
    assert (listed["total"], [run["run_id"] for run in listed["runs"]]) == (1, ["one"])
    shown = data(call("show", "one", "--json", "--events"))
    assert shown["steps"]["loud"]["attempt"] == 1
    assert shown["steps"]["loud"]["output"] == 2
    assert isinstance(shown["started_at"], int)
    assert (shown["events"][0]["type"], shown["events"][-1]["type"]) == ("workflow-start", "workflow-finish")


def test_the_input_comes_from_a_file_or_from_stdin(once: Call, tmp_path: Path) -> None:
    """The same JSON, three ways."""
    (tmp_path / "order.json").write_text(ORDER)

    assert data(once("start", "checkout", "--input", str(tmp_path / "order.json"), "--json"))["result"] == 200
    assert data(once("start", "checkout", "-", "--json", input=ORDER))["result"] == 200
    assert data(once("start", "checkout", "--input", "-", "--json", input=ORDER))["result"] == 200
    assert data(once("start", "chatty", "--json", "--", "-5"))["result"] == -4


def test_a_failed_run_ends_with_code_1_and_says_why(call: Call) -> None:
    """The error is one line without control characters; the steps show it too."""
    done = call("start", "broken", "1", "--run-id", "one")

    assert "STATUS  failed" in done.stdout
    line = problem(done, exits.FAILED)
    assert "ValueError: no stock" in line
    assert "\x1b" not in done.output
    assert "show one" in line
    shown = call("show", "one")
    assert shown.exit_code == exits.OK
    assert "ERROR     ValueError: no stock" in shown.stdout
    assert json.loads(call("start", "broken", "1", "--json").stdout)["error"]["name"] == "ValueError"


def test_a_tripwire_ends_with_code_1(once: Call) -> None:
    """It is told apart from a failure."""
    assert "tripwire: too dangerous" in problem(once("start", "wired", "1"), exits.FAILED)
    told = json.loads(once("start", "wired", "1", "--json").stdout)
    assert told["status"] == "tripwire"
    assert told["tripwire"] == {"reason": "too dangerous", "retry": False, "metadata": {"score": 9}}


def test_a_suspended_run_ends_with_code_4_and_can_be_resumed(call: Call) -> None:
    """It says what it waits for, and how to go on."""
    started = call("start", "approval", "1", "--run-id", "one")

    assert started.exit_code == exits.HELD
    assert 'WAITS FOR  ask (label manager): {"question": "more?"}' in started.stdout
    assert "Error" not in started.stderr
    assert "WAITS FOR  ask (label manager)" in call("show", "one").stdout
    assert "not suspended" in problem(call("resume", "one", "5", "--step", "nowhere"), exits.USAGE)
    resumed = call("resume", "one", "5", "--label", "manager", "--json")
    assert data(resumed)["result"] == 6
    assert "success" in problem(call("resume", "one", "5"), exits.USAGE)


def test_what_a_run_waits_for_is_named(once: Call) -> None:
    """An event is told apart from a suspended step, and the items of a foreach from each other."""
    started = once("start", "listening")
    assert started.exit_code == exits.HELD
    assert "WAITS FOR  paid (an event)" in started.stdout
    assert "when the event is sent" in started.stderr

    started = once("start", "approvals", "[1]", "--run-id", "one")
    assert "WAITS FOR  approval[0].ask (label manager)" in started.stdout
    assert "`resume one` goes on" in started.stderr
    assert data(once("resume", "one", "1", "--index", "0", "--json"))["result"] == [2]


def test_a_run_is_canceled(call: Call) -> None:
    """Canceling again, or after the end, changes nothing and is no error."""
    call("start", "approval", "1", "--run-id", "one")
    call("start", "chatty", "1", "--run-id", "two")

    assert data(call("cancel", "one", "--json")) == {"run_id": "one", "status": "canceled", "failed": []}
    assert call("cancel", "one").stdout.splitlines()[-1] == "STATUS  canceled"
    ended = call("cancel", "two")
    assert ended.exit_code == exits.OK
    assert "had ended before" in ended.stderr
    assert data(call("show", "one", "--json"))["status"] == "canceled"


def test_the_list_is_filtered_and_paged(call: Call) -> None:
    """The note on stderr says what else there is."""
    for number in range(3):
        call("start", "chatty", "1", "--run-id", f"chat-{number}")
    call("start", "broken", "1", "--run-id", "bad", "--resource", "customer-7")

    assert data(call("list", "--json", "--status", "failed"))["runs"][0]["run_id"] == "bad"
    assert data(call("list", "--json", "--resource", "customer-7"))["total"] == 1
    page = call("list", "--workflow", "chatty", "--limit", "2", "--offset", "1")
    assert [line.split()[0] for line in page.stdout.splitlines()] == ["RUN", "chat-1", "chat-0"]
    assert "runs 2 to 3 of 3" in page.stderr
    assert "no runs" in call("list", "--workflow", "nothing").stderr
    assert "no runs from 9 on: there are 4" in call("list", "--offset", "9").stderr


def test_the_graph_is_drawn_plain_and_with_the_states_of_a_run(call: Call) -> None:
    """Steps of nested workflows are coloured too, over all items the worst of their states."""
    call("start", "many", "[1, 2]", "--run-id", "one")

    plain = call("graph", "many").stdout
    assert plain.startswith("flowchart TD")
    assert "classDef" not in plain
    coloured = data(call("graph", "--run", "one", "--json"))
    assert coloured["states"]["pay.charge"] == "success"
    assert "classDef success" in coloured["mermaid"]
    assert coloured["graph"]["id"] == "many"
    assert "classDef success" in call("graph", "--run", "one").stdout
    assert "either" in problem(call("graph"), exits.USAGE)
    assert "either" in problem(call("graph", "many", "--run", "one"), exits.USAGE)


def test_items_of_a_foreach_have_their_own_rows(once: Call) -> None:
    """Each item, each step in it, and the count at the foreach."""
    once("start", "many", "[1, 2]", "--run-id", "one")

    names = [line.split()[0] for line in once("show", "one").stdout.splitlines() if line.startswith("pay")]
    assert names == ["pay", "pay[0]", "pay[0].charge", "pay[1]", "pay[1].charge"]
    assert "success 2/2" in once("show", "one").stdout
    assert data(once("show", "one", "--json"))["steps"]["pay[1].charge"]["attempt"] == 2


def test_purge_asks_first(call: Call) -> None:
    """Runs are gone after a yes, stay after a no, and where no answer comes that is an error."""
    call("start", "chatty", "1", "--run-id", "one")
    call("start", "approval", "1", "--run-id", "held")

    assert "nobody answered" in problem(call("purge", "--older-than", "0s"), exits.USAGE)
    no = call("purge", "--older-than", "0s", input="n\n")
    assert (no.exit_code, no.stdout) == (exits.OK, "removed 0\n")
    assert "Remove 1 run (" in no.stderr
    assert call("purge", "--older-than", "1d12h", "--yes").stdout == "removed 0\n"
    assert data(call("purge", "--older-than", "0s", "--json", "--yes")) == {"removed": 1}
    assert data(call("purge", "--older-than", "0s", "--status", "suspended", "--json", input="y\n")) == {"removed": 1}
    assert data(call("list", "--json"))["total"] == 0


def test_what_does_not_exist_ends_with_code_3(once: Call) -> None:
    """Runs and workflows, in every command."""
    for command in (["show"], ["cancel"], ["resume"], ["graph", "--run"]):
        assert "'nope'" in problem(once(*command, "nope"), exits.NOT_FOUND)
    assert "known: " in problem(once("start", "nope"), exits.NOT_FOUND)
    assert "known: " in problem(once("graph", "nope"), exits.NOT_FOUND)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["start", "checkout", "{"], "not JSON"),
        (["start", "checkout", "{}", "--input", "-"], "twice"),
        (["start", "checkout", '{"sku": "a"}'], "qty: Field required"),
        (["start", "checkout", ORDER, "--state", "[1]"], "JSON object"),
        (["start", "checkout", ORDER, "--run-id", "a/b"], "no '/'"),
        (["start", "checkout", ORDER, "--no-wait"], "end with this process"),
        (["start", "checkout", ORDER, "--no-wait", "--timeout", "1"], "leave one of them out"),
        (["start", "checkout", ORDER, "--timeout", "0"], "--timeout"),
        (["start"], "WORKFLOW"),
        (["start", "checkout", "--nope"], "--nope"),
        (["list", "--status", "waiting"], "--status"),
        (["list", "--limit", "0"], "--limit"),
        (["purge"], "--older-than"),
        (["purge", "--older-than", "soon"], "30d"),
        (["purge", "--older-than", "9999999999999d"], "calendar"),
        (["purge", "--older-than", "1d", "--status", "running"], "--status"),
        (["nope"], "nope"),
    ],
)
def test_wrong_usage_ends_with_code_2_in_one_line(once: Call, arguments: list[str], said: str) -> None:
    """Nothing is on stdout, nothing is stored."""
    result = once(*arguments)
    assert said in problem(result, exits.USAGE)
    assert result.stdout == ""
    assert data(once("list", "--json"))["total"] == 0


def test_a_run_is_started_once(once: Call) -> None:
    """The second start under the same id is refused, and the first run stays."""
    once("start", "chatty", "1", "--run-id", "one")

    assert "started before" in problem(once("start", "chatty", "1", "--run-id", "one"), exits.USAGE)
    assert data(once("show", "one", "--json"))["status"] == "success"


@pytest.fixture
def released() -> Iterator[None]:
    """Let the blocked step go at the end."""
    flows.RELEASED.clear()
    yield
    flows.RELEASED.set()


@pytest.mark.usefixtures("released")
def test_a_time_limit_ends_with_code_6(once: Call) -> None:
    """The command comes back although the step is still at work."""
    line = problem(once("start", "blocked", "1", "--run-id", "one", "--timeout", "0.05"), exits.TIMED_OUT)
    assert "one" in line


def test_a_store_that_is_down_ends_with_code_5() -> None:
    """No server listens there; the password of the URL is not shown."""
    result = calling("--store", "redis://:secret@127.0.0.1:1/0")("list")
    assert "check the store's URL" in problem(result, exits.DOWN)
    assert "secret" not in result.output


@pytest.mark.parametrize(
    "before, said",
    [
        (["--store", "memory://x", "--workflows", "tests.cli.flows"], "module:attribute"),
        (["--store", "memory://x", "--workflows", "tests.cli.flows:nothing"], "no 'nothing'"),
        (["--store", "memory://x", "--workflows", "tests.cli.nowhere:ALL"], "cannot be imported"),
        (["--store", "memory://x", "--workflows", "tests.cli.flows:MIXED"], "str, not a workflow"),
        (["--store", "memory://x", "--workflows", "tests.cli.flows:READY"], "without --store"),
        (["--store", "mongo://x"], "no store for mongo://"),
        ([], "no store is named"),
    ],
)
def test_what_the_commands_work_on_is_checked(before: list[str], said: str) -> None:
    """Each mistake has its remedy."""
    assert said in problem(calling(*before)("list"), exits.USAGE)


def test_an_orchestrator_of_the_users_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own store and workflows; the environment names it as well as the option."""
    monkeypatch.setenv("ORCHESTRATOR_WORKFLOWS", "tests.cli.flows:READY")

    assert data(calling()("start", "chatty", "1", "--json"))["result"] == 2
    assert [run.workflow_id for run in flows.READY.runs.list().runs] == ["chatty"]


def test_a_single_workflow_is_found_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Like Celery, the command imports from where it is called; without a store the run is in memory."""
    text = "from orchestrator import Workflow\nhello = Workflow('hello').map(lambda name: f'hello {name}').commit()\n"
    (tmp_path / "cli_hello.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    assert data(calling("--workflows", "cli_hello:hello")("start", "hello", '"you"', "--json"))["result"] == "hello you"


def test_a_run_of_celery_workers_is_not_resumed_here(once: Call, tmp_path: Path) -> None:
    """Its steps would run in this process, where no user expects them."""
    from orchestrator.rules.model import RunHeader
    from orchestrator.stores import open_store

    store = open_store("memory://cli-foreign")
    store.create(RunHeader(run_id="theirs", workflow_id="chatty", runtime="celery"))
    here = calling("--store", "memory://cli-foreign", "--workflows", "tests.cli.flows:ALL")
    assert "belongs to the runtime 'celery'" in problem(here("resume", "theirs", "1"), exits.USAGE)
    assert "belongs to the runtime 'celery'" in problem(here("start", "chatty", "1", "--run-id", "theirs"), exits.USAGE)


def test_another_graph_is_drawn_with_a_warning(once: Call) -> None:
    """The picture is the present one's."""
    from orchestrator.rules.model import RunHeader
    from orchestrator.stores import open_store

    open_store("memory://cli-old").create(RunHeader(run_id="old", workflow_id="chatty", fingerprint="another"))
    here = calling("--store", "memory://cli-old", "--workflows", "tests.cli.flows:ALL")
    assert "another graph" in here("graph", "--run", "old").stderr


def test_an_error_of_another_kind_ends_with_code_70(once: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line; the whole of it where it is asked for."""

    def explode(self: object, **filters: object) -> None:
        raise LookupError("what is this")

    monkeypatch.setattr("orchestrator.app.Runs.list", explode)
    assert "LookupError: what is this" in problem(once("list"), exits.INTERNAL)
    assert "Traceback" not in once("list").stderr
    monkeypatch.setenv("ORCHESTRATOR_TRACEBACK", "1")
    assert "Traceback" in once("list").stderr


def test_an_interrupt_ends_with_code_130(once: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not taken for a failed run, and the run's id is told."""

    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("orchestrator.app.Run.start", interrupt)
    assert "run one" in problem(once("start", "chatty", "1", "--run-id", "one", "--json"), exits.INTERRUPTED)


@pytest.mark.parametrize("command", [[], *([name] for name in sorted(orchestrator.commands))])
def test_every_help_has_the_exit_codes(command: list[str]) -> None:
    """Scripts rely on the exit codes."""
    shown = calling()(*command, "--help").stdout
    assert "Exit codes:" in shown
    own = "1  there are warnings" if command == ["doctor"] else "4  the run is suspended or paused"
    assert own in shown


def test_the_states_on_offer_are_those_of_the_product() -> None:
    """The list is written out so that Celery's own commands need not import the product."""
    assert set(STATUSES) == {state.value for state in StoredStatus}
