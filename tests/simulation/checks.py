"""The rules that must hold of a state, of two that follow each other, and of what a change has left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from orchestrator.engine.read.value_reader import Values
from orchestrator.ports import Store
from orchestrator.rules import reports
from orchestrator.rules.change import Change, Claimed, Doc, RequestGuard
from orchestrator.rules.graph import Graph, Nested, Path, Sleep, Step
from orchestrator.rules.mailbox import event_of, is_waiter
from orchestrator.rules.model import (
    AWAITING,
    ENDED,
    LIVE,
    Activation,
    ActivationStatus,
    Phase,
    Report,
    Role,
    RunHeader,
    StoredStatus,
    belongs,
    is_report,
    report_counter,
    report_path,
)
from orchestrator.rules.timers import has_timer
from orchestrator.rules.value_ids import make_items_prefix
from tests.simulation import acts
from tests.simulation.state import SETTLED, Sends, State, Violation

WAITS = AWAITING | {ActivationStatus.OPEN}
FIRST = frozenset(
    {Phase.EVALUATE_BRANCH, Phase.FAN_OUT, Phase.VALIDATE_INPUT, Phase.EVALUATE_LOOP}
)  # they begin a step and are none themselves


def in_order(state: State) -> None:
    """The state itself is in order."""
    header = state.header
    counts = _counters(state)
    told = Counter(report_counter(one.path) for one in state.activations if _is_at_work(one))
    if (header.calling, header.delivering) != (told["calling"], told["delivering"]):
        raise Violation(
            f"the header counts {header.calling} hooks and {header.delivering} deliveries, not {dict(told)}"
        )
    if (header.live, header.suspended, header.waiting, header.paused) != counts:
        raise Violation(f"the header counts {header.live} live, {header.suspended} suspended; there are {counts}")
    _check_settled(state)
    _was_started_once(state)
    _check_widths(state)
    heard = [activation.output for activation in state.activations if activation.output.startswith("v")]
    if len(heard) != len(set(heard)):
        raise Violation(f"two have heard the same event: {heard}")
    kept = _events_in(state)
    waiting = [activation for activation in state.activations if activation.status == ActivationStatus.WAITING]
    if kept and waiting:
        raise Violation(f"{waiting[0].path} waits although {kept} has been sent")
    if len(state.notes) != len(set(state.notes)):
        raise Violation(f"a note is written twice: {state.notes}")


def keeps_notes(of: Graph, after: State) -> None:
    """Each step that writes a note into the run's state and has ended well has one, whoever wrote beside it."""
    for activation in after.activations:
        act = acts.act_at(of, activation)
        notes = act is not None and act.notes
        if notes and activation.status == ActivationStatus.SUCCESS and activation.path not in after.notes:
            raise Violation(f"the note of {activation.path} is lost")


def has_its_timers(header: RunHeader, activations: Iterable[Activation], timers: Collection[str]) -> None:
    """The schedulers to whom the run belongs find each of its timers, and no others do."""
    wanted = {activation.path for activation in activations if has_timer(header, activation)}
    if wanted != timers:
        raise Violation(f"the timers of {sorted(wanted ^ set(timers))} are not where the run is ({header.runtime!r})")


def _was_started_once(state: State) -> None:
    """The run has what one start has given it, and nothing of one that was undone."""
    header = state.header
    # The first generation of a run that has travelled may never have been started: such a run may begin with a travel.
    starts = {0} if header.status == StoredStatus.PENDING else {header.generation or 1, header.generation + 1}
    if state.starts not in starts and (state.starts or header.status != StoredStatus.CANCELED):
        raise Violation(f"the log says that the run was started {state.starts} times, and it was {max(starts)}")
    mine = {header.resource_id} - {""}
    context = {key for key, _ in state.context} - {"resumed"}
    if {key for key, _ in state.kept} != mine or context != mine:
        raise Violation(f"the run of {header.resource_id!r} has the state {state.kept} and the context {state.context}")
    if header.status == StoredStatus.PENDING and (header.input or header.started_at or mine):
        raise Violation("the run has not been started, and has something of a start")


def _check_widths(state: State) -> None:
    """An open foreach has as many items at a time as it may have, while there are any to come."""
    for block in state.activations:
        if block.component != "FOREACH" or block.status not in (ActivationStatus.OPEN, ActivationStatus.RUNNING):
            continue
        taken = block.next_item - (block.total - block.pending_children)
        if block.next_item < block.total and taken != block.concurrency and block.status == ActivationStatus.OPEN:
            raise Violation(f"{block.path} has {taken} items at a time, and may have {block.concurrency}")
        if taken > max(block.concurrency, 1) and not block.never_started and state.header.generation == 0:
            raise Violation(f"{block.path} has {taken} items at a time, and may have {block.concurrency}")


def _events_in(state: State) -> list[str]:
    return [event_of(entry) for entry in state.mail if not is_waiter(entry)]


def _counters(state: State) -> tuple[int, int, int, int]:
    found = Counter(one.status for one in state.activations if one.path and not is_report(one.path))
    live = sum(found[status] for status in LIVE)
    return live, found[ActivationStatus.SUSPENDED], found[ActivationStatus.WAITING], found[ActivationStatus.PAUSED]


def _is_at_work(one: Activation) -> bool:
    return is_report(one.path) and one.status in (ActivationStatus.QUEUED, ActivationStatus.RUNNING)


def has_reported(state: State, tells: acts.Reports) -> None:
    """Whoever is to be told how the run has settled has been told, or given up, once nothing is left to do."""
    header = state.header
    due: list[Report] = []
    if header.final:
        hooks = tells.told.hooks if header.started_at else ()
        due += [Report.ON_FINISH] * (Report.ON_FINISH in hooks)
        due += [Report.ON_ERROR] * (Report.ON_ERROR in hooks and header.status in ("failed", "tripwire"))
        due += [Report.RESULT] * tells.told.delivers
    elif header.status == StoredStatus.SUSPENDED and tells.fails:  # else the hook was called before
        due += [Report.ON_FINISH] * (Report.ON_FINISH in tells.told.hooks)
    found = {one.path for one in state.activations if is_report(one.path) and one.status in ENDED}
    missing = [report for report in due if report_path(header.settle_count, report) not in found]
    if missing:
        raise Violation(f"the run is {header.status}, and nobody tells {missing}")


def _check_settled(state: State) -> None:
    """A settled run has the status that its activations say, and users who wait for that hear of it."""
    header = state.header
    is_awaiting = header.suspended or header.waiting
    if header.status == StoredStatus.SUSPENDED and (header.live or not is_awaiting):
        raise Violation("the run is suspended while something is live, or with nothing suspended")
    if header.status == StoredStatus.PAUSED and (header.live or is_awaiting or not header.paused):
        raise Violation("the run is paused while something is live or suspended, or with nothing paused")
    if header.status in (StoredStatus.SUSPENDED, StoredStatus.PAUSED) and (header.outcome or header.failure):
        raise Violation(f"the run is {header.status} although it has come to its end")
    ended = all(one.status in ENDED for one in state.activations if one.path and not is_report(one.path))
    if header.status == StoredStatus.SUCCESS and not header.closed and not ended:
        raise Violation("the run is a success with something unfinished")
    if header.status == StoredStatus.FAILED and header.live:
        raise Violation("the run has failed while something is live")
    if header.status == StoredStatus.PENDING and state.activations:
        raise Violation("the run has not been started, and has activations")
    if header.status in SETTLED and header.settle_count <= state.awaited:
        raise Violation("the run has settled, and a user who waits for that hears nothing of it")


Moved = list[tuple[Activation | None, Activation]]


def find_moved(before: State, after: State) -> Moved:
    """Return the activations that have changed, each with what it was."""
    earlier = {activation.path: activation for activation in before.activations}
    found = ((earlier.get(activation.path), activation) for activation in after.activations)
    return [(was, activation) for was, activation in found if was is not activation]


def follows(old: RunHeader, new: RunHeader, moved: Moved, now: int) -> None:
    """An activation that has ended stays ended in this generation, and no sleep is over before its moment."""
    if old.final and new.status != old.status and new.generation == old.generation:
        raise Violation(f"a run that is {old.status} becomes {new.status}")
    for was, activation in moved:
        if activation.phase == Phase.SLEEP_OVER and not _may_wake(was, activation, now):
            raise Violation(f"{activation.path} is awake before its moment, it was {was and was.status}")


def _may_wake(was: Activation | None, activation: Activation, now: int) -> bool:
    if activation.status not in (ActivationStatus.QUEUED, ActivationStatus.RUNNING):
        return True
    if was is None or was.phase != Phase.SLEEP_OVER:
        return False
    return was.status in (ActivationStatus.QUEUED, ActivationStatus.RUNNING) or (
        was.status == ActivationStatus.SLEEPING and was.deadline <= now
    )


# --- what is told and written -------------------------------------------------------------------------------------


def has_told(old: RunHeader, new: RunHeader, moved: Moved, events: Iterable[Doc]) -> None:
    """Each move of a run has its event, once, in the commit that makes it, and there are no other events."""
    found = sorted(_told(event) for event in events if event["type"] in _TELLS)
    wanted = sorted(_to_be_told(old, new, moved))
    if found != wanted:
        missing = sorted((Counter(wanted) - Counter(found)).elements())
        more = sorted((Counter(found) - Counter(wanted)).elements())
        raise Violation(f"it is not told that {missing}" if missing else f"it is told that {more}, which is not so")


_TELLS = {
    "workflow-start": ("input",),
    "workflow-finish": ("status", "settle_count"),
    "workflow-paused": (),
    "workflow-canceled": (),
    "workflow-step-result": ("path", "status"),
    "workflow-step-finish": ("path",),
    "workflow-step-suspended": ("path",),
    "workflow-step-waiting": ("path",),
    "workflow-step-retrying": ("path", "retry_count"),
    "workflow-step-progress": ("path", "index", "status"),
    "workflow-report-failed": ("report", "status"),
}


def _told(event: Doc) -> str:
    return " ".join(map(str, (event["type"], *(event[name] for name in _TELLS[event["type"]]))))


def _to_be_told(old: RunHeader, new: RunHeader, moved: Moved) -> Iterator[str]:
    begins = old.status == StoredStatus.PENDING and new.status == StoredStatus.RUNNING
    if begins or new.generation != old.generation:
        yield f"workflow-start {new.input}"
    if new.settle_count != old.settle_count:
        yield f"workflow-finish {new.status} {old.settle_count + 1}"
        if new.status in (StoredStatus.PAUSED, StoredStatus.CANCELED):
            yield f"workflow-{new.status}"
    if new.generation == old.generation:  # what a new generation begins with is no news of its steps
        for was, activation in moved:
            yield from _news_of(was, activation)


def _news_of(was: Activation | None, activation: Activation) -> Iterator[str]:
    status = was.status if was is not None and was.visit == activation.visit else ""
    ends = activation.status in (ActivationStatus.SUCCESS, ActivationStatus.FAILED) and status not in ENDED
    if is_report(activation.path) and ends and activation.status == ActivationStatus.FAILED:
        yield f"workflow-report-failed {activation.step} {activation.settled}"
    suspends = activation.status == ActivationStatus.SUSPENDED and status == ActivationStatus.RUNNING
    if ends and not activation.quiet:
        yield f"workflow-step-result {activation.path} {activation.status}"
        yield f"workflow-step-finish {activation.path}"
    # What is parked has the same status, but no attempt has failed.
    failed_before = was.attempt if was is not None and status else 0
    if activation.status == ActivationStatus.RETRYING and activation.attempt > failed_before and not activation.quiet:
        yield f"workflow-step-retrying {activation.path} {activation.attempt}"
    if suspends:
        yield f"workflow-step-suspended {activation.path}"
    if activation.status in (ActivationStatus.SLEEPING, ActivationStatus.WAITING) and status != activation.status:
        yield f"workflow-step-waiting {activation.path}"
    if (ends or suspends) and activation.role == Role.ITEM:
        above, _, index = activation.path.rpartition(".")
        yield f"workflow-step-progress {above} {index} {activation.status}"


def has_values(before: State, header: RunHeader, moved: Moved, written: Collection[str]) -> None:
    """Whatever is referred to anew is written in the same commit. Items are looked at elsewhere."""
    if header.generation != before.header.generation:
        return
    found = {id_ for each in (header, *(activation for _, activation in moved)) for id_ in _values_of(each)}
    fresh = {id_ for id_ in found.difference(written, _events_in(before)) if id_ and "@" not in id_}
    if fresh:
        fresh -= {id_ for each in (before.header, *before.activations) for id_ in _values_of(each)}
    if fresh:
        raise Violation(f"nobody has written {sorted(fresh)}")


def _values_of(found: RunHeader | Activation) -> tuple[str, ...]:
    if isinstance(found, RunHeader):
        return found.input, found.output, found.error, found.failure
    return found.input, found.output, found.error, found.suspend, found.resume


def keeps_values_in_use(after: State, dropped: Collection[str], store: Store) -> None:
    """Nothing goes that the run, or an activation of a present visit, has as a value or refers to by one."""
    if not dropped:
        return
    values = Values(store.values, acts.RUN)
    present: dict[Path, Activation] = {}
    for activation in sorted(after.activations, key=lambda activation: activation.at):
        above = present.get(activation.at[:-1])
        if len(activation.at) == 1 or (above is not None and belongs(activation, above)):
            present[activation.at] = activation
    manifests = [id_ for activation in present.values() for id_ in activation.finished.split()]
    if lost := set(manifests).intersection(dropped):
        raise Violation(f"{sorted(lost)} are dropped, and a loop still has them")
    for found in (after.header, *present.values()):
        for id_ in _values_of(found):
            if gone := values.closure(id_).intersection(dropped):
                raise Violation(f"{sorted(gone)} are dropped, and {found} has {id_}")


def has_items(after: State, claimed: Claimed, commits: Sequence[Change]) -> None:
    """Before a foreach spreads its items, all of them are written."""
    activation = after.at(claimed.activation.path)
    if claimed.activation.phase != Phase.FAN_OUT or activation is None or activation.status != ActivationStatus.OPEN:
        return
    prefix = make_items_prefix(activation.path, activation.visit, claimed.header.generation)
    written = {key for change in commits for key in change.values}
    missing = [index for index in range(activation.total) if f"{prefix}.{index}" not in written]
    if missing:
        raise Violation(f"nobody has written the items {missing} of {activation.path}")


# --- workers ------------------------------------------------------------------------------------------------------


def is_delayed(of: Graph, state: State, begins: int) -> None:
    """A step that a start puts in the queue for later waits for that moment, and a sleep begins at it."""
    for activation in state.activations:
        node = of.node(activation.at) if activation.path else None
        length = round(1000 * (node.seconds or 0)) if isinstance(node, Sleep) else 0
        if activation.live and (activation.status == ActivationStatus.QUEUED or activation.deadline < begins + length):
            raise Violation(f"{activation.path} begins before its moment")


def counts_attempts(of: Graph, moved: Moved) -> None:
    """A step gets as many attempts as it has, and each counts. A report gets all of those."""
    for was, activation in moved:
        is_failed = is_report(activation.path) and activation.status == ActivationStatus.FAILED
        if is_failed and activation.error != "lost" and activation.attempt < _attempts_of(activation):
            raise Violation(f"{activation.path} is given up with attempts left")
        if (
            activation.status != ActivationStatus.RETRYING
            or activation.parked
            or was is None
            or was.status != ActivationStatus.RUNNING
        ):
            continue
        if activation.attempt != was.attempt + 1:
            raise Violation(f"an attempt of {activation.path} is not counted")
        if is_report(activation.path):
            if activation.attempt > _attempts_of(activation):
                raise Violation(f"{activation.path} gets more attempts than it has")
            continue
        node = of.node(activation.at)
        if not isinstance(node, Step) or activation.attempt > node.retry.attempts:
            raise Violation(f"{activation.path} gets more attempts than it has")


def _attempts_of(report: Activation) -> int:
    return reports._RETRIES[Report(report.step)].attempts


def gives_up(after: State, claimed: Claimed) -> None:
    """After three workers that were lost in a row with a step it has failed, and not before."""
    activation, now = claimed.activation, after.at(claimed.activation.path)
    if now is None or activation.phase == Phase.SETTLE:
        return
    abandoned, has_failed = (
        activation.abandoned_attempts >= acts.MAX_ABANDONED,
        now.error == "lost" and now.status == ActivationStatus.FAILED,
    )
    if (abandoned and not has_failed) or (has_failed and not abandoned and activation.phase == Phase.RUN):
        raise Violation(
            f"after {activation.abandoned_attempts} workers that were lost {activation.path} is {now.status}"
        )


def has_left_the_mailbox(after: State, claimed: Claimed) -> None:
    """A wait whose time is over does not stand in the mailbox."""
    if claimed.activation.phase == Phase.EVENT_TIMEOUT and claimed.activation.waiter in after.mail:
        raise Violation(f"{claimed.activation.path} waits no more, and stands in the mailbox")


def is_deferred(after: State, claimed: Claimed, now: int) -> None:
    """A step that a worker could not run is tried again, later, as if nothing had been."""
    before, activation = claimed.activation, after.at(claimed.activation.path)
    if (
        activation is None
        or activation.status != ActivationStatus.RETRYING
        or not activation.parked
        or activation.attempt != before.attempt
    ):
        raise Violation(f"{before.path} is given back, and is not as it was")
    if activation.deadline <= now:
        raise Violation(f"{before.path} is given back, and tried again at once")


def is_of_the_dead(before: State, activation: Activation) -> None:
    """A parent ends the claim of its child, and not the one of a worker that came after."""
    now = before.at(activation.path)
    if now is None or now.lease_token != activation.lease_token:
        raise Violation(f"{activation.path} is taken from the worker that is at work on it")


def has_released(after: State, activation: Activation, *, is_abandoned: bool = True) -> None:
    """The claim is back in the queue, and counts as abandoned where its worker died and was not stopped."""
    now = after.at(activation.path)
    if (
        now is None
        or now.status != ActivationStatus.QUEUED
        or now.abandoned_attempts != activation.abandoned_attempts + is_abandoned
        or not now.restarted
    ):
        raise Violation(f"the loss of a worker with {activation.path} is not counted")


# --- users --------------------------------------------------------------------------------------------------------


def has_resumed(after: State, activations: Iterable[Activation]) -> None:
    """The activations that a resume means go on."""
    for activation in activations:
        now = after.at(activation.path)
        if (
            now is None
            or now.status != ActivationStatus.QUEUED
            or now.resumed != (activation.status == ActivationStatus.SUSPENDED)
        ):
            raise Violation(f"{activation.path} is resumed, and is {now and now.status}")


def has_gone_over(after: State, change: Change, runtime: str) -> None:
    """Whoever asked for all timers of the run has it."""
    guard = change.guard
    if isinstance(guard, RequestGuard) and guard.commits is not None and after.header.runtime != runtime:
        raise Violation(f"the run goes on elsewhere, and belongs to {after.header.runtime!r}")


def has_restarted(after: State, activations: Iterable[Activation]) -> None:
    """A step that was claimed begins again, and can know it."""
    for activation in activations:
        now = after.at(activation.path)
        if activation.status == ActivationStatus.RUNNING and (now is None or not now.restarted):
            raise Violation(f"{activation.path or 'the settling'} begins again, and cannot know it")


def is_as_before(after: State, activations: Iterable[Activation]) -> None:
    """A resume that was undone has left nothing behind but a number."""
    for activation in activations:
        now = after.at(activation.path)
        if now is None or replace(now, seq=activation.seq) != activation:
            raise Violation(f"{activation.path} is not as it was before it was resumed")


def has_sent(before: State, after: State, sends: Sends) -> None:
    """The event is with the first that waits, or in the mailbox."""
    if sends.value in _events_in(after):
        return
    heard = [activation for activation in after.activations if activation.resume == sends.value]
    if not heard:
        raise Violation(f"the event {sends.value} is lost")
    was = before.at(heard[0].path)
    if was is None or was.status != ActivationStatus.WAITING or sends.waiting is None or was.seq != sends.waiting.seq:
        raise Violation(f"the event {sends.value} goes to a step that does not wait any more")
    first = min(
        (r for r in before.activations if r.status == ActivationStatus.WAITING), key=lambda activation: activation.at
    )
    if first.path != heard[0].path:
        raise Violation(f"the event {sends.value} goes to {heard[0].path}, and {first.path} waits")
    if was.waiter in after.mail:
        raise Violation(f"{was.path} has its event, and stands in the mailbox")


def has_cleared(after: State, entries: Sequence[str]) -> None:
    """A waiter that had gone is out of the mailbox."""
    gone = next(iter(entries), "")
    if not is_waiter(gone):
        raise Violation("nobody waits, and the event is lost")
    if gone in after.mail:
        raise Violation("a waiter that has gone stands in the mailbox for ever")


def holds_back(before: State, after: State, claimed: Claimed) -> None:
    """In a run step by step, what follows a step waits for a resume. The items of a foreach are one step together."""
    if not claimed.header.per_step:
        return
    begun = [
        activation.path
        for activation in after.activations
        if _begins(before, activation) and activation.path != claimed.activation.path
    ]
    if len(begun) > (claimed.activation.phase in FIRST):
        raise Violation(f"{begun} begin after {claimed.activation.path} in a run step by step")


def _begins(before: State, activation: Activation) -> bool:
    if not activation.live or activation.phase == Phase.JOIN or activation.role == Role.ITEM:
        return False
    was = before.at(activation.path)
    return was is None or not was.live or was.visit != activation.visit


def has_taken_claims(after: State, activations: Iterable[Activation]) -> None:
    """After a restart, or in a new generation, no claim from before has its lease."""
    for activation in activations:
        now = after.at(activation.path)
        if now is not None and now.lease_token:
            raise Violation(f"{activation.path or 'the settling'} is still claimed from before")


def has_arrived(of: Graph, target: Path, before: State, after: State) -> None:
    """The new generation has of the older one what had ended and stands before the target, and what waits beside it."""
    if after.header.generation != before.header.generation + 1 or after.header.status != StoredStatus.RUNNING:
        raise Violation(
            f"generation {before.header.generation} is followed by {after.header.generation}, {after.header.status}"
        )
    if any(is_report(activation.path) for activation in after.activations):
        raise Violation("the new generation still tells how the older one has ended")
    has_taken_claims(after, after.activations)
    for activation in after.activations:
        stays = activation.status in ENDED or (activation.status in WAITS and _is_beside(of, target, activation.at))
        if activation is before.at(activation.path) and not stays:
            raise Violation(f"{activation.path} of the older generation is still {activation.status}")
        if _order(of, target, activation.at) > 0:
            raise Violation(f"{activation.path} stands after the target, and is there")
    for activation in before.activations:
        ended = activation.status == ActivationStatus.SUCCESS and activation.at[:-1] == target[: len(activation.at) - 1]
        if ended and _order(of, target, activation.at) < 0 and activation is not after.at(activation.path):
            raise Violation(f"{activation.path} stands before the target, and has not been kept")


def _order(of: Graph, target: Path, path: Path) -> int:
    """Compare the place of `path` with the target in the same flow: negative before, positive after, else 0."""
    for cut, (mine, theirs) in enumerate(zip(path, target, strict=False)):
        if mine != theirs:
            return mine - theirs if _is_entry(of, path[: cut + 1]) else 0
    return 0


def _is_beside(of: Graph, target: Path, path: Path) -> bool:
    """Tell whether it is in another arm than the target, of a block around both."""
    differs = any(mine != theirs for mine, theirs in zip(path, target, strict=False))
    return differs and _order(of, target, path) == 0


def _is_entry(of: Graph, path: Path) -> bool:
    """Tell whether it is an entry of a flow, and no arm, item or body."""
    return len(path) == 1 or (bool(path) and isinstance(of.node(path[:-1]), Nested))
