"""Streams: what flows, and the steps it goes through.

A stream is declared step by step and checked step by step; nothing runs before :func:`millstream.run`,
:func:`millstream.start`, :meth:`Stream.collect` and the like. Streams are values: a step gives a new stream, and one
stream can go several ways.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from millstream._engine import RawExpr, RawKeyedStream, RawStream, RawWindowedStream
from millstream.errors import PlanError, SchemaError
from millstream.expr import Expr, IntoExpr, _raw, col
from millstream.functions import (
    BatchAdapter,
    FilterAdapter,
    FlatMapAdapter,
    FoldAdapter,
    InspectAdapter,
    MapAdapter,
    View,
    check_callable,
    function_name,
    returned_schema,
)
from millstream.time import Duration, WatermarkStrategy, microseconds
from millstream.types import Schema, SchemaLike, TypeLike, data_type, schema_of
from millstream.window import TumblingWindow

if TYPE_CHECKING:
    from millstream._graph import Graph
    from millstream.io.sinks import OnExisting, Sink
    from millstream.job import OnError
    from millstream.table import Table

__all__ = ["KeyedStream", "Stream", "WindowedStream"]

Emit = Literal["end", "checkpoint", "each"] | Duration | None
"""When an aggregate without windows gives results."""

_SAMPLE_ROWS = 100


def _column(value: str | Expr, method: str) -> Expr:
    if isinstance(value, str):
        return col(value)
    if isinstance(value, Expr):
        return value
    raise PlanError(f"{method}() takes names of columns and expressions, not {value!r:.200}; name a constant: x=lit({value!r:.50})")


def _columns(positional: Sequence[str | Expr], named: Mapping[str, IntoExpr], method: str) -> list[RawExpr]:
    exprs: list[RawExpr] = []
    for value in positional:
        if isinstance(value, (list, tuple)):
            raise PlanError(f"{method}() takes columns one by one, not as a {type(value).__name__}; write {method}(*names)")
        exprs.append(_raw(_column(value, method)))
    exprs.extend(_raw(value).alias(name) for name, value in named.items())
    return exprs


def _emit(emit: Emit) -> tuple[str, int | None]:
    if emit is None:
        return "default", None
    if emit in ("end", "checkpoint", "each"):
        return str(emit), None
    interval = microseconds(emit, "emit")
    if interval == 0:
        raise PlanError('emit="0s" leaves no time between results; use emit="each"')
    return "every", interval


class Stream:
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

    # -- columns -----------------------------------------------------------------------------------------------------

    def select(self, *columns: str | Expr, **named: IntoExpr) -> Stream:
        """Give only these columns.

        Parameters
        ----------
        *columns
            Names of columns, or expressions.
        **named
            Expressions or constants by the name of their column.

        Raises
        ------
        SchemaError
            When a column does not exist, or types don't fit.

        Examples
        --------
        >>> s = mill.from_iter([{"a": 1, "b": 2}])
        >>> s.select("a", double=col("b") * 2).collect().to_pylist()
        [{'a': 1, 'double': 4}]
        """
        return Stream(self._raw.select(_columns(columns, named, "select")))

    def with_columns(self, *columns: Expr, **named: IntoExpr) -> Stream:
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
        return Stream(self._raw.drop(list(columns)))

    def rename(self, names: Mapping[str, str]) -> Stream:
        """Give columns other names.

        Examples
        --------
        >>> mill.from_iter([{"a": 1}]).rename({"a": "b"}).collect().to_pylist()
        [{'b': 1}]
        """
        return Stream(self._raw.rename(list(names.items())))

    def cast(self, types: Mapping[str, TypeLike]) -> Stream:
        """Convert columns to other types; a value that does not fit is an error of its record.

        Examples
        --------
        >>> mill.from_iter([{"a": "1"}]).cast({"a": int}).collect().to_pylist()
        [{'a': 1}]
        """
        return Stream(self._raw.cast([(name, data_type(kind, place=f"column {name!r}")) for name, kind in types.items()]))

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
        return Stream(self._raw.explode(column, keep_empty))

    def unnest(self, column: str) -> Stream:
        """Put the fields of a struct column in its place.

        Examples
        --------
        >>> mill.from_iter([{"id": 1, "at": {"x": 2, "y": 3}}]).unnest("at").collect().to_pylist()
        [{'id': 1, 'x': 2, 'y': 3}]
        """
        return Stream(self._raw.unnest(column))

    # -- records -----------------------------------------------------------------------------------------------------

    def filter(self, condition: Expr | Callable[[Any], object]) -> Stream:
        """Keep the records for which a condition holds; null counts as not.

        Parameters
        ----------
        condition
            An expression, or a function of a row.

        Examples
        --------
        >>> s = mill.from_iter([1, 2, 3])
        >>> s.filter(col("value") > 2).collect().to_pylist()
        [{'value': 3}]
        >>> s.filter(lambda row: row.value % 2).collect().to_pylist()
        [{'value': 1}, {'value': 3}]
        """
        if isinstance(condition, Expr):
            return Stream(self._raw.filter(_raw(condition)))
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
        """Call a function for each record; it gives any number of records, as a list or by ``yield``.

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

    def map_batches(self, function: Callable[[Any], Any], *, schema: SchemaLike = None) -> Stream:
        """Call a function for each frame of records.

        A function that gives as many rows as it takes keeps the event time of each; after any other, event time has to
        be taken anew with :meth:`event_time`.

        Parameters
        ----------
        function
            Takes a ``pyarrow.RecordBatch``, gives one, or a dict of arrays, or anything with an Arrow interface.
        schema
            The columns it gives; by default those it takes.

        Examples
        --------
        >>> import pyarrow.compute as pc
        >>> s = mill.from_iter([1.0, 2.0])
        >>> s.map_batches(lambda b: {"half": pc.divide(b["value"], 2.0)}, schema={"half": float}).collect().to_pylist()
        [{'half': 0.5}, {'half': 1.0}]
        """
        check_callable(function, "map_batches")
        given = self.schema if schema is None else schema_of(schema)
        name = f"map_batches({function_name(function)})"
        return Stream(self._raw.map_batches(name, BatchAdapter(function), given._raw))

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

    def _given(self, function: Callable[[Any], Any], schema: SchemaLike, method: str, *, is_many: bool) -> Schema:
        """Give the schema of what a function returns: as declared, as annotated, or as its first results are."""
        if schema is not None:
            return schema_of(schema)
        declared = returned_schema(function, is_many=is_many)
        if declared is not None:
            return declared
        return self._sampled(function, method, is_many=is_many)

    def _sampled(self, function: Callable[[Any], Any], method: str, *, is_many: bool) -> Schema:
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
        for record in table.to_pylist():
            result = function(tuple.__new__(make, record.values()))
            if is_many:
                results.extend([] if result is None else result)
            else:
                results.append(result)
            if len(results) >= _SAMPLE_ROWS:
                break
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
        if not isinstance(rows, int) or isinstance(rows, bool) or rows < 0:
            raise PlanError(f"limit() takes a number of rows, not {rows!r}")
        return Stream(self._raw.limit(rows))

    def union(self, *others: Stream) -> Stream:
        """Give the records of this stream and others with the same columns, in any order.

        Examples
        --------
        >>> len(mill.from_iter([1]).union(mill.from_iter([2]), mill.from_iter([3])).collect())
        3
        """
        for other in others:
            if not isinstance(other, Stream):
                raise PlanError(f"union() takes streams, not {type(other).__name__}; make one with from_arrow or from_iter")
        return Stream(self._raw.union([other._raw for other in others]))

    def branch(self, condition: Expr) -> tuple[Stream, Stream]:
        """Give the records for which a condition holds, and the others.

        Examples
        --------
        >>> yes, no = mill.from_iter([1, 2, 3]).branch(col("value") > 1)
        >>> len(yes.collect()), len(no.collect())
        (2, 1)
        """
        if not isinstance(condition, Expr):
            raise PlanError(f"branch() takes an expression, not {condition!r:.200}")
        yes, no = self._raw.branch(_raw(condition))
        return Stream(yes), Stream(no)

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
        return Stream(self._raw.name(name))

    # -- time and keys -----------------------------------------------------------------------------------------------

    def event_time(self, column: str, watermark: Duration | WatermarkStrategy = "0s") -> Stream:
        """Take each record's event time from a column.

        Parameters
        ----------
        column
            A timestamp or date column.
        watermark
            How far records may be out of order within their split, or a :class:`WatermarkStrategy`.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([{"at": datetime(2024, 1, 1)}]).event_time("at", watermark="5s")
        """
        strategy = watermark if isinstance(watermark, WatermarkStrategy) else WatermarkStrategy(watermark)
        bound = microseconds(strategy.out_of_orderness, "watermark")
        idleness = None if strategy.idleness is None else microseconds(strategy.idleness, "idleness")
        return Stream(self._raw.event_time(column, bound, idleness))

    def key_by(self, *columns: str | Expr, **named: IntoExpr) -> KeyedStream:
        """Group records by columns or expressions.

        Examples
        --------
        >>> s = mill.from_iter([1, 2, 3]).key_by(is_odd=col("value") % 2 == 1)
        >>> sorted((row["is_odd"], row["n"]) for row in s.agg(n=mill.count()).collect().to_pylist())
        [(False, 1), (True, 2)]
        """
        return KeyedStream(self._raw.key_by(_columns(columns, named, "key_by")))

    # -- side outputs ------------------------------------------------------------------------------------------------

    @property
    def late(self) -> Stream:
        """The records that came too late for their window, as they were; of a windowed result only."""
        return Stream(self._raw.late())

    @property
    def errors(self) -> Stream:
        """The records that failed in the step before, with ``step``, ``error``, ``traceback`` and ``record``.

        Examples
        --------
        >>> s = mill.from_iter(["1", "x"]).map(lambda row: {"n": int(row.value)}, schema={"n": int})
        >>> [row["record"] for row in s.errors.collect(on_error="route").to_pylist()]
        ["{'value': 'x'}"]
        """
        return Stream(self._raw.errors())

    # -- sinks -------------------------------------------------------------------------------------------------------

    def write_csv(self, path: str | os.PathLike[str], *, on_existing: OnExisting = "refuse") -> Sink:
        """Write CSV files into a directory; hidden until they are committed.

        Parameters
        ----------
        path
            The directory; it is made if there is none.
        on_existing
            What a run that starts from nothing does with files of earlier runs: ``"refuse"`` or ``"replace"`` them.

        Examples
        --------
        >>> sink = mill.from_iter([1]).write_csv("out/")
        """
        from millstream.io import sinks

        return sinks.file_sink(self, "csv", path, on_existing)

    def write_json(self, path: str | os.PathLike[str], *, on_existing: OnExisting = "refuse") -> Sink:
        """Write JSON files, a record a line, into a directory; hidden until they are committed.

        Parameters
        ----------
        path
            The directory; it is made if there is none.
        on_existing
            What a run that starts from nothing does with files of earlier runs: ``"refuse"`` or ``"replace"`` them.

        Examples
        --------
        >>> sink = mill.from_iter([1]).write_json("out/")
        """
        from millstream.io import sinks

        return sinks.file_sink(self, "json", path, on_existing)

    def write_parquet(self, path: str | os.PathLike[str], *, on_existing: OnExisting = "refuse") -> Sink:
        """Write Parquet files into a directory; hidden until they are committed.

        Parameters
        ----------
        path
            The directory; it is made if there is none.
        on_existing
            What a run that starts from nothing does with files of earlier runs: ``"refuse"`` or ``"replace"`` them.

        Examples
        --------
        >>> sink = mill.from_iter([1]).write_parquet("out/")
        """
        from millstream.io import sinks

        return sinks.file_sink(self, "parquet", path, on_existing)

    def write_sqlite(self, path: str | os.PathLike[str], table: str, *, key: str | Sequence[str] | None = None) -> Sink:
        """Write rows into a table of an SQLite database.

        Parameters
        ----------
        path
            The database file; it is made if there is none.
        table
            The table; it is made if there is none.
        key
            The columns whose latest row is kept (an upsert); without it rows are appended.

        Examples
        --------
        >>> sink = mill.from_iter([{"k": 1}]).write_sqlite("out.db", "rows", key="k")
        """
        from millstream.io import sinks

        return sinks.sqlite_sink(self, path, table, [key] if isinstance(key, str) else key)

    def for_each(self, function: Callable[[Any], object]) -> Sink:
        """Call a function for each record; after a crash some are given again.

        Examples
        --------
        >>> seen = []
        >>> report = mill.run(mill.from_iter([1, 2]).for_each(lambda row: seen.append(row.value)))
        >>> seen
        [1, 2]
        """
        check_callable(function, "for_each")
        from millstream.io import sinks

        return sinks.callback_sink(self, function, is_batch=False)

    def for_each_batch(self, function: Callable[[Any], object]) -> Sink:
        """Call a function for each frame, a ``pyarrow.RecordBatch``; after a crash some are given again.

        Examples
        --------
        >>> rows = []
        >>> report = mill.run(mill.from_iter([1, 2]).for_each_batch(lambda batch: rows.append(batch.num_rows)))
        >>> sum(rows)
        2
        """
        check_callable(function, "for_each_batch")
        from millstream.io import sinks

        return sinks.callback_sink(self, function, is_batch=True)

    def print(self) -> Sink:
        """Print each record.

        Examples
        --------
        >>> report = mill.run(mill.from_iter([1]).print())
        Row(value=1)
        """
        from millstream.io import sinks

        return sinks.print_sink(self)

    def sink_to(self, sink: Sink) -> Sink:
        """Write into a sink of your own; see :class:`Sink`."""
        from millstream.io import sinks

        return sinks.custom_sink(self, sink)

    # -- running -----------------------------------------------------------------------------------------------------

    def collect(
        self,
        limit: int | None = None,
        *,
        until: Duration | None = None,
        parallelism: int | None = None,
        on_error: OnError = "fail",
    ) -> Table:
        """Run the stream and give its records as a table.

        Parameters
        ----------
        limit
            How many records at most; the rest is not computed.
        until
            How long it may run; then what has come so far is given. Unbounded input needs this or ``limit``.
        parallelism
            How many parallel tasks; by default one a core.
        on_error
            What happens to a record that fails: ``"fail"``, ``"skip"`` or ``"route"`` (to ``.errors``).

        Examples
        --------
        >>> mill.generate(rows=10**6).collect(limit=2).to_pylist()
        [{'index': 0}, {'index': 1}]
        """
        from millstream.job import collect

        return collect(self, limit, until=until, parallelism=parallelism, on_error=on_error)

    def iter_batches(
        self,
        *,
        until: Duration | None = None,
        parallelism: int | None = None,
        on_error: OnError = "fail",
    ) -> Iterator[Any]:
        """Run the stream and give its records batch by batch, as ``pyarrow.RecordBatch``.

        A consumer that is slower than the job holds the job back; one that stops ends it.

        Examples
        --------
        >>> sum(batch.num_rows for batch in mill.generate(rows=1000).iter_batches())
        1000
        """
        from millstream.job import iter_batches

        return iter_batches(self, until=until, parallelism=parallelism, on_error=on_error)

    def show(self, rows: int = 10) -> None:
        """Run the stream for its first records and print them as a table.

        Examples
        --------
        >>> mill.from_iter([{"a": 1, "b": "x"}]).show()
        a      b
        int64  str
        -----  ---
        1      x
        """
        print(self.collect(limit=rows, until=None if self.is_bounded else "10s"))

    def graph(
        self,
        *,
        parallelism: int | None = None,
    ) -> Graph:
        """Give the plan as a picture, which a notebook draws.

        Examples
        --------
        >>> graph = mill.from_iter([1]).key_by("value").agg(n=mill.count()).graph(parallelism=2)
        >>> [node.kind for node in graph.nodes][-1]
        'sink'
        """
        from millstream.job import graph_of_stream

        return graph_of_stream(self, parallelism=parallelism)

    def explain(
        self,
        *,
        parallelism: int | None = None,
    ) -> str:
        """Give the plan as text: steps, chains, threads, state and guarantee.

        Examples
        --------
        >>> plan = mill.from_iter([1]).filter(col("value") > 0).explain()
        >>> "filter" in plan
        True
        """
        from millstream.job import explain_stream

        return explain_stream(self, parallelism=parallelism)


class KeyedStream:
    """A stream grouped by a key; made by :meth:`Stream.key_by`."""

    __slots__ = ("_raw",)

    def __init__(self, raw: RawKeyedStream) -> None:
        self._raw = raw

    def __repr__(self) -> str:
        """Show the key."""
        return f"<KeyedStream by {', '.join(self.keys)}>"

    @property
    def keys(self) -> list[str]:
        """The columns of the key."""
        return self._raw.keys()

    def agg(self, *aggregates: Expr, emit: Emit = None, **named: Expr) -> Stream:
        """Aggregate the records of each key.

        Parameters
        ----------
        *aggregates
            Aggregates, each named by its column.
        emit
            When results are given: ``"end"`` (each key once), an interval such as ``"1s"``, ``"checkpoint"`` or
            ``"each"`` (at each record). By default ``"end"`` on bounded and ``"1s"`` on unbounded input. All but
            ``"end"`` make an updating stream: the latest row of a key counts.
        **named
            Aggregates by the name of their column.

        Examples
        --------
        >>> s = mill.from_iter([{"k": "a", "x": 1}, {"k": "a", "x": 4}])
        >>> s.key_by("k").agg(col("x").max(), n=mill.count(), mean=col("x").mean()).collect().to_pylist()
        [{'k': 'a', 'x': 4, 'n': 2, 'mean': 2.5}]
        """
        name, interval = _emit(emit)
        return Stream(self._raw.agg(_columns(aggregates, named, "agg"), name, interval))

    def reduce(self, function: Callable[[Any, Any], Any], *, emit: Emit = None) -> Stream:
        """Fold the records of each key with a function of the record so far and the next one.

        Parameters
        ----------
        function
            Takes two rows, gives a record with the same columns.
        emit
            As of :meth:`agg`.

        Examples
        --------
        >>> s = mill.from_iter([{"k": 1, "x": 2}, {"k": 1, "x": 5}])
        >>> s.key_by("k").reduce(lambda a, b: {"k": a.k, "x": a.x + b.x}).collect().to_pylist()
        [{'k': 1, 'x': 7}]
        """
        check_callable(function, "reduce")
        name, interval = _emit(emit)
        fields = tuple(self._raw.stream().schema().names())
        adapter = FoldAdapter(function, fields)
        return Stream(self._raw.reduce(f"reduce({function_name(function)})", adapter, name, interval))

    def window(self, window: TumblingWindow, *, allowed_lateness: Duration = "0s") -> WindowedStream:
        """Cut the records of each key into windows of event time.

        Parameters
        ----------
        window
            The windows: :func:`tumbling`.
        allowed_lateness
            How long after its end a window still takes records; its one result comes after that.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([{"k": 1, "at": datetime(2024, 1, 1, 0, 0, 7)}]).event_time("at")
        >>> s.key_by("k").window(mill.tumbling("10s")).agg(n=mill.count()).select("window_start", "n").collect().to_pylist()
        [{'window_start': datetime.datetime(2024, 1, 1, 0, 0), 'n': 1}]
        """
        if not isinstance(window, TumblingWindow):
            raise PlanError(f'window() takes a window such as mill.tumbling("10s"), not {window!r:.200}')
        return WindowedStream(
            self._raw.tumbling(
                microseconds(window.size, "size of a window"),
                microseconds(window.offset, "offset of a window", is_negative_allowed=True),
                microseconds(allowed_lateness, "allowed_lateness"),
            )
        )


class WindowedStream:
    """A keyed stream cut into windows; made by :meth:`KeyedStream.window`."""

    __slots__ = ("_raw",)

    def __init__(self, raw: RawWindowedStream) -> None:
        self._raw = raw

    def agg(self, *aggregates: Expr, **named: Expr) -> Stream:
        """Aggregate the records of each key and window.

        A window gives one row when the watermark has passed its end and the allowed lateness: the key, ``window_start``
        and ``window_end`` (half-open), and the aggregates. What came too late is in ``.late`` of the result.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([{"k": 1, "at": datetime(2024, 1, 1)}]).event_time("at")
        >>> s.key_by("k").window(mill.tumbling("1h")).agg(n=mill.count()).schema.names
        ['k', 'window_start', 'window_end', 'n']
        """
        return Stream(self._raw.agg(_columns(aggregates, named, "agg")))
