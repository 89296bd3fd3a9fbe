"""Look-ups of rows of another stream or table for each record; :class:`millstream.Stream` has both kinds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from millstream._hints import takes_by_name
from millstream._joins import JoinKey, _how, _join, _right
from millstream.errors import PlanError, SchemaError
from millstream.time import Duration, microseconds

if TYPE_CHECKING:
    from millstream._engine import RawStream
    from millstream.stream import Stream

__all__ = ["AsofHow", "EnrichHow", "Lookups"]

AsofHow = Literal["left", "inner"]
"""Which rows ``join_asof`` has."""

EnrichHow = Literal["inner", "left", "semi", "anti"]
"""Which rows ``enrich`` has."""


def _columns(method: str, table: Mapping[str, Any]) -> RawStream:
    """Read a dict of columns."""
    columns = {
        name: list(values) for name, values in table.items() if isinstance(values, Iterable) and not isinstance(values, (str, bytes))
    }
    if len(columns) < len(table) or not columns:
        raise PlanError(f'{method}() takes a table as a dict of columns, as in {{"id": [1, 2], "name": ["a", "b"]}}')
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise PlanError(f"{method}(): the columns of a table have one length, found {lengths}")
    return _records(method, [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)])


def _records(method: str, records: Sequence[Any]) -> RawStream:
    """Read a list of records, whose columns must show in them."""
    from millstream.io.memory import from_iter

    try:
        return from_iter(records)._raw
    except SchemaError as error:
        why = str(error).replace("from_iter()", f"the table of {method}()").replace("; pass schema=", "")
        raise SchemaError(f'{why}; pass a stream with its types: mill.from_iter(rows, schema={{"id": int, "name": str}})') from None


def _table(method: str, table: object) -> RawStream:
    """Return a stream unchanged, and a table as a stream."""
    from millstream.io.memory import from_arrow
    from millstream.stream import Stream

    if isinstance(table, Stream):
        return table._raw
    if isinstance(table, Mapping):
        return _columns(method, table)
    if hasattr(table, "__arrow_c_stream__") or hasattr(table, "__arrow_c_array__"):
        return from_arrow(table)._raw
    if isinstance(table, (list, tuple)):
        return _records(method, table)
    if type(table).__name__ == "KeyedStream":
        raise PlanError(f'{method}() takes a stream without a key: remove key_by(), and name the key: {method}(table, on="id")')
    raise PlanError(
        f"{method}() takes a stream, or a table: anything with an Arrow interface (pyarrow, polars, pandas, duckdb), a dict of "
        f"columns or a list of records; not {type(table).__name__}"
    )


class Lookups:
    """Methods that look up rows for each record of a stream; :class:`millstream.Stream` has all of them."""

    __slots__ = ()

    @takes_by_name('join_asof(other, on="id")')
    def join_asof(
        self,
        other: Stream,
        *,
        on: str | Sequence[str] | None = None,
        left_on: JoinKey | None = None,
        right_on: JoinKey | None = None,
        tolerance: Duration | None = None,
        how: AsofHow = "left",
        suffix: str = "_right",
    ) -> Stream:
        """Look up, for each record, the latest record of the other stream with the same key and no later event time.

        It finds the version that was valid at the time of a record, such as an exchange rate, a price or an address. A
        version of the same event time counts; of several with the same time, the one that arrived last.

        Parameters
        ----------
        other
            The versions. It needs an event time of the same type as that of this stream.
        on
            One or several columns that both sides have; the result has each of them once.
        left_on, right_on
            Instead of ``on``: columns or expressions of each side, in the same order. The result has the columns of both
            sides.
        tolerance
            How much older a version may be, such as ``"1d"``; a version of exactly that age counts. By default any age
            does.
        how
            ``"left"``: a record without a version has null in the columns of the other side. ``"inner"``: it is dropped.
        suffix
            What is appended to the name of a column of the right side that the left side has too.

        Returns
        -------
        Stream
            One row for each record, with the event time of the record.

        Raises
        ------
        PlanError
            When a side has no event time or is an updating stream, an option is not one of its choices, or two columns
            would have the same name.
        SchemaError
            When a key does not exist, or has types that no common type holds exactly.

        Notes
        -----
        A record waits until the watermark of the other stream has passed it. So versions that arrive out of order count,
        and the result does not depend on which side is faster. A null key matches nothing.

        For each key, the newest version at or before both watermarks is kept as state, and all later ones; with a
        tolerance, only those within it. A record that is older than the watermark of its own side is late, since its
        version may have been dropped. It is in ``.late`` if it belongs to this stream, and in ``.late_right`` if it is a
        version.

        Examples
        --------
        >>> from datetime import datetime
        >>> rates = mill.from_iter([
        ...     {"currency": "EUR", "rate": 1.1, "at": datetime(2024, 1, 1, 9)},
        ...     {"currency": "EUR", "rate": 1.2, "at": datetime(2024, 1, 1, 12)},
        ... ]).event_time("at")
        >>> orders = mill.from_iter([
        ...     {"order": 1, "currency": "EUR", "at": datetime(2024, 1, 1, 11)},
        ...     {"order": 2, "currency": "EUR", "at": datetime(2024, 1, 1, 12)},
        ...     {"order": 3, "currency": "GBP", "at": datetime(2024, 1, 1, 13)},
        ... ]).event_time("at")
        >>> priced = orders.join_asof(rates.rename({"at": "since"}), on="currency", tolerance="1d")
        >>> sorted((row["order"], row["rate"]) for row in priced.collect().to_pylist() if row["rate"])
        [(1, 1.1), (2, 1.2)]
        >>> len(orders.join_asof(rates, on="currency", how="inner").collect())
        2
        """
        from millstream.stream import Stream

        method = "join_asof"
        right, join = _right(method, other), _join(method, on, left_on, right_on, how, suffix, ("left", "inner"))
        within = None if tolerance is None else microseconds(tolerance, "tolerance")
        return Stream(cast("Stream", self)._raw.join_asof(right, join, within))

    @takes_by_name('enrich(table, on="id")')
    def enrich(
        self,
        table: Any,
        *,
        on: str | Sequence[str] | None = None,
        left_on: JoinKey | None = None,
        right_on: JoinKey | None = None,
        how: EnrichHow = "inner",
        suffix: str = "_right",
    ) -> Stream:
        """Add to each record the columns of a table, or of the latest record of another stream, with the same key.

        A bounded table or stream is loaded completely before the first record is processed. For an unbounded stream, a
        record is joined with the latest record of its key that has arrived by then.

        Parameters
        ----------
        table
            A stream, or a table: anything with an Arrow interface (pyarrow, polars, pandas, duckdb), a dict of columns or a
            list of records. Or a look-up by a function (:func:`lookup`), which is called for keys as they arrive.
        on
            One or several columns that both sides have; the result has each of them once. For a look-up by a function, the
            columns that it is called with.
        left_on, right_on
            Instead of ``on``: columns or expressions of each side, in the same order. The result has the columns of both
            sides. Not for a look-up by a function.
        how
            ``"inner"``: a record without a row in the table is dropped. ``"left"``: it has null in the columns of the table.
            ``"semi"``: only records that have a row, without its columns. ``"anti"``: only records that have none. A look-up by a
            function has ``"inner"`` and ``"left"``.
        suffix
            What is appended to the name of a column of the table that this stream has too.

        Returns
        -------
        Stream
            The columns of this stream, then those of the table. Rows have the event time of their record, if this stream
            has one.

        Raises
        ------
        PlanError
            When this stream is an updating stream, the table is an updating stream by another key, an option is not one of
            its choices, or two columns would have the same name.
        SchemaError
            When a key does not exist, or has types that no common type holds exactly.

        Notes
        -----
        If a bounded table has several rows with a key, a record makes one row for each of them, as in any join. Use
        ``key_by(...).deduplicate()`` on the table where only the first should count. In an updating stream, such as an
        aggregate, and in an unbounded one, the latest row of a key counts, and a deleted row is gone. A null key matches
        nothing.

        While a table is loaded, the records of this stream stay where they are and their source waits. Only where the table
        comes from the same source, which must not wait then, they are kept as state. The table is part of each checkpoint:
        a job that continues uses the table as it was loaded and reads nothing of it again, so other rows of a table in memory
        are ignored. ``explain()`` shows what is kept.

        Which record of an unbounded stream is the latest depends on timing; :meth:`join_asof` uses event time instead.

        Examples
        --------
        >>> orders = mill.from_iter([{"order": 1, "user": 7}, {"order": 2, "user": 8}, {"order": 3, "user": 9}])
        >>> users = {"user": [7, 8], "name": ["ann", "bob"]}
        >>> sorted(orders.enrich(users, on="user").collect().to_pylist(), key=lambda row: row["order"])
        [{'order': 1, 'user': 7, 'name': 'ann'}, {'order': 2, 'user': 8, 'name': 'bob'}]
        >>> orders.enrich(users, on="user", how="anti").collect().to_pylist()
        [{'order': 3, 'user': 9}]
        """
        from millstream._lookup_functions import Lookup
        from millstream.stream import Stream

        method = "enrich"
        if isinstance(table, Lookup):
            if left_on is not None or right_on is not None:
                raise PlanError("enrich() with a look-up by a function takes on=, the columns that it is called with")
            return table._enrich(cast("Stream", self), on, _how(method, how, ("inner", "left")), suffix)
        right, join = _table(method, table), _join(method, on, left_on, right_on, how, suffix, ("inner", "left", "semi", "anti"))
        return Stream(cast("Stream", self)._raw.enrich(right, join))
