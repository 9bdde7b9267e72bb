"""The SVG picture: well-formed, every kind of block in it, nothing on top of anything else, states in colour."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from uuid import uuid4
from xml.etree import ElementTree

import pytest

from orchestrator import Workflow, step
from orchestrator.definitions import svg
from tests.cli.test_standalone import calling, data

NAMES = ("first", "left", "right", "small", "large", "body", "item", "late", "inner")
STEPS = {name: step(lambda number: number, id=name) for name in NAMES}
SVG = "{http://www.w3.org/2000/svg}"
Box = tuple[float, float, float, float]


def is_small(number: int) -> bool:
    return number < 10


nested = Workflow("nested").then(STEPS["inner"]).commit()
everything = (
    Workflow("everything")
    .then(STEPS["first"])
    .map(lambda number: number + 1, id="mapped")
    .parallel(STEPS["left"], STEPS["right"], nested)
    .map(lambda both: both["left"], id="again")
    .branch((is_small, STEPS["small"]), (lambda number: True, STEPS["large"]))
    .map(lambda ctx: 1, id="one")
    .do_until(STEPS["body"], is_small)
    .map(lambda number: [number], id="list")
    .foreach(STEPS["item"], concurrency=3)
    .sleep(5, id="nap")
    .wait_for_event("signed", timeout=60, on_timeout=STEPS["late"])
    .commit()
)


def boxes(element: ElementTree.Element, x: float = 0.0, y: float = 0.0) -> Iterator[tuple[str, Box]]:
    """Return where each entry's own shape is in the whole picture, by the id it carries."""
    if moved := element.get("transform"):
        right, down = map(float, moved.removeprefix("translate(").removesuffix(")").split(","))
        x, y = x + right, y + down
    if element.get("class") == "entry":
        yield element.get("data-id", ""), _bounds(element, x, y)
    for child in element:
        yield from boxes(child, x, y)


def _bounds(element: ElementTree.Element, x: float, y: float) -> Box:
    rect, polygon = element.find(f"{SVG}rect"), element.find(f"{SVG}polygon")
    if rect is not None:
        return x, y, x + float(rect.get("width", 0)), y + float(rect.get("height", 0))
    assert polygon is not None
    points = [tuple(map(float, pair.split(","))) for pair in polygon.get("points", "").split()]
    across, down = zip(*points, strict=True)
    return x + min(across), y + min(down), x + max(across), y + max(down)


def overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def test_every_kind_of_block_is_drawn_and_nothing_covers_anything() -> None:
    """Boxes of entries are apart, and inside of the picture; only a nested workflow is around its own."""
    root = ElementTree.fromstring(svg.draw(everything.compiled, {}))
    found = dict(boxes(root))

    assert set(found) == set(everything_ids())
    for (one, here), (other, there) in combinations(found.items(), 2):
        assert overlap(here, there) == (other.startswith(f"{one}.")), (one, other)
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    for name, (left, top, right, bottom) in found.items():
        assert 0 <= left < right <= width, name
        assert 0 <= top < bottom <= height, name


def everything_ids() -> list[str]:
    plain = [name for name in NAMES if name != "inner"]
    return [*plain, "mapped", "again", "one", "list", "nap", "signed", "nested", "nested.inner"]


def test_the_picture_says_what_the_blocks_do() -> None:
    """Conditions, widths, times and the labels of the ways."""
    text = "\n".join(ElementTree.fromstring(svg.draw(everything.compiled, {})).itertext())
    for said in ("until is_small?", "no: again", "foreach, 3 at a time", "nap: 5 s", "wait for signed", "after 60 s"):
        assert said in text
    assert text.count("which?") == 2, "in the shape and as its title"


def test_states_are_colours() -> None:
    """And may be read from the picture."""
    root = ElementTree.fromstring(svg.draw(everything.compiled, {"first": "success", "nested.inner": "failed"}))
    marked = {element.get("data-id"): element.get("data-status") for element in root.iter() if element.get("data-id")}
    assert marked["first"] == "success"
    assert marked["nested.inner"] == "failed"
    assert marked["left"] is None
    fills = {rect.get("fill") for rect in root.iter(f"{SVG}rect")}
    assert {"#e8f5e9", "#ffebee"} <= fills


@pytest.mark.parametrize("event", ["<&>\"'", "x" * 200, "bell\x07 and\nline"])
def test_any_text_is_fit_for_xml(event: str) -> None:
    """Escaped, cut to what a box can hold, the whole of it in the title."""
    flow = Workflow("odd").wait_for_event(event, id="odd").commit()
    root = ElementTree.fromstring(svg.draw(flow.compiled, {}))
    shown = [element.text or "" for element in root.iter(f"{SVG}text")]
    assert all(len(text) <= 48 for text in shown)
    if len(event) == 200:
        assert any(event in (element.text or "") for element in root.iter(f"{SVG}title"))


def test_the_command_prints_the_picture_of_a_run(tmp_path: Path) -> None:
    """`--format svg`, plain and as JSON; Mermaid stays what it was."""
    call = calling("--store", f"memory://cli-{uuid4().hex}", "--workflows", "tests.cli.flows:ALL")
    call("start", "many", "[1, 2]", "--run-id", "one")

    done = call("graph", "--run", "one", "--format", "svg")

    root = ElementTree.fromstring(done.stdout)
    marked = {element.get("data-id"): element.get("data-status") for element in root.iter() if element.get("data-id")}
    assert marked == {"pay": "success", "pay.charge": "success"}
    told = data(call("graph", "many", "--format", "svg", "--json"))
    assert told["svg"].startswith("<svg")
    assert "mermaid" not in told
    json.dumps(told)
    assert call("graph", "many").stdout.startswith("flowchart")
