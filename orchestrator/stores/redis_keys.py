"""The names of the Redis store's keys, and the members of its listing index.

A run belongs to one of a fixed number of shards. All keys of a shard share a hash tag, so that a script stays on one
node of a cluster, and each name follows from shard and run alone.
"""

from __future__ import annotations

from binascii import crc32
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from orchestrator.ports import RunQuery

SEPARATOR = "\x1f"  # in a timer's member: namespace, run, path


@dataclass(frozen=True, slots=True)
class RunKeys:
    """The keys of one run, and those of its shard that its commits write."""

    header: str  # the header as JSON
    activations: str  # hash of activations as JSON, by path
    values: str  # hash of stored texts, by value id
    state: str  # hash of stored texts, by key
    context: str  # the same
    events: str  # stream of events as JSON
    timers: str  # of the shard: sorted set of namespace, run id and path, by deadline
    awaiting: str  # sorted set of equal scores: the activations with an awaiting status (`awaiting_ranges`)
    mailboxes: str  # sorted set of equal scores: the entries of all mailboxes, each behind its event's name
    settled: str  # stream with the last settling alone, for blocking reads
    index: str  # of the shard: see `index_prefix`
    requests: str  # hash of replies by request id: those for which the header has no room any more
    request_moments: str  # sorted set of the same ids, by the moment at which they came there

    @property
    def claim(self) -> tuple[str, ...]:
        """The keys that a claim touches, in the order of its script."""
        return (self.header, self.activations, self.values, self.state, self.context, self.events, self.timers)

    @property
    def commit(self) -> tuple[str, ...]:
        """The keys that a commit (and a deletion) touches, in the order of their scripts."""
        return (
            *self.claim,
            self.awaiting,
            self.mailboxes,
            self.settled,
            self.index,
            self.requests,
            self.request_moments,
        )


# A sweep needs the keys of a run to read a timer, and again to commit what follows.
@lru_cache(maxsize=1_000)
def _run_keys(tag: str, run_id: str) -> RunKeys:
    return RunKeys(
        header=f"{tag}:header:{run_id}",
        activations=f"{tag}:activations:{run_id}",
        values=f"{tag}:values:{run_id}",
        state=f"{tag}:state:{run_id}",
        context=f"{tag}:context:{run_id}",
        events=f"{tag}:events:{run_id}",
        timers=f"{tag}:timers",
        awaiting=f"{tag}:awaiting:{run_id}",
        mailboxes=f"{tag}:mail:{run_id}",
        settled=f"{tag}:settled:{run_id}",
        index=f"{tag}:index",
        requests=f"{tag}:requests:{run_id}",
        request_moments=f"{tag}:request-moments:{run_id}",
    )


@dataclass(frozen=True, slots=True)
class Layout:
    """All key names below one prefix."""

    prefix: str
    shards: int

    def tag(self, shard: int) -> str:
        """Return the beginning of all keys of a shard."""
        return f"{{{self.prefix}:{shard}}}"

    def tags(self) -> list[str]:
        """Return the beginnings of the keys of all shards."""
        return [self.tag(shard) for shard in range(self.shards)]

    def shard(self, run_id: str) -> int:
        """Return the shard of a run."""
        return crc32(run_id.encode("utf-8", "surrogatepass")) % self.shards

    def run(self, run_id: str) -> RunKeys:
        """Return the keys of a run."""
        return _run_keys(self.tag(self.shard(run_id)), run_id)

    def timers(self, shard: int) -> str:
        """Return the timers of a shard: one sorted set of members by their deadlines."""
        return f"{self.tag(shard)}:timers"

    def index(self, shard: int) -> str:
        """Return the listing index of a shard: one sorted set of equal scores, in the order of its members' bytes."""
        return f"{self.tag(shard)}:index"

    def indexes(self) -> list[str]:
        """Return the listing indexes of all shards."""
        return [self.index(shard) for shard in range(self.shards)]

    def sweep(self, namespace: str) -> str:
        """Return the key of the right to sweep a namespace."""
        return f"{self.tag(self.shard(namespace))}:sweep:{namespace}"

    def workers(self, namespace: str) -> str:
        """Return the key of a namespace's workers."""
        return f"{self.tag(self.shard(namespace))}:workers:{namespace}"

    def bell(self, beside: str, token: str) -> str:
        """Return the key by which a process ends a blocking read of its own, in the shard of another key."""
        return f"{beside.partition('}')[0]}}}:bell:{token}"

    @property
    def format(self) -> str:
        """The key of the format and the number of shards that the store was first used with.

        No release may give it another name: by it each refuses the stores of the others.
        """
        return f"{self.tag(0)}:format"


def parse_timer(member: str, namespace: str) -> tuple[str, str]:
    """Return run and path of a timer's member, of this namespace."""
    run_id, _, path = member[len(namespace) + 1 :].rpartition(SEPARATOR)
    return run_id, path


def awaiting_ranges(below: Sequence[str] | None, label: str | None) -> tuple[str, ...]:
    """Return the ranges of awaiting activations at or below these paths, or with this label; else of all.

    Each is three words: the beginning of its members, which the path follows, and the ends of the range. An activation
    has one member by its path alone, and one by its label if it has one.
    """
    if label is not None:
        first = f"l{_part(label)}"
        return first, f"[{first}", f"({first};"
    if below is None:
        return "p", "[p", "(q"
    return tuple(word for path in dict.fromkeys(below) for word in ("p", f"[p{path}", f"(p{path}/"))


def _part(text: str) -> str:
    return f"{len(text.encode())}:{text}:"


def mail_range(name: str) -> tuple[bytes, bytes, bytes]:
    """Return the beginning of the members of a mailbox, and the bounds between which they stand."""
    first = _part(name).encode()
    return first, b"[" + first, b"(" + first + b"@"  # entries begin with a digit or `?`


def index_prefix(query: RunQuery) -> tuple[str, bool]:
    """Return the beginning of the index members of these runs, and True where nothing else has to be compared.

    Members are `<prefix><created_at, 15 digits>:<run id>`. A run has one for all runs, one by workflow, one by status
    and one by both; and one more by its resource with each of these. While something in it is awaited, it has each of
    them once more.
    """
    workflow = "" if query.workflow_id is None else _part(query.workflow_id)
    status = "" if query.status is None else _part(query.status)
    kind = {(False, False): "a", (True, False): "w", (False, True): "s", (True, True): "b"}
    resource = "r" + _part(query.resource_id) if query.resource_id else ""
    prefix = (
        "h" * query.awaiting
        + resource
        + kind[query.workflow_id is not None, query.status is not None]
        + workflow
        + status
    )
    # A run without a resource has no member that says so.
    return prefix, query.resource_id != ""
