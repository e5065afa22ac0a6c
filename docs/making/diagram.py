"""The drawing of the states and moves of a shard, from the one table of them.

States stand below each other in the table's order. A move to the next one is an arrow between the two. Every
other move leaves its state at the side, to the right when it leads down and to the left when it leads up, and
joins the lane of the state it leads to. So the table alone decides what is drawn; nothing is placed by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from langbatch.lifecycle import MOVES, STATES

Side = Literal["left", "right"]

# Pixels.
BOX_WIDTH = 148
ROW = 21
PADDING = 9
GAP = 38
LANE = 20
LETTER = 6.7
ROUND = 7
MARGIN = 14
TOP = 46

#: The colour of the lane to a state, by light and by dark; the others share one.
COLOURS: Mapping[str, tuple[str, str]] = {
    "waiting": ("#b26a00", "#e8a13a"),
    "active": ("#1f6fb5", "#6fb3ee"),
    "done": ("#23803a", "#6cc381"),
    "needs_operator": ("#c2252f", "#f2777f"),
}
REST = ("#666e78", "#9aa3ad")
#: Of arrows straight down.
ALONG = ("#24292f", "#e6e9ec")

STYLE = """
text { font: 12px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #24292f }
.name { font-weight: 700; font-size: 13px; text-anchor: middle }
.paper { fill: #ffffff }
.box { fill: #f3f5f7; stroke: #57606a; stroke-width: 1.3 }
.end { fill: none; stroke: #57606a }
path { fill: none; stroke-width: 1.6 }
.dot { fill: #24292f }
"""
DARK = """
text { fill: #e6e9ec }
.paper { fill: #14181d }
.box { fill: #232930; stroke: #8b949e }
.end { stroke: #8b949e }
.dot { fill: #e6e9ec }
"""


@dataclass(frozen=True)
class Arrow:
    """One move out of one state."""

    move: str
    origin: str
    to: str


@dataclass
class Box:
    """A state. `left` and `right`: from top to bottom the arrows that leave there, None where a lane ends."""

    state: str
    left: list[Arrow | None]
    right: list[Arrow | None]
    top: float = 0.0

    @property
    def height(self) -> float:
        return max(1, len(self.left), len(self.right)) * ROW + 2 * PADDING

    def row(self, side: Side, arrow: Arrow | None) -> float:
        """Where that arrow leaves, or the lane ends."""
        rows = self.left if side == "left" else self.right
        free = self.height - 2 * PADDING - len(rows) * ROW
        return self.top + PADDING + free / 2 + (rows.index(arrow) + 0.65) * ROW


ORDER: tuple[str, ...] = tuple(STATES)
PLACE = {state: place for place, state in enumerate(ORDER)}


def arrows() -> list[Arrow]:
    return [
        Arrow(move, origin, rule.to)
        for move, rule in MOVES.items()
        for origin in ORDER
        if origin in rule.origins
    ]


def _side(arrow: Arrow) -> Side | None:
    """None: straight down to the next state."""
    steps = PLACE[arrow.to] - PLACE[arrow.origin]
    return None if steps == 1 else "right" if steps > 1 else "left"


def _lanes(side: Side) -> dict[str, int]:
    """The lane of each state that is led to on that side; 0 is the innermost. Those that do not meet share
    one."""
    spans: dict[str, tuple[int, int]] = {}
    for arrow in arrows():
        if _side(arrow) == side:
            ends = PLACE[arrow.origin], PLACE[arrow.to]
            first, last = spans.get(arrow.to, ends)
            spans[arrow.to] = min(first, *ends), max(last, *ends)
    taken: list[list[tuple[int, int]]] = []
    lanes: dict[str, int] = {}
    for state, (first, last) in sorted(spans.items(), key=lambda item: item[1][1] - item[1][0]):
        fitting = (n for n, others in enumerate(taken) if all(last < a or b < first for a, b in others))
        lanes[state] = next(fitting, len(taken))
        if lanes[state] == len(taken):
            taken.append([])
        taken[lanes[state]].append((first, last))
    return lanes


def _boxes(lanes: Mapping[Side, Mapping[str, int]]) -> dict[str, Box]:
    boxes = {state: Box(state, [], []) for state in ORDER}
    for arrow in arrows():
        side = _side(arrow)
        if side is not None:
            (boxes[arrow.origin].left if side == "left" else boxes[arrow.origin].right).append(arrow)
    top = float(TOP)
    for box in boxes.values():
        # So no two arrows of a state cross: lanes on the left lead up, those on the right lead down.
        box.left.sort(key=lambda arrow: lanes["left"][arrow.to] if arrow else 0)
        box.right.sort(key=lambda arrow: -lanes["right"][arrow.to] if arrow else 0)
        if box.state in lanes["left"]:
            box.left.append(None)
        if box.state in lanes["right"]:
            box.right.insert(0, None)
        box.top = top
        top += box.height + GAP
    return boxes


@dataclass(frozen=True)
class Sheet:
    """Where boxes and lanes stand. `left` and `right` are the boxes' edges."""

    lanes: Mapping[Side, Mapping[str, int]]
    boxes: Mapping[str, Box]
    left: float
    right: float

    @property
    def middle(self) -> float:
        return (self.left + self.right) / 2

    def lane(self, side: Side, state: str) -> float:
        beyond = _room(side) + LANE * self.lanes[side][state]
        return self.left - beyond if side == "left" else self.right + beyond


def _sheet() -> Sheet:
    lanes: dict[Side, dict[str, int]] = {"left": _lanes("left"), "right": _lanes("right")}
    left = MARGIN + _room("left") + LANE * max(lanes["left"].values())
    return Sheet(lanes, _boxes(lanes), left, left + BOX_WIDTH)


def _room(side: Side) -> float:
    """Pixels between a box and the innermost lane: the longest move's name has room there."""
    return max(len(arrow.move) for arrow in arrows() if _side(arrow) == side) * LETTER + 24


def picture() -> str:
    """The drawing as SVG."""
    sheet = _sheet()
    width = max(sheet.lane("right", state) for state in sheet.lanes["right"]) + MARGIN
    height = max(box.top + box.height for box in sheet.boxes.values()) + MARGIN
    body = [
        _rect("paper", 0, 0, width, height, 8),
        f'<circle class="dot" cx="{sheet.middle:g}" cy="16" r="5"/>',
        _path("along", f"M{sheet.middle:g} 21V{TOP - 1}"),
    ]
    for box in sheet.boxes.values():
        body += _drawn_box(box, sheet.left)
    for arrow in arrows():
        side = _side(arrow)
        body += _straight(sheet, arrow) if side is None else _by_lane(sheet, arrow, side)
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
            "<title>The life of a shard</title>",
            "<!-- Made from langbatch/lifecycle.py by `make pages`. -->",
            f"<style>{STYLE}{_colours(0)}",
            f"@media (prefers-color-scheme: dark) {{{DARK}{_colours(1)}}}</style>",
            "<defs>",
            *(_head(name) for name in ("along", "rest", *COLOURS)),
            "</defs>",
            *body,
            "</svg>",
            "",
        ]
    )


def _straight(sheet: Sheet, arrow: Arrow) -> Iterator[str]:
    origin, end = sheet.boxes[arrow.origin], sheet.boxes[arrow.to].top
    start = origin.top + origin.height
    yield _path("along", f"M{sheet.middle:g} {start:g}V{end - 1:g}")
    yield _text(sheet.middle + 9, (start + end) / 2 + 4, arrow.move)


def _by_lane(sheet: Sheet, arrow: Arrow, side: Side) -> Iterator[str]:
    edge, out = (sheet.left, -1) if side == "left" else (sheet.right, 1)
    start, end = sheet.boxes[arrow.origin].row(side, arrow), sheet.boxes[arrow.to].row(side, None)
    down = 1 if end > start else -1
    x = sheet.lane(side, arrow.to)
    course = (
        f"M{edge:g} {start:g}H{x - out * ROUND:g}Q{x:g} {start:g} {x:g} {start + down * ROUND:g}"
        f"V{end - down * ROUND:g}Q{x:g} {end:g} {x - out * ROUND:g} {end:g}H{edge + out:g}"
    )
    yield _path(arrow.to if arrow.to in COLOURS else "rest", course)
    yield _text(edge + out * 9, start - 4, arrow.move, end=side == "left")


def _drawn_box(box: Box, left: float) -> Iterator[str]:
    yield _rect("box", left, box.top, BOX_WIDTH, box.height, 6)
    if box.state == "done":
        # A shard rests here.
        yield _rect("end", left + 3, box.top + 3, BOX_WIDTH - 6, box.height - 6, 4)
    x, y = left + BOX_WIDTH / 2, box.top + box.height / 2 + 4.5
    yield f'<text class="name" x="{x:g}" y="{y:g}">{box.state}</text>'


def _rect(name: str, x: float, y: float, width: float, height: float, radius: float) -> str:
    place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}"'
    return f'<rect class="{name}" {place}/>'


def _path(name: str, course: str) -> str:
    return f'<path class="{name}" d="{course}" marker-end="url(#head-{name})"/>'


def _text(x: float, y: float, text: str, *, end: bool = False) -> str:
    anchor = ' text-anchor="end"' if end else ""
    return f'<text x="{x:g}" y="{y:g}"{anchor}>{text}</text>'


def _head(name: str) -> str:
    size = 'viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" markerUnits="userSpaceOnUse"'
    tip = '<path class="tip" d="M0 0L8 4L0 8Z"/>'
    return f'<marker id="head-{name}" {size} orient="auto">{tip}</marker>'


def _colours(scheme: Literal[0, 1]) -> str:
    return "\n".join(
        f".{name} {{ stroke: {pair[scheme]} }}\n#head-{name} .tip {{ fill: {pair[scheme]} }}"
        for name, pair in {**COLOURS, "rest": REST, "along": ALONG}.items()
    )
