"""The oracle: what a plan means, in plain Python over lists of dicts, recomputed from scratch.

It shares no code with the engine and knows nothing of frames, threads or checkpoints: a stream is the list of all its
records in order. Every operation of a :class:`Case` is described once as data and carried out here; `plans.py` carries
the same description out with the engine.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Term:
    """An expression: an operator name and its arguments (terms, or plain values for leaves)."""

    op: str
    args: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.op}({', '.join(map(str, self.args))})"


def _null(function: Callable[..., Any]) -> Callable[..., Any]:
    """Null in, null out."""
    return lambda *args: None if any(arg is None for arg in args) else function(*args)


def _and(left: bool | None, right: bool | None) -> bool | None:
    if left is False or right is False:
        return False
    return None if left is None or right is None else True


def _or(left: bool | None, right: bool | None) -> bool | None:
    if left is True or right is True:
        return True
    return None if left is None or right is None else False


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": _null(lambda a, b: a + b),
    "sub": _null(lambda a, b: a - b),
    "mul": _null(lambda a, b: a * b),
    "div": _null(lambda a, b: a / b),
    "mod": _null(lambda a, b: a % b),
    "eq": _null(lambda a, b: a == b),
    "ne": _null(lambda a, b: a != b),
    "lt": _null(lambda a, b: a < b),
    "ge": _null(lambda a, b: a >= b),
    "and": _and,
    "or": _or,
    "not": _null(lambda a: not a),
    "is_null": lambda a: a is None,
    "fill_null": lambda a, b: b if a is None else a,
    "upper": _null(lambda a: a.upper()),
    "length": _null(len),
    "when": lambda condition, yes, no: yes if condition is True else no,
}


def evaluate(term: Term, row: Row) -> Any:
    """The value of a term for a row."""
    if term.op == "col":
        return row[term.args[0]]
    if term.op == "lit":
        return term.args[0]
    return FUNCTIONS[term.op](*(evaluate(arg, row) for arg in term.args))


@dataclass
class Stream:
    """All records of a stream, in order, each with its event time and the watermark it was read behind."""

    rows: list[Row]
    times: list[int | None] = field(default_factory=list)
    behind: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.times:
            self.times = [None] * len(self.rows)
            self.behind = [0] * len(self.rows)

    def keep(self, chosen: list[int], rows: list[Row] | None = None) -> Stream:
        """The records at these places, optionally with other columns."""
        new = rows if rows is not None else [self.rows[i] for i in chosen]
        return Stream(new, [self.times[i] for i in chosen], [self.behind[i] for i in chosen])


def select(stream: Stream, columns: dict[str, Term]) -> Stream:
    """Other columns for the same records."""
    rows = [{name: evaluate(term, row) for name, term in columns.items()} for row in stream.rows]
    return stream.keep(list(range(len(rows))), rows)


def with_columns(stream: Stream, columns: dict[str, Term]) -> Stream:
    """More columns for the same records."""
    rows = [row | {name: evaluate(term, row) for name, term in columns.items()} for row in stream.rows]
    return stream.keep(list(range(len(rows))), rows)


def where(stream: Stream, condition: Term) -> Stream:
    """The records for which the condition is true; null counts as false."""
    return stream.keep([i for i, row in enumerate(stream.rows) if evaluate(condition, row) is True])


def explode(stream: Stream, column: str, keep_empty: bool) -> Stream:
    """A record for every item of a list."""
    chosen, rows = [], []
    for i, row in enumerate(stream.rows):
        items = row[column] or ([None] if keep_empty else [])
        for item in items:
            chosen.append(i)
            rows.append(row | {column: item})
    return stream.keep(chosen, rows)


def event_time(stream: Stream, column: str, bound: int) -> Stream:
    """Event time in microseconds, and for every record the watermark that stood when it was read."""
    latest, behind = None, []
    for row in stream.rows:
        latest = row[column] if latest is None else max(latest, row[column])
        behind.append(latest - bound)
    return Stream(stream.rows, [row[column] for row in stream.rows], behind)


def aggregate(rows: list[Row], kind: str, term: Term | None) -> Any:
    """One aggregate over the records of a key."""
    if kind == "count":
        return len(rows)
    assert term is not None
    values = [value for row in rows if (value := evaluate(term, row)) is not None]
    if kind == "count_values":
        return len(values)
    if kind == "n_unique":
        return len({evaluate(term, row) for row in rows})
    if not values:
        return None
    if kind == "sum":
        return math.fsum(values) if isinstance(values[0], float) else sum(values)
    if kind == "mean":
        return math.fsum(values) / len(values)
    if kind == "min":
        return min(values)
    if kind == "max":
        return max(values)
    if kind == "median":
        values.sort()
        middle = len(values) // 2
        return float(values[middle]) if len(values) % 2 else (values[middle - 1] + values[middle]) / 2
    if kind == "std":
        if len(values) < 2:
            return None
        mean = math.fsum(values) / len(values)
        return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    if kind == "first":
        return evaluate(term, rows[0])
    if kind == "last":
        return evaluate(term, rows[-1])
    raise AssertionError(kind)


Aggregates = dict[str, tuple[str, Term | None]]


def grouped(stream: Stream, keys: list[str], aggregates: Aggregates) -> Stream:
    """One row a key."""
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in stream.rows:
        groups[tuple(row[key] for key in keys)].append(row)
    return Stream(
        [
            dict(zip(keys, key, strict=True)) | {name: aggregate(rows, kind, term) for name, (kind, term) in aggregates.items()}
            for key, rows in groups.items()
        ]
    )


def windows_of(kind: str, size: int, step: int, offset: int, time: int) -> list[tuple[int, int]]:
    """Start and end of the windows that hold a time; ``step`` is the slide of sliding ones."""
    if kind == "sliding":
        last = (time - offset) // step * step + offset
        return [(start, start + size) for start in range(last, time - size, -step)]
    start = (time - offset) // size * size + offset
    ends = range(start + step, start + size + 1, step) if kind == "cumulative" else [start + size]
    return [(start, end) for end in ends if time < end]


def windowed(stream: Stream, given: dict[str, Any]) -> tuple[Stream, Stream]:
    """One row a key and window, its records by event time, and the records that are too late for all of their windows."""
    keys, aggregates, size, offset = (given[name] for name in ("keys", "aggregates", "size", "offset"))
    step = size // given["parts"]
    groups: dict[tuple[Any, ...], list[tuple[int, int]]] = defaultdict(list)
    late = []
    for i, row in enumerate(stream.rows):
        time = stream.times[i]
        assert time is not None
        windows = windows_of(given["kind"], size, step, offset, time)
        taking = [(start, end) for start, end in windows if stream.behind[i] <= end - 1 + given["lateness"]]
        for start, end in taking:
            groups[(start, end, *(row[key] for key in keys))].append((time, i))
        if not taking:
            late.append(i)
    rows = [
        dict(zip(keys, key, strict=True))
        | {"window_start": start, "window_end": end}
        | {
            name: aggregate([stream.rows[i] for _, i in sorted(members)], kind, term)
            for name, (kind, term) in aggregates.items()
        }
        for (start, end, *key), members in groups.items()
    ]
    return Stream(rows), stream.keep(late)


def union(left: Stream, right: Stream) -> Stream:
    """The records of both."""
    return Stream(left.rows + right.rows, left.times + right.times, left.behind + right.behind)
