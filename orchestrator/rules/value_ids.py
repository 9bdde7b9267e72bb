"""Value ids: how each value of a run gets the id under which it is written, once and for ever.

A store leaves a value that exists as it is, so two values must never have one id. Most ids begin with a token. Tokens
never come back and are all of one length, so ids of different tokens differ, whatever follows the token. The ids of one
token differ by what follows it. Items of a foreach are the exception: a worker that takes a dead one's place writes
them again, so their ids name their place and nothing else. They have an `@`, which no token has.
"""

from __future__ import annotations

# --- a claim's values, by its lease token ----------------------------------------------------------------------------


def make_outcome_id(lease_token: str) -> str:
    """The id of what an attempt has made: its output, suspend payload, checked input, or the dict or list of a join."""
    return lease_token  # an attempt has one outcome, so it makes one of these


def make_error_id(lease_token: str) -> str:
    """The id of the error with which an attempt has failed."""
    return f"{lease_token}!"  # beside the outcome's, for an attempt may have made that before it failed


def make_manifest_id(lease_token: str) -> str:
    """The id of the list of what an iteration has made, written by the claim that evaluates the loop's condition."""
    return f"{lease_token}m"  # beside the outcome's: the condition makes none where the loop goes on


# --- a caller's values, by a token that the request has drawn for the value ------------------------------------------


def make_input_id(token: str) -> str:
    """The id of a run's input."""
    return token  # no claim has this token, so no outcome has this id


def make_resume_id(token: str) -> str:
    """The id of the resume data of one activation."""
    return f"{token}r"  # each activation that is resumed draws a token


def make_event_id(token: str) -> str:
    """The id of an event's data. In a mailbox it stands among the entries of waiters."""
    return f"{token}v"  # begins with no `?`, as the entry of a waiter does: tokens have none


# --- the items of a foreach, by their place --------------------------------------------------------------------------


def make_items_prefix(path: str, visit: str, generation: int) -> str:
    """The beginning that the ids of one foreach's items have in common."""
    # A foreach spreads its items once in a visit and a generation. A repeat after a dead worker writes the same values.
    return f"{path}@{visit}@{generation}"


def make_item_id(prefix: str, index: int) -> str:
    """The id of an item's input. The Redis scripts make it by the same rule, for the index is known at the commit."""
    return f"{prefix}.{index}"  # the generation before it has no dot


def is_item_of(id_: str, path: str) -> bool:
    """Tell whether this is the id of an item's input, of the foreach at this path: in any visit and generation."""
    return id_.startswith(f"{path}@")  # no token is a path


# --- the values of a time travel, by the one token that it has drawn --------------------------------------------------


def make_travel_input_id(token: str) -> str:
    """The id of the input that the caller gives the target."""
    return f"{token}i"  # one target, one input


def make_override_id(token: str, number: int, part: str) -> str:
    """The id of what the caller says of a step: its `output`, `input`, `suspend` or `resume`. `number` counts steps."""
    letter = "" if part == "output" else part[0]
    return f"{token}c{number}{letter}"  # the letters of the parts differ, and are no digits of the number


def make_arm_id(token: str, index: int) -> str:
    """The id of what the arm of this index has made, taken from the input that the caller gives the target."""
    return f"{token}a{index}"  # there is one block before a target


def make_gathered_id(token: str, number: int) -> str:
    """The id of a block's dict that a time travel makes anew. `number` counts them."""
    return f"{token}.{number}"


def make_travel_resume_id(token: str, number: int) -> str:
    """The id of the resume data of one step behind the target. `number` counts such steps."""
    return f"{token}r{number}"  # a resume's own data has no number, and another token


def make_pending_id(token: str, key: str) -> str:
    """The id of what is pending for one activation until the run comes to it. `key` names its place and visit."""
    return f"{token}p{key}"  # a place is in one generation once
