"""Claims and commits: the guards, and what a status brings with it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.rules.apply import (
    BUSY,
    EARLY,
    ENDED_RUN,
    LOST,
    MOVED,
    STALE,
    STATE,
    TAKEN,
    UNKNOWN,
    Applied,
    apply,
    claim,
    renew,
)
from orchestrator.rules.change import (
    CancelPendingItems,
    Change,
    ClaimRequest,
    CountDown,
    CreateActivation,
    LeaseGuard,
    Precondition,
    Refused,
    RequestGuard,
    StartNextItem,
    UpdateActivation,
    UpdateRun,
)
from orchestrator.rules.mailbox import MAILBOX_CHANGED, Mailbox, MailboxUpdate
from orchestrator.rules.model import Activation, ActivationStatus, Phase, RunHeader, StoredStatus
from orchestrator.rules.replies import UNDONE, parse_reply

NOW = 1_000_000
HEADER = RunHeader(run_id="run", status=StoredStatus.RUNNING, commits=10)
CLOSED = replace(HEADER, closed=True)
ROOT = Activation(path="", status=ActivationStatus.SUCCESS, phase=Phase.SETTLE)
ACTIVE = frozenset({StoredStatus.RUNNING})


def activation(status: ActivationStatus = ActivationStatus.QUEUED, **fields: Any) -> Activation:
    """Make an activation at `0` with seq 5, whose deadline is still to come."""
    return Activation(**{"path": "0", "step": "a", "status": status, "seq": 5, "deadline": NOW + 1, **fields})


NO_MAIL = Mailbox()


def claimed(
    of: Activation | None, header: RunHeader | None = HEADER, seq: int = 5, token: str = "new"
) -> Applied | Refused:
    """Return the answer to a claim of `0`."""
    return claim(ClaimRequest("run", "0", seq, token, 100), header, of, NOW)


def applied(
    change: Change,
    *activations: Activation,
    header: RunHeader = HEADER,
    mail: Mailbox = NO_MAIL,
    remembered: str | None = None,
) -> Applied:
    """Apply a change that must be taken."""
    answer = apply(change, header, {r.path: r for r in (ROOT, *activations)}, mail, NOW, remembered)
    assert isinstance(answer, Applied), answer
    return answer


def refused(change: Change, *activations: Activation, header: RunHeader | None = HEADER) -> str:
    """Return the reason why a change is not taken. The caller gets the header to look at."""
    answer = apply(change, header, {r.path: r for r in (ROOT, *activations)}, NO_MAIL, NOW)
    assert isinstance(answer, Refused), answer
    assert answer.header == header
    return answer.reason


def by_request(*ops: Any, **fields: Any) -> Change:
    """Make a change of a caller."""
    return Change(RequestGuard("caller", ACTIVE), ops, **fields)


# --- claims ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "of, header, seq, reason",
    [
        (None, HEADER, 5, UNKNOWN),
        (activation(), None, 5, UNKNOWN),
        (activation(), replace(HEADER, status=StoredStatus.CANCELED), 5, ENDED_RUN),
        (activation(), replace(HEADER, status=StoredStatus.SUSPENDED), 5, ENDED_RUN),
        (activation(), replace(HEADER, closed=True), 5, ENDED_RUN),
        (activation(), HEADER, 4, STALE),
        (activation(ActivationStatus.RETRYING), HEADER, 5, EARLY),
        (activation(ActivationStatus.SLEEPING), HEADER, 5, EARLY),
        (activation(ActivationStatus.RUNNING, lease_token="other"), HEADER, 5, BUSY),
        *(
            (activation(status), HEADER, 5, STALE)
            for status in (
                *(ActivationStatus.OPEN, ActivationStatus.SENT, ActivationStatus.SUSPENDED, ActivationStatus.SUCCESS),
            )
        ),
    ],
)
def test_a_claim_is_refused(of: Activation | None, header: RunHeader | None, seq: int, reason: str) -> None:
    """Each refusal has its reason, and brings the run header with it."""
    answer = claimed(of, header, seq)
    assert answer == Refused(reason, header if reason != UNKNOWN else answer.header)


@pytest.mark.parametrize("status", [ActivationStatus.QUEUED, ActivationStatus.RETRYING, ActivationStatus.SLEEPING])
def test_a_claim_makes_the_activation_running(status: ActivationStatus) -> None:
    """Its seq stays, its lease begins, and the commit is counted."""
    answer = claimed(
        activation(status, deadline=NOW, parked="x", started_at=7 if status != ActivationStatus.QUEUED else 0)
    )
    assert isinstance(answer, Applied)
    now = answer.activations["0"]
    assert (now.status, now.lease_token, now.seq, now.deadline) == (ActivationStatus.RUNNING, "new", 5, NOW + 100)
    assert (now.first_seq, now.started_at, now.parked) == (11, 7 if status != ActivationStatus.QUEUED else NOW, "")
    assert (answer.header.commits, answer.header.updated_at, answer.claimed) == (11, NOW, "0")


def test_no_message_takes_a_claim_away() -> None:
    """Also when its lease is over: it may be so because nobody could renew any, and the sweep alone knows of that."""
    answer = claimed(activation(ActivationStatus.RUNNING, lease_token="other", deadline=NOW - 1))
    assert answer == Refused(BUSY, HEADER)


def test_a_repeated_claim_writes_nothing() -> None:
    """The lease token is enough, even where the seq is another by now."""
    answer = claimed(activation(ActivationStatus.RUNNING, lease_token="new", seq=9))
    assert answer == Applied(HEADER, {}, claimed="0", repeated=True)


@pytest.mark.parametrize(
    "fields, kind",
    [
        ({}, True),
        ({"phase": Phase.VALIDATE_INPUT}, True),
        ({"phase": Phase.JOIN}, False),
        ({"quiet": True}, False),
        ({"attempt": 1}, False),
        ({"abandoned_attempts": 1}, False),
        ({"resumed": True, "resume": "r"}, True),
    ],
)
def test_the_first_claim_emits_the_start(fields: dict[str, Any], kind: bool) -> None:
    """The claim of a resumed step emits its resume data."""
    answer = claimed(activation(input="in", **fields))
    assert isinstance(answer, Applied)
    assert [event["type"] for event in answer.events] == ["workflow-step-start"] * kind
    assert [event.get("resume") for event in answer.events if "resume" in event] == ["r"] * bool(fields.get("resume"))


# --- renewals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "of, header, token, reason",
    [
        (activation(ActivationStatus.RUNNING, lease_token="mine"), None, "mine", UNKNOWN),
        (None, HEADER, "mine", LOST),
        (activation(ActivationStatus.RUNNING, lease_token="mine"), HEADER, "other", LOST),
        (activation(ActivationStatus.QUEUED, lease_token="mine"), HEADER, "mine", LOST),
        (
            activation(ActivationStatus.RUNNING, lease_token="mine"),
            replace(HEADER, status=StoredStatus.SUSPENDED),
            "mine",
            ENDED_RUN,
        ),
        (activation(ActivationStatus.RUNNING, lease_token="mine"), replace(HEADER, closed=True), "mine", ENDED_RUN),
    ],
)
def test_a_lease_is_not_renewed_without_its_token(
    of: Activation | None, header: RunHeader | None, token: str, reason: str
) -> None:
    """A renewal is refused for the reason for which a commit would be."""
    assert renew(header, of, "0", token, 100, NOW) == Refused(reason, header)


def test_a_lease_that_is_over_is_renewed_by_its_token() -> None:
    """Only the deadline changes, and how long it lasts. In a closed run, the settling is still renewed."""
    held = activation(ActivationStatus.RUNNING, lease_token="mine", deadline=NOW - 7)
    renewed = {"deadline": NOW + 100, "lease": 100}
    assert renew(HEADER, held, "0", "mine", 100, NOW) == replace(held, **renewed)
    settling = replace(held, path="")
    assert renew(replace(HEADER, closed=True), settling, "", "mine", 100, NOW) == replace(settling, **renewed)


# --- guards ------------------------------------------------------------------------------------------------

MINE = activation(ActivationStatus.RUNNING, lease_token="mine")
GUARD = LeaseGuard("0", "mine")
CLOSED = replace(HEADER, closed=True)


@pytest.mark.parametrize(
    "change, of, header, reason",
    [
        (Change(GUARD), MINE, None, UNKNOWN),
        (Change(GUARD), replace(MINE, lease_token="other"), HEADER, LOST),
        (Change(GUARD), replace(MINE, status=ActivationStatus.QUEUED), HEADER, LOST),
        (Change(LeaseGuard("7", "mine")), MINE, HEADER, LOST),
        (Change(GUARD), MINE, replace(HEADER, status=StoredStatus.CANCELED), ENDED_RUN),
        (Change(GUARD), MINE, CLOSED, ENDED_RUN),
        (Change(RequestGuard("c", frozenset({"pending"}))), MINE, HEADER, ENDED_RUN),
        (Change(RequestGuard("c", ACTIVE, generation=1)), MINE, HEADER, ENDED_RUN),
        (Change(RequestGuard("c", ACTIVE, settle_count=1)), MINE, HEADER, ENDED_RUN),
        (Change(RequestGuard("c", ACTIVE), expect=(Precondition("0", "running", 5),)), MINE, CLOSED, ENDED_RUN),
        (Change(RequestGuard("", ACTIVE), expect=(Precondition("0", "queued", 5),)), MINE, HEADER, MOVED),
        (Change(GUARD, expect=(Precondition("0", "running", 6),)), MINE, HEADER, MOVED),
        (Change(GUARD, expect=(Precondition("0", "running", 5, NOW),)), MINE, HEADER, MOVED),
        (Change(GUARD, expect=(Precondition("7", "running", 5),)), MINE, HEADER, MOVED),
        (Change(GUARD, mailbox=MailboxUpdate("m", pop="1:1:1:v")), MINE, HEADER, MAILBOX_CHANGED),
        (Change(GUARD, expect_state="1:t"), MINE, HEADER, STATE),
        (Change(GUARD, (CreateActivation(activation()),)), MINE, HEADER, TAKEN),
    ],
)  # fmt: skip
def test_a_change_is_refused(change: Change, of: Activation, header: RunHeader | None, reason: str) -> None:
    assert refused(change, of, header=header) == reason


@pytest.mark.parametrize(
    "change, header",
    [
        (Change(GUARD, expect=(Precondition("0", "running", 5, NOW + 1),)), HEADER),
        (Change(RequestGuard("c", ACTIVE, generation=0, settle_count=0)), HEADER),
        (Change(RequestGuard("c", ACTIVE)), CLOSED),
        (Change(RequestGuard("", ACTIVE), expect=(Precondition("0", "running", 5),)), CLOSED),
        (Change(RequestGuard("c", ACTIVE), expect=(Precondition("", "success", 0),)), CLOSED),
        (Change(GUARD, (CreateActivation(activation()),), drop=("0",)), HEADER),
        (Change(GUARD, mailbox=MailboxUpdate("m", push="v")), HEADER),
    ],
)
def test_a_change_whose_guards_hold_is_taken(change: Change, header: RunHeader) -> None:
    """A closed run takes upkeep, a cancel, and a request that expects only its own activation.

    An activation may be deleted and created afresh in one change.
    """
    assert applied(change, MINE, header=header).header.commits == 11


@pytest.mark.parametrize(
    "status",
    sorted(
        set(ActivationStatus)
        - {
            ActivationStatus.QUEUED,
            ActivationStatus.RUNNING,
            ActivationStatus.SENT,
            ActivationStatus.RETRYING,
            ActivationStatus.SLEEPING,
        }
    ),
)
def test_an_activation_that_is_not_live_may_be_replaced(status: ActivationStatus) -> None:
    """The one that was there is not counted any more."""
    counts = {str(status): 1} if status in ("suspended", "waiting", "paused") else {}
    now = applied(
        by_request(CreateActivation(activation())), activation(status), header=replace(HEADER, **counts)
    ).header
    assert (now.live, now.suspended, now.waiting, now.paused) == (1, 0, 0, 0)


# --- answers -----------------------------------------------------------------------------------------------


def test_a_repeated_commit_of_a_worker_gets_its_first_answer() -> None:
    """The activation remembers the lease token that ended last, and the answer to that commit."""
    change = Change(
        GUARD,
        (
            UpdateActivation("0", {"status": ActivationStatus.SUCCESS}),
            CreateActivation(activation(path="1"), claim="next"),
        ),
        lease=100,
    )
    first = applied(change, MINE)
    after = first.activations["0"]
    assert (after.last_lease_token, after.lease_token) == ("mine", "")
    assert parse_reply(after.last_reply).settle_count is None  # no worker waits for a settling
    again = applied(change, after, first.activations["1"], header=first.header)
    assert (again.repeated, again.dispatches, again.claimed) == (True, first.dispatches, "1")
    for other in (
        replace(first.activations["1"], lease_token="other"),
        replace(first.activations["1"], status=ActivationStatus.SUCCESS),
    ):
        assert applied(change, after, other, header=first.header).claimed is None


def test_a_repeated_request_gets_its_first_answer_until_another_request_comes() -> None:
    """Upkeep has no id. It is not remembered, and never taken for a repeat."""
    put = by_request(CreateActivation(activation()))
    first = applied(put)
    assert (first.header.last_request_id, json.loads(first.header.last_reply)) == (
        "caller",
        [[["0", 11, "", 0]], None, "", 0, 0],
    )
    assert applied(put, first.activations["0"], header=first.header).repeated
    upkeep = applied(Change(RequestGuard("", ACTIVE)), header=first.header)
    assert (upkeep.repeated, upkeep.header.last_request_id, upkeep.header.last_reply) == (
        False,
        "caller",
        first.header.last_reply,
    )
    assert not applied(Change(RequestGuard("", ACTIVE)), header=HEADER).repeated
    other = applied(Change(RequestGuard("other", ACTIVE)), header=first.header)
    assert (other.header.last_request_id, other.header.last_reply) == ("other", '[[],null,"",0,0]')


def test_a_callers_repeat_gets_its_first_answer_whoever_comes_in_between() -> None:
    """What the header has no room for is given to the store, and comes back with the repeat.

    The header is the present one, but for the count of rests: the caller waits for the rest after its own change.
    """
    put = by_request(CreateActivation(activation()))
    first = applied(put)
    assert first.displaced == {}
    other = applied(Change(RequestGuard("other", ACTIVE)), first.activations["0"], header=first.header)
    assert other.displaced == {"caller": first.header.last_reply}
    now = replace(other.header, settle_count=3, status=StoredStatus.CANCELED)
    again = applied(put, header=now, remembered=first.header.last_reply)
    assert (again.repeated, again.dispatches, again.activations) == (True, first.dispatches, {})
    assert again.header == replace(now, settle_count=0)
    assert applied(Change(RequestGuard("", ACTIVE)), header=other.header).displaced == {}  # upkeep displaces nobody


def test_a_request_that_was_undone_is_refused_when_it_is_repeated() -> None:
    """Nothing is left of it. Its undo gets its first answer like any request."""
    change = Change(RequestGuard("start", ACTIVE), (UpdateRun({"quiet": True}),))
    started = applied(change)
    undo = Change(RequestGuard("undo", ACTIVE, undoes="start"), (UpdateRun({"quiet": False}),))
    undone = applied(undo, header=started.header)
    assert undone.displaced["start"] == UNDONE
    again = apply(change, undone.header, {}, NO_MAIL, NOW, undone.displaced["start"])
    assert again == Refused(ENDED_RUN, undone.header)
    assert applied(undo, header=undone.header).repeated


def test_a_memory_of_an_older_release_has_no_count_of_rests() -> None:
    """It is told as it was told then."""
    put = by_request(CreateActivation(activation()))
    again = applied(put, header=replace(HEADER, settle_count=3), remembered='[[["0",11,"",0]],null,""]')
    assert ([d.path for d in again.dispatches], again.header.settle_count, again.left_out) == (["0"], 3, 0)


def test_a_commit_after_which_the_claim_goes_on_is_not_remembered() -> None:
    """Pages of items and flushed chunks are such commits."""
    assert "0" not in applied(Change(GUARD, events=({"type": "chunk"},)), MINE).activations


def test_an_answer_remembers_a_bounded_number_of_dispatches() -> None:
    """The others are left to their timers."""
    change = by_request(*(CreateActivation(activation(path=f"{n}")) for n in range(1, 60)))
    first = applied(change)
    assert len(first.dispatches) == 59
    assert len(applied(change, header=first.header).dispatches) == 50


# --- stamps ------------------------------------------------------------------------------------------------

CAME_FROM: dict[ActivationStatus, dict[str, Any]] = {
    ActivationStatus.PAUSED: {"status": ActivationStatus.OPEN, "lease_token": ""}
}
BUSY_ACTIVATION = activation(
    ActivationStatus.RUNNING, lease_token="mine", abandoned_attempts=2, started_at=3, first_seq=2
)


@pytest.mark.parametrize(
    "status, fields",
    [
        (
            ActivationStatus.QUEUED,
            {"lease_token": "", "seq": 11, "queued_at": NOW, "deadline": NOW + 200, "abandoned_attempts": 2},
        ),
        (
            ActivationStatus.RETRYING,
            {
                "lease_token": "",
                "seq": 11,
                "deadline": NOW + 50,
                "abandoned_attempts": 0,
                "started_at": 3,
                "first_seq": 2,
            },
        ),
        (ActivationStatus.SLEEPING, {"lease_token": "", "seq": 11, "deadline": NOW + 50, "abandoned_attempts": 0}),
        (ActivationStatus.OPEN, {"lease_token": "", "deadline": 0, "abandoned_attempts": 0, "started_at": 3}),
        (
            ActivationStatus.SUSPENDED,
            {"lease_token": "", "seq": 11, "deadline": 0, "abandoned_attempts": 0, "suspended_at": NOW},
        ),
        (
            ActivationStatus.WAITING,
            {"lease_token": "", "seq": 11, "deadline": NOW + 50, "abandoned_attempts": 0, "suspended_at": NOW},
        ),
        (ActivationStatus.PAUSED, {"lease_token": "", "seq": 11, "deadline": 0}),
        (
            ActivationStatus.SUCCESS,
            {"lease_token": "", "deadline": 0, "abandoned_attempts": 0, "ended_at": NOW, "started_at": 3, "seq": 5},
        ),
        (ActivationStatus.FAILED, {"lease_token": "", "deadline": 0, "abandoned_attempts": 0, "ended_at": NOW}),
        (ActivationStatus.CANCELED, {"lease_token": "", "deadline": 0, "ended_at": NOW}),
    ],
)
def test_a_status_brings_its_times_and_numbers(status: ActivationStatus, fields: dict[str, Any]) -> None:
    """Times are of the clock of the store, and the seq is the number of the commit."""
    before = replace(BUSY_ACTIVATION, **CAME_FROM.get(status, {}))
    done = applied(by_request(UpdateActivation("0", {"status": status}, delay=50), redelivery_delay=200), before)
    now = done.activations["0"]
    assert {name: getattr(now, name) for name in fields} == fields
    told = [(d.path, d.seq, d.delay) for d in done.dispatches]
    later = {
        ActivationStatus.QUEUED: [("0", 11, 0)],
        ActivationStatus.RETRYING: [("0", 11, 50)],
        ActivationStatus.SLEEPING: [("0", 11, 50)],
    }
    assert told == later.get(status, [])


def test_a_wait_without_a_timeout_has_no_deadline() -> None:
    """A retry at once has one, because it is dispatched with a delay all the same."""
    wait = UpdateActivation("0", {"status": ActivationStatus.WAITING})
    assert applied(by_request(wait), BUSY_ACTIVATION).activations["0"].deadline == 0
    now = applied(by_request(CreateActivation(activation(ActivationStatus.RETRYING))))
    assert [d.delay for d in now.dispatches] == [1]


def test_a_resume_is_stamped() -> None:
    """An activation that is created has not been resumed."""
    now = applied(
        by_request(UpdateActivation("0", {"status": ActivationStatus.QUEUED})), activation(ActivationStatus.SUSPENDED)
    ).activations["0"]
    assert now.resumed_at == NOW
    assert applied(by_request(CreateActivation(activation()))).activations["0"].resumed_at == 0


def test_upkeep_moves_the_deadline_alone() -> None:
    """Seq and status stay, and nothing is dispatched."""
    done = applied(by_request(UpdateActivation("0", {}, delay=70)), activation())
    assert done.activations["0"] == activation(deadline=NOW + 70)
    assert done.dispatches == ()


def test_an_unknown_status_is_refused_as_a_bug() -> None:
    with pytest.raises(ValueError, match="cannot be"):
        applied(by_request(UpdateActivation("0", {"status": "lost in thought"})), activation())


# --- counters, settling ------------------------------------------------------------------------------------


@pytest.mark.parametrize("left, status", [(3, ActivationStatus.OPEN), (1, ActivationStatus.QUEUED)])
def test_a_counter_that_reaches_zero_brings_its_consequence(left: int, status: ActivationStatus) -> None:
    """The event gets the counts in either case."""
    block = Activation(path="1", status=ActivationStatus.OPEN, pending_children=left, total=4, never_started=1)
    down = CountDown("1", UpdateActivation("1", {"status": ActivationStatus.QUEUED}), {"type": "progress"})
    done = applied(by_request(down), block)
    assert (done.activations["1"].pending_children, done.activations["1"].status) == (left - 1, status)
    assert done.events == ({"type": "progress", "completed": 4 - left, "total": 4},)


def test_a_block_starts_its_next_item_until_none_is_left() -> None:
    """The index is the value of the counter, and the input is the value of that index."""
    block = Activation(path="1", status=ActivationStatus.OPEN, pending_children=2, total=2, next_item=1)
    following = StartNextItem("1", activation(path="1.0"), "items")
    done = applied(by_request(following, following), block)
    assert [(d.path, d.seq) for d in done.dispatches] == [("1.1", 11)]
    item = done.activations["1.1"]
    assert (item.index, item.input, item.status, done.activations["1"].next_item) == (
        1,
        "items.1",
        ActivationStatus.QUEUED,
        2,
    )
    assert (item.lease_token, item.lease, item.deadline, item.queued_at) == ("", 0, NOW + 30_000, NOW)
    assert done.header.live == 1


def test_canceled_items_count_as_finished() -> None:
    """Canceling them twice changes nothing."""
    block = Activation(path="1", status=ActivationStatus.OPEN, pending_children=5, total=6, next_item=3)
    now = applied(by_request(CancelPendingItems("1"), CancelPendingItems("1")), block).activations["1"]
    assert (now.pending_children, now.next_item, now.never_started) == (2, 6, 3)


@pytest.mark.parametrize(
    "root, header, settle_now, claimed",
    [
        (ActivationStatus.OPEN, {}, False, True),
        (ActivationStatus.OPEN, {"live": 1}, False, False),
        (ActivationStatus.OPEN, {"live": 1}, True, True),
        (ActivationStatus.RUNNING, {}, False, False),
        (ActivationStatus.RUNNING, {}, True, True),
        (ActivationStatus.OPEN, {"status": StoredStatus.SUSPENDED}, False, False),
        (ActivationStatus.OPEN, {"status": StoredStatus.CANCELED}, True, False),
    ],
)
def test_the_settling_is_claimed_when_nothing_is_live_or_at_once(
    root: ActivationStatus, header: dict[str, Any], settle_now: bool, claimed: bool
) -> None:
    """Only a running run settles, and a settling under way is taken away only by a step that ends the run."""
    states = frozenset(StoredStatus)
    change = Change(RequestGuard("c", states), settle_token="settler", settle_now=settle_now, lease=100)
    own = Activation(
        path="", status=root, lease_token="held" if root == ActivationStatus.RUNNING else "", abandoned_attempts=1
    )
    answer = apply(change, replace(HEADER, **header), {"": own}, "", NOW)
    assert isinstance(answer, Applied)
    assert (answer.claimed == "") is claimed
    if claimed:
        now = answer.activations[""]
        assert (now.lease_token, now.phase, now.abandoned_attempts, now.deadline) == (
            "settler",
            Phase.SETTLE,
            0,
            NOW + 100,
        )
        assert answer.header.live == header.get("live", 0)


def test_the_run_header_is_stamped_at_its_first_start_and_its_end() -> None:
    """A time travel takes the end away again."""
    states = frozenset(StoredStatus)
    begun = applied(
        Change(RequestGuard("a", states), (UpdateRun({"status": "running"}),)), header=replace(HEADER, status="pending")
    )
    assert (begun.header.started_at, begun.header.ended_at) == (NOW, 0)
    ended = applied(
        Change(RequestGuard("b", states), (UpdateRun({"status": "failed"}),)), header=replace(HEADER, started_at=3)
    )
    assert (ended.header.started_at, ended.header.ended_at) == (3, NOW)
    again = applied(Change(RequestGuard("d", states), (UpdateRun({"status": "running"}),)), header=ended.header)
    assert again.header.ended_at == 0


def test_a_change_names_the_activations_that_it_needs() -> None:
    """It needs all that it guards, moves or deletes, and the run's own activation."""
    then = UpdateActivation("2", {})
    change = Change(
        GUARD,
        (CreateActivation(activation(path="1")), CountDown("3", then), UpdateRun({})),
        (Precondition("4", "open", 1),),
        drop=("5",),
    )
    assert change.reads() == {"", "0", "1", "2", "3", "4", "5"}
