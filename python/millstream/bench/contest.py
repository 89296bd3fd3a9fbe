"""Queries that several engines answer: compared, then timed in turns."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from millstream.bench.peers import PEERS
from millstream.bench.result import Bar, Difference, Result, Settings, in_turns, rate

__all__ = ["Query", "contest"]

_EXACT_ROWS_MAX = 300_000
_DECIMAL_PLACES = 9
OURS = "millstream"


@dataclass(frozen=True)
class Query:
    """One question: how we answer it, and how others are asked.

    Attributes
    ----------
    name, about
        Its name, and what it computes in a few words.
    rows
        How many records go in.
    ours
        Returns the result.
    peers
        The same by the name of the engine: a function without arguments that returns the result as a ``pyarrow.Table``, or
        anything ``pyarrow.table`` takes.
    read
        Turns what each engine returns into that, where it is something else, such as the path of a file. It is not timed.
    """

    name: str
    about: str
    rows: int
    ours: Callable[[], Any]
    peers: Mapping[str, Callable[[], Any]]
    read: Callable[[Any], Any] = lambda result: result


def contest(
    name: str, title: str, what: str, queries: Sequence[Query], settings: Settings, tell: Callable[[str], None], notes: Sequence[str] = ()
) -> Result:
    """Run queries on all engines; ``what`` is counted."""
    engines = [OURS, *(peer for peer in settings.against if any(peer in query.peers for query in queries))]
    lines, bars, figures = [], [], []
    for query in queries:
        tell(f"{name}: {query.name}")
        jobs: dict[str, Callable[[], Any]] = {OURS: query.ours}
        jobs.update((engine, query.peers[engine]) for engine in engines[1:] if engine in query.peers)
        answer = query.read(query.ours())
        for engine in list(jobs)[1:]:
            _compare(query, answer, query.read(jobs[engine]()), engine)
        del answer
        seconds = in_turns(jobs, settings.runs)
        rates = {engine: query.rows / max(took, 1e-9) for engine, took in seconds.items()}
        cells = [rate(rates[engine]) if engine in rates else "" for engine in engines]
        for place, engine in enumerate(engines[1:], 1):
            if engine in rates:
                cells[place] += f" (ours x{rates[OURS] / rates[engine]:.2f})"
        lines.append([query.name, query.about, f"{query.rows:,}", *cells])
        for engine, per_second in rates.items():
            label = query.name if len(engines) == 1 else f"{query.name} {engine}"
            bars.append(Bar(label, per_second / 1e6, engine == OURS, "" if len(engines) == 1 else query.name))
            figures.append(
                {"query": query.name, "engine": engine, "version": PEERS[engine].version() if engine != OURS else None}
                | {"rows": query.rows, "seconds": seconds[engine], "rows_per_second": per_second}
            )
    columns = ["query", "what it does", what, *engines]
    threads = f"{settings.parallelism} thread{'s' if settings.parallelism > 1 else ''}, median of {settings.runs}"
    compared = ["all results were compared first: equal"] if len(engines) > 1 else []
    return Result(name, f"{title} ({threads})", columns, lines, bars, f"M {what}/s", figures, [*notes, *compared])


def _compare(query: Query, ours: Any, theirs: Any, engine: str) -> None:
    """Refuse to time an engine that returns another result."""
    import pyarrow as pa

    left, right = (table if isinstance(table, pa.Table) else pa.table(table) for table in (ours, theirs))
    if left.num_rows != right.num_rows:
        raise Difference(f"{query.name}: {left.num_rows:,} rows, but {engine} returns {right.num_rows:,}")
    missing = [name for name in right.column_names if name not in left.column_names]
    if missing:
        raise Difference(f"{query.name}: {engine} returns a column {missing[0]!r} that millstream does not")
    names = right.column_names
    found, wanted = (_essence(table.select(names)) for table in (left, right))
    for name, a, b in zip(names, found, wanted, strict=True):
        for x, y in zip(a, b, strict=True):
            if x != y and not (isinstance(x, float) and isinstance(y, float) and _is_close(x, y)):
                raise Difference(f"{query.name}: column {name!r} has {x!r}, but {engine} returns {y!r}")
    if engine == "duckdb" and left.num_rows > _EXACT_ROWS_MAX and _digest(left.select(names)) != _digest(right):
        raise Difference(f"{query.name}: the columns have the same values, but {engine} combines them into other rows")


def _is_close(x: float, y: float) -> bool:
    return math.isclose(x, y, rel_tol=1e-9, abs_tol=1e-15) or (math.isnan(x) and math.isnan(y))


def _digest(table: Any) -> Any:
    """Return a sum of the hashes of all rows."""
    import duckdb
    import pyarrow as pa
    import pyarrow.compute as pc

    # Floats may differ in their last digits.
    plain = {name: _plain(pa, pc, table[name]) for name in table.column_names if not pa.types.is_floating(table[name].type)}
    database = duckdb.connect()
    database.register("records", pa.table(plain))
    return database.sql("SELECT sum(hash(records)::HUGEINT) FROM records").fetchall()


def _essence(table: Any) -> list[list[Any]]:
    """Return what is compared of each column: all values in order of the rows, or of a large table what they come to."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = [_plain(pa, pc, column) for column in table.columns]
    table = pa.table(columns, names=table.column_names)
    if table.num_rows <= _EXACT_ROWS_MAX:
        ordered = table.sort_by([(name, "ascending") for name in sorted(table.column_names, key=lambda n: table[n].type == pa.float64())])
        return [column.to_pylist() for column in ordered.columns]
    return [
        [len(column), pc.sum(column).as_py(), pc.min(column).as_py(), pc.max(column).as_py()]
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        else [len(column), pc.count_distinct(column).as_py(), pc.min(column).as_py(), pc.max(column).as_py()]
        for column in table.columns
    ]


def _plain(pa: Any, pc: Any, column: Any) -> Any:
    """Return a column in the one type that all engines' types of its kind go into."""
    if pa.types.is_timestamp(column.type):
        return pc.cast(pc.cast(column, pa.timestamp("us")), pa.int64())
    if pa.types.is_decimal(column.type) and column.type.scale > 0:
        return pc.cast(column, pa.decimal128(38, _DECIMAL_PLACES))
    if pa.types.is_integer(column.type) or pa.types.is_decimal(column.type):
        return pc.cast(column, pa.int64())
    if pa.types.is_floating(column.type):
        return pc.cast(column, pa.float64())
    return pc.cast(column, pa.string())
