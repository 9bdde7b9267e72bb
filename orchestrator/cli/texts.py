"""Values, times and errors as people read them: short, on one line, with nothing that a terminal would obey."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from orchestrator.codec import as_json
from orchestrator.errors import RemoteError
from orchestrator.safe_text import one_line

NONE = "-"


def plain(value: Any) -> Any:
    """The value in JSON's shapes."""
    return as_json(value)


def milliseconds(moment: datetime | None) -> int | None:
    """A moment as every JSON of the product has it."""
    return None if moment is None else round(moment.timestamp() * 1000)


def compact(value: Any, most: int | None = None) -> str:
    """The value as JSON on one line, cut after so many characters."""
    text = one_line(json.dumps(plain(value), ensure_ascii=False))
    return text if most is None or len(text) <= most else f"{text[: most - 3]}..."


def time_text(moment: datetime | None) -> str:
    """A moment in the time zone of the reader."""
    return NONE if moment is None else moment.astimezone().isoformat(sep=" ", timespec="seconds")


def duration_text(seconds: float | None) -> str:
    """A duration: `0.012s`, `3.4s`, `2m05s`, `1h02m`, `3d04h`."""
    if seconds is None:
        return NONE
    if seconds < 60:
        return f"{seconds:.3f}s" if seconds < 1 else f"{seconds:.1f}s"
    whole = round(seconds)
    for unit, size, smaller, part in (("d", 86_400, "h", 3_600), ("h", 3_600, "m", 60)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // part:02d}{smaller}"
    return f"{whole // 60}m{whole % 60:02d}s"


def error_text(error: BaseException | None) -> str:
    """An error's class and message."""
    if error is None:
        return NONE
    name = error.name if isinstance(error, RemoteError) and error.name else type(error).__name__
    message = one_line(str(error))
    short = name.rpartition(".")[2]
    # The stored text of an exit begins with its name.
    return (
        message if message == short or message.startswith(f"{short}: ") else f"{short}: {message}" if message else name
    )
