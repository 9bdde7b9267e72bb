"""The contract that every store keeps, as a test class: inherit from it, give it a `store` fixture, run pytest.

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self) -> Iterator[Store]:
            ...

It speaks to a store through the port alone, under run ids and namespaces of its own, so that a store may be shared
between tests and hold other runs. It must not know what a store is made of, nor what a workflow is: records stand here
for themselves, and where a run goes is said by each test. The class is long because the contract is: one test for each
condition.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from orchestrator.core.apply import BUSY, EARLY, ENDED_RUN, LOST, MAIL, MOVED, STALE, TAKEN, UNKNOWN
from orchestrator.core.changes import (
    Ask,
    Caller,
    Change,
    Claimed,
    Committed,
    Doc,
    Down,
    Expect,
    Holder,
    Mail,
    Next,
    Op,
    Put,
    Refused,
    Run,
    Set,
    Shut,
)
from orchestrator.core.records import Header, Phase, Record, Role, RunState, Status
from orchestrator.host import new_run_id, new_token
from orchestrator.ports import Holding, RunQuery, Store

_K = TypeVar("_K")
_T = TypeVar("_T")

EVENTED = "celery"
LEASE = 60  # ms: short enough to really wait for
LONG = 60_000
ACTIVE = frozenset({RunState.RUNNING, RunState.SUSPENDED, RunState.PAUSED})

OPAQUE = {
    "empty list": "=[]",
    "empty dict": "={}",
    "nested empties": '={"a":[],"b":{},"c":[[]]}',
    "big integer": "=123456789012345678901234567890",
    "float": "=1.0",
    "exponent": "=1e400",
    "unicode": '="grüß 🐍 \u2028 \u05d0"',
    "escaped NUL": '="a\\u0000b"',
    "escaped surrogate": '="\\ud83d"',
    "quotes": '="\\"\'\\\\%s {0} $1 :name"',
    "line breaks": '="\r\n\t"',
    "references": '["a","","b"]',
    "empty": "",
    "one megabyte": "=" + "x" * 1_000_000,
}


class StoreContract:
    """What a store promises, condition by condition. `store` is a fixture that the subclass gives."""

    def advance(self, store: Store, ms: int) -> None:
        """Let `ms` pass on the store's clock: a real one is waited for; override it where the clock is virtual."""
        end = store.now() + ms
        while store.now() <= end:
            threading.Event().wait(0.002)

    # --- creating and reading -------------------------------------------------------------------------------------

    def test_a_new_run_is_stored_as_it_is_given_and_stamped(self, store: Store) -> None:
        """`create` keeps every field and writes the moment of creation by the store's clock."""
        before = store.now()
        given = _header(resource_id="r", input="i", per_step=True, auto_restart=False)
        stored = store.create(given)
        assert before <= stored.created_at <= store.now()
        assert stored == replace(given, created_at=stored.created_at, updated_at=stored.created_at)
        assert store.header(given.run_id) == stored

    def test_creating_a_run_again_returns_what_is_stored_and_changes_nothing(self, store: Store) -> None:
        """Whoever comes second gets the first run, however far it has come."""
        run = _Begun(store, _record("0"))
        again = store.create(_header(run_id=run.id, workflow_id="another"))
        assert again == run.header
        assert again.workflow_id == "contract"
        assert again.status == RunState.RUNNING
        assert store.header(run.id) == again

    def test_two_threads_that_create_one_run_see_the_same(self, store: Store) -> None:
        """Only one of them inserts it."""
        id_ = new_run_id()
        seen = _each(lambda n: store.create(_header(run_id=id_, workflow_id=f"w{n}")), range(4))
        assert len(set(seen)) == 1

    def test_an_unknown_run_reads_as_nothing(self, store: Store) -> None:
        """No reading verb raises for a run that nobody has created."""
        id_ = new_run_id()
        assert store.header(id_) is None
        assert store.load(id_) == []
        assert store.load(id_, ["0"]) == []
        assert store.load(id_, held=True) == []
        assert store.values(id_, ["a"]) == {}
        assert store.state(id_) == {}
        assert store.context(id_) == {}
        assert store.events(id_) == []
        assert store.wait(id_, 0, 0.0) is None

    def test_an_unknown_run_refuses_every_write(self, store: Store) -> None:
        """A claim, a commit, a renewal and a deletion say that there is no such run."""
        held = Holding(new_run_id(), "0", "t")
        assert _refused(store.claim(Ask(held.run_id, "0", 1, "t"))) == UNKNOWN
        assert _refused(store.commit(held.run_id, Change(Caller("c", ACTIVE)))) == UNKNOWN
        assert store.renew([held], LEASE) == {held: UNKNOWN}
        assert store.delete(held.run_id) is False
        assert store.header(held.run_id) is None

    def test_records_come_in_the_order_of_their_paths_as_numbers(self, store: Store) -> None:
        """The tenth item follows the ninth, and a parent stands before its children."""
        paths = ["0.10", "0.9", "0", "1", "0.2.1", "0.2", "10", "2", "0.2.10", "0.2.9"]
        run = _Begun(store, *map(_record, paths))
        ordered = ["", "0", "0.2", "0.2.1", "0.2.9", "0.2.10", "0.9", "0.10", "1", "2", "10"]
        assert [record.path for record in store.load(run.id)] == ordered

    def test_records_are_read_by_their_paths_as_far_as_they_exist(self, store: Store) -> None:
        """Unknown paths are left out, twice named ones come once."""
        run = _Begun(store, _record("0"), _record("1"), _record("2"))
        assert [record.path for record in store.load(run.id, ["2", "7", "0", "2"])] == ["0", "2"]
        assert store.load(run.id, []) == []
        assert [record.path for record in store.load(run.id, [""])] == [""]

    def test_held_records_are_those_that_wait_for_somebody_outside(self, store: Store) -> None:
        """Suspended, waiting and paused ones, and only as long as they are."""
        held = [_record("0.10", status=Status.SUSPENDED), _record("0.9", status=Status.WAITING)]
        run = _Begun(
            store, *held, _record("1", status=Status.PAUSED), _record("2"), _record("3", status=Status.SLEEPING)
        )
        assert [record.path for record in store.load(run.id, held=True)] == ["0.9", "0.10", "1"]
        run.caller(Set("0.10", {"status": Status.QUEUED}), Set("1", {"status": Status.SUCCESS}))
        assert [record.path for record in store.load(run.id, held=True)] == ["0.9"]

    def test_every_field_of_a_record_survives(self, store: Store) -> None:
        """What a commit puts is what a load reads, but for what the status stamps."""
        full = _record(
            "0.3", visit="1.2", quiet=True, input="i", output="o", error="e", needs="a b", scope=1, attempt=2,
            iteration=3, index=3, left=4, next=5, total=6, skipped=1, width=2, suspend="s", resume="r", resumed=True,
            restarted=True, label="grün", tripwire=True, parked="no such workflow", status=Status.SUSPENDED,
            role=Role.ITEM.value, phase=Phase.RUN.value, queued_at=7, started_at=8, resumed_at=9, order=2, seq=77,
        )  # fmt: skip
        run = _Begun(store, full)
        read = run.record("0.3")
        assert read == replace(full, seq=read.seq, suspended_at=read.suspended_at)

    def test_opaque_values_survive(self, store: Store) -> None:
        """Nothing looks into users' text: values, state, context and their keys come back as they were written."""
        run = _Begun(store, _record("0", status=Status.OPEN))
        keys = {f"key:{name} é [] 'x' \"y\"": text for name, text in OPAQUE.items()}
        run.caller(values=keys, state=keys, context=keys)
        assert store.values(run.id, keys) == keys
        assert store.state(run.id) == keys
        assert store.context(run.id) == keys

    def test_opaque_fields_and_events_survive(self, store: Store) -> None:
        """Labels, reasons and events keep their text, their numbers and their empty lists."""
        label = OPAQUE["unicode"] + OPAQUE["quotes"] + OPAQUE["line breaks"]
        event: Doc = {"type": "note", "list": [], "dict": {}, "big": 1 << 60, "float": 0.5, "none": None, "text": label}
        run = _Begun(store, _record("0", status=Status.OPEN))
        run.caller(Set("0", {"label": label, "parked": label}), events=(event,))
        assert run.record("0").label == run.record("0").parked == label
        assert store.events(run.id)[-1].doc == event

    # --- claiming -------------------------------------------------------------------------------------------------

    def test_a_queued_record_is_claimed_with_all_that_it_needs(self, store: Store) -> None:
        """The answer holds the running record under the caller's token, its values, and the whole state and context."""
        record = _record("0", input="i", needs="n1 n2 absent", suspend="s", resume="r", resumed=True)
        run = _Begun(store, record, _record("1"))
        texts = {"i": "=1", "n1": "=2", "n2": '["n1"]', "s": "=3", "r": "=4", "other": "=5"}
        run.caller(values=texts, state={"k": "=6", "l": "=[]"}, context={"c": "=7"})
        queued = run.record("0")
        before = store.now()
        got = _claimed(store.claim(Ask(run.id, "0", queued.seq, "token", LONG)))
        assert (got.record.status, got.record.token, got.record.seq) == (Status.RUNNING, "token", queued.seq)
        assert before + LONG <= got.record.due <= store.now() + LONG
        assert before <= got.record.started_at <= store.now()
        assert got.values == {key: text for key, text in texts.items() if key != "other"}
        assert (got.state, got.context) == ({"k": "=6", "l": "=[]"}, {"c": "=7"})
        assert got.header == run.header
        assert got.record == run.record("0")

    def test_the_first_claim_tells_that_the_step_has_started(self, store: Store) -> None:
        """Once: a quiet record, a retry and a takeover tell nothing."""
        retried = _record("2", attempt=1)
        run = _Begun(store, _record("0", input="i", visit="3"), _record("1", quiet=True), retried)
        for path in ("0", "1", "2"):
            run.claim(path, lease=LEASE)
        told: Doc = {"type": "workflow-step-start", "path": "0", "visit": "3", "step": "s0", "input": "i"}
        assert run.told() == [told]
        self.advance(store, LEASE)
        run.claim("0")
        assert run.told() == [told]

    def test_a_claim_of_no_record_is_refused(self, store: Store) -> None:
        """The run is there, the path is not."""
        run = _Begun(store, _record("0"))
        assert run.refused_claim("7", 1) == UNKNOWN

    def test_a_stale_message_claims_nothing(self, store: Store) -> None:
        """Another number than the record's is of an earlier or a lost life."""
        run = _Begun(store, _record("0"))
        seq = run.record("0").seq
        assert run.refused_claim("0", seq - 1) == STALE
        assert run.refused_claim("0", seq + 1) == STALE
        assert run.record("0").status == Status.QUEUED

    def test_a_claim_is_refused_while_another_is_alive(self, store: Store) -> None:
        """A second token does not get in before the lease is over."""
        run = _Begun(store, _record("0"))
        first = run.claim("0", lease=LONG)
        assert run.refused_claim("0", first.record.seq) == BUSY
        assert run.record("0") == first.record

    def test_what_is_not_claimable_is_stale(self, store: Store) -> None:
        """A record that is open, held or ended is not run by anybody, even under its own number."""
        states = [Status.OPEN, Status.SUSPENDED, Status.WAITING, Status.PAUSED, Status.SUCCESS, Status.FAILED]
        run = _Begun(store, _record("0"), *(_record(f"1.{n}", status=state) for n, state in enumerate(states)))
        for n in range(len(states)):
            assert run.refused_claim(f"1.{n}", run.record(f"1.{n}").seq) == STALE

    def test_a_retry_or_a_sleep_is_refused_before_its_moment(self, store: Store) -> None:
        """An old message does not skip the backoff; from its moment on the record is claimable as it stands."""
        asleep = (_record("0", status=Status.SLEEPING), _record("1", status=Status.RETRYING, attempt=1))
        run = _Begun(store)
        run.caller(*(Put(record, delay=LEASE) for record in asleep))
        seqs = [run.record(path).seq for path in ("0", "1")]
        assert [run.refused_claim(path, seq) for path, seq in zip("01", seqs, strict=True)] == [EARLY, EARLY]
        self.advance(store, LEASE)
        for path, seq in zip("01", seqs, strict=True):
            got = run.claim(path)
            assert (got.record.status, got.record.seq, got.record.lost) == (Status.RUNNING, seq, 0)

    def test_a_record_is_taken_over_when_its_lease_is_over(self, store: Store) -> None:
        """The takeover has a number of its own, counts the loss, and leaves the first worker out in the cold."""
        run = _Begun(store, _record("0"))
        first = run.claim("0", token="first", lease=LEASE)
        self.advance(store, LEASE)
        second = run.claim("0", token="second", lease=LONG)
        assert (second.record.lost, second.record.restarted, second.record.token) == (1, True, "second")
        assert second.record.seq > first.record.seq
        assert (second.record.order, second.record.started_at) == (first.record.order, first.record.started_at)
        assert run.refused_claim("0", first.record.seq) == STALE
        assert run.refused_commit("0", "first", Set("0", {"status": Status.FAILED})) == LOST
        assert run.record("0") == second.record

    def test_a_claim_in_a_run_that_is_not_active_is_refused(self, store: Store) -> None:
        """Neither in one that has ended nor in one that rests."""
        for state in (RunState.CANCELED, RunState.SUCCESS, RunState.SUSPENDED, RunState.PENDING):
            run = _Begun(store, _record("0"))
            run.caller(Run({"status": state}))
            assert run.refused_claim("0", run.record("0").seq) == ENDED_RUN

    def test_a_repeated_claim_gets_the_first_answer_and_changes_nothing(self, store: Store) -> None:
        """Clients resend: the same token is the same worker, even when its lease is over."""
        run = _Begun(store, _record("0", input="i"))
        run.caller(values={"i": "=1"}, state={"s": "=2"})
        ask = Ask(run.id, "0", run.record("0").seq, "token", LEASE)
        first = store.claim(ask)
        events = store.events(run.id)
        assert store.claim(ask) == first
        self.advance(store, LEASE)
        assert store.claim(ask) == first
        assert store.events(run.id) == events

    def test_one_of_many_claims_at_once_wins(self, store: Store) -> None:
        """The others hear that it is busy."""
        run = _Begun(store, _record("0"))
        seq = run.record("0").seq
        answers = _each(lambda n: store.claim(Ask(run.id, "0", seq, f"t{n}", LONG)), range(8))
        won = [answer for answer in answers if isinstance(answer, Claimed)]
        assert len(won) == 1
        assert {answer.reason for answer in answers if isinstance(answer, Refused)} == {BUSY}
        assert run.record("0") == won[0].record

    # --- committing -----------------------------------------------------------------------------------------------

    def test_everything_in_a_commit_becomes_visible(self, store: Store) -> None:
        """Records, header, values, state, context, events and dispatches, all by one commit."""
        run = _Begun(store, _record("0"))
        token = run.claim("0").record.token
        change = Change(
            Holder("0", token),
            (
                Set("0", {"status": Status.SUCCESS, "output": "o"}),
                Put(_record("1", route='{"name":"next"}')),
                Run({"outcome": "success", "output": "o"}),
            ),
            values={"o": "=1"},
            state={"s": "=2"},
            context={"c": "=3"},
            events=({"type": "told"},),
        )
        answer = _committed(store.commit(run.id, change))
        first, second = run.record("0"), run.record("1")
        assert (first.status, first.output, first.token, first.due) == (Status.SUCCESS, "o", "", 0)
        assert first.ended_at >= first.started_at > 0
        assert (second.status, second.queued_at > 0, second.due > 0) == (Status.QUEUED, True, True)
        assert [(d.path, d.seq, d.route, d.delay) for d in answer.dispatches] == [("1", second.seq, second.route, 0)]
        assert answer.claimed is None
        assert answer.header == run.header
        assert (run.header.outcome, run.header.output, run.header.live) == ("success", "o", 1)
        assert store.values(run.id, ["o"]) == {"o": "=1"}
        assert (store.state(run.id), store.context(run.id)) == ({"s": "=2"}, {"c": "=3"})
        assert run.told("told") == [{"type": "told"}]

    def test_a_repeated_commit_gets_the_first_answer_and_changes_nothing(self, store: Store) -> None:
        """Also when the first answer was lost and time has passed: the same dispatches, no second write."""
        run = _Begun(store, _record("0"))
        token = run.claim("0").record.token
        puts = (Put(_record("1", route='{"name":"a"}')), Put(_record("2", status=Status.SLEEPING), delay=LONG))
        ops = (Set("0", {"status": Status.SUCCESS}), *puts)
        change = Change(
            Holder("0", token), ops, state={"s": "=1"}, events=({"type": "told"},), mail=Mail("m", push="v")
        )
        first = _committed(store.commit(run.id, change))
        assert [d.path for d in first.dispatches] == ["1", "2"]
        records, header = store.load(run.id), run.header
        self.advance(store, 2)
        again = _committed(store.commit(run.id, change))
        assert again.dispatches == first.dispatches
        assert (store.load(run.id), run.header) == (records, header)
        assert len(run.told("told")) == 1
        assert run.refused(Change(Caller(new_token(), ACTIVE), mail=Mail("m", expect=""))) == MAIL
        run.caller(mail=Mail("m", expect="1:v"))

    def test_a_commit_is_repeated_even_after_its_successors_have_gone_on(self, store: Store) -> None:
        """The dispatches stay those of the first answer; a message for what has moved on is harmless."""
        run = _Begun(store, _record("0"))
        token = run.claim("0").record.token
        change = Change(Holder("0", token), (Set("0", {"status": Status.SUCCESS}), Put(_record("1"))))
        first = _committed(store.commit(run.id, change))
        run.commit("1", run.claim("1").record.token, Set("1", {"status": Status.SUCCESS}), Run({"status": "success"}))
        again = _committed(store.commit(run.id, change))
        assert again.dispatches == first.dispatches
        assert run.record("1").status == Status.SUCCESS

    def test_a_commit_by_a_lost_token_writes_nothing(self, store: Store) -> None:
        """A zombie that wakes after its lease leaves no trace: no value, no key, no event, no letter."""
        run = _Begun(store, _record("0"))
        run.claim("0", token="zombie", lease=LEASE)
        self.advance(store, LEASE)
        run.claim("0", token="owner", lease=LONG)
        seen = run.snapshot()
        change = Change(Holder("0", "zombie"), (Set("0", {"status": Status.SUCCESS}), Put(_record("1"))), **_EXTRAS)
        assert run.refused(change) == LOST
        assert run.snapshot() == seen
        assert store.values(run.id, _EXTRAS["values"]) == {}

    def test_a_token_that_holds_nothing_commits_nothing(self, store: Store) -> None:
        """Not before a claim, not on another record, not where there is none."""
        run = _Begun(store, _record("0"), _record("1"))
        token = run.claim("0").record.token
        for path, wrong in (("1", token), ("0", "other"), ("7", token)):
            assert run.refused_commit(path, wrong, Run({"outcome": "success"})) == LOST

    def test_a_caller_in_another_state_writes_nothing(self, store: Store) -> None:
        """The status, the life and the count of rests are compared."""
        run = _Begun(store, _record("0", status=Status.OPEN))
        seen = run.snapshot()
        wrong = [
            Caller(new_token(), frozenset({RunState.SUSPENDED})),
            Caller(new_token(), ACTIVE, life=1),
            Caller(new_token(), ACTIVE, rests=1),
            Caller("", frozenset({RunState.PENDING})),
        ]
        for guard in wrong:
            assert run.refused(Change(guard, (Put(_record("1")),), **_EXTRAS)) == ENDED_RUN
        assert run.snapshot() == seen
        _committed(store.commit(run.id, Change(Caller(new_token(), ACTIVE, life=0, rests=0))))

    def test_something_that_moved_refuses_the_whole_commit(self, store: Store) -> None:
        """Status, number and moment of each expected record are compared, and all of them must fit."""
        run = _Begun(store, _record("0"), _record("1"))
        zero, one = run.record("0"), run.record("1")
        seen = run.snapshot()
        fits = Expect("0", Status.QUEUED, zero.seq, zero.due)
        wrong = [
            Expect("1", Status.RUNNING, one.seq),
            Expect("1", Status.QUEUED, one.seq + 1),
            Expect("1", Status.QUEUED, one.seq, one.due + 1),
            Expect("7", Status.QUEUED, one.seq),
        ]
        for expect in wrong:
            change = Change(Caller(new_token(), ACTIVE), (Put(_record("2")),), (fits, expect), **_EXTRAS)
            assert run.refused(change) == MOVED
        assert run.snapshot() == seen
        both = (fits, Expect("1", Status.QUEUED, one.seq))
        _committed(store.commit(run.id, Change(Caller(new_token(), ACTIVE), (Put(_record("2")),), both)))

    def test_a_fresh_record_is_not_put_over_a_live_one(self, store: Store) -> None:
        """The whole commit is refused; over one that has ended or waits it is allowed, and the counts follow."""
        states = [Status.QUEUED, Status.RETRYING, Status.SLEEPING]
        run = _Begun(store, *(_record(f"{n}", status=state) for n, state in enumerate(states)))
        run.claim("0", lease=LONG)
        run.caller(Put(_record("3", status=Status.SUSPENDED)), Put(_record("4", status=Status.SUCCESS)))
        seen = run.snapshot()
        for path in ("0", "1", "2"):
            change = Change(Caller(new_token(), ACTIVE), (Put(_record("5")), Put(_record(path))), **_EXTRAS)
            assert run.refused(change) == TAKEN
        assert run.snapshot() == seen
        run.caller(Put(_record("3")), Put(_record("4")))
        assert (run.header.live, run.header.suspended) == (5, 0)

    def test_a_mailbox_that_has_changed_refuses_the_whole_commit(self, store: Store) -> None:
        """Its length is compared with what was read, per name; a letter is pushed and popped with the commit."""
        run = _Begun(store, _record("0"))
        run.caller(mail=Mail("order", expect="", push="v1"))
        run.caller(mail=Mail("order", push="v2"))
        seen = run.snapshot()
        for mail in (Mail("order", expect=""), Mail("order", expect="2:v1", pop="v1"), Mail("other", expect="2:v2")):
            change = replace(Change(Caller(new_token(), ACTIVE), (Put(_record("1")),), **_EXTRAS), mail=mail)
            assert run.refused(change) == MAIL
        assert run.snapshot() == seen
        assert store.mail(run.id, "order") == ["v1", "v2"]
        assert store.mail(run.id, "other") == []
        run.caller(mail=Mail("order", expect="2:v2", pop="v1"))
        assert store.mail(run.id, "order") == ["v2"]
        run.caller(mail=Mail("order", expect="1:v2", pop="v2"))
        run.caller(mail=Mail("order", expect="", pop="v2"))
        assert store.mail(run.id, "order") == []

    def test_a_callers_repeated_change_gets_the_first_answer(self, store: Store) -> None:
        """Under the same id nothing is written twice, and upkeep in between does not push the answer out."""
        run = _Begun(store, _record("0", status=Status.SUSPENDED), _record("1"))
        ops = (Set("0", {"status": Status.QUEUED, "resume": "r"}),)
        expect = (Expect("0", Status.SUSPENDED, run.record("0").seq),)
        change = Change(Caller(new_token(), ACTIVE), ops, expect, {"r": "=1"}, mail=Mail("m", push="v"))
        first = _committed(store.commit(run.id, change))
        one = run.record("1")
        look = (Expect("1", one.status, one.seq, one.due),)
        upkeep = Change(Caller("", ACTIVE), (Set("1", {}, delay=2 * LONG),), look)
        _committed(store.commit(run.id, upkeep))
        assert run.refused(upkeep) == MOVED
        records, header = store.load(run.id), run.header
        assert _committed(store.commit(run.id, change)).dispatches == first.dispatches
        assert (store.load(run.id), run.header) == (records, header)
        run.caller(mail=Mail("m", expect="1:v"))

    def test_values_are_written_once(self, store: Store) -> None:
        """A value that exists is left as it is; what a commit names twice is not an error."""
        run = _Begun(store, _record("0"))
        run.caller(values={"a": "=1"})
        run.caller(values={"a": "=2", "b": "=3"})
        assert store.values(run.id, ["a", "b", "c", "a"]) == {"a": "=1", "b": "=3"}

    def test_state_and_context_are_patched_key_by_key(self, store: Store) -> None:
        """What a patch does not name stays, None deletes, and a key that never was may be deleted too."""
        run = _Begun(store, _record("0"))
        run.caller(state={"a": "=1", "b": "=2"}, context={"a": "=3", "b": "=4"})
        run.caller(state={"b": None, "c": "=[]", "never": None}, context={"a": "={}", "b": None})
        assert store.state(run.id) == {"a": "=1", "c": "=[]"}
        assert store.context(run.id) == {"a": "={}"}

    def test_events_are_read_in_order_from_a_cursor(self, store: Store) -> None:
        """Ids are cursors: what comes after one is what came later, and nothing is inserted before what was read."""
        run = _Begun(store, _record("0"))
        before = store.now()
        for n in range(12):
            run.caller(events=tuple({"type": "n", "n": n * 2 + k} for k in range(2)))
        events = store.events(run.id)
        assert [event.doc["n"] for event in events] == list(range(24))
        assert len({event.id for event in events}) == 24
        assert all(before <= event.at <= store.now() for event in events)
        read: list[Any] = []
        cursor = ""
        while page := store.events(run.id, cursor, limit=5):
            assert len(page) <= 5
            read += page
            cursor = page[-1].id
        assert read == events
        run.caller(events=({"type": "n", "n": 24},))
        assert [event.doc["n"] for event in store.events(run.id, cursor)] == [24]

    def test_no_event_is_lost_to_a_reader_that_follows(self, store: Store) -> None:
        """A cursor that runs along with concurrent commits sees each event once."""
        run = _Begun(store, _record("0", status=Status.OPEN))
        each, writers = 10, 4
        read: list[int] = []
        done = threading.Event()

        def write(n: int) -> None:
            for k in range(each):
                run.caller(events=({"type": "n", "n": n * each + k},))

        def follow() -> None:
            cursor = ""
            while True:
                over = done.is_set()
                while page := store.events(run.id, cursor, limit=7):
                    read.extend(event.doc["n"] for event in page)
                    cursor = page[-1].id
                if over:
                    return

        def work() -> None:
            try:
                _each(write, range(writers))
            finally:
                done.set()

        _together(follow, work)
        assert sorted(read) == list(range(each * writers))
        assert read == [event.doc["n"] for event in store.events(run.id)]

    def test_commits_number_the_run(self, store: Store) -> None:
        """Each one, and each claim, counts once; a repeat and a refusal do not."""
        run = _Begun(store, _record("0"))
        count = run.header.commits
        token = run.claim("0").record.token
        assert run.header.commits == count + 1
        run.refused_claim("0", run.record("0").seq)
        run.refused_commit("0", "other", Run({}))
        assert run.header.commits == count + 1
        ops = (Set("0", {"status": Status.SUCCESS}), Put(_record("1")))
        change = Change(Holder("0", token), ops)
        store.commit(run.id, change)
        store.commit(run.id, change)
        assert run.header.commits == count + 2
        assert run.record("1").seq == count + 2

    def test_the_header_counts_what_its_records_are(self, store: Store) -> None:
        """Live, suspended, waiting and paused ones, through every way in and out; the run's own record never counts."""
        run = _Begun(store, _record("0"), _record("1"), _record("2"), _record("3"), _record("4", status=Status.OPEN))
        assert run.counts() == (4, 0, 0, 0)
        run.commit("0", run.claim("0").record.token, Set("0", {"status": Status.SUSPENDED}))
        run.commit("1", run.claim("1").record.token, Set("1", {"status": Status.WAITING}))
        run.commit("2", run.claim("2").record.token, Set("2", {"status": Status.RETRYING}, delay=LONG))
        assert run.counts() == (2, 1, 1, 0)
        run.caller(Put(_record("5", status=Status.PAUSED)), Set("3", {}, delay=LONG))
        assert run.counts() == (2, 1, 1, 1)
        run.caller(Set("0", {"status": Status.QUEUED}), Set("1", {"status": Status.SUCCESS}))
        assert run.counts() == (3, 0, 0, 1)
        run.caller(Set("2", {"status": Status.FAILED}), Set("5", {"status": Status.QUEUED}))
        assert run.counts() == (3, 0, 0, 0)
        run.caller(drop=("0", "3", "5"))
        assert run.counts() == (0, 0, 0, 0)
        assert [record.path for record in store.load(run.id)] == ["", "1", "2", "4"]

    def test_dropped_records_go_away_with_their_due_entries(self, store: Store) -> None:
        """A record that was dropped and put again in the same commit is a fresh one."""
        run = _Begun(store, _record("0", attempt=3, label="old"), _record("1", status=Status.SUSPENDED))
        run.claim("0", lease=LONG)
        run.caller(Put(_record("0")), drop=("0", "1", "7"))  # it is live, but on its way out
        assert run.counts() == (1, 0, 0, 0)
        assert (run.record("0").attempt, run.record("0").label) == (0, "")
        run.caller(drop=("0",))
        self.advance(store, LEASE)
        assert run.due() == []
        assert [record.path for record in store.load(run.id)] == [""]

    def test_the_last_child_brings_about_what_follows(self, store: Store) -> None:
        """A counter goes down with each child; the commit that takes it to zero claims the join, and no other does."""
        block = _record("0", status=Status.OPEN, left=3, total=3, next=3)
        run = _Begun(store, block, *(_record(f"0.{n}") for n in range(3)))
        tokens = [run.claim(f"0.{n}").record.token for n in range(3)]
        join = {"status": Status.QUEUED, "phase": Phase.JOIN}
        for n in (2, 0):
            down = Down("0", Set("0", join, claim=f"join {n}"), {"type": "progress", "n": n})
            answer = run.commit(f"0.{n}", tokens[n], Set(f"0.{n}", {"status": Status.SUCCESS}), down)
            assert (answer.claimed, answer.dispatches) == (None, ())
        assert (run.record("0").left, run.record("0").status) == (1, Status.OPEN)
        down = Down("0", Set("0", join, claim="join 1"), {"type": "progress", "n": 1})
        answer = run.commit("0.1", tokens[1], Set("0.1", {"status": Status.SUCCESS}), down)
        assert answer.claimed is not None
        assert answer.claimed.record == run.record("0")
        assert (answer.claimed.record.token, answer.claimed.record.phase) == ("join 1", Phase.JOIN)
        assert answer.header.live == 1
        counted = [(event["n"], event["completed"], event["total"]) for event in run.told("progress")]
        assert counted == [(2, 1, 3), (0, 2, 3), (1, 3, 3)]

    def test_what_follows_the_last_child_is_queued_where_nobody_claims_it(self, store: Store) -> None:
        """Without a token the join is a dispatch like any other."""
        run = _Begun(store, _record("0", status=Status.OPEN, left=1, total=1), _record("0.0"))
        token = run.claim("0.0").record.token
        down = Down("0", Set("0", {"status": Status.QUEUED, "phase": Phase.JOIN}))
        answer = run.commit("0.0", token, Set("0.0", {"status": Status.SUCCESS}), down)
        assert [d.path for d in answer.dispatches] == ["0"]
        assert run.claim("0").record.phase == Phase.JOIN

    def test_a_block_starts_its_items_one_by_one(self, store: Store) -> None:
        """Each `Next` puts the template at the counter's next value, below the total, with an input of its own."""
        block = _record("0", status=Status.OPEN, left=3, total=3, width=2)
        run = _Begun(store, block)
        following = Next(
            "0", replace(_record("0.0", role=Role.ITEM.value, route='{"name":"each"}'), step="each"), "0@@0"
        )
        answer = run.caller(following, following)
        assert [d.path for d in answer.dispatches] == ["0.0", "0.1"]
        run.caller(following, following)
        items = store.load(run.id, [f"0.{n}" for n in range(5)])
        assert [(item.path, item.index, item.input) for item in items] == [
            (f"0.{n}", n, f"0@@0.{n}") for n in range(3)
        ]  # fmt: skip
        assert {(item.step, item.role, item.status) for item in items} == {("each", Role.ITEM.value, Status.QUEUED)}
        assert (run.record("0").next, run.header.live) == (3, 3)

    def test_a_shut_block_starts_no_further_items(self, store: Store) -> None:
        """Those never begun count as finished, so that the last of the others brings the join about."""
        run = _Begun(store, _record("0", status=Status.OPEN, left=5, total=5, next=2), _record("0.0"), _record("0.1"))
        join = Set("0", {"status": Status.QUEUED, "phase": Phase.JOIN})
        run.caller(Set("0.0", {"status": Status.FAILED}), Shut("0"), Down("0", join, {"type": "progress"}))
        block = run.record("0")
        assert (block.left, block.next, block.skipped, block.status) == (1, 5, 3, Status.OPEN)
        answer = run.caller(Next("0", _record("0.0"), "x"))
        assert answer.dispatches == ()
        run.caller(Set("0.1", {"status": Status.SUCCESS}), Shut("0"), Down("0", join, {"type": "progress"}))
        assert run.record("0").status == Status.QUEUED
        assert [(e["completed"], e["total"]) for e in run.told("progress")] == [(1, 5), (2, 5)]

    def test_the_header_is_patched_and_a_first_word_stands(self, store: Store) -> None:
        """Fields of the header are set; with `unless` only if that field is empty or 0 after the operations before."""
        run = _Begun(store, _record("0"))
        run.caller(Run({"failure": "first", "tripwire": True}, unless="failure"))
        run.caller(Run({"failure": "second", "tripwire": False}, unless="failure"))
        assert (run.header.failure, run.header.tripwire) == ("first", True)
        run.caller(Run({"failure": "third"}))
        assert run.header.failure == "third"
        run.caller(Run({"outcome": "early"}, unless="live"))
        assert run.header.outcome == ""
        run.caller(Set("0", {"status": Status.SUSPENDED}), Run({"outcome": "late"}, unless="live"))
        assert run.header.outcome == "late"

    def test_the_header_is_stamped_as_its_status_says(self, store: Store) -> None:
        """It begins once, and ends when it has ended for good."""
        run = _Begun(store, _record("0", status=Status.OPEN))
        begun = run.header.started_at
        assert run.header.created_at <= begun <= run.header.updated_at
        self.advance(store, 2)
        run.caller(Run({"status": RunState.SUSPENDED}))
        assert (run.header.started_at, run.header.ended_at) == (begun, 0)
        run.caller(Run({"status": RunState.RUNNING}))
        run.caller(Run({"status": RunState.FAILED}))
        assert run.header.started_at == begun
        assert run.header.ended_at == run.header.updated_at > begun

    def test_a_commit_that_claims_returns_what_a_claim_would(self, store: Store) -> None:
        """The successor's record, its values, and state and context as this very commit leaves them."""
        run = _Begun(store, _record("0"))
        run.caller(state={"a": "=1", "b": "=2"}, context={"c": "=3"}, values={"n": "=4"})
        token = run.claim("0").record.token
        change = Change(
            Holder("0", token),
            (Set("0", {"status": Status.SUCCESS}), Put(_record("1", input="o", needs="n absent"), claim="inline")),
            values={"o": "=5"},
            state={"b": None, "d": "=6"},
            lease=LONG,
        )
        answer = _committed(store.commit(run.id, change))
        assert answer.claimed is not None
        ask = Ask(run.id, "1", answer.claimed.record.seq, "inline", LONG)
        assert answer.claimed == store.claim(ask)
        assert answer.claimed.record.status == Status.RUNNING
        assert answer.claimed.values == {"o": "=5", "n": "=4"}
        assert answer.claimed.state == {"a": "=1", "d": "=6"}
        assert answer.claimed.header == answer.header == run.header
        assert run.refused_claim("1", answer.claimed.record.seq) == BUSY
        assert [event["path"] for event in run.told("workflow-step-start")] == ["0", "1"]
        assert _committed(store.commit(run.id, change)) == answer

    def test_a_repeated_commit_hands_out_no_claim_that_another_holds(self, store: Store) -> None:
        """Once the successor's lease was lost and taken over, the first answer comes without it."""
        run = _Begun(store, _record("0"))
        token = run.claim("0").record.token
        ops = (Set("0", {"status": Status.SUCCESS}), Put(_record("1"), claim="inline"))
        change = Change(Holder("0", token), ops, lease=LEASE)
        assert _committed(store.commit(run.id, change)).claimed is not None
        self.advance(store, LEASE)
        run.claim("1", token="another", lease=LONG)
        assert _committed(store.commit(run.id, change)).claimed is None
        run.commit("1", "another", Set("1", {"status": Status.SUCCESS}))
        assert _committed(store.commit(run.id, change)).claimed is None

    # --- rest and end ---------------------------------------------------------------------------------------------

    def test_whoever_ends_the_last_live_record_claims_the_rest(self, store: Store) -> None:
        """The commit that takes the live count to zero holds the run's own record, and only that commit."""
        run = _Begun(store, _record("0"), _record("1"), root=Status.OPEN)
        first, second = (run.claim(path).record.token for path in ("0", "1"))
        answer = run.commit("0", first, Set("0", {"status": Status.SUSPENDED}), rest="rest 0")
        assert answer.claimed is None
        answer = run.commit("1", second, Set("1", {"status": Status.SUCCESS}), rest="rest 1", lease=LONG)
        assert answer.claimed is not None
        root = answer.claimed.record
        assert (root.path, root.phase, root.status, root.token) == ("", Phase.REST, Status.RUNNING, "rest 1")
        assert root.due >= answer.header.updated_at + LONG
        assert answer.header.live == 0
        assert run.refused_claim("", root.seq) == BUSY
        over = (Set("", {"status": Status.OPEN}), Run({"status": RunState.SUSPENDED, "rests": 1}))
        done = run.commit("", "rest 1", *over)
        assert done.claimed is None
        assert (run.header.status, run.header.rests, run.record("").status) == (RunState.SUSPENDED, 1, Status.OPEN)

    def test_the_rest_is_queued_where_nobody_claims_it(self, store: Store) -> None:
        """Without a token it is dispatched, and has a due entry like any queued record."""
        run = _Begun(store, _record("0"), grace=LEASE, root=Status.OPEN)
        token = run.claim("0").record.token
        answer = run.commit("0", token, Set("0", {"status": Status.SUCCESS}), grace=LEASE)
        assert [(d.path, d.seq) for d in answer.dispatches] == [("", run.record("").seq)]
        self.advance(store, LEASE)
        assert run.due() == [""]
        assert run.claim("").record.status == Status.RUNNING

    def test_a_rest_that_is_lost_is_taken_over(self, store: Store) -> None:
        """The rest activation has a lease; the first worker's last word is refused then."""
        run = _Begun(store, _record("0"), root=Status.OPEN)
        token = run.claim("0").record.token
        run.commit("0", token, Set("0", {"status": Status.SUCCESS}), rest="first", lease=LEASE)
        self.advance(store, LEASE)
        assert run.due() == [""]
        assert run.claim("", token="second", lease=LONG).record.lost == 1
        assert run.refused_commit("", "first", Run({"status": RunState.SUCCESS})) == LOST
        run.commit("", "second", Set("", {"status": Status.OPEN}), Run({"status": RunState.SUCCESS}))
        assert run.header.status == RunState.SUCCESS

    def test_a_resume_takes_the_rest_away(self, store: Store) -> None:
        """Who was about to bring the run to rest is refused; the resumed record's end claims it anew."""
        run = _Begun(store, _record("0"), root=Status.OPEN)
        token = run.claim("0").record.token
        run.commit("0", token, Set("0", {"status": Status.SUSPENDED}), rest="rest 1", lease=LONG)
        expect = (Expect("0", Status.SUSPENDED, run.record("0").seq),)
        ops = (Set("", {"status": Status.OPEN}), Set("0", {"status": Status.QUEUED, "resume": "r", "resumed": True}))
        answer = _committed(store.commit(run.id, Change(Caller(new_token(), ACTIVE), ops, expect)))
        assert ([d.path for d in answer.dispatches], answer.claimed) == (["0"], None)
        assert run.refused_commit("", "rest 1", Run({"status": RunState.SUSPENDED})) == LOST
        assert run.record("0").resumed_at > 0
        token = run.claim("0").record.token
        again = run.commit("0", token, Set("0", {"status": Status.SUCCESS}), rest="rest 2")
        assert again.claimed is not None
        assert again.claimed.record.token == "rest 2"

    def test_one_of_two_resumes_wins(self, store: Store) -> None:
        """The other finds that the record has moved."""
        run = _Begun(store, _record("0", status=Status.SUSPENDED), _record("1"))
        expect = (Expect("0", Status.SUSPENDED, run.record("0").seq),)
        ops = (Set("0", {"status": Status.QUEUED}),)
        changes = [Change(Caller(new_token(), ACTIVE), ops, expect) for _ in range(4)]
        answers = _each(lambda c: store.commit(run.id, c), changes)
        assert sum(isinstance(answer, Committed) for answer in answers) == 1
        assert {answer.reason for answer in answers if isinstance(answer, Refused)} == {MOVED}

    def test_a_word_that_ends_the_run_closes_it_for_all_others(self, store: Store) -> None:
        """The rest is claimed although others are live, and nothing but the rest is accepted any more."""
        run = _Begun(
            store, _record("0"), _record("1"), _record("2"), _record("3", status=Status.SUSPENDED), root=Status.OPEN
        )
        tokens = [run.claim(path, lease=LONG).record.token for path in ("0", "1")]
        ops = (Set("0", {"status": Status.SUCCESS}), Run({"outcome": "success", "closed": True}))
        answer = run.commit("0", tokens[0], *ops, rest="rest", rest_now=True, lease=LONG)
        assert answer.claimed is not None
        assert (answer.claimed.record.path, answer.claimed.record.token) == ("", "rest")
        assert run.refused_commit("1", tokens[1], Set("1", {"status": Status.SUCCESS})) == ENDED_RUN
        assert run.refused_claim("2", run.record("2").seq) == ENDED_RUN
        held = Holding(run.id, "1", tokens[1])
        mine = Holding(run.id, "", "rest")
        assert store.renew([held, mine], LONG) == {held: ENDED_RUN}
        resume = (Set("", {"status": Status.OPEN}), Set("3", {"status": Status.QUEUED}))
        expect = (Expect("3", Status.SUSPENDED, run.record("3").seq),)
        assert run.refused(Change(Caller(new_token(), ACTIVE), resume, expect)) == ENDED_RUN
        run.commit("", "rest", Set("", {"status": Status.OPEN}), Run({"status": RunState.SUCCESS, "rests": 1}))
        assert run.header.status == RunState.SUCCESS
        assert run.refused_commit("1", tokens[1], Set("1", {"status": Status.SUCCESS})) == ENDED_RUN

    def test_upkeep_is_let_into_a_closed_run(self, store: Store) -> None:
        """The ticker may move entries on there: above all that of a rest whose worker is gone."""
        run = _Begun(store, _record("0"), _record("1"), root=Status.OPEN)
        token = run.claim("0").record.token
        closing = Run({"outcome": "canceled", "closed": True})
        run.commit("0", token, Set("0", {"status": Status.CANCELED}), closing, rest="r", rest_now=True, lease=LEASE)
        self.advance(store, LEASE)
        root = run.record("")
        look = (Expect("", Status.RUNNING, root.seq, root.due),)
        fields = {"status": Status.QUEUED, "lost": 1, "restarted": True, "token": ""}
        answer = _committed(store.commit(run.id, Change(Caller("", ACTIVE), (Set("", fields),), look)))
        assert [d.path for d in answer.dispatches] == [""]
        assert run.claim("").record.lost == 1

    def test_a_change_by_a_caller_may_end_the_run_at_once(self, store: Store) -> None:
        """A cancel takes the rest, also from one who holds it already."""
        run = _Begun(store, _record("0", status=Status.SUSPENDED), _record("1"), root=Status.OPEN)
        token = run.claim("1").record.token
        run.commit("1", token, Set("1", {"status": Status.SUCCESS}), rest="worker", lease=LONG)
        words = Run({"outcome": "canceled", "closed": True})
        answer = run.caller(words, rest="caller", rest_now=True)
        assert answer.claimed is not None
        assert answer.claimed.record.token == "caller"
        assert run.refused_commit("", "worker", Run({"status": RunState.SUSPENDED})) == LOST
        run.caller(Set("", {"status": Status.OPEN}), Run({"status": RunState.CANCELED}))  # once more, without ceremony
        assert run.refused_commit("", "caller", Run({"status": RunState.SUCCESS})) == ENDED_RUN

    def test_waiting_for_a_rest_ends_when_the_run_rests(self, store: Store) -> None:
        """Whoever waits is woken by the commit that counts the rest, in whatever thread it is made."""
        run = _Begun(store, _record("0"))

        def rest() -> None:
            threading.Event().wait(0.05)
            run.caller(Run({"status": RunState.SUSPENDED, "rests": 1}))

        header, _ = _together(lambda: store.wait(run.id, 0, 30.0), rest)
        assert header is not None
        assert (header.status, header.rests) == (RunState.SUSPENDED, 1)
        again = store.wait(run.id, 0, 30.0)
        assert again == header

    def test_waiting_for_a_rest_ends_with_its_time(self, store: Store) -> None:
        """The header comes back as it is."""
        run = _Begun(store, _record("0"))
        run.caller(Run({"rests": 1}))
        assert store.wait(run.id, 1, 0.05) == run.header
        assert store.wait(run.id, 1, 0.0) == run.header

    # --- due entries, leases ----------------------------------------------------------------------------------------

    def test_a_queued_record_is_due_after_its_grace(self, store: Store) -> None:
        """Not before, and with its header as it is."""
        run = _Begun(store, _record("0"), grace=LEASE)
        run.caller(Put(_record("1")), grace=LONG)
        assert run.due() == []
        self.advance(store, LEASE)
        found = store.due(run.namespace)
        assert [(due.header, due.record) for due in found] == [(run.header, run.record("0"))]

    def test_a_due_entry_moves_with_its_record(self, store: Store) -> None:
        """A claim, a renewal and upkeep push it on; the end of the record takes it away."""
        run = _Begun(store, _record("0"), grace=LEASE)
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
        run.commit("0", token, Set("0", {"status": Status.SUCCESS}), Put(_record("1", status=Status.OPEN)), lease=LONG)
        self.advance(store, LEASE)
        assert run.due() == []

    def test_sleeping_retrying_and_waiting_records_are_due_at_their_moment(self, store: Store) -> None:
        """Most overdue first; a wait without a moment has no entry, nor has anything suspended or open."""
        run = _Begun(store)
        run.caller(
            Put(_record("0", status=Status.SLEEPING), delay=LEASE),
            Put(_record("1", status=Status.RETRYING), delay=LEASE - 40),
            Put(_record("2", status=Status.WAITING), delay=LEASE - 20),
            Put(_record("3", status=Status.WAITING)),
            Put(_record("4", status=Status.SUSPENDED), delay=1),
            Put(_record("5", status=Status.OPEN), delay=1),
            Put(_record("6", status=Status.PAUSED), delay=1),
            Put(_record("7", status=Status.SLEEPING), delay=LONG),
        )
        self.advance(store, LEASE)
        assert run.due() == ["1", "2", "0"]
        assert [due.record.path for due in store.due(run.namespace, limit=2)] == ["1", "2"]

    def test_a_wait_is_due_in_a_run_at_rest(self, store: Store) -> None:
        """It is not live, but its moment comes all the same."""
        run = _Begun(store)
        run.caller(Put(_record("0", status=Status.WAITING), delay=LEASE))
        run.caller(Run({"status": RunState.SUSPENDED}))
        self.advance(store, LEASE)
        assert run.due() == ["0"]
        run.caller(Set("0", {"status": Status.SUCCESS}))
        assert run.due() == []

    def test_due_entries_of_ended_runs_are_dropped(self, store: Store) -> None:
        """They do not stand in the way of others, whatever their records are."""
        namespace = new_run_id()
        ended = _Begun(store, _record("0"), namespace=namespace, grace=LEASE)
        ended.caller(Put(_record("1", status=Status.WAITING), delay=LEASE))
        ended.caller(Run({"status": RunState.CANCELED}))
        self.advance(store, 2)
        active = _Begun(store, _record("0"), namespace=namespace, grace=LEASE)
        self.advance(store, LEASE)
        assert [due.header.run_id for due in store.due(namespace, limit=1)] == [active.id]
        assert [due.header.run_id for due in store.due(namespace)] == [active.id]

    def test_due_entries_are_of_one_namespace(self, store: Store) -> None:
        """A ticker sees its own runs only, also when others are more overdue than it asks for."""
        others = [_Begun(store, _record("0"), grace=LEASE) for _ in range(3)]
        self.advance(store, 2)
        mine = _Begun(store, _record("0"), grace=LEASE)
        self.advance(store, LEASE)
        assert [due.header.run_id for due in store.due(mine.namespace, limit=1)] == [mine.id]
        assert [due.header.run_id for due in store.due(others[0].namespace)] == [others[0].id]

    def test_local_runs_have_no_due_entries(self, store: Store) -> None:
        """Nobody else is to take over what the caller's own process runs; their leases hold all the same."""
        run = _Begun(store, _record("0"), _record("1"), runtime="local", grace=LEASE)
        token = run.claim("0", lease=LEASE).record.token
        self.advance(store, LEASE)
        assert run.due() == []
        assert store.renew([Holding(run.id, "0", token)], LEASE) == {}
        self.advance(store, LEASE)
        assert run.due() == []
        assert run.claim("0").record.lost == 1

    def test_a_lease_is_renewed_by_its_holder_alone(self, store: Store) -> None:
        """Everybody else hears why not, and no entry comes into being for it."""
        run = _Begun(store, _record("0"), _record("1"), _record("2", status=Status.SUSPENDED))
        ended = _Begun(store, _record("0"))
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
        run = _Begun(store, _record("0"))
        held = Holding(run.id, "0", run.claim("0", lease=LEASE).record.token)
        self.advance(store, LEASE)
        assert store.renew([held], LEASE) == {}
        assert run.refused_claim("0", run.record("0").seq) == BUSY
        self.advance(store, LEASE)
        run.claim("0", lease=LONG)
        assert store.renew([held], LEASE) == {held: LOST}

    def test_a_renewal_refuses_upkeep_that_read_before_it(self, store: Store) -> None:
        """The ticker's guard holds the moment as read: a heartbeat in between keeps the claim."""
        run = _Begun(store, _record("0"))
        claimed = run.claim("0", lease=LEASE).record
        self.advance(store, LEASE)
        (due,) = store.due(run.namespace)
        store.renew([Holding(run.id, "0", claimed.token)], LONG)
        look = (Expect("0", Status.RUNNING, due.record.seq, due.record.due),)
        taken = Change(Caller("", ACTIVE), (Set("0", {"status": Status.QUEUED, "token": ""}),), look)
        assert run.refused(taken) == MOVED
        assert run.record("0").token == claimed.token

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
        answers = _each(lambda n: store.tick(namespace, f"t{n}", LONG), range(6))
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

    # --- the index, deletion ------------------------------------------------------------------------------------------

    def test_runs_are_listed_newest_first_in_pages(self, store: Store) -> None:
        """A page holds headers as they are; the total counts all that match."""
        mine = new_run_id()
        ids: list[str] = []
        for _ in range(5):
            ids.insert(0, _Begun(store, _record("0"), workflow_id=mine).id)
            self.advance(store, 2)
        page = store.runs(RunQuery(workflow_id=mine, limit=2))
        assert ([header.run_id for header in page.headers], page.total) == (ids[:2], 5)
        assert list(page.headers) == [store.header(id_) for id_ in ids[:2]]
        page = store.runs(RunQuery(workflow_id=mine, limit=10, offset=3))
        assert ([header.run_id for header in page.headers], page.total) == (ids[3:], 5)
        page = store.runs(RunQuery(workflow_id=mine, limit=10, offset=9))
        assert ([*page.headers], page.total) == ([], 5)
        page = store.runs(RunQuery(workflow_id=mine, limit=0))
        assert ([*page.headers], page.total) == ([], 5)

    def test_runs_are_filtered(self, store: Store) -> None:
        """By workflow, status, resource and last write, and by all of them together; a status is that of the moment."""
        mine, resource = new_run_id(), new_run_id()
        first = _Begun(store, _record("0"), workflow_id=mine, resource_id=resource)
        self.advance(store, 4)
        second = _Begun(store, _record("0"), workflow_id=mine)
        third = _Begun(store, _record("0"), workflow_id=new_run_id(), resource_id=resource)
        second.caller(Run({"status": RunState.FAILED}))

        def found(**query: Any) -> set[str]:
            page = store.runs(RunQuery(**query))
            assert page.total == len(page.headers)
            return {header.run_id for header in page.headers}

        assert found(workflow_id=mine) == {first.id, second.id}
        assert found(resource_id=resource) == {first.id, third.id}
        assert found(workflow_id=mine, resource_id=resource) == {first.id}
        assert found(workflow_id=mine, status="failed") == {second.id}
        assert found(workflow_id=mine, status="running") == {first.id}
        assert found(workflow_id=mine, status="pending") == set()
        assert found(workflow_id=mine, before=second.header.created_at) == {first.id}
        assert found(workflow_id=mine, before=first.header.updated_at) == set()
        assert found(workflow_id=new_run_id()) == set()

    def test_a_deleted_run_leaves_nothing_behind(self, store: Store) -> None:
        """No header, record, value, key, event or due entry, not even for a new run under the same id."""
        run = _Begun(store, _record("0"), _record("1", status=Status.SUSPENDED), grace=LEASE)
        _committed(store.commit(run.id, Change(Caller(new_token(), ACTIVE), **_EXTRAS)))
        token = run.claim("0", lease=LEASE).record.token
        assert store.delete(run.id) is True
        assert store.delete(run.id) is False
        assert store.header(run.id) is None
        self.advance(store, LEASE)
        assert store.due(run.namespace) == []
        assert _refused(store.commit(run.id, Change(Holder("0", token), (Run({"outcome": "success"}),)))) == UNKNOWN
        assert store.renew([Holding(run.id, "0", token)], LEASE) == {Holding(run.id, "0", token): UNKNOWN}
        again = _Begun(store, _record("0"), run_id=run.id)
        assert [record.path for record in store.load(run.id)] == ["", "0"]
        assert store.values(run.id, _EXTRAS["values"]) == {}
        assert (store.state(run.id), store.context(run.id), store.events(run.id)) == ({}, {}, [])
        again.caller(mail=Mail("box", expect=""))
        assert again.counts() == (1, 0, 0, 0)

    def test_a_run_is_deleted_only_in_the_states_that_were_named(self, store: Store) -> None:
        """Status and removal are one step: nothing is removed from under a run that goes on."""
        run = _Begun(store, _record("0"), workflow_id=new_run_id())
        assert store.delete(run.id, frozenset({"success", "failed"})) is False
        assert run.header.status == RunState.RUNNING
        run.caller(Run({"status": RunState.FAILED}))
        assert store.delete(run.id, frozenset({"success", "failed"})) is True
        assert store.runs(RunQuery(workflow_id=run.workflow)).total == 0

    def test_closing_twice_is_harmless(self, store: Store) -> None:
        """Giving back what has been given back already is not an error."""
        store.close()
        store.close()

    # --- several at once ----------------------------------------------------------------------------------------------

    def test_two_commits_of_one_claim_are_applied_once(self, store: Store) -> None:
        """Whatever they say, one of them is written, and both hear its answer."""
        run = _Begun(store, _record("0"))
        token = run.claim("0").record.token
        before = run.header.commits

        def change(n: int) -> Change:
            ops = (Set("0", {"status": Status.SUCCESS, "output": f"o{n}"}), Put(_record(f"{n}")))
            return Change(Holder("0", token), ops, values={f"o{n}": f"={n}"}, events=({"type": "told", "n": n},))

        answers = _each(lambda n: _committed(store.commit(run.id, change(n))), range(1, 5))
        assert run.header.commits == before + 1
        (told,) = run.told("told")
        assert run.record("0").output == f"o{told['n']}"
        assert {d.path for answer in answers for d in answer.dispatches} == {str(told["n"])}
        assert [record.path for record in store.load(run.id)] == ["", "0", str(told["n"])]

    def test_children_that_end_together_are_all_counted(self, store: Store) -> None:
        """However they overlap, the counter reaches zero once, and the join is claimed once."""
        count = 8
        block = _record("0", status=Status.OPEN, left=count, total=count, next=count)
        run = _Begun(store, block, *(_record(f"0.{n}") for n in range(count)))
        tokens = [run.claim(f"0.{n}", lease=LONG).record.token for n in range(count)]

        def end(n: int) -> Committed:
            down = Down("0", Set("0", {"status": Status.QUEUED, "phase": Phase.JOIN}, claim=f"join {n}"))
            return run.commit(f"0.{n}", tokens[n], Set(f"0.{n}", {"status": Status.SUCCESS}), down, rest=f"rest {n}")

        answers = _each(end, range(count))
        claimed = [answer.claimed.record for answer in answers if answer.claimed is not None]
        assert [record.path for record in claimed] == ["0"]
        assert run.record("0") == claimed[0]
        assert (claimed[0].left, run.header.live) == (0, 1)

    def test_items_that_end_together_start_each_item_once(self, store: Store) -> None:
        """No place of the window is lost and none is given twice."""
        total = 12
        run = _Begun(store, _record("0", status=Status.OPEN, left=total, total=total, width=4))
        template = replace(_record("0.0", role=Role.ITEM.value), step="each")
        following = Next("0", template, "x")
        todo = [(d.path, d.seq) for d in run.caller(*[following] * 4).dispatches]
        ran: list[str] = []

        def work(path: str, seq: int) -> None:
            while True:
                token = new_token()
                _claimed(store.claim(Ask(run.id, path, seq, token, LONG)))
                ran.append(path)
                down = Down("0", Set("0", {"status": Status.QUEUED, "phase": Phase.JOIN}))
                answer = run.commit(path, token, Set(path, {"status": Status.SUCCESS}), following, down)
                if not answer.dispatches or answer.dispatches[0].path == "0":
                    return
                path, seq = answer.dispatches[0].path, answer.dispatches[0].seq

        _each(lambda pair: work(*pair), todo)
        assert sorted(ran) == sorted(f"0.{n}" for n in range(total))
        assert (run.record("0").left, run.record("0").status) == (0, Status.QUEUED)

    def test_a_read_sees_whole_commits(self, store: Store) -> None:
        """Records that are always written together are always read together."""
        run = _Begun(store, _record("0", status=Status.OPEN), _record("1", status=Status.OPEN))
        done = threading.Event()

        def write() -> None:
            try:
                for n in range(1, 30):
                    run.caller(Set("0", {"label": str(n)}), Set("1", {"label": str(n)}))
            finally:
                done.set()

        def read() -> list[tuple[str, str]]:
            seen = []
            while not done.is_set():
                zero, one = store.load(run.id, ["0", "1"])
                seen.append((zero.label, one.label))
            return seen

        pairs = _together(read, write)[0]
        assert all(zero == one for zero, one in pairs)


_EXTRAS: Mapping[str, Any] = {
    "values": {"extra": "=1"},
    "state": {"extra": "=2"},
    "context": {"extra": "=3"},
    "events": ({"type": "extra"},),
    "mail": Mail("box", push="extra"),
}


def _header(**fields: Any) -> Header:
    known = {"run_id": new_run_id(), "workflow_id": "contract", "fingerprint": "f", "namespace": new_run_id()}
    return Header(**{**known, "runtime": EVENTED, **fields})


def _record(path: str, **fields: Any) -> Record:
    status = str(fields.pop("status", Status.QUEUED))
    return Record(path=path, step="s" + path, component="STEP", status=status, **fields)


def _claimed(answer: Claimed | Refused) -> Claimed:
    assert isinstance(answer, Claimed), answer
    return answer


def _committed(answer: Committed | Refused) -> Committed:
    assert isinstance(answer, Committed), answer
    return answer


def _refused(answer: Claimed | Committed | Refused) -> str:
    assert isinstance(answer, Refused), answer
    return answer.reason


class _Begun:
    """A run that has begun with these records, seen through the port.

    Its own record is not open unless a test asks for it, so that the run does not rest whenever nothing is live.
    """

    def __init__(
        self, store: Store, *records: Record, root: Status = Status.SUCCESS, grace: int = LONG, **fields: Any
    ) -> None:
        header = _header(**fields)
        self.store, self.id, self.namespace, self.workflow = store, header.run_id, header.namespace, header.workflow_id
        store.create(header)
        own = Record(path="", step="contract", component="RUN", role=Role.BLOCK, phase=Phase.REST, status=root)
        ops: tuple[Op, ...] = (Put(own), Run({"status": RunState.RUNNING}), *map(Put, records))
        guard = Caller(new_token(), frozenset({RunState.PENDING}))
        _committed(store.commit(self.id, Change(guard, ops, grace=grace)))

    @property
    def header(self) -> Header:
        header = self.store.header(self.id)
        assert header is not None
        return header

    def record(self, path: str) -> Record:
        (record,) = self.store.load(self.id, [path])
        return record

    def counts(self) -> tuple[int, int, int, int]:
        header = self.header
        return header.live, header.suspended, header.waiting, header.paused

    def due(self) -> list[str]:
        return [due.record.path for due in self.store.due(self.namespace)]

    def told(self, kind: str = "") -> list[Mapping[str, Any]]:
        return [event.doc for event in self.store.events(self.id) if kind in ("", event.doc["type"])]

    def claim(self, path: str, token: str = "", lease: int = LONG) -> Claimed:
        seq = self.record(path).seq
        return _claimed(self.store.claim(Ask(self.id, path, seq, token or new_token(), lease)))

    def refused_claim(self, path: str, seq: int) -> str:
        return _refused(self.store.claim(Ask(self.id, path, seq, new_token())))

    def commit(self, path: str, token: str, *ops: Any, **fields: Any) -> Committed:
        return _committed(self.store.commit(self.id, Change(Holder(path, token), ops, **fields)))

    def refused_commit(self, path: str, token: str, *ops: Any) -> str:
        return self.refused(Change(Holder(path, token), ops))

    def caller(self, *ops: Any, **fields: Any) -> Committed:
        return _committed(self.store.commit(self.id, Change(Caller(new_token(), frozenset(RunState)), ops, **fields)))

    def refused(self, change: Change) -> str:
        return _refused(self.store.commit(self.id, change))

    def snapshot(self) -> tuple[Any, ...]:
        """All that a refused commit must not have touched."""
        events = [event.doc for event in self.store.events(self.id)]
        keys = self.store.state(self.id), self.store.context(self.id)
        return self.header, self.store.load(self.id), events, keys


def _together(*calls: Callable[[], Any]) -> list[Any]:
    """Make the calls in threads of their own, all at once, and return their answers; the first error is raised here."""
    answers: dict[int, Any] = {}
    errors: list[BaseException] = []
    gate = threading.Barrier(len(calls))

    def run(n: int) -> None:
        gate.wait()
        try:
            answers[n] = calls[n]()
        except BaseException as error:  # noqa: BLE001 - a thread's border: it is raised again below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [answers[n] for n in range(len(calls))]


def _each(call: Callable[[_K], _T], items: Iterable[_K]) -> list[_T]:
    """Make one call for each of the items, all at once."""
    return _together(*(partial(call, item) for item in items))
