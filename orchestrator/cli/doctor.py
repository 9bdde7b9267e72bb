"""`doctor`: the configuration, servers, workers and stuck runs of a deployment, each with what to do about it.

It reads, and changes nothing. Each question has its end, and what it costs does not grow with the store: of runs it
looks at the hundred oldest that are running, and at the newest two hundred.
"""

from __future__ import annotations

import importlib.metadata
import platform
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from orchestrator.app import Orchestrator
from orchestrator.app.client import Client
from orchestrator.cli.access import Session
from orchestrator.engine.announcements import Announcement, read_announcements
from orchestrator.engine.findings import Finding, Severity
from orchestrator.errors import OrchestratorError, StoreUnavailable
from orchestrator.host import SystemClock, monotonic
from orchestrator.ports import UNREADABLE, RunQuery
from orchestrator.rules.model import Activation, ActivationStatus, RunHeader, StoredStatus

_T = TypeVar("_T")

CODES = {Severity.OK: 0, Severity.INFO: 0, Severity.WARNING: 1, Severity.ERROR: 2}

_PACKAGES = ("celery-orchestrator", "celery", "kombu", "pydantic", "redis", "sqlalchemy", "psycopg")
_OLDEST = 100  # running runs that are looked at
_NEWEST = 200  # runs whose headers are
_TIMERS = 100  # due timers that are
_NAMED = 5  # things of one kind that a sentence names
_REPLY = 1.0  # seconds in which workers answer by remote control
_MAX_CLOCK = 5_000  # ms that this process's clock may differ from the store's
_LATE = 10  # ticks, and seconds, by which a timer may be late


def doctor(at: Session, seconds: float) -> int:
    """Examine the deployment, giving each question so many seconds; returns the exit code."""
    found = Examination(at.orchestrator, seconds)
    findings = list(found.run())
    worst = max((finding.severity for finding in findings), key=list(Severity).index)
    if at.output.as_json:
        shown = [
            {"name": each.name, "severity": each.severity, "sentence": each.sentence, "remedy": each.remedy}
            for each in findings
        ]
        at.output.json({"status": worst, "findings": shown, "versions": found.versions, "workers": found.workers()})
    else:
        cells = [
            [each.name, each.severity.value, f"{each.sentence}{f' ({each.remedy})' if each.remedy else ''}"]
            for each in findings
        ]
        at.output.table(("CHECK", "STATUS", "FINDING"), cells)
    return CODES[worst]


class Unanswered(Exception):
    """A question took too long."""


def ask(seconds: float, question: Callable[[], _T]) -> _T:
    """Return the answer, or raise what the question raises; `Unanswered` where it takes longer than that."""
    answers: list[_T] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            answers.append(question())
        except Exception as error:  # noqa: BLE001  (raised again, in the thread that has asked)
            errors.append(error)

    # Clients wait by rules of their own, and not all can be told how long. Whoever is asked too long is left behind.
    thread = threading.Thread(target=work, name="orchestrator-doctor", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        raise Unanswered(f"no answer in {seconds:g} s")
    return answers[0]


class Examination:
    """One look at a deployment. A part that does not answer is a finding, and what would need it is left out."""

    def __init__(self, orchestrator: Orchestrator, seconds: float) -> None:
        self._orchestrator = orchestrator
        self._seconds = seconds
        self._announced: list[Announcement] = []
        self._alive: list[str] = []
        self._has_broker = False
        self.versions = {"python": platform.python_version(), **_versions()}

    def workers(self) -> dict[str, list[str]]:
        """Return the queues of each worker that announces itself in the store."""
        queues: dict[str, list[str]] = {worker: [] for worker in self._alive}
        for one in self._announced:
            queues.setdefault(one.worker, []).extend(one.queues)
        return queues

    def run(self) -> Iterator[Finding]:
        """Yield what is found, part by part."""
        yield Finding("versions", Severity.OK, ", ".join(f"{name} {each}" for name, each in self.versions.items()))
        client, problem = self._compose()
        is_shared = self._orchestrator.app is not None and (client is None or client.runtime.is_shared)
        configured = self._configuration(client) if is_shared else []
        yield from configured
        if problem and not _is_bad(configured):
            yield Finding("orchestrator", Severity.ERROR, problem)
        stored = self._store(client) if client is not None else []
        yield from stored
        if is_shared:
            yield from self._servers()
        if client is not None and not _is_bad(stored):
            yield from self._content(client)

    def _servers(self) -> Iterator[Finding]:
        broker = self._part("broker", self._broker, "check broker_url and that the broker runs")
        yield from broker
        self._has_broker = not _is_bad(broker)
        yield from self._part("result backend", self._backend, "check result_backend and that its server runs")

    def _content(self, client: Client) -> Iterator[Finding]:
        if client.runtime.is_shared:
            yield from self._part("workers", lambda: self._workers(client))
            yield from self._part("timers", lambda: self._timers(client))
            yield from self._part("queues", lambda: self._queues(client))
            if self._has_broker:
                yield from self._part("remote control", lambda: self._control(client))
        yield from self._part("runs", lambda: self._runs(client))

    def _compose(self) -> tuple[Client | None, str]:
        """Return the client; or None, and why there is none."""
        try:
            return self._orchestrator.client, ""
        except (ValueError, TypeError, ImportError, OrchestratorError) as error:
            return None, str(error)

    def _part(self, name: str, look: Callable[[], Iterable[Finding]], remedy: str = "") -> list[Finding]:
        try:
            return ask(self._seconds, lambda: list(look()))
        except Exception as error:  # noqa: BLE001  (a client of whatever kind; the other parts are looked at)
            text = str(error) if isinstance(error, Unanswered) else f"{type(error).__name__}: {error}"
            return [Finding(name, Severity.ERROR, text, remedy)]

    # --- configuration and servers -----------------------------------------------------------------------------------

    def _configuration(self, client: Client | None) -> list[Finding]:
        from orchestrator.canvas.deployment import configuration_findings, routing_findings

        app: Any = self._orchestrator.app
        if client is not None:
            publishes = client.settings.publish_events
        else:
            publishes = bool(app.conf.get("orchestrator_publish_events"))
        workflows = list(self._orchestrator.registry.all())
        found = configuration_findings(app, publishes_events=publishes) + routing_findings(app, workflows)
        if not any(finding.severity in (Severity.WARNING, Severity.ERROR) for finding in found):
            found.insert(0, Finding("configuration", Severity.OK, "nothing in it is against workflows"))
        return found

    def _store(self, client: Client) -> list[Finding]:
        def look() -> list[Finding]:
            store = client.store
            store.now()  # which opens a connection, and compares the format
            begin, before = monotonic(), SystemClock().now()
            now = store.now()
            taken, after = monotonic() - begin, SystemClock().now()
            found = [Finding("store", Severity.OK, f"answers in {taken * 1000:.1f} ms, and has this release's format")]
            ahead = (before + after) // 2 - now
            if abs(ahead) > _MAX_CLOCK:
                where = "ahead of" if ahead > 0 else "behind"
                sentence = f"this process's is {abs(ahead) / 1000:.1f} s {where} the store's"
                remedy = "deadlines go by the store's, and an `eta` by the caller's: synchronize the hosts"
                found.append(Finding("clock", Severity.WARNING, sentence, remedy))
            return found

        return self._part("store", look, "check the store's URL and that its server runs")

    def _broker(self) -> Iterator[Finding]:
        from orchestrator.canvas.probes import ask_broker

        begin = monotonic()
        place = ask_broker(self._orchestrator.app)
        yield Finding("broker", Severity.OK, f"{place} answers in {(monotonic() - begin) * 1000:.1f} ms")

    def _backend(self) -> Iterator[Finding]:
        from orchestrator.canvas.probes import ask_backend

        place = ask_backend(self._orchestrator.app)
        if place is not None:
            yield Finding("result backend", Severity.OK, f"{place} answers")

    # --- workers -----------------------------------------------------------------------------------------------------

    def _workers(self, client: Client) -> Iterator[Finding]:
        space = client.settings.namespace
        self._alive = client.store.workers(space)
        self._announced = read_announcements(client.store, space)
        if not self._alive:
            sentence = f"no worker announces itself in namespace {space!r}: runs wait"
            yield Finding("workers", Severity.ERROR, sentence, "start one: celery -A … worker")
            return
        queues = sorted({queue for one in self._announced for queue in one.queues})
        sentence = f"{len(self._alive)} in namespace {space!r} ({_some(self._alive)}), listening on {_some(queues)}"
        yield Finding("workers", Severity.OK, sentence)

    def _timers(self, client: Client) -> Iterator[Finding]:
        store, settings = client.store, client.settings
        due = [one for one in store.due_timers(settings.namespace, _TIMERS) if not one.problem]
        late = max((store.now() - one.activation.deadline for one in due), default=0) / 1000
        if late > max(_LATE, _LATE * settings.tick_seconds):
            sentence = f"the most overdue one is {late:.0f} s late: no scheduler keeps up"
            remedy = "look for 'tick' in the logs of the workers; without workers, run `tick`"
            yield Finding("timers", Severity.WARNING, sentence, remedy)
        else:
            sentence = f"the most overdue one is {late:.1f} s late" if due else "none is due"
            yield Finding("timers", Severity.OK, sentence)

    def _control(self, client: Client) -> Iterator[Finding]:
        from orchestrator.canvas.deployment import queues_of
        from orchestrator.canvas.probes import ask_workers

        app: Any = self._orchestrator.app
        answers = ask_workers(app, min(_REPLY, self._seconds / 2))
        if not answers:
            return
        ours = queues_of(app, self._orchestrator.registry.all())
        for worker, queues in sorted(answers.items()):
            taken = sorted(ours.keys() & set(queues))
            if worker not in self._alive and taken:
                sentence = (
                    f"worker {worker!r} takes steps from {_some(taken)} and does not announce itself in this store: it "
                    "throws them away, or has another store or namespace"
                )
                remedy = "start it with the app that has the orchestrator, or give it other queues"
                yield Finding("workers", Severity.WARNING, sentence, remedy)

    def _queues(self, client: Client) -> Iterator[Finding]:
        from orchestrator.canvas.deployment import queues_of

        if not self._announced:
            return
        listened = {queue for one in self._announced for queue in one.queues}
        for queue, step in queues_of(self._orchestrator.app, self._orchestrator.registry.all()).items():
            if queue not in listened:
                sentence = f"no worker listens on {queue!r}, where step {step} goes"
                yield Finding("queues", Severity.WARNING, sentence, f"start a worker with -Q {queue}")

    # --- runs --------------------------------------------------------------------------------------------------------

    def _runs(self, client: Client) -> Iterator[Finding]:
        store, parked, unheard = client.store, [], Counter[str]()
        unreadable = [header.run_id for header in store.runs(RunQuery(limit=_NEWEST)) if header.status == UNREADABLE]
        due = store.due_timers(client.settings.namespace, _TIMERS) if client.runtime.is_shared else []
        unreadable += [one.header.run_id for one in due if one.problem]
        page = store.stale_runs(StoredStatus.RUNNING.value, store.now() + 1, limit=_OLDEST)
        for header in filter(client.is_own, page.headers):
            try:
                activations = store.load(header.run_id)
            except StoreUnavailable:
                raise
            except Exception:  # noqa: BLE001  (whatever stands there instead)
                unreadable.append(header.run_id)
                continue
            parked += [f"run {header.run_id}, step {one.step}: {one.parked}" for one in activations if one.parked]
            unheard.update(self._unheard(header, activations))
        for queue, count in unheard.items():
            sentence = f"no worker listens on {queue!r}, where steps of {count} run(s) wait"
            yield Finding("runs", Severity.ERROR, sentence, f"start a worker with -Q {queue}")
        if parked:
            sentence = f"{len(parked)} step(s) are parked, for no worker can run them: {_some(parked, '; ')}"
            yield Finding("runs", Severity.WARNING, sentence, "deploy workers that have what the reason names")
        if unreadable:
            names = list(dict.fromkeys(unreadable))
            sentence = f"{len(names)} run(s) cannot be read, and are set aside: {_some(names)}"
            remedy = "mend them, delete them, or run the release that wrote them"
            yield Finding("runs", Severity.WARNING, sentence, remedy)
        if not (unheard or parked or unreadable):
            count = len(page.headers)
            sentence = f"of the {count} oldest that are running none is stuck" if count else "none is running"
            yield Finding("runs", Severity.OK, sentence)

    def _unheard(self, header: RunHeader, activations: Iterable[Activation]) -> set[str]:
        """Return the queues of the run's queued steps that no worker listens on, as far as that is known."""
        if not self._announced:
            return set()
        from orchestrator.canvas.listeners import queue_of_activation

        listened = {queue for one in self._announced for queue in one.queues}
        queued = [one for one in activations if one.status == ActivationStatus.QUEUED]
        queues = {queue_of_activation(self._orchestrator.app, header, one) for one in queued}
        return {queue for queue in queues if queue is not None} - listened


def _is_bad(findings: Iterable[Finding]) -> bool:
    return any(finding.severity is Severity.ERROR for finding in findings)


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # an extra
    return found


def _some(names: Iterable[str], between: str = ", ") -> str:
    known = list(names)
    more = f"{between}and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
    return between.join(known[:_NAMED]) + more if known else "none"
