"""The plan of a stream as a graph: nodes, edges, and what a notebook shows of them."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Graph", "GraphEdge", "GraphNode", "PlanText", "graph_of"]

_RUNG = re.compile(r"^(?:native|compiled|batch|record)(?:; |$)")
"""How a step runs, such as ``native``, before what it keeps."""
_STATE_NAME = re.compile(r'^state "(?:[^"\\]|\\.)*"(?:; |$)')


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
    >>> text = "exactly_once, no checkpoints\\n\\nchain 0 (1 task)\\n  collect        collect()  [none: complete when the job ends]"
    >>> graph_of(text, [("collect", "sink", "collect()", 0, 1)], []).nodes[0].guarantee
    'none: complete when the job ends'
    """
    notes = _Notes(text)
    drawn = []
    for name, kind, detail, chain, parallelism in nodes:
        state, guarantee = notes.of(name, kind, detail, chain)
        drawn.append(GraphNode(name, kind, detail, chain, parallelism, state, guarantee))
    return Graph(drawn, [GraphEdge(*edge) for edge in edges], text)


class _Notes:
    """What the text says in brackets at the end of the line of a step."""

    def __init__(self, text: str) -> None:
        self._chains: dict[int, list[str]] = {}
        lines: list[str] = []
        for line in text.splitlines():
            if (found := re.match(r"chain (\d+) \(", line)) is not None:
                lines = self._chains.setdefault(int(found[1]), [])
            else:
                lines.append(line)

    def of(self, name: str, kind: str, detail: str, chain: int) -> tuple[str, str]:
        """Return what a step keeps, and what it guarantees if it is a sink."""
        # A step that comes after another output of one has the name of that output before its own.
        step = re.compile(rf" +(?:\S.*: )?{re.escape(name)} +{re.escape(detail)}(?:  \[(.*)\])?")
        found = next((match for line in self._chains.get(chain, ()) if (match := step.fullmatch(line)) is not None), None)
        notes = "" if found is None else found[1] or ""
        if kind == "sink":
            return "", notes
        if kind == "source":
            return "", ""
        kept = _RUNG.sub("", notes, count=1)
        named = _STATE_NAME.match(kept)
        return (kept if named is None else kept[named.end() :] or kept), ""
