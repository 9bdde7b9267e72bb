"""The Redis store's own: keys, scripts, round trips, resends, and its demands on the server."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from orchestrator.errors import StoreUnavailable
from orchestrator.host import new_run_id, new_token
from orchestrator.ports import LeaseRef, RunQuery
from orchestrator.rules.apply import MOVED, UNKNOWN
from orchestrator.rules.change import (
    Change,
    Claimed,
    ClaimRequest,
    Committed,
    CreateActivation,
    LeaseGuard,
    Precondition,
    Refused,
    RequestGuard,
    StartNextItem,
    UpdateActivation,
    UpdateRun,
)
from orchestrator.rules.events import EventType
from orchestrator.rules.mailbox import MailboxUpdate
from orchestrator.rules.model import Activation, ActivationStatus, Phase, RunHeader, StoredStatus
from orchestrator.rules.timers import SweepRight, take_sweep_right
from orchestrator.rules.transitions import tables
from orchestrator.safe_text import masked_url
from orchestrator.stores import redis_connections as module
from orchestrator.stores import redis_servers
from orchestrator.stores.redis import RedisStore
from orchestrator.stores.redis_connections import too_old
from orchestrator.stores.redis_keys import Layout
from orchestrator.stores.redis_urls import client_url
from orchestrator.stores.redis_wire import rules, script
from orchestrator.testing.contract.kit import ops_to_create
from tests.servers import RedisServer
from tests.stores.wire import Wire
from tests.vendor import redis_command, wait_until

DB = 8
ROUTE = '{"name":"checkout.charge","queue":"celery"}'
LONG = 10_000_000


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """An empty database, seen past the store."""
    redis_server.flush(DB)
    with redis.Redis.from_url(redis_server.url(DB)) as client:
        yield client


@pytest.fixture
def store(redis_server: RedisServer, client: redis.Redis) -> Iterator[RedisStore]:
    store = RedisStore(redis_server.url(DB))
    yield store
    store.close()


@pytest.fixture
def wire(redis_server: RedisServer) -> Iterator[Wire]:
    with Wire(urlsplit(redis_server.url()).port or 6379) as wire:
        yield wire


@pytest.fixture
def wired(
    wire: Wire, client: redis.Redis, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RedisStore]:
    """A store behind the wire, connected and with its scripts loaded, which asks no more for its server's role."""
    monkeypatch.setattr(redis_servers, "_ROLE_INTERVAL", 3600.0)  # that is a turn, too, on a machine that is slow
    place = urlsplit(redis_server.url(DB))
    store = RedisStore(place._replace(netloc=f"127.0.0.1:{wire.port}").geturl())
    _Walk(store).steps(2)
    wire.reset()
    yield store
    store.close()


@dataclass
class _Walk:
    """A run that goes from step to step."""

    store: RedisStore
    run_id: str = field(default_factory=new_run_id)
    place: int = 0
    seq: int = 0
    claimed: Claimed | None = None

    def __post_init__(self) -> None:
        self.store.create(
            RunHeader(run_id=self.run_id, workflow_id="w", resource_id="r", namespace="n", runtime="celery")
        )
        ops = (
            CreateActivation(Activation(path="", status=ActivationStatus.OPEN, phase=Phase.SETTLE, route=ROUTE)),
            UpdateRun({"status": "running", "input": "in"}),
            CreateActivation(Activation(path="0", step="s", component="STEP", route=ROUTE, input="in")),
        )
        start = Change(
            RequestGuard(new_token(), frozenset({"pending"})), ops, values={"in": "=1"}, context={"user": "=2"}
        )
        self.seq = self.commit(start).dispatches[0].seq

    def commit(self, change: Change) -> Committed:
        answer = self.store.commit(self.run_id, change)
        assert isinstance(answer, Committed), answer
        return answer

    def claim(self) -> Claimed:
        answer = self.store.claim(ClaimRequest(self.run_id, str(self.place), self.seq, new_token()))
        assert isinstance(answer, Claimed), answer
        return answer

    def change(self, claimed: Claimed, claim: str = "") -> Change:
        """The commit of a plain step: result, two events, one state key, a successor."""
        path, token = claimed.activation.path, claimed.activation.lease_token
        after = Activation(path=str(int(path) + 1), step="s", component="STEP", route=ROUTE, input=token)
        about = {"path": path, "visit": "", "step": "s"}
        return Change(
            LeaseGuard(path, token),
            (
                UpdateActivation(path, {"status": ActivationStatus.SUCCESS, "output": token}),
                CreateActivation(after, claim),
            ),
            values={token: '={"a":[1,2,3]}'},
            state={"n": "=1"},
            events=(
                {"type": "workflow-step-result", **about, "output": token},
                {"type": "workflow-step-finish", **about},
            ),
            settle_token=new_token(),
        )

    def steps(self, count: int, *, inline: bool = False) -> None:
        for _ in range(count):
            claimed = self.claimed or self.claim()
            answer = self.commit(self.change(claimed, new_token() if inline else ""))
            self.claimed, self.place = answer.claimed, self.place + 1
            self.seq = answer.dispatches[0].seq if answer.dispatches else 0


# --- rules -----------------------------------------------------------------------------------------------------------


def test_the_scripts_are_told_the_rules_of_the_core(client: redis.Redis) -> None:
    """The tables of statuses and the defaults of all fields arrive as they are there."""
    reply = json.loads(client.eval(f"{rules()} return cjson.encode(RULES)", 0))
    assert set(reply["status"]) == {"", *ActivationStatus}
    for status, row in tables()["status"].items():
        said = {name: value for name, value in reply["status"][status].items() if value}
        assert said == {name: _as_json(value) for name, value in row.items() if value}
    assert reply["run"].keys() == set(StoredStatus)
    for name, kind in (("activation", Activation), ("header", RunHeader)):
        assert reply[name] == {field.name: field.default for field in fields(kind)}


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("name", ["claim", "commit", "create", "commit_many", "delete", "read_timers", "renew"])
def test_no_script_lists_statuses_or_defaults_of_its_own(name: str) -> None:
    """It would be a second copy of the table. The few that a rule has to name are compared one by one."""
    lines = script(name).text.partition("\n")[2].splitlines()
    words = {f"'{status}'" for status in [*ActivationStatus, *StoredStatus]}
    assert not [line for line in lines if sum(word in line for word in words) > 1]


# --- cost ------------------------------------------------------------------------------------------------------------


def test_a_plain_step_costs_two_round_trips_and_an_inline_one_costs_one(wire: Wire, wired: RedisStore) -> None:
    """A claim and a commit; inline, the commit is the successor's claim."""
    walk = _Walk(wired)
    wire.reset()
    walk.steps(5)
    assert wire.turns == 10
    walk.steps(1, inline=True)
    wire.reset()
    walk.steps(5, inline=True)
    assert wire.turns == 5


def test_a_step_costs_as_many_bytes_at_the_thousandth_place_as_at_the_tenth(wire: Wire, wired: RedisStore) -> None:
    """The bytes that a step writes and reads do not grow with the run, apart from the digits of its numbers."""
    walk = _Walk(wired)
    walk.steps(9)
    costs = []
    for _ in range(2):
        wire.reset()
        walk.steps(5)
        costs.append((wire.sent, wire.received))
        walk.steps(1_000 - walk.place)
    (sent, received), (later_sent, later_received) = costs
    assert later_sent == pytest.approx(sent, rel=0.02)
    assert later_received == pytest.approx(received, rel=0.02)


def test_sweeping_and_renewing_cost_a_fixed_number_of_round_trips(wire: Wire, wired: RedisStore) -> None:
    """One for all shards where nothing is due, one more to read what is; one for all claims of a process."""
    walks = [_Walk(wired) for _ in range(20)]
    claims = [walk.claim().activation for walk in walks]
    holdings = [
        LeaseRef(walk.run_id, activation.path, activation.lease_token)
        for walk, activation in zip(walks, claims, strict=True)
    ]
    wired.renew(holdings, 0)  # and scripts are loaded
    wired.due_timers("n")
    wired.renew(holdings, LONG)
    wire.reset()
    assert wired.due_timers("n") == []
    assert wire.turns == 1
    assert wired.renew(holdings, 0) == {}
    assert wire.turns == 2
    assert len(wired.due_timers("n")) == 20
    assert wire.turns == 4


@pytest.mark.parametrize("newest", [False, True])
def test_the_most_overdue_are_found_however_the_runs_are_spread(wire: Wire, wired: RedisStore, newest: bool) -> None:
    """Also where all belong to one shard, which is asked for its share first: then it is asked once more."""
    layout = Layout("orchestrator", 16)
    ids = [name for name in (f"run {number}" for number in range(2_000)) if layout.shard(name) == 3][:60]
    walks = [_Walk(wired, name) for name in ids]
    for place, walk in enumerate(walks):
        walk.commit(Change(RequestGuard("", frozenset({"running"})), (UpdateActivation("0", {"deadline": 1 + place}),)))
    wired.due_timers("n", 1)  # scripts are loaded
    wire.reset()
    found = [due.header.run_id for due in wired.due_timers("n", 50, newest=newest)]
    assert found == (list(reversed(ids)) if newest else ids)[:50]
    assert wire.turns == 3


def test_many_changes_of_all_shards_are_committed_in_one_round_trip(wire: Wire, wired: RedisStore) -> None:
    """Each by itself: what is refused, or is of a run that is not known, holds up none of the others."""
    walks = [_Walk(wired, f"run {number}") for number in range(100)]
    stale = Precondition("0", "queued", 99)
    changes = [
        (
            walk.run_id if place % 10 else f"no {walk.run_id}",
            Change(
                RequestGuard("", frozenset({"running"})),
                (UpdateActivation("0", {"looks": place}, delay=1_000),),
                expect=(stale,) if place % 7 == 0 else (),
            ),
        )
        for place, walk in enumerate(walks)
    ]
    wired.commit_many(changes)  # scripts are loaded
    wire.reset()
    answers = wired.commit_many(changes)
    assert wire.turns == 1
    for place, (walk, answer) in enumerate(zip(walks, answers, strict=True)):
        (activation,) = wired.load(walk.run_id, ["0"])
        if place % 10 == 0:
            assert answer == Refused(UNKNOWN)
        elif place % 7 == 0:
            assert answer == Refused(MOVED, wired.header(walk.run_id))
        else:
            assert answer == Committed(wired.header(walk.run_id) or RunHeader())
        assert activation.looks == (place if isinstance(answer, Committed) else 0)


def test_ten_thousand_values_and_items_fit_into_one_commit(store: RedisStore) -> None:
    """Arguments go to the server's commands in chunks."""
    walk = _Walk(store)
    claimed, count = walk.claim(), 10_000
    following = StartNextItem("0", Activation(step="item", component="STEP", route=ROUTE, quiet=True), "0@@0")
    opened = UpdateActivation(
        "0", {"status": ActivationStatus.OPEN, "pending_children": count, "total": count, "next_item": 0}
    )
    values = {f"0@@0.{n}": f"={n}" for n in range(count)}
    guard = LeaseGuard("0", claimed.activation.lease_token)
    change = Change(guard, (opened, *[following] * count), values=values, state={f"k{n}": "=1" for n in range(count)})
    answer = walk.commit(change)
    assert [dispatch.path for dispatch in answer.dispatches] == [f"0.{n}" for n in range(count)]
    assert answer.header.live == count
    assert store.values(walk.run_id, values) == values
    assert len(store.state(walk.run_id)) == count
    assert len(walk.commit(change).dispatches) == 50  # a repeat leaves the others to their timers
    assert (
        walk.commit(Change(RequestGuard("", frozenset({"running"})), state=dict.fromkeys(change.state))).header.live
        == count
    )
    assert store.state(walk.run_id) == {}
    assert store.delete(walk.run_id)
    assert store.due_timers("n") == []


# --- resends and restarts --------------------------------------------------------------------------------------------


def test_a_commit_whose_answer_is_lost_is_sent_again_and_answered_as_the_first_time(
    wire: Wire, wired: RedisStore
) -> None:
    """The client resends by itself; nothing is applied twice, and the successor's claim comes back."""
    walk = _Walk(wired)
    change = walk.change(walk.claim(), "inline")
    wire.lose_answer()
    answer = walk.commit(change)
    assert wire.lost == 1
    assert answer.claimed is not None
    assert (answer.claimed.activation.path, answer.claimed.activation.lease_token) == ("1", "inline")
    assert answer.header.commits == 3
    assert len(wired.events(walk.run_id)) == 4


def test_a_claim_whose_answer_is_lost_is_not_taken_for_anothers(wire: Wire, wired: RedisStore) -> None:
    walk = _Walk(wired)
    wire.lose_answer()
    claimed = walk.claim()
    assert wire.lost == 1
    assert (claimed.activation.abandoned_attempts, claimed.header.commits) == (0, 2)


def test_a_sweep_right_whose_answer_is_lost_still_tells_of_the_gap_before_it(wire: Wire, wired: RedisStore) -> None:
    """Else a server that was away for an hour would have all leases taken over at once."""
    wired.acquire_sweep("n", "somebody", 1, LONG)
    time.sleep(0.5)
    wire.lose_answer()
    grant = wired.acquire_sweep("n", "somebody", 1, 400)
    assert grant is not None
    assert grant.steady < 400
    assert wire.lost == 1


def test_what_is_claimed_between_finding_and_reading_is_not_due(store: RedisStore) -> None:
    """A sweep finds the timer, a worker claims the activation, the sweep reads it: the lease has just begun."""
    walk = _Walk(store)
    moved = UpdateActivation("0", {"deadline": 1})
    walk.commit(Change(RequestGuard("", frozenset({"running"})), (moved,)))
    connections: Any = store._connections
    calls = connections.calls

    def claim_in_between(batch: Any) -> Any:
        found = calls(batch)
        if batch and batch[0][0] == "due_timers.lua":
            connections.calls = calls
            walk.claim()
        return found

    connections.calls = claim_in_between
    assert store.due_timers("n") == []
    assert connections.calls is calls


@pytest.mark.parametrize("holder", ["", "a", "b"])
@pytest.mark.parametrize("until", [-3_000, 3_000, 500_000])
@pytest.mark.parametrize("last", [None, 500_000, 20_000, 4_000, 0, -4_000, -20_000, -500_000])
@pytest.mark.parametrize("ahead", [0, 300_000])
def test_the_right_to_sweep_is_read_alike(
    client: redis.Redis, store: RedisStore, holder: str, until: int, last: int | None, ahead: int
) -> None:
    """By the script as by `take_sweep_right`; the moments are those before and after now."""
    now, key = store.now(), store._keys.sweep("alike")
    words: dict[str, Any] = {"holder": holder, "until": now + until, "last": 0 if last is None else now + last}
    words |= {"steady_since": now - 700_000, "ahead": now + ahead if ahead else 0}
    client.delete(key)
    client.hset(key, mapping=words)
    got = store.acquire_sweep("alike", "a", 3_000, 10_000)
    wanted, noted = take_sweep_right(SweepRight(**words), "a", 3_000, 10_000, now)
    stored = {name.decode(): text.decode() for name, text in client.hgetall(key).items()}
    assert (got is None) == (wanted is None)
    if got is not None and wanted is not None:
        assert got.steady == pytest.approx(wanted.steady, abs=2_000)
        assert got.ahead == pytest.approx(wanted.ahead, abs=2_000)
    for name, value in asdict(noted or SweepRight(**words)).items():
        found = stored[name] if name == "holder" else int(stored[name])
        assert found == (value if name == "holder" else pytest.approx(value, abs=2_000))


def test_scripts_that_the_server_has_forgotten_are_loaded_again(client: redis.Redis, store: RedisStore) -> None:
    """A restarted server knows none; a pipeline of scripts is sent again as a whole."""
    walk = _Walk(store)
    client.script_flush()
    walk.steps(1)
    client.script_flush()
    claimed = walk.claim()
    client.script_flush()
    assert store.renew([LeaseRef(walk.run_id, claimed.activation.path, claimed.activation.lease_token)], 0) == {}
    client.script_flush()
    assert [due.activation.path for due in store.due_timers("n")] == ["1"]


def test_a_server_that_was_restarted_is_used_again(redis_server: RedisServer, store: RedisStore) -> None:
    """Connections that broke are replaced without anybody noticing."""
    if redis_server.process is None:
        pytest.skip("only an own server may be restarted")
    walk = _Walk(store)
    redis_server.process.process.kill("SIGKILL")
    redis_server.process.start()
    walk.steps(1)
    assert len(store.load(walk.run_id)) == 3


def test_a_server_that_cannot_be_reached_is_named_without_its_password() -> None:
    """The log may be read by people who may not read the store."""
    store = RedisStore("redis://user:hush@127.0.0.1:1/3", retries=1)
    with pytest.raises(StoreUnavailable, match=r"redis://user:\*\*\*@127\.0\.0\.1:1/3") as caught:
        store.header("run")
    assert "hush" not in str(caught.value)
    assert "hush" not in repr(caught.value.details)


# --- keys and values -------------------------------------------------------------------------------------------------


def test_all_keys_of_a_run_share_its_shards_hash_tag(client: redis.Redis, store: RedisStore) -> None:
    """One script touches one node of a cluster."""
    walk = _Walk(store)
    walk.commit(
        Change(
            RequestGuard("a", frozenset({"running"})),
            ops_to_create(Activation(path="9", status=ActivationStatus.SUSPENDED)),
        )
    )
    walk.commit(
        Change(
            RequestGuard("b", frozenset({"running"})),
            (UpdateRun({"settle_count": 1}),),
            mailbox=MailboxUpdate("name", push="id"),
        )
    )
    walk.steps(1)
    layout = Layout("orchestrator", 16)
    keys = {key.decode() for key in client.scan_iter()}
    assert keys == {*layout.run(walk.run_id).commit, layout.format}
    tags = {key[: key.index("}") + 1] for key in keys - {layout.format}}
    assert tags == {layout.tag(layout.shard(walk.run_id))}


def test_every_shard_is_used_and_listed(client: redis.Redis, store: RedisStore) -> None:
    """Pages and totals are of all shards together, newest first."""
    walks = [_Walk(store, f"run {number}") for number in range(100)]  # random ids leave a shard out now and then
    assert len(list(client.scan_iter("*:index"))) == 16
    pages = [store.runs(RunQuery(workflow_id="w", limit=30, offset=offset)) for offset in range(0, 120, 30)]
    assert store.count_runs(RunQuery(workflow_id="w")) == 100
    listed = [header for page in pages for header in page]
    assert [(h.created_at, h.run_id) for h in listed] == sorted(
        ((h.created_at, h.run_id) for h in listed), reverse=True
    )
    assert {header.run_id for header in listed} == {walk.run_id for walk in walks}
    assert len(store.due_timers("n", limit=7)) == 0
    assert store.count_runs(RunQuery(resource_id="r", status="running")) == 100


@pytest.mark.parametrize(
    "more", [{}, {"status": "running"}, {"workflow_id": "w"}, {"status": "running", "workflow_id": "w"}]
)
def test_a_page_reads_no_more_headers_than_it_has(client: redis.Redis, store: RedisStore, more: dict[str, str]) -> None:
    """Whatever the runs are chosen by: the resource together with the others, too."""
    for number in range(60):
        _Walk(store, f"run {number}")
    client.config_resetstat()
    page = store.runs(RunQuery(resource_id="r", limit=10, **more))
    assert len(page) == 10
    assert client.info("commandstats")["cmdstat_get"]["calls"] == 10
    assert store.count_runs(RunQuery(resource_id="r", **more)) == 60


def test_ids_with_the_signs_of_the_index_are_not_taken_for_others(store: RedisStore) -> None:
    """Lengths stand before names, so no name is the beginning of another."""
    for workflow in ("w", "w:", "w:1:x", "ü:", "1:w"):
        store.create(RunHeader(run_id=f"{workflow}:run", workflow_id=workflow, resource_id=workflow))
    for workflow in ("w", "w:", "w:1:x", "ü:", "1:w"):
        for query in (RunQuery(workflow_id=workflow), RunQuery(resource_id=workflow)):
            assert [header.run_id for header in store.runs(query)] == [f"{workflow}:run"]


def test_texts_come_back_byte_by_byte(store: RedisStore) -> None:
    """Scripts never decode them: their JSON would not survive Lua's numbers and empty lists."""
    text = '={"items":[],"f":1.0,"n":12345678901234567890,"é":"\\u0000/"}'
    walk = _Walk(store)
    walk.commit(
        Change(RequestGuard("a", frozenset({"running"})), values={"v": text}, state={"s": text}, context={"c": text})
    )
    assert store.values(walk.run_id, ["v"]) == {"v": text}
    assert walk.claim().state == {"s": text}
    assert store.context(walk.run_id) == {"c": text, "user": "=2"}


def test_a_deleted_run_leaves_no_key_and_no_timer(client: redis.Redis, store: RedisStore) -> None:
    """Also when its events, mailboxes, awaiting activations and settlings had keys, and a reader still waits for it."""
    walk = _Walk(store)
    walk.steps(1)
    walk.commit(
        Change(
            RequestGuard("a", frozenset({"running"})),
            ops_to_create(Activation(path="9", status=ActivationStatus.SUSPENDED)),
        )
    )
    walk.commit(
        Change(
            RequestGuard("b", frozenset({"running"})),
            (UpdateRun({"settle_count": 1}),),
            mailbox=MailboxUpdate("name", push="id"),
        )
    )
    assert store.delete(walk.run_id)
    assert store.wait_until_settled(walk.run_id, 1, 0.01) is None
    assert {key.decode() for key in client.scan_iter()} == {Layout("orchestrator", 16).format}


# --- the event log ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_event_age", [1, 10**40])
def test_a_log_of_one_node_stays_until_all_of_it_is_too_old(store: RedisStore, max_event_age: int) -> None:
    """Redis drops whole nodes; and nothing is older than its clock."""
    walk = _Walk(store)
    told = len(store.events(walk.run_id))
    for number in range(1, 250):
        threading.Event().wait(0.002 if number in (100, 240) else 0)
        walk.commit(
            Change(RequestGuard("", frozenset({"running"})), events=({"type": "n"},), max_event_age=max_event_age)
        )
        found = store.events(walk.run_id)
        assert (found[0].doc["type"] == EventType.EVENTS_TRIMMED) == (len(found) < told + number)
    assert (found[0].doc["type"] == EventType.EVENTS_TRIMMED) == (max_event_age == 1)


# --- waiting ---------------------------------------------------------------------------------------------------------


def test_a_wait_wakes_at_a_settling_and_not_at_every_step(wire: Wire, wired: RedisStore, store: RedisStore) -> None:
    """It blocks on the server: one request, and the header when the run has settled."""
    walk = _Walk(store)
    wired.wait_until_settled(walk.run_id, 0, 0.5)  # by then the blocking read of the process is under way
    wire.reset()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(wired.wait_until_settled, walk.run_id, 0, 20.0)
        walk.steps(20)
        walk.commit(Change(RequestGuard("a", frozenset({"running"})), (UpdateRun({"settle_count": 1}),)))
        header = waiting.result(timeout=5)
    assert header is not None
    assert header.settle_count == 1
    assert wire.turns <= 3


def test_no_settling_is_missed_between_the_look_and_the_blocking_read(store: RedisStore) -> None:
    """Settlings come as fast as they can while a reader waits for one after the other."""
    walk, count = _Walk(store), 100

    def settle() -> None:
        for number in range(1, count + 1):
            walk.commit(
                Change(RequestGuard(new_token(), frozenset({"running"})), (UpdateRun({"settle_count": number}),))
            )

    writer = threading.Thread(target=settle)
    writer.start()
    seen = 0
    while seen < count:
        header = store.wait_until_settled(walk.run_id, seen, 5.0)
        assert header is not None
        assert header.settle_count > seen
        seen = header.settle_count
    writer.join()


# --- the server ------------------------------------------------------------------------------------------------------


def test_another_number_of_shards_is_refused(redis_server: RedisServer, store: RedisStore) -> None:
    """It would see none of the runs."""
    store.header("run")
    with pytest.raises(StoreUnavailable, match="it has 16 shards, this process is set to 4"):
        RedisStore(redis_server.url(DB), shards=4).header("run")
    assert RedisStore(redis_server.url(DB), prefix="other", shards=4).header("run") is None


@pytest.mark.parametrize("stored", [1, module.FORMAT + 1])
def test_another_format_is_refused(redis_server: RedisServer, client: redis.Redis, stored: int) -> None:
    """Also that of a development version before the first release, whose documents have other field names."""
    client.set(Layout("orchestrator", 16).format, f'{{"format":{stored},"shards":16}}')
    with pytest.raises(
        StoreUnavailable, match=f"its format is {stored}, and this version reads format {module.FORMAT} alone"
    ):
        RedisStore(redis_server.url(DB)).header("run")


@pytest.fixture
def evicting(redis_server: RedisServer, client: redis.Redis) -> Iterator[None]:
    """A server that throws keys away."""
    if not redis_server.own:
        pytest.skip("only an own server may be set otherwise")
    client.config_set("maxmemory-policy", "allkeys-lru")
    yield
    client.config_set("maxmemory-policy", "noeviction")


@pytest.mark.usefixtures("evicting")
def test_a_server_that_may_lose_runs_is_warned_of_once(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_warned", set())
    with caplog.at_level(logging.WARNING, logger="orchestrator"):
        for _ in range(2):
            RedisStore(redis_server.url(DB)).header("run")
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        "maxmemory-policy is allkeys-lru, not noeviction"
    ]


def test_a_server_that_keeps_nothing_is_warned_of(
    redis_server: RedisServer, client: redis.Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has neither AOF nor RDB; with one of them there is nothing to say."""
    if not redis_server.own:
        pytest.skip("only an own server may be set otherwise")
    before = {name: client.config_get(name)[name] for name in ("appendonly", "save")}
    try:
        for settings in ({"appendonly": "no", "save": ""}, {"appendonly": "no", "save": "3600 1"}):
            for name, value in settings.items():
                client.config_set(name, value)
            monkeypatch.setattr(module, "_warned", set())
            with caplog.at_level(logging.WARNING, logger="orchestrator"):
                RedisStore(redis_server.url(DB)).header("run")
    finally:
        for name, value in before.items():
            client.config_set(name, value)
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        "neither AOF nor RDB is on, so a restart of the server loses everything"
    ]


@pytest.mark.usefixtures("evicting")
def test_a_server_that_may_lose_runs_is_refused_where_that_was_asked_for(redis_server: RedisServer) -> None:
    with pytest.raises(StoreUnavailable, match="maxmemory-policy is allkeys-lru, not noeviction"):
        RedisStore(redis_server.url(DB), strict=True).header("run")


@pytest.mark.usefixtures("evicting")
def test_a_server_that_lets_nobody_ask_is_taken_as_it_is(
    redis_server: RedisServer, client: redis.Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Managed servers often forbid CONFIG."""
    monkeypatch.setattr(module, "_warned", set())
    client.acl_setuser("guest", enabled=True, passwords=["+pw"], keys=["*"], commands=["+@all", "-config"])
    place = urlsplit(redis_server.url(DB))
    try:
        store = RedisStore(place._replace(netloc=f"guest:pw@{place.netloc}").geturl(), strict=True)
        assert store.header("run") is None
    finally:
        client.acl_deluser("guest")
    assert not caplog.records


# --- processes and URLs ----------------------------------------------------------------------------------------------


def test_a_forked_child_uses_connections_of_its_own(client: redis.Redis, store: RedisStore) -> None:
    """Two processes on one socket would read each other's answers."""
    walk = _Walk(store)
    before = {one["id"] for one in client.client_list()}
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            walk.steps(3)
            os.write(writer, repr(walk.place).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 10) == b"3"
    os.close(reader)
    os.close(writer)
    assert {one["id"] for one in client.client_list()} == before
    assert len(store.load(walk.run_id)) == 5


@pytest.mark.parametrize(
    "url, translated",
    [
        ("redis://host:6380/2", "redis://host:6380/2"),
        ("redis+socket:///run/redis.sock?virtual_host=3", "unix:///run/redis.sock?db=3"),
        ("redis+socket:///run/redis.sock", "unix:///run/redis.sock"),
        ("redis+socket://:pw@/run/redis.sock", "unix://:pw@/run/redis.sock"),
        ("rediss://host/0?ssl_cert_reqs=CERT_NONE", "rediss://host/0?ssl_cert_reqs=none"),
        ("rediss://host/0?ssl_cert_reqs=required&ssl_ca_certs=%2Fca.pem", "rediss://host/0?ssl_cert_reqs=required&ssl_ca_certs=%2Fca.pem"),
    ],
)  # fmt: skip
def test_urls_may_be_written_as_celery_writes_them(url: str, translated: str) -> None:
    assert client_url(url) == translated


@pytest.mark.parametrize("url", ["redis://host/abc", "rediss://host/1/2"])
def test_a_database_is_a_number(url: str) -> None:
    """The client would take another one in its place."""
    with pytest.raises(ValueError, match="the database in the store's URL is no number"):
        RedisStore(url)


def test_an_option_that_the_client_does_not_know_is_named(redis_server: RedisServer) -> None:
    with pytest.raises(ValueError, match="has an option that the Redis client does not take: .*'socket_timout'"):
        RedisStore(f"{redis_server.url(DB)}?socket_timout=3").header("r")
    patient = RedisStore(f"{redis_server.url(DB)}?socket_timeout=3&max_connections=2&timeout=1")
    assert patient.header("none") is None
    patient.close()


@pytest.mark.parametrize(
    "url, shown",
    [
        ("redis://host/1", "redis://host/1"),
        ("redis://:pw@host/1", "redis://:***@host/1"),
        ("rediss://user:p%40w@host:1/1?ssl_password=x&db=2", "rediss://user:***@host:1/1?ssl_password=***&db=2"),
        ("redis+socket://user:pw@/run/a.sock?db=2", "redis+socket://user:***@/run/a.sock?db=2"),
        ("redis://:p/w?x#y@z@host/1", "redis://:***@host/1"),
        ("redis://user:p:w@host/1?password=a/b", "redis://user:***@host/1?password=***"),
    ],
)
def test_urls_are_shown_without_their_passwords(url: str, shown: str) -> None:
    assert masked_url(url) == shown


def test_a_unix_socket_serves_as_well(tmp_path: Path) -> None:
    """The URL is Celery's form, which the client itself does not know."""
    command = redis_command()
    store = RedisStore("redis+socket://redis.sock?virtual_host=1".replace("redis.sock", f"{tmp_path}/s"), retries=0)
    with pytest.raises(StoreUnavailable, match=f"{tmp_path}/s"):
        store.now()
    options = ["--port", "0", "--unixsocket", f"{tmp_path}/s", "--dir", str(tmp_path), "--save", "60 1"]
    server = subprocess.Popen([command, *options], stdout=subprocess.DEVNULL)
    try:
        assert wait_until((tmp_path / "s").is_socket, 20)
        _Walk(store).steps(2)
        assert store.count_runs(RunQuery()) == 1
    finally:
        store.close()
        server.kill()
        server.wait()


# --- versions of the server ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "info, refused",
    [
        ({"redis_version": "5.0.6", "gcc_version": "9.4.0"}, "5.0.6"),
        ({"redis_version": "6.0.16", "gcc_version": "10.2.1"}, "6.0.16"),
        ({"redis_version": "6.2.0"}, ""),
        ({"redis_version": "6.2.14"}, ""),
        ({"redis_version": "7.0.15", "gcc_version": "12.2.0"}, ""),
        ({"redis_version": 7.4}, ""),  # the client makes a number of it
        ({"redis_version": "10.1.0"}, ""),
        ({"redis_version": "255.255.255"}, ""),  # of no release
        ({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "8.1.8"}, ""),
        ({"redis_version": "4.0.0", "kvrocks_version": "2.9.0"}, ""),
        ({"redis_version": "unknown"}, ""),
        ({}, ""),
    ],
)
def test_a_redis_that_lacks_commands_is_known_by_its_version(info: dict[str, Any], refused: str) -> None:
    """What is no Redis has another number beside it, and what has no number at all may be anything."""
    assert too_old(info) == refused


def test_an_old_server_is_refused_by_name_when_it_is_first_used(
    redis_server: RedisServer, client: redis.Redis, wire: Wire
) -> None:
    """Not in the middle of a commit that uses what it lacks."""
    info = client.info("server")
    if "valkey_version" in info:
        pytest.skip("Valkey is not judged by the version of Redis that it names")
    version = str(info["redis_version"])
    old = "6.0." + "9" * (len(version) - 4)
    wire.replaced = f"redis_version:{version}".encode(), f"redis_version:{old}".encode()
    place = urlsplit(redis_server.url(DB))
    store = RedisStore(place._replace(netloc=f"127.0.0.1:{wire.port}").geturl())
    with pytest.raises(StoreUnavailable, match=rf"it is Redis {old}, and Redis 6\.2 is the oldest"):
        store.header("run")
    assert client.dbsize() == 0
    store.close()


def test_what_a_server_refuses_together_with_others_is_told_from_what_it_cannot_do_now(
    redis_server: RedisServer, client: redis.Redis, store: RedisStore
) -> None:
    """The client puts the whole command before the server's words, with all that is in it."""
    if not redis_server.own:
        pytest.skip("only an own server may be set otherwise")
    store.header("run")
    client.config_set("min-replicas-to-write", "1")
    try:
        with pytest.raises(StoreUnavailable, match="NOREPLICAS|Not enough good replicas") as caught:
            store._connections.calls([("SET", "{orchestrator:0}:x", "of a user")])  # before Redis 7, scripts may write
    finally:
        client.config_set("min-replicas-to-write", "0")
    assert "of a user" not in str(caught.value)
