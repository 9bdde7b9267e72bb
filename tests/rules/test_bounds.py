"""The bounds of what comes from data."""

from __future__ import annotations

import pytest

from orchestrator.rules.bounds import MAX_SECONDS, check_timeout, name_size, to_delay


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


@pytest.mark.parametrize(
    "name, size", [("", 0), ("a", 1), ("é", 2), ("🎉", 4), ('"', 2), ("\n", 2), ("\0", 6), ("\ud800", 3)]
)
def test_a_name_is_as_long_as_it_is_stored(name: str, size: int) -> None:
    """As JSON in UTF-8, without the quotes; half a surrogate pair too, which is refused elsewhere."""
    assert name_size(name) == size


def test_a_timeout_is_a_number() -> None:
    """However large; and there may be none."""
    for timeout in (None, 0.0, -1.0, 5.0, float("inf")):
        check_timeout(timeout)
    with pytest.raises(ValueError, match="nan"):
        check_timeout(float("nan"))
