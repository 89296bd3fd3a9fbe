"""The picture of a plan: readable on any ground, no connection across a box, what steps keep and guarantee."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import millstream as mill
from millstream import col
from millstream._graph import Graph, GraphEdge, GraphNode

SVG = "{http://www.w3.org/2000/svg}"


def readings() -> mill.Stream:
    made = mill.generate(rows=100, city=mill.index() % 5, km=(mill.index() * 7919 % 100) / 10, at=mill.now())
    return made.event_time("at", watermark="1s")


def picture_of(graph: Graph) -> ET.Element:
    found = ET.fromstring(graph._repr_html_()).find(f"{SVG}svg")
    assert found is not None
    return found


def many_sinks() -> Graph:
    rows = readings()
    per_city = rows.filter(col("km") > 0).key_by("city").window(mill.tumbling("1m")).agg(n=mill.count())
    inverse = rows.with_columns(y=1 / col("km"))
    sinks = [per_city.write_csv("o/"), per_city.late.write_csv("l/"), inverse.write_parquet("p/"), inverse.all_errors.write_json("bad/")]
    return mill.graph(*sinks, checkpoint="state", on_error="route", parallelism=2)


def dense() -> Graph:
    """Return a graph that no plan has: each step is connected with all others."""
    nodes = [GraphNode(f"step {n}", "filter", "x" * n, n % 3, 1, "state" if n % 2 else "") for n in range(7)]
    return Graph(nodes, [GraphEdge(a, b, "errors") for b in range(7) for a in range(b)], "")


def points(path: str) -> list[tuple[float, float]]:
    """Return points along a path of moves, vertical lines and curves."""
    found: list[tuple[float, float]] = []
    for letter, rest in re.findall(r"([MVC])([^MVC]*)", path):
        numbers = [float(text) for text in re.findall(r"-?[\d.]+", rest)]
        if letter == "M":
            found.append((numbers[0], numbers[1]))
        elif letter == "V":
            found.append((found[-1][0], numbers[0]))
        else:
            corners = [found[-1], *zip(numbers[::2], numbers[1::2], strict=True)]
            for step in range(1, 21):
                t = step / 20
                weights = [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3]
                found.append((sum(w * x for w, (x, _) in zip(weights, corners, strict=True)), sum(w * y for w, (_, y) in zip(weights, corners, strict=True))))
    return found


@pytest.mark.parametrize("make", [many_sinks, dense, lambda: readings().graph(parallelism=2)])
def test_connections_cross_no_box_and_boxes_do_not_overlap(make: Any) -> None:
    graph = make()
    picture = picture_of(graph)
    width, height = (float(text) for text in picture.attrib["viewBox"].split()[2:])
    boxes = [tuple(float(rect.attrib[name]) for name in ("x", "y", "width", "height")) for rect in picture.iter(f"{SVG}rect")]
    assert len(boxes) == len(graph.nodes)
    for number, (x, y, wide, high) in enumerate(boxes):
        assert 0 <= x <= x + wide <= width and 0 <= y <= y + high <= height
        assert all(x + wide <= left or left + w <= x or y + high <= top or top + h <= y for left, top, w, h in boxes[:number])
    lines = [points(path.attrib["d"]) for path in picture.iter(f"{SVG}path") if path.attrib["fill"] == "none"]
    assert len(lines) == len(graph.edges)
    for edge, line in zip(graph.edges, lines, strict=True):
        own = boxes[edge.start]
        assert own[0] <= line[0][0] <= own[0] + own[2] and line[0][1] == own[1] + own[3]
        for x, y in line[1:]:
            assert not any(left < x < left + w and top < y < top + h for left, top, w, h in boxes), (edge, x, y)
    for line in lines:
        assert all(first[1] <= second[1] for first, second in pairwise(line))


def test_each_label_is_beside_its_own_connection() -> None:
    graph = many_sinks()
    picture = picture_of(graph)
    labels = [text for text in picture.findall(f"{SVG}text") if text.attrib["class"] == "label"]
    starts = [points(path.attrib["d"])[0] for path in picture.iter(f"{SVG}path") if path.attrib["fill"] == "none"]
    named = [(edge.label, start) for edge, start in zip(graph.edges, starts, strict=True) if edge.label]
    assert [label.text for label in labels] == [name for name, _ in named]
    for label, (_, (x, y)) in zip(labels, named, strict=True):
        assert (float(label.attrib["x"]), float(label.attrib["y"])) == (x + 5, y + 12)
    long = picture_of(Graph([GraphNode("a", "source", "", 0, 1), GraphNode("b", "sink", "", 1, 1)], [GraphEdge(0, 1, "hash(a_long_name)" * 3)], ""))
    assert long.findtext(f"{SVG}text/{SVG}title") == "hash(a_long_name)" * 3


def test_a_notebook_that_is_not_trusted_leaves_a_list_of_steps() -> None:
    left = re.sub(r"<(?!/?pre)[^>]*>", "", readings().key_by("city").agg(n=mill.count()).graph(parallelism=2)._repr_html_())
    lines = [line.strip() for line in left.splitlines()]
    assert lines[1:3] == ["generate ×2", "generate(rows=100): index int64; in order"]
    assert "▪ keeps a row a key until the input ends" in lines and "event_time ×2" in lines
    # What was cut is there as a whole.
    assert "▪ keeps the watermark of each split until the split ends" in lines


def test_state_and_guarantees_are_known_and_shown(tmp_path: Path) -> None:
    graph = many_sinks()
    nodes = {node.name: node for node in graph.nodes}
    assert nodes["window"].state == "keeps a row a key and window until the watermark is at the end of the window"
    assert nodes["event_time"].state.startswith("keeps the watermark of each split")
    assert nodes["filter"].state == nodes["filter"].guarantee == ""
    sinks = [node for node in graph.nodes if node.kind == "sink"]
    assert len(sinks) == 4
    assert {node.guarantee for node in sinks} == {"exactly_once: committed after the checkpoint"}
    assert all(not node.guarantee for node in graph.nodes if node.kind != "sink")
    text = graph._repr_html_()
    assert text.count("✓ exactly_once") == 4
    totals = readings().key_by("city").agg(n=mill.count(), emit="end")
    # Names and texts with characters of regular expressions and of XML.
    graph = mill.graph(totals.name("a (b) [c] <d> & 'e'").write_csv(tmp_path / "x [1]"))
    picture_of(graph)
    assert [node.guarantee for node in graph.nodes if node.kind == "sink"] == ["none (no checkpoint): complete when the job ends"]


def test_a_picture_fits_its_page_and_has_the_colours_of_the_text_around_it() -> None:
    shown = many_sinks()._repr_html_()
    assert 'max-width:100%;height:auto;' in shown and 'fill="currentColor"' in shown
    # Two pictures of one page share no names.
    assert " id=" not in shown and "<style" not in shown
    alone = many_sinks()._repr_svg_()
    assert "prefers-color-scheme:dark" in alone and 'class="millstream-paper"' in alone
    ET.fromstring(alone)


def test_a_plan_as_text_is_shown_line_by_line() -> None:
    from IPython.core.formatters import DisplayFormatter

    formatter: Any = DisplayFormatter()
    plan = readings().filter(col("km") < 5).explain(parallelism=2)
    assert isinstance(plan, str)
    data, _ = formatter.format(plan)
    assert data["text/plain"] == str(plan)
    assert 'col("km") &lt; 5' not in data["text/plain"] and "col(&quot;km&quot;) &lt; 5" in data["text/html"]
    assert data["text/html"].count("</div>") == len(plan.splitlines())
    data, _ = formatter.format(many_sinks())
    assert data["text/plain"].startswith("exactly_once, checkpoints stored")
    assert {"text/html", "image/svg+xml"} <= set(data)
