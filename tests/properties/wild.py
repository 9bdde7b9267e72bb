"""Changes that no engine would write: any operations on any records, in any order. Stores read those alike, too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import strategies as st

from orchestrator.core.changes import (
    Caller,
    Change,
    Down,
    Expect,
    Holder,
    Mail,
    Next,
    Op,
    Put,
    Run,
    Set,
    Shut,
    Tell,
    mark,
)
from orchestrator.core.records import Header, Phase, Record, Role, RunState, Status
from orchestrator.errors import StoreUnavailable
from tests.properties.pair import Pair
from tests.properties.small_graphs import LONG

STATUSES = [status for status in Status if status is not Status.RUNNING]  # that takes a claim
TEXTS = ["", "x", "a b", 'é/"\\\n\u2028\x7f{}']
_FIELDS: dict[str, list[Any]] = {
    "phase": list(Phase),
    "visit": ["", "1", "1.2"],
    "route": ["", '{"name":"r"}'],
    "quiet": [False, True],
    "input": ["", "in", "v1"],
    "needs": ["", "in v1 none"],
    "suspend": ["", "v1"],
    "resume": ["", "v2"],
    "resumed": [False, True],
    "token": ["", "stolen"],
    "attempt": [0, 1],
    "lost": [0, 2],
    "index": [-1, 0, 3],
    "left": [0, 1, 3],
    "next": [0, 2],
    "total": [0, 2, 4],
    "skipped": [0, 1],
    "width": [0, 2],
    "label": TEXTS,
    "parked": TEXTS,
    "tripwire": [False, True],
    "order": [0, 3],
    "due": [0],
}
_WORDS: dict[str, list[Any]] = {
    "status": list(RunState),
    "life": [0, 1],
    "rests": [0, 1, 2],
    "outcome": ["", "success"],
    "failure": ["", "v1"],
    "tripwire": [False, True],
    "closed": [False, False, True],
    "auto_restart": [False, True],
    "quiet": [False, True],
    "started_at": [0],
    "trace": TEXTS,
}


@dataclass
class Wild(Pair):
    """A run to which anything may happen."""

    def begin(self) -> None:
        self.create(runtime=self.pick(["celery", "celery", "local"]))
        root = Record(path="", role=Role.BLOCK, phase=Phase.REST, status=self.pick([Status.OPEN, Status.SUCCESS]))
        block = Record(path="0", step="s0", status=Status.OPEN, left=2, total=4, next=1, skipped=1)
        ops = (Put(root), Run({"status": RunState.RUNNING, **self.begins()}), Put(block), Put(self.record("1")))
        self.commit(Change(Caller(self.token(), frozenset({RunState.PENDING})), ops, **self.spans()))

    # What is drawn.

    def some(self, of: dict[str, list[Any]], most: int = 3) -> dict[str, Any]:
        names = self.draw(st.lists(st.sampled_from(sorted(of)), max_size=most, unique=True))
        return {name: self.pick(of[name]) for name in names}

    def record(self, path: str) -> Record:
        status = self.pick([Status.QUEUED, *STATUSES])
        return Record(path=path, step=f"s{path}", component="STEP", **{**self.some(_FIELDS), "status": status})

    def patch(self) -> dict[str, str | None]:
        return self.draw(st.dictionaries(st.sampled_from(["k", "l", "é"]), st.sampled_from([None, "=[]", "=1"])))

    def paths(self) -> list[str]:
        return [record.path for record in self.memory.load(self.run_id)]

    def op(self, paths: list[str]) -> Op:
        """Any operation on what is there, or on what those before it put there."""
        path, delay, claim = self.pick(paths or [""]), self.pick([0, 0, LONG]), self.pick(["", "", "", self.token()])
        kinds = [Put, Put, Run, *([Set, Set, Set, Shut, Down, Tell] if paths else ()), *([Next] if path else ())]
        match self.pick(kinds):
            case kind if kind is Put:
                fresh = self.pick([*paths, "3", "0.0", "0.10", "1.1"])
                paths.append(fresh)
                return Put(self.record(fresh), claim, delay)
            case kind if kind is Set:
                return self.set(path, claim, delay)
            case kind if kind is Next:
                return Next(path, self.record(f"{path}.0"), f"{path}@@0")
            case kind if kind is Shut:
                return Shut(path)
            case kind if kind is Down:
                event = self.pick([None, {"type": "down", "list": [], "text": TEXTS[-1]}])
                return Down(path, self.set(self.pick(paths), claim, delay), event)
            case kind if kind is Tell:
                return Tell(path, {"type": "tell", "dict": {}, "float": 0.5})
            case _:
                return Run(self.some(_WORDS, 2), self.pick(["", "", "failure", "live", "closed"]))

    def set(self, path: str, claim: str, delay: int) -> Set:
        status = self.pick([{}, {"status": self.pick(STATUSES)}])
        return Set(path, {**self.some(_FIELDS), **status}, claim, delay)

    def ops(self) -> tuple[Op, ...]:
        paths = self.paths()
        ops = [self.op(paths) for _ in range(self.draw(st.integers(0, 5)))]
        if self.pick([False] * 9 + [True]):  # more than an answer remembers
            ops += [Put(Record(path=f"9.{n}", route='{"name":"r"}')) for n in range(55)]
        if ops and self.draw(st.booleans()):
            ops.append(ops[-1])
        return tuple(ops)

    def expected(self) -> tuple[Expect, ...]:
        records = self.memory.load(self.run_id)
        picked = self.draw(st.lists(st.sampled_from(records), max_size=2)) if records else []
        wrong = self.pick([0] * 6 + [1])
        expect = [Expect(record.path, record.status, record.seq + wrong) for record in picked]
        return (*expect, Expect("8", Status.QUEUED, 1)) if self.pick([False] * 15 + [True]) else tuple(expect)

    def guard(self) -> Holder | Caller:
        mine = [record for record in self.claims[-4:] if record.token]
        holders = [Holder(record.path, record.token, self.draw(st.integers(0, 3))) for record in mine]
        header = self.memory.header(self.run_id) or Header()
        states = self.pick([frozenset(RunState), frozenset({RunState.RUNNING})])
        life, rests = self.pick([None, None, header.life, 1]), self.pick([None, None, header.rests])
        caller = Caller(self.pick(["", self.token()]), states, life, rests)
        return self.pick([caller, *holders])  # type: ignore[no-any-return]

    # What may happen.

    def anything(self) -> None:
        """A change of any kind."""
        box = self.memory.mail(self.run_id, "event")
        expect, pop = self.pick([None, None, mark(box), "1:x"]), self.pick(["", "é/", *box])
        events = self.pick([(), (), ({"type": "told"}, {"type": "told again"}), self.burst()])
        change = Change(
            self.guard(),
            self.ops(),
            self.expected(),
            values={self.pick(["v1", "v2", self.token()]): self.pick(["=1", "=[]"])},
            state=self.patch(),
            context=self.patch(),
            events=events,
            mail=self.pick([None, Mail("event", expect, self.pick(["", "v1", "é/"]), pop)]),
            drop=tuple(self.draw(st.lists(st.sampled_from([*self.paths(), "8"]), max_size=2))),
            rest=self.pick(["", self.token()]),
            rest_now=self.pick([False] * 7 + [True]),
            **self.spans(),
        )
        self.commit(change)

    def again(self) -> None:
        """A change is sent again. If it names a record that has gone since, that is an error and writes nothing."""
        mine, theirs = self.pick(self.changes[:-6:-1])
        try:
            self.commit(mine, theirs)
        except KeyError:
            with pytest.raises((KeyError, StoreUnavailable)):
                self.other.commit(self.run_id, theirs)

    def ask(self) -> None:
        """Somebody claims, by a message that may be stale, or once more by a token of before."""
        path = self.pick([*self.paths(), "8"])
        records = self.memory.load(self.run_id, [path])
        seq = records[0].seq if records else 1
        token = self.pick([None, None, None, *(record.token or None for record in records)])
        self.claim(path, seq + self.pick([0] * 7 + [1]), token)

    def go_on(self) -> None:
        """Let all this happen, in any order."""
        self.drive(*[self.anything] * 8, *[self.ask] * 4, *[self.again] * 2, self.renew, self.create_again, self.forget)
