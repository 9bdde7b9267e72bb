"""Values, times and errors for people."""

from __future__ import annotations

from datetime import timedelta
from io import BytesIO, TextIOWrapper

import click
import pytest

from orchestrator.cli.options import age
from orchestrator.cli.output import Output
from orchestrator.cli.texts import compact, duration_text, error_text
from orchestrator.errors import RemoteError

CONTEXT = click.Context(click.Command("x"))
PARAMETER = click.Option(["--older-than"])


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("30d", timedelta(days=30)),
        ("1d12h", timedelta(hours=36)),
        ("1.5h", timedelta(minutes=90)),
        ("2w", timedelta(14)),
    ],
)
def test_ages_are_read(text: str, wanted: timedelta) -> None:
    """An age may have several units, which add up."""
    assert age(CONTEXT, PARAMETER, text) == wanted


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1 d", "1y"])
def test_other_ages_are_refused(text: str) -> None:
    """A number without a unit could mean anything."""
    with pytest.raises(click.BadParameter):
        age(CONTEXT, PARAMETER, text)


@pytest.mark.parametrize(
    "seconds, wanted",
    [
        (None, "-"),
        (0.0123, "0.012s"),
        (3.44, "3.4s"),
        (125, "2m05s"),
        (59.99, "60.0s"),
        (3_720, "1h02m"),
        (273_600, "3d04h"),
    ],
)
def test_durations_are_short(seconds: float | None, wanted: str) -> None:
    """They have two units at most."""
    assert duration_text(seconds) == wanted


def test_errors_have_their_class_and_message_on_one_line() -> None:
    """A stand-in shows the class it stands for; an error without text its class alone."""
    assert error_text(RemoteError("no\nstock", name="shop.errors.SoldOut")) == "SoldOut: no stock"
    assert error_text(KeyError()) == "KeyError"
    assert error_text(None) == "-"


def test_long_values_are_cut() -> None:
    """To the width that was asked for."""
    assert compact({"text": "x" * 100}, 20) == '{"text": "xxxxxxx...'


def test_what_the_encoding_cannot_say_is_a_question_mark() -> None:
    """A pipe of Windows' has often an old code page."""
    sink = BytesIO()
    output = Output(TextIOWrapper(sink, encoding="cp1252"))
    output.table(["NAME"], [["日本"]])
    assert sink.getvalue().splitlines() == [b"NAME", b"??"]
