"""The picture of a plan: from its sources at the top to its sinks at the bottom.

::

    rank 0      [ source ]
                 |      \\
    rank 1      [ step ] |      a connection that passes a rank has a lane of its own there,
                 |       |      so that it crosses no box
    rank 2      [  union  ]

Steps are ranked by the longest way to them, ordered within a rank so that few connections cross, and moved as close to
their neighbours as the order allows. All text has the colour of the text around the picture, and boxes are tinted, so it
is readable on any ground.

A notebook that is not trusted shows no picture, and leaves its text. Boxes come first and have a line for each text, within
a block that keeps the lines, so that what is left is a list of the steps.
"""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from millstream._graph import Graph, GraphEdge, GraphNode

__all__ = ["drawing"]

_BOX_WIDTH, _LANE_WIDTH, _GAP_X, _GAP_Y, _MARGIN = 290, 12, 26, 42, 14
_LINE_HEIGHTS = (28, 44, 60)
"""How high a box of one, two and three lines is."""
_STUB = 15
"""How far a connection goes straight down from its box, with its label on the right."""
_PORT_STEP_MAX, _CHARACTER_WIDTH = 84, 5.4
_SWEEPS = 6
_NAME_CHARACTERS_MAX, _DETAIL_CHARACTERS_MAX = 28, 48
_COLOURS = ("#4c8dd6", "#5fae45", "#e09b2d", "#9a6bc9", "#d96a6a", "#3aa99c")
_LINE, _SIDE_LINE = "#8a8f98", "#d0762b"
_ALONE = (
    "<style>.millstream-plan{color:#1f2328}.millstream-paper{fill:#fff}@media(prefers-color-scheme:dark)"
    "{.millstream-plan{color:#e6e6e6}.millstream-paper{fill:#1e1e1e}}</style>"
)


@dataclass(eq=False)
class _Item:
    """A box, or the lane of a connection that passes a rank."""

    rank: int
    node: GraphNode | None
    number: int
    x: float = 0.0
    """Where its centre is."""
    above: list[_Item] = field(default_factory=list)
    below: list[_Item] = field(default_factory=list)

    @property
    def width(self) -> int:
        return _LANE_WIDTH if self.node is None else _BOX_WIDTH

    @property
    def height(self) -> int:
        return 0 if self.node is None else _LINE_HEIGHTS[len(_small_lines(self.node))]


def drawing(graph: Graph, *, is_alone: bool = False) -> str:
    """Return the picture as SVG, or as HTML that has the picture.

    Parameters
    ----------
    graph
        The plan.
    is_alone
        Whether it is a file or image, which no page passes its colours to: it has a ground of its own then.

    Examples
    --------
    >>> from millstream._drawing import drawing
    >>> drawing(mill.from_iter([1]).graph()).count("<rect")
    2
    """
    layout = _Layout(graph)
    width, height = layout.size()
    ground = f'{_ALONE}<rect class="millstream-paper" width="{width:g}" height="{height:g}"/>' if is_alone else ""
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="millstream-plan" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        'style="max-width:100%;height:auto;white-space:normal" font-family="system-ui,sans-serif" font-size="10" fill="currentColor" role="img" '
        f'aria-label="the plan of the job">{ground}',
        *layout.boxes(),
        f"{' '.join(layout.edges())}</svg>",
    ]
    picture = "\n".join(lines)
    return picture if is_alone else f'<pre style="margin:0;padding:0;border:0;background:none;overflow:visible">{picture}</pre>'


class _Layout:
    """Where boxes and lines are."""

    def __init__(self, graph: Graph) -> None:
        ranks = _ranks(graph)
        self._items = [_Item(rank, node, number) for number, (rank, node) in enumerate(zip(ranks, graph.nodes, strict=True))]
        self._rows: list[list[_Item]] = [[] for _ in range(max(ranks, default=0) + 1)]
        for item in self._items:
            self._rows[item.rank].append(item)
        self._ways = [self._way(edge) for edge in graph.edges]
        for _ in range(_SWEEPS):
            self._order()
        for row in self._rows:
            _place(row, [0.0] * len(row))
        for sweep in range(2 * _SWEEPS):
            self._align(downwards=sweep % 2 == 0)
        left = min((item.x - item.width / 2 for item in self._all()), default=0.0)
        for item in self._all():
            item.x = round(item.x - left + _MARGIN)
        self._tops: list[int] = []
        y = _MARGIN
        for row in self._rows:
            self._tops.append(y)
            y += max((item.height for item in row), default=0) + _GAP_Y
        self._bottom = y - _GAP_Y + _MARGIN
        self._edges = graph.edges

    def _all(self) -> Iterator[_Item]:
        for row in self._rows:
            yield from row

    def _way(self, edge: GraphEdge) -> list[_Item]:
        """Return the boxes and lanes that a connection passes, and put the lanes into their ranks."""
        start, end = self._items[edge.start], self._items[edge.end]
        lanes = [_Item(rank, None, start.number) for rank in range(start.rank + 1, end.rank)]
        for lane in lanes:
            self._rows[lane.rank].append(lane)
        way = [start, *lanes, end]
        for first, second in zip(way, way[1:], strict=False):
            first.below.append(second)
            second.above.append(first)
        return way

    def _order(self) -> None:
        """Sort each rank by where the neighbours are, from the top and then from the bottom."""
        for rows, side in ((self._rows[1:], "above"), (self._rows[-2::-1], "below")):
            places = {item: place for row in self._rows for place, item in enumerate(row)}
            for row in rows:

                def middle(item: _Item) -> float:
                    near = [places[other] for other in getattr(item, side)]
                    return sum(near) / len(near) if near else places[item]

                row.sort(key=middle)
                places.update({item: place for place, item in enumerate(row)})

    def _align(self, *, downwards: bool) -> None:
        for row in self._rows[1:] if downwards else self._rows[-2::-1]:
            wanted = []
            for item in row:
                near = item.above if downwards else item.below
                wanted.append(sum(other.x for other in near) / len(near) if near else item.x)
            _place(row, wanted)

    def size(self) -> tuple[float, float]:
        return max((item.x + item.width / 2 for item in self._all()), default=_BOX_WIDTH) + _MARGIN, self._bottom

    def _ports(self, *, is_out: bool) -> dict[int, tuple[float, float]]:
        """Return where each connection leaves its box or enters it, and how far apart they are: in an order in which they do not cross."""
        ends: dict[_Item, list[int]] = {}
        for number, way in enumerate(self._ways):
            ends.setdefault(way[0] if is_out else way[-1], []).append(number)
        ports = {}
        for item, numbers in ends.items():
            numbers.sort(key=lambda number: (self._ways[number][1 if is_out else -2].x, number))
            step = min(_PORT_STEP_MAX, (_BOX_WIDTH - 40) / len(numbers))
            for place, number in enumerate(numbers):
                ports[number] = item.x + (place - (len(numbers) - 1) / 2) * step, step
        return ports

    def _row_bottom(self, rank: int) -> int:
        return self._tops[rank] + max(item.height for item in self._rows[rank])

    def edges(self) -> Iterator[str]:
        """Draw the connections, each with its label beside its beginning."""
        out, into = self._ports(is_out=True), self._ports(is_out=False)
        for number, (edge, way) in enumerate(zip(self._edges, self._ways, strict=True)):
            (x, step), bottom = out[number], self._tops[way[0].rank] + way[0].height
            is_side = edge.label == "errors" or edge.label.startswith("late")
            colour = _SIDE_LINE if is_side else _LINE
            if edge.label:
                short = _short(edge.label, int(step / _CHARACTER_WIDTH))
                title = f"<title>{html.escape(edge.label)}</title>" if short != edge.label else ""
                fill = f' fill="{colour}"' if is_side else ""
                yield f'<text class="label" x="{x + 5:g}" y="{bottom + 12}" font-size="9.5"{fill}>{title}{html.escape(short)}</text>'
            path = [f"M{x:g},{bottom}"]
            for item in way[1:]:
                above = self._row_bottom(item.rank - 1) + (_STUB if item is way[1] else 0)
                target = into[number][0] if item is way[-1] else item.x
                tip = self._tops[item.rank] - (6 if item is way[-1] else 0)
                middle = (above + tip) / 2
                path.append(f"V{above} C{x:g},{middle:g} {target:g},{middle:g} {target:g},{tip}")
                x = target
            dashes = ' stroke-dasharray="4 3"' if is_side else ""
            top = self._tops[way[-1].rank]
            yield (
                f'<path d="{" ".join(path)}" fill="none" stroke="{colour}" stroke-width="1.3"{dashes}/>'
                f'<path d="M{x - 4:g},{top - 7} L{x + 4:g},{top - 7} L{x:g},{top} z" fill="{colour}"/>'
            )

    def boxes(self) -> Iterator[str]:
        """Draw the steps; text that is too long for its box is cut, and all of it is shown under the pointer."""
        for item in self._items:
            node = item.node
            if node is None:
                continue
            x, y, colour = item.x - _BOX_WIDTH / 2, self._tops[item.rank], _COLOURS[node.chain % len(_COLOURS)]
            whole = _small_lines(node)
            short = [_short(line, _DETAIL_CHARACTERS_MAX) for line in whole]
            small = "".join(
                f'\n<text x="10" y="{34 + 15 * place}" opacity="{0.75 if place == 0 and node.detail else 1}">{html.escape(line)}</text>'
                for place, line in enumerate(short)
            )
            cut = [line for line, shown in zip([node.name, *whole], [_short(node.name, _NAME_CHARACTERS_MAX), *short], strict=True) if line != shown]
            title = f"\n<title>{html.escape(chr(10).join(cut))}</title>" if cut else ""
            yield (
                f'<g class="step" data-step="{html.escape(node.name, quote=True)}">'
                f'<rect x="{x:g}" y="{y}" width="{_BOX_WIDTH}" height="{item.height}" rx="6" fill="{colour}" fill-opacity="0.18" '
                f'stroke="{colour}" stroke-width="{2.2 if node.kind in ("source", "sink") else 1}"/>'
                # An inner picture cuts what is outside of it.
                f'<svg x="{x:g}" y="{y}" width="{_BOX_WIDTH - 6}" height="{item.height}">'
                f'<text x="10" y="18" font-size="12" font-weight="600">{html.escape(_short(node.name, _NAME_CHARACTERS_MAX))}</text> '
                f'<text class="side" x="{_BOX_WIDTH - 12}" y="18" text-anchor="end" opacity="0.75">×{node.parallelism}</text>{small}</svg>{title}</g>'
            )


def _ranks(graph: Graph) -> list[int]:
    """Return the rank of each node: one after the last of those it comes from."""
    ranks = [0] * len(graph.nodes)
    for _ in graph.nodes:
        before = list(ranks)
        for edge in graph.edges:
            ranks[edge.end] = max(ranks[edge.end], ranks[edge.start] + 1)
        if ranks == before:
            break
    return ranks


def _place(row: list[_Item], wanted: list[float]) -> None:
    """Move the items of a rank as close to where they want to be as their order and widths allow, in the least squares."""
    offsets = [0.0]
    for first, second in zip(row, row[1:], strict=False):
        offsets.append(offsets[-1] + (first.width + second.width) / 2 + _GAP_X)
    # Those that would overlap become a block, which is where its members want to be on average.
    blocks: list[tuple[float, int]] = []
    for x, offset in zip(wanted, offsets, strict=False):
        blocks.append((x - offset, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (right, right_count), (left, left_count) = blocks.pop(), blocks.pop()
            count = left_count + right_count
            blocks.append(((left * left_count + right * right_count) / count, count))
    places = [x for x, count in blocks for _ in range(count)]
    for item, x, offset in zip(row, places, offsets, strict=False):
        item.x = x + offset


def _small_lines(node: GraphNode) -> list[str]:
    """Return what is written below the name of a step."""
    lines = [node.detail] if node.detail else []
    # What it guarantees is all that a sink says about itself, and needs no title.
    lines += [f"▪ {node.state}"] if node.state else [f"✓ {node.guarantee}"] if node.guarantee else []
    return lines


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
