"""The names of the Redis store's keys, and the members of its listing index.

A run belongs to one of a fixed number of shards. All keys of a shard share a hash tag, so that a script stays on one
node of a cluster, and each name follows from shard and run alone.
"""

from __future__ import annotations

from binascii import crc32
from dataclasses import dataclass

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
    awaiting: str  # set of the paths of activations with an awaiting status
    mailboxes: str  # hash of lists as JSON, by event name
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


@dataclass(frozen=True, slots=True)
class Layout:
    """All key names below one prefix."""

    prefix: str
    shards: int

    def tag(self, shard: int) -> str:
        """Return the beginning of all keys of a shard."""
        return f"{{{self.prefix}:{shard}}}"

    def shard(self, run_id: str) -> int:
        """Return the shard of a run."""
        return crc32(run_id.encode("utf-8", "surrogatepass")) % self.shards

    def run(self, run_id: str) -> RunKeys:
        """Return the keys of a run."""
        tag = self.tag(self.shard(run_id))
        return RunKeys(
            header=f"{tag}:header:{run_id}",
            activations=f"{tag}:activations:{run_id}",
            values=f"{tag}:values:{run_id}",
            state=f"{tag}:state:{run_id}",
            context=f"{tag}:context:{run_id}",
            events=f"{tag}:events:{run_id}",
            timers=f"{tag}:timers",
            awaiting=f"{tag}:awaiting:{run_id}",
            mailboxes=f"{tag}:mailboxes:{run_id}",
            settled=f"{tag}:settled:{run_id}",
            index=f"{tag}:index",
            requests=f"{tag}:requests:{run_id}",
            request_moments=f"{tag}:request-moments:{run_id}",
        )

    def timers(self, shard: int) -> str:
        """Return the timers of a shard: one sorted set of members by their deadlines."""
        return f"{self.tag(shard)}:timers"

    def index(self, shard: int) -> str:
        """Return the listing index of a shard: one sorted set of equal scores, in the order of its members' bytes."""
        return f"{self.tag(shard)}:index"

    def sweep(self, namespace: str) -> str:
        """Return the key of the right to sweep a namespace."""
        return f"{self.tag(self.shard(namespace))}:sweep:{namespace}"

    def workers(self, namespace: str) -> str:
        """Return the key of a namespace's workers."""
        return f"{self.tag(self.shard(namespace))}:workers:{namespace}"

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


def _part(text: str) -> str:
    return f"{len(text.encode())}:{text}:"


def index_prefix(query: RunQuery) -> tuple[str, bool]:
    """Return the beginning of the index members of these runs, and True where nothing else has to be compared.

    Members are `<prefix><created_at, 15 digits>:<run id>`. A run has one for all runs, one by workflow, one by status,
    one by both and one by resource. Other conditions are compared with the headers.
    """
    exact = query.before is None
    if query.resource_id:
        return "r" + _part(query.resource_id), exact and query.workflow_id is None and query.status is None
    exact = exact and query.resource_id is None
    if query.workflow_id is not None and query.status is not None:
        return "b" + _part(query.workflow_id) + _part(query.status), exact
    if query.workflow_id is not None:
        return "w" + _part(query.workflow_id), exact
    if query.status is not None:
        return "s" + _part(query.status), exact
    return "a", exact
