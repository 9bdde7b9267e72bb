"""Templates: checked where they are written, rendered as text."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import GraphInvalid, Workflow, template
from orchestrator.definitions.templates import parse, render_value
from tests.definitions.models import Order, Scope

STRINGY = {"a": "A", "b": "B", "list": [{"name": "first"}, {"name": "second"}]}


def render(text: str, scope: Scope | None = None, **values: Any) -> str:
    """Return the text of a template, with these values as the input."""
    return parse(text).render(scope or Scope(data=values))


def test_every_scope_is_read() -> None:
    """There are input, init, state, context and steps."""
    scope = Scope(
        {"tone": "cheerful"},
        {None: {"city": "Helsinki"}},
        {"phase": "analyzing"},
        {"userId": "tony"},
        {"early-step": {"value": {"nested": "deep"}}},
    )
    text = "${init.city} ${input.tone} ${state.phase} ${context.userId} ${steps.early-step.value.nested}"
    assert render(text, scope) == "Helsinki cheerful analyzing tony deep"


def test_a_scope_alone_is_the_whole_value() -> None:
    """So is a step without a path."""
    scope = Scope("text", {None: 1}, {"a": 1}, {}, {"s": [1]})
    assert render("${input} ${init} ${state} ${steps.s}", scope) == 'text 1 {"a":1} [1]'


def test_texts_without_placeholders_stay_as_they_are() -> None:
    """Among them are the empty text, a lone dollar sign, and braces without one."""
    for text in ("", "plain", "costs $5 {not} ${input", "$${", "}"):
        assert render(text) == text
    assert render("$5 and ${input.a}", **STRINGY) == "$5 and A"


def test_nothing_around_a_placeholder_is_lost() -> None:
    """Placeholders stand side by side, at the start, at the end and after a long text."""
    assert render("${input.a}${input.b}", **STRINGY) == "AB"
    assert render("${input.a} end", **STRINGY) == "A end"
    assert render("start ${input.list.0.name}", **STRINGY) == "start first"
    assert render("x" * 1200 + " value=${input.a}", **STRINGY) == "x" * 1200 + " value=A"
    assert render("${${input.a}}", **STRINGY) == "${A}"


def test_missing_values_are_nothing() -> None:
    """That goes for None, a missing key, a path through a number and an index beyond the end."""
    text = "[${input.none}][${input.no.where}][${input.a.b}][${input.list.9.name}][${state.x}][${context.y}]"
    assert render(text, none=None, **STRINGY) == "[][][][][][]"


@pytest.mark.parametrize(
    "value, text",
    [
        (None, ""),
        (True, "true"),
        (False, "false"),
        (22, "22"),
        (22.0, "22"),
        (22.5, "22.5"),
        (1e300, "1e+300"),
        (float("inf"), "inf"),
        ("ä°", "ä°"),
        (Decimal("12.50"), "12.50"),
        ({"a": 1, "b": 2}, '{"a":1,"b":2}'),
        ({"a": {"b": 2.0, "c": [1.5, None]}}, '{"a":{"b":2,"c":[1.5,null]}}'),
        (["ä", True], '["ä",true]'),
        ((1, 2), "[1,2]"),
        (Order(sku="a"), '{"sku":"a","qty":1}'),
        ([Order(sku="a")], '[{"sku":"a","qty":1}]'),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05+00:00"),
        (date(2026, 1, 2), "2026-01-02"),
        ({"at": date(2026, 1, 2)}, '{"at":"2026-01-02"}'),
        (Enum("Colour", {"RED": "red"}).RED, "red"),  # type: ignore[attr-defined]
        (ValueError("text"), "text"),
    ],
)
def test_values_are_rendered_as_text(value: Any, text: str) -> None:
    """The texts are those that a reader of JSON expects."""
    assert render_value(value) == text


def test_a_context_key_may_have_dots() -> None:
    """The whole rest is taken for the key, and for a path only where there is no such key."""
    scope = Scope(context={"a.b": 1, "c": {"d": 2}})
    assert render("${context.a.b} ${context.c.d}", scope) == "1 2"


def test_a_path_goes_into_models() -> None:
    """Restored values have attributes, not keys."""
    assert render("${input.sku}", Scope(Order(sku="a"))) == "a"


def test_a_step_without_a_result_fails_when_it_is_rendered() -> None:
    """Writing the template does not fail: the step may come later, or never."""
    written = template("${steps.nonexistent}")
    with pytest.raises(ValueError, match=r"steps\.nonexistent has no result"):
        written.read(Scope(), Scope().call)


@pytest.mark.parametrize(
    "text, message",
    [
        ("${ input.x }", "whitespace-padded"),
        ("${input.x }", "whitespace-padded"),
        ("a${}b", "empty or whitespace-padded"),
        ("${ }", "empty or whitespace-padded"),
        ("${input. x}", "empty or whitespace-padded"),
        ("${input.}", "empty or whitespace-padded"),
        ("${nope.x}", 'unknown namespace "nope"'),
        ("${inputData.x}", 'unknown namespace "inputData"; known are input, init, state, context, steps'),
        ("${steps.}", r"steps\.<id>"),
        ("${steps}", r"steps\.<id>"),
        ("${context}", r"context\.<key>"),
    ],
)
def test_mistakes_are_found_where_they_are_written(text: str, message: str) -> None:
    """`template` itself raises, before any `.map` or `commit`."""
    with pytest.raises(GraphInvalid, match=message):
        Workflow("w").map({"key": template(text)})
    with pytest.raises(ValueError, match=message):
        template(text)


def test_all_mistakes_of_a_template_are_listed() -> None:
    """There is one sentence for each."""
    with pytest.raises(GraphInvalid) as caught:
        template("${nope.a} ${} ${input.fine}")
    assert len(caught.value.problems) == 2


def test_only_texts_are_templates() -> None:
    """Anything else may be a variable whose quotes were forgotten."""
    with pytest.raises(TypeError, match="not int"):
        template(3)  # type: ignore[arg-type]


@given(st.text())
def test_any_text_is_a_template_or_refused_as_one(text: str) -> None:
    """No other error comes out, and a text without a placeholder renders as itself."""
    try:
        made = parse(text)
    except GraphInvalid:
        return
    assert all(isinstance(part, str) for part in made.parts) is (made.render(Scope({})) == text) or "${" in text
