"""The format: what a tagged value looks like in the text, and the limits that both sides keep.

The text is `{"v":1,"d":<value>}`. A value without a JSON form of its own is an object with the single key `$<tag>`. A
user's object with a single key that begins with `$` gets one more `$`, which the reader takes off. So the reader needs
no context, and text without `{"$` holds no tag at all, which is the reader's short cut.
"""

from __future__ import annotations

VERSION = 1

DATETIME = "$datetime"
DATE = "$date"
TIME = "$time"
TIMEDELTA = "$timedelta"
DECIMAL = "$decimal"
UUID = "$uuid"
BYTES = "$bytes"
SET = "$set"
FROZENSET = "$frozenset"
FLOAT = "$float"  # nan and the infinities
TEXT = "$text"  # a string that JSON's escapes would change
ERROR = "$error"
TUPLE = "$tuple"  # only among the args and attributes of an exception: elsewhere a tuple becomes a list
ISSUE = "$issue"

PREFIX = f'{{"v":{VERSION},"d":'
MARK = '{"$'

MAX_DEPTH = 128
MAX_NESTED_ERRORS = 20


class NotEncodable(Exception):
    """A value has no JSON form. `path` collects the keys on the way out, innermost first."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []
