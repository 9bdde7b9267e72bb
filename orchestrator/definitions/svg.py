"""A graph as an SVG picture, from top to bottom, drawn by this file alone.

Every shape is laid out by itself, in coordinates of its own: arrows come in at the top of its axis and leave at the
bottom of it. A larger shape moves smaller ones into place and draws the arrows between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import assert_never

from orchestrator.definitions.bodies import ForeachBody, NestedBody, SleepBody
from orchestrator.definitions.picture import condition_name, condition_names
from orchestrator.rules import graph
from orchestrator.rules.graph import Graph, Node

_PLAIN = ("#ffffff", "#607d8b")
_COLOURS = {
    "queued": ("#eceff1", "#78909c"),
    "running": ("#e3f2fd", "#1e88e5"),
    "retrying": ("#fff8e1", "#ffb300"),
    "waiting": ("#ede7f6", "#7e57c2"),
    "suspended": ("#f3e5f5", "#8e24aa"),
    "paused": ("#ede7f6", "#5e35b1"),
    "success": ("#e8f5e9", "#43a047"),
    "failed": ("#ffebee", "#e53935"),
    "skipped": ("#fafafa", "#bdbdbd"),
    "canceled": ("#efebe9", "#6d4c41"),
}
_LINE = "#607d8b"
_FONT = 12
_CHAR = 7.2  # width of a character of that size, on the safe side
_MAX_LABEL = 48  # characters of a label; the whole of it is in the title
_HIGH = 34.0
_GAP = 30.0  # between shapes that follow each other
_ASIDE = 24.0  # between shapes side by side
_EDGE = 16.0
_DOT = 8.0


@dataclass(frozen=True, slots=True)
class _Shape:
    """A drawing from (0, 0) to (width, height)."""

    width: float
    height: float
    # Arrows come in at (axis, 0) and leave at (axis, height).
    axis: float
    # SVG elements.
    drawn: str
    # The label of the arrow that leaves.
    leaving: str = ""

    def at(self, x: float, y: float) -> str:
        return f'<g transform="translate({x:g},{y:g})">{self.drawn}</g>'


def draw(whole: Graph, states: Mapping[str, str]) -> str:
    """The picture. `states`: dotted ids of entries to statuses, which colour them."""
    picture = _Picture({key: str(status) for key, status in states.items()})
    flow = [picture.node(node, "") for node in whole.flow]
    shape = _stack([_pill("start"), *flow, _pill("done")])
    width, height = shape.width + 2 * _EDGE, shape.height + 2 * _EDGE
    about = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    font = f'font-family="ui-sans-serif, Helvetica, Arial, sans-serif" font-size="{_FONT}"'
    head = (
        '<marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0,0 L8,4 L0,8 z" fill="{_LINE}"/></marker>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {about} {font}>\n'
        f"<title>{_text(whole.id)}</title>\n<defs>{head}</defs>\n"
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n{shape.at(_EDGE, _EDGE)}\n</svg>\n'
    )


class _Picture:
    def __init__(self, states: Mapping[str, str]) -> None:
        self._states = states

    def node(self, node: Node, scope: str) -> _Shape:
        match node:
            case graph.Step():
                label = f"{node.id} (task)" if node.component == "TASK" else node.id
                return self._leaf("map" if node.component == "MAP" else "step", label, scope + node.id)
            case graph.Sleep():
                return self._leaf("sleep", f"{node.id}: {_how_long(node)}", scope + node.id)
            case graph.Wait():
                return self._wait(node, scope)
            case graph.Nested():
                return self._nested(node, scope)
            case graph.Parallel(arms=arms):
                return _fork(_dot(), [(self.node(arm, scope), "") for arm in arms])
            case graph.Branch(arms=arms):
                named = zip(arms, condition_names(node), strict=True)
                return _fork(_diamond("which?"), [(self.node(arm, scope), name) for arm, name in named])
            case graph.Loop():
                return self._loop(node, scope)
            case graph.Foreach():
                computed = node.body.concurrency if isinstance(node.body, ForeachBody) else None
                width = computed.name if computed else node.concurrency
                return _frame(self.node(node.body_node, scope), f"foreach, {width} at a time", _PLAIN, "")
            case _:
                assert_never(node)

    def _leaf(self, kind: str, label: str, dotted: str) -> _Shape:
        status = self._states.get(dotted, "")
        return _box(kind, label, _COLOURS.get(status, _PLAIN), _marks(dotted, status))

    def _nested(self, node: graph.Nested, scope: str) -> _Shape:
        version = node.body.definition.version if isinstance(node.body, NestedBody) else None
        title = node.id if version is None else f"{node.id} (version {version})"
        inside = _stack([self.node(entry, f"{scope}{node.id}.") for entry in node.flow])
        status = self._states.get(scope + node.id, "")
        return _frame(inside, title, _COLOURS.get(status, _PLAIN), _marks(scope + node.id, status))

    def _wait(self, node: graph.Wait, scope: str) -> _Shape:
        waiting = self._leaf("wait", f"wait for {node.event}", scope + node.id)
        if node.otherwise is None:
            return waiting
        late = (self.node(node.otherwise, scope), f"after {node.timeout or 0.0:g} s")
        return _fork(waiting, [(_Shape(0.0, 0.0, 0.0, ""), node.event), late])

    def _loop(self, node: graph.Loop, scope: str) -> _Shape:
        """A dot where the rounds begin, the body, the question, and the way back on the right."""
        again, on = ("no", "yes") if node.until else ("yes", "no")
        question = _diamond(f"{'until' if node.until else 'while'} {condition_name(node)}?")
        inside = _stack([_dot(), self.node(node.body_node, scope), question])
        right, asked = inside.width + _ASIDE, inside.height - question.height / 2
        corner = inside.axis + question.width - question.axis
        back = f"M{corner:g},{asked:g} H{right:g} V{_DOT / 2:g} H{inside.axis + _DOT / 2:g}"
        label = _label(f"{again}: again", right + 4, asked - 6)
        drawn = f"{inside.drawn}{_arrow(back)}{label}"
        return _Shape(right + 4 + _width(f"{again}: again"), inside.height, inside.axis, drawn, on)


# --- what shapes are made of ------------------------------------------------------------------------------------------


def _stack(shapes: Sequence[_Shape]) -> _Shape:
    """One after the other, from top to bottom."""
    axis, y, parts = max(shape.axis for shape in shapes), 0.0, []
    for number, shape in enumerate(shapes):
        parts.append(shape.at(axis - shape.axis, y))
        y += shape.height
        if number + 1 < len(shapes):
            parts.append(_arrow(f"M{axis:g},{y:g} V{y + _GAP:g}"))
            parts.append(_label(shape.leaving, axis + 6, y + _GAP / 2 + 4))
            y += _GAP
    width = max(axis - shape.axis + shape.width for shape in shapes)
    return _Shape(width, y, axis, "".join(parts), shapes[-1].leaving)


def _fork(head: _Shape, arms: Sequence[tuple[_Shape, str]]) -> _Shape:
    """A head, the arms side by side, and a dot in which they come together."""
    places, x = [], 0.0
    for arm, label in arms:
        left, right = max(arm.axis, 6.0), max(arm.width - arm.axis, 10 + _width(label) if label else 6.0)
        places.append(x + left)
        x += left + right + _ASIDE
    axis = (places[0] + places[-1]) / 2
    shift = max(0.0, head.axis - axis)
    axis, places = axis + shift, [place + shift for place in places]
    top = head.height + 1.5 * _GAP
    bottom = top + max(arm.height for arm, _ in arms)
    parts = [head.at(axis - head.axis, 0)]
    for (arm, label), place in zip(arms, places, strict=True):
        parts.append(_arrow(f"M{axis:g},{head.height:g} V{head.height + _GAP / 2:g} H{place:g} V{top:g}"))
        parts.append(_label(label, place + 6, top - 8))
        parts.append(arm.at(place - arm.axis, top))
        parts.append(_label(arm.leaving, place + 6, top + arm.height + 14))
        end = bottom + _GAP / 2
        parts.append(_arrow(f"M{place:g},{top + arm.height:g} V{end:g} H{axis:g} V{bottom + _GAP:g}"))
    parts.append(_dot().at(axis - _DOT / 2, bottom + _GAP))
    width = max(shift + x - _ASIDE, axis - head.axis + head.width)
    return _Shape(width, bottom + _GAP + _DOT, axis, "".join(parts))


def _frame(inside: _Shape, title: str, colours: tuple[str, str], marks: str) -> _Shape:
    """A frame with a title around a shape."""
    top = _EDGE + 2 * _FONT
    width = max(inside.width, _width(title)) + 2 * _EDGE
    height = top + inside.height + _EDGE
    axis = _EDGE + inside.axis
    fill, stroke = colours
    rect = (
        f'<rect width="{width:g}" height="{height:g}" rx="6" fill="{fill}" stroke="{stroke}" stroke-dasharray="5 3"/>'
    )
    way = _arrow(f"M{axis:g},{_FONT + 8:g} V{top:g}")
    out = f'<path d="M{axis:g},{height - _EDGE:g} V{height:g}" stroke="{_LINE}" fill="none"/>'
    name = f'<title>{_text(title)}</title><text x="8" y="{_FONT + 3}" fill="#37474f">{_text(_shorten(title))}</text>'
    drawn = f"<g {marks}>{rect}{name}</g>{way}{out}{inside.at(_EDGE, top)}"
    return _Shape(width, height, axis, drawn + _label(inside.leaving, axis + 6, height - 4))


def _box(kind: str, label: str, colours: tuple[str, str], marks: str) -> _Shape:
    """A step, mapping, sleep or wait."""
    width, high = _width(label) + 2 * _EDGE, _HIGH
    fill = f'fill="{colours[0]}" stroke="{colours[1]}" stroke-width="1.5"'
    match kind:
        case "map":
            shape = f'<polygon points="10,0 {width:g},0 {width - 10:g},{high:g} 0,{high:g}" {fill}/>'
        case "wait":
            points = f"10,0 {width - 10:g},0 {width:g},{high / 2:g} {width - 10:g},{high:g} 10,{high:g} 0,{high / 2:g}"
            shape = f'<polygon points="{points}" {fill}/>'
        case _:
            round_by = high / 2 if kind == "sleep" else 4
            shape = f'<rect width="{width:g}" height="{high:g}" rx="{round_by:g}" {fill}/>'
    drawn = f"<g {marks}><title>{_text(label)}</title>{shape}{_centre(label, width / 2, high / 2)}</g>"
    return _Shape(width, high, width / 2, drawn)


def _pill(label: str) -> _Shape:
    return _box("sleep", label, _PLAIN, 'class="end"')


def _dot() -> _Shape:
    half = _DOT / 2
    return _Shape(_DOT, _DOT, half, f'<circle cx="{half:g}" cy="{half:g}" r="{half:g}" fill="{_LINE}"/>')


def _diamond(label: str) -> _Shape:
    width, high = _width(label) * 1.4 + 2 * _EDGE, 1.4 * _HIGH
    points = f"{width / 2:g},0 {width:g},{high / 2:g} {width / 2:g},{high:g} 0,{high / 2:g}"
    shape = f'<polygon points="{points}" fill="#fffde7" stroke="{_LINE}"/>'
    drawn = f"<g><title>{_text(label)}</title>{shape}{_centre(label, width / 2, high / 2)}</g>"
    return _Shape(width, high, width / 2, drawn)


def _arrow(path: str) -> str:
    return f'<path d="{path}" fill="none" stroke="{_LINE}" marker-end="url(#arrow)"/>'


def _label(text: str, x: float, y: float) -> str:
    if not text:
        return ""
    return f'<text x="{x:g}" y="{y:g}" fill="#546e7a" font-size="{_FONT - 1}">{_text(_shorten(text))}</text>'


def _centre(text: str, x: float, y: float) -> str:
    return f'<text x="{x:g}" y="{y + 4:g}" text-anchor="middle" fill="#263238">{_text(_shorten(text))}</text>'


def _marks(dotted: str, status: str) -> str:
    state = f' data-status="{_text(status)}"' if status else ""
    return f'class="entry" data-id="{_text(dotted)}"{state}'


def _how_long(node: graph.Sleep) -> str:
    if node.seconds is not None:
        return f"{node.seconds:g} s"
    body = node.body
    if isinstance(body, SleepBody) and body.until is not None:
        return f"until {body.until.isoformat()}"
    return body.callback.name if isinstance(body, SleepBody) and body.callback else "computed"


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_LABEL else f"{text[: _MAX_LABEL - 1]}…"


def _width(text: str) -> float:
    return len(_shorten(text)) * _CHAR


def _text(text: str) -> str:
    """A text that may stand in XML."""
    return escape("".join(char if char.isprintable() else " " for char in text))
