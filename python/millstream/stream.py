"""Streams: what flows, and the steps it goes through.

A stream is declared step by step and checked step by step; nothing runs before :func:`millstream.run`,
:func:`millstream.start`, :meth:`Stream.collect` and the like. Streams are values: a step gives a new stream, and one
stream can go several ways.
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
from millstream._texts import mapping, text, texts
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
    """Call a function for each of these rows, one when it is asked for."""
    for row in rows:
        try:
            yield function(row), None
        except Exception as error:
            yield None, error



def _zone_of(schema: Schema, column: str) -> str | None:
    """Give the zone of a column of times; None where it has none, or is no such column."""
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
            raise PlanError(f"{method}() takes columns one by one, not as a {type(value).__name__}; write {method}(*names)")
        exprs.append(_unnamed(value, method))
    exprs.extend(_column(value).alias(name) for name, value in named.items())
    return exprs


def from_changelog(stream: Stream, key: str | Sequence[str], op: str = "op") -> Stream:
    """Return the updating stream whose changes are the records of a stream: the way back from :meth:`Stream.to_changelog`.

    The column ``op`` says what happens to the key of each record, and is not part of the result. ``"insert"`` and
    ``"update"`` set the row of the key, whether it had one or not; ``"delete"`` withdraws it. Flink's short forms are
    understood too: ``+I`` and ``+U`` set the row, ``-D`` and ``-U`` withdraw it. Anything else, also null, is an error of its
    record, which goes the way that ``on_error`` says.

    Parameters
    ----------
    stream
        The changes. Those of one key must come in their order, so they come from one split of a source.
    key
        The columns whose latest row counts.
    op
        The column of text that says what happens.

    Raises
    ------
    SchemaError
        When a column does not exist, or ``op`` is no text.
    PlanError
        When ``op`` is part of the key, or the stream is an updating one already.

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
            """Name what to write instead of what other libraries have."""
            raise no_attribute(self, name)

    def __repr__(self) -> str:
        """Show the columns."""
        kind = "" if self.is_bounded else "unbounded, "
        columns = ", ".join(f"{name}: {kind!r}" for name, kind in self.schema.items())
        return f"<Stream {kind}{columns}>"

    # -- what it is --------------------------------------------------------------------------------------------------

    @property
    def schema(self) -> Schema:
        """The columns and their types.

        Examples
        --------
        >>> mill.from_iter([{"x": 1}]).with_columns(y=col("x") / 2).schema
        Schema(x: int64, y: float64)
        """
        return Schema(self._raw.schema())

    @property
    def is_bounded(self) -> bool:
        """Whether the input ends."""
        return self._raw.is_bounded()

    @property
    def updating_key(self) -> list[str] | None:
        """The key of an updating stream, whose latest row of a key counts; None where every row stands for itself."""
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
        """Give only these columns.

        Parameters
        ----------
        *columns
            Names of columns, or expressions.
        **named
            Columns, expressions or constants by the name of their column. A string is the name of a column;
            ``lit("x")`` is a text.

        Raises
        ------
        SchemaError
            When a column does not exist, or types don't fit.

        Examples
        --------
        >>> s = mill.from_iter([{"a": 1, "b": 2}])
        >>> s.select("a", other="b", double=col("b") * 2, kind=lit("x")).collect().to_pylist()
        [{'a': 1, 'other': 2, 'double': 4, 'kind': 'x'}]
        """
        return Stream(self._raw.select(_columns(columns, named, "select")))

    def with_columns(self, *columns: str | Expr, **named: IntoExpr) -> Stream:
        """Add columns, or replace those with the same names.

        Examples
        --------
        >>> mill.from_iter([{"a": 1}]).with_columns(b=col("a") + 1).collect().to_pylist()
        [{'a': 1, 'b': 2}]
        """
        return Stream(self._raw.with_columns(_columns(columns, named, "with_columns")))

    def drop(self, *columns: str) -> Stream:
        """Leave columns out.

        Examples
        --------
        >>> mill.from_iter([{"a": 1, "b": 2}]).drop("a").collect().to_pylist()
        [{'b': 2}]
        """
        return Stream(self._raw.drop([column_name(column, "drop") for column in columns]))

    def rename(self, names: Mapping[str, str]) -> Stream:
        """Give columns other names.

        Examples
        --------
        >>> mill.from_iter([{"a": 1}]).rename({"a": "b"}).collect().to_pylist()
        [{'b': 1}]
        """
        pairs = mapping(names, "rename()", 'rename({"old": "new"})').items()
        return Stream(self._raw.rename([(column_name(old, "rename"), column_name(new, "rename")) for old, new in pairs]))

    def cast(self, types: Mapping[str, TypeLike]) -> Stream:
        """Convert columns to other types; a value that does not fit is an error of its record.

        Examples
        --------
        >>> mill.from_iter([{"a": "1"}]).cast({"a": int}).collect().to_pylist()
        [{'a': 1}]
        """
        pairs = mapping(types, "cast()", 'cast({"x": int})').items()
        return Stream(self._raw.cast([(column_name(name, "cast"), data_type(kind, place=f"column {name!r}")) for name, kind in pairs]))

    def explode(self, column: str, *, keep_empty: bool = False) -> Stream:
        """Give one row for each element of a list column.

        Parameters
        ----------
        column
            The list column.
        keep_empty
            Whether an empty or null list gives one row with null, instead of none.

        Examples
        --------
        >>> mill.from_iter([{"k": 1, "tags": ["a", "b"]}]).explode("tags").collect().to_pylist()
        [{'k': 1, 'tags': 'a'}, {'k': 1, 'tags': 'b'}]
        """
        return Stream(self._raw.explode(column_name(column, "explode"), keep_empty))

    def unnest(self, column: str) -> Stream:
        """Put the fields of a struct column in its place.

        Examples
        --------
        >>> mill.from_iter([{"id": 1, "at": {"x": 2, "y": 3}}]).unnest("at").collect().to_pylist()
        [{'id': 1, 'x': 2, 'y': 3}]
        """
        return Stream(self._raw.unnest(column_name(column, "unnest")))

    # -- records -----------------------------------------------------------------------------------------------------

    def filter(self, condition: Expr | str | Callable[[Any], object]) -> Stream:
        """Keep the records for which a condition holds; null counts as not.

        Parameters
        ----------
        condition
            An expression, the name of a column of truth values, or a function of a row.

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
        check_callable(condition, "filter")
        return self._apply("filter", condition, FilterAdapter, self.schema)

    def map(self, function: Callable[[Any], Any], *, schema: SchemaLike = None) -> Stream:
        """Call a function for each record; what it returns is a record.

        Parameters
        ----------
        function
            Takes a :class:`Row`, gives a dict, a tuple, a dataclass, or a plain value for a schema of one column.
        schema
            The columns it gives; by default those of its annotation, else those of its first results: for these, the
            stream before is run for a few records when the step is declared.

        Examples
        --------
        >>> s = mill.from_iter([{"price": 2.0, "qty": 3}])
        >>> s.map(lambda row: {"total": row.price * row.qty}).collect().to_pylist()
        [{'total': 6.0}]
        """
        check_callable(function, "map")
        given = self._given(function, schema, "map", is_many=False)
        return self._apply("map", function, MapAdapter, given)

    def flat_map(self, function: Callable[[Any], Iterable[Any] | None], *, schema: SchemaLike = None) -> Stream:
        """Call a function for each record; it returns any number of records, as a list or by ``yield``.

        What a function yields is passed on in pieces, so memory does not grow with the number of results. A record whose
        function raises has no results, up to 4,096 of them: of one that has yielded more before it raises, those that were
        passed on stay. Checkpoints fall between records, never inside a call.

        Parameters
        ----------
        function
            Takes a :class:`Row`, gives an iterable of records, or None for none.
        schema
            As of :meth:`map`.

        Examples
        --------
        >>> def words(row):
        ...     yield from row.value.split()
        >>> mill.from_iter(["to be"]).flat_map(words, schema={"word": str}).collect().to_pylist()
        [{'word': 'to'}, {'word': 'be'}]
        """
        check_callable(function, "flat_map")
        given = self._given(function, schema, "flat_map", is_many=True)
        return self._apply("flat_map", function, FlatMapAdapter, given)

    def map_batches(
        self, function: Callable[[Any], Any], *, schema: SchemaLike = None, batch_rows: int | None = None
    ) -> Stream:
        """Call a function for each frame of records.

        A frame has as many records as the function works on in about 20 ms: 64 at first, up to 65,536 if it is fast, and
        fewer if it is slow, so that a checkpoint or a stop does not wait for long. If a call takes long whatever the number of
        records, as a request does, calls get more records instead. ``batch_rows`` sets the number.

        A function that gives as many rows as it takes keeps the event time of each; after any other, event time has to
        be taken anew with :meth:`event_time`.

        Parameters
        ----------
        function
            Takes a ``pyarrow.RecordBatch``, returns one, or a dict of arrays, or anything with an Arrow interface.
        schema
            The columns it returns; by default those it takes. Other types are converted where every value stays the same:
            whole floats fit an integer column, ``1.7`` or ``"x"`` is an error that names column, row and value.
        batch_rows
            How many records a call gets at most, whatever time they take; a model may want 64. A call gets fewer where the
            frame that it is cut from has no more: at the end of the input, after a filter, or where records come one by one.
            Frames are never put together to fill a batch, and never have more than 65,536 records. A checkpoint or a stop
            waits for one call.

        Raises
        ------
        PlanError
            If ``batch_rows`` is not a whole number of at least 1.
        UserFunctionError
            When the job runs and the function raises, or its result does not fit. With ``on_error="skip"`` or ``"route"``
            the records of the batch are left out or routed; of a result that is row for row only those that don't fit.

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
        check_callable(function, "map_batches")
        if batch_rows is not None:
            batch_rows = count(batch_rows, "map_batches(): batch_rows is how many rows a call gets, at least 1", least=1)
        given = self.schema if schema is None else schema_of(schema)
        name = f"map_batches({function_name(function)})"
        return Stream(self._raw.map_batches(name, BatchAdapter(function), given._raw, batch_rows))

    def inspect(self, function: Callable[[Any], object]) -> Stream:
        """Call a function for each record and pass the record on as it is.

        Examples
        --------
        >>> seen = []
        >>> _ = mill.from_iter([1, 2]).inspect(lambda row: seen.append(row.value)).collect()
        >>> seen
        [1, 2]
        """
        check_callable(function, "inspect")
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
        """Give the schema of what a function returns: as declared, as annotated, or as its first results are.

        ``outcomes`` calls the function for each of some rows, where it is not called as usual.
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
        advice = f"say {method}({name}, schema=...) or annotate what {name} returns"
        if not self._raw.is_sampleable():
            raise SchemaError(
                f"the columns that {name} gives are not known, and the stream before it cannot be read twice to find out; {advice}"
            )
        table = self.limit(_SAMPLE_ROWS).collect(parallelism=1, until="10s")
        make = row_class(tuple(self.schema.names))
        results: list[Any] = []
        failure: UserFunctionError | None = None
        calls = outcomes([tuple.__new__(make, record.values()) for record in table.to_pylist()])
        for number, (result, raised_first) in enumerate(calls):
            room = _SAMPLE_ROWS - len(results)
            try:
                if raised_first is not None:
                    raise raised_first
                results.extend(itertools.islice(result or (), room) if is_many else [result])
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
            raise SchemaError(f"the columns that {name} gives are not known, as it gave no record; {advice}")
        return infer_schema(results, what=name)

    def limit(self, rows: int) -> Stream:
        """Give the first records, this many, and end.

        Examples
        --------
        >>> len(mill.generate(rows=1000).limit(3).collect())
        3
        """
        return Stream(self._raw.limit(count(rows, "limit() takes a number of rows")))

    def union(self, *others: Stream) -> Stream:
        """Give the records of this stream and others with the same columns, in any order.

        Examples
        --------
        >>> len(mill.from_iter([1]).union(mill.from_iter([2]), mill.from_iter([3])).collect())
        3
        """
        for other in others:
            if not isinstance(other, Stream):
                hint = "leave key_by() out" if type(other).__name__ == "KeyedStream" else "make one with from_arrow or from_iter"
                raise PlanError(f"union() takes streams, not {type(other).__name__}; {hint}")
        return Stream(self._raw.union([other._raw for other in others]))

    def branch(self, *conditions: Expr | str) -> tuple[Stream, ...]:
        """Split the stream: each record goes to the first condition that holds, or to the last stream if none does.

        A condition that is null does not hold.

        Parameters
        ----------
        *conditions
            Expressions that are true or false, or names of such columns.

        Returns
        -------
        tuple of Stream
            One stream for each condition, in order, and one for the records that are left.

        Raises
        ------
        PlanError
            When there is no condition, or one is neither an expression nor a name.

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
        """Call a function with the stream as its first argument, so that steps of one's own stand in the chain.

        Parameters
        ----------
        function
            Takes the stream, and whatever else is given.
        *args, **kwargs
            What it gets besides.

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
        """Spread the records evenly over all tasks, whatever the source gave them.

        Examples
        --------
        >>> len(mill.from_iter([1, 2]).rebalance().collect())
        2
        """
        return Stream(self._raw.rebalance())

    def name(self, name: str) -> Stream:
        """Name the step before; the name is the identity of its state, and unique in a job.

        Examples
        --------
        >>> named = mill.from_iter([1]).key_by("value").agg(n=mill.count()).name("per value")
        """
        return Stream(self._raw.name(text(name, "name()", "per user")))

    # -- time and keys -----------------------------------------------------------------------------------------------

    def event_time(self, column: str, watermark: Duration | WatermarkStrategy | WatermarkGenerator = "0s") -> Stream:
        """Take each record's event time from a column.

        Parameters
        ----------
        column
            A timestamp or date column.
        watermark
            How far records may be out of order within their split, a :class:`WatermarkStrategy`, or an object of a class of
            yours that makes watermarks (:class:`WatermarkGenerator`).

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([{"at": datetime(2024, 1, 1)}]).event_time("at", watermark="5s")
        """
        if isinstance(watermark, WatermarkGenerator) or (
            isinstance(watermark, type) and issubclass(watermark, WatermarkGenerator)
        ):
            watermark = WatermarkStrategy.from_generator(watermark)
        column = column_name(column, "event_time")
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

        The result has one row, also if there are no records: counts are then zero and sums null. It takes the
        parameters of :meth:`KeyedStream.agg`.

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
        """Cut all records together into windows, without a key.

        Parameters
        ----------
        window
            The windows, as of :meth:`KeyedStream.window`.
        allowed_lateness
            How long after its end a window still takes records, as of :meth:`KeyedStream.window`.
        trigger
            When windows have results besides that of their end, as of :meth:`KeyedStream.window`.

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
        """Give the first rows of all, without a key; the parameters are those of :meth:`KeyedStream.top_n`.

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
        """Give the changes of an updating stream as records of a stream that only grows, which any sink takes.

        Parameters
        ----------
        op
            The column with what happens to the key of the row; it comes before the others. ``"insert"``: the key had no row.
            ``"update"``: it had another row. ``"delete"``: it has none any more; the record has the values of the row
            that it had.

        Notes
        -----
        Only changes come out. A row that is equal to the last one of its key is left out, and so is the withdrawal of a key
        that has no row. For this the latest row of each key is kept as state.

        Raises
        ------
        PlanError
            When the stream is not an updating one, or has a column of that name.

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
        """The records that came too late, as they were: for their window, or as the left side of a join for their partners."""
        return Stream(self._raw.late())

    def side_output(self, name: str) -> Stream:
        """Return a side output of ``process()``, by its name.

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

        Examples
        --------
        >>> s = mill.from_iter(["1", "x"]).map(lambda row: {"n": int(row.value)}, schema={"n": int})
        >>> [row["record"] for row in s.errors.collect(on_error="route").to_pylist()]
        ['{"value": "x"}']
        """
        return Stream(self._raw.errors())
