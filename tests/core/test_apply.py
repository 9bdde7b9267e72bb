"""Claims and commits: each guard, and what each status is stamped with."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.apply import (
    BUSY,
    EARLY,
    ENDED_RUN,
    LOST,
    MAIL,
    MOVED,
    STALE,
    TAKEN,
    UNKNOWN,
    Applied,
    apply,
    claim,
    renew,
)
from orchestrator.core.changes import (
    Ask,
    Caller,
    Change,
    Down,
    Expect,
    Holder,
    Mail,
    Next,
    Put,
    Refused,
    Run,
    Set,
    Shut,
)
from orchestrator.core.records import Header, Phase, Record, RunState, Status

NOW = 1_000_000
HEADER = Header(run_id="run", status=RunState.RUNNING, commits=10)
CLOSED = replace(HEADER, closed=True)
ROOT = Record(path="", status=Status.SUCCESS, phase=Phase.REST)
ACTIVE = frozenset({RunState.RUNNING})


def record(status: Status = Status.QUEUED, **fields: Any) -> Record:
    """A record at `0`, with number 5 and a moment to come."""
    return Record(**{"path": "0", "step": "a", "status": status, "seq": 5, "due": NOW + 1, **fields})


def claimed(of: Record | None, header: Header | None = HEADER, seq: int = 5, token: str = "new") -> Applied | Refused:
    """The answer to a claim of `0`."""
    return claim(Ask("run", "0", seq, token, 100), header, of, NOW)


def applied(change: Change, *records: Record, header: Header = HEADER, mail: str = "") -> Applied:
    """Apply a change that is taken."""
    answer = apply(change, header, {r.path: r for r in (ROOT, *records)}, mail, NOW)
    assert isinstance(answer, Applied), answer
    return answer


def refused(change: Change, *records: Record, header: Header | None = HEADER, mail: str = "") -> str:
    """Why a change is not taken."""
    answer = apply(change, header, {r.path: r for r in (ROOT, *records)}, mail, NOW)
    assert isinstance(answer, Refused), answer
    return answer.reason


def by_caller(*ops: Any, **fields: Any) -> Change:
    """A change by a caller."""
    return Change(Caller("caller", ACTIVE), ops, **fields)


# --- claims ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "of, header, seq, reason",
    [
        (None, HEADER, 5, UNKNOWN),
        (record(), None, 5, UNKNOWN),
        (record(), replace(HEADER, status=RunState.CANCELED), 5, ENDED_RUN),
        (record(), replace(HEADER, status=RunState.SUSPENDED), 5, ENDED_RUN),
        (record(), replace(HEADER, closed=True), 5, ENDED_RUN),
        (record(), HEADER, 4, STALE),
        (record(Status.RETRYING), HEADER, 5, EARLY),
        (record(Status.SLEEPING), HEADER, 5, EARLY),
        (record(Status.RUNNING, token="other"), HEADER, 5, BUSY),
        *((record(status), HEADER, 5, STALE) for status in (Status.OPEN, Status.SUSPENDED, Status.SUCCESS)),
    ],
)
def test_a_claim_is_refused(of: Record | None, header: Header | None, seq: int, reason: str) -> None:
    """Each refusal has its reason, and the header comes with it."""
    answer = claimed(of, header, seq)
    assert answer == Refused(reason, header if reason != UNKNOWN else answer.header)


@pytest.mark.parametrize("status", [Status.QUEUED, Status.RETRYING, Status.SLEEPING])
def test_a_claim_marks_the_record_running(status: Status) -> None:
    """Its number stays, its lease begins, the commit is counted."""
    answer = claimed(record(status, due=NOW, parked="x", started_at=7 if status != Status.QUEUED else 0))
    assert isinstance(answer, Applied)
    now = answer.records["0"]
    assert (now.status, now.token, now.seq, now.due) == (Status.RUNNING, "new", 5, NOW + 100)
    assert (now.order, now.started_at, now.parked) == (11, 7 if status != Status.QUEUED else NOW, "")
    assert (answer.header.commits, answer.header.updated_at, answer.claimed) == (11, NOW, "0")


def test_a_takeover_has_a_new_number_and_counts_the_loss() -> None:
    """The moment itself is late enough."""
    answer = claimed(record(Status.RUNNING, token="other", due=NOW, lost=1))
    assert isinstance(answer, Applied)
    now = answer.records["0"]
    assert (now.token, now.seq, now.lost, now.restarted) == ("new", 11, 2, True)
    assert answer.events == ()


def test_a_repeated_claim_writes_nothing() -> None:
    """Not even when its number is another by now."""
    answer = claimed(record(Status.RUNNING, token="new", seq=9))
    assert answer == Applied(HEADER, {}, claimed="0", repeated=True)


@pytest.mark.parametrize(
    "fields, kind",
    [
        ({}, True),
        ({"phase": Phase.ENTER}, True),
        ({"phase": Phase.JOIN}, False),
        ({"quiet": True}, False),
        ({"attempt": 1}, False),
        ({"lost": 1}, False),
        ({"resumed": True, "resume": "r"}, True),
    ],
)
def test_the_first_claim_tells_of_the_start(fields: dict[str, Any], kind: bool) -> None:
    """And a resumption of its data."""
    answer = claimed(record(input="in", **fields))
    assert isinstance(answer, Applied)
    assert [event["type"] for event in answer.events] == ["workflow-step-start"] * kind
    assert [event.get("resume") for event in answer.events if "resume" in event] == ["r"] * bool(fields.get("resume"))


# --- renewals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "of, header, token, reason",
    [
        (record(Status.RUNNING, token="mine"), None, "mine", UNKNOWN),
        (None, HEADER, "mine", LOST),
        (record(Status.RUNNING, token="mine"), HEADER, "other", LOST),
        (record(Status.QUEUED, token="mine"), HEADER, "mine", LOST),
        (record(Status.RUNNING, token="mine"), replace(HEADER, status=RunState.SUSPENDED), "mine", ENDED_RUN),
        (record(Status.RUNNING, token="mine"), replace(HEADER, closed=True), "mine", ENDED_RUN),
    ],
)
def test_a_lease_that_is_not_held_is_not_renewed(
    of: Record | None, header: Header | None, token: str, reason: str
) -> None:
    """The reason is the one that a commit would hear."""
    assert renew(header, of, "0", token, 100, NOW) == Refused(reason, header)


def test_a_lease_is_renewed_by_its_token_also_when_it_is_over() -> None:
    """Nothing changes but the moment. In a closed run the settling goes on."""
    held = record(Status.RUNNING, token="mine", due=NOW - 7)
    assert renew(HEADER, held, "0", "mine", 100, NOW) == replace(held, due=NOW + 100)
    settling = replace(held, path="")
    assert renew(replace(HEADER, closed=True), settling, "", "mine", 100, NOW) == replace(settling, due=NOW + 100)


# --- guards ------------------------------------------------------------------------------------------------

MINE = record(Status.RUNNING, token="mine")
HOLDS = Holder("0", "mine")
CLOSED = replace(HEADER, closed=True)


@pytest.mark.parametrize(
    "change, of, header, reason",
    [
        (Change(HOLDS), MINE, None, UNKNOWN),
        (Change(HOLDS), replace(MINE, token="other"), HEADER, LOST),
        (Change(HOLDS), replace(MINE, status=Status.QUEUED), HEADER, LOST),
        (Change(Holder("7", "mine")), MINE, HEADER, LOST),
        (Change(HOLDS), MINE, replace(HEADER, status=RunState.CANCELED), ENDED_RUN),
        (Change(HOLDS), MINE, CLOSED, ENDED_RUN),
        (Change(Caller("c", frozenset({"pending"}))), MINE, HEADER, ENDED_RUN),
        (Change(Caller("c", ACTIVE, life=1)), MINE, HEADER, ENDED_RUN),
        (Change(Caller("c", ACTIVE, rests=1)), MINE, HEADER, ENDED_RUN),
        (Change(Caller("c", ACTIVE), expect=(Expect("0", "running", 5),)), MINE, CLOSED, ENDED_RUN),
        (Change(Caller("", ACTIVE), expect=(Expect("0", "queued", 5),)), MINE, HEADER, MOVED),
        (Change(HOLDS, expect=(Expect("0", "running", 6),)), MINE, HEADER, MOVED),
        (Change(HOLDS, expect=(Expect("0", "running", 5, NOW),)), MINE, HEADER, MOVED),
        (Change(HOLDS, expect=(Expect("7", "running", 5),)), MINE, HEADER, MOVED),
        (Change(HOLDS, mail=Mail("m", expect="1:v")), MINE, HEADER, MAIL),
        (Change(HOLDS, (Put(record()),)), MINE, HEADER, TAKEN),
    ],
)  # fmt: skip
def test_a_change_is_refused(change: Change, of: Record, header: Header | None, reason: str) -> None:
    """Each guard has its reason."""
    assert refused(change, of, header=header) == reason


@pytest.mark.parametrize(
    "change, header",
    [
        (Change(HOLDS, expect=(Expect("0", "running", 5, NOW + 1),)), HEADER),
        (Change(Caller("c", ACTIVE, life=0, rests=0)), HEADER),
        (Change(Caller("c", ACTIVE)), CLOSED),
        (Change(Caller("", ACTIVE), expect=(Expect("0", "running", 5),)), CLOSED),
        (Change(Caller("c", ACTIVE), expect=(Expect("", "success", 0),)), CLOSED),
        (Change(HOLDS, (Put(record()),), drop=("0",)), HEADER),
        (Change(HOLDS, mail=Mail("m", expect="")), HEADER),
    ],
)
def test_a_change_whose_guards_hold_is_taken(change: Change, header: Header) -> None:
    """Upkeep, a cancel and what looks at the rest alone are let into a closed run.

    What is dropped may be put afresh.
    """
    assert applied(change, MINE, header=header).header.commits == 11


@pytest.mark.parametrize(
    "status", sorted(set(Status) - {Status.QUEUED, Status.RUNNING, Status.RETRYING, Status.SLEEPING})
)
def test_a_record_that_is_not_live_may_be_put_over(status: Status) -> None:
    """Its count goes with it."""
    counts = {str(status): 1} if status in ("suspended", "waiting", "paused") else {}
    now = applied(by_caller(Put(record())), record(status), header=replace(HEADER, **counts)).header
    assert (now.live, now.suspended, now.waiting, now.paused) == (1, 0, 0, 0)


# --- answers -----------------------------------------------------------------------------------------------


def test_a_holders_repeat_gets_its_first_answer() -> None:
    """The record remembers the token that ended by a commit, and what that answered."""
    change = Change(HOLDS, (Set("0", {"status": Status.SUCCESS}), Put(record(path="1"), claim="next")), lease=100)
    first = applied(change, MINE)
    after = first.records["0"]
    assert (after.was, after.token) == ("mine", "")
    again = applied(change, after, first.records["1"], header=first.header)
    assert (again.repeated, again.dispatches, again.claimed) == (True, first.dispatches, "1")
    for other in (replace(first.records["1"], token="other"), replace(first.records["1"], status=Status.SUCCESS)):
        assert applied(change, after, other, header=first.header).claimed is None


def test_a_callers_repeat_gets_its_first_answer_until_another_caller_comes() -> None:
    """Upkeep has no id, and is neither remembered nor taken for a repeat."""
    put = by_caller(Put(record()))
    first = applied(put)
    assert (first.header.last, json.loads(first.header.answer)) == ("caller", [[["0", 11, "", 0]], None, ""])
    assert applied(put, first.records["0"], header=first.header).repeated
    upkeep = applied(Change(Caller("", ACTIVE)), header=first.header)
    assert (upkeep.repeated, upkeep.header.last, upkeep.header.answer) == (False, "caller", first.header.answer)
    assert not applied(Change(Caller("", ACTIVE)), header=HEADER).repeated
    other = applied(Change(Caller("other", ACTIVE)), header=first.header)
    assert (other.header.last, other.header.answer) == ("other", "")


def test_a_commit_that_keeps_its_claim_is_not_remembered() -> None:
    """Pages and chunks: the claim goes on."""
    assert "0" not in applied(Change(HOLDS, events=({"type": "chunk"},)), MINE).records


def test_an_answer_remembers_a_bounded_number_of_dispatches() -> None:
    """Beyond that the due entries publish."""
    change = by_caller(*(Put(record(path=f"{n}")) for n in range(1, 60)))
    first = applied(change)
    assert len(first.dispatches) == 59
    assert len(applied(change, header=first.header).dispatches) == 50


# --- stamps ------------------------------------------------------------------------------------------------

CAME_FROM: dict[Status, dict[str, Any]] = {Status.PAUSED: {"status": Status.OPEN, "token": ""}}
BUSY_RECORD = record(Status.RUNNING, token="mine", lost=2, started_at=3, order=2)


@pytest.mark.parametrize(
    "status, fields",
    [
        (Status.QUEUED, {"token": "", "seq": 11, "queued_at": NOW, "due": NOW + 200, "lost": 2}),
        (Status.RETRYING, {"token": "", "seq": 11, "due": NOW + 50, "lost": 0, "started_at": 3, "order": 2}),
        (Status.SLEEPING, {"token": "", "seq": 11, "due": NOW + 50, "lost": 0}),
        (Status.OPEN, {"token": "", "due": 0, "lost": 0, "started_at": 3}),
        (Status.SUSPENDED, {"token": "", "seq": 11, "due": 0, "lost": 0, "suspended_at": NOW}),
        (Status.WAITING, {"token": "", "seq": 11, "due": NOW + 50, "lost": 0, "suspended_at": NOW}),
        (Status.PAUSED, {"token": "", "seq": 11, "due": 0}),
        (Status.SUCCESS, {"token": "", "due": 0, "lost": 0, "ended_at": NOW, "started_at": 3, "seq": 5}),
        (Status.FAILED, {"token": "", "due": 0, "lost": 0, "ended_at": NOW}),
        (Status.CANCELED, {"token": "", "due": 0, "ended_at": NOW}),
    ],
)
def test_a_status_brings_its_times_and_numbers(status: Status, fields: dict[str, Any]) -> None:
    """As the store's clock and the commit's number say."""
    before = replace(BUSY_RECORD, **CAME_FROM.get(status, {}))
    done = applied(by_caller(Set("0", {"status": status}, delay=50), grace=200), before)
    now = done.records["0"]
    assert {name: getattr(now, name) for name in fields} == fields
    told = [(d.path, d.seq, d.delay) for d in done.dispatches]
    later = {Status.QUEUED: [("0", 11, 0)], Status.RETRYING: [("0", 11, 50)], Status.SLEEPING: [("0", 11, 50)]}
    assert told == later.get(status, [])


def test_a_wait_without_a_moment_is_never_due() -> None:
    """And a retry at once is still told of as a timer."""
    wait = Set("0", {"status": Status.WAITING})
    assert applied(by_caller(wait), BUSY_RECORD).records["0"].due == 0
    now = applied(by_caller(Put(record(Status.RETRYING))))
    assert [d.delay for d in now.dispatches] == [1]


def test_a_resumed_record_is_stamped_so() -> None:
    """Coming from a held status."""
    now = applied(by_caller(Set("0", {"status": Status.QUEUED})), record(Status.SUSPENDED)).records["0"]
    assert now.resumed_at == NOW
    assert applied(by_caller(Put(record()))).records["0"].resumed_at == 0


def test_upkeep_moves_the_moment_alone() -> None:
    """Neither number nor status, and nobody is told."""
    done = applied(by_caller(Set("0", {}, delay=70)), record())
    assert done.records["0"] == record(due=NOW + 70)
    assert done.dispatches == ()


def test_a_status_that_nothing_knows_is_a_mistake() -> None:
    """It is not written."""
    with pytest.raises(ValueError, match="cannot be"):
        applied(by_caller(Set("0", {"status": "lost in thought"})), record())


# --- counters, rest ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left, status", [(3, Status.OPEN), (1, Status.QUEUED)])
def test_a_counter_that_reaches_zero_brings_its_consequence(left: int, status: Status) -> None:
    """The event gets the counts either way."""
    block = Record(path="1", status=Status.OPEN, left=left, total=4, skipped=1)
    down = Down("1", Set("1", {"status": Status.QUEUED}), {"type": "progress"})
    done = applied(by_caller(down), block)
    assert (done.records["1"].left, done.records["1"].status) == (left - 1, status)
    assert done.events == ({"type": "progress", "completed": 4 - left, "total": 4},)


def test_a_block_puts_its_next_item_until_none_is_left() -> None:
    """At the counter's value, with the input of that number."""
    block = Record(path="1", status=Status.OPEN, left=2, total=2, next=1)
    following = Next("1", record(path="1.0"), "items")
    done = applied(by_caller(following, following), block)
    assert [(d.path, d.seq) for d in done.dispatches] == [("1.1", 11)]
    item = done.records["1.1"]
    assert (item.index, item.input, item.status, done.records["1"].next) == (1, "items.1", Status.QUEUED, 2)
    assert done.header.live == 1


def test_a_shut_block_counts_what_was_never_begun_as_finished() -> None:
    """Shutting it again changes nothing."""
    block = Record(path="1", status=Status.OPEN, left=5, total=6, next=3)
    now = applied(by_caller(Shut("1"), Shut("1")), block).records["1"]
    assert (now.left, now.next, now.skipped) == (2, 6, 3)


@pytest.mark.parametrize(
    "root, header, rest_now, claimed",
    [
        (Status.OPEN, {}, False, True),
        (Status.OPEN, {"live": 1}, False, False),
        (Status.OPEN, {"live": 1}, True, True),
        (Status.RUNNING, {}, False, False),
        (Status.RUNNING, {}, True, True),
        (Status.OPEN, {"status": RunState.SUSPENDED}, False, False),
        (Status.OPEN, {"status": RunState.CANCELED}, True, False),
    ],
)
def test_the_rest_is_claimed_when_nothing_is_live_or_at_once(
    root: Status, header: dict[str, Any], rest_now: bool, claimed: bool
) -> None:
    """Only in a running run, and not from who holds it already unless the run ends by a word."""
    states = frozenset(RunState)
    change = Change(Caller("c", states), rest="rest", rest_now=rest_now, lease=100)
    own = Record(path="", status=root, token="held" if root == Status.RUNNING else "", lost=1)
    answer = apply(change, replace(HEADER, **header), {"": own}, "", NOW)
    assert isinstance(answer, Applied)
    assert (answer.claimed == "") is claimed
    if claimed:
        now = answer.records[""]
        assert (now.token, now.phase, now.lost, now.due) == ("rest", Phase.REST, 0, NOW + 100)
        assert answer.header.live == header.get("live", 0)


def test_the_header_is_stamped_once_begun_and_when_ended() -> None:
    """A resumption takes the end away again."""
    states = frozenset(RunState)
    begun = applied(
        Change(Caller("a", states), (Run({"status": "running"}),)), header=replace(HEADER, status="pending")
    )
    assert (begun.header.started_at, begun.header.ended_at) == (NOW, 0)
    ended = applied(Change(Caller("b", states), (Run({"status": "failed"}),)), header=replace(HEADER, started_at=3))
    assert (ended.header.started_at, ended.header.ended_at) == (3, NOW)
    again = applied(Change(Caller("d", states), (Run({"status": "running"}),)), header=ended.header)
    assert again.header.ended_at == 0


def test_a_change_names_what_must_be_at_hand() -> None:
    """Everything it guards, moves or drops, and the run's own record."""
    then = Set("2", {})
    change = Change(HOLDS, (Put(record(path="1")), Down("3", then), Run({})), (Expect("4", "open", 1),), drop=("5",))
    assert change.reads() == {"", "0", "1", "2", "3", "4", "5"}
