"""Ids, labels, payloads and error texts from outside never steer a terminal, and forge no line of a table or a log."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from orchestrator import Context, Orchestrator, Workflow, step
from orchestrator.cli.output import Output, rich_table
from orchestrator.cli.standalone import orchestrator as command
from orchestrator.safe_text import harmless, one_line, trace_text

EVIL = "\x1b]0;PWNED\x07\x1b[2J\nfaked-run  paid  success\r\x85\u2028\u202egnp\u2066\x00\x9b31m"
FORGED = "faked-run"


def obeyed(text: str, allowed: str = "\n") -> list[str]:
    """Return the characters of a text that a terminal or a reader of lines would obey."""
    return [char for char in text if not char.isprintable() and char not in allowed]


@step
def ask(x: Any, ctx: Context) -> Any:
    ctx.logger.info("by its author:\n%s", "two\nlines")
    if x == "fail":
        raise ValueError(EVIL + "x" * 100_000)
    if x == "chain":
        try:
            raise KeyError(EVIL)
        except KeyError as error:
            raise RuntimeError("one\nERROR forged") from error
    return ctx.suspend({"text": EVIL}, label=EVIL.replace("\x00", ""))


asking = Workflow("asking").then(ask).commit()


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A store with runs that are hostile in every place."""
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    with Orchestrator(store=url, workflows=[asking]) as orchestrator:
        for given in ("ask", "fail"):
            run = orchestrator.create_run(asking, run_id=given, resource_id=EVIL)
            run.start(given, state={EVIL: EVIL}, request_context={EVIL: EVIL})
    return url


LINES = [
    ("list",),
    ("show", "ask"),
    ("show", "ask", "--events"),
    ("show", "ask", "--times"),
    ("show", "fail"),
    ("show", "fail", "--events"),
    ("waiting",),
    ("graph", "--run", "ask"),
    ("graph", "--run", "ask", "--format", "svg"),
    ("list", "--json"),
    ("show", "ask", "--json"),
    ("waiting", "--json"),
    ("list", "--resource", EVIL.replace("\x00", "")),
    ("show", EVIL.replace("\x00", "")),
    ("resume", "ask", "--label", EVIL.replace("\x00", "")),
]


@pytest.mark.parametrize("words", LINES, ids=lambda words: " ".join(words).encode("unicode_escape").decode()[:40])
def test_no_command_prints_what_a_terminal_obeys(store: str, words: tuple[str, ...]) -> None:
    """Nor a line that was not there: each row stays one row."""
    before = ["--store", store, "--workflows", "tests.security.test_terminal_and_log:asking"]
    result = CliRunner().invoke(command, [*before, *words], prog_name="orchestrator")
    assert not obeyed(result.output)
    assert not [line for line in result.output.splitlines() if line.startswith(FORGED)]


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()], ids=["terminal", "pipe"])
def test_tables_and_fields_are_harmless_wherever_they_go(stream: io.StringIO) -> None:
    output = Output(stream, colour=False)
    output.table(("RUN", "STATUS"), [[EVIL, EVIL], ["b", "success"]], [f"  {EVIL}", "b"])
    output.fields([("RUN", EVIL), ("STATUS", EVIL)])
    output.write(f"{EVIL}\n")
    output.json({EVIL: EVIL})
    text = stream.getvalue()
    own = ("\x1b[1m", "\x1b[0m", "\x1b[2m") if isinstance(stream, Terminal) else ()
    for each in own:  # rich's own words for bold
        text = text.replace(each, "")
    assert not obeyed(text)
    assert rich_table(("A",), [[EVIL]], stream).row_count == 1


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """The library's log as a file has it."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)s [%(run_id)s] %(message)s", defaults={"run_id": ""})
    )
    logger = logging.getLogger("orchestrator")
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    yield written
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.mark.parametrize("given", ["fail", "chain"])
def test_an_error_text_is_no_line_of_the_log(log: io.StringIO, given: str) -> None:
    """Nor a megabyte of it. What its author logs stays as it is."""
    with Orchestrator(workflows=[asking]) as orchestrator:
        assert orchestrator.create_run(asking).start(given).status == "failed"
    text = log.getvalue()
    assert "by its author:\ntwo\nlines" in text
    assert not obeyed(text.replace("by its author:\ntwo\nlines", ""))
    assert not [line for line in text.splitlines() if line.startswith((FORGED, "ERROR forged"))]
    assert len(text) < 60_000
    assert "Traceback (most recent call last)" in text


def test_a_texts_own_words_stay_as_they_are() -> None:
    for text in ("  indented", "Grüße, 午前中, 😀", "a b"):
        assert harmless(text) == text
    assert one_line("a\n b\tc") == "a b c"


def test_an_error_without_a_text_is_shown() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError

    error = Mute()
    error.__context__ = error
    assert "Mute" in trace_text((Mute, error, None))
