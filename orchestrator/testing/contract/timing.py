"""Due entries and leases, the right to sweep, and who lives."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.apply import BUSY, ENDED_RUN, LOST, MOVED, UNKNOWN
from orchestrator.core.changes import Caller, Change, Expect, Put, Run, Set
from orchestrator.core.records import RunState, Status
from orchestrator.host import new_run_id, new_token
from orchestrator.ports import Holding, Store
from orchestrator.testing.contract.kit import (
    ACTIVE,
    LEASE,
    LONG,
    Begun,
    Conditions,
    a_header,
    a_record,
    born,
    committed_of,
    each,
)


class Timing(Conditions):
    """Due entries and leases, the right to sweep, and who lives."""

    def test_a_queued_record_is_due_after_its_grace(self, store: Store) -> None:
        """Not before, and with its header as it is."""
        run = Begun(store, a_record("0"), grace=LEASE)
        run.caller(Put(a_record("1")), grace=LONG)
        assert run.due() == []
        self.advance(store, LEASE)
        found = store.due(run.namespace)
        assert [(due.header, due.record) for due in found] == [(run.header, run.record("0"))]

    def test_a_due_entry_moves_with_its_record(self, store: Store) -> None:
        """A claim, a renewal and upkeep push it on; the end of the record takes it away."""
        run = Begun(store, a_record("0"), grace=LEASE)
        self.advance(store, LEASE)
        assert run.due() == ["0"]
        run.caller(Set("0", {}, delay=LEASE))
        assert run.due() == []
        self.advance(store, LEASE)
        assert run.due() == ["0"]
        token = run.claim("0", lease=LEASE).record.token
        assert run.due() == []
        self.advance(store, LEASE)
        assert run.due() == ["0"]
        assert store.renew([Holding(run.id, "0", token)], LONG) == {}
        assert run.due() == []
        run.commit("0", token, Set("0", {"status": Status.SUCCESS}), Put(a_record("1", status=Status.OPEN)), lease=LONG)
        self.advance(store, LEASE)
        assert run.due() == []

    def test_sleeping_retrying_and_waiting_records_are_due_at_their_moment(self, store: Store) -> None:
        """Most overdue first; a wait without a moment has no entry, nor has anything suspended or open."""
        run = Begun(store)
        run.caller(
            Put(a_record("0", status=Status.SLEEPING), delay=LEASE),
            Put(a_record("1", status=Status.RETRYING), delay=LEASE - 40),
            *born(a_record("2", status=Status.WAITING), LEASE - 20),
            *born(a_record("3", status=Status.WAITING)),
            *born(a_record("4", status=Status.SUSPENDED), 1),
            Put(a_record("5", status=Status.OPEN), delay=1),
            Put(a_record("6", status=Status.PAUSED), delay=1),
            Put(a_record("7", status=Status.SLEEPING), delay=LONG),
        )
        self.advance(store, LEASE)
        assert run.due() == ["1", "2", "0"]
        assert [due.record.path for due in store.due(run.namespace, limit=2)] == ["1", "2"]

    def test_a_wait_is_due_in_a_run_at_rest(self, store: Store) -> None:
        """A wait is not live, but its moment comes all the same."""
        run = Begun(store)
        run.caller(*born(a_record("0", status=Status.WAITING), LEASE))
        run.caller(Run({"status": RunState.SUSPENDED}))
        self.advance(store, LEASE)
        assert run.due() == ["0"]
        run.caller(Put(a_record("0", status=Status.SUCCESS)))
        assert run.due() == []

    def test_due_entries_of_ended_runs_are_dropped(self, store: Store) -> None:
        """They do not stand in the way of others, whatever their records are."""
        namespace = new_run_id()
        ended = Begun(store, a_record("0"), namespace=namespace, grace=LEASE)
        ended.caller(*born(a_record("1", status=Status.WAITING), LEASE))
        ended.caller(Run({"status": RunState.CANCELED}))
        self.advance(store, 2)
        active = Begun(store, a_record("0"), namespace=namespace, grace=LEASE)
        self.advance(store, LEASE)
        assert [due.header.run_id for due in store.due(namespace, limit=1)] == [active.id]
        assert [due.header.run_id for due in store.due(namespace)] == [active.id]

    def test_due_entries_are_of_one_namespace(self, store: Store) -> None:
        """A ticker sees its own runs only, also when others are more overdue than it asks for."""
        others = [Begun(store, a_record("0"), grace=LEASE) for _ in range(3)]
        self.advance(store, 2)
        mine = Begun(store, a_record("0"), grace=LEASE)
        self.advance(store, LEASE)
        assert [due.header.run_id for due in store.due(mine.namespace, limit=1)] == [mine.id]
        assert [due.header.run_id for due in store.due(others[0].namespace)] == [others[0].id]

    def test_a_run_is_due_in_the_namespace_that_it_begins_in(self, store: Store) -> None:
        """Its start may name another one than its creation."""
        header, namespace = a_header(), new_run_id()
        store.create(header)
        ops = (Put(a_record("0")), Run({"status": RunState.RUNNING, "namespace": namespace}))
        start = Change(Caller(new_token(), frozenset({RunState.PENDING})), ops, grace=LEASE)
        committed_of(store.commit(header.run_id, start))
        self.advance(store, LEASE)
        assert store.due(header.namespace) == []
        assert [due.header.run_id for due in store.due(namespace)] == [header.run_id]
        assert store.delete(header.run_id)
        assert store.due(namespace) == []

    def test_due_entries_of_closed_runs_are_dropped(self, store: Store) -> None:
        """All but that of the rest, which is still to be claimed."""
        run = Begun(store, a_record("0"), a_record("1"), a_record("2"), root=Status.OPEN, grace=LEASE)
        run.caller(*born(a_record("3", status=Status.WAITING), LEASE))
        run.caller(Run({"outcome": "canceled", "closed": True}), rest_now=True, grace=LEASE)
        self.advance(store, LEASE)
        assert run.due() == [""]
        assert [due.record.path for due in store.due(run.namespace, limit=1)] == [""]

    def test_local_runs_have_no_due_entries(self, store: Store) -> None:
        """Nobody else is to take over what the caller's own process runs; their leases hold all the same."""
        run = Begun(store, a_record("0"), a_record("1"), runtime="local", grace=LEASE)
        token = run.claim("0", lease=LEASE).record.token
        self.advance(store, LEASE)
        assert run.due() == []
        assert store.renew([Holding(run.id, "0", token)], LEASE) == {}
        self.advance(store, LEASE)
        assert run.due() == []
        assert run.claim("0").record.lost == 1

    def test_a_lease_is_renewed_by_its_holder_alone(self, store: Store) -> None:
        """Everybody else hears why not, and no entry comes into being for it."""
        run = Begun(store, a_record("0"), a_record("1"), a_record("2", status=Status.SUSPENDED))
        ended = Begun(store, a_record("0"))
        token = run.claim("0", lease=LEASE).record.token
        other = ended.claim("0", lease=LEASE).record.token
        ended.caller(Run({"status": RunState.CANCELED}))
        mine, wrong = Holding(run.id, "0", token), Holding(run.id, "0", "other")
        queued, held, none = (Holding(run.id, path, token) for path in ("1", "2", "7"))
        over = Holding(ended.id, "0", other)
        gone = Holding(new_run_id(), "0", token)
        before = store.now()
        lost = store.renew([mine, wrong, queued, held, none, over, gone], LONG)
        reasons = {wrong: LOST, queued: LOST, held: LOST, none: LOST, over: ENDED_RUN, gone: UNKNOWN}
        assert lost == reasons
        assert run.record("0").due >= before + LONG
        assert run.record("2").due == 0
        assert store.renew([], LONG) == {}

    def test_a_lease_that_is_over_but_not_taken_is_renewed(self, store: Store) -> None:
        """After the store was away a heartbeat saves what nobody has touched; a taken one it does not."""
        run = Begun(store, a_record("0"))
        held = Holding(run.id, "0", run.claim("0", lease=LEASE).record.token)
        self.advance(store, LEASE)
        assert store.renew([held], LEASE) == {}
        assert run.refused_claim("0", run.record("0").seq) == BUSY
        self.advance(store, LEASE)
        run.claim("0", lease=LONG)
        assert store.renew([held], LEASE) == {held: LOST}

    def test_claims_of_many_runs_are_renewed_together(self, store: Store) -> None:
        """Several of one run, too; a renewal counts as no commit and changes nothing but the moment."""
        runs = [Begun(store, a_record("0"), a_record("1")) for _ in range(5)]
        claims = [(run, run.claim(path, lease=LEASE).record) for run in runs for path in ("0", "1")]
        headers = [run.header for run in runs]
        wrong = Holding(runs[2].id, "1", "other")
        before = store.now()
        holdings = [Holding(run.id, record.path, record.token) for run, record in claims]
        assert store.renew([*holdings[:4], wrong, *holdings[4:]], LONG) == {wrong: LOST}
        for run, record in claims:
            now = run.record(record.path)
            assert before + LONG <= now.due <= store.now() + LONG
            assert replace(now, due=record.due) == record
        assert [run.header for run in runs] == headers

    def test_a_renewal_refuses_upkeep_that_read_before_it(self, store: Store) -> None:
        """The ticker's guard holds the moment as read: a heartbeat in between keeps the claim."""
        run = Begun(store, a_record("0"))
        claimed = run.claim("0", lease=LEASE).record
        self.advance(store, LEASE)
        (due,) = store.due(run.namespace)
        store.renew([Holding(run.id, "0", claimed.token)], LONG)
        look = (Expect("0", Status.RUNNING, due.record.seq, due.record.due),)
        taken = Change(Caller("", ACTIVE), (Set("0", {"status": Status.QUEUED, "token": ""}),), look)
        assert run.refused(taken) == MOVED
        assert run.record("0").token == claimed.token

    def test_the_clock_tells_ms_since_1970(self, store: Store) -> None:
        """The clock goes on, and all moments that are stored are its own."""
        before = store.now()
        assert before > 1_600_000_000_000
        self.advance(store, 5)
        run = Begun(store, a_record("0"))
        assert before + 5 <= run.header.created_at <= run.record("0").queued_at <= run.header.updated_at <= store.now()

    def test_one_ticker_sweeps_at_a_time(self, store: Store) -> None:
        """Its right ends with its lease; it hears how long ago the last sweep was, and it may keep the right."""
        namespace = new_run_id()
        assert store.tick(namespace, "a", LEASE) > LONG
        assert store.tick(namespace, "b", LEASE) == 0
        assert store.tick(new_run_id(), "b", LEASE) > LONG
        self.advance(store, LEASE // 2)
        assert LEASE // 2 <= store.tick(namespace, "a", LEASE) < LONG
        assert store.tick(namespace, "a", LONG) >= 1
        self.advance(store, LEASE)
        assert store.tick(namespace, "b", LEASE) == 0
        other = new_run_id()
        store.tick(other, "a", LEASE)
        self.advance(store, LEASE)
        assert LEASE <= store.tick(other, "b", LEASE) < LONG
        assert store.tick(other, "a", LEASE) == 0

    def test_one_of_many_tickers_at_once_wins(self, store: Store) -> None:
        """The others hear that it is held."""
        namespace = new_run_id()
        answers = each(lambda n: store.tick(namespace, f"t{n}", LONG), range(6))
        assert sum(answer > 0 for answer in answers) == 1

    def test_a_worker_is_there_until_its_time_is_over(self, store: Store) -> None:
        """Announced again it stays; others' namespaces have their own."""
        namespace = new_run_id()
        assert store.workers(namespace) == []
        store.announce(namespace, "w2", LONG)
        store.announce(namespace, "w1", LEASE)
        store.announce(namespace, "w2", LONG)
        assert sorted(store.workers(namespace)) == ["w1", "w2"]
        assert store.workers(new_run_id()) == []
        self.advance(store, LEASE)
        assert store.workers(namespace) == ["w2"]
