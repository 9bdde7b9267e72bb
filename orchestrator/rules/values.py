"""Stored text: a value of its own, or references to others.

A value is written once under its id and never changes. The output of a join is not copied together: it refers to the
outputs of the children. The first character tells the forms apart, so that a store can keep them without reading them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

OWN = "="
DICT = "{"
LIST = "["

EMPTY_DICT = "{}"
EMPTY_LIST = "[]"


def own(text: str) -> str:
    """Encoded text as a value of its own."""
    return OWN + text


def refers_dict(refs: Mapping[str, str]) -> str:
    """A dict whose values are other values, by their ids; the empty id is None."""
    return json.dumps(dict(refs), separators=(",", ":"))


def refers_list(refs: Iterable[str]) -> str:
    """A list whose items are other values, by their ids; the empty id is None."""
    return json.dumps(list(refs), separators=(",", ":"))


def references(text: str) -> tuple[str, ...]:
    """The ids that a stored value refers to."""
    if text.startswith(OWN):
        return ()
    parsed = json.loads(text)
    refs = parsed.values() if isinstance(parsed, dict) else parsed
    return tuple(ref for ref in refs if ref)
