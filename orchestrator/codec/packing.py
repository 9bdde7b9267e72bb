"""Stored text that is compressed, for values above a size: a mark, and the compressed UTF-8 in base64.

It stays text, so every store keeps it as it keeps any other, and no store or script looks into it. Base64 takes back a
third of what compression saves; bytes would need a second column, or a store that tells the two apart. Plain and
compressed texts stand side by side: the first character, with which no JSON begins, says which one it is.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import CompressionUnavailable, ValueNotReadable

MAX_UNPACKED = 64 * 1024 * 1024  # bytes of the text itself; longer ones are never compressed, and never unpacked
ZLIB, ZSTD = "zlib", "zstd"

_MARK = "~"
_LETTERS = {ZLIB: "z", ZSTD: "s"}
# Fast rather than small: on JSON the best level saves a tenth more, and takes several times as long.
_ZLIB_LEVEL = 3
_ZSTD_LEVEL = 3
_MIN_SAVED = 0.9  # of the length; what saves less is stored as it is, so that readers have nothing to do


@dataclass(frozen=True, slots=True)
class Packing:
    """The way in which this process writes values. Every process reads all of them."""

    # the largest text of one value, in bytes, before it is compressed
    limit: int | None = None
    # texts of so many bytes or more are compressed; 0 compresses none
    threshold: int = 0
    # `zlib`, or `zstd`, which needs the package zstandard
    method: str = ZLIB

    def pack(self, text: str) -> str:
        """Return the text as it is stored: compressed, if that makes it shorter."""
        # A character has up to four bytes, so most texts need not be counted.
        if not self.threshold or 4 * len(text) < self.threshold:
            return text
        data = text.encode("utf-8", "surrogatepass")
        if not self.threshold <= len(data) <= MAX_UNPACKED:
            return text
        packed = base64.b64encode(_compress(self.method, data)).decode("ascii")
        return f"{_MARK}{_LETTERS[self.method]}{packed}" if len(packed) < _MIN_SAVED * len(data) else text


def unpack(stored: str) -> str:
    """Return the text that `pack` was given.

    Raises `ValueNotReadable` for what `pack` has not written, also for a text that would grow beyond `MAX_UNPACKED`,
    and `CompressionUnavailable` where the package for it is missing here.
    """
    if not stored.startswith(_MARK):
        return stored
    expand = _EXPANDERS.get(stored[1:2])
    if expand is None:
        raise ValueNotReadable("The stored text is compressed in a way that this release does not know")
    try:
        data = expand(base64.b64decode(stored[2:], validate=True))
        if len(data) <= MAX_UNPACKED:
            return data.decode("utf-8", "surrogatepass")
    except ImportError as error:
        raise CompressionUnavailable(f"The compressed text cannot be read: {error}") from error
    except (binascii.Error, zlib.error, UnicodeDecodeError) as error:
        raise ValueNotReadable(f"The compressed text cannot be read: {error}") from error
    raise ValueNotReadable(
        f"The compressed text is longer than {MAX_UNPACKED} bytes, which no writer of this library compresses"
    )


def require_readable(stored: Iterable[str]) -> None:
    """Raise `CompressionUnavailable` where the package is missing that one of these stored texts needs."""
    if any(text.startswith(_MARK + _LETTERS[ZSTD]) for text in stored):
        try:
            _zstandard()
        except ImportError as error:
            raise CompressionUnavailable(str(error)) from error


def require_method(method: str) -> None:
    """Raise ValueError for a method that is not known, ImportError where its package is missing."""
    if method not in _LETTERS:
        raise ValueError(f"orchestrator_compression is {ZLIB!r} or {ZSTD!r}, not {method!r}")
    if method == ZSTD:
        _zstandard()


def _compress(method: str, data: bytes) -> bytes:
    if method == ZSTD:
        compressed: bytes = _zstandard().ZstdCompressor(level=_ZSTD_LEVEL).compress(data)
        return compressed
    return zlib.compress(data, _ZLIB_LEVEL)


def _expand_zlib(data: bytes) -> bytes:
    """Return the text, or a little more than may be: a few bytes can stand for gigabytes, so nothing asks for all."""
    expander = zlib.decompressobj()
    expanded = expander.decompress(data, MAX_UNPACKED + 1)
    if len(expanded) <= MAX_UNPACKED and not expander.eof:
        raise ValueNotReadable("The compressed text cannot be read: its end is missing")
    return expanded


def _expand_zstd(data: bytes) -> bytes:
    library = _zstandard()
    try:
        with library.ZstdDecompressor(max_window_size=MAX_UNPACKED).stream_reader(data) as reader:
            expanded: bytes = reader.read(MAX_UNPACKED + 1)
            return expanded
    except library.ZstdError as error:
        raise ValueNotReadable(f"The compressed text cannot be read: {error}") from error


_EXPANDERS: dict[str, Callable[[bytes], bytes]] = {"z": _expand_zlib, "s": _expand_zstd}


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        text = "values compressed with zstd need the package zstandard: pip install celery-orchestrator[zstd]"
        raise ImportError(text) from error
    return zstandard
