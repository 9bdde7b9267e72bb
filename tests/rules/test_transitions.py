"""The table of statuses says what it should, cell by cell, and each broken cell is noticed.

The expectation is written here a second time, the other way round: by what an activation looks like after a change.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from enum import Enum
from typing import Any

import pytest

from orchestrator.rules.apply import BUSY, EARLY, STALE, Applied, apply, claim
from orchestrator.rules.change import (
    Change,
    ClaimRequest,
    CreateActivation,
    Refused,
    RequestGuard,
    UpdateActivation,
    UpdateRun,
)
from orchestrator.rules.model import Activation, ActivationStatus, Phase, RunHeader, StoredStatus
from orchestrator.rules.timers import LANE_OF
from orchestrator.rules.transitions import (
    ABSENT,
    AWAITING,
    ENDED,
    FINAL,
    LIVE,
    RUN_TABLE,
    TABLE,
    IllegalTransition,
    Kind,
    Number,
    Row,
    RunRow,
    check_run,
    row_of,
    tables,
)

NOW, LEASE, REDELIVERY, DELAY = 1_000_000, 100, 200, 50
ANY = frozenset(StoredStatus)

FOLLOWS = {
    ABSENT: "queued running retrying sleeping open paused success skipped",
    "queued": "queued running suspended paused",
    "running": "queued running sent retrying sleeping open suspended waiting success failed canceled",
    "sent": "queued running",
    "retrying": "queued running retrying",
    "sleeping": "queued running sleeping",
    "open": "queued running paused success failed",
    "suspended": "queued",
    "waiting": "queued",
    "paused": "queued",
    "success": "",
    "failed": "",
    "skipped": "",
    "canceled": "",
}
ROOT_REOPENS = {"queued", "running", "retrying", "open"}
RUN_FOLLOWS = {
    "pending": "running canceled",
    "running": "pending suspended paused success failed canceled tripwire",
    "suspended": "running canceled",
    "paused": "running canceled",
    "success": "running",
    "failed": "running",
    "canceled": "running",
    "tripwire": "running",
}
LIVE_ONES = {"queued", "running", "sent", "retrying", "sleeping"}
AWAITING_ONES = {"suspended", "waiting", "paused"}
ENDED_ONES = {"success", "failed", "skipped", "canceled"}

LANES = {"queued": "outbox", "sent": "outbox", "running": "leases", "retrying": "moments", "sleeping": "moments"}

STAMPED: dict[str, dict[str, Any]] = {
    "running": {"lease_token": "mine", "deadline": NOW + LEASE, "lease": LEASE, "flush_seq": 0, "parked": ""},
    "queued": {"seq": 11, "deadline": NOW + REDELIVERY, "queued_at": NOW, "sends": 1, "looks": 0},
    "sent": {"deadline": NOW + DELAY, "sent_at": NOW, "flush_seq": 0},
    "retrying": {"seq": 11, "deadline": NOW + DELAY, "abandoned_attempts": 0},
    "sleeping": {"seq": 11, "deadline": NOW + DELAY, "abandoned_attempts": 0},
    "open": {"deadline": 0, "abandoned_attempts": 0},
    "waiting": {"seq": 11, "deadline": NOW + DELAY, "abandoned_attempts": 0, "suspended_at": NOW},
    "suspended": {"seq": 11, "deadline": 0, "abandoned_attempts": 0, "suspended_at": NOW},
    "paused": {"seq": 11, "deadline": 0},
    **{status: {"deadline": 0, "abandoned_attempts": 0, "ended_at": NOW} for status in ENDED_ONES},
}
FIRST_RUN = {"running", "retrying", "sleeping", "open", "waiting"}
DISPATCHED = {"queued": 0, "retrying": DELAY, "sleeping": DELAY}
REFUSED = {  # a claim before the activation's moment, and one after it
    **dict.fromkeys(TABLE, (STALE, STALE)),
    "queued": ("", ""),
    "retrying": (EARLY, ""),
    "sleeping": (EARLY, ""),
    "running": (BUSY, BUSY),
}


def full(status: str, *, begun: bool, path: str = "0") -> Activation:
    """Make an activation in which no field has its default, except those of the first run if it has not begun."""
    at = {"started_at": 3, "first_seq": 2} if begun else {}
    more = {"queued_at": 1, "ended_at": 1, "suspended_at": 1, "resumed_at": 1, "deadline": 5, "seq": 5}
    return Activation(
        path=path,
        status=status,
        lease_token="old",
        lease=9,
        abandoned_attempts=2,
        flush_seq=4,
        sends=3,
        looks=2,
        parked="why",
        label="x",
        phase=Phase.JOIN,
        **more,
        **at,
    )


def move(before: str, after: str, *, begun: bool = True, path: str = "0", delay: int = DELAY) -> Applied:
    """Move an activation from one status to the other. From nothing, create it."""
    op: CreateActivation | UpdateActivation
    if before == ABSENT:
        op = CreateActivation(
            full("queued" if after == "running" else after, begun=begun, path=path), _token(after), delay
        )
    else:
        op = UpdateActivation(path, {} if after == "running" else {"status": after}, _token(after), delay)
    activations = {path: full(before, begun=begun, path=path)} if before else {}
    header = RunHeader(status="running", commits=10, live=5, suspended=5, waiting=5, paused=5)
    answer = apply(
        Change(RequestGuard("", ANY), (op,), lease=LEASE, redelivery_delay=REDELIVERY), header, activations, "", NOW
    )
    assert isinstance(answer, Applied)
    return answer


def _token(after: str) -> str:
    return "mine" if after == "running" else ""


def stamped(before: str, after: str, begun: bool) -> Activation:
    """Return the activation as it has to be after the move."""
    known: dict[str, Any] = {"lease_token": "", "lease": 0, **STAMPED[after]}
    if after == "running" and before not in ("queued", "retrying", "sleeping"):
        known["seq"] = 11  # else the number is the one that the message named
    if after == "queued" and before in AWAITING_ONES:
        known["resumed_at"] = NOW
    if not begun and after in FIRST_RUN | ENDED_ONES:
        known["started_at"] = NOW
    if not begun and after in FIRST_RUN:
        known["first_seq"] = 11
    return replace(full(after, begun=begun), **known)


def check_move(before: str, after: str, *, begun: bool) -> None:
    """Compare activation, counts, dispatches and what is claimed after a move that may be."""
    done = move(before, after, begun=begun)
    assert done.activations["0"] == stamped(before, after, begun)
    assert [d.delay for d in done.dispatches] == ([DISPATCHED[after]] if after in DISPATCHED else [])
    assert done.claimed == ("0" if after == "running" else None)
    counts = dict.fromkeys(("live", *AWAITING_ONES), 5)
    for status, by in ((before, -1), (after, 1)):
        name = "live" if status in LIVE_ONES else status
        counts |= {name: counts[name] + by} if name in counts else {}
    assert {name: getattr(done.header, name) for name in counts} == counts


def check_claims(status: str) -> None:
    """Compare the answers to a claim of this status before its deadline and after it."""
    for due, reason in zip((NOW + 1, NOW), REFUSED[status], strict=True):
        activation = replace(full(status, begun=True), deadline=due)
        answer = claim(ClaimRequest("run", "0", 5, "mine", LEASE), RunHeader(status="running"), activation, NOW)
        assert (answer.reason if isinstance(answer, Refused) else "") == reason


def check_table(about: str | None = None) -> None:
    """Compare everything that the table of activations says, or all that it says about one status."""
    for before, row in TABLE.items():
        for after in ActivationStatus if about in (None, before) else [ActivationStatus(str(about))] if about else []:
            if after in FOLLOWS[before].split():
                check_move(before, after, begun=True)
                check_move(before, after, begun=False)
            else:
                with pytest.raises(IllegalTransition):
                    move(before, after)
            reopens = after == "open" and before in ROOT_REOPENS
            if reopens or after in FOLLOWS[before].split():
                move(before, after, path="")
            else:
                with pytest.raises(IllegalTransition):
                    move(before, after, path="")
        if before != ABSENT and about in (None, before):
            check_claims(before)
        assert row.kind is not Kind.ABSENT or before == ABSENT
    assert move("running", "waiting", delay=0).activations["0"].deadline == 0
    for status in ("retrying", "sleeping"):
        assert move("running", status, delay=0).activations["0"].deadline == NOW
    assert {status: str(LANE_OF[TABLE[status].deadline]) for status in LANES} == LANES
    assert {status for status, row in TABLE.items() if row.kind is Kind.OPEN} == {"open"}
    assert {status for status, row in TABLE.items() if row.kind is Kind.ENDED} == ENDED_ONES


def check_runs() -> None:
    """Compare everything that the table of runs says."""
    for before in StoredStatus:
        for after in StoredStatus:
            header = RunHeader(status=before, started_at=3, ended_at=4)
            change = Change(RequestGuard("", ANY), (UpdateRun({"status": after}),))
            if after != before and after not in RUN_FOLLOWS[before].split():
                with pytest.raises(IllegalTransition):
                    apply(change, header, {}, "", NOW)
                continue
            answer = apply(change, header, {}, "", NOW)
            assert isinstance(answer, Applied)
            ends = after in ("success", "failed", "canceled", "tripwire")
            assert (answer.header.status, answer.header.ended_at) == (after, NOW if ends else 0)


def test_the_table_says_what_it_should() -> None:
    """Next statuses, stamps, counts, dispatches and claims are as expected above."""
    assert set(TABLE) == {ABSENT, *ActivationStatus}
    check_table()


def test_the_table_of_runs_says_what_it_should() -> None:
    """Only a time travel lets an ended run go on."""
    assert set(RUN_TABLE) == set(StoredStatus)
    check_runs()


def test_the_sets_of_statuses_derive_from_the_table() -> None:
    """They are listed nowhere else."""
    assert (LIVE, AWAITING, ENDED) == (LIVE_ONES, AWAITING_ONES, ENDED_ONES)
    assert frozenset({"success", "failed", "canceled", "tripwire"}) == FINAL


def test_the_table_names_existing_fields() -> None:
    known = {field.name for field in fields(Activation)}
    for row in TABLE.values():
        assert {*row.stamps, *row.first_stamps, *row.answer_stamps, *row.resets} <= known


def test_an_illegal_move_names_the_activation_and_both_statuses() -> None:
    with pytest.raises(IllegalTransition, match=r"the activation at '0\.1' cannot be 'queued' after 'success'"):
        row_of("success", "queued", "0.1")
    with pytest.raises(IllegalTransition, match="cannot be 'lost in thought'"):
        row_of("queued", "lost in thought", "0")
    with pytest.raises(IllegalTransition, match="a run cannot be 'paused' after 'success'"):
        check_run("success", "paused")


def _broken(row: Any) -> Iterator[Any]:
    """Give the row with one cell broken, in every possible way."""
    for about in fields(row):
        cell = getattr(row, about.name)
        if isinstance(cell, bool):
            others: list[Any] = [not cell]
        elif isinstance(cell, Enum):
            others = [other for other in type(cell) if other is not cell]
        else:
            members: list[Any] = (
                list(ActivationStatus) if about.name.endswith("may_follow") else [OTHER_FIELDS[about.name]]
            )
            members = list(StoredStatus) if isinstance(row, RunRow) else members
            others = [tuple(one for one in cell if one != other) for other in cell]
            others += [(*cell, other) for other in members if other not in cell]
        yield from (replace(row, **{about.name: other}) for other in others)


OTHER_FIELDS = {"stamps": "label", "first_stamps": "trace", "answer_stamps": "label", "resets": "label"}


def _cells(row: Row) -> set[tuple[str, Any]]:
    return {(about.name, getattr(row, about.name)) for about in fields(row)}


def _is_looked_at(status: str, row: Row, mutant: Row) -> bool:
    """Tell whether the broken cell means anything.

    No activation becomes absent by the table, so nothing is stamped there. A status that follows no awaiting one needs
    no stamp for the answer.
    """
    broken = {name for name, _ in _cells(mutant) - _cells(row)}
    if status == ABSENT and not broken <= {"kind", "may_follow", "root_may_follow"}:
        return mutant.is_asked_for
    if broken == {"answer_stamps"} and not any(status in FOLLOWS[held].split() for held in AWAITING_ONES):
        return False
    if broken == {"seq"} and Number.KEPT not in (row.seq, mutant.seq):  # the same, where no message has spoken before
        return any(status in FOLLOWS[before].split() for before, known in TABLE.items() if known.is_asked_for)
    return not (
        broken == {"root_may_follow"} and set(mutant.root_may_follow) - set(row.root_may_follow) <= set(row.may_follow)
    )


@pytest.mark.parametrize("status", [status or "absent" for status in TABLE])
def test_a_broken_cell_is_noticed(status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = ABSENT if status == "absent" else status
    row, unseen = TABLE[name], []
    mutants = [mutant for mutant in _broken(row) if _is_looked_at(name, row, mutant)]
    for mutant in mutants:
        monkeypatch.setitem(TABLE, name, mutant)  # type: ignore[call-overload]
        try:
            check_table(name)
        except (AssertionError, AttributeError, IllegalTransition, pytest.fail.Exception):
            continue
        unseen.append(_cells(mutant) - _cells(row))
    assert mutants
    assert not unseen


@pytest.mark.parametrize("status", StoredStatus)
def test_a_broken_cell_of_runs_is_noticed(status: StoredStatus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that keeps its status makes no move, so that cell is left out."""
    row, unseen = RUN_TABLE[status], []
    for mutant in _broken(row):
        if set(mutant.may_follow) ^ set(row.may_follow) == {status}:
            continue
        monkeypatch.setitem(RUN_TABLE, status, mutant)  # type: ignore[call-overload]
        try:
            check_runs()
            assert frozenset(state for state in StoredStatus if RUN_TABLE[state].final) == FINAL
        except (AssertionError, IllegalTransition, pytest.fail.Exception):
            continue
        unseen.append(mutant)
    assert not unseen


def test_both_tables_are_plain_data_for_a_script() -> None:
    """Several statuses are one text between blanks, and cells with their default are left out."""
    plain = tables()
    assert plain["status"].keys() == TABLE.keys()
    assert plain["run"].keys() == set(StoredStatus)
    for status, row in TABLE.items():
        cells = dict(plain["status"][status])
        assert cells.pop("is_asked_for", False) is row.is_asked_for
        for name in ("may_follow", "root_may_follow"):
            assert tuple(cells.pop(name, "").split()) == getattr(row, name)
        assert Row(**cells) == replace(row, may_follow=(), root_may_follow=())
    assert plain["status"]["queued"] == {
        "kind": "live",
        "may_follow": " running queued suspended paused ",
        "root_may_follow": " open ",
        "claim": "at_once",
        "seq": "new",
        "deadline": "redelivery",
        "stamps": ("queued_at",),
        "answer_stamps": ("resumed_at",),
        "resets": ("sends", "looks"),
        "dispatch": "at_once",
        "is_asked_for": True,
    }
    assert plain["run"]["pending"] == {"may_follow": " running canceled "}
    assert plain["run"]["failed"] == {"may_follow": " running ", "final": True}
