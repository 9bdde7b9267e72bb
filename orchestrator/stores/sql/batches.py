"""Several changes in one transaction: the upkeep of a sweep, which moves many runs on by a little each.

A transaction of its own costs a change several round trips and a write to the disk. Here the runs are locked together,
each change is compared and applied to what the one before has left, and everything is written at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from orchestrator.rules.apply import Applied, apply
from orchestrator.rules.change import Change, Committed, Doc, Refused
from orchestrator.rules.mailbox import Mailbox
from orchestrator.rules.model import Activation, RunHeader
from orchestrator.stores.common import is_upkeep
from orchestrator.stores.sql import queries as q
from orchestrator.stores.sql import rows
from orchestrator.stores.sql.link import Connections, Tx

_SIZE = 100  # changes of one transaction: what it has locked waits for the last of them

Answer = Committed | Refused


def commit_upkeep(
    connections: Connections, changes: Sequence[tuple[str, Change]]
) -> tuple[dict[int, Answer], list[str]]:
    """Commit those of the changes that are upkeep, but for what is left out.

    Returns the answers by the places of the changes, and the ids of the runs whose readers wait for them.
    """
    upkeep = [place for place, (_, change) in enumerate(changes) if is_upkeep(change)]
    answers: dict[int, Answer] = {}
    awaited: list[str] = []
    for start in range(0, len(upkeep), _SIZE):
        places = upkeep[start : start + _SIZE]
        batch = [changes[place] for place in places]
        found, more = connections.change(lambda tx, batch=batch: commit_batch(tx, batch))  # type: ignore[misc]
        answers |= {place: answer for place, answer in zip(places, found, strict=True) if answer is not None}
        awaited += more
    return answers, awaited


def commit_batch(tx: Tx, changes: Sequence[tuple[str, Change]]) -> Callable[[], tuple[list[Answer | None], list[str]]]:
    """Commit these changes, each by itself: what is refused holds up none of the others.

    A run that another transaction has locked is left out (None), as is one that does not exist. Returns the ids of the
    runs whose readers wait, too.
    """
    names = {run_id: rows.encode_name(run_id) for run_id, _ in changes}
    wanted = sorted({(names[run_id], rows.encode_name(path)) for run_id, change in changes for path in change.reads()})
    locks = tx.send(q.LOCK_FREE, runs=sorted(names.values()))
    read = tx.send(q.READ_PAIRS, runs=[run for run, _ in wanted], paths=[path for _, path in wanted])
    found = {run: _Run(run, rows.header(doc), *numbers) for run, doc, *numbers in locks.fetchall()}
    (_, _, _, now), *activations = read.fetchall()
    for _, run, _, doc in activations:
        if run in found:
            found[run].know(rows.activation(doc))
    answers = [
        found[names[run_id]].apply(change, int(now)) if names[run_id] in found else None for run_id, change in changes
    ]
    _write(tx, [run for run in found.values() if run.commits], int(now))
    awaited = [run.header.run_id for run in found.values() if run.is_awaited]
    return lambda: (answers, awaited)


@dataclass(slots=True)
class _Run:
    """A run under its lock, between the changes of a batch."""

    run: str
    header: RunHeader
    events: int  # number of its newest stored event
    followed_until: int
    settle_awaited_until: int
    stored: dict[str, Activation] = field(default_factory=dict)  # as they were read
    activations: dict[str, Activation] = field(default_factory=dict)  # as the changes so far have left them
    touched: dict[str, Activation] = field(default_factory=dict)
    new_events: list[Doc] = field(default_factory=list)
    commits: int = 0  # changes that were taken
    is_awaited: bool = False

    def know(self, activation: Activation) -> None:
        """Note an activation that was read."""
        self.stored[activation.path] = self.activations[activation.path] = activation

    def apply(self, change: Change, now: int) -> Answer:
        """Apply a change, and keep what is to be written."""
        answer = apply(change, self.header, self.activations, Mailbox(), now)
        if isinstance(answer, Refused):
            return answer
        self.is_awaited = self.is_awaited or self._must_notify(answer, now)
        self.header, self.commits = answer.header, self.commits + 1
        self.touched.update(answer.activations)
        self.activations.update(answer.activations)
        for path in [path for path, activation in answer.activations.items() if not activation.status]:
            del self.activations[path]
        self.new_events += answer.events
        return Committed(answer.header, answer.dispatches)

    def _must_notify(self, answer: Applied, now: int) -> bool:
        locked = rows.Locked(self.header, 0, {}, Mailbox(), now, self.followed_until, self.settle_awaited_until)
        return rows.must_notify(locked, answer)


def _write(tx: Tx, runs: Iterable[_Run], now: int) -> None:
    changed = list(runs)
    if not changed:
        return
    tx.put(q.PUT_RUNS, [rows.run_row(run.header, run.events + len(run.new_events)) for run in changed])
    docs = [(run, number, doc) for run in changed for number, doc in enumerate(run.new_events, run.events + 1)]
    if docs:
        tx.put(q.PUT_EVENTS, [(run.run, number, now, rows.pack(doc)) for run, number, doc in docs])
    rows.write_many(tx, [(run.header, [one for one in run.touched.values() if one.status]) for run in changed])
    for run in changed:
        rows.drop_gone(tx, run.run, run.header, run.stored, run.touched)
