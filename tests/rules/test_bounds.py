"""The bounds of what comes from data."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from orchestrator.rules.bounds import MAX_SECONDS, name_size, to_delay, to_seconds, to_timeout


@pytest.mark.parametrize(
    "seconds, delay",
    [(0.0, 0), (-1.0, 0), (0.5, 500), (1.5, 1_500), (float("-inf"), 0), (MAX_SECONDS, round(MAX_SECONDS * 1000))],
)
def test_a_length_of_time_is_milliseconds_from_now_on(seconds: float, delay: int) -> None:
    """What is over already, or never was, begins now."""
    assert to_delay(seconds, "a sleep") == delay


@pytest.mark.parametrize("seconds", [MAX_SECONDS + 1, float("inf"), float("nan")])
def test_a_length_of_time_that_never_ends_is_refused_by_name(seconds: float) -> None:
    """With the longest that there may be."""
    with pytest.raises(ValueError, match=rf"the retry takes {seconds!r} seconds, where 3153600000 \(100 years\)"):
        to_delay(seconds, "the retry")


def test_an_integer_that_no_float_can_hold_is_endless() -> None:
    """JSON may have one of any length. The refusal does not repeat all of it."""
    with pytest.raises(ValueError, match=r"^the retry takes inf seconds, where"):
        to_delay(10**5_000, "the retry")
    assert to_delay(-(10**5_000), "the retry") == 0


@pytest.mark.parametrize("given", ["3", b"3", None, [3.0]])
def test_what_is_no_number_is_refused_by_name(given: Any) -> None:
    """A text that looks like one, too: a definition refuses it in the same words."""
    with pytest.raises(TypeError, match=f"^the retry takes seconds, not {re.escape(repr(given))}$"):
        to_seconds(given, "the retry")


@pytest.mark.parametrize(
    "name, size", [("", 0), ("a", 1), ("é", 2), ("🎉", 4), ('"', 2), ("\n", 2), ("\0", 6), ("\ud800", 3)]
)
def test_a_name_is_as_long_as_it_is_stored(name: str, size: int) -> None:
    """As JSON in UTF-8, without the quotes; half a surrogate pair too, which is refused elsewhere."""
    assert name_size(name) == size


def test_a_timeout_is_a_number() -> None:
    """However large; and there may be none."""
    assert [to_timeout(timeout) for timeout in (None, 0.0, -1.0, 5, float("inf"))] == [None, 0.0, -1.0, 5.0, math.inf]
    assert to_timeout(10**400) == math.inf
    with pytest.raises(ValueError, match="nan"):
        to_timeout(float("nan"))
