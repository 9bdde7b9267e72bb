"""A foreach that may run very many items at a time: no commit starts all of them, and all of them run."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from orchestrator import Orchestrator, Workflow, step
from orchestrator.rules.change import StartNextItem
from orchestrator.rules.plan import MAX_STARTED
from orchestrator.stores.memory import MemoryStore

COUNT = 3 * MAX_STARTED + 50


class Counting(MemoryStore):
    """A store that counts the items that each commit starts."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[int] = []

    def commit(self, run_id: str, change: Any) -> Any:
        self.started.append(sum(isinstance(op, StartNextItem) for op in change.ops))
        return super().commit(run_id, change)


@step
def double(x: int) -> int:
    return 2 * x


@step
def fail_on_ten(x: int) -> int:
    if x == 10:
        raise ValueError("ten")
    return x


@pytest.mark.parametrize("concurrency", [COUNT - 20, 10 * COUNT])
def test_a_wide_foreach_starts_its_items_in_pieces(concurrency: int) -> None:
    """Its result is what it would be otherwise."""
    flow = Workflow("wide", input=list[int]).foreach(double, concurrency=concurrency).commit()
    store = Counting()
    # In one thread, so that no item ends between two pieces and starts one of the next.
    with Orchestrator(store=store, workflows=[flow], local_threads=0) as orchestrator:
        result = orchestrator.create_run(flow).start(list(range(COUNT)), timeout=60)
    assert result.result == [2 * x for x in range(COUNT)]
    pieces = Counter(count for count in store.started if count > 1)
    assert max(pieces) == MAX_STARTED
    # Items that end meanwhile start others by themselves, so the last pieces may be smaller than they would be.
    assert 2 <= pieces[MAX_STARTED] <= min(concurrency, COUNT) // MAX_STARTED
    assert pieces.total() <= min(concurrency, COUNT) // MAX_STARTED + 1


def test_items_that_end_while_others_are_still_to_start_take_their_part_of_them() -> None:
    """Each item runs once, and no commit starts more than it may."""
    flow = Workflow("wide", input=list[int]).foreach(double, concurrency=COUNT).commit()
    store = Counting()
    with Orchestrator(store=store, workflows=[flow]) as orchestrator:
        result = orchestrator.create_run(flow).start(list(range(COUNT)), timeout=60)
    assert result.result == [2 * x for x in range(COUNT)]
    assert max(store.started) == MAX_STARTED
    assert sum(count for count in store.started if count > 1) <= COUNT


def test_an_item_that_fails_ends_a_wide_foreach() -> None:
    """Whichever piece it belongs to."""
    flow = Workflow("wide", input=list[int]).foreach(fail_on_ten, concurrency=COUNT).commit()
    with Orchestrator(workflows=[flow]) as orchestrator:
        result = orchestrator.create_run(flow).start(list(range(COUNT)), timeout=60)
    assert result.status == "failed"
