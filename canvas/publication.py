"""Events of runs for other systems: each commit's events go to an exchange of the broker as well.

The log in the store stays the truth. A published event is small (it has no values) and comes at most once: an event
that cannot be sent is dropped, so that no step ever waits for it or fails by it.
`docs/events.md` has the schema; `orchestrator.contrib.events` reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from celery import Celery
from kombu import Exchange

from orchestrator.canvas.sending import FLUSH_SECONDS, RETRY_ONCE, BackgroundPublisher
from orchestrator.engine.read.events import WORKFLOW, call_id
from orchestrator.ports import Store
from orchestrator.rules.change import (
    Change,
    Claimed,
    ClaimRequest,
    Committed,
    CountDown,
    Doc,
    EmitProgress,
    Op,
    Refused,
)
from orchestrator.rules.events import EventType, is_reserved
from orchestrator.rules.model import RunHeader
from orchestrator.rules.stamps import start_event

EXCHANGE = "orchestrator.events"
VERSION = 1

_MAX_KEY = 255  # bytes of a routing key, by AMQP


def exchange_of(connection: Any) -> Exchange:
    """Return the exchange on this broker: a topic; on Redis a fanout, by its publish and subscribe."""
    # Redis keeps the messages of a topic for consumers that may never come; published ones do not pile up.
    kind = "fanout" if connection.transport.driver_type == "redis" else "topic"
    return Exchange(EXCHANGE, type=kind, durable=True)


def routing_key(body: Doc) -> str:
    """`<workflow>.<type>`, cut at the length that AMQP allows."""
    return f"{body['workflow_id']}.{body['type']}".encode()[:_MAX_KEY].decode(errors="ignore")


def event_messages(header: RunHeader, docs: Iterable[Doc]) -> Iterator[Doc]:
    """Yield the events of one commit as they are published; `header` is as the commit has left it."""
    at = datetime.fromtimestamp(header.updated_at / 1000, UTC).isoformat(timespec="milliseconds")
    for index, doc in enumerate(docs):
        yield {
            "version": VERSION,
            "namespace": header.namespace,
            "run_id": header.run_id,
            "workflow_id": header.workflow_id,
            "type": doc["type"],
            "at": at,
            "commit": header.commits,
            "index": index,
            "source": WORKFLOW if is_reserved(doc["type"]) else doc.get("source", WORKFLOW),
            "payload": _payload(header.run_id, doc),
        }


def _payload(run_id: str, doc: Doc) -> Doc:
    match doc["type"]:
        case EventType.WORKFLOW_FINISH:
            return {"workflow_status": doc["status"]}
        case EventType.REPORT_FAILED:
            return {"report": doc["report"], "workflow_status": doc["status"]}
        case EventType.STEP_PROGRESS:
            about = {"current_index": doc["index"], "iteration_status": doc["status"]}
        case EventType.STEP_SUSPENDED if "index" in doc:
            about = {"current_index": doc["index"]}
        case EventType.STEP_START:
            about = {"resumed": "resume" in doc}
        case EventType.STEP_RETRYING:
            about = {"retry_count": doc["retry_count"]}
        case EventType.STEP_RESULT:
            about = {"status": doc["status"]}
        case _:
            about = {}
    return {"id": doc["step"], "step_call_id": call_id(run_id, doc), **about} if "step" in doc else about


def events_of(change: Change, answer: Committed) -> list[Doc]:
    """The events of a change that was committed, in their order but for those that count a block's children."""
    counted = [event for op in change.ops if (event := _event_of(op)) is not None]
    begun = start_event(answer.claimed.activation) if answer.claimed is not None else None
    return [*change.events, *counted, *([begun] if begun is not None else [])]


def _event_of(op: Op) -> Doc | None:
    return op.event if isinstance(op, CountDown | EmitProgress) else None


class PublishingStore:
    """A decorator of a store that publishes the events of its commits and claims."""

    def __init__(self, store: Store, publisher: Publisher) -> None:
        self._store = store
        self._publisher = publisher

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def claim(self, ask: ClaimRequest) -> Claimed | Refused:
        """Claim, and publish the start of a step that begins by it."""
        answer = self._store.claim(ask)
        if isinstance(answer, Claimed) and (event := start_event(answer.activation)) is not None:
            self._publisher.publish(answer.header, [event])
        return answer

    def commit(self, run_id: str, change: Change) -> Committed | Refused:
        """Commit, and publish the events of a change that was not refused."""
        answer = self._store.commit(run_id, change)
        if isinstance(answer, Committed):
            self._publisher.publish(answer.header, events_of(change, answer))
        return answer

    def commit_many(self, changes: Sequence[tuple[str, Change]]) -> list[Committed | Refused]:
        """Commit, and publish the events of those that were not refused."""
        answers = self._store.commit_many(changes)
        for (_, change), answer in zip(changes, answers, strict=True):
            if isinstance(answer, Committed):
                self._publisher.publish(answer.header, events_of(change, answer))
        return answers


def publish_events_of(store: Store, app: Celery) -> Store:
    """Wrap a store so that its commits are published on the app's broker."""
    return cast(Store, PublishingStore(store, Publisher(app)))


class Publisher:
    """Sends the events of commits, in the background."""

    def __init__(self, app: Celery) -> None:
        self._background: BackgroundPublisher[Doc] = BackgroundPublisher(app, "event(s) of runs", _send)

    def publish(self, header: RunHeader, docs: Sequence[Doc]) -> None:
        """Send these events of one commit in the background. Never waits, never raises."""
        self._background.put(event_messages(header, docs))

    def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """Wait until everything is sent or dropped, for so many seconds at most."""
        self._background.flush(seconds)


def _send(producer: Any, batch: Sequence[Doc]) -> None:
    exchange = exchange_of(producer.connection)
    for body in batch:
        producer.publish(
            body,
            exchange=exchange,
            routing_key=routing_key(body),
            declare=[exchange],
            serializer="json",
            delivery_mode=1,
            retry=True,
            retry_policy=RETRY_ONCE,
        )
