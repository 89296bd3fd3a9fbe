"""Streams: records that flow, and the steps that they pass through.

A stream is declared step by step, and each step is checked when it is declared. Nothing runs before :func:`millstream.run`,
:func:`millstream.start`, :meth:`Stream.collect` and the like. Streams are values: a step returns a new stream, and one
stream can be used several times.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from millstream._async_steps import AsyncSteps
from millstream._counts import count
from millstream._engine import RawExpr, RawStream, RawWatermarkFunction
from millstream._hints import no_attribute
from millstream._joins import Joins
from millstream._lookups import Lookups
from millstream._outputs import Outputs
from millstream._texts import mapping, optional_text, text, texts, with_article
from millstream.errors import PlanError, SchemaError, UserFunctionError
from millstream.expr import Expr, IntoExpr, _column, column_name
from millstream.functions import (
    BatchAdapter,
    FilterAdapter,
    FlatMapAdapter,
    InspectAdapter,
    MapAdapter,
    View,
    check_callable,
    check_pyarrow,
    function_name,
    returned_schema,
    several,
)
from millstream.time import NEVER, Duration, WatermarkStrategy, microseconds
from millstream.types import Schema, SchemaLike, TypeLike, data_type, schema_of
from millstream.watermark import WatermarkGenerator, watermark_function

if TYPE_CHECKING:
    from millstream.keyed import Emit, KeyedStream, WindowedStream
    from millstream.trigger import Trigger
    from millstream.window import Window

__all__ = ["Stream", "from_changelog"]

_SAMPLE_ROWS = 100

_Result = TypeVar("_Result")

Outcome = tuple[Any, Exception | None]
"""What a function returned, or raised."""


def _outcomes(function: Callable[[Any], Any], rows: Sequence[Any]) -> Iterator[Outcome]:
    """Call a function for each of these rows, when the caller asks for its result."""
    for row in rows:
        try:
            yield function(row), None
        except Exception as error:
            yield None, error



def _zone_of(schema: Schema, column: str) -> str | None:
    """Return the time zone of a column; None where the column has none, or does not exist."""
    check_pyarrow("event_time")
    arrow = schema.to_arrow()
    zone: str | None = getattr(arrow.field(column).type, "tz", None) if column in arrow.names else None
    return zone


def _unnamed(value: str | Expr, method: str) -> RawExpr:
    if isinstance(value, (str, Expr)):
        return _column(value)
    raise PlanError(f"{method}() takes names of columns and expressions, not {value!r:.200}; name a constant: x=lit({value!r:.50})")


def _columns(positional: Sequence[str | Expr], named: Mapping[str, IntoExpr], method: str) -> list[RawExpr]:
    exprs: list[RawExpr] = []
    for value in positional:
        if isinstance(value, (list, tuple)):
            raise PlanError(f"{method}() takes columns one by one, not as {with_article(type(value).__name__)}; write {method}(*names)")
        exprs.append(_unnamed(value, method))
    exprs.extend(_column(value).alias(name) for name, value in named.items())
    return exprs


def from_changelog(stream: Stream, key: str | Sequence[str], op: str = "op") -> Stream:
    """Return the updating stream whose changes are the records of a stream; the inverse of :meth:`Stream.to_changelog`.

    The column ``op`` says what happens to the key of each record, and is not part of the result. ``"insert"`` and
    ``"update"`` set the row of the key, whether it had one or not. ``"delete"`` removes it. Flink's short forms are
    accepted too: ``+I`` and ``+U`` set the row, ``-D`` and ``-U`` remove it. Any other value, null included, is an error of
    its record, which ``on_error`` handles.

    Parameters
    ----------
    stream
        The changes. Those of one key must arrive in order, so they must come from one split of a source.
    key
        The columns of the key.
    op
        The name of the text column that says what happens.

    Returns
    -------
    Stream
        The columns of ``stream`` but for ``op``, as an updating stream with this key.

    Raises
    ------
    SchemaError
        When a column does not exist, or ``op`` is not text.
    PlanError
        When ``op`` is part of the key, or ``stream`` is already an updating stream.

    Examples
    --------
    >>> changes = mill.from_iter(
    ...     [
    ...         {"op": "insert", "id": 1, "x": "a"},
    ...         {"op": "insert", "id": 2, "x": "b"},
    ...         {"op": "update", "id": 1, "x": "c"},
    ...         {"op": "delete", "id": 2, "x": "b"},
    ...     ]
    ... )
    >>> mill.from_changelog(changes, key="id").collect().to_pylist()
    [{'id': 1, 'x': 'c'}]
    """
    if not isinstance(stream, Stream):
        raise PlanError(f"from_changelog() takes a stream, not {type(stream).__name__}; make one with from_arrow or from_iter")
    columns = texts(key, "from_changelog(key=…)", "id")
    return Stream(stream._raw.from_changelog(columns, text(op, "from_changelog(op=…)", "op")))


class Stream(AsyncSteps, Joins, Lookups, Outputs):
    """Records that flow; made by ``read_*``, ``from_*``, :func:`generate` and by the steps of other streams.

    A stream is *append-only*, where every record counts, or *updating*, where the latest row of each key counts;
    see :attr:`updating_key`. It is *bounded* if its input ends.

    Examples
    --------
    >>> words = mill.from_iter(["to be or not to be"]).select(word=col("value").str.split(" ")).explode("word")
    >>> counts = words.key_by("word").agg(n=mill.count())
    >>> sorted((row["word"], row["n"]) for row in counts.collect().to_pylist())
    [('be', 2), ('not', 1), ('or', 1), ('to', 2)]
    """

    __slots__ = ("_raw",)

    def __init__(self, raw: RawStream) -> None:
        self._raw = raw

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled."""
        raise TypeError("a stream cannot be pickled: declare it in the process that runs it")

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Raise an error that names the method of Millstream for one of another library."""
            raise no_attribute(self, name)

    def __repr__(self) -> str:
        """Show the columns."""
        kind = "" if self.is_bounded else "unbounded, "
        columns = ", ".join(f"{name}: {kind!r}" for name, kind in self.schema.items())
        return f"<Stream {kind}{columns}>"

    # -- what it is --------------------------------------------------------------------------------------------------

    @property
    def schema(self) -> Schema:
        """The names and types of the columns.

        Examples
        --------
        >>> mill.from_iter([{"x": 1}]).with_columns(y=col("x") / 2).schema
        Schema(x: int64, y: float64)
        """
        return Schema(self._raw.schema())

    @property
    def is_bounded(self) -> bool:
        """Whether the input ends.

        Examples
        --------
        >>> mill.from_iter([1]).is_bounded, mill.generate(rate=10).is_bounded
        (True, False)
        """
        return self._raw.is_bounded()

    @property
    def updating_key(self) -> list[str] | None:
        """The columns of the key of an updating stream; None for an append-only stream.

        In an updating stream, a row replaces the earlier row with the same key.

        Examples
        --------
        >>> counts = mill.from_iter([{"k": "a"}]).key_by("k").agg(n=mill.count(), emit="each")
        >>> counts.updating_key
        ['k']
        """
        return self._raw.updating_key()

    @property
    def columns(self) -> list[str]:
        """The names of the columns.

        Examples
        --------
        >>> mill.from_iter([{"x": 1, "y": 2}]).columns
        ['x', 'y']
        """
        return list(self.schema.names)

    # -- columns -----------------------------------------------------------------------------------------------------

    def select(self, *columns: str | Expr, **named: IntoExpr) -> Stream:
        """Return only these columns.

        Parameters
        ----------
        *columns
            Names of columns, or expressions.
        **named
            Columns, expressions or constants by the name of the result. A string is the name of a column; ``lit("x")`` is a
            text.

        Raises
        ------
        SchemaError
            When a column does not exist, or an expression does not fit the types of its columns.
        PlanError
            When there is no column, two of the same name, or an aggregate.

        Examples
        --------
        >>> s = mill.from_iter([{"a": 1, "b": 2}])
        >>> s.select("a", other="b", double=col("b") * 2, kind=lit("x")).collect().to_pylist()
        [{'a': 1, 'other': 2, 'double': 4, 'kind': 'x'}]
        """
        return Stream(self._raw.select(_columns(columns, named, "select")))

    def with_columns(self, *columns: str | Expr, **named: IntoExpr) -> Stream:
        """Add columns, or replace those with the same names.

        Parameters
        ----------
        *columns
            Expressions, which keep the name of their column unless they have an ``alias``, or names of columns.
        **named
            Columns, expressions or constants by the name of the result. A string is the name of a column; ``lit("x")`` is a
            text.

        Raises
        ------
        SchemaError
            When a column does not exist, or an expression does not fit the types of its columns.
        PlanError
            When two columns have the same name, or an expression is an aggregate.

        Notes
        -----
        All expressions see the columns of the input, so none of them can use another one of the same call.

        Examples
        --------
        >>> mill.from_iter([{"a": 1}]).with_columns(b=col("a") + 1).collect().to_pylist()
        [{'a': 1, 'b': 2}]
        """
        return Stream(self._raw.with_columns(_columns(columns, named, "with_columns")))

    def drop(self, *columns: str) -> Stream:
        """Remove columns.

        Parameters
        ----------
        *columns
            The names of the columns.

        Raises
        ------
        SchemaError
            When a column does not exist.
        PlanError
            When no column would be left, or a name is not a string.

        Examples
        --------
        >>> mill.from_iter([{"a": 1, "b": 2}]).drop("a").collect().to_pylist()
        [{'b': 2}]
        """
        return Stream(self._raw.drop([column_name(column, "drop") for column in columns]))

    def rename(self, names: Mapping[str, str]) -> Stream:
        """Rename columns.

        Parameters
        ----------
        names
            New names by old names. Columns that it does not mention keep theirs.

        Raises
        ------
        SchemaError
            When a column does not exist.
        PlanError
            When two columns would have the same name, or a name is not a string.

        Examples
        --------
        >>> mill.from_iter([{"a": 1}]).rename({"a": "b"}).collect().to_pylist()
        [{'b': 1}]
        """
        pairs = mapping(names, "rename()", 'rename({"old": "new"})').items()
        return Stream(self._raw.rename([(column_name(old, "rename"), column_name(new, "rename")) for old, new in pairs]))

    def cast(self, types: Mapping[str, TypeLike]) -> Stream:
        """Convert columns to other types.

        Parameters
        ----------
        types
            Types by the names of columns. A type is a Python type, one of :mod:`millstream.types`, or an Arrow type.

        Raises
        ------
        SchemaError
            When a column does not exist, a type is not a type, or the types cannot be converted.
        DataError
            When the job runs and a value does not fit; ``on_error`` can skip or route such records.

        Notes
        -----
        No value changes silently; see :meth:`Expr.cast`, which can also make such values null.

        Examples
        --------
        >>> mill.from_iter([{"a": "1"}]).cast({"a": int}).collect().to_pylist()
        [{'a': 1}]
        """
        pairs = mapping(types, "cast()", 'cast({"x": int})').items()
        return Stream(self._raw.cast([(column_name(name, "cast"), data_type(kind, place=f"column {name!r}")) for name, kind in pairs]))

    def explode(self, column: str, *, keep_empty: bool = False) -> Stream:
        """Return one row for each element of a list column.

        Parameters
        ----------
        column
            The list column.
        keep_empty
            Whether an empty or null list becomes one row with null. By default it becomes no row.

        Raises
        ------
        SchemaError
            When the column does not exist, or is not a list.

        Examples
        --------
        >>> mill.from_iter([{"k": 1, "tags": ["a", "b"]}]).explode("tags").collect().to_pylist()
        [{'k': 1, 'tags': 'a'}, {'k': 1, 'tags': 'b'}]
        """
        return Stream(self._raw.explode(column_name(column, "explode"), keep_empty))

    def unnest(self, column: str) -> Stream:
        """Replace a struct column by its fields.

        Parameters
        ----------
        column
            The struct column. Where it is null, so are the fields.

        Raises
        ------
        SchemaError
            When the column does not exist, or is not a struct.
        PlanError
            When two columns would have the same name.

        Examples
        --------
        >>> mill.from_iter([{"id": 1, "at": {"x": 2, "y": 3}}]).unnest("at").collect().to_pylist()
        [{'id': 1, 'x': 2, 'y': 3}]
        """
        return Stream(self._raw.unnest(column_name(column, "unnest")))

    # -- records -----------------------------------------------------------------------------------------------------

    def filter(self, condition: Expr | str | Callable[[Any], object]) -> Stream:
        """Keep the records for which a condition is true.

        Parameters
        ----------
        condition
            An expression of type ``bool``, the name of such a column, or a function of a :class:`Row` that returns
            something true or false. A null is false.

        Raises
        ------
        SchemaError
            When a column does not exist, or the expression is not of type ``bool``.
        PlanError
            When the condition is neither an expression, nor a name, nor a plain function.
        UserFunctionError
            When the job runs and the function raises; ``on_error`` can skip or route such records.

        Examples
        --------
        >>> s = mill.from_iter([1, 2, 3])
        >>> s.filter(col("value") > 2).collect().to_pylist()
        [{'value': 3}]
        >>> s.filter(lambda row: row.value % 2).collect().to_pylist()
        [{'value': 1}, {'value': 3}]
        """
        if isinstance(condition, (Expr, str)):
            return Stream(self._raw.filter(_column(condition)))
        if isinstance(condition, bool):
            raise PlanError(f"filter({condition}) keeps all records or none; compare with col(name) to get an expression")
        check_callable(condition, "filter", "row")
        return self._apply("filter", condition, FilterAdapter, self.schema)

    def map(self, function: Callable[[Any], Any], *, schema: SchemaLike = None) -> Stream:
        """Call a function for each record; what it returns is the new record.

        Parameters
        ----------
        function
            Takes a :class:`Row`. Returns a dict, a tuple, a dataclass, or a plain value for a schema of one column.
        schema
            The columns that it returns. By default they are taken from its annotation, or else inferred from its first
            results: for this, the stream before the step is run for up to 100 records when the step is declared.

        Raises
        ------
        PlanError
            When the function cannot be called, or is asynchronous; see :meth:`map_async`.
        SchemaError
            When the columns are neither declared nor annotated and cannot be inferred.
        UserFunctionError
            When the job runs and the function raises, or its result does not fit the schema; ``on_error`` can skip or route
            such records.

        Notes
        -----
        A result has the event time of its record.

        A dict that lacks a column of the schema has null there, as in :func:`from_iter`. A name that is not in the schema is
        an error of the record, and so is a tuple of another length.

        Examples
        --------
        >>> s = mill.from_iter([{"price": 2.0, "qty": 3}])
        >>> s.map(lambda row: {"total": row.price * row.qty}).collect().to_pylist()
        [{'total': 6.0}]
        """
        check_callable(function, "map", "row")
        given = self._given(function, schema, "map", is_many=False)
        return self._apply("map", function, MapAdapter, given)

    def flat_map(self, function: Callable[[Any], Iterable[Any] | None], *, schema: SchemaLike = None) -> Stream:
        """Call a function for each record; it returns any number of records, as a list or by ``yield``.

        Parameters
        ----------
        function
            Takes a :class:`Row`. Returns an iterable of records, or None for none.
        schema
            The columns of a record, as for :meth:`map`.

        Raises
        ------
        PlanError
            When the function cannot be called, or is asynchronous.
        SchemaError
            When the columns are neither declared nor annotated and cannot be inferred.
        UserFunctionError
            When the job runs and the function raises, or a result does not fit the schema; ``on_error`` can skip or route
            such records.

        Notes
        -----
        Results are passed on in pieces, so memory does not grow with their number. A record whose function raises has no
        results if it had yielded fewer than 4,096 before. Of a record that had yielded more, those that were already passed
        on stay. Checkpoints are taken between records, never inside a call.

        A dict that lacks a column has null there, as for :meth:`map`.

        Examples
        --------
        >>> def words(row):
        ...     yield from row.value.split()
        >>> mill.from_iter(["to be"]).flat_map(words, schema={"word": str}).collect().to_pylist()
        [{'word': 'to'}, {'word': 'be'}]
        """
        check_callable(function, "flat_map", "row")
        given = self._given(function, schema, "flat_map", is_many=True)
        return self._apply("flat_map", function, FlatMapAdapter, given)

    def map_batches(
        self, function: Callable[[Any], Any], *, schema: SchemaLike = None, batch_rows: int | None = None
    ) -> Stream:
        """Call a function for each batch of records.

        Parameters
        ----------
        function
            Takes a ``pyarrow.RecordBatch``. Returns one, or a dict of arrays, or anything with an Arrow interface.
        schema
            The columns that it returns; by default those that it takes. Other types are converted where no value changes:
            whole floats fit an integer column; ``1.7`` or ``"x"`` is an error that names column, row and value.
        batch_rows
            How many records a call gets at most, whatever time they take. A model may want 64.

        Raises
        ------
        PlanError
            When ``batch_rows`` is not an integer of at least 1, the function cannot be called, or pyarrow is not installed.
        SchemaError
            When ``schema`` is not a schema.
        UserFunctionError
            When the job runs and the function raises, or its result does not fit. With ``on_error="skip"`` or ``"route"``,
            the records of the batch are skipped or routed. If the result has one row for each record, only the rows that do
            not fit are.

        Notes
        -----
        By default, the size of a batch adapts to what the function processes in about 20 ms: it starts at 64 records, grows
        to up to 65,536 if the function is fast, and shrinks if it is slow, so that a checkpoint or a stop does not wait for
        long. If a call takes long whatever the number of records, as a request does, calls get more records instead.

        A batch is cut from one frame of the engine, and frames are never merged to fill a batch. So a call gets fewer
        records at the end of the input, after a filter, and where records arrive one by one. A checkpoint or a stop waits
        for one call.

        If the function returns one row for each record, rows keep the event time of their record. Otherwise, call
        :meth:`event_time` again after this step.

        Examples
        --------
        >>> import pyarrow.compute as pc
        >>> s = mill.from_iter([1.0, 2.0])
        >>> s.map_batches(lambda b: {"half": pc.divide(b["value"], 2.0)}, schema={"half": float}).collect().to_pylist()
        [{'half': 0.5}, {'half': 1.0}]
        >>> sizes = mill.generate(rows=10, x=mill.index()).map_batches(
        ...     lambda b: {"rows": [b.num_rows] * b.num_rows}, schema={"rows": int}, batch_rows=4
        ... )
        >>> sizes.collect(parallelism=1).to_arrow()["rows"].to_pylist()
        [4, 4, 4, 4, 4, 4, 4, 4, 2, 2]
        """
        check_pyarrow("map_batches")
        check_callable(function, "map_batches", "batch")
        if batch_rows is not None:
            batch_rows = count(batch_rows, "map_batches(): batch_rows is how many rows a call gets, at least 1", least=1)
        given = self.schema if schema is None else schema_of(schema)
        name = f"map_batches({function_name(function)})"
        return Stream(self._raw.map_batches(name, BatchAdapter(function), given._raw, batch_rows))

    def inspect(self, function: Callable[[Any], object]) -> Stream:
        """Call a function for each record and pass the record on unchanged.

        Parameters
        ----------
        function
            Takes a :class:`Row`. What it returns is ignored.

        Raises
        ------
        PlanError
            When the function cannot be called, or is asynchronous.
        UserFunctionError
            When the job runs and the function raises; ``on_error`` can skip or route such records.

        Examples
        --------
        >>> seen = []
        >>> _ = mill.from_iter([1, 2]).inspect(lambda row: seen.append(row.value)).collect()
        >>> seen
        [1, 2]
        """
        check_callable(function, "inspect", "row")
        return self._apply("inspect", function, InspectAdapter, self.schema)

    def _apply(self, kind: str, function: Callable[[Any], Any], adapter: Any, schema: Schema) -> Stream:
        view = View(function, self._raw.schema().names())
        name = f"{kind}({function_name(function)})"
        return Stream(self._raw.apply(kind, name, adapter(function, view), schema._raw, view.used))

    def _given(
        self,
        function: Callable[[Any], Any],
        schema: SchemaLike,
        method: str,
        *,
        is_many: bool,
        outcomes: Callable[[Sequence[Any]], Iterator[Outcome]] | None = None,
    ) -> Schema:
        """Return the schema of what a function returns: as declared, as annotated, or inferred from its first results.

        ``outcomes`` calls the function for each of some rows, where it needs another way of calling.
        """
        if schema is not None:
            return schema_of(schema)
        declared = returned_schema(function, is_many=is_many)
        if declared is not None:
            return declared
        called = outcomes if outcomes is not None else functools.partial(_outcomes, function)
        return self._sampled(function, method, called, is_many=is_many)

    def _sampled(
        self,
        function: Callable[[Any], Any],
        method: str,
        outcomes: Callable[[Sequence[Any]], Iterator[Outcome]],
        *,
        is_many: bool,
    ) -> Schema:
        from millstream._infer import infer_schema
        from millstream._row import row_class

        name = function_name(function)
        advice = f"write {method}({name}, schema=...) or annotate what {name} returns"
        if not self._raw.is_sampleable():
            raise SchemaError(
                f"the columns that {name} returns are not known, and the stream before it cannot be read twice to infer them; {advice}"
            )
        try:
            head = self.limit(_SAMPLE_ROWS)
        except PlanError as error:
            # An updating stream: the step itself would refuse it.
            raise PlanError(str(error).replace("limit()", f"{method}()", 1)) from None
        table = head.collect(parallelism=1, until="10s")
        make = row_class(tuple(self.schema.names))
        results: list[Any] = []
        failure: UserFunctionError | None = None
        calls = outcomes([tuple.__new__(make, record.values()) for record in table.to_pylist()])
        for number, (result, raised_first) in enumerate(calls):
            room = _SAMPLE_ROWS - len(results)
            try:
                if raised_first is not None:
                    raise raised_first
                results.extend(itertools.islice(several(result), room) if is_many else [result])
            except Exception as error:
                # The job meets the record again, and does with it what on_error says.
                if failure is None:
                    raised = f"{type(error).__name__}: {error}".removesuffix(": ")
                    failure = UserFunctionError(
                        f"{method}({name}) raised {raised}; record: {table._raw.row_text(number)}; it was called to find the columns that it "
                        f"returns: {advice}"
                    )
                    failure.step = f"{method}({name})"
                    failure.__cause__ = error
            if len(results) >= _SAMPLE_ROWS:
                break
        if failure is not None and not results:
            raise failure
        if not results:
            raise SchemaError(f"the columns that {name} returns are not known, since it returned no record; {advice}")
        return infer_schema(results, what=name)

    def limit(self, rows: int) -> Stream:
        """Pass on the first records and end.

        Parameters
        ----------
        rows
            How many records.

        Returns
        -------
        Stream
            A bounded stream of the same columns.

        Raises
        ------
        PlanError
            When ``rows`` is not an integer of at least 0, or this is an updating stream.

        Notes
        -----
        If each step before works record by record, the first records are those of the first file, in its order: one task then
        reads file by file. After steps that bring records of several tasks together, such as ``key_by``, and where the source
        has other outputs, which records are first depends on timing.

        A limit also ends a :meth:`flat_map` function with endless results. ``stop()`` and ``until=`` wait for the
        end of a call; ``Job.cancel`` does not.

        Examples
        --------
        >>> len(mill.generate(rows=1000).limit(3).collect())
        3
        """
        return Stream(self._raw.limit(count(rows, "limit() takes a number of rows")))

    def union(self, *others: Stream) -> Stream:
        """Merge the records of this stream and others with the same columns.

        Parameters
        ----------
        *others
            Streams whose columns have the same names and types.

        Returns
        -------
        Stream
            The records of all streams. In which order records of different streams arrive depends on timing. The watermark
            is the smallest of all inputs.

        Raises
        ------
        SchemaError
            When the columns differ.
        PlanError
            When one of the others is not a stream.

        Examples
        --------
        >>> len(mill.from_iter([1]).union(mill.from_iter([2]), mill.from_iter([3])).collect())
        3
        """
        for other in others:
            if not isinstance(other, Stream):
                hint = "remove key_by()" if type(other).__name__ == "KeyedStream" else "make one with from_arrow or from_iter"
                raise PlanError(f"union() takes streams, not {type(other).__name__}; {hint}")
        return Stream(self._raw.union([other._raw for other in others]))

    def branch(self, *conditions: Expr | str) -> tuple[Stream, ...]:
        """Split the stream: each record goes to the first condition that is true, or to the last stream if none is.

        Parameters
        ----------
        *conditions
            Expressions of type ``bool``, or names of such columns. A null is false.

        Returns
        -------
        tuple of Stream
            One stream for each condition, in order, then one for all other records.

        Raises
        ------
        SchemaError
            When a column does not exist, or an expression is not of type ``bool``.
        PlanError
            When there is no condition, one is neither an expression nor a name, or this is an updating stream.

        Examples
        --------
        >>> yes, no = mill.from_iter([1, 2, 3]).branch(col("value") > 1)
        >>> len(yes.collect()), len(no.collect())
        (2, 1)
        >>> small, middle, large = mill.from_iter(range(10)).branch(col("value") < 3, col("value") < 8)
        >>> len(small.collect()), len(middle.collect()), len(large.collect())
        (3, 5, 2)
        """
        if not conditions:
            raise PlanError("branch() needs at least one condition, as in branch(col(\"x\") > 0)")
        for condition in conditions:
            if not isinstance(condition, (Expr, str)):
                raise PlanError(f"branch() takes an expression or the name of a column, not {condition!r:.200}")
        taken, left = [], self._raw
        for condition in conditions:
            yes, left = left.branch(_column(condition))
            taken.append(Stream(yes))
        return (*taken, Stream(left))

    def pipe(self, function: Callable[..., _Result], *args: Any, **kwargs: Any) -> _Result:
        """Call a function with this stream as its first argument, so that functions of your own fit into a chain of steps.

        Parameters
        ----------
        function
            A function that takes the stream and the further arguments.
        *args, **kwargs
            Further arguments for the function.

        Returns
        -------
        object
            What the function returns.

        Examples
        --------
        >>> def doubled(stream, column):
        ...     return stream.with_columns(**{column: col(column) * 2})
        >>> mill.from_iter([1, 2]).pipe(doubled, "value").collect()["value"]
        [2, 4]
        """
        return function(self, *args, **kwargs)

    def rebalance(self) -> Stream:
        """Distribute the records evenly over all parallel tasks.

        Use it after a source with few splits, or splits of very different sizes, and before expensive steps. The order of
        records is not kept.

        Examples
        --------
        >>> len(mill.from_iter([1, 2]).rebalance().collect())
        2
        """
        return Stream(self._raw.rebalance())

    def name(self, name: str, *, was: str | None = None) -> Stream:
        """Name the step before.

        The name identifies the state of the step in checkpoints, so a job whose plan changed can find it again.

        Parameters
        ----------
        name
            1 to 200 printable characters, unique in a job.
        was
            The name that the step had in earlier runs, or its generated name (as ``explain()`` shows it, such as
            ``"agg"``). The state of the checkpoint is looked up under this name, once, so ``was`` may stay in the script. Two
            steps may swap their names, or one may take over the name of another that gets a new one.

        Raises
        ------
        PlanError
            When it is not such a name, or the step has another name already.

        Examples
        --------
        >>> named = mill.from_iter([1]).key_by("value").agg(n=mill.count()).name("per value")
        >>> "per value" in named.explain()
        True

        Renamed, and still with its state:

        >>> renamed = mill.from_iter([1]).key_by("value").agg(n=mill.count()).name("counts", was="per value")
        """
        return Stream(self._raw.name(text(name, "name()", "per user"), optional_text(was, "name(was=…)", "per user")))

    # -- time and keys -----------------------------------------------------------------------------------------------

    def event_time(self, column: str, watermark: Duration | WatermarkStrategy | WatermarkGenerator = "0s") -> Stream:
        """Take the event time of each record from a column.

        Parameters
        ----------
        column
            A timestamp or date column.
        watermark
            How far records may be out of order within their split, such as ``"5s"``. Or a :class:`WatermarkStrategy`, or an
            object of your subclass of :class:`WatermarkGenerator`.

        Raises
        ------
        SchemaError
            When the column does not exist, or is not a timestamp or a date.
        PlanError
            When ``watermark`` is not a duration, a strategy or a generator; when this is an updating stream; or when records
            no longer come in the order of their split: after ``limit()``, ``map_async()``, any step of a key (an aggregate, a
            join, ``enrich()`` with a table, ``process()``), and after a step on what ``union()`` or ``rebalance()`` returned.
        DataError
            When the job runs and an event time does not fit into 64 bits of microseconds, or a record has none.

        Notes
        -----
        The watermark of a split is its latest event time so far, less ``watermark``. Only a record that is older than
        the watermark of its split can be late. It is late for a window if that watermark has passed the end of the window and
        the allowed lateness. Late records are in ``.late`` of the step with the windows or the join.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([{"at": datetime(2024, 1, 1, 0, 0, second)} for second in (1, 12)]).event_time("at", watermark="5s")
        >>> s.window_all(mill.tumbling("10s")).agg(n=mill.count()).collect()["n"]
        [1, 1]
        """
        if isinstance(watermark, WatermarkGenerator) or (
            isinstance(watermark, type) and issubclass(watermark, WatermarkGenerator)
        ):
            watermark = WatermarkStrategy.from_generator(watermark)
        column = column_name(column, "event_time")
        if watermark is None:
            raise PlanError(
                'event_time(): watermark= is how far records may be out of order, such as "5s", or a WatermarkStrategy or '
                'WatermarkGenerator, not None; leave it out, or write "0s", for records in order'
            )
        strategy = watermark if isinstance(watermark, WatermarkStrategy) else WatermarkStrategy(watermark)
        made_from: int | str | RawWatermarkFunction
        if strategy.generator is not None:
            made_from = watermark_function(strategy.generator, _zone_of(self.schema, column))
        elif strategy.column is not None:
            made_from = strategy.column
        else:
            made_from = microseconds(strategy.out_of_orderness or "0s", "watermark")
        idle = strategy.idleness
        idleness = None if idle is None or idle == NEVER else microseconds(idle, "idleness")
        drift = None if strategy.max_drift is None else (microseconds(strategy.max_drift, "max_drift"), strategy.group)
        return Stream(self._raw.event_time(column, made_from, idleness, idle == NEVER, drift))

    def key_by(self, *columns: str | Expr, **named: IntoExpr) -> KeyedStream:
        """Group records by columns or expressions.

        Parameters
        ----------
        *columns
            Names of columns, or expressions.
        **named
            Columns, expressions or constants by the name of the column of the key.

        Returns
        -------
        KeyedStream
            The records with the same key are processed by one task, in the order in which they arrive.

        Raises
        ------
        SchemaError
            When a column does not exist, or an expression does not fit the types of its columns.
        PlanError
            When there is no column, an expression is an aggregate, or this is an updating stream.

        Notes
        -----
        Null is a key like any other. ``-0.0`` and ``0.0`` are the same key, and so are all NaN.

        A key with a name is a column of the records from here on, as :meth:`with_columns` makes it: it is in ``.late``, and takes
        the place of a column that has this name.

        Examples
        --------
        >>> s = mill.from_iter([1, 2, 3]).key_by(is_odd=col("value") % 2 == 1)
        >>> sorted((row["is_odd"], row["n"]) for row in s.agg(n=mill.count()).collect().to_pylist())
        [(False, 1), (True, 2)]
        """
        from millstream.keyed import KeyedStream

        return KeyedStream(self._raw.key_by(_columns(columns, named, "key_by")))

    def agg(self, *aggregates: Expr, emit: Emit = None, **named: Expr) -> Stream:
        """Aggregate all records together, without a key.

        Parameters
        ----------
        *aggregates
            Aggregates, each named after its column.
        emit
            When results are emitted, as for :meth:`KeyedStream.agg`.
        **named
            Aggregates by the name of their column.

        Returns
        -------
        Stream
            One row, even if there are no records. Then counts, also of distinct values, are zero, ``collect`` is an empty list,
            an aggregate of your own has the result of its empty state, and all others are null.

        Raises
        ------
        SchemaError
            When a column does not exist, or an aggregate does not fit its type.
        PlanError
            When an expression is not an aggregate, two have the same name, or ``emit`` is not one of the choices.

        Examples
        --------
        >>> mill.from_iter([3, 4]).agg(n=mill.count(), total=col("value").sum()).collect().to_pylist()
        [{'n': 2, 'total': 7}]
        """
        from millstream.keyed import KeyedStream

        return KeyedStream(self._raw.ungrouped()).agg(*aggregates, emit=emit, **named)

    def window_all(
        self, window: Window, *, allowed_lateness: Duration = "0s", trigger: Trigger | None = None
    ) -> WindowedStream:
        """Assign all records together to windows, without a key.

        Parameters
        ----------
        window
            The windows, as for :meth:`KeyedStream.window`.
        allowed_lateness
            How long after its end a window still accepts records, as for :meth:`KeyedStream.window`.
        trigger
            When windows have results besides the one at their end, as for :meth:`KeyedStream.window`.

        Raises
        ------
        PlanError
            When ``window`` or ``trigger`` is not one, ``allowed_lateness`` is not a duration, or windows of time are used
            on a stream without event time.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([{"x": x, "at": datetime(2024, 1, 1, 0, 0, x)} for x in (1, 7, 12)]).event_time("at")
        >>> rows = s.window_all(mill.tumbling("10s")).agg(total=col("x").sum()).collect().to_pylist()
        >>> sorted(row["total"] for row in rows)
        [8, 12]
        """
        from millstream.keyed import KeyedStream

        return KeyedStream(self._raw.ungrouped()).window(window, allowed_lateness=allowed_lateness, trigger=trigger)

    def top_n(
        self,
        n: int,
        by: str | Expr | Sequence[str | Expr],
        *,
        descending: bool | Sequence[bool] = True,
        within: Window | None = None,
        allowed_lateness: Duration | None = None,
        emit: Emit = None,
    ) -> Stream:
        """Return the first ``n`` rows in an order, with their ``rank`` from 1, without a key.

        Parameters
        ----------
        n
            How many rows, at most 10,000.
        by
            What rows are sorted by: a column, an expression, or several of them.
        descending
            Whether the greatest value comes first; one for all of ``by``, or one for each.
        within
            The windows, as for :meth:`KeyedStream.top_n`.
        allowed_lateness
            With ``within``: how long after its end a window still accepts records.
        emit
            Without ``within``: when results are emitted, as for :meth:`KeyedStream.agg`.

        Raises
        ------
        PlanError
            When an option is not one of its choices, or options exclude each other.
        SchemaError
            When a column does not exist, or has no order.

        Examples
        --------
        >>> rows = mill.from_iter([3, 9, 4]).top_n(2, by="value").collect().to_pylist()
        >>> sorted((row["rank"], row["value"]) for row in rows)
        [(1, 9), (2, 4)]
        """
        from millstream.keyed import KeyedStream

        return KeyedStream(self._raw.ungrouped()).top_n(
            n, by, descending=descending, within=within, allowed_lateness=allowed_lateness, emit=emit
        )

    # -- changes -----------------------------------------------------------------------------------------------------

    def to_changelog(self, *, op: str = "op") -> Stream:
        """Convert an updating stream to an append-only stream of its changes, which any sink accepts.

        Parameters
        ----------
        op
            The name of the column, before all others, that says what happens to the key of the row. ``"insert"``: the key
            had no row. ``"update"``: it had another row. ``"delete"``: it has no row any more; the record has the values of
            its last one.

        Returns
        -------
        Stream
            ``op``, then the columns of this stream.

        Raises
        ------
        PlanError
            When this is not an updating stream, or it has a column of that name.

        Notes
        -----
        Only changes are emitted. A row that equals the last one of its key is dropped, and so is the deletion of a key that
        has no row. For this, the latest row of each key is kept as state.

        Examples
        --------
        >>> s = mill.from_iter([{"k": "a", "x": 1}, {"k": "a", "x": 7}])
        >>> counts = s.key_by("k").agg(total=col("x").sum(), emit="checkpoint")
        >>> counts.to_changelog().collect().to_pylist()
        [{'op': 'insert', 'k': 'a', 'total': 8}]
        """
        return Stream(self._raw.to_changelog(text(op, "to_changelog(op=…)", "op")))

    # -- side outputs ------------------------------------------------------------------------------------------------

    @property
    def late(self) -> Stream:
        """The late records of the step before, unchanged.

        They were too late for their window, or as the left side of a join too late for their partners.

        Raises
        ------
        PlanError
            When the step before is not one that has late records: windows, a join, ``deduplicate(within=)``,
            ``top_n(within=)``.

        Examples
        --------
        >>> from datetime import datetime
        >>> rows = [{"at": datetime(2024, 1, 1, 0, minute)} for minute in (0, 30, 1)]
        >>> s = mill.from_iter(rows).event_time("at", watermark="5m")
        >>> counts = s.window_all(mill.tumbling("10m")).agg(n=mill.count())
        >>> [row["at"].minute for row in counts.late.collect().to_pylist()]
        [1]
        """
        return Stream(self._raw.late())

    def side_output(self, name: str) -> Stream:
        """Return a side output of :meth:`KeyedStream.process`.

        Parameters
        ----------
        name
            Its name in ``side_outputs``.

        Raises
        ------
        PlanError
            When the step before has no side output of this name.

        Examples
        --------
        >>> class Split(mill.ProcessFunction):
        ...     def process(self, row, ctx):
        ...         ctx.side_output("odd" if row.x % 2 else "even", row)
        >>> s = mill.from_iter([{"x": x} for x in range(4)])
        >>> sides = {"odd": {"x": int}, "even": {"x": int}}
        >>> split = s.key_by("x").process(Split(), schema={"x": int}, side_outputs=sides)
        >>> sorted(row["x"] for row in split.side_output("odd").collect().to_pylist())
        [1, 3]
        """
        return Stream(self._raw.side_output(text(name, "side_output()", "audit")))

    @property
    def errors(self) -> Stream:
        """The records that failed in the step before, with ``step``, ``error``, ``traceback`` and ``record``.

        The job must run with ``on_error="route"``. All four columns are text.

        Examples
        --------
        >>> s = mill.from_iter(["1", "x"]).map(lambda row: {"n": int(row.value)}, schema={"n": int})
        >>> [row["record"] for row in s.errors.collect(on_error="route").to_pylist()]
        ['{"value":"x"}']
        """
        return Stream(self._raw.errors())

    @property
    def all_errors(self) -> Stream:
        """The records that failed in any step from the sources to this one, with the columns of :attr:`errors`.

        The job must run with ``on_error="route"``, and then each step in which records may fail needs a sink for its errors:
        this stream has those of all of them. The order between the errors of different steps depends on timing. For a job with
        several sinks, :func:`all_errors` has the errors of all of them, each step once.

        Examples
        --------
        >>> s = mill.from_iter([{"n": "1"}, {"n": "x"}, {"n": "0"}]).with_columns(n=col("n").cast(int)).name("parse")
        >>> inverse = s.map(lambda row: {"inverse": 1 / row.n}, schema={"inverse": float}).name("invert")
        >>> sorted((row["step"], row["record"]) for row in inverse.all_errors.collect(on_error="route").to_pylist())
        [('invert', '{"n":0}'), ('parse', '{"n":"x"}')]
        """
        return Stream(RawStream.all_errors([self._raw]))
