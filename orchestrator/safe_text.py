"""Text from outside as it may be shown: on one line, not too long, with nothing that a terminal obeys, no password.

Ids, labels, payloads and error texts come from callers, and a terminal, a log file and an error tracker are read by
people who trust them. The command line (`cli/output.py`) and the library's logger go through here.
"""

from __future__ import annotations

import logging
import re
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

_MAX_ARGUMENT = 2_000  # characters of one argument of a log message: an error may quote a whole file
_MAX_QUOTED = 500  # characters of a value in an error
_MAX_TRACE = 20_000  # characters of a traceback in the log: its beginning and its end
_PACKAGE = str(Path(__file__).parent)
_IDS = ("run_id", "workflow_id", "step")  # that records carry for formatters

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def one_line(text: str) -> str:
    """Return the text without line breaks, control characters and marks that change the direction of writing."""
    joined = " ".join(text.split())
    return joined if joined.isprintable() else "".join(char if char.isprintable() else "?" for char in joined)


def harmless(text: str) -> str:
    """Return the text with blanks for line breaks and tabs, and question marks for what else cannot be printed."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " if char.isspace() else "?" for char in text)


def short_repr(value: Any) -> str:
    """Return the value as an error may quote it: cut, and whatever its class does when it is asked."""
    try:
        return _cut(repr(value), _MAX_QUOTED)
    except Exception:  # noqa: BLE001 - a user's class, or a value that contains itself too deeply
        return f"<{type(value).__qualname__} that cannot be shown>"


# --- URLs ------------------------------------------------------------------------------------------------------------

# One URL of several (Celery takes them apart at semicolons) ends where the next one begins.
_URL = re.compile(r"([a-zA-Z][\w+.-]*://)(.*?)(?=[;,]\s*[a-zA-Z][\w+.-]*://|$)", re.DOTALL)
_SECRET_OPTION = re.compile(r"([?&][^=&?]*(?:pass|pwd|secret|token|key)[^=&?]*=)[^&]*", re.IGNORECASE)


def masked_url(url: str) -> str:
    """Return a URL, or several, as they may be shown: passwords are `***`, whatever characters they have."""
    return _URL.sub(lambda found: found[1] + _masked_place(found[2]), url)


def _masked_place(place: str) -> str:
    # To the last `@`, not to the first: a password that nobody has escaped may hold any character.
    login, at, rest = place.rpartition("@")
    user, colon, _ = login.partition(":")
    return _SECRET_OPTION.sub(r"\1***", f"{user}:***@{rest}" if colon else login + at + rest)


# --- logs ------------------------------------------------------------------------------------------------------------


class _Shown:
    """An argument of a log message, which is made text only if the message is written."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __str__(self) -> str:
        return _cut(one_line(self._text(str)), _MAX_ARGUMENT)

    def __repr__(self) -> str:
        return _cut(one_line(self._text(repr)), _MAX_ARGUMENT)

    def _text(self, write: Any) -> str:
        try:
            # Long before it is looked at character by character.
            return _cut(write(self._value), 4 * _MAX_ARGUMENT)
        except Exception:  # noqa: BLE001 - a user's class
            return f"<{type(self._value).__qualname__} without text>"


class LogGuard(logging.Filter):
    """Writes the records of this library so that no id and no error text can forge a line, or steer a terminal.

    What user code logs by `ctx.logger` stays as it is: its author decides.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record; every record passes."""
        if not record.pathname.startswith(_PACKAGE) or isinstance(record.args, dict):
            return True
        record.args = tuple(each if isinstance(each, int | float) else _Shown(each) for each in record.args or ())
        for name in _IDS:
            if isinstance(value := getattr(record, name, None), str):
                setattr(record, name, str(_Shown(value)))
        if isinstance(record.exc_info, tuple) and record.exc_info[0] is not None and not record.exc_text:
            record.exc_text = trace_text(record.exc_info)  # handlers take it as it is
        return True


def guard_log(name: str) -> None:
    """Let the records of this logger pass the guard. Repeated: no change."""
    logger = logging.getLogger(name)
    if not any(isinstance(each, LogGuard) for each in logger.filters):
        logger.addFilter(LogGuard())


def trace_text(exc_info: _ExcInfo) -> str:
    """Return a traceback with harmless error texts: each line of one but the first is indented, so it is no line of a
    log, and nothing in it is a control character."""
    text = "".join(traceback.format_exception(*exc_info)).rstrip("\n")
    for message in _texts_of(exc_info[1]):
        lines = _cut(message, _MAX_TRACE // 2).splitlines()
        if len(lines) > 1:
            text = text.replace(message, "\n    ".join(lines))
    return "\n".join(map(harmless, _cut(text, _MAX_TRACE).split("\n")))


def _texts_of(error: BaseException | None) -> list[str]:
    """Return the texts of an exception and of all that it shows with it, which may go in a circle."""
    found: list[BaseException] = []
    todo = [error]
    while todo:
        one = todo.pop()
        if one is None or any(one is known for known in found):
            continue
        found.append(one)
        todo += [one.__cause__, one.__context__, *(one.exceptions if isinstance(one, BaseExceptionGroup) else ())]
    notes = [note for one in found for note in getattr(one, "__notes__", ()) if isinstance(note, str)]
    return [_text(one) for one in found] + notes


def _text(error: BaseException) -> str:
    try:
        return str.__str__(str(error))
    except Exception:  # noqa: BLE001 - a user's class
        return ""


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]} … {len(text) - 2 * half} characters … {text[-half:]}"
