"""Sources of records in memory, of Python's iterables, and of generated records."""

from __future__ import annotations

import contextlib
import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from millstream._counts import count
from millstream._engine import RawExpr, RawStream, rows_to_table, stream_of_table
from millstream._foreign import check_frame
from millstream._infer import ROWS_MAX, infer_schema
from millstream._texts import with_article
from millstream.errors import ConnectorError, PlanError, SchemaError
from millstream.expr import Expr, IntoExpr, _column
from millstream.io.sources import IterableAdapter
from millstream.stream import Stream
from millstream.table import Table
from millstream.types import Schema, SchemaLike, schema_of

__all__ = ["from_arrow", "from_iter", "generate", "index", "random"]

_EAGER_ROWS_MAX = 1_000_000
"""Lists up to this length become columns at once, so that a record that does not fit is an error of the very call."""


def from_arrow(data: Any) -> Stream:
    """Read anything with an Arrow interface: pyarrow, polars, pandas, duckdb.

    Parameters
    ----------
    data
        Anything with ``__arrow_c_stream__`` or ``__arrow_c_array__``. A table can be read several times. A reader
        (``pyarrow.RecordBatchReader``, a duckdb result) is read once, while the job runs, and never held as a whole.

    Raises
    ------
    PlanError
        When ``data`` has no Arrow interface.
    SchemaError
        When a column has a type that is not supported, two columns have the same name, types nest more than 48 deep, or
        text is not UTF-8. Also when a library would change values on their way to Arrow; see below.

    Notes
    -----
    Values are not changed. Layouts are unified: every list is a ``list``, whatever the width of its offsets and the name of
    its element; dictionaries have codes of 32 bits; run-end encoded values become plain. In Python, a map is a list of
    pairs of key and value.

    Some data is refused, with the name of its column: decimals with more digits than their type holds, such as a large
    ``HUGEINT`` of DuckDB; objects and 128-bit integers of polars; periods, intervals and sparse columns of pandas; and
    object columns of pandas that mix kinds, such as text and bytes, or hold times with nanoseconds, of several zones, or
    times of day with a zone.

    Data of others is never unpickled, since unpickling can run any code. A column of bytes stays one, even if
    its metadata has the mark that Millstream puts on a column of type ``object``. Only a :class:`millstream.Table` keeps
    its objects.

    Examples
    --------
    >>> import polars as pl
    >>> mill.from_arrow(pl.DataFrame({"x": [1, 2]})).select(y=col("x") * 2).collect().to_pylist()
    [{'y': 2}, {'y': 4}]
    """
    name = f"from_arrow({type(data).__name__})"
    if isinstance(data, Stream):
        raise PlanError("from_arrow() takes data; this is a stream already")
    if isinstance(data, Table):
        return Stream(stream_of_table(data._raw, name))
    check_frame(data, "from_arrow()")
    if hasattr(data, "__arrow_c_stream__"):
        module = type(data).__module__.split(".")[0]
        is_reader = type(data).__name__ in ("RecordBatchReader", "ArrowStreamReader") or module in ("duckdb", "_duckdb")
        if is_reader and type(data).__name__ != "DuckDBPyRelation":
            return Stream(RawStream.from_reader(data, name))
        return Stream(RawStream.from_table(data, name))
    if hasattr(data, "__arrow_c_array__"):
        return Stream(RawStream.from_table(data, name))
    if type(data).__module__.split(".")[0] == "polars" and hasattr(data, "collect"):
        raise PlanError("from_arrow() takes data, and this is a plan of polars; write from_arrow(frame.collect())")
    raise PlanError(
        f"from_arrow() takes anything with an Arrow interface (pyarrow, polars, pandas, duckdb), not {type(data).__name__}; "
        "for Python objects use from_iter"
    )


def from_iter(
    records: Iterable[Any] | Callable[[int], Iterable[Any]] | Callable[[], Iterable[Any]],
    schema: SchemaLike = None,
    *,
    is_bounded: bool = True,
) -> Stream:
    """Read Python objects: dicts, tuples, dataclasses, or plain values as a column ``value``.

    Parameters
    ----------
    records
        An iterable, or a function that takes the number of records to skip and returns an iterable of the rest. With such a
        function or a sequence, a job can continue after a restart. An iterator can be read only once. A function without a
        parameter, such as a generator function, is called again by every run and may return something else. The modes
        ``exactly_once`` and ``at_least_once`` refuse both. An object with a method ``close()``, such as a generator, is closed
        when the job ends.
    schema
        The columns; by default they are inferred from the first records.
    is_bounded
        Whether it ends.

    Raises
    ------
    PlanError
        When ``records`` is neither an iterable nor such a function, or is a single record.
    SchemaError
        When the columns cannot be inferred, or a record does not fit them. Lists of up to a million records are checked at
        once, anything else when the job runs.
    ConnectorError
        When the job runs and the iterable raises; the exception is its ``__cause__``.

    Notes
    -----
    A column of times takes dates, datetimes and timedeltas, and no bare numbers, which have no unit: declare ``int`` and
    ``cast()`` the column.

    Examples
    --------
    >>> mill.from_iter([{"x": 1}, {"x": 2}]).collect().to_pylist()
    [{'x': 1}, {'x': 2}]
    >>> mill.from_iter(["a", "b"]).collect().to_pylist()
    [{'value': 'a'}, {'value': 'b'}]
    >>> mill.from_iter(lambda start: range(start, 5), schema=int).collect().to_pylist()[-1]
    {'value': 4}
    >>> def letters():
    ...     yield from "ab"
    >>> mill.from_iter(letters).collect()["value"]
    ['a', 'b']
    """
    declared = None if schema is None else schema_of(schema)
    name = f"from_iter({_name(records)})"
    if isinstance(records, (str, bytes)):
        raise PlanError(f"from_iter() takes an iterable of records, and {with_article(type(records).__name__)} is one value; write [value]")
    if isinstance(records, Stream):
        raise PlanError("from_iter() takes records; this is a stream already")
    if isinstance(records, dict):
        raise PlanError("from_iter() takes an iterable of records, and a dict is one record; write [record]")
    if callable(records) and not isinstance(records, Iterable):
        return _of_function(records, declared, name, is_bounded)
    if not isinstance(records, Iterable):
        raise PlanError(f"from_iter() takes an iterable or a function, not {type(records).__name__}")
    if isinstance(records, (list, tuple, set, frozenset)) and len(records) <= _EAGER_ROWS_MAX:
        rows = list(records)
        found = declared or infer_schema(rows, what="from_iter()")
        return Stream(stream_of_table(rows_to_table(found._raw, rows), name))
    if isinstance(records, Sequence):
        return _of_sequence(records, declared, name, is_bounded)
    return _of_iterator(iter(records), declared, name, is_bounded)


def _of_function(records: Callable[..., Iterable[Any]], declared: Schema | None, name: str, is_bounded: bool) -> Stream:
    if not _takes_start(records):
        return _of_generator_function(records, declared, name, is_bounded)
    found = declared or infer_schema(_head_of(records, name, 0), what="from_iter()")
    adapter = IterableAdapter(name, records)
    return Stream(RawStream.from_python(adapter, name, found._raw, is_bounded, True))


def _takes_start(records: Callable[..., Any]) -> bool:
    """Return whether a function takes a start offset, rather than nothing; refuse one that needs something else."""
    try:
        signature = inspect.signature(records)
    except ValueError:
        # A builtin shows no signature; it is called as it is.
        return True
    for arguments in ((0,), ()):
        with contextlib.suppress(TypeError):
            signature.bind(*arguments)
            return bool(arguments)
    called = getattr(records, "__name__", "function")
    raise PlanError(
        f"from_iter({called}): {called} takes more than a start offset, the number of records to skip; write def {called}(start), "
        f"or def {called}() for records that can be read only from the first one on"
    )


def _of_generator_function(records: Callable[[], Iterable[Any]], declared: Schema | None, name: str, is_bounded: bool) -> Stream:
    found = declared or infer_schema(_head_of(records, name), what="from_iter()")
    adapter = IterableAdapter(name, lambda start: itertools.islice(records(), start, None))
    return Stream(RawStream.from_python(adapter, name, found._raw, is_bounded, False))


def _head_of(function: Callable[..., Any], name: str, *arguments: int) -> list[Any]:
    """Read the first records that a function of the user's returns, to find their columns."""
    try:
        records = function(*arguments)
        if isinstance(records, Iterable):
            return _head(records)
    except Exception as error:
        raise ConnectorError(f"{name} raised {type(error).__name__}: {error}; pass schema= to find the columns without a call") from error
    raise PlanError(f"{name}: the function returned {records!r:.80}, which is no iterable of records")


def _head(records: Iterable[Any]) -> list[Any]:
    """Read the first records, and let go of the rest."""
    found = iter(records)
    try:
        return list(itertools.islice(found, ROWS_MAX))
    finally:
        close = getattr(found, "close", None)
        if close is not None:
            close()


def _of_sequence(records: Sequence[Any], declared: Schema | None, name: str, is_bounded: bool) -> Stream:
    found = declared or infer_schema(list(itertools.islice(records, ROWS_MAX)), what="from_iter()")
    adapter = IterableAdapter(name, lambda start: (records[place] for place in range(start, len(records))))
    return Stream(RawStream.from_python(adapter, name, found._raw, is_bounded, True))


def _of_iterator(records: Iterator[Any], declared: Schema | None, name: str, is_bounded: bool) -> Stream:
    first: list[Any] = []
    if declared is None:
        # The columns are inferred from one record; reading more might wait for one that never comes.
        first = list(itertools.islice(records, 1 if not is_bounded else ROWS_MAX))
        declared = infer_schema(first, what="from_iter()")
    left: list[Iterator[Any]] = [itertools.chain(first, records)]

    def once(start: int) -> Iterator[Any]:
        if not left:
            raise SchemaError(
                f"{name} is an iterator and has been read already; pass a list, or a function of a start offset"
            )
        return itertools.islice(left.pop(), start, None)

    adapter = IterableAdapter(name, once, getattr(records, "close", None))
    return Stream(RawStream.from_python(adapter, name, declared._raw, is_bounded, False))


def _name(records: Any) -> str:
    return str(getattr(records, "__name__", None) or type(records).__name__)


def generate(rows: int | None = None, rate: float | None = None, **columns: IntoExpr) -> Stream:
    """Generate records from their numbers and from random numbers.

    Parameters
    ----------
    rows
        How many records; None for an unbounded stream.
    rate
        How many records per second; None for as fast as they are processed.
    **columns
        Expressions over :func:`index` and :func:`random`; by default one column ``index``.

    Raises
    ------
    PlanError
        When ``rows`` or ``rate`` is out of range, or an expression is an aggregate.
    SchemaError
        When an expression uses a column, which generated records do not have.

    Examples
    --------
    >>> mill.generate(rows=3, key=mill.index() % 2).collect().to_pylist()
    [{'key': 0}, {'key': 1}, {'key': 0}]
    """
    if rows is not None:
        count(rows, "generate(rows=...) takes a number of rows")
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, (int, float)) or rate <= 0):
        raise PlanError(f"generate(rate=...) takes rows a second, not {rate!r}")
    exprs = [_column(value).alias(name) for name, value in columns.items()]
    return Stream(RawStream.generate(rows, None if rate is None else float(rate), exprs))


def index() -> Expr:
    """Return the number of the record, 0, 1, 2, …, as an expression of :func:`generate`.

    Examples
    --------
    >>> mill.generate(rows=2, n=mill.index() * 10).collect().to_pylist()
    [{'n': 0}, {'n': 10}]
    """
    return Expr(RawExpr.index())


def random(seed: int = 0) -> Expr:
    """Return a pseudo-random number in [0, 1), as an expression of :func:`generate`.

    Parameters
    ----------
    seed
        An integer from 0. Two columns with the same seed have the same numbers.

    Raises
    ------
    PlanError
        When ``seed`` is not an integer of at least 0.

    Notes
    -----
    The number depends on the seed and on the number of the record alone, so it is the same in every run.

    Examples
    --------
    >>> rows = mill.generate(rows=100, x=mill.random(1)).collect()
    >>> all(0 <= x < 1 for x in rows["x"])
    True
    """
    return Expr(RawExpr.random(count(seed, "random() takes a seed that is a whole number from 0")))
