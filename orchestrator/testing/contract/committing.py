"""Commits: their writes, their refusals, and the answer to a repeat."""

from __future__ import annotations

from orchestrator.host import new_token
from orchestrator.ports import Store
from orchestrator.rules.apply import BUSY, ENDED_RUN, LOST, MOVED, STATE, TAKEN
from orchestrator.rules.change import (
    Change,
    Claimed,
    ClaimRequest,
    CreateActivation,
    LeaseGuard,
    Precondition,
    RequestGuard,
    UpdateActivation,
    UpdateRun,
)
from orchestrator.rules.mailbox import MailboxUpdate
from orchestrator.rules.model import ActivationStatus, StoredStatus
from orchestrator.testing.contract.kit import (
    ACTIVE,
    EXTRAS,
    LEASE,
    LONG,
    Conditions,
    StartedRun,
    an_activation,
    committed_of,
    ops_to_create,
)


class Committing(Conditions):
    """Commits: their writes, their refusals, and the answer to a repeat."""

    def test_everything_in_a_commit_becomes_visible(self, store: Store) -> None:
        """Activations, header, values, state, context, events and dispatches are written by one commit."""
        run = StartedRun(store, an_activation("0"))
        token = run.claim("0").activation.lease_token
        change = Change(
            LeaseGuard("0", token),
            (
                UpdateActivation("0", {"status": ActivationStatus.SUCCESS, "output": "o"}),
                CreateActivation(an_activation("1", route='{"name":"next"}')),
                UpdateRun({"outcome": "success", "output": "o"}),
            ),
            values={"o": "=1"},
            state={"s": "=2"},
            context={"c": "=3"},
            events=({"type": "told"},),
        )
        answer = committed_of(store.commit(run.id, change))
        first, second = run.activation("0"), run.activation("1")
        assert (first.status, first.output, first.lease_token, first.deadline) == (ActivationStatus.SUCCESS, "o", "", 0)
        assert first.ended_at >= first.started_at > 0
        assert (second.status, second.queued_at > 0, second.deadline > 0) == (ActivationStatus.QUEUED, True, True)
        assert [(d.path, d.seq, d.route, d.delay) for d in answer.dispatches] == [("1", second.seq, second.route, 0)]
        assert answer.claimed is None
        assert answer.header == run.header
        assert (run.header.outcome, run.header.output, run.header.live) == ("success", "o", 1)
        assert store.values(run.id, ["o"]) == {"o": "=1"}
        assert (store.state(run.id), store.context(run.id)) == ({"s": "=2"}, {"c": "=3"})
        assert run.event_docs("told") == [{"type": "told"}]

    def test_a_repeated_commit_gets_the_first_answer_and_changes_nothing(self, store: Store) -> None:
        """Also when the first answer was lost and time has passed: the same dispatches, no second write."""
        run = StartedRun(store, an_activation("0"))
        token = run.claim("0").activation.lease_token
        puts = (
            CreateActivation(an_activation("1", route='{"name":"a"}')),
            CreateActivation(an_activation("2", status=ActivationStatus.SLEEPING), delay=LONG),
        )
        ops = (UpdateActivation("0", {"status": ActivationStatus.SUCCESS}), *puts)
        change = Change(
            LeaseGuard("0", token),
            ops,
            state={"s": "=1"},
            events=({"type": "told"},),
            mailbox=MailboxUpdate("m", push="v"),
        )
        first = committed_of(store.commit(run.id, change))
        assert [d.path for d in first.dispatches] == ["1", "2"]
        activations, header = store.load(run.id), run.header
        self.advance(store, 2)
        again = committed_of(store.commit(run.id, change))
        assert again.dispatches == first.dispatches
        assert (store.load(run.id), run.header) == (activations, header)
        assert len(run.event_docs("told")) == 1
        assert run.mail("m") == ["v"]

    def test_a_state_that_was_written_since_it_was_read_refuses_the_change(self, store: Store) -> None:
        """Its version comes with a claim, and is another after each write, whoever has written whatever key."""
        run = StartedRun(store, an_activation("0"), an_activation("1"))
        claims = [run.claim(path) for path in ("0", "1")]
        versions = [claimed.header.state_version for claimed in claims]
        assert versions == [run.header.state_version] * 2

        def ends(claimed: Claimed, expect: str | None, text: str | None = "=1") -> Change:
            path = claimed.activation.path
            ops = (UpdateActivation(path, {"status": ActivationStatus.SUCCESS}),)
            return Change(
                LeaseGuard(path, claimed.activation.lease_token), ops, state={path: text}, expect_state=expect
            )

        first = ends(claims[0], versions[0])
        version = committed_of(store.commit(run.id, first)).header.state_version
        assert version != versions[0]
        assert committed_of(store.commit(run.id, first)).header.state_version == version
        before = run.snapshot(), store.state(run.id)
        assert run.refused(ends(claims[1], versions[1])) == STATE
        assert (run.snapshot(), store.state(run.id)) == before
        run.commit_request(expect_state=version)
        assert run.header.state_version == version
        committed_of(store.commit(run.id, ends(claims[1], version, None)))
        assert run.header.state_version not in (version, versions[0])
        run.commit_request(state={"1": "=2"})
        assert run.refused(Change(RequestGuard(new_token(), ACTIVE), expect_state=version)) == STATE

    def test_a_commit_is_repeated_even_after_its_successors_have_gone_on(self, store: Store) -> None:
        """The dispatches stay those of the first answer; a message for what has moved on is harmless."""
        run = StartedRun(store, an_activation("0"))
        token = run.claim("0").activation.lease_token
        change = Change(
            LeaseGuard("0", token),
            (UpdateActivation("0", {"status": ActivationStatus.SUCCESS}), CreateActivation(an_activation("1"))),
        )
        first = committed_of(store.commit(run.id, change))
        run.commit(
            "1",
            run.claim("1").activation.lease_token,
            UpdateActivation("1", {"status": ActivationStatus.SUCCESS}),
            UpdateRun({"status": "success"}),
        )
        again = committed_of(store.commit(run.id, change))
        assert again.dispatches == first.dispatches
        assert run.activation("1").status == ActivationStatus.SUCCESS

    def test_a_commit_by_a_lost_token_writes_nothing(self, store: Store) -> None:
        """A worker that wakes up after its lease leaves no trace: no value, no key, no event, no mailbox entry."""
        run = StartedRun(store, an_activation("0"))
        run.claim("0", token="zombie", lease=LEASE)
        self.advance(store, LEASE)
        run.take_over("0", token="owner")
        seen = run.snapshot()
        change = Change(
            LeaseGuard("0", "zombie"),
            (UpdateActivation("0", {"status": ActivationStatus.SUCCESS}), CreateActivation(an_activation("1"))),
            **EXTRAS,
        )
        assert run.refused(change) == LOST
        assert run.snapshot() == seen
        assert store.values(run.id, EXTRAS["values"]) == {}

    def test_the_end_of_a_claim_for_its_holder_is_remembered_and_the_holder_refused(self, store: Store) -> None:
        """It has a token of its own: its repeat gets the first answer, while the holder's outcome comes too late."""
        run = StartedRun(store, an_activation("0"))
        token = run.claim("0").activation.lease_token
        ops = (
            UpdateActivation("0", {"status": ActivationStatus.FAILED}),
            CreateActivation(an_activation("1", route='{"name":"a"}')),
        )
        ended = Change(LeaseGuard("0", token, ender=new_token()), ops)
        first = committed_of(store.commit(run.id, ended))
        seen = run.snapshot()
        assert committed_of(store.commit(run.id, ended)).dispatches == first.dispatches
        late = Change(LeaseGuard("0", token), (UpdateActivation("0", {"status": ActivationStatus.SUCCESS}),))
        assert run.refused(late) == LOST
        assert run.snapshot() == seen

    def test_a_token_that_holds_nothing_commits_nothing(self, store: Store) -> None:
        """Not before a claim, not on another activation, not where there is none."""
        run = StartedRun(store, an_activation("0"), an_activation("1"))
        token = run.claim("0").activation.lease_token
        for path, wrong in (("1", token), ("0", "other"), ("7", token)):
            assert run.refused_commit(path, wrong, UpdateRun({"outcome": "success"})) == LOST

    def test_a_caller_in_another_state_writes_nothing(self, store: Store) -> None:
        """Status, generation and settle count are compared."""
        run = StartedRun(store, an_activation("0", status=ActivationStatus.OPEN))
        seen = run.snapshot()
        wrong = [
            RequestGuard(new_token(), frozenset({StoredStatus.SUSPENDED})),
            RequestGuard(new_token(), ACTIVE, generation=1),
            RequestGuard(new_token(), ACTIVE, settle_count=1),
            RequestGuard("", frozenset({StoredStatus.PENDING})),
        ]
        for guard in wrong:
            assert run.refused(Change(guard, (CreateActivation(an_activation("1")),), **EXTRAS)) == ENDED_RUN
        assert run.snapshot() == seen
        committed_of(store.commit(run.id, Change(RequestGuard(new_token(), ACTIVE, generation=0, settle_count=0))))

    def test_an_activation_that_moved_refuses_the_whole_commit(self, store: Store) -> None:
        """Status, number and deadline of each expected activation are compared, and all of them must fit."""
        run = StartedRun(store, an_activation("0"), an_activation("1"))
        zero, one = run.activation("0"), run.activation("1")
        seen = run.snapshot()
        fits = Precondition("0", ActivationStatus.QUEUED, zero.seq, zero.deadline)
        wrong = [
            Precondition("1", ActivationStatus.RUNNING, one.seq),
            Precondition("1", ActivationStatus.QUEUED, one.seq + 1),
            Precondition("1", ActivationStatus.QUEUED, one.seq, one.deadline + 1),
            Precondition("7", ActivationStatus.QUEUED, one.seq),
        ]
        for expect in wrong:
            change = Change(
                RequestGuard(new_token(), ACTIVE), (CreateActivation(an_activation("2")),), (fits, expect), **EXTRAS
            )
            assert run.refused(change) == MOVED
        assert run.snapshot() == seen
        both = (fits, Precondition("1", ActivationStatus.QUEUED, one.seq))
        committed_of(
            store.commit(
                run.id, Change(RequestGuard(new_token(), ACTIVE), (CreateActivation(an_activation("2")),), both)
            )
        )

    def test_a_fresh_activation_is_not_created_over_a_live_one(self, store: Store) -> None:
        """The whole commit is refused; over one that has ended or waits it is allowed, and the counts follow."""
        states = [ActivationStatus.QUEUED, ActivationStatus.RETRYING, ActivationStatus.SLEEPING]
        run = StartedRun(store, *(an_activation(f"{n}", status=state) for n, state in enumerate(states)))
        run.claim("0", lease=LONG)
        run.commit_request(
            *ops_to_create(an_activation("3", status=ActivationStatus.SUSPENDED)),
            CreateActivation(an_activation("4", status=ActivationStatus.SUCCESS)),
        )
        seen = run.snapshot()
        for path in ("0", "1", "2"):
            change = Change(
                RequestGuard(new_token(), ACTIVE),
                (CreateActivation(an_activation("5")), CreateActivation(an_activation(path))),
                **EXTRAS,
            )
            assert run.refused(change) == TAKEN
        assert run.snapshot() == seen
        run.commit_request(CreateActivation(an_activation("3")), CreateActivation(an_activation("4")))
        assert (run.header.live, run.header.suspended) == (5, 0)

    def test_a_callers_repeated_change_gets_the_first_answer(self, store: Store) -> None:
        """Under the same id nothing is written twice, and upkeep in between does not push the answer out."""
        run = StartedRun(store, an_activation("0", status=ActivationStatus.SUSPENDED), an_activation("1"))
        ops = (UpdateActivation("0", {"status": ActivationStatus.QUEUED, "resume": "r"}),)
        expect = (Precondition("0", ActivationStatus.SUSPENDED, run.activation("0").seq),)
        change = Change(
            RequestGuard(new_token(), ACTIVE), ops, expect, {"r": "=1"}, mailbox=MailboxUpdate("m", push="v")
        )
        first = committed_of(store.commit(run.id, change))
        one = run.activation("1")
        look = (Precondition("1", one.status, one.seq, one.deadline),)
        upkeep = Change(RequestGuard("", ACTIVE), (UpdateActivation("1", {}, delay=2 * LONG),), look)
        committed_of(store.commit(run.id, upkeep))
        assert run.refused(upkeep) == MOVED
        activations, header = store.load(run.id), run.header
        assert committed_of(store.commit(run.id, change)).dispatches == first.dispatches
        assert (store.load(run.id), run.header) == (activations, header)
        assert run.mail("m") == ["v"]

    def test_a_callers_repeated_change_gets_the_first_answer_whoever_came_in_between(self, store: Store) -> None:
        """Their number does not matter. A change that was refused is no answer: it may be taken when it comes again."""
        run = StartedRun(store)
        changes = [
            Change(
                RequestGuard(new_token(), ACTIVE),
                (CreateActivation(an_activation(f"{number}")),),
                values={f"v{number}": "=1"},
                events=({"type": "note"},),
                mailbox=MailboxUpdate("m", push=f"v{number}"),
            )
            for number in range(20)
        ]
        first = [committed_of(store.commit(run.id, change)) for change in changes]
        seen = run.snapshot(), run.mail("m")
        for change, answer in zip(changes, first, strict=True):
            assert committed_of(store.commit(run.id, change)).dispatches == answer.dispatches
        assert (run.snapshot(), run.mail("m")) == seen
        assert run.mail("m") == [f"v{number}" for number in range(20)]

    def test_a_repeat_tells_the_count_of_rests_of_its_first_answer(self, store: Store) -> None:
        """Its caller waits for the next rest: one that came in between is the one."""
        run = StartedRun(store)
        change = Change(RequestGuard(new_token(), ACTIVE), (CreateActivation(an_activation("0")),))
        committed_of(store.commit(run.id, change))
        run.commit_request(UpdateRun({"settle_count": 1, "status": StoredStatus.CANCELED}))
        again = committed_of(store.commit(run.id, change))
        assert (again.header.settle_count, again.header.status) == (0, StoredStatus.CANCELED)

    def test_a_repeat_says_how_many_dispatches_it_leaves_out(self, store: Store) -> None:
        """A first answer has all of them."""
        run = StartedRun(store, an_activation("0"))
        creations = [CreateActivation(an_activation(f"1.{number}")) for number in range(60)]
        by_caller = Change(RequestGuard(new_token(), ACTIVE), tuple(creations))
        answer = committed_of(store.commit(run.id, by_caller))
        assert (len(answer.dispatches), answer.left_out) == (60, 0)
        again = committed_of(store.commit(run.id, by_caller))
        assert (again.dispatches, again.left_out) == (answer.dispatches[:50], 10)
        token = run.claim("0").activation.lease_token
        restart = [UpdateActivation(f"1.{number}", {"status": ActivationStatus.QUEUED}) for number in range(60)]
        done = UpdateActivation("0", {"status": ActivationStatus.SUCCESS})
        by_worker = Change(LeaseGuard("0", token), (done, *restart))
        committed_of(store.commit(run.id, by_worker))
        again = committed_of(store.commit(run.id, by_worker))
        assert (len(again.dispatches), again.left_out) == (50, 10)

    def test_values_are_written_once(self, store: Store) -> None:
        """A value that exists is left as it is; what a commit names twice is not an error."""
        run = StartedRun(store, an_activation("0"))
        run.commit_request(values={"a": "=1"})
        run.commit_request(values={"a": "=2", "b": "=3"})
        assert store.values(run.id, ["a", "b", "c", "a"]) == {"a": "=1", "b": "=3"}

    def test_state_and_context_are_patched_key_by_key(self, store: Store) -> None:
        """A key that the patch does not name stays, None deletes, and a key that never was may be deleted too."""
        run = StartedRun(store, an_activation("0"))
        run.commit_request(state={"a": "=1", "b": "=2"}, context={"a": "=3", "b": "=4"})
        run.commit_request(state={"b": None, "c": "=[]", "never": None}, context={"a": "={}", "b": None})
        assert store.state(run.id) == {"a": "=1", "c": "=[]"}
        assert store.context(run.id) == {"a": "={}"}

    def test_a_commit_that_claims_returns_what_a_claim_would(self, store: Store) -> None:
        """The successor's activation, its values, and state and context as this very commit leaves them."""
        run = StartedRun(store, an_activation("0"))
        run.commit_request(state={"a": "=1", "b": "=2"}, context={"c": "=3"}, values={"n": "=4"})
        token = run.claim("0").activation.lease_token
        change = Change(
            LeaseGuard("0", token),
            (
                UpdateActivation("0", {"status": ActivationStatus.SUCCESS}),
                CreateActivation(an_activation("1", input="o", needs="n absent"), claim="inline"),
            ),
            values={"o": "=5"},
            state={"b": None, "d": "=6"},
            lease=LONG,
        )
        answer = committed_of(store.commit(run.id, change))
        assert answer.claimed is not None
        ask = ClaimRequest(run.id, "1", answer.claimed.activation.seq, "inline", LONG)
        assert answer.claimed == store.claim(ask)
        assert answer.claimed.activation.status == ActivationStatus.RUNNING
        assert answer.claimed.values == {"o": "=5", "n": "=4"}
        assert answer.claimed.state == {"a": "=1", "d": "=6"}
        assert answer.claimed.header == answer.header == run.header
        assert run.refused_claim("1", answer.claimed.activation.seq) == BUSY
        assert [event["path"] for event in run.event_docs("workflow-step-start")] == ["0", "1"]
        assert committed_of(store.commit(run.id, change)) == answer

    def test_a_repeated_commit_hands_out_no_claim_that_another_holds(self, store: Store) -> None:
        """Once the successor's lease was lost and taken over, the first answer comes without it."""
        run = StartedRun(store, an_activation("0"))
        token = run.claim("0").activation.lease_token
        ops = (
            UpdateActivation("0", {"status": ActivationStatus.SUCCESS}),
            CreateActivation(an_activation("1"), claim="inline"),
        )
        change = Change(LeaseGuard("0", token), ops, lease=LEASE)
        assert committed_of(store.commit(run.id, change)).claimed is not None
        self.advance(store, LEASE)
        run.take_over("1", token="another")
        assert committed_of(store.commit(run.id, change)).claimed is None
        run.commit("1", "another", UpdateActivation("1", {"status": ActivationStatus.SUCCESS}))
        assert committed_of(store.commit(run.id, change)).claimed is None
