"""Joins whose result depends on the order in which records come, and plain models of them.

Records are given one by one, so that order is known. The model of a join with a time to live keeps lists of rows and looks through
all of them; what it shows is the table that the changes leave, or all rows where none is ever withdrawn.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]
HOWS = ["inner", "left", "right", "full", "semi", "anti"]
SIDES = ["append", "unique", "pairs", "moving"]
"""What a side is: records without a key, or rows by the key of the join, by more than that, by another column."""
KEYS = {"unique": ["k"], "pairs": ["k", "id"], "moving": ["id"]}


@dataclass
class Kept:
    """A row that is kept, and whether it is in the result alone."""

    row: Row
    last: int
    is_single: bool = False


@dataclass
class Model:
    """The result of a join of two kinds of sides."""

    how: str
    sides: list[str]
    ttl: int
    key: list[str] | None
    """The key of the result; None if it is append-only."""
    kept: list[list[Kept]] = field(default_factory=lambda: [[], []])
    latest: list[dict[Any, Row]] = field(default_factory=lambda: [{}, {}])
    """The latest rows of sides whose rows may get another join key."""
    result: dict[tuple[Any, ...], Row] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    def take(self, side: int, op: str, row: Row, at: int) -> None:
        """Take a record or a change at a time."""
        if self.sides[side] == "moving":
            before = self.latest[side].pop(row["id"], None)
            if op == "delete":
                if before is not None:
                    self._take(side, op, before, at)
                return
            if before is not None and before["k"] != row["k"]:
                self._take(side, "delete", before, at)
            self.latest[side][row["id"]] = row
        self._take(side, op, row, at)

    def _identity(self, side: int, row: Row) -> tuple[Any, ...]:
        return tuple(row[name] for name in KEYS.get(self.sides[side], ["n"]))

    def _alive(self, side: int, k: Any, at: int) -> list[Kept]:
        # By event time either may be the earlier one.
        return [kept for kept in self.kept[side] if kept.row["k"] == k and abs(at - kept.last) < self.ttl]

    def _take(self, side: int, op: str, row: Row, at: int) -> None:
        own = [kept for kept in self._alive(side, row["k"], at) if self._identity(side, kept.row) == self._identity(side, row)]
        old = own[0] if own else None
        self.kept[side] = [
            kept
            for kept in self.kept[side]
            if kept is old or kept.row["k"] != row["k"] or self._identity(side, kept.row) != self._identity(side, row)
        ]
        partners = [] if row["k"] is None else self._alive(1 - side, row["k"], at)
        if op == "delete":
            if old is None:
                return
            self.kept[side].remove(old)
            if old.is_single:
                self._withdraw(side, old.row, None)
            is_last = not self._alive(side, row["k"], at)
            for partner in partners:
                self._withdraw(side, old.row, partner.row)
                if is_last and partner.is_single != self._wants(1 - side, False):
                    partner.is_single = not partner.is_single
                    (self._show if partner.is_single else self._withdraw)(1 - side, partner.row, None)
            return
        kept = Kept(row, at, self._wants(side, bool(partners)))
        if old is not None:
            self.kept[side].remove(old)
            if old.is_single and not kept.is_single:
                self._withdraw(side, old.row, None)
        self.kept[side].append(kept)
        if kept.is_single:
            self._show(side, row, None)
        for partner in partners:
            wants = self._wants(1 - side, True)
            if partner.is_single and not wants:
                self._withdraw(1 - side, partner.row, None)
            is_new = wants and not partner.is_single
            partner.is_single, partner.last = wants, max(partner.last, at)
            self._show(side, row, partner.row)
            if is_new:
                self._show(1 - side, partner.row, None)

    def _wants(self, side: int, has_partner: bool) -> bool:
        """Whether a row is in the result alone."""
        if self.how == "semi":
            return side == 0 and has_partner
        alone = {"left": [0], "right": [1], "full": [0, 1], "anti": [0]}.get(self.how, [])
        return side in alone and not has_partner

    def _joined(self, side: int, row: Row, partner: Row | None) -> Row | None:
        left, right = (row, partner) if side == 0 else (partner, row)
        if self.how in ("semi", "anti"):
            return None if partner is not None else {name: row[name] for name in ("k", "id", "n")}
        joined = {"k": row["k"]}
        for suffix, one in (("", left), ("_right", right)):
            joined |= {f"{name}{suffix}": one and one[name] for name in ("id", "n")}
        return joined

    def _key(self, joined: Row) -> tuple[Any, ...]:
        assert self.key is not None
        names = {"left_row": "n", "right_row": "n_right" if "n_right" in joined else "n"}
        return tuple(joined[names.get(name, name)] for name in self.key)

    def _show(self, side: int, row: Row, partner: Row | None) -> None:
        joined = self._joined(side, row, partner)
        if joined is None:
            return
        if self.key is None:
            self.rows.append(joined)
        else:
            self.result[self._key(joined)] = joined

    def _withdraw(self, side: int, row: Row, partner: Row | None) -> None:
        joined = self._joined(side, row, partner)
        if joined is not None:
            self.result.pop(self._key(joined), None)

    def shown(self) -> list[Row]:
        """The rows of the result."""
        return self.rows if self.key is None else list(self.result.values())


@dataclass
class Latest:
    """What records find in the latest rows of a stream."""

    how: str
    latest: dict[Any, Row] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    def take(self, op: str, row: Row) -> None:
        """Take a row of the stream, or a change."""
        self.latest.pop(row["k"], None)
        if op != "delete" and row["k"] is not None:
            self.latest[row["k"]] = row

    def look_up(self, rows: list[Row]) -> None:
        """Look records up."""
        for row in rows:
            found = self.latest.get(row["k"])
            if self.how in ("semi", "anti"):
                self.rows += [row] if (found is not None) == (self.how == "semi") else []
            elif found is not None or self.how == "left":
                self.rows.append(row | {f"{name}_right": found and found[name] for name in ("id", "n")})


def records(dice: random.Random, kind: str, first: int, count: int) -> list[tuple[str, Row]]:
    """What is given to a side: inserts alone, or changes."""
    found = []
    for number in range(count):
        k = dice.choice([None, 0, 0, 1, 2])
        if kind == "unique":
            k = dice.choice([0, 1, 2])
        row = {"k": k, "id": dice.randrange(3), "n": first + number}
        found.append((dice.choice(["insert", "insert", "delete"]) if kind != "append" else "insert", row))
    return found
