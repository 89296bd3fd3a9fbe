"""Random trees of windows over windows and unions, as data, and what they mean.

Every stream of a tree has the columns ``k`` (a key), ``v`` (a value) and ``n`` (from how many input rows the row comes), and
is taken by one step only. So the rows of the result and of all ``.late`` streams together stand for every input row, once.

The oracle knows two rules. A row that was read is late for a window if the watermark of its own split had passed the window
and its allowed lateness. A row that a window made is never late for the next one. How rows travel, and when, is nothing to it.

One split of a tree may stall: it gives some rows, then nothing until time has gone on without it, and then the rest. When
that rest comes, everything else has been read; which of its rows are late depends on the way to their window, so the oracle
then only says what is true on every way.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import oracle

Row = dict[str, Any]
SECOND = 1_000_000
NEVER = -(2**62)
SIZES = [1, 2, 5, 10, 20, 60]
VALUES: dict[str, Any] = {"max": max, "sum": sum, "n_unique": lambda values: len(set(values))}


@dataclass
class Split:
    """Rows of one split in their order; the split stalls in front of row ``stalls_at``, if that is set."""

    rows: list[Row]
    stalls_at: int | None = None


@dataclass
class Source:
    """A source with event time in ``at`` (microseconds)."""

    splits: list[Split]
    bound: int
    idleness: bool
    is_table: bool


@dataclass
class Step:
    """A step over trees."""

    verb: str
    inputs: list[Tree]
    given: dict[str, Any] = field(default_factory=dict)


Tree = Source | Step


@dataclass
class Stream:
    """Rows, each with its event time and the watermark of its split when it was read."""

    rows: list[tuple[Row, int, int]]


@dataclass
class Case:
    """A tree, and whether a split of it stalls."""

    seed: int
    tree: Tree
    is_stalling: bool

    def __str__(self) -> str:
        return f"case {self.seed}:\n{_text(self.tree, 1)}"


def _text(tree: Tree, depth: int) -> str:
    indent = "  " * depth
    if isinstance(tree, Source):
        splits = [f"{len(split.rows)} rows, stalls at {split.stalls_at}" for split in tree.splits]
        return f"{indent}source {splits} bound={tree.bound} idleness={tree.idleness} table={tree.is_table}"
    inputs = "\n".join(_text(tree, depth + 1) for tree in tree.inputs)
    return f"{indent}{tree.verb} {tree.given}\n{inputs}"


def draw(seed: int) -> Case:
    """The case of this seed."""
    dice = random.Random(seed)
    is_stalling = dice.random() < 0.3
    tree = _tree(dice, dice.randint(1, 3), is_stalling)
    if is_stalling:
        stalling = dice.choice([split for source in sources(tree) if not source.is_table for split in source.splits])
        stalling.stalls_at = dice.randint(0, len(stalling.rows))
    return Case(seed, tree, is_stalling)


def sources(tree: Tree) -> list[Source]:
    """The sources of a tree."""
    return [tree] if isinstance(tree, Source) else [source for inner in tree.inputs for source in sources(inner)]


def _source(dice: random.Random, is_stalling: bool) -> Source:
    splits = []
    for _ in range(dice.choice([1, 1, 2, 3, 5])):
        clock, rows = dice.randint(-20, 40) * SECOND, []
        for _ in range(dice.choice([0, 1, 5, 20, 60])):
            clock += dice.choice([0, 1, 1, 2, 9]) * SECOND // 2
            jitter = dice.choice([0, 0, 0, 1, 3, 15]) * SECOND
            rows.append({"k": dice.randint(0, 4), "v": dice.randint(-99, 99), "n": 1, "at": clock - jitter})
        splits.append(Split(rows))
    is_table = len(splits) == 1 and not is_stalling and dice.random() < 0.5
    return Source(splits, dice.choice([0, 2, 5]) * SECOND, is_stalling or dice.random() < 0.3, is_table)


def _tree(dice: random.Random, windows: int, is_stalling: bool) -> Tree:
    """A tree with so many windows over each other on its longest way."""
    tree: Tree = _source(dice, is_stalling)
    for _ in range(windows):
        for _ in range(dice.choice([0, 0, 1, 2])):
            verb = dice.choice(["filter", "map", "flat_map", "branch", "rebalance", "union", "union"])
            if verb == "union":
                other = _tree(dice, dice.randint(0, windows - 1), is_stalling)
                tree = Step(verb, [tree, other] if dice.random() < 0.5 else [other, tree])
            else:
                tree = Step(verb, [tree], {"than": dice.randint(-60, 60)})
        given = {
            "size": dice.choice(SIZES) * SECOND,
            "offset": dice.choice([0, 0, SECOND // 2, 70 * SECOND]),
            "lateness": dice.choice([0, 0, 0, 3, 30]) * SECOND,
            "modulo": dice.choice([1, 2, 100]),
            "value": dice.choice(["max", "sum", "n_unique"]),
            "kind": dice.choice(["tumbling", "tumbling", "sliding", "cumulative", "session", "session"]),
            "how": dice.choice(["agg", "agg", "apply"]),
        }
        # A third of a size is no whole part of it, so bounds of windows are at several places.
        given["slide"] = given["size"] // dice.choice([1, 2, 3, 4] if given["kind"] == "sliding" else [1, 2, 4])
        tree = Step("window", [tree], given)
    return tree


def expected(tree: Tree, late: list[list[Row]]) -> Stream:
    """The rows of a tree; those of each ``.late`` are added to ``late``, inner windows first."""
    if isinstance(tree, Source):
        return Stream([row for split in tree.splits for row in _read(split, tree.bound)])
    inputs = [expected(inner, late) for inner in tree.inputs]
    rows = [row for stream in inputs for row in stream.rows]
    than = tree.given.get("than")
    if tree.verb == "filter":
        return Stream([row for row in rows if row[0]["v"] > than])
    if tree.verb == "flat_map":
        return Stream([row for row in rows for _ in range(2 if row[0]["v"] > than else 1)])
    if tree.verb == "window":
        return _window(tree.given, rows, late)
    return Stream(rows)


def _read(split: Split, bound: int) -> list[tuple[Row, int, int]]:
    latest, rows = NEVER, []
    for row in split.rows:
        rows.append(({name: row[name] for name in ("k", "v", "n")}, row["at"], latest - bound))
        latest = max(latest, row["at"])
    return rows


def _window(given: dict[str, Any], rows: list[tuple[Row, int, int]], late: list[list[Row]]) -> Stream:
    if given["kind"] == "session":
        return _sessions(given, rows, late)
    panes: dict[tuple[int, int, int], list[Row]] = defaultdict(list)
    too_late: list[Row] = []
    for row, at, behind in rows:
        windows = oracle.windows_of(given["kind"], given["size"], given["slide"], given["offset"], at)
        taking = [(start, end) for start, end in windows if behind <= at or behind <= end - 1 + given["lateness"]]
        for start, end in taking:
            panes[start, end, row["k"] % given["modulo"]].append(row)
        if not taking:
            too_late.append(row)
    late.append(too_late)
    value = VALUES[given["value"]]
    made = []
    for (_, end, k), members in panes.items():
        row = {"k": k, "v": value([row["v"] for row in members]), "n": sum(row["n"] for row in members)}
        made.append((row, end - 1, NEVER))
    return Stream(made)


def _sessions(given: dict[str, Any], rows: list[tuple[Row, int, int]], late: list[list[Row]]) -> Stream:
    late.append([row for row, at, behind in rows if behind > at + given["lateness"]])
    of_keys: dict[int, list[tuple[int, Row]]] = defaultdict(list)
    for row, at, behind in rows:
        if behind <= at + given["lateness"]:
            of_keys[row["k"] % given["modulo"]].append((at, row))
    value, made = VALUES[given["value"]], []
    for k, members in of_keys.items():
        members.sort(key=lambda member: member[0])
        first = 0
        for place in range(1, len(members) + 1):
            if place == len(members) or members[place][0] >= members[place - 1][0] + given["size"]:
                session = [row for _, row in members[first:place]]
                row = {"k": k, "v": value([row["v"] for row in session]), "n": sum(row["n"] for row in session)}
                made.append((row, members[place - 1][0] + given["size"] - 1, NEVER))
                first = place
    return Stream(made)


def rows_stood_for(tree: Tree) -> int | None:
    """For how many input rows the result and all late rows stand; None if a step drops or repeats rows."""
    if isinstance(tree, Source):
        return sum(len(split.rows) for split in tree.splits)
    counts = [rows_stood_for(inner) for inner in tree.inputs]
    if tree.verb in ("filter", "flat_map"):
        return None
    if tree.verb == "window" and tree.given["kind"] not in ("tumbling", "session") and tree.given["slide"] < tree.given["size"]:
        return None
    return None if any(count is None for count in counts) else sum(count or 0 for count in counts)


def may_be_late(tree: Tree) -> list[bool]:
    """For each window, inner ones first, whether any row that reaches it was read and not made by a window."""
    if isinstance(tree, Source):
        return []
    inner = [late for tree in tree.inputs for late in may_be_late(tree)]
    return [*inner, any(_has_raw(tree) for tree in tree.inputs)] if tree.verb == "window" else inner


def _has_raw(tree: Tree) -> bool:
    return isinstance(tree, Source) or (tree.verb != "window" and any(_has_raw(inner) for inner in tree.inputs))
