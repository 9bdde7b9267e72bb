"""The part of a state that matters for all that can follow: histories that differ in nothing else meet again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from orchestrator.rules.change import Claimed, LeaseGuard, RequestGuard
from orchestrator.rules.mailbox import event_of, is_waiter, waiter_path
from orchestrator.rules.model import Activation, RunHeader
from tests.simulation import acts
from tests.simulation.state import (
    Confirms,
    Finds,
    Holds,
    Insists,
    Local,
    Looks,
    Means,
    Parent,
    PutsBack,
    Read,
    Repeats,
    Sends,
    State,
    Tells,
    Undoes,
    User,
)


def key(state: State, now: int) -> Any:
    """The state with its numbers and tokens renamed, as something that can be compared and hashed."""
    name = _Names(state)
    asked = {local.change.guard for local in state.workers if isinstance(local, Repeats)}
    header = state.header
    return (
        (header.status, header.outcome, bool(header.failure), header.closed, header.settle_count > 0),
        (header.generation, header.per_step, header.settle_count > state.awaited, header.runtime, header.namespace),
        (state.kept, state.context, state.starts),
        tuple(_activation_key(activation, now, name, asked) for activation in state.activations),
        tuple(sorted((path, name.number(seq)) for path, seq in state.messages)),
        tuple(sorted((_worker_key(local, name, now, header) for local in state.workers), key=repr)),
        _local_key(state.scheduler, name, now),
        _local_key(state.aside, name, now),
        state.budget,
        state.ended,
        tuple(map(name.entry, state.mail)),
        state.notes,
        tuple(sorted((_user_key(user, state, name) for user in state.users), key=repr)),
    )


class _Names:
    """Numbers by their order, tokens by their first appearance among the activations."""

    def __init__(self, state: State) -> None:
        numbers = {activation.seq for activation in state.activations} | {seq for _, seq in state.messages}
        for local in (*state.workers, state.scheduler, state.aside):
            match local:
                case Holds(claimed=claimed):
                    numbers.add(claimed.activation.seq)
                case Tells(dispatches=dispatches, claimed=claimed):
                    numbers |= {dispatch.seq for dispatch in dispatches}
                    numbers |= {claimed.activation.seq} if claimed else set()
                case Read(activation=activation):
                    numbers.add(activation.seq)
                case _:
                    pass
        for user in state.users:
            numbers.update(_numbers_of(user, state))
        self.ranks = {number: rank for rank, number in enumerate(sorted(numbers))}
        self.waiters = {activation.waiter for activation in state.activations if activation.waiter}
        self.tokens = {
            activation.lease_token: activation.path for activation in state.activations if activation.lease_token
        }

    def number(self, seq: int) -> int:
        return self.ranks.get(seq, -1)

    def entry(self, entry: str) -> str:
        """An entry of the mailbox: a value, or whether this waiter still waits."""
        if not is_waiter(entry):
            return event_of(entry)
        return f"{waiter_path(entry)} {'waits' if entry in self.waiters else 'has gone'}"

    def token(self, token: str) -> str:
        """The path that the token is the lease of; tokens of no lease are alike."""
        return self.tokens.get(token, "-") if token else ""


def _activation_key(activation: Activation, now: int, name: _Names, asked: set[Any]) -> tuple[Any, ...]:
    was: Any = ""
    if activation.last_lease_token and LeaseGuard(activation.path, activation.last_lease_token) in asked:
        was = ("asked", *_answer_key(activation.last_reply, name))
    return (
        activation.path,
        activation.status,
        activation.phase,
        activation.visit,
        name.number(activation.seq),
        bool(activation.lease_token),
        was,
        bool(activation.deadline) and activation.deadline <= now,
        (
            activation.attempt,
            activation.abandoned_attempts,
            activation.iteration,
            activation.pending_children,
            activation.next_item,
            activation.total,
            activation.never_started,
            len(activation.finished.split()),
        ),
        (
            activation.resumed,
            activation.tripwire,
            bool(activation.label),
            bool(activation.waiter),
            activation.resume == acts.AGAIN,
        ),
        (activation.flush_seq, bool(activation.parked), activation.settled, activation.following),
        tuple(id_ for id_ in (activation.resume, activation.output) if id_.startswith("v")),
    )


def _answer_key(answer: str, name: _Names) -> tuple[Any, ...]:
    told, claimed, token, *_ = json.loads(answer) if answer else ([], None, "")
    return tuple((path, name.number(seq)) for path, seq, _, _ in told), claimed, name.token(token)


# --- those in the middle of something ------------------------------------------------------------------------


def _worker_key(local: Local, name: _Names, now: int, header: RunHeader) -> Any:
    """With the notes that a worker has read, where there are any, and whether they are the latest."""
    key = _local_key(local, name, now)
    read = local.claimed if isinstance(local, Holds | Tells) else None
    if read is None or not header.state_version:
        return key
    return key, acts.notes_of(read.state), read.header.state_version == header.state_version


def _local_key(local: Local, name: _Names, now: int) -> Any:
    match local:
        case None:
            return ()
        case Holds(claimed=claimed, at=at, mail=mail, flushed=flushed, unheard=unheard):
            read = None if mail is None else tuple(map(name.entry, mail))
            return ("holds", *_claim_key(claimed, name), at, read, flushed, unheard is not None)
        case Tells(dispatches=dispatches, claimed=claimed):
            told = tuple(sorted((dispatch.path, name.number(dispatch.seq)) for dispatch in dispatches))
            return ("tells", told, _claim_key(claimed, name) if claimed else ())
        case Repeats(change=change):
            guard = change.guard
            assert isinstance(guard, LeaseGuard)
            return ("repeats", guard.path, name.token(guard.token))
        case Finds(path=path):
            return ("finds", path)
        case Read(activation=activation):
            return ("read", activation.path, activation.status, name.number(activation.seq), activation.deadline <= now)


def _claim_key(claimed: Claimed, name: _Names) -> tuple[Any, ...]:
    activation, header = claimed.activation, claimed.header
    mine = name.token(activation.lease_token)
    counts = (
        activation.attempt,
        activation.abandoned_attempts,
        activation.iteration,
        activation.resumed,
        activation.resume == acts.AGAIN,
    )
    about = (header.outcome, bool(header.failure), header.generation, header.per_step)
    return (activation.path, activation.phase, activation.visit, mine, counts, about)


def _user_key(user: User, state: State, name: _Names) -> Any:
    header = state.header
    match user:
        case Sends(entries=entries, waiting=waiting, value=value):
            about = (waiting.path, waiting.status, name.number(waiting.seq)) if waiting else ()
            return "sends", tuple(map(name.entry, entries)), about, value
        case Means():
            return "means", *_means_key(user, header, name)
        case Undoes(means=means, change=change, number=number):
            may_be = number == header.commits, number in state.told, len(change.ops)
            return "undoes", *_means_key(means, header, name), *may_be
        case Looks(means=means):
            return "looks", *_means_key(means, header, name)
        case Confirms(means=means, change=change):
            assert isinstance(change.guard, RequestGuard)
            read = tuple((expect.path, name.number(expect.seq)) for expect in change.expect)
            return "confirms", *_means_key(means, header, name), read, change.guard.commits in (None, header.commits)
        case Parent(way=way, activation=activation, change=change):
            read = () if change is None else tuple((e.path, name.number(e.seq), e.deadline) for e in change.expect)
            token = name.token(change.guard.token) if change and isinstance(change.guard, LeaseGuard) else ""
            mine = (activation.path, name.number(activation.seq), name.token(activation.lease_token))
            return "parent", way, *mine, change is None, read, token
        case PutsBack(dispatches=dispatches):
            return "puts back", tuple(sorted((dispatch.path, name.number(dispatch.seq)) for dispatch in dispatches))
        case Insists(means=means, settle_count=settle_count):
            reply = state.reply_to(user)
            known = () if reply is None else _answer_key(reply, name)
            return "insists", *_means_key(means, header, name), known, header.settle_count == settle_count


def _means_key(means: Means, header: RunHeader, name: _Names) -> tuple[Any, ...]:
    """Generation and settle count only ever grow: what matters is whether they still are as they were read."""
    read, ops = means.header, tuple(getattr(op, "path", "") for op in means.change.ops)
    same: tuple[bool, ...] = read.generation == header.generation, read.settle_count == header.settle_count
    guard = means.change.guard
    if isinstance(guard, RequestGuard) and guard.commits is not None:
        same = *same, guard.commits == header.commits
    activations = tuple(
        (activation.path, activation.status, name.number(activation.seq)) for activation in means.activations
    )
    return means.wish, read.status, same, ops, activations


def _numbers_of(user: User, state: State) -> Iterator[int]:
    match user:
        case Sends(waiting=waiting):
            yield from [waiting.seq] if waiting is not None else []
        case Means(activations=activations):
            yield from (activation.seq for activation in activations)
        case Undoes(means=means) | Looks(means=means):
            yield from (activation.seq for activation in means.activations)
        case Confirms(means=means, change=change):
            yield from (activation.seq for activation in means.activations)
            yield from (expect.seq for expect in change.expect)
        case Parent(activation=activation, change=change):
            yield activation.seq
            yield from () if change is None else (expect.seq for expect in change.expect)
        case PutsBack(dispatches=dispatches):
            yield from (dispatch.seq for dispatch in dispatches)
        case Insists(means=means):
            yield from (activation.seq for activation in means.activations)
            if reply := state.reply_to(user):
                yield from (seq for _, seq, _, _ in json.loads(reply)[0])
