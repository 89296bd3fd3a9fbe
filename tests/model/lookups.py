"""Random look-ups: as-of joins and enrichments, and what they result in by their definition.

The oracle looks at every pair of records. Each source is one split, whose watermark decides which of its records are late.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import millstream as mill
from millstream import col

START = datetime(2024, 1, 1)
LEFT = {"k": str, "x": int, "at": datetime}
TABLE = {"k": str, "y": int}
Row = dict[str, Any]


@dataclass
class Case:
    """A plan, and the rows of each of its outputs."""

    build: Callable[[], dict[str, mill.Stream]]
    expected: dict[str, list[Row]]


def _records(dice: random.Random, first: int, shift: float) -> list[Row]:
    """Return numbered records with ties and nulls, up to some seconds out of order; ``shift`` sets their fraction of a second."""
    now, spread, rows = 0, dice.choice([0, 5, 20]), []
    for number in range(dice.choice([1, 20, 60])):
        now += dice.choice([0, 0, 1, 2, 5])
        key = dice.choice("abcd") if dice.random() < 0.9 else None
        rows.append({"k": key, "x": first + number, "at": START + timedelta(seconds=now - dice.randrange(spread + 1) + shift)})
    return rows


def _judged(splits: list[list[Row]], bound: timedelta) -> tuple[list[Row], list[Row]]:
    """Return the records that are in time for the watermark of their split, and those that are late."""
    good, late = [], []
    for rows in splits:
        latest = datetime(1970, 1, 1)
        for row in rows:
            (late if row["at"] < latest - bound else good).append(row)
            latest = max(latest, row["at"])
    return good, late


def _asof(dice: random.Random) -> Case:
    # Versions of one time come from one split, so that it is known which of them is the last.
    sides = [[_records(dice, 1000 * split, side * 0.5 * split) for split in range(dice.choice([1, 2]))] for side in (0, 1)]
    bounds = [timedelta(seconds=dice.choice([0, 4, 20])) for _ in sides]
    tolerance = dice.choice([None, *(timedelta(seconds=seconds) for seconds in (0, 3, 15))])
    how: Any = dice.choice(["left", "inner"])
    (left, late), (right, late_right) = (_judged(splits, bound) for splits, bound in zip(sides, bounds, strict=True))
    rows = []
    for a in left:
        best = None
        for b in right:
            is_match = a["k"] is not None and a["k"] == b["k"] and b["at"] <= a["at"]
            is_near = tolerance is None or a["at"] - b["at"] <= tolerance
            if is_match and is_near and (best is None or b["at"] >= best["at"]):
                best = b
        if best or how == "left":
            found = best or dict.fromkeys(LEFT)
            rows.append(a | {"x_right": found["x"], "at_right": found["at"]})

    def build() -> dict[str, mill.Stream]:
        def stream(splits: list[list[Row]], bound: timedelta) -> mill.Stream:
            first, *others = [mill.from_iter(rows, schema=LEFT).event_time("at", watermark=bound) for rows in splits]
            return first.union(*others) if others else first

        a, b = (stream(splits, bound) for splits, bound in zip(sides, bounds, strict=True))
        joined = a.join_asof(b, on="k", tolerance=tolerance, how=how)
        return {"result": joined, "late": joined.late, "late_right": joined.late_right}

    return Case(build, {"result": rows, "late": late, "late_right": late_right})


def _enriched(left: list[Row], table: list[Row], how: str) -> list[Row]:
    rows: list[Row] = []
    for a in left:
        matches = [b for b in table if a["k"] is not None and a["k"] == b["k"]]
        if how in ("semi", "anti"):
            rows += [a] if bool(matches) == (how == "semi") else []
        elif matches or how == "left":
            rows += [a | {"y": b["y"]} for b in matches or [{"y": None}]]
    return rows


def _enrich(dice: random.Random) -> Case:
    left = _records(dice, 0, 0)
    how: Any = dice.choice(["inner", "left", "semi", "anti"])
    kind = dice.choice(["table", "changes", "itself"])
    if kind == "table":
        keys = "abcxyz" if dice.random() < 0.5 else "".join(dice.choice("abcxyz") for _ in range(40))
        table: list[Row] = [{"k": key if dice.random() < 0.9 else None, "y": number} for number, key in enumerate(keys)]
    elif kind == "changes":
        changes = [
            {"op": dice.choice(["insert", "update", "delete"]), "k": dice.choice("abcx"), "y": number}
            for number in range(dice.choice([1, 10, 60]))
        ]
        latest: dict[Any, Row] = {}
        for change in changes:
            latest.pop(change["k"], None)
            if change["op"] != "delete":
                latest[change["k"]] = {"k": change["k"], "y": change["y"]}
        table = list(latest.values())
    else:
        part = dice.choice([2, 7])
        table = [{"k": row["k"], "y": row["x"]} for row in left if row["x"] % part == 0]

    def build() -> dict[str, mill.Stream]:
        stream = mill.from_iter(left, schema=LEFT).event_time("at", watermark="5s")
        if kind == "table":
            right = mill.from_iter(table, schema=TABLE)
        elif kind == "changes":
            right = mill.from_changelog(mill.from_iter(changes, schema={"op": str, **TABLE}), key="k")
        else:
            right = stream.filter(col("x") % part == 0).select("k", y="x")
        return {"result": stream.enrich(right, on="k", how=how)}

    return Case(build, {"result": _enriched(left, table, how)})


def draw(seed: int) -> Case:
    """Draw a case."""
    dice = random.Random(seed)
    return dice.choice([_asof, _enrich])(dice)
