"""Two stores that get the same changes and must look the same.

The memory store calls `rules.apply`; its clock moves on a little with each change. Durations are none at all or very
long, so that the two clocks never disagree on whether a moment has come; how long events are kept is the exception.
Times themselves are left out of the comparison, and so is how much of a log that has grown too long or too old is kept
beyond what was asked for.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import strategies as st

from orchestrator.ports import LeaseRef, RunQuery, Store
from orchestrator.rules.change import (
    Change,
    Claimed,
    ClaimRequest,
    Committed,
    Dispatch,
    LeaseGuard,
    Refused,
    RequestGuard,
)
from orchestrator.rules.events import EventType
from orchestrator.rules.model import Activation, RunHeader, StoredStatus
from orchestrator.rules.transitions import IllegalTransition
from orchestrator.stores.memory import MemoryStore
from tests.properties.small_graphs import LONG

ACTIVE = frozenset({StoredStatus.RUNNING, StoredStatus.SUSPENDED, StoredStatus.PAUSED})
KEEPS = (0, 0, 0, 1, 5, 60)
AGES = (0, 0, 0, 1, 20, LONG)  # ms; a change takes the memory store 2
_ALL = 100_000
_runs = itertools.count()

_MOMENTS = ("created_at", "started_at", "updated_at", "ended_at", "queued_at", "suspended_at", "resumed_at", "deadline")


def _plain(doc: dict[str, Any]) -> dict[str, Any]:
    """Leave out how late it is, but not whether there is a moment at all."""
    doc = {name: bool(value) if name in _MOMENTS else value for name, value in doc.items()}
    if doc.get("last_reply"):
        doc["last_reply"] = json.loads(doc["last_reply"])
    return doc


def _answer(answer: Claimed | Committed | Refused | None) -> Any:
    match answer:
        case None:
            return None
        case Refused(reason=reason, header=header):
            return reason, header and _plain(header.doc())
        case Claimed(header=header, activation=activation):
            package = (dict(answer.values), dict(answer.state), dict(answer.context))
            return _plain(header.doc()), _plain(activation.doc()), package
        case Committed(header=header, dispatches=dispatches, claimed=claimed):
            return _plain(header.doc()), dispatches, _answer(claimed), answer.left_out


def _log(store: Store, run_id: str) -> tuple[bool, list[Any]]:
    """Return True if the log has lost its beginning, and the rest of it."""
    docs = [dict(event.doc) for event in store.events(run_id, limit=_ALL)]
    assert store.events(run_id, store.last_event(run_id)) == []
    cut = bool(docs) and docs[0]["type"] == EventType.EVENTS_TRIMMED
    return cut, docs[cut:]


@dataclass
class Pair:
    """One run in two stores, which get the same changes."""

    memory: MemoryStore
    other: Store
    draw: Any
    run_id: str = field(default_factory=lambda: f"run/{next(_runs)}")
    dispatches: list[Dispatch] = field(default_factory=list)
    claims: list[Activation] = field(default_factory=list)
    changes: list[tuple[Change, Change]] = field(default_factory=list)
    enders: list[Change] = field(default_factory=list)  # changes by which claims have ended
    ids: set[str] = field(default_factory=set)  # of values that were to be written
    least: int = _ALL  # the lowest limit of the log in any change
    tokens: Iterator[int] = field(default_factory=itertools.count)

    # What is drawn.

    def pick(self, options: Sequence[Any]) -> Any:
        return self.draw(st.sampled_from(options))

    def token(self) -> str:
        return f"token{next(self.tokens)}"

    def lease(self) -> int:
        return int(self.pick([0, LONG, LONG]))

    def spans(self) -> dict[str, Any]:
        return {"lease": self.lease(), "redelivery_delay": self.lease(), **self.kept()}

    def kept(self) -> dict[str, int]:
        return {"max_events": self.pick(KEEPS), "max_event_age": self.pick(AGES)}

    def burst(self) -> tuple[dict[str, Any], ...]:
        """So many events that logs are cut."""
        return tuple({"type": "chunk", "n": n, "text": "é" * 500} for n in range(70))

    # What is said.

    def create(self, **fields: Any) -> RunHeader:
        """Create the run, or once more; it says itself where it belongs when it begins."""
        flags = {name: self.pick([False, False, True]) for name in ("quiet", "per_step")}
        about = {"workflow_id": self.run_id, "namespace": f"{self.run_id}/old", "resource_id": self.pick(["", "r"])}
        about |= {"run_id": self.run_id, "auto_restart": self.pick([True, True, False])}
        header = RunHeader(**{**flags, **about, **fields})
        stored = self.memory.create(header)
        assert _plain(self.other.create(header).doc()) == _plain(stored.doc())
        return stored

    def begins(self) -> dict[str, Any]:
        """Give the fields that the start of a run sets."""
        return {"namespace": self.run_id, "resource_id": self.resource()}

    def resource(self) -> str:
        return str(self.pick(["", "r", "r:é", f"{self.run_id}:"]))

    def claim(self, path: str, seq: int, token: str | None = None) -> Claimed | None:
        runtime = str(self.pick(["", "", "celery", "local"]))
        request = ClaimRequest(self.run_id, path, seq, token or self.token(), self.lease(), runtime)
        mine, theirs = self.memory.claim(request), self.other.claim(request)
        assert _answer(theirs) == _answer(mine)
        if isinstance(mine, Claimed):
            self.claims.append(mine.activation)
            return mine
        return None

    def commit(self, change: Change, as_theirs: Change | None = None) -> Claimed | None:
        """Commit to both; `as_theirs` is the same change with a moment as the other store has it.

        A status that may not follow is an error in both, and writes nothing. Here a travel may create a child of a
        block that has ended, as no command does; the child's end then comes to the block a second time.
        """
        late = self._has_ended(change) and change not in self.enders
        self.changes.append((change, as_theirs or change))
        self.ids |= change.values.keys()
        self.least = min(self.least, change.max_events or _ALL, 1 if 0 < change.max_event_age < LONG else _ALL)
        self.memory.clock.sleep(0.002)
        try:
            mine = self.memory.commit(self.run_id, change)
        except IllegalTransition as error:
            with pytest.raises(IllegalTransition, match=f"^{re.escape(str(error))}$"):
                self.other.commit(self.run_id, as_theirs or change)
            return None
        theirs = self.other.commit(self.run_id, as_theirs or change)
        if late and isinstance(mine, Committed) and isinstance(theirs, Committed):
            # It is not the change that ended its claim, but comes after it, as a flush may. The reference, which looks
            # at the activations that a change names, may not know what that other one claimed.
            mine, theirs = replace(mine, claimed=None), replace(theirs, claimed=None)
        elif self._has_ended(change):
            self.enders.append(change)
        assert _answer(theirs) == _answer(mine)
        if isinstance(mine, Refused):
            return None
        self.dispatches += mine.dispatches
        if mine.claimed:
            self.claims.append(mine.claimed.activation)
        return mine.claimed

    def _has_ended(self, change: Change) -> bool:
        """Tell whether the claim by whose holder it is has ended by a commit."""
        guard = change.guard
        if not isinstance(guard, LeaseGuard):
            return False
        return any(
            activation.last_lease_token == guard.token for activation in self.memory.load(self.run_id, [guard.path])
        )

    # What is compared.

    def compare(self) -> None:
        mine, theirs = (self._snapshot(store) for store in (self.memory, self.other))
        assert theirs == mine
        self._compare_logs()

    def _snapshot(self, store: Store) -> dict[str, Any]:
        header = store.header(self.run_id)
        mine = {"workflow_id": self.run_id}
        queries = [mine, *({**mine, "status": status} for status in (StoredStatus.RUNNING, StoredStatus.SUSPENDED))]
        queries += [{**mine, "resource_id": resource} for resource in {"r", header.resource_id if header else ""}]
        return {
            "header": header and _plain(header.doc()),
            "activations": [_plain(activation.doc()) for activation in store.load(self.run_id)],
            "awaiting": [activation.path for activation in store.load_awaiting(self.run_id)],
            "values": store.values(self.run_id, self.ids),
            "state": store.state(self.run_id),
            "context": store.context(self.run_id),
            "mail": store.mail(self.run_id, "event", 1000),
            "timers": sorted(due.activation.path for due in store.due_timers(self.run_id)),
            "timers as created": [due.activation.path for due in store.due_timers(f"{self.run_id}/old")],
            "listed": [store.count_runs(RunQuery(**query)) for query in queries],
        }

    def _compare_logs(self) -> None:
        (cut, mine), (their_cut, theirs) = (_log(store, self.run_id) for store in (self.memory, self.other))
        if not cut and not their_cut:
            assert theirs == mine
            return
        common = min(len(mine), len(theirs))
        assert theirs[-common:] == mine[-common:]
        assert common >= self.least

    def drive(self, *actions: Callable[[], None]) -> None:
        """Let things happen, until the run has gone at the latest, and compare."""
        self.compare()
        for number in range(self.draw(st.integers(10, 40))):
            if self.memory.header(self.run_id) is None:
                break
            self.pick(actions)()
            if number % 4 == 0:  # answers are compared every time
                self.compare()
        self.compare()

    # What may happen to any run.

    def again(self) -> None:
        """A change is sent again, at once or when others have gone on."""
        self.commit(*self.pick(self.changes[:-6:-1]))

    def again_late(self) -> None:
        """A caller's change is sent again when many others have committed."""
        by_callers = [pair for pair in self.changes if isinstance(pair[0].guard, RequestGuard) and pair[0].guard.id]
        if by_callers:
            self.commit(*self.pick(by_callers[:30]))

    def create_again(self) -> None:
        """A second caller creates the same run."""
        self.create(runtime="other")

    def renew(self) -> None:
        """Heartbeats renew leases that are held, and others."""
        refs = [LeaseRef(self.run_id, activation.path, activation.lease_token) for activation in self.claims[-5:]]
        assert self.other.renew(refs, LONG) == self.memory.renew(refs, LONG)

    def forget(self) -> None:
        """The run is deleted if it has ended."""
        statuses = frozenset({StoredStatus.SUCCESS, StoredStatus.FAILED})
        assert self.other.delete(self.run_id, statuses) == self.memory.delete(self.run_id, statuses)
