"""The plan of a stream as a graph: nodes, edges, and an SVG for notebooks."""

from __future__ import annotations

import html
from dataclasses import dataclass, field

__all__ = ["Graph", "GraphEdge", "GraphNode"]

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 190, 46, 60, 26, 12
_CHARACTERS_MAX = 27
_COLOURS = ("#6ea8dc", "#8cc474", "#f2b660", "#b48ad4", "#e58b8b", "#66c2b8")


@dataclass(frozen=True)
class GraphNode:
    """A step of a plan.

    Attributes
    ----------
    name
        The name of the step.
    kind
        What kind of step it is, such as ``"source"`` or ``"filter"``.
    detail
        What it does, as text.
    chain
        The number of its chain: steps of one chain run on the same thread.
    parallelism
        How many parallel tasks run it.

    Examples
    --------
    >>> node = mill.from_iter([1]).filter(col("value") > 0).graph(parallelism=2).nodes[1]
    >>> node.kind, node.parallelism
    ('filter', 2)
    """

    name: str
    kind: str
    detail: str
    chain: int
    parallelism: int


@dataclass(frozen=True)
class GraphEdge:
    """A connection of two steps.

    Attributes
    ----------
    start
        The place of the step that emits, in the list of nodes.
    end
        The place of the step that receives.
    label
        What is passed on, or how: ``hash(word)``, ``late``.

    Examples
    --------
    >>> edge = mill.from_iter([1]).filter(col("value") > 0).graph().edges[0]
    >>> edge.start, edge.end
    (0, 1)
    """

    start: int
    end: int
    label: str


@dataclass(frozen=True)
class Graph:
    """The plan of a stream as nodes and edges, which a notebook draws. Steps of one colour share a thread.

    Attributes
    ----------
    nodes
        The steps.
    edges
        How they are connected.
    text
        The plan as text, as :meth:`Stream.explain` returns it.

    Examples
    --------
    >>> graph = mill.from_iter([1]).filter(col("value") > 0).graph()
    >>> graph.nodes[0].kind
    'source'
    """

    nodes: list[GraphNode]
    edges: list[GraphEdge]
    text: str = field(repr=False)

    def __str__(self) -> str:
        """Return the plan as text."""
        return self.text

    def _ranks(self) -> list[int]:
        """Return the column of each node: one after the last of those it comes from."""
        ranks = [0] * len(self.nodes)
        for _ in self.nodes:
            before = list(ranks)
            for edge in self.edges:
                ranks[edge.end] = max(ranks[edge.end], ranks[edge.start] + 1)
            if ranks == before:
                break
        return ranks

    def _repr_svg_(self) -> str:
        """Draw the plan as SVG, for a notebook."""
        ranks = self._ranks()
        heights: dict[int, int] = {}
        places = []
        for rank in ranks:
            row = heights.get(rank, 0)
            heights[rank] = row + 1
            places.append((_MARGIN + rank * (_WIDTH + _GAP_X), _MARGIN + row * (_HEIGHT + _GAP_Y)))
        width = 2 * _MARGIN + (max(ranks, default=0) + 1) * (_WIDTH + _GAP_X) - _GAP_X
        height = 2 * _MARGIN + max(heights.values(), default=1) * (_HEIGHT + _GAP_Y) - _GAP_Y
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            # It shrinks with the page, and its text has the colour of the text around it.
            'style="max-width:100%;height:auto" font-family="sans-serif" fill="currentColor">',
            '<defs><marker id="tip" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">',
            '<path d="M0,0 L8,4 L0,8 z" fill="#777"/></marker></defs>',
        ]
        for edge in self.edges:
            (x1, y1), (x2, y2) = places[edge.start], places[edge.end]
            x1, y1, y2 = x1 + _WIDTH, y1 + _HEIGHT // 2, y2 + _HEIGHT // 2
            parts.append(f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#777" marker-end="url(#tip)"/>')
            label = html.escape(_short(edge.label, 12))
            parts.append(f'<text x="{(x1 + x2) // 2}" y="{(y1 + y2) // 2 - 4}" font-size="9" text-anchor="middle">{label}</text>')
        for node, (x, y) in zip(self.nodes, places, strict=True):
            colour = _COLOURS[node.chain % len(_COLOURS)]
            title = html.escape(f"{node.name}: {node.detail}")
            parts.append(
                f'<g><title>{title}</title><rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="5" fill="{colour}" fill-opacity="0.3" '
                f'stroke="#999"/><text x="{x + 8}" y="{y + 18}" font-size="12">{html.escape(_short(node.name, 22))} '
                f"×{node.parallelism}</text>"
                f'<text x="{x + 8}" y="{y + 35}" font-size="10" opacity="0.7">{html.escape(_short(node.detail))}</text></g>'
            )
        return "".join([*parts, "</svg>"])


def _short(text: str, limit: int = _CHARACTERS_MAX) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
