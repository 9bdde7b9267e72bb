"""A live tree on a small terminal: items of a wide foreach fold into what is above them, and no line is cut in two."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from orchestrator.cli.following import LiveTree, fitting_rows
from orchestrator.cli.rows import Row
from tests.cli.test_again import row


def wide() -> list[Row]:
    """A foreach of four items of two steps each, two of them done, between two other steps."""
    items: list[Row] = []
    for number in range(4):
        status = "success" if number < 2 else "running"
        items.append(row(f"item[{number}]", 1, status, is_item=True))
        items.append(row("first", 2, "success", is_item=True))
        items.append(row("second", 2, status, is_item=True))
    return [row("before", 0, "success"), row("item", 0, done=2, total=4), *items, row("beside", 0)]


def seen(room: int) -> tuple[list[str], int]:
    """Return what is shown in so many lines, and how many rows are not."""
    rows, hidden = fitting_rows(wide(), room)
    return [f"{found.step} {found.note}".strip() for found in rows], hidden


def test_items_fold_into_the_row_above_where_there_is_no_room() -> None:
    """The steps of ended items go first, then those items, then the steps of running ones, then all items."""
    assert len(seen(15)[0]) == 15
    assert "item[1]" in seen(14)[0]
    assert seen(10)[0] == ["before", "item", "item[2]", "second", "item[3]", "second", "beside"]
    assert seen(6)[0] == ["before", "item", "item[2] second", "item[3] second", "beside"]
    assert seen(4) == (["before", "item 2 running", "beside"], 12)
    assert seen(2) == (["item 2 running", "beside"], 13)


@pytest.mark.parametrize("height", [4, 5, 8, 24])
def test_a_frame_is_never_higher_than_the_terminal(height: int) -> None:
    """However long the texts are: one row is one line."""
    out = io.StringIO()
    screen = Console(file=out, force_terminal=True, width=20, height=height, highlight=False, emoji=False)
    tree = LiveTree(screen, "a very long title " * 9, keep=True)
    with tree.open():
        tree.show([replace(found, note=found.note or "a long text " * 9) for found in wide()])
    frame = out.getvalue().split("\x1b[2K")[-1]
    assert frame.count("\n") <= height
