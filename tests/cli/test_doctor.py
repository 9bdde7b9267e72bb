"""`doctor`: what it finds of a deployment, its exit code, and that each of its questions has an end."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from click.testing import CliRunner

from orchestrator import Orchestrator, Workflow, step
from orchestrator.cli import exits
from orchestrator.cli.doctor import Examination, Unanswered, ask
from orchestrator.cli.standalone import orchestrator as standalone
from orchestrator.engine.announcements import announce_queues, read_announcements, read_queues
from orchestrator.engine.findings import Finding, Severity
from orchestrator.ports import Store
from orchestrator.stores import open_store
from orchestrator.stores.memory import MemoryStore
from orchestrator.testing import VirtualClock
from tests.vendor import free_port

MINUTE = 60_000


@step
def plain(data: int) -> int:
    return data


@step(queue="checks")
def check(data: int) -> int:
    return data


checking = Workflow("checking", input=int).then(plain).then(check).commit()


@dataclass
class Here:
    """An app on a broker in memory, whose workers are said to live; nothing takes its messages."""

    orchestrator: Orchestrator
    store: Store

    def live(self, *queues: str) -> None:
        """Announce a worker that listens on these queues."""
        self.store.heartbeat("here", "one@host", MINUTE)
        announce_queues(self.store, "here", "one@host", queues, MINUTE)

    def examine(self) -> dict[str, list[Finding]]:
        """Return what is found, by the names of the parts."""
        found: dict[str, list[Finding]] = {}
        for each in Examination(self.orchestrator, 10).run():
            found.setdefault(each.name, []).append(each)
        return found

    def worst(self, name: str) -> tuple[Severity, str]:
        """Return the worst that is found of a part."""
        found = max(self.examine()[name], key=lambda each: list(Severity).index(each.severity))
        return found.severity, str(found)


def on(store: str | Store, **settings: Any) -> Iterator[Here]:
    """An app, with a store."""
    app = Celery("here", broker="memory://", set_as_current=False)
    app.conf.update(worker_enable_remote_control=False, **settings)
    with Orchestrator(app, store=store, workflows=[checking], tick_seconds=1) as made:
        yield Here(made, made.store)
    app.close()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    """An app with a store on the disk."""
    yield from on(f"sqlite:///{tmp_path}/runs.db")


def test_a_deployment_that_is_well(here: Here) -> None:
    here.live("celery", "checks")

    found = here.examine()

    assert {each.severity for many in found.values() for each in many} == {Severity.OK, Severity.INFO}
    assert "1 in namespace 'here' (one@host), listening on celery, checks" in found["workers"][0].sentence
    assert found["runs"][0].sentence == "none is running"


def test_without_a_worker_runs_wait(here: Here) -> None:
    severity, text = here.worst("workers")

    assert severity is Severity.ERROR
    assert "start one" in text


def test_a_queue_on_which_nobody_listens_is_named_before_anything_waits_in_it(here: Here) -> None:
    here.live("celery")

    assert here.worst("queues") == (
        Severity.WARNING,
        "queues: no worker listens on 'checks', where step checking.check goes (start a worker with -Q checks)",
    )
    assert here.worst("runs")[0] is Severity.OK

    here.live("celery", "checks")
    assert "queues" not in here.examine()


def test_steps_that_wait_where_nobody_listens_are_an_error(here: Here) -> None:
    here.live("others")
    here.orchestrator.create_run("checking").submit(1)

    severity, text = here.worst("runs")

    assert severity is Severity.ERROR
    assert "no worker listens on 'celery', where steps of 1 run(s) wait" in text


def test_where_nobody_announces_queues_nothing_is_said_of_them(here: Here) -> None:
    """As with workers of which none has said so yet."""
    here.store.heartbeat("here", "one@host", MINUTE)
    here.orchestrator.create_run("checking").submit(1)

    assert "queues" not in here.examine()
    assert here.worst("runs")[0] is Severity.OK
    assert read_queues(here.store, "here") is None


def test_parked_steps_are_named_with_the_reason(here: Here) -> None:
    here.live("celery", "checks")
    run = here.orchestrator.create_run("checking").submit(1)
    (activation,) = (one for one in here.store.load(run.run_id) if one.path == "0")
    other = Celery("here", broker="memory://", set_as_current=False)
    with Orchestrator(other, store=here.store) as ignorant:
        ignorant.executor.execute(run.run_id, "0", activation.seq)

    severity, text = here.worst("runs")

    assert severity is Severity.WARNING
    assert f"run {run.run_id}, step plain: the workflow is not registered" in text


@pytest.mark.parametrize("table, where", [("runs", ""), ("activations", " AND path = '0'")])
def test_what_cannot_be_read_is_named_also_while_it_is_set_aside(
    here: Here, tmp_path: Path, table: str, where: str
) -> None:
    here.live("celery", "checks")
    runs = [here.orchestrator.create_run("checking").submit(1) for _ in range(2)]
    poison = runs[0].run_id
    with closing(sqlite3.connect(tmp_path / "runs.db", isolation_level=None)) as connection:
        connection.execute(f"UPDATE orchestrator_{table} SET doc = '{{\"pa' WHERE run_id = ?{where}", (poison,))
    here.store.set_aside(poison, "0", "here", MINUTE)

    severity, text = here.worst("runs")

    assert severity is Severity.WARNING
    assert f"1 run(s) cannot be read, and are set aside: {poison}" in text


def test_timers_that_nobody_sweeps_and_another_clock_are_warned_of() -> None:
    clock = VirtualClock()
    for place in on(MemoryStore(clock)):
        place.live("celery", "checks")
        assert place.worst("timers")[0] is Severity.OK
        place.orchestrator.create_run("checking").submit(1)
        clock.advance(1000)

        assert place.worst("timers")[0] is Severity.WARNING
        severity, text = place.worst("clock")
        assert severity is Severity.WARNING
        assert "ahead of the store's" in text


def test_a_broker_that_is_away_is_an_error_and_the_rest_is_looked_at(tmp_path: Path) -> None:
    app = Celery("here", broker=f"redis://127.0.0.1:{free_port()}/0", set_as_current=False)
    with Orchestrator(app, store=f"sqlite:///{tmp_path}/runs.db", workflows=[checking]) as made:
        place = Here(made, made.store)
        place.live("celery", "checks")
        found = place.examine()

    assert [each.severity for each in found["broker"]] == [Severity.ERROR]
    assert "check broker_url" in str(found["broker"][0])
    assert found["runs"][0].severity is Severity.OK
    app.close()


def test_an_app_that_is_refused_is_examined_all_the_same() -> None:
    app = Celery("here", broker="memory://", set_as_current=False)
    app.conf.update(accept_content=["msgpack"], task_create_missing_queues=False)
    made = Orchestrator(app, store="memory://refused", workflows=[checking])

    found = Here(made, MemoryStore()).examine()

    assert found["accept_content"][0].severity is Severity.ERROR
    assert found["task_create_missing_queues"][0].severity is Severity.ERROR
    assert found["broker"][0].severity is Severity.OK
    assert "orchestrator" not in found
    app.close()


def test_a_setting_that_is_wrong_or_missing_is_an_error() -> None:
    app = Celery("here", broker="memory://", set_as_current=False)
    made = Orchestrator(app, workflows=[checking])

    found = Here(made, MemoryStore()).examine()

    assert found["orchestrator"][0].severity is Severity.ERROR
    assert "needs a store" in found["orchestrator"][0].sentence
    app.close()


def test_a_question_has_an_end() -> None:
    begin = time.monotonic()
    with pytest.raises(Unanswered, match=r"no answer in 0\.05 s"):
        ask(0.05, threading.Event().wait)
    assert time.monotonic() - begin < 5

    with pytest.raises(KeyError):
        ask(5, lambda: {}["missing"])
    assert ask(5, lambda: 3) == 3


def test_a_store_by_itself_is_examined(tmp_path: Path) -> None:
    """Without a Celery app: what runs in processes of their own has no workers and no broker."""
    done = CliRunner().invoke(standalone, ["--store", f"sqlite:///{tmp_path}/runs.db", "doctor", "--json"])

    assert done.exit_code == exits.OK, done.output
    shown = json.loads(done.stdout)
    assert shown["status"] == "ok"
    assert [each["name"] for each in shown["findings"]] == ["versions", "store", "runs"]
    assert shown["versions"]["celery-orchestrator"]


def test_a_store_that_is_away_is_an_error() -> None:
    begin = time.monotonic()
    away = f"redis://127.0.0.1:{free_port()}/0"
    done = CliRunner().invoke(standalone, ["--store", away, "doctor", "--timeout", "5"])

    assert done.exit_code == 2, done.output
    assert "check the store's URL and that its server runs" in done.stdout
    assert time.monotonic() - begin < 20


def test_each_worker_announces_its_queues_for_as_long_as_it_lives() -> None:
    clock = VirtualClock()
    store = MemoryStore(clock)
    many = [f"queue-{number}" for number in range(25)]
    announce_queues(store, "shop", "one@host", many, 1000)
    announce_queues(store, "shop", "two@host", ["celery"], 2000)
    assert read_queues(store, "shop") == {*many, "celery"}
    assert read_queues(store, "other") is None
    assert store.workers("shop") == []

    clock.advance(1.5)
    assert [(one.worker, one.queues) for one in read_announcements(store, "shop")] == [("two@host", ("celery",))]
    clock.advance(1)
    assert read_queues(store, "shop") is None


def test_names_that_are_no_announcements_are_passed_over() -> None:
    """Of an app whose namespace is called like the place of the announcements."""
    store = open_store(f"memory://{uuid4().hex}")
    for name in ("one@host", "5", '"text"', "{}", "[]"):
        store.heartbeat("shop/queues", name, MINUTE)
    announce_queues(store, "shop", "two@host", ["celery"], MINUTE)

    assert read_queues(store, "shop") == {"celery"}
