"""The state diagram of the documentation is the table of statuses."""

from __future__ import annotations

from tests.architecture.state_diagram import COMMAND, DOCUMENT, with_diagram


def test_the_state_diagram_is_drawn_from_the_table() -> None:
    """A status that may follow another is seen there as soon as it may."""
    text = DOCUMENT.read_text(encoding="utf-8")
    assert with_diagram(text) == text, f"the state diagram is not that of the table: run `{COMMAND}`"
