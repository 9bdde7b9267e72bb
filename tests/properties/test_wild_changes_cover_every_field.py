"""The generated changes of `wild` say everything that a change can say: a new field is among it without more ado."""

from __future__ import annotations

from dataclasses import fields
from typing import get_args

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from orchestrator.rules.change import Change, Op, Precondition
from orchestrator.rules.mailbox import MailboxUpdate
from orchestrator.rules.model import Activation, RunHeader
from orchestrator.stores.memory import MemoryStore
from orchestrator.testing import VirtualClock
from tests.properties.wild import COUNTS, FIXED, KEYS, Wild, types_of


def _fields(kind: type) -> set[str]:
    return {field.name for field in fields(kind)}


def _all() -> set[tuple[str, str]]:
    """Every field of every type that a change is made of, and every field that an operation may set."""
    kinds = [Change, *get_args(types_of(Change)["guard"]), Precondition, MailboxUpdate, Activation, *get_args(Op)]
    whole = {(kind.__name__, name) for kind in kinds for name in _fields(kind)}
    set_ = {("UpdateActivation.fields", name) for name in _fields(Activation) - KEYS | {"status"}}
    run = {("UpdateRun.fields", name) for name in _fields(RunHeader) - FIXED}
    header = {("RunHeader", name) for name in _fields(RunHeader) - FIXED - COUNTS - {"status"}}
    return whole | set_ | run | header


def _write(number: int) -> set[tuple[str, str]]:
    """Draw some runs, always the same for this number, and return which fields they have written."""
    written: set[tuple[str, str]] = set()

    @seed(number)
    @settings(
        max_examples=20,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def draw(data: st.DataObject) -> None:
        run = Wild(MemoryStore(VirtualClock()), MemoryStore(VirtualClock()), data.draw)
        run.begin()
        run.go_on()
        written.update(run.written)

    draw()
    return written


def test_every_field_is_written_with_another_value_than_its_default() -> None:
    """In a few hundred runs at the most; each of them has up to 40 changes."""
    missing = _all()
    for number in range(20):
        missing -= _write(number)
        if not missing:
            break
    assert not missing
