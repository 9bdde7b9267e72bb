"""Changes that no engine would write: any operations on any activations, in any order. Stores read those alike, too.

Operations, guards and fields are not listed here. They are taken from the types, and each value is drawn as its own
type says, so that a new field is written and compared from the day on which it is added. Only what has a form of its
own (a path, a route, a token …) is said by its name; `test_wild_changes_cover_every_field` proves that nothing is left
out.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import strategies as st

from orchestrator.errors import StoreRefused
from orchestrator.rules.change import (
    Change,
    Claimed,
    CreateActivation,
    LeaseGuard,
    Op,
    Precondition,
    RequestGuard,
    UpdateActivation,
    UpdateRun,
)
from orchestrator.rules.mailbox import MailboxUpdate
from orchestrator.rules.model import (
    AWAITING,
    Activation,
    ActivationStatus,
    Phase,
    Report,
    Role,
    RunHeader,
    StoredStatus,
    is_report,
    report_path,
)
from orchestrator.rules.transitions import ABSENT, RUN_TABLE, TABLE
from tests.properties.pair import AGES, KEEPS, Pair
from tests.properties.small_graphs import LONG

TEXTS = ["", "x", "a b", 'é/"\\\n\u2028\x7f{}']
NUMBERS = [0, 1, 3]
FAR = 10_000_000_000_000  # ms: a moment that comes for no clock
IDS = ["", "in", "v1", "v2"]

# Fields whose texts and numbers have a form, by name; all others are drawn as their types say.
_FORMS: dict[str, list[Any]] = {
    "phase": list(Phase),
    "role": list(Role),
    "visit": ["", "1", "1.2"],
    "route": ["", '{"name":"r"}'],
    "needs": ["", "in v1 none"],
    "lease_token": ["", "stolen"],
    "last_reply": ["", '[[],null,""]', '[[["1",2,"",0]],null,""]'],
    "index": [-1, 0, 3],
    "deadline": [0, 1, FAR],
    "closed": [False, False, False, True],  # in a closed run little is accepted
    **dict.fromkeys(("input", "output", "error", "suspend", "resume", "failure"), IDS),
}
KEYS = {"path", "status"}  # of an activation: where it is, and what the table of statuses says
# A run keeps these from its creation, or at least from its start on: stores file it under them.
FIXED = {"run_id", "workflow_id", "namespace", "runtime", "created_at"}
COUNTS = {"live", "calling", "delivering", *AWAITING}  # of a run's activations
REPORTS = [report_path(1, Report.ON_FINISH), report_path(2, Report.RESULT)]
_EVENTS = [None, {"type": "told", "list": [], "text": TEXTS[-1]}, {"type": "told", "dict": {}, "float": 0.5}]
_BY_TYPE: dict[Any, list[Any]] = {bool: [False, True], int: NUMBERS, str: TEXTS}

_HINTS: dict[type[Any], dict[str, Any]] = {}


def types_of(kind: type[Any]) -> dict[str, Any]:
    """Return the fields of a dataclass with their types."""
    if kind not in _HINTS:
        _HINTS[kind] = {name: hint for name, hint in get_type_hints(kind).items() if name in kind.__dataclass_fields__}
    return _HINTS[kind]


@dataclass
class Wild(Pair):
    """A run to which anything may happen.

    `written` are the fields that have been given another value than their default, with the type that they are in.
    """

    written: set[tuple[str, str]] = field(default_factory=set)
    at: dict[str, str] = field(default_factory=dict)  # the statuses as they will be after the operations drawn so far

    def begin(self) -> None:
        self.create(runtime=self.pick(["celery", "celery", "local"]))
        root = Activation(
            path="",
            role=Role.BLOCK,
            phase=Phase.SETTLE,
            status=self.pick([ActivationStatus.OPEN, ActivationStatus.SUCCESS]),
        )
        block = Activation(
            path="0", step="s0", status=ActivationStatus.OPEN, pending_children=2, total=4, next_item=1, never_started=1
        )
        ops = (
            CreateActivation(root),
            UpdateRun({"status": StoredStatus.RUNNING, **self.begins()}),
            CreateActivation(block),
            CreateActivation(self.activation("1")),
        )
        self.commit(Change(RequestGuard(self.token(), frozenset({StoredStatus.PENDING})), ops, **self.spans()))

    # What is drawn.

    def value(self, name: str, hint: Any) -> Any:
        """A value for the field of this name and type."""
        if name in _FORMS:
            return self.pick(_FORMS[name])
        own = getattr(self, f"draw_{name}", None)
        if own is not None:
            return own() if type(None) in get_args(hint) or name != "event" else self.draw_event(optional=False)
        if is_dataclass(hint):
            return self.build(hint)  # type: ignore[arg-type]
        if hint in _BY_TYPE:
            return self.pick(_BY_TYPE[hint])
        return self._composed(name, hint)

    def _composed(self, name: str, hint: Any) -> Any:
        kind, inside = get_origin(hint), get_args(hint)
        if kind in (Union, types.UnionType):
            one = self.pick(inside)
            return None if one is type(None) else self.value(name, one)
        if kind is tuple:
            return tuple(self.value(name, inside[0]) for _ in range(self.draw(st.integers(0, 2))))
        if isinstance(kind, type) and issubclass(kind, Mapping):
            keys = self.draw(st.lists(st.sampled_from(["k", "l", "é"]), max_size=2, unique=True))
            return {key: self.value(name, inside[1]) for key in keys}
        if isinstance(kind, type) and issubclass(kind, AbstractSet):
            return kind({self.value(name, inside[0])})
        raise TypeError(f"say in `wild` how {name}: {hint} is to be drawn")

    def build(self, kind: type[Any], **given: Any) -> Any:
        """An object of this type; what is not given is drawn."""
        drawn = {name: self.value(name, hint) for name, hint in types_of(kind).items() if name not in given}
        return kind(**drawn, **given)

    def some(self, kind: type[Any], without: AbstractSet[str], most: int = 3) -> dict[str, Any]:
        """Values for some fields of this type."""
        hints = {name: hint for name, hint in types_of(kind).items() if name not in without}
        names = self.draw(st.lists(st.sampled_from(sorted(hints)), max_size=most, unique=True))
        return {name: self.value(name, hints[name]) for name in names}

    def activation(self, path: str) -> Activation:
        """Return an activation to be created."""
        begins = [
            status for status in TABLE[ABSENT].may_follow if status is not ActivationStatus.RUNNING
        ]  # that takes a claim
        status = self.pick([ActivationStatus.QUEUED, *begins, *([ActivationStatus.FAILED] if self.rarely() else [])])
        known = {"step": f"s{path}", "component": "STEP"}
        return Activation(**{**known, **self.some(Activation, KEYS, 6), "path": path, "status": status})

    def rarely(self) -> bool:
        return bool(self.pick([False] * 15 + [True]))

    def draw_claim(self) -> str:
        return str(self.pick(["", "", "", self.token()]))

    def draw_settle_token(self) -> str:
        return str(self.pick(["", self.token()]))

    def draw_delay(self) -> int:
        return int(self.pick([0, 0, LONG]))

    draw_lease = draw_redelivery_delay = Pair.lease

    def draw_max_events(self) -> int:
        return int(self.pick(KEEPS))

    def draw_max_event_age(self) -> int:
        return int(self.pick(AGES))

    def draw_settle_now(self) -> bool:
        return bool(self.pick([False] * 7 + [True]))

    def draw_values(self) -> dict[str, str]:
        return {self.pick(["v1", "v2", self.token()]): self.pick(["=1", "=[]"])}

    def draw_event(self, *, optional: bool = True) -> dict[str, Any] | None:
        return self.pick(_EVENTS[not optional :])  # type: ignore[no-any-return]

    def draw_events(self) -> tuple[dict[str, Any], ...]:
        return self.pick([(), (), ({"type": "told"}, {"type": "told again"}), self.burst()])  # type: ignore[no-any-return]

    def draw_drop(self) -> tuple[str, ...]:
        gone = tuple(self.draw(st.lists(st.sampled_from([*self.paths(), "8"]), max_size=2)))
        for path in gone:
            self.at.pop(path, None)
        return gone

    def draw_drop_events(self) -> bool:
        return self.rarely()

    def draw_drop_values(self) -> tuple[str, ...]:
        return tuple(self.draw(st.lists(st.sampled_from(["v1", "v2", "none"]), max_size=1)))

    def draw_mailbox(self) -> MailboxUpdate | None:
        mailbox = self.memory.mail(self.run_id, "event", 1000)
        pop, push = self.pick(["", "é/", "?x", *mailbox]), self.pick(["", "v1", "é/", "?a0#t", "?b10#é"])
        bounds = {
            "max_events": self.pick([0, 0, 2]),
            "max_bytes": self.pick([0, 0, 20]),
            "anywhere": self.draw(st.booleans()),
        }
        size = self.draw(st.integers(0, 12))
        update = self.build(MailboxUpdate, name="event", push=push, pop=pop, size=size, **bounds)
        return self.pick([None, update])  # type: ignore[no-any-return]

    def draw_expect_state(self) -> str | None:
        header = self.memory.header(self.run_id)
        return self.pick([None, None, header.state_version if header else "", "1:é"])  # type: ignore[no-any-return]

    def draw_unless(self) -> str:
        return str(self.pick(["", "", "failure", "live", *types_of(RunHeader)]))

    def draw_prefix(self) -> str:
        return str(self.pick(["", "0@@0", "é"]))

    def paths(self) -> list[str]:
        return [activation.path for activation in self.memory.load(self.run_id)]

    # Operations.

    def op(self) -> Op:
        """Any operation on what is there, or on what those before it put there."""
        kinds = [kind for kind in get_args(Op) if self.places(kind)]
        kind = self.pick(
            [*kinds, CreateActivation, *([UpdateActivation, UpdateActivation] if UpdateActivation in kinds else [])]
        )
        if kind is CreateActivation:
            return self.put()
        if kind is UpdateActivation:
            return self.set()
        if kind is UpdateRun:
            fields_ = {**self.some(RunHeader, FIXED | {"status"}, 2), **self.run_status()}
            return self.build(UpdateRun, fields=fields_)  # type: ignore[no-any-return]
        given: dict[str, Any] = {}
        if "path" in types_of(kind):
            given["path"] = self.pick(self.places(kind))
        if "template" in types_of(kind):
            given["template"] = self.activation(f"{given['path']}.0")
        if "then" in types_of(kind):
            given["then"] = self.set()
        return self.build(kind, **given)  # type: ignore[no-any-return]

    def places(self, kind: type[Any]) -> list[str]:
        """The paths of which an operation of this kind may speak."""
        if "path" not in types_of(kind):
            return ["anywhere"]
        # The run itself has no items, nor has a report.
        return [path for path in self.at if (path and not is_report(path)) or "template" not in types_of(kind)]

    def put(self) -> CreateActivation:
        activation, claim = (
            self.activation(self.pick([*self.at, "3", "0.0", "0.10", "1.1", *REPORTS])),
            self.draw_claim(),
        )
        self.at[activation.path] = ActivationStatus.RUNNING if claim else activation.status
        return self.build(CreateActivation, activation=activation, claim=claim)  # type: ignore[no-any-return]

    def set(self) -> UpdateActivation:
        """Other values, perhaps another status, and mostly one that may follow."""
        path = self.pick(list(self.at))
        before = TABLE[self.at[path]]
        follows = {*before.may_follow, *(before.root_may_follow if not path else ())}
        claim = self.draw_claim() if ActivationStatus.RUNNING in follows or self.rarely() else ""
        options = [
            *(status for status in ActivationStatus if status in follows),
            *([*ActivationStatus] if self.rarely() else []),
        ]
        options = [status for status in options if status is not ActivationStatus.RUNNING]
        status = {"status": self.pick(options)} if options and self.draw(st.booleans()) else {}
        self.at[path] = ActivationStatus.RUNNING if claim else status.get("status", self.at[path])
        fields_ = {**self.some(Activation, KEYS), **status}
        return self.build(UpdateActivation, path=path, fields=fields_, claim=claim)  # type: ignore[no-any-return]

    def run_status(self) -> dict[str, StoredStatus]:
        """Another status of the run, and mostly one that may follow."""
        if not self.pick([False, False, True]):
            return {}
        header = self.memory.header(self.run_id) or RunHeader()
        return {
            "status": self.pick([*RUN_TABLE[header.status].may_follow, *([*StoredStatus] if self.rarely() else [])])
        }

    def ops(self) -> tuple[Op, ...]:
        ops = [self.op() for _ in range(self.draw(st.integers(0, 5)))]
        if self.pick([False] * 9 + [True]):  # more than an answer remembers
            ops += [CreateActivation(Activation(path=f"9.{n}", route='{"name":"r"}')) for n in range(55)]
        if ops and not isinstance(ops[-1], UpdateActivation) and self.draw(st.booleans()):
            ops.append(ops[-1])
        return tuple(ops)

    def expected(self) -> tuple[Precondition, ...]:
        activations = self.memory.load(self.run_id)
        picked = self.draw(st.lists(st.sampled_from(activations), max_size=2)) if activations else []
        wrong = self.pick([0] * 6 + [1])
        expect = [
            self.build(
                Precondition,
                path=activation.path,
                status=activation.status,
                seq=activation.seq + wrong,
                deadline=self.moment(activation),
            )
            for activation in picked
        ]
        return (*expect, Precondition("8", ActivationStatus.QUEUED, 1)) if self.rarely() else tuple(expect)

    def moment(self, activation: Activation) -> int | None:
        """The activation's moment as it may be expected: one that a clock has made is another in each store."""
        known = activation.deadline if activation.deadline in _FORMS["deadline"] else None
        return self.pick([None, None, known, *([7] if self.rarely() else [])])  # type: ignore[no-any-return]

    def guard(self) -> LeaseGuard | RequestGuard:
        mine = [activation for activation in self.claims[-4:] if activation.lease_token]
        lease_guards = [
            self.build(
                LeaseGuard,
                path=one.path,
                token=one.lease_token,
                flush_seq=self.draw(st.integers(0, 3)),
                ender=self.pick(["", "", self.token()]),
            )
            for one in mine
        ]
        header = self.memory.header(self.run_id) or RunHeader()
        statuses = self.pick([frozenset(StoredStatus), frozenset({StoredStatus.RUNNING})])
        generation, settle_count = (
            self.pick([None, None, header.generation, 1]),
            self.pick([None, None, header.settle_count]),
        )
        request_guard = self.build(
            RequestGuard,
            id=self.pick(["", self.token()]),
            statuses=statuses,
            generation=generation,
            settle_count=settle_count,
            commits=self.pick([None, None, None, header.commits]),
            undoes=self.pick(["", "", "other", header.last_request_id]),
        )
        return self.pick([request_guard, *lease_guards])  # type: ignore[no-any-return]

    # What may happen.

    def create(self, **known: Any) -> RunHeader:
        """Create the run with any fields, but as one in which there are no activations yet."""
        known = {**self.some(RunHeader, FIXED | {"status"} | COUNTS, 4), **known}
        self.written |= {("RunHeader", name) for name in known}
        return super().create(**known)

    def commit(self, change: Change, as_theirs: Change | None = None) -> Claimed | None:
        """Commit to both, and remember what has been written."""
        self.note(change)
        return super().commit(change, as_theirs)

    def note(self, value: Any) -> None:
        """Remember what has been written, field by field."""
        if isinstance(value, tuple | list):
            for one in value:
                self.note(one)
        if not is_dataclass(value):
            return
        kind = type(value).__name__
        for about in fields(value):
            drawn = getattr(value, about.name)
            if drawn and drawn != about.default:
                self.written.add((kind, about.name))
            self.note(drawn)
        if isinstance(value, UpdateActivation | UpdateRun):
            self.written |= {(f"{kind}.fields", name) for name in value.fields}

    def anything(self) -> None:
        """A change of any kind."""
        self.at = {activation.path: activation.status for activation in self.memory.load(self.run_id)}
        drop = self.draw_drop()
        self.commit(self.build(Change, guard=self.guard(), drop=drop, ops=self.ops(), expect=self.expected()))

    def again(self) -> None:
        """A change is sent again. If it names an activation that has gone since, that is an error in both."""
        mine, theirs = self.pick(self.changes[:-12:-1])
        try:
            self.commit(mine, theirs)
        except KeyError:
            with pytest.raises((KeyError, StoreRefused)):
                self.other.commit(self.run_id, theirs)

    def ask(self) -> None:
        """A worker claims, by a message that may be stale, or once more by a token of before."""
        path = self.pick([*self.paths(), "8"])
        activations = self.memory.load(self.run_id, [path])
        seq = activations[0].seq if activations else 1
        token = self.pick([None, None, None, *(activation.lease_token or None for activation in activations)])
        self.claim(path, seq + self.pick([0] * 7 + [1]), token)

    def go_on(self) -> None:
        """Let all this happen, in any order."""
        self.drive(*[self.anything] * 8, *[self.ask] * 4, *[self.again] * 3, self.renew, self.create_again, self.forget)
