"""`iterations_max_kept`: loops that go on for long stay as small as they were, and come to the same, on every store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator import Context, Orchestrator, Run, Workflow, step
from orchestrator.codec import encode
from orchestrator.engine.settings import Settings
from orchestrator.ports import Store
from orchestrator.rules.change import Change, Committed, Refused
from orchestrator.rules.values import own
from orchestrator.stores import MemoryStore, open_store
from tests.servers import PostgresServer, RedisServer
from tests.vendor import wait_until


class Noting:
    """A store that notes the ids of all values that were written in it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.ids: dict[str, None] = {}
        self.reads = 0  # calls that read activations or values

    def __getattr__(self, name: str) -> Any:
        self.reads += name in ("load", "values")
        return getattr(self.store, name)

    def commit(self, run_id: str, change: Change) -> Committed | Refused:
        self.ids.update(dict.fromkeys(change.values))
        return self.store.commit(run_id, change)

    def left(self, run: Run) -> dict[str, str]:
        """Those that are still there."""
        return self.store.values(run.run_id, self.ids)


@pytest.fixture(params=["memory", "sqlite", "redis", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Noting]:
    """Each of the stores, empty."""
    match request.param:
        case "redis":
            server: RedisServer = request.getfixturevalue("redis_server")
            server.flush(11)
            url = server.url(11)
        case "postgresql":
            postgres: PostgresServer = request.getfixturevalue("postgres_server")
            url = postgres.new_schema()
        case "sqlite":
            url = f"sqlite:///{tmp_path}/store.db"
        case _:
            url = "memory://"
    made = open_store(url)
    yield Noting(made)
    made.close()


@pytest.fixture
def memory() -> Noting:
    """A store in memory."""
    return Noting(MemoryStore())


def opened(store: Noting, flow: Workflow, keep: int = 1) -> Orchestrator:
    return Orchestrator(store=store, workflows=[flow], iterations_max_kept=keep)  # type: ignore[arg-type]


# --- a conversation ---------------------------------------------------------------------------------------------------


@step
def turn(chat: list[str]) -> list[str]:
    return [*chat[-4:], f"message {int(chat[-1].split()[1]) + 1 if chat else 1} " + "x" * 80]


def said(chat: list[str]) -> int:
    return int(chat[-1].split()[1])


def talk(turns: int) -> Workflow:
    return Workflow("talk", input=list[str]).do_until(turn, lambda chat: said(chat) >= turns).commit()


@pytest.mark.parametrize("keep", [1, 3])
def test_a_conversation_stays_as_small_as_it_was(store: Noting, keep: int) -> None:
    """Of the finished iterations the newest have their values, and the input and the result are there."""
    left = []
    for turns in (10, 40):
        store.ids.clear()
        with opened(store, talk(turns), keep) as orchestrator:
            run = orchestrator.create_run("talk")
            result = run.start([]).result
            assert [int(message.split()[1]) for message in result] == [*range(turns - 4, turns + 1)]
            left.append(len(store.left(run)))
            assert run.result().input == []
    # The input, the manifests, what they list, and the last output.
    assert left == [2 + 2 * keep] * 2


def test_all_stays_by_default(store: Noting) -> None:
    """Nothing is listed and nothing goes."""
    with opened(store, talk(10), Settings().iterations_max_kept) as orchestrator:
        run = orchestrator.create_run("talk")
        run.start([])
        assert len(store.left(run)) == len(store.ids) == 11


def test_a_lower_setting_is_come_down_to(memory: Noting) -> None:
    """Bit by bit, by the loops that still go on."""

    @step
    def ask(number: int, ctx: Context[Any]) -> int:
        return number + 1 if ctx.resumed else ctx.suspend()

    flow = Workflow("asking", input=int).do_until(ask, lambda number: number >= 20).commit()
    left = []
    with opened(memory, flow, 6) as before:
        before.create_run(flow, run_id="run").start(0)
        for _ in range(9):
            before.get_run("run").resume()
    with opened(memory, flow) as after:
        run = after.get_run("run")
        for _ in range(8):
            run.resume()
            left.append(len(memory.left(run)))
        assert left == sorted(left, reverse=True)
        assert left[-1] == left[-2] < left[0]
        for _ in range(2):
            run.resume()
        assert run.resume().result == 20


# --- bodies -----------------------------------------------------------------------------------------------------------


@step
def add(number: int) -> int:
    return number + 1


@step
def double(number: int) -> int:
    return number * 2


@step
def fail(number: int) -> int:
    raise ValueError(f"{number} on purpose")


@step
def total(given: Mapping[str, Any]) -> int:
    return sum(value for value in given.values() if isinstance(value, int)) % 1009


@step
def ask(number: int, ctx: Context[Any]) -> int:
    return number + ctx.resume_data if ctx.resumed else ctx.suspend({"number": number})


@step
def compare(number: int, ctx: Context[Any]) -> int:
    """Read what was made elsewhere in this iteration."""
    return number + ctx.result("add") + ctx.init_data


def inner(name: str) -> Workflow:
    return Workflow(name, input=int)


def body(kind: str) -> Workflow:
    flow = inner("body")
    match kind:
        case "parallel":
            passes = Workflow("passes").sleep(0).commit()
            flow = flow.then(add).parallel(double, passes).then(total)
        case "allowed":
            flow = flow.then(add).parallel(double, fail, allow_failure=True).then(total)
        case "branch":
            first, second = (lambda n, ctx: ctx.iteration % 2 == 0), (lambda n, ctx: ctx.iteration % 3 == 0)
            flow = flow.branch((first, double), (second, add)).map(
                lambda data, ctx: (sum(data.values()) or ctx.init_data + 1) % 1009
            )
        case "foreach":
            flow = (
                flow.map(lambda n: [n, n + 1, n + 2]).foreach(add, concurrency=2).map(lambda found: sum(found) % 1009)
            )
        case "loop":
            loop = inner("again").then(add).then(compare).commit()
            flow = flow.do_until(loop, lambda n, ctx: ctx.iteration >= 3).map(lambda n: n % 1009)
        case "nested":
            flow = (
                flow.then(add).then(inner("deep").then(double).then(add).commit()).then(compare).map(lambda n: n % 1009)
            )
        case "suspends":
            flow = flow.then(add).then(ask).then(compare)
        case "waits":
            flow = flow.wait_for_event("number", schema=int).then(add)
        case "late":
            flow = flow.wait_for_event("never", timeout=0.001, on_timeout=add)
        case "naps":
            # Every second iteration hands on what it got.
            some = inner("some").then(add).commit()
            none = inner("none").sleep(0).commit()
            flow = flow.branch(
                (lambda n, ctx: ctx.iteration % 2 == 0, some), (lambda n, ctx: ctx.iteration % 2 == 1, none)
            )
            flow = flow.map(lambda data: next(iter(data.values())))
    return flow.commit()


KINDS = ["parallel", "allowed", "branch", "foreach", "loop", "nested", "suspends", "waits", "late", "naps"]


def played(store: Noting, kind: str, keep: int, turns: int) -> tuple[int, int]:
    """Run a loop with such a body; return its result, and how many values are left."""
    store.ids.clear()
    flow = Workflow("loops", input=int).do_until(body(kind), lambda n, ctx: ctx.iteration >= turns).then(add).commit()
    with opened(store, flow, keep) as orchestrator:
        run = orchestrator.create_run(flow)
        if kind == "waits":
            for number in range(2 * turns):
                run.send_event("number", number)
        result = run.start(1)
        while result.status == "suspended":
            if kind == "late":
                assert wait_until(run.ready, 20)
            result = run.resume(5) if kind == "suspends" else run.result()
        assert result.status == "success", result.error
        return result.result, len(store.left(run))


@pytest.mark.parametrize("kind", KINDS)
def test_a_loop_comes_to_the_same_and_stays_small(store: Noting, kind: str) -> None:
    """Whatever its body is made of."""
    few, many = 4, 10  # the last two iterations of both take the same arms
    counts = [played(store, kind, 1, turns)[1] for turns in (few, many)]
    grows = many - few if kind == "waits" else 0  # the events that nobody has taken
    assert counts[1] - counts[0] == grows
    assert played(store, kind, 1, many)[0] == played(store, kind, 0, many)[0]


# --- readers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_value_that_goes_while_it_is_read_is_never_taken_for_none(memory: Noting, goes_on: bool) -> None:
    """A worker that has lost its step may still read. It looks again: there is a newer value, or no result any more."""

    class Racing(Noting):
        """Once, between an activation and its value, the value goes; another may take its place."""

        def values(self, run_id: str, ids: Any) -> dict[str, str]:
            run, activation = self.store._runs[run_id], self.store.load(run_id, ["0"])[0]  # type: ignore[attr-defined]
            if "racing" in run.state and run.values.pop(activation.output, None):
                run.values["newer"] = own(encode(7, where="test"))
                made = replace(activation, output="newer" if goes_on else activation.output)
                run.activations["0"] = made
            return self.store.values(run_id, ids)

    @step
    def race(number: int, ctx: Context[Any]) -> None:
        ctx.set_state({"racing": True})

    @step
    def look(number: Any, ctx: Context[Any]) -> list[Any]:
        return [ctx.services.result("add"), ctx.result("add")]

    flow = Workflow("racing", input=int).then(add).then(race).then(look).commit()
    with opened(Racing(memory.store), flow) as orchestrator:
        assert orchestrator.create_run(flow).start(1).result == ([[True, 7], 7] if goes_on else [[False, None], None])


def test_the_events_of_a_finished_iteration_tell_of_no_values(store: Noting) -> None:
    """They are listed, with None in the place of what has gone; the newest still have theirs."""
    with opened(store, talk(5)) as orchestrator:
        run = orchestrator.create_run("talk")
        run.start([])
        results = [event.payload for event in run.events() if event.type == "workflow-step-result"]
        assert [found["output"] and said(found["output"]) for found in results] == [None, None, None, 4, 5]


def test_a_reader_sees_the_present_iteration(store: Noting) -> None:
    """The step results of a run that is suspended in the middle of a loop, and its execution path."""
    flow, seen = Workflow("w", input=int).do_until(body("suspends"), lambda n: n > 1000).commit(), []
    for keep in (0, 1):
        with opened(store, flow, keep) as orchestrator:
            run = orchestrator.create_run("w")
            run.start(1)
            for _ in range(4):
                run.resume(1)
            found = orchestrator.runs.get(run.run_id, nested=True).steps
            seen.append([(name, one.payload, one.output) for name, one in found.items()])
            assert (found["body.ask"].suspend_payload or {})["number"] == found["body.add"].output
    assert seen[0] == seen[1]


# --- time travel ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["body", "body.add", "body.compare"])
def test_a_run_travels_into_its_last_iteration(store: Noting, target: str) -> None:
    """What that began with is there. The loop goes on as one that has kept all, and lets go of what it had kept."""
    results, left = [], []
    for keep in (0, 1):
        store.ids.clear()
        flow = Workflow("w", input=int).do_until(body("nested"), lambda n, ctx: ctx.iteration >= 5 and n > 10)
        with opened(store, flow.then(add).commit(), keep) as orchestrator:
            run = orchestrator.create_run("w")
            run.start(1)
            results.append(run.time_travel(target).result)
            results.append(run.time_travel(target, context={"body": {"status": "success", "output": 7}}).result)
            left.append(len(store.left(run)))
    assert results[:2] == results[2:]
    assert left[1] < left[0]


def test_an_iteration_that_a_run_travels_into_is_let_go_of_later(memory: Noting) -> None:
    """The list goes along into the new generation."""
    flow = Workflow("w", input=int).do_until(body("suspends"), lambda n: n > 1000).commit()
    with opened(memory, flow) as orchestrator:
        run = orchestrator.create_run("w")
        run.start(1)
        counts = []
        for _ in range(4):
            run.resume(1)
            run.cancel()
            run.time_travel("body.add")
            loop = next(one for one in memory.store.load(run.run_id) if one.component == "LOOP")
            counts.append(len(loop.finished.split()))
        assert counts == [1] * 4


# --- cost -------------------------------------------------------------------------------------------------------------


def test_a_loop_that_keeps_all_reads_nothing_for_it(memory: Noting) -> None:
    """And one that does not reads its body, and the manifest that goes, in each iteration."""
    reads = []
    for keep in (0, 1):
        with opened(memory, talk(20), keep) as orchestrator:
            memory.reads = 0
            orchestrator.create_run("talk").start([])
            reads.append(memory.reads)
    assert reads[1] - reads[0] == 19 + 18


# --- the setting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [-1, 101, 1.5])
def test_a_number_that_cannot_be_kept_is_refused(wrong: float) -> None:
    """By the settings."""
    with pytest.raises((ValueError, TypeError), match="orchestrator_iterations_max_kept"):
        Settings(iterations_max_kept=wrong)  # type: ignore[arg-type]
