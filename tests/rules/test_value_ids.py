"""No two values of a run have one id."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.host import new_token
from orchestrator.rules import value_ids
from orchestrator.rules.mailbox import WAITER


def _ids_of(token: str) -> Iterator[str]:
    """Make all ids that one token may be given, though each token is drawn for one purpose alone."""
    yield value_ids.make_outcome_id(token)
    yield value_ids.make_error_id(token)
    yield value_ids.make_manifest_id(token)
    yield value_ids.make_resume_id(token)
    yield value_ids.make_event_id(token)
    yield value_ids.make_travel_input_id(token)
    for number in range(120):
        yield value_ids.make_arm_id(token, number)
        yield value_ids.make_gathered_id(token, number)
        yield value_ids.make_travel_resume_id(token, number)
        yield value_ids.make_pending_id(token, f"{number}@")
        for part in ("output", "input", "suspend", "resume"):
            yield value_ids.make_override_id(token, number, part)


def _ids_of_items() -> Iterator[str]:
    for path in ("0", "0.1", "1", "1.0", "10", "11"):
        for visit in ("", "1", "1.1", "11"):
            for generation in (0, 1, 10):
                prefix = value_ids.make_items_prefix(path, visit, generation)
                yield from (value_ids.make_item_id(prefix, index) for index in range(12))


def test_all_ids_differ() -> None:
    """Numbers of several digits, places inside one another and tokens that are alike make no difference."""
    token = new_token()
    alike = [token, *(token[:-1] + last for last in "rvicam01" if last != token[-1])]
    found = [*(made for one in alike for made in _ids_of(one)), *_ids_of_items()]
    assert len(set(found)) == len(found)


def test_a_runs_input_is_told_from_outcomes_by_its_token() -> None:
    """Both are written under a token as it is; nothing draws one token for both."""
    token = new_token()
    assert value_ids.make_input_id(token) == value_ids.make_outcome_id(token) == token


def test_no_event_in_a_mailbox_looks_like_a_waiter() -> None:
    """Senders and waiters tell them apart by their first character."""
    assert not any(value_ids.make_event_id(new_token()).startswith(WAITER) for _ in range(1000))


def test_what_a_caller_says_of_a_step_has_an_id_for_each_part() -> None:
    """The output, which each has, the shortest. They are stored, so they are the same in each release."""
    parts = ("output", "input", "suspend", "resume")
    assert [value_ids.make_override_id("t", 3, part) for part in parts] == ["tc3", "tc3i", "tc3s", "tc3r"]
