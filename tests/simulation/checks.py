"""What must hold: of a state, of two that follow each other, and of what a change has left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence

from orchestrator.core import flow
from orchestrator.core.changes import Change, Claimed, Doc
from orchestrator.core.graph import Graph, Nested, Path, Sleep, Step
from orchestrator.core.plan import items_prefix
from orchestrator.core.records import ENDED, HELD, LIVE, Header, Phase, Record, Role, RunState, Status
from tests.simulation import acts
from tests.simulation.state import RESTING, Sends, State, Violation

WAITS = HELD | {Status.OPEN}
FIRST = frozenset({Phase.CHOOSE, Phase.SPLIT, Phase.ENTER, Phase.CHECK})  # they begin a step and are none themselves


def in_order(state: State) -> None:
    """The state itself is in order."""
    header = state.header
    counts = _counters(state)
    if (header.live, header.suspended, header.waiting, header.paused) != counts:
        raise Violation(f"the header counts {header.live} live, {header.suspended} suspended; there are {counts}")
    _rests(state)
    heard = [record.output for record in state.records if record.output.startswith("v")]
    if len(heard) != len(set(heard)):
        raise Violation(f"two have heard the same event: {heard}")
    kept = [entry for entry in state.mail if not entry.startswith(flow.WAITER)]
    waiting = [record for record in state.records if record.status == Status.WAITING]
    if kept and waiting:
        raise Violation(f"{waiting[0].path} waits although {kept} has been sent")


def _counters(state: State) -> tuple[int, int, int, int]:
    found = Counter(record.status for record in state.records if record.path)
    live = sum(found[status] for status in LIVE)
    return live, found[Status.SUSPENDED], found[Status.WAITING], found[Status.PAUSED]


def _rests(state: State) -> None:
    """A run at rest is what its records say, and whoever waits for it hears of it."""
    header = state.header
    held = header.suspended or header.waiting
    if header.status == RunState.SUSPENDED and (header.live or not held):
        raise Violation("the run is suspended while something is live, or with nothing suspended")
    if header.status == RunState.PAUSED and (header.live or held or not header.paused):
        raise Violation("the run is paused while something is live or suspended, or with nothing paused")
    if header.status in (RunState.SUSPENDED, RunState.PAUSED) and (header.outcome or header.failure):
        raise Violation(f"the run is {header.status} although it has come to its end")
    ended = all(record.status in ENDED for record in state.records if record.path)
    if header.status == RunState.SUCCESS and not header.closed and not ended:
        raise Violation("the run is a success with something unfinished")
    if header.status == RunState.FAILED and header.live:
        raise Violation("the run has failed while something is live")
    if header.status == RunState.PENDING and state.records:
        raise Violation("the run has not been started, and has records")
    if header.status in RESTING and header.rests <= state.awaited:
        raise Violation("the run is at rest, and who waits for that hears nothing of it")


Moved = list[tuple[Record | None, Record]]


def moved(before: State, after: State) -> Moved:
    """The records that are others than before, each with what it was."""
    earlier = {record.path: record for record in before.records}
    found = ((earlier.get(record.path), record) for record in after.records)
    return [(was, record) for was, record in found if was is not record]


def follows(old: Header, new: Header, moved: Moved, now: int) -> None:
    """What has ended stays ended in this life, and no sleep is over before its moment."""
    if old.final and new.status != old.status and new.life == old.life:
        raise Violation(f"a run that is {old.status} becomes {new.status}")
    for was, record in moved:
        if record.phase == Phase.WAKE and not _may_wake(was, record, now):
            raise Violation(f"{record.path} is awake before its moment, it was {was and was.status}")


def _may_wake(was: Record | None, record: Record, now: int) -> bool:
    if record.status not in (Status.QUEUED, Status.RUNNING):
        return True
    if was is None or was.phase != Phase.WAKE:
        return False
    return was.status in (Status.QUEUED, Status.RUNNING) or (was.status == Status.SLEEPING and was.due <= now)


# --- what is told and written -------------------------------------------------------------------------------------


def has_told(old: Header, new: Header, moved: Moved, events: Iterable[Doc]) -> None:
    """Each step of a run is told of once, in the commit that takes it, and nothing else is."""
    found = sorted(_told(event) for event in events if event["type"] in _TELLS)
    wanted = sorted(_to_be_told(old, new, moved))
    if found != wanted:
        missing = sorted((Counter(wanted) - Counter(found)).elements())
        more = sorted((Counter(found) - Counter(wanted)).elements())
        raise Violation(f"it is not told that {missing}" if missing else f"it is told that {more}, which is not so")


_TELLS = {
    "workflow-start": ("input",),
    "workflow-finish": ("status", "rest"),
    "workflow-paused": (),
    "workflow-canceled": (),
    "workflow-step-result": ("path", "status"),
    "workflow-step-finish": ("path",),
    "workflow-step-suspended": ("path",),
    "workflow-step-waiting": ("path",),
    "workflow-step-progress": ("path", "index", "status"),
}


def _told(event: Doc) -> str:
    return " ".join(map(str, (event["type"], *(event[name] for name in _TELLS[event["type"]]))))


def _to_be_told(old: Header, new: Header, moved: Moved) -> Iterator[str]:
    begins = old.status == RunState.PENDING and new.status == RunState.RUNNING
    if begins or new.life != old.life:
        yield f"workflow-start {new.input}"
    if new.rests != old.rests:
        yield f"workflow-finish {new.status} {old.rests + 1}"
        if new.status in (RunState.PAUSED, RunState.CANCELED):
            yield f"workflow-{new.status}"
    if new.life == old.life:  # what a new life begins with is no news of its steps
        for was, record in moved:
            yield from _news_of(was, record)


def _news_of(was: Record | None, record: Record) -> Iterator[str]:
    status = was.status if was is not None and was.visit == record.visit else ""
    ends = record.status in (Status.SUCCESS, Status.FAILED) and status not in ENDED
    suspends = record.status == Status.SUSPENDED and status == Status.RUNNING
    if ends and not record.quiet:
        yield f"workflow-step-result {record.path} {record.status}"
        yield f"workflow-step-finish {record.path}"
    if suspends:
        yield f"workflow-step-suspended {record.path}"
    if record.status in (Status.SLEEPING, Status.WAITING) and status != record.status:
        yield f"workflow-step-waiting {record.path}"
    if (ends or suspends) and record.role == Role.ITEM:
        above, _, index = record.path.rpartition(".")
        yield f"workflow-step-progress {above} {index} {record.status}"


def has_values(before: State, header: Header, moved: Moved, written: Collection[str]) -> None:
    """Whatever is referred to anew is written in the same commit. Items are looked at elsewhere."""
    if header.life != before.header.life:
        return
    found = {id_ for each in (header, *(record for _, record in moved)) for id_ in _values_of(each)}
    fresh = {id_ for id_ in found.difference(written, before.mail) if id_ and "@" not in id_}
    if fresh:
        fresh -= {id_ for each in (before.header, *before.records) for id_ in _values_of(each)}
    if fresh:
        raise Violation(f"nobody has written {sorted(fresh)}")


def _values_of(found: Header | Record) -> tuple[str, ...]:
    if isinstance(found, Header):
        return found.input, found.output, found.error, found.failure
    return found.input, found.output, found.error, found.suspend, found.resume


def has_items(after: State, claimed: Claimed, commits: Sequence[Change]) -> None:
    """Before a foreach spreads its items, all of them are written."""
    record = after.at(claimed.record.path)
    if claimed.record.phase != Phase.SPLIT or record is None or record.status != Status.OPEN:
        return
    prefix = items_prefix(record.path, record.visit, claimed.header.life)
    written = {key for change in commits for key in change.values}
    missing = [index for index in range(record.total) if f"{prefix}.{index}" not in written]
    if missing:
        raise Violation(f"nobody has written the items {missing} of {record.path}")


# --- workers ------------------------------------------------------------------------------------------------------


def is_delayed(of: Graph, state: State, begins: int) -> None:
    """What a start puts in the queue for later waits for that moment, and a sleep begins at it."""
    for record in state.records:
        node = of.node(record.at) if record.path else None
        length = round(1000 * (node.seconds or 0)) if isinstance(node, Sleep) else 0
        if record.live and (record.status == Status.QUEUED or record.due < begins + length):
            raise Violation(f"{record.path} begins before its moment")


def counts_attempts(of: Graph, moved: Moved) -> None:
    """A step gets as many attempts as it has, and each counts."""
    for was, record in moved:
        if record.status != Status.RETRYING or record.parked or was is None or was.status != Status.RUNNING:
            continue
        node = of.node(record.at)
        if record.attempt != was.attempt + 1:
            raise Violation(f"an attempt of {record.path} is not counted")
        if not isinstance(node, Step) or record.attempt > node.retry.attempts:
            raise Violation(f"{record.path} gets more attempts than it has")


def gives_up(after: State, claimed: Claimed) -> None:
    """After three workers that were lost in a row with a step it has failed, and not before."""
    record, now = claimed.record, after.at(claimed.record.path)
    if now is None or record.phase == Phase.REST:
        return
    abandoned, has_failed = record.lost >= acts.MOST_LOST, now.error == "lost" and now.status == Status.FAILED
    if (abandoned and not has_failed) or (has_failed and not abandoned and record.phase == Phase.RUN):
        raise Violation(f"after {record.lost} workers that were lost {record.path} is {now.status}")


def has_left_the_mailbox(after: State, claimed: Claimed) -> None:
    """Who waits no more, because the time is over, does not stand in the mailbox."""
    if claimed.record.phase == Phase.EXPIRE and claimed.record.label in after.mail:
        raise Violation(f"{claimed.record.path} waits no more, and stands in the mailbox")


def is_deferred(after: State, claimed: Claimed, now: int) -> None:
    """What a worker could not run is tried again, later, as if nothing had been."""
    before, record = claimed.record, after.at(claimed.record.path)
    if record is None or record.status != Status.RETRYING or not record.parked or record.attempt != before.attempt:
        raise Violation(f"{before.path} is given back, and is not as it was")
    if record.due <= now:
        raise Violation(f"{before.path} is given back, and tried again at once")


def is_of_the_dead(before: State, record: Record) -> None:
    """A parent ends the claim of its child, and not the one of somebody who came after."""
    now = before.at(record.path)
    if now is None or now.token != record.token:
        raise Violation(f"{record.path} is taken from who is at work on it")


def has_released(after: State, record: Record) -> None:
    """The claim is back in the queue, and counts as abandoned."""
    now = after.at(record.path)
    if now is None or now.status != Status.QUEUED or now.lost != record.lost + 1 or not now.restarted:
        raise Violation(f"the loss of a worker with {record.path} is not counted")


# --- users --------------------------------------------------------------------------------------------------------


def has_resumed(after: State, records: Iterable[Record]) -> None:
    """Whoever was meant goes on."""
    for record in records:
        now = after.at(record.path)
        if now is None or now.status != Status.QUEUED or now.resumed != (record.status == Status.SUSPENDED):
            raise Violation(f"{record.path} is resumed, and is {now and now.status}")


def has_restarted(after: State, records: Iterable[Record]) -> None:
    """What was claimed begins again, and can know it."""
    for record in records:
        now = after.at(record.path)
        if record.status == Status.RUNNING and (now is None or not now.restarted):
            raise Violation(f"{record.path or 'the rest'} begins again, and cannot know it")


def is_as_before(after: State, records: Iterable[Record]) -> None:
    """A request that was taken back has left nothing behind."""
    for record in records:
        now = after.at(record.path)
        if now is None or _wish(now) != _wish(record):
            raise Violation(f"{record.path} is not as it was before it was resumed")


def _wish(record: Record) -> tuple[str, str, bool, int]:
    return record.status, record.resume, record.resumed, record.attempt


def has_sent(before: State, after: State, sends: Sends) -> None:
    """The event is with the first that waits, or in the mailbox."""
    if sends.value in after.mail:
        return
    heard = [record for record in after.records if record.resume == sends.value]
    if not heard:
        raise Violation(f"the event {sends.value} is lost")
    was = before.at(heard[0].path)
    if was is None or was.status != Status.WAITING or sends.waiting is None or was.seq != sends.waiting.seq:
        raise Violation(f"the event {sends.value} goes to who does not wait any more")
    first = min((r for r in before.records if r.status == Status.WAITING), key=lambda record: record.at)
    if first.path != heard[0].path:
        raise Violation(f"the event {sends.value} goes to {heard[0].path}, and {first.path} waits")
    if was.label in after.mail:
        raise Violation(f"{was.path} has its event, and stands in the mailbox")


def has_cleared(after: State, entries: Sequence[str]) -> None:
    """A waiter that had gone is out of the mailbox."""
    gone = min((entry for entry in entries if entry.startswith(flow.WAITER)), key=_number_of, default="")
    if not gone:
        raise Violation("nobody waits, and the event is lost")
    if gone in after.mail:
        raise Violation("a waiter that has gone stands in the mailbox for ever")


def _number_of(entry: str) -> tuple[int, ...]:
    return tuple(map(int, flow.waiter_path(entry).split(".")))


def holds_back(before: State, after: State, claimed: Claimed) -> None:
    """In a run step by step, what follows a step waits for a word. The items of a foreach are one step together."""
    if not claimed.header.per_step:
        return
    begun = [record.path for record in after.records if _begins(before, record) and record.path != claimed.record.path]
    if len(begun) > (claimed.record.phase in FIRST):
        raise Violation(f"{begun} begin after {claimed.record.path} in a run step by step")


def _begins(before: State, record: Record) -> bool:
    if not record.live or record.phase == Phase.JOIN or record.role == Role.ITEM:
        return False
    was = before.at(record.path)
    return was is None or not was.live or was.visit != record.visit


def claims_taken(after: State, records: Iterable[Record]) -> None:
    """After a restart, or in a new life, nobody holds any more what was claimed before."""
    for record in records:
        now = after.at(record.path)
        if now is not None and now.token:
            raise Violation(f"{record.path or 'the rest'} is still held by a claim from before")


def arrived(of: Graph, target: Path, before: State, after: State) -> None:
    """The new life has of the older one what had ended and stands before the target, and what waits beside it."""
    if after.header.life != before.header.life + 1 or after.header.status != RunState.RUNNING:
        raise Violation(f"life {before.header.life} is followed by {after.header.life}, {after.header.status}")
    claims_taken(after, after.records)
    for record in after.records:
        stays = record.status in ENDED or (record.status in WAITS and _is_beside(of, target, record.at))
        if record is before.at(record.path) and not stays:
            raise Violation(f"{record.path} of the older life is still {record.status}")
        if _order(of, target, record.at) > 0:
            raise Violation(f"{record.path} stands after the target, and is there")
    for record in before.records:
        ended = record.status == Status.SUCCESS and record.at[:-1] == target[: len(record.at) - 1]
        if ended and _order(of, target, record.at) < 0 and record is not after.at(record.path):
            raise Violation(f"{record.path} stands before the target, and has not been kept")


def _order(of: Graph, target: Path, path: Path) -> int:
    """Whether what is at `path` comes in the same flow before (negative) or after the target, or neither."""
    for cut, (mine, theirs) in enumerate(zip(path, target, strict=False)):
        if mine != theirs:
            return mine - theirs if _is_entry(of, path[: cut + 1]) else 0
    return 0


def _is_beside(of: Graph, target: Path, path: Path) -> bool:
    """Whether it is in another arm than the target, of a block around both."""
    differs = any(mine != theirs for mine, theirs in zip(path, target, strict=False))
    return differs and _order(of, target, path) == 0


def _is_entry(of: Graph, path: Path) -> bool:
    """Whether it is one of a flow, and no arm, item or body."""
    return len(path) == 1 or (bool(path) and isinstance(of.node(path[:-1]), Nested))
