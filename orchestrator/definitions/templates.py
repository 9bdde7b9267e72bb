"""Texts with placeholders: `${input.city} is ${state.phase}`.

A template is taken apart when it is written, so that a mistake in it shows there and not in a run.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any

from pydantic_core import to_jsonable_python

from orchestrator.definitions.map_scope import MapScope
from orchestrator.definitions.paths import seek
from orchestrator.errors import GraphInvalid

SCOPES = ("input", "init", "state", "context", "steps")
_PLACEHOLDER = re.compile(r"\$\{([^{}]*)\}")
_MAX_EXACT = 1e21  # from here on JSON writes a whole number with an exponent


class TemplateInvalid(GraphInvalid, ValueError):
    """The template has a placeholder that cannot be filled in."""


@dataclass(frozen=True, slots=True)
class Placeholder:
    """`${scope.word.word}`, taken apart."""

    # One of `SCOPES`.
    scope: str
    # The path inside the scope; for `steps` it begins with the step's id.
    words: tuple[str, ...]

    def read(self, scope: MapScope) -> Any:
        """The value it stands for; None where there is none. ValueError for a step without a result."""
        match self.scope:
            case "input":
                return seek(scope.data, self.words)
            case "init":
                return seek(scope.init(None), self.words)
            case "state":
                return seek(scope.state, self.words)
            case "context":
                return self._context(scope)
            case _:
                return self._step(scope)

    def _context(self, scope: MapScope) -> Any:
        key = ".".join(self.words)
        return scope.context[key] if key in scope.context else seek(scope.context, self.words)

    def _step(self, scope: MapScope) -> Any:
        found, value = scope.result(self.words[0])
        if not found:
            raise ValueError(f"Template placeholder '${{{self}}}': steps.{self.words[0]} has no result")
        return seek(value, self.words[1:])

    def __str__(self) -> str:
        return ".".join((self.scope, *self.words))


@dataclass(frozen=True, slots=True)
class Template:
    """A text with placeholders, taken apart. A `$` without braces is text."""

    # As it was written, for descriptions.
    text: str
    # Texts and placeholders, in order.
    parts: tuple[str | Placeholder, ...]

    def render(self, scope: MapScope) -> str:
        """The text with its placeholders filled in. Raises ValueError for a step without a result."""
        return "".join(part if isinstance(part, str) else render_value(part.read(scope)) for part in self.parts)


def parse(text: str) -> Template:
    """The template of a text. Raises `TemplateInvalid`, which is a ValueError, with everything that is wrong in it."""
    if not isinstance(text, str):
        raise TypeError(f"template() takes a text, not {type(text).__name__}")
    problems: list[str] = []
    parts = tuple(_parts(text, problems))
    if problems:
        raise TemplateInvalid(problems, header="The template is not valid:")
    return Template(text, parts)


def _parts(text: str, problems: list[str]) -> Iterator[str | Placeholder]:
    end = 0
    for found in _PLACEHOLDER.finditer(text):
        if found.start() > end:
            yield text[end : found.start()]
        end = found.end()
        scope, *words = found[1].split(".")
        if problem := _problem(found[1], scope, words):
            problems.append(problem)
        else:
            yield Placeholder(scope, tuple(words))
    if end < len(text):
        yield text[end:]


def _problem(content: str, scope: str, words: list[str]) -> str | None:
    shown = f"the placeholder '${{{content}}}'"
    if not content or content != content.strip():
        return f"{shown} is empty or whitespace-padded"
    if scope in ("steps", "context") and not (words and words[0].strip()):
        wanted = "steps.<id>" if scope == "steps" else "context.<key>"
        return f"{shown} must be '${{{wanted}}}', with or without a path behind it"
    if any(not word or word != word.strip() for word in (scope, *words)):
        return f"{shown} has a part that is empty or whitespace-padded"
    if scope not in SCOPES:
        return f'{shown} has an unknown namespace "{scope}"; known are {", ".join(SCOPES)}'
    return None


def render_value(value: Any) -> str:
    """A value as it stands in a text: None as nothing, `true`, `22` for 22.0, compact JSON for whatever has parts."""
    match value:
        case None:
            return ""
        case Enum():
            return render_value(value.value)
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | Decimal():
            return str(value)
        case float():
            return str(_number(value))
        case datetime() | date() | time():
            return value.isoformat()
        case BaseException():
            return str(value)
        case _:
            return _json(value)


def _json(value: Any) -> str:
    plain = to_jsonable_python(value, by_alias=False, inf_nan_mode="null", serialize_unknown=True)
    return plain if isinstance(plain, str) else json.dumps(_numbers(plain), separators=(",", ":"), ensure_ascii=False)


def _number(value: float) -> float | int:
    whole = math.isfinite(value) and value.is_integer() and abs(value) < _MAX_EXACT
    return int(value) if whole else value


def _numbers(plain: Any) -> Any:
    match plain:
        case float():
            return _number(plain)
        case list():
            return [_numbers(item) for item in plain]
        case dict():
            return {key: _numbers(item) for key, item in plain.items()}
        case _:
            return plain
