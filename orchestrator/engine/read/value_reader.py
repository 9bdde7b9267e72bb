"""Values of a run: read by their ids and decoded, and encoded to be stored."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from orchestrator.codec import ANY, Packing, Shape, decode, encode, encode_packed, restore
from orchestrator.errors import PayloadTooLarge, RemoteError, ValueNotReadable
from orchestrator.rules import values as texts

_PAGE = 500  # values in one round trip
_MAX_MESSAGE = 1_000  # characters of an error that is too large as it is


class Values:
    """The values of one run. Each is read at most once by `read`, a store's `values`; `known` are those of a claim."""

    # Once is enough: a value is written once, under an id of its own, and never changes.

    def __init__(
        self, read: Callable[[str, list[str]], Mapping[str, str]], run_id: str, known: Mapping[str, str] | None = None
    ) -> None:
        self._read = read
        self._run_id = run_id
        self._texts = dict(known or {})

    def fetch(self, ids: Iterable[str]) -> None:
        """Read these values, and all that they refer to, in pages."""
        # Level by level, because the output of a block refers to those of its children, which may be blocks again. So
        # ten thousand outputs cost a few round trips and not ten thousand.
        wanted = list(ids)
        while wanted:
            missing = sorted({key for key in wanted if key and key not in self._texts})
            for start in range(0, len(missing), _PAGE):
                self._texts.update(self._read(self._run_id, missing[start : start + _PAGE]))
            found = (self._texts[key] for key in wanted if key in self._texts)
            wanted = [ref for text in found for ref in texts.references(text) if ref not in self._texts]

    def read_texts(self, ids: Iterable[str]) -> dict[str, str]:
        """Read the stored texts of these values, as far as they exist."""
        wanted = list(ids)
        self.fetch(wanted)
        return {key: self._texts[key] for key in wanted if key in self._texts}

    def closure(self, key: str) -> set[str]:
        """Return the ids of a value and of all that it refers to, however far down."""
        found: set[str] = set()
        level = {key} - {""}
        while level:
            found |= level
            refs = (texts.references(text) for text in self.read_texts(level).values())
            level = {ref for each in refs for ref in each} - found
        return found

    def is_whole(self, key: str) -> bool:
        """Return False where the value, or one that it refers to, is not in the store (any more)."""
        return all(id_ in self._texts for id_ in self.closure(key))

    def plain(self, key: str) -> Any:
        """Read the value in plain shapes; None for the empty id.

        Raises `ValueNotReadable` for a text that cannot be read, and for values that refer to each other in a circle.
        """
        try:
            return self._plain(key)
        except RecursionError:
            text = f"the stored value {key!r} of run {self._run_id!r} refers to itself, or is nested too deeply"
            raise ValueNotReadable(text, run_id=self._run_id) from None

    def _plain(self, key: str) -> Any:
        if not key:
            return None
        if key not in self._texts:
            self.fetch([key])
        text = self._texts.get(key)
        if text is None:  # the run has been deleted meanwhile, or it was the value of a finished iteration
            return None
        if text.startswith(texts.OWN):
            return decode(text[1:])
        refs = json.loads(text)
        self.fetch(texts.references(text))
        if isinstance(refs, dict):
            return {name: self._plain(ref) for name, ref in refs.items()}
        return [self._plain(ref) for ref in refs]

    def as_type(self, key: str, shape: Shape = ANY) -> Any:
        """Read the value as its declared type; a part that does not fit stays plain."""
        return restore(shape, self.plain(key))


def encode_value(value: Any, where: str, packing: Packing) -> str:
    """Encode a value as stored text. Raises `ValueNotSerializable` or `PayloadTooLarge`, naming `where`."""
    return texts.own(encode_packed(value, where, packing))


def encode_all(values: Mapping[str, Any], packing: Packing) -> dict[str, str]:
    """Encode state: each key's value as stored text. Raises as `encode_value` does."""
    return {key: encode_packed(value, f"state[{key!r}]", packing) for key, value in values.items()}


def encode_error(error: BaseException, packing: Packing) -> str:
    """Encode an exception as stored text; of one that is too large only the message is stored."""
    # Never refused: the step has failed, and a run that could not store that would hang.
    try:
        return encode_value(error, "error", packing)
    except PayloadTooLarge:
        cut = RemoteError(str(error)[:_MAX_MESSAGE], name=type(error).__qualname__)
        return texts.own(encode(cut, where="error"))


def decode_all(stored_texts: Mapping[str, str]) -> dict[str, Any]:
    """Decode state or context: each key's stored text as a plain value."""
    return {key: decode(text) for key, text in stored_texts.items()}
