"""The plan of a stream as a graph: nodes, edges, and what a notebook shows of them."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Graph", "GraphEdge", "GraphNode", "PlanText", "graph_of"]


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
    state
        What it keeps as state, as text; empty if it keeps nothing.
    guarantee
        What a sink guarantees, such as ``"exactly_once: committed after the checkpoint"``; empty for other steps.

    Examples
    --------
    >>> node = mill.from_iter([1]).filter(col("value") > 0).graph(parallelism=2).nodes[1]
    >>> node.kind, node.parallelism
    ('filter', 2)
    >>> counts = mill.from_iter([1]).key_by("value").agg(n=mill.count())
    >>> mill.graph(counts.write_csv("out/"), checkpoint="state/").nodes[-1].guarantee
    'exactly_once: committed after the checkpoint'
    """

    name: str
    kind: str
    detail: str
    chain: int
    parallelism: int
    state: str = ""
    guarantee: str = ""


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

    def _repr_pretty_(self, printer: Any, is_cycle: bool) -> None:
        """Show the plan as text in IPython."""
        printer.text(self.text)

    def _repr_html_(self) -> str:
        """Draw the plan in a notebook, in the colours of its theme."""
        from millstream._drawing import drawing

        return drawing(self)

    def _repr_svg_(self) -> str:
        """Draw the plan as an image of its own, with a ground that is dark where the viewer prefers that."""
        from millstream._drawing import drawing

        return drawing(self, is_alone=True)


class PlanText(str):
    """A plan as text. A notebook shows its lines as they are.

    Examples
    --------
    >>> plan = mill.from_iter([1]).explain()
    >>> isinstance(plan, str), plan._repr_html_().startswith("<pre")
    (True, True)
    """

    __slots__ = ()

    def _repr_pretty_(self, printer: Any, is_cycle: bool) -> None:
        """Show the text in IPython."""
        printer.text(str(self))

    def _repr_html_(self) -> str:
        """Show the text in a notebook; long lines wrap below their own indentation."""
        lines = []
        for line in self.splitlines():
            deep = len(line) - len(line.lstrip())
            text = html.escape(line.strip())
            if line and not deep:
                text = f"<b>{text}</b>"
            lines.append(f'<div style="padding-left:{deep + 4}ch;text-indent:-4ch;min-height:1em">{text}</div>')
        # Themes have fonts and breaks of their own for what is within a block of text.
        font = "font-family:var(--jp-code-font-family,monospace);font-size:90%;line-height:1.4"
        return f'<pre style="white-space:pre-wrap;word-break:normal;overflow-wrap:anywhere;{font}">{"".join(lines)}</pre>'


def graph_of(text: str, nodes: Iterable[Sequence[Any]], edges: Iterable[Sequence[Any]]) -> Graph:
    """Return a graph from what the planner knows: the text, the nodes, and the edges.

    Examples
    --------
    >>> from millstream._graph import graph_of
    >>> graph_of("", [("collect", "sink", "collect()", 0, 1, "", "none: complete when the job ends")], []).nodes[0].guarantee
    'none: complete when the job ends'
    """
    return Graph([GraphNode(*node) for node in nodes], [GraphEdge(*edge) for edge in edges], text)
