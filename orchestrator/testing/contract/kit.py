"""Helpers of the contract's tests: runs without a workflow, short forms of the port's verbs, threads."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from orchestrator.host import new_run_id, new_token
from orchestrator.ports import Store
from orchestrator.rules.change import (
    Change,
    Claimed,
    ClaimRequest,
    Committed,
    CreateActivation,
    LeaseGuard,
    Op,
    Refused,
    RequestGuard,
    UpdateActivation,
    UpdateRun,
)
from orchestrator.rules.mailbox import MailboxUpdate, event_of, is_waiter
from orchestrator.rules.model import (
    Activation,
    ActivationFields,
    ActivationStatus,
    Phase,
    Role,
    RunHeader,
    StoredStatus,
)
from orchestrator.rules.timers import on_deadline
from orchestrator.rules.transitions import ABSENT, TABLE

_K = TypeVar("_K")
_T = TypeVar("_T")

EVENTED = "celery"
LEASE = 60  # ms: short enough to really wait for
LONG = 60_000
_PATIENCE = 30  # seconds until a forked process is given up
ACTIVE = frozenset({StoredStatus.RUNNING, StoredStatus.SUSPENDED, StoredStatus.PAUSED})

OPAQUE = {
    "empty list": "=[]",
    "empty dict": "={}",
    "nested empties": '={"a":[],"b":{},"c":[[]]}',
    "big integer": "=123456789012345678901234567890",
    "float": "=1.0",
    "exponent": "=1e400",
    "unicode": '="grüß 🐍 \u2028 \u05d0"',
    "escaped NUL": '="a\\u0000b"',
    "escaped surrogate": '="\\ud83d"',
    "quotes": '="\\"\'\\\\%s {0} $1 :name"',
    "line breaks": '="\r\n\t"',
    "references": '["a","","b"]',
    "empty": "",
    "one megabyte": "=" + "x" * 1_000_000,
}


class Conditions:
    """The base of every part of the contract."""

    def advance(self, store: Store, ms: int) -> None:
        """Let `ms` pass on the store's clock: a real one is waited for; override it where the clock is virtual."""
        end = store.now() + ms
        while store.now() <= end:
            threading.Event().wait(0.002)


# What else a change may write; of a refused one nothing of it may be seen.
EXTRAS: Mapping[str, Any] = {
    "values": {"extra": "=1"},
    "state": {"extra": "=2"},
    "context": {"extra": "=3"},
    "events": ({"type": "extra"},),
    "mailbox": MailboxUpdate("box", push="extra"),
}


def a_header(**fields: Any) -> RunHeader:
    """Return a pending run with an id and a namespace of its own."""
    known = {"run_id": new_run_id(), "workflow_id": "contract", "fingerprint": "f", "namespace": new_run_id()}
    return RunHeader(**{**known, "runtime": EVENTED, **fields})


def an_activation(path: str, **fields: Any) -> Activation:
    """Return an activation, queued unless another status is given."""
    status = str(fields.pop("status", ActivationStatus.QUEUED))
    return Activation(path=path, step="s" + path, component="STEP", status=status, **fields)


def ops_to_create(activation: Activation, delay: int = 0) -> tuple[Op, ...]:
    """Return operations that create an activation of any status.

    Where no activation may begin with the status, a claim leads there, which leaves neither event nor moment.
    """
    if activation.status in TABLE[ABSENT].may_follow:
        return (CreateActivation(activation, delay=delay),)
    begun = replace(activation, status=ActivationStatus.QUEUED, quiet=True)
    as_it_is: ActivationFields = {
        "status": activation.status,
        "quiet": activation.quiet,
        "flush_seq": activation.flush_seq,
        "parked": activation.parked,
        "first_seq": activation.first_seq,
        "started_at": activation.started_at,
    }
    return CreateActivation(begun, new_token()), UpdateActivation(activation.path, as_it_is, delay=delay)


def claimed_of(answer: Claimed | Refused) -> Claimed:
    """Return the answer, which must be no refusal."""
    assert isinstance(answer, Claimed), answer
    return answer


def committed_of(answer: Committed | Refused) -> Committed:
    """Return the answer, which must be no refusal."""
    assert isinstance(answer, Committed), answer
    return answer


def reason_of(answer: Claimed | Committed | Refused) -> str:
    """Return the reason of the answer, which must be a refusal."""
    assert isinstance(answer, Refused), answer
    return answer.reason


class StartedRun:
    """A run that has begun with these activations, seen through the port.

    Its own activation is not open unless a test asks for it, so that the run does not settle whenever nothing is live.
    """

    def __init__(
        self,
        store: Store,
        *activations: Activation,
        root: ActivationStatus = ActivationStatus.SUCCESS,
        redelivery_delay: int = LONG,
        **fields: Any,
    ) -> None:
        header = a_header(**fields)
        self.store, self.id, self.namespace, self.workflow = store, header.run_id, header.namespace, header.workflow_id
        store.create(header)
        own = Activation(path="", step="contract", component="RUN", role=Role.BLOCK, phase=Phase.SETTLE, status=root)
        births = [op for activation in activations for op in ops_to_create(activation)]
        ops: tuple[Op, ...] = (CreateActivation(own), UpdateRun({"status": StoredStatus.RUNNING}), *births)
        guard = RequestGuard(new_token(), frozenset({StoredStatus.PENDING}))
        committed_of(store.commit(self.id, Change(guard, ops, redelivery_delay=redelivery_delay)))

    @property
    def header(self) -> RunHeader:
        """The header as it is now."""
        header = self.store.header(self.id)
        assert header is not None
        return header

    def activation(self, path: str) -> Activation:
        """Return the activation at `path` as it is now."""
        (activation,) = self.store.load(self.id, [path])
        return activation

    def counts(self) -> tuple[int, int, int, int]:
        """Return the numbers of live, suspended, waiting and paused activations."""
        header = self.header
        return header.live, header.suspended, header.waiting, header.paused

    def due_timers(self) -> list[str]:
        """Return the paths of the activations of its namespace that are due."""
        return [due.activation.path for due in self.store.due_timers(self.namespace)]

    def event_docs(self, kind: str = "") -> list[Mapping[str, Any]]:
        """Return its events, of one type or of all."""
        return [event.doc for event in self.store.events(self.id) if kind in ("", event.doc["type"])]

    def claim(self, path: str, token: str = "", lease: int = LONG) -> Claimed:
        """Claim the activation as it is now."""
        seq = self.activation(path).seq
        return claimed_of(self.store.claim(ClaimRequest(self.id, path, seq, token or new_token(), lease)))

    def take_over(self, path: str, token: str = "", lease: int = LONG) -> Claimed:
        """Take an activation whose lease is over from its holder, as a sweep does, and claim it."""
        swept = on_deadline(self.header, self.activation(path), LONG)
        assert swept is not None
        committed_of(self.store.commit(self.id, swept.change))
        return self.claim(path, token, lease)

    def refused_claim(self, path: str, seq: int) -> str:
        """Return the reason why the claim of a message with this number is refused."""
        return reason_of(self.store.claim(ClaimRequest(self.id, path, seq, new_token())))

    def commit(self, path: str, token: str, *ops: Any, **fields: Any) -> Committed:
        """Commit under the lease of a claim."""
        return committed_of(self.store.commit(self.id, Change(LeaseGuard(path, token), ops, **fields)))

    def refused_commit(self, path: str, token: str, *ops: Any) -> str:
        """Return the reason why a commit under this lease is refused."""
        return self.refused(Change(LeaseGuard(path, token), ops))

    def commit_request(self, *ops: Any, **fields: Any) -> Committed:
        """Commit a change from outside, whatever the run's status is."""
        return committed_of(
            self.store.commit(self.id, Change(RequestGuard(new_token(), frozenset(StoredStatus)), ops, **fields))
        )

    def refused(self, change: Change) -> str:
        """Return the reason why the change is refused."""
        return reason_of(self.store.commit(self.id, change))

    def mail(self, name: str) -> list[str]:
        """Return what is in the mailbox of this name: ids of events, or entries of waits."""
        found = self.store.mail(self.id, name, 1000)
        return [entry if is_waiter(entry) else event_of(entry) for entry in found]

    def push(self, name: str, **update: Any) -> Committed:
        """Change a mailbox in a commit of its own."""
        return self.commit_request(mailbox=MailboxUpdate(name, **update))

    def snapshot(self) -> tuple[Any, ...]:
        """Return all that a refused or a repeated commit must not have touched."""
        events = [event.doc for event in self.store.events(self.id)]
        texts = self.store.values(self.id, EXTRAS["values"]), self.store.state(self.id), self.store.context(self.id)
        return self.header, self.store.load(self.id), events, texts, self.mail(EXTRAS["mailbox"].name)


def is_no_value(call: Callable[[], object]) -> bool:
    """Tell if the call raises ValueError."""
    try:
        call()
    except ValueError:
        return True
    return False


def together(*calls: Callable[[], Any]) -> list[Any]:
    """Make the calls in threads of their own, all at once, and return their answers; the first error is raised here."""
    answers: dict[int, Any] = {}
    errors: list[BaseException] = []
    gate = threading.Barrier(len(calls))

    def run(n: int) -> None:
        gate.wait()
        try:
            answers[n] = calls[n]()
        except BaseException as error:  # noqa: BLE001 - a thread's border: it is raised again below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [answers[n] for n in range(len(calls))]


def each(call: Callable[[_K], _T], items: Iterable[_K]) -> list[_T]:
    """Make one call for each of the items, all at once."""
    return together(*(partial(call, item) for item in items))


def in_a_child(call: Callable[[], object]) -> str:
    """Make the call in a forked process and return what went wrong there: nothing, if it is empty."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks while other threads run, in newer Pythons
        child = os.fork()
    if not child:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(_PATIENCE)
            call()
        except BaseException as error:  # noqa: BLE001 - a process's border
            os.write(writer, repr(error).encode()[:4000] or b"?")
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8", errors="replace") as pipe:
        said = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return said or (f"the process ended with {code}" if code else "")
