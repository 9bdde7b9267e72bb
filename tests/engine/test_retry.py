"""A store that is away is asked again, for so long and no longer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

from orchestrator.engine import retry
from orchestrator.engine.retry import retry_while_unavailable
from orchestrator.errors import StoreUnavailable
from orchestrator.testing import VirtualClock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> VirtualClock:
    """A clock by which both the pauses and the end are told."""
    made = VirtualClock()
    monkeypatch.setattr(retry, "monotonic", lambda: made.now() / 1000)
    return made


def answers(*found: Any) -> Callable[[], Any]:
    """A call that raises or returns these, one after the other."""
    left: Iterator[Any] = iter(found)

    def call() -> Any:
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return call


def test_the_answer_of_a_store_that_is_back_is_returned(clock: VirtualClock) -> None:
    """The pauses in between double."""
    begin = clock.now()
    assert retry_while_unavailable(answers(StoreUnavailable("1"), StoreUnavailable("2"), "there"), clock, 10) == "there"
    assert clock.now() - begin == 50 + 100


def test_a_store_that_stays_away_is_given_up(clock: VirtualClock) -> None:
    """The error is the store's own; the last pause may go a little beyond the end."""
    calls = []

    def call() -> None:
        calls.append(clock.now())
        raise StoreUnavailable("away")

    with pytest.raises(StoreUnavailable, match="away"):
        retry_while_unavailable(call, clock, 10)
    assert 10_000 <= calls[-1] - calls[0] <= 12_000
    assert max(late - early for early, late in pairwise(calls)) == 2_000


@pytest.mark.parametrize("seconds, calls", [(1.0, 2), (0.0, 1)])
def test_a_process_that_stood_still_asks_once_more(clock: VirtualClock, seconds: float, calls: int) -> None:
    """All its time went by in the first call. Where it has none to spend, it asks once."""
    asked = []

    def call() -> str:
        asked.append(clock.now())
        if len(asked) == 1:
            clock.advance(5.0)
            raise StoreUnavailable
        return "back"

    if calls == 1:
        with pytest.raises(StoreUnavailable):
            retry_while_unavailable(call, clock, seconds)
    else:
        assert retry_while_unavailable(call, clock, seconds) == "back"
    assert len(asked) == calls


def test_two_interruptions_are_survived(clock: VirtualClock) -> None:
    """A soft time limit strikes wherever the thread is, and the commit has to be made all the same."""
    assert retry_while_unavailable(answers(TimeoutError("1"), TimeoutError("2"), "done"), clock, 10) == "done"
    assert clock.now() == VirtualClock().now()


def test_a_third_interruption_is_the_calls_own_error(clock: VirtualClock) -> None:
    """It would come for ever."""
    with pytest.raises(KeyError):
        retry_while_unavailable(answers(KeyError(1), KeyError(2), KeyError(3), "never"), clock, 10)


def test_without_interruptions_the_first_error_is_raised(clock: VirtualClock) -> None:
    """As the writer of a chunk has it."""
    with pytest.raises(KeyError):
        retry_while_unavailable(answers(KeyError(1), "never"), clock, 10, interruptions=0)
