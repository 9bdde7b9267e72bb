"""Stored text: a value of its own, or references to other values.

A value is written once under its id and never changes. The output of a join is no copy of its parts: it refers to the
outputs of the children. The first character tells the forms apart, so a store can keep values without reading them.
This module must not know how a value is encoded: that is the codec's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

# JSON cannot begin with this character, so the first character is enough to tell a value from references.
OWN = "="

EMPTY_DICT = "{}"
EMPTY_LIST = "[]"


def own(text: str) -> str:
    """Mark encoded text as a value of its own."""
    return OWN + text


def refers_dict(refs: Mapping[str, str]) -> str:
    """Write a dict whose values are other stored values, named by their ids. The empty id stands for None."""
    # References keep joins cheap: ten thousand results are a list of ten thousand ids, and no result is written twice.
    return json.dumps(dict(refs), separators=(",", ":"))


def refers_list(refs: Iterable[str]) -> str:
    """Write a list whose items are other stored values, named by their ids. The empty id stands for None."""
    return json.dumps(list(refs), separators=(",", ":"))


def references(text: str) -> tuple[str, ...]:
    """List the ids that a stored value refers to."""
    if text.startswith(OWN):
        return ()
    # Readers and purges follow references, so the order is that of the text, and None leads nowhere.
    parsed = json.loads(text)
    refs = parsed.values() if isinstance(parsed, dict) else parsed
    return tuple(ref for ref in refs if ref)
