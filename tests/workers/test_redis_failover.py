"""Real workers whose store is a Redis Cluster, or a Redis behind sentinels, while a primary dies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import Orchestrator, Run, RunStatus
from orchestrator.errors import StoreUnavailable
from tests.parity import calls
from tests.stores.topologies import LocalCluster, Watched, client_of
from tests.vendor import LocalRedis, WorkerNode, wait_until
from tests.workers import time_app
from tests.workers.test_time import Place, Starter, at

COUNT = 12  # runs of each kind, so that each node of the cluster has some
PATIENCE = 90.0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[LocalRedis]:
    """A Redis for the messages alone."""
    server = LocalRedis(tmp_path / "broker").start()
    yield server
    server.teardown()


@pytest.fixture
def noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the folder in which this test's calls are noted."""
    folder = tmp_path / "calls"
    folder.mkdir()
    monkeypatch.setenv(calls.FOLDER, str(folder))
    return folder


def ended(run: Run) -> RunStatus:
    """Wait for the run's end. A store that is away for now says nothing about it."""

    def is_ready() -> bool:
        try:
            return run.ready()
        except StoreUnavailable:
            return False

    assert wait_until(is_ready, PATIENCE, every=0.1)
    return run.status


def runs_of_each_kind(caller: Orchestrator) -> list[Run]:
    """Start runs that sleep, wait for events that never come, try again, and go from step to step."""
    kinds = (time_app.dozing, time_app.patient, time_app.retrying, time_app.plain)
    return [caller.create_run(kind).submit(1) for _ in range(COUNT) for kind in kinds]


def gated_runs(caller: Orchestrator, gate: Path) -> list[Run]:
    """Start as many runs as the workers have threads; each stays in its step until the gate is open."""
    runs = [caller.create_run(time_app.gated).submit(str(gate)) for _ in range(COUNT)]
    assert wait_until(lambda: all(calls.count(run.run_id, "gate") for run in runs), PATIENCE)
    return runs


def workers(place: Place) -> list[WorkerNode]:
    """Start two workers, which have a thread for each gated run."""
    return [place.worker(concurrency=COUNT) for _ in range(2)]


def test_runs_on_a_cluster_go_on_when_a_node_dies(
    broker: LocalRedis, worker_factory: Starter, noted: Path, tmp_path: Path
) -> None:
    """Also steps that are at work then, which no other worker gets, and timers. No process is restarted."""
    cluster = LocalCluster(tmp_path / "cluster", replicas=1)
    try:
        cluster.start()
        place = at(broker.database(0), cluster.url(3), worker_factory, noted, tmp_path)
        workers(place)
        with place.caller() as caller:
            assert {ended(run) for run in runs_of_each_kind(caller)} == {"success"}
            headers = [sum(":header:" in key for key in found) for found in cluster.keys().values()]
            assert all(headers)
            gate = tmp_path / "gate"
            held = gated_runs(caller, gate)
            later = runs_of_each_kind(caller)
            with client_of(cluster.nodes[0]) as client:
                assert client.execute_command("WAIT", 1, 5000) == 1
            cluster.nodes[0].process.kill("SIGKILL")
            assert {ended(run) for run in later} == {"success"}
            gate.touch()
            assert {ended(run) for run in held} == {"success"}
            assert [calls.count(run.run_id, "gate") for run in held] == [1] * COUNT
    finally:
        cluster.teardown()


def test_runs_behind_sentinels_go_on_when_the_primary_dies(
    broker: LocalRedis, worker_factory: Starter, noted: Path, tmp_path: Path
) -> None:
    """The same, with the store where the sentinels say."""
    watched = Watched(tmp_path / "watched")
    try:
        watched.start()
        place = at(broker.database(0), watched.url("sentinel"), worker_factory, noted, tmp_path)
        workers(place)
        with place.caller() as caller:
            gate = tmp_path / "gate"
            held = gated_runs(caller, gate)
            later = runs_of_each_kind(caller)
            old = watched.primary()
            with client_of(old) as client:
                assert client.execute_command("WAIT", 1, 5000) == 1
            old.process.kill("SIGKILL")
            assert {ended(run) for run in later} == {"success"}
            gate.touch()
            assert {ended(run) for run in held} == {"success"}
            assert [calls.count(run.run_id, "gate") for run in held] == [1] * COUNT
    finally:
        watched.teardown()
