"""Reading values: from their ids to what user code sees, asking the store only for what is not at hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from orchestrator.codec import ANY, Shape, decode, encode, restore
from orchestrator.core import values as texts
from orchestrator.errors import PayloadTooLarge, RemoteError

_PAGE = 500
_LONGEST_MESSAGE = 1_000


class Values:
    """The values of one run, read at most once each by `read`, a store's `values`. `known` is what a claim has
    brought.
    """

    def __init__(
        self, read: Callable[[str, list[str]], Mapping[str, str]], run_id: str, known: Mapping[str, str] | None = None
    ) -> None:
        self._read = read
        self._run_id = run_id
        self._texts = dict(known or {})

    def fetch(self, ids: Iterable[str]) -> None:
        """Read these values, and all that they refer to, in pages."""
        wanted = list(ids)
        while wanted:
            missing = sorted({key for key in wanted if key and key not in self._texts})
            for start in range(0, len(missing), _PAGE):
                self._texts.update(self._read(self._run_id, missing[start : start + _PAGE]))
            found = (self._texts[key] for key in wanted if key in self._texts)
            wanted = [ref for text in found for ref in texts.references(text) if ref not in self._texts]

    def plain(self, key: str) -> Any:
        """The value in plain shapes; None for the empty id."""
        if not key:
            return None
        if key not in self._texts:
            self.fetch([key])
        text = self._texts.get(key)
        if text is None:
            return None
        if text.startswith(texts.OWN):
            return decode(text[1:])
        refs = json.loads(text)
        self.fetch(texts.references(text))
        if isinstance(refs, dict):
            return {name: self.plain(ref) for name, ref in refs.items()}
        return [self.plain(ref) for ref in refs]

    def typed(self, key: str, shape: Shape = ANY) -> Any:
        """The value with its declared parts as their types."""
        return restore(shape, self.plain(key))


def stored(value: Any, where: str, limit: int) -> str:
    """A value as stored text. Raises `ValueNotSerializable` or `PayloadTooLarge`, naming `where`."""
    return texts.own(encode(value, where=where, limit=limit))


def stored_error(error: BaseException, limit: int) -> str:
    """An exception as stored text; one that is too large loses all but its message."""
    try:
        return texts.own(encode(error, where="error", limit=limit))
    except PayloadTooLarge:
        cut = RemoteError(str(error)[:_LONGEST_MESSAGE], name=type(error).__qualname__)
        return texts.own(encode(cut, where="error"))


def decoded(stored_texts: Mapping[str, str]) -> dict[str, Any]:
    """State or context: each key's stored text as a plain value."""
    return {key: decode(text) for key, text in stored_texts.items()}


def patch(before: Mapping[str, str], after: Mapping[str, Any], where: str, limit: int) -> dict[str, str | None]:
    """What turns `before` (stored text) into `after`: keys to set and (None) to delete."""
    changes: dict[str, str | None] = {key: None for key in before if key not in after}
    for key, value in after.items():
        text = encode(value, where=f"{where}[{key!r}]", limit=limit)
        if before.get(key) != text:
            changes[key] = text
    return changes
