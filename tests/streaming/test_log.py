"""The store's side: following a log, its newest cursor, and how long it is kept."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from orchestrator.host import monotonic, new_run_id, new_token
from orchestrator.ports import Store
from orchestrator.rules.change import (
    Change,
    Claimed,
    ClaimRequest,
    Committed,
    CreateActivation,
    LeaseGuard,
    Refused,
    RequestGuard,
    UpdateRun,
)
from orchestrator.rules.events import EventType
from orchestrator.rules.model import Activation, ActivationStatus, Phase, RunHeader, StoredStatus
from tests.streaming import flows
from tests.streaming.conftest import Opener

KEEP = 100


class _Log:
    """A run that is only written to."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.id = new_run_id()
        store.create(RunHeader(run_id=self.id, workflow_id="w", namespace="n", runtime="celery"))
        root = Activation(path="", step="w", phase=Phase.SETTLE.value, status=ActivationStatus.OPEN.value)
        ops = (
            CreateActivation(root),
            CreateActivation(Activation(path="0", step="s")),
            UpdateRun({"status": StoredStatus.RUNNING.value}),
        )
        started = store.commit(self.id, Change(RequestGuard(new_token(), frozenset({StoredStatus.PENDING.value})), ops))
        assert isinstance(started, Committed)
        self.seq = started.dispatches[0].seq
        self.number = 0

    def add(self, count: int = 1, keep: int = 0) -> None:
        docs = tuple({"type": "n", "n": self.number + place} for place in range(count))
        self.number += count
        guard = RequestGuard(new_token(), frozenset({StoredStatus.RUNNING.value}))
        assert isinstance(self.store.commit(self.id, Change(guard, events=docs, max_events=keep)), Committed)

    def numbers(self, after: str = "") -> list[int | None]:
        """Return what is read: numbers, or None for the event that stands for lost ones."""
        found = self.store.events(self.id, after, 100_000)
        return [None if event.doc["type"] == EventType.EVENTS_TRIMMED else event.doc["n"] for event in found]


def test_following_returns_what_is_there_at_once(store: Store) -> None:
    """The whole page, in order."""
    log = _Log(store)
    log.add(3)
    found = store.wait_for_events(log.id, "", 30)
    assert found == store.events(log.id)
    assert store.wait_for_events(log.id, found[0].id, 30) == found[1:]
    assert store.wait_for_events(log.id, "", 30, 2) == found[:2]


def test_following_ends_with_its_time(store: Store) -> None:
    """With nothing, where nothing has come; so it does for a run that does not exist."""
    log = _Log(store)
    begun = monotonic()
    assert store.wait_for_events(log.id, "", 0.05) == []
    assert store.wait_for_events(log.id, "", 0) == []
    assert store.wait_for_events(new_run_id(), "", 0.05) == []
    assert monotonic() - begun < 5


def test_following_wakes_up_with_the_next_event(store: Store) -> None:
    """By a change from outside, or by a claim, and only by one of this run."""
    log, other = _Log(store), _Log(store)
    with ThreadPoolExecutor() as threads:
        for wake in (log.add, lambda: store.claim(ClaimRequest(log.id, "0", log.seq, new_token()))):
            cursor = store.last_event(log.id)
            following = threads.submit(store.wait_for_events, log.id, cursor, 30)
            other.add()
            wake()
            (event,) = following.result(10)
            assert event.id == store.last_event(log.id)


def test_many_follow_while_many_write(store: Store) -> None:
    """Each sees each event once, in one order."""
    log, readers, writers, each = _Log(store), 8, 4, 10
    together = threading.Barrier(readers + writers)

    def read(_: int) -> list[str]:
        together.wait(30)
        seen: list[str] = []
        while len(seen) < writers * each:
            seen += [event.id for event in store.wait_for_events(log.id, seen[-1] if seen else "", 30)]
        return seen

    def write(_: int) -> list[str]:
        together.wait(30)
        for _ in range(each):
            guard = RequestGuard(new_token(), frozenset({StoredStatus.RUNNING.value}))
            store.commit(log.id, Change(guard, events=({"type": "n", "n": 0},)))
        return []

    with ThreadPoolExecutor(readers + writers) as threads:
        reading = [threads.submit(read, number) for number in range(readers)]
        writing = [threads.submit(write, number) for number in range(writers)]
        for one in writing:
            one.result(60)
        expected = [event.id for event in store.events(log.id)]
        assert all(one.result(60) == expected for one in reading)


def test_the_newest_cursor_is_the_last_events_id(store: Store) -> None:
    """And none where there is none."""
    log = _Log(store)
    assert store.last_event(log.id) == store.last_event(new_run_id()) == ""
    log.add(7)
    assert store.last_event(log.id) == store.events(log.id)[-1].id


def test_a_part_is_written_once_and_by_its_claim_alone(store: Store) -> None:
    """A repeat gets an answer, and writes nothing."""
    log = _Log(store)
    claimed = store.claim(ClaimRequest(log.id, "0", log.seq, new_token()))
    assert isinstance(claimed, Claimed)
    after = store.last_event(log.id)

    def send(part: int, token: str = claimed.activation.lease_token) -> Committed | Refused:
        return store.commit(log.id, Change(LeaseGuard("0", token, part), events=({"type": "n", "n": part},)))

    assert isinstance(send(1), Committed)
    assert isinstance(send(2), Committed)
    before = store.header(log.id)
    assert isinstance(send(1), Committed)
    assert isinstance(send(2), Committed)
    assert store.header(log.id) == before
    assert isinstance(send(3, new_token()), Refused)
    assert log.numbers(after) == [1, 2]


def test_a_long_log_loses_its_beginning_and_says_so(store: Store) -> None:
    """At least so many of the newest stay; a reader that is behind sees one event that stands for what is gone."""
    log = _Log(store)
    log.add(20, KEEP)
    early = store.events(log.id)
    for _ in range(40):
        log.add(25, KEEP)
    kept = log.numbers()
    assert kept[0] is None
    assert kept[-1] == log.number - 1
    assert KEEP <= len(kept) <= KEEP * 4
    assert kept[1:] == [*range(log.number - len(kept) + 1, log.number)]
    assert log.numbers(early[3].id) == kept
    left = store.events(log.id, "", 100_000)
    assert log.numbers(left[0].id) == kept[1:]
    assert log.numbers(left[5].id) == kept[6:]
    log.add()
    assert log.numbers(left[-1].id) == [log.number - 1]


def test_a_log_without_a_limit_keeps_all(store: Store) -> None:
    """As a change that says nothing of it does."""
    log = _Log(store)
    for _ in range(12):
        log.add(25)
    assert log.numbers() == [*range(log.number)]


def test_a_reader_is_told_that_it_comes_too_late(opened: Opener) -> None:
    """The setting keeps logs of runs short."""
    run = opened(flows.many, events_max_per_run=KEEP).create_run(flows.many)
    assert run.start(10).status == "success"
    events = [*run.events()]
    assert events[0].type == "workflow-events-trimmed"
    assert (events[0].payload, events[0].source) == ({"run_id": run.run_id}, "WORKFLOW")
    assert events[-1].type == "workflow-finish"
    assert KEEP <= len(events) < 60 * 10
    assert [*run.events(events[4].id)] == events[5:]
