"""Streams with a key, and their windows."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from millstream._engine import RawKeyedStream, RawSchema, RawStream, RawWindowedStream
from millstream._hints import no_attribute
from millstream._nearest import nearest
from millstream._parameters import check_spelling
from millstream._texts import directions
from millstream.errors import PlanError
from millstream.expr import Expr, col, lit
from millstream.functions import (
    FoldAdapter,
    WindowAdapter,
    check_callable,
    check_pyarrow,
    function_name,
    returned_schema,
)
from millstream.process import ProcessFunction, State, ValueState
from millstream.stream import Stream, _columns
from millstream.time import Duration, microseconds
from millstream.trigger import Trigger, check_trigger
from millstream.types import SchemaLike, data_type, schema_of
from millstream.window import Window

if TYPE_CHECKING:
    from millstream._process import BroadcastSide

__all__ = ["ConnectedStreams", "KeyedStream", "RollingStream", "WindowedStream"]

Emit = Literal["end", "checkpoint", "each"] | Duration | None
"""When an aggregate without windows emits results."""


def _emit(emit: Emit) -> tuple[str, int | None]:
    if emit is None:
        return "default", None
    if emit in ("end", "checkpoint", "each"):
        return str(emit), None
    try:
        interval = microseconds(emit, "emit")
    except PlanError as error:
        near = nearest(emit, ("end", "checkpoint", "each")) if isinstance(emit, str) else None
        if near is not None:
            raise PlanError(f'emit is {emit!r:.80}; did you mean "{near}"? It is "end", "checkpoint", "each", or a duration such as "1s"') from None
        raise PlanError(f'{error}; or emit="end", "checkpoint" or "each"') from None
    if interval == 0:
        raise PlanError('emit="0s" leaves no time between results; use emit="each"')
    return "every", interval


def _check_emit_is_spelled(named: Mapping[str, object]) -> None:
    """Refuse ``emits="each"``, which would be a column of that name."""
    for name, value in named.items():
        if isinstance(value, Duration) and nearest(name, ("emit",)) is not None:
            raise PlanError(
                f"agg() has no {name}=; did you mean emit={value!r:.80}? An aggregate of this name is written {name}=col(…).first() "
                "or the like"
            )


def _check_no_emit(named: Mapping[str, object]) -> None:
    """Refuse ``emit=`` on windows, which decide by themselves when results are emitted; an aggregate may be named ``emit``."""
    if "emit" in named and not isinstance(named["emit"], Expr):
        raise PlanError(
            "agg() of windows takes no emit=: a window has its result when it is complete; for results before that, pass "
            "trigger= to window()"
        )


class KeyedStream:
    """A stream grouped by a key; made by :meth:`Stream.key_by`.

    Examples
    --------
    >>> visits = mill.from_iter([{"user": "ann", "page": "a"}, {"user": "ann", "page": "b"}])
    >>> visits.key_by("user")
    <KeyedStream by user>
    >>> visits.key_by("user").agg(n=mill.count()).collect().to_pylist()
    [{'user': 'ann', 'n': 2}]
    """

    __slots__ = ("_raw",)

    def __init__(self, raw: RawKeyedStream) -> None:
        self._raw = raw

    def __repr__(self) -> str:
        """Show the key."""
        return f"<KeyedStream by {', '.join(self.keys)}>"

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Raise an error that names the method of Millstream for one of another library."""
            raise no_attribute(self, name)

    @property
    def keys(self) -> list[str]:
        """The columns of the key.

        Examples
        --------
        >>> mill.from_iter([{"a": 1, "b": 2}]).key_by("a", "b").keys
        ['a', 'b']
        """
        return self._raw.keys()

    @property
    def errors(self) -> Stream:
        """The records that failed in the step before: in ``key_by``, if the key has expressions, else in the step before that.

        The job must run with ``on_error="route"``. The columns are those of :attr:`Stream.errors`.

        Raises
        ------
        PlanError
            When no record can fail in that step.

        Examples
        --------
        >>> keyed = mill.from_iter([{"k": "1"}, {"k": "x"}]).key_by(n=col("k").cast(int))
        >>> [row["record"] for row in keyed.errors.collect(on_error="route").to_pylist()]
        ['{"k":"x"}']
        """
        return Stream(self._raw.stream().errors())

    @property
    def all_errors(self) -> Stream:
        """The records that failed in any step from the sources to this one, with the columns of :attr:`Stream.errors`.

        The job must run with ``on_error="route"``. Errors of the step that uses the key, such as :meth:`agg`, are in
        ``all_errors`` of its result.

        Raises
        ------
        PlanError
            When no record can fail in any of them.

        Examples
        --------
        >>> keyed = mill.from_iter([{"k": "1"}, {"k": "x"}]).with_columns(k=col("k").cast(int)).key_by("k")
        >>> [row["record"] for row in keyed.all_errors.collect(on_error="route").to_pylist()]
        ['{"k":"x"}']
        """
        return Stream(RawStream.all_errors([self._raw.stream()]))

    def agg(self, *aggregates: Expr, emit: Emit = None, **named: Expr) -> Stream:
        """Aggregate the records of each key.

        Parameters
        ----------
        *aggregates
            Aggregates, each named after its column.
        emit
            When results are emitted: ``"end"`` (once for each key, when the input ends), an interval of processing time
            such as
            ``"1s"``, ``"checkpoint"``, or ``"each"`` (after each batch of records, one row for each key that changed). By default
            ``"end"`` for bounded and ``"1s"`` for unbounded input.
        **named
            Aggregates by the name of their column.

        Returns
        -------
        Stream
            The columns of the key, then the aggregates. Unless ``emit`` is ``"end"``, it is an updating stream: a row
            replaces the earlier row of its key.

        Raises
        ------
        SchemaError
            When a column does not exist, or an aggregate does not fit its type.
        PlanError
            When an expression is not an aggregate, two columns have the same name, or ``emit`` is not one of the choices.
        DataError
            When the job runs and a sum does not fit its type; ``on_error`` can skip or route such groups.

        Notes
        -----
        The order of the rows of different keys is not defined; :meth:`Table.sort` makes it the same each time.

        Examples
        --------
        >>> s = mill.from_iter([{"k": "a", "x": 1}, {"k": "a", "x": 4}])
        >>> s.key_by("k").agg(col("x").max(), n=mill.count(), mean=col("x").mean()).collect().to_pylist()
        [{'k': 'a', 'x': 4, 'n': 2, 'mean': 2.5}]
        """
        _check_emit_is_spelled(named)
        name, interval = _emit(emit)
        return Stream(self._raw.agg(_columns(aggregates, named, "agg"), name, interval))

    def reduce(self, function: Callable[[Any, Any], Any], *, emit: Emit = None) -> Stream:
        """Fold the records of each key with a function.

        Parameters
        ----------
        function
            Takes the result so far and the next record, both as :class:`Row`. Returns a record with the same columns. The
            first record of a key is taken as it is.
        emit
            When results are emitted, as for :meth:`agg`.

        Returns
        -------
        Stream
            The columns of the input, with one row for each key.

        Raises
        ------
        PlanError
            When the function cannot be called or is asynchronous, or ``emit`` is not one of the choices.
        UserFunctionError
            When the job runs and the function raises, or its result does not fit the columns.

        Examples
        --------
        >>> s = mill.from_iter([{"k": 1, "x": 2}, {"k": 1, "x": 5}])
        >>> s.key_by("k").reduce(lambda a, b: {"k": a.k, "x": a.x + b.x}).collect().to_pylist()
        [{'k': 1, 'x': 7}]
        """
        check_callable(function, "reduce", "before", "row")
        name, interval = _emit(emit)
        fields = tuple(self._raw.stream().schema().names())
        adapter = FoldAdapter(function, fields)
        return Stream(self._raw.reduce(f"reduce({function_name(function)})", adapter, name, interval))

    def process(
        self,
        function: ProcessFunction,
        *,
        schema: SchemaLike = None,
        side_outputs: Mapping[str, SchemaLike] | None = None,
        broadcast: Stream | KeyedStream | None = None,
    ) -> Stream:
        """Call a function with the records and timers of each key, which keeps state for each key.

        Parameters
        ----------
        function
            A :class:`ProcessFunction`.
        schema
            The columns of the records that it yields; by default those of the annotation of its ``process``.
        side_outputs
            Schemas of other outputs by their names, which ``ctx.side_output(name, row)`` sends to.
            :meth:`Stream.side_output` returns them as streams.
        broadcast
            A stream of which every parallel task gets all records, such as rules that apply to all keys. Of a stream with a
            key, ``rules.key_by("id")`` or an updating stream, the latest row of each key is in ``ctx.broadcast``. Otherwise the
            records are passed to ``process_broadcast(self, row, ctx)``, which writes the states declared with
            ``broadcast=True``; the other methods read these.

        Returns
        -------
        Stream
            The records that the function yields. A result has the event time of its record, or of the timer that it comes
            from.

        Raises
        ------
        PlanError
            When ``function`` is not an object with ``process``, the columns are not known, a state or an output has a name
            that is not possible, or a state expires by event time and the stream has none. When ``broadcast`` is not a
            stream, the function has no ``process_broadcast`` or no broadcast state for it, or the other way round, or a
            broadcast state holds Python objects.
        SchemaError
            When ``schema`` or a side output is not a schema.
        UserFunctionError
            When the job runs and the function raises, or a result does not fit the schema.

        Notes
        -----
        A dict that lacks a column has null there, as for :meth:`Stream.map`. A generator is run to its end before its
        results are passed on, so it has to end, and its results have to fit into memory.

        A timer that is set for a time already passed fires at the next watermark, and its results have the time of the
        watermark before. A timer of processing time has the event time of the record that set it. Late records are passed
        to the function like all others.

        When the input ends, all timers fire at once, those of processing time included, and timers that these set, until
        none is left. A function whose timers always set another one should check ``ctx.is_draining``.

        States are columns of the checkpoint, so :func:`millstream.read_state` shows them. A state that is added to a
        function starts with its default. A state may get a wider type, and a struct more fields, which begin with their values
        in the ``default`` or with None; any other type needs ``migrate=``. If a state was removed, or cannot be converted, the
        run is refused with a list of all differences.

        The records of a broadcast stream reach all tasks in the same order, so broadcast state is the same in all of them, at
        any parallelism. If that stream is bounded, one task reads it, file by file, and the keyed records are read after it has
        ended, so the result does not depend on timing, unless the order of the broadcast records does, as after ``union``. If
        it is not bounded, which of its records a keyed one meets depends on timing. The event time of the step is the earlier one
        of both streams; a broadcast stream without event time that is not bounded does not count. An error in
        ``process_broadcast`` fails the job whatever ``on_error`` is: a record that one task skips and another one does not
        would make them differ.

        Examples
        --------
        >>> class Alert(mill.ProcessFunction):
        ...     last = mill.ValueState(float, default=0.0)
        ...     def process(self, row, ctx):
        ...         ctx.side_output("audit", {"user": ctx.key})
        ...         if row.price > self.last.value * 2:
        ...             yield {"user": ctx.key, "price": row.price}
        ...         self.last.value = row.price
        >>> bids = mill.from_iter([{"user": "ann", "price": price} for price in (1.0, 1.5, 8.0)])
        >>> alerts = bids.key_by("user").process(
        ...     Alert(), schema={"user": str, "price": float}, side_outputs={"audit": {"user": str}}
        ... )
        >>> alerts.collect().to_pylist()
        [{'user': 'ann', 'price': 1.0}, {'user': 'ann', 'price': 8.0}]
        >>> len(alerts.side_output("audit").collect())
        3
        """
        _check_function(function)
        own = type(function)
        if own.process is ProcessFunction.process:
            raise PlanError(f"{own.__name__} does not define process(self, row, ctx)")
        return self._process(function, ("process",), schema, side_outputs, tuple(self.keys), broadcast)

    def _process(
        self,
        function: ProcessFunction,
        methods: tuple[str, ...],
        schema: SchemaLike,
        side_outputs: Mapping[str, SchemaLike] | None,
        keys: tuple[str, ...],
        broadcast: Stream | KeyedStream | None,
    ) -> Stream:
        # Only who uses it pays for it when the package is imported.
        from millstream._process import ProcessAdapter, check_methods, declared_states, side_names

        own = type(function)
        declared = declared_states(function, keys)
        states = {name: state for name, state in declared.items() if not state._is_broadcast}
        of_broadcast = {name: state for name, state in declared.items() if state._is_broadcast}
        side, every = _broadcast_side(function, broadcast, of_broadcast)
        check_methods(function, methods)
        given = returned_schema(getattr(function, methods[0]), is_many=True) if schema is None else schema_of(schema)
        if given is None:
            raise PlanError('process() needs schema=, the columns that its function yields, as in schema={"user": str}')
        sides = {} if side_outputs is None else side_outputs
        side_names(sides)
        outputs = [(name, schema_of(side)._raw) for name, side in sides.items()]
        zone = self._raw.event_time_zone()
        fields = tuple(self._raw.stream().schema().names())
        is_timed = self._raw.stream().has_event_time()
        adapter = ProcessAdapter(function, methods, states, fields, keys, tuple(sides), is_timed, zone, side)
        has_end = own.on_end is not ProcessFunction.on_end
        name = f"process({own.__name__})"
        return Stream(self._raw.process(name, adapter, adapter.used, _declared(states), given._raw, outputs, has_end, every))

    def connect(self, other: KeyedStream) -> ConnectedStreams:
        """Connect two keyed streams, for a process function that shares state between their records.

        Parameters
        ----------
        other
            A stream with as many key columns of the same types; their names may differ. Both streams have an event time, or
            neither has.

        Raises
        ------
        PlanError
            When ``other`` is not a keyed stream, or the types of the keys differ.

        Examples
        --------
        >>> class Priced(mill.ProcessFunction):
        ...     price = mill.ValueState(float)
        ...     waiting = mill.ListState(int)
        ...     def process_left(self, row, ctx):
        ...         if self.price.value is None:
        ...             self.waiting.add(row.n)
        ...         else:
        ...             yield {"item": ctx.key, "total": row.n * self.price.value}
        ...     def process_right(self, row, ctx):
        ...         self.price.value = row.price
        ...         for n in self.waiting:
        ...             yield {"item": ctx.key, "total": n * row.price}
        ...         self.waiting.clear()
        >>> orders = mill.from_iter([{"item": "pen", "n": 3}, {"item": "ink", "n": 1}])
        >>> prices = mill.from_iter([{"what": "pen", "price": 0.5}, {"what": "ink", "price": 4.0}])
        >>> both = orders.key_by("item").connect(prices.key_by("what"))
        >>> totals = both.process(Priced(), schema={"item": str, "total": float}).collect().to_pylist()
        >>> sorted(row["total"] for row in totals)
        [1.5, 4.0]
        """
        if not isinstance(other, KeyedStream):
            raise PlanError(f'connect() takes a keyed stream, as in connect(b.key_by("id")), not {other!r:.200}')
        return ConnectedStreams(self, other)

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
        """Return the first ``n`` rows of each key in an order, with their ``rank`` from 1.

        Parameters
        ----------
        n
            How many rows, at most 10,000. As many are kept as state for each key, or for each key and open window.
        by
            What rows are sorted by: a column, an expression, or several of them.
        descending
            Whether the greatest value comes first; one for all of ``by``, or one for each.
        within
            The windows: :func:`tumbling`, :func:`sliding` or :func:`cumulative`.
        allowed_lateness
            With ``within``: how long after its end a window still accepts records.
        emit
            Without ``within``: when results are emitted, as for :meth:`agg`.

        Returns
        -------
        Stream
            Without ``within``: the columns of the rows and ``rank``. Unless ``emit`` is ``"end"``, it is an updating stream
            by the key and the rank. A row that enters at a rank moves those after it, so the ranks from its own on are
            emitted again.

            With ``within``: the columns of the rows, ``window_start``, ``window_end`` and ``rank``. A window is emitted
            once, when the watermark has passed its end and the allowed lateness. Records that arrive later are in
            ``.late``.

        Raises
        ------
        PlanError
            When an option is not one of its choices, or options exclude each other, such as ``within`` and ``emit``.
        SchemaError
            When a column does not exist, or has no order, such as a list.

        Notes
        -----
        Nulls come last in either direction, and NaN is greater than any number. Of equal rows, the one that arrived first
        has the better rank. Where the order of records is not fixed, as after a ``union``, add a column to ``by`` that
        distinguishes equal rows.

        Examples
        --------
        >>> bids = mill.from_iter([{"item": 1, "who": "ann", "price": 3}, {"item": 1, "who": "bob", "price": 8}])
        >>> bids.key_by("item").top_n(1, by="price").collect().to_pylist()
        [{'item': 1, 'who': 'bob', 'price': 8, 'rank': 1}]
        """
        if not isinstance(n, int) or isinstance(n, bool) or n < 0:
            raise PlanError(f"top_n() takes a number of rows, not {n!r:.200}")
        if not isinstance(by, (str, Expr, list, tuple)):
            raise PlanError(f'top_n() sorts by a column, an expression or several of them, as in by="price", not by {by!r:.200}')
        columns = [by] if isinstance(by, (str, Expr)) else list(by)
        ordering = list(zip(_columns(columns, {}, "top_n"), directions(descending, len(columns), "top_n()", " of by"), strict=True))
        if within is None:
            if allowed_lateness is not None:
                raise PlanError("top_n(): allowed_lateness= needs the windows of within=")
            name, interval = _emit(emit)
            return Stream(self._raw.top_n(n, ordering, name, interval))
        if not isinstance(within, Window):
            raise PlanError(f'top_n(): within is a window such as mill.tumbling("10s"), not {within!r:.200}')
        if emit is not None:
            raise PlanError("top_n(): a window emits its rows once, when it is complete; remove emit= or within=")
        lateness = microseconds("0s" if allowed_lateness is None else allowed_lateness, "allowed_lateness")
        return Stream(self._raw.top_n_within(n, ordering, within._raw(), lateness))

    def deduplicate(self, *, within: Duration | None = None) -> Stream:
        """Pass on the first row of each key as soon as it arrives, and drop the others.

        Parameters
        ----------
        within
            Drop rows whose event time is less than this away, before or after, from a row of their key that was passed on.
            By default all rows of a key but the first are dropped.

        Returns
        -------
        Stream
            The columns of the input. With ``within``, records that are older than the watermark of their split are late:
            they are in ``.late`` and not passed on.

        Raises
        ------
        PlanError
            When ``within`` is not a duration, or is used on a stream without event time.

        Notes
        -----
        Without ``within``, every key is kept as state forever. With ``within``, a key is forgotten once the watermark is
        far enough after its row. Since late records are never passed on, the result does not depend on when that happens.
        Rows are judged in the order in which they arrive.

        Examples
        --------
        >>> s = mill.from_iter([{"id": 1, "x": "a"}, {"id": 2, "x": "b"}, {"id": 1, "x": "c"}])
        >>> s.key_by("id").deduplicate().collect().to_pylist()
        [{'id': 1, 'x': 'a'}, {'id': 2, 'x': 'b'}]
        """
        return Stream(self._raw.deduplicate(None if within is None else microseconds(within, "within")))

    def shift(self, n: int = 1, **columns: str | Expr) -> Stream:
        """Add values of the row of the same key that arrived ``n`` rows before.

        Parameters
        ----------
        n
            How many rows before, at least 1 and at most 10,000. As many values are kept as state for each key.
        **columns
            The new columns: a column or expression of which the earlier value is added, under the name of the argument.

        Returns
        -------
        Stream
            The rows of the input with the new columns, which are null in the first ``n`` rows of each key.

        Raises
        ------
        PlanError
            When ``n`` is not such a number, no column is given, or the input has a column of the same name.
        SchemaError
            When a column does not exist, or cannot be kept as state.

        Notes
        -----
        This is ``pl.col("x").shift(n).over("key")`` of Polars, in the order in which rows arrive, late ones included. Rows of one split of a
        source arrive in its order; between splits the order is not fixed. A later row cannot be looked at, so ``n`` is not negative.
        A row that fails in an expression counts as if it had not arrived.

        Examples
        --------
        >>> prices = mill.from_iter([{"item": "a", "price": 3}, {"item": "b", "price": 8}, {"item": "a", "price": 5}])
        >>> prices.key_by("item").shift(before="price").collect().to_pylist()
        [{'item': 'a', 'price': 3, 'before': None}, {'item': 'b', 'price': 8, 'before': None}, {'item': 'a', 'price': 5, 'before': 3}]
        """
        return Stream(self._raw.shift(_rows_back(n, "shift"), _columns([], columns, "shift")))

    def diff(self, n: int = 1, **columns: str | Expr) -> Stream:
        """Add the difference between a row and the row of the same key that arrived ``n`` rows before.

        Parameters
        ----------
        n
            How many rows before, at least 1 and at most 10,000. As many values are kept as state for each key.
        **columns
            The new columns: a column or expression of numbers, decimals, times or durations, under the name of the argument. The earlier
            value is subtracted from the value of the row.

        Returns
        -------
        Stream
            The rows of the input with the new columns, which are null in the first ``n`` rows of each key and where a value is null.

        Raises
        ------
        PlanError
            When ``n`` is not such a number, no column is given, or the input has a column of the same name.
        SchemaError
            When a column does not exist, or its values have no difference.

        Notes
        -----
        This is ``pl.col("x").diff(n).over("key")`` of Polars, in the order in which rows arrive. The result has the type of ``a - b``. A
        difference that its type does not hold is an error of the row, which ``on_error`` handles; such a row counts as if it had not arrived.

        Examples
        --------
        >>> readings = mill.from_iter([{"meter": 1, "kwh": 3.5}, {"meter": 1, "kwh": 4.0}, {"meter": 2, "kwh": 9.0}])
        >>> readings.key_by("meter").diff(used="kwh").collect().to_pylist()
        [{'meter': 1, 'kwh': 3.5, 'used': None}, {'meter': 1, 'kwh': 4.0, 'used': 0.5}, {'meter': 2, 'kwh': 9.0, 'used': None}]
        """
        return Stream(self._raw.diff(_rows_back(n, "diff"), _columns([], columns, "diff")))

    def rolling(self, length: Duration) -> RollingStream:
        """Look back from each record over a length of event time.

        A record at time ``t`` sees the records of its key in ``(t - length, t]``, those of the same time included. So
        results depend on event time alone, and not on the order of arrival.

        Parameters
        ----------
        length
            How far to look back, more than zero.

        Raises
        ------
        PlanError
            When ``length`` is not a duration above zero, or the stream has no event time.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([{"k": 1, "at": datetime(2024, 1, 1, 0, 0, second)} for second in (0, 4, 9)]).event_time("at")
        >>> counts = s.key_by("k").rolling("6s").agg(n=mill.count())
        >>> [row["n"] for row in counts.collect().to_pylist()]
        [1, 2, 2]
        """
        us = microseconds(length, "length of rolling()")
        if us == 0:
            raise PlanError("the length of rolling() must be more than nothing")
        if not self._raw.stream().has_event_time():
            raise PlanError('rolling() needs event time: call event_time("column", watermark="5s") before key_by()')
        return RollingStream(self._raw, us)

    def window(
        self, window: Window, *, allowed_lateness: Duration = "0s", trigger: Trigger | None = None
    ) -> WindowedStream:
        """Assign the records of each key to windows.

        Parameters
        ----------
        window
            The windows: :func:`tumbling`, :func:`sliding`, :func:`cumulative` and :func:`session` windows are of event
            time, :func:`count_window` is of a number of records, :func:`global_window` is of all records.
        allowed_lateness
            How long after its end a window still accepts records. Its result is emitted after that, unless the trigger says
            how often there are results for late records.
        trigger
            When windows have results besides the one at their end: :func:`on_watermark`, :func:`on_count` or
            :func:`on_processing_time`. The result is then an updating stream.

        Raises
        ------
        PlanError
            When ``window`` or ``trigger`` is not one, ``allowed_lateness`` is not a duration, or windows of time are used
            on a stream without event time.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([{"k": 1, "at": datetime(2024, 1, 1, 0, 0, 7)}]).event_time("at")
        >>> s.key_by("k").window(mill.tumbling("10s")).agg(n=mill.count()).select("window_start", "n").collect().to_pylist()
        [{'window_start': datetime.datetime(2024, 1, 1, 0, 0), 'n': 1}]
        """
        if not isinstance(window, Window):
            verb = "window" if self.keys else "window_all"
            raise PlanError(f'{verb}() takes a window such as mill.tumbling("10s"), not {window!r:.200}')
        check_trigger(trigger)
        early, late = (None, None) if trigger is None else trigger._raw()
        lateness = microseconds(allowed_lateness, "allowed_lateness")
        raw = self._raw.window(window._raw(), lateness, early, late)
        return WindowedStream(raw, self.keys, self._raw.stream().schema().names())


def _rows_back(n: int, verb: str) -> int:
    if not isinstance(n, int) or isinstance(n, bool):
        raise PlanError(f"{verb}() takes a number of rows, not {n!r:.200}; columns are named, as in {verb}(before=\"price\")")
    if n < 0:
        raise PlanError(f"{verb}() looks back, and {n} rows back would be rows that have not arrived")
    return n


class RollingStream:
    """A keyed stream whose records see those of a length of time before them; made by :meth:`KeyedStream.rolling`.

    Examples
    --------
    >>> from datetime import datetime
    >>> s = mill.from_iter([{"k": 1, "at": datetime(2024, 1, 1, 0, 0, second)} for second in (0, 4)]).event_time("at")
    >>> s.key_by("k").rolling("6s").agg(n=mill.count()).schema.names
    ['k', 'at', 'n']
    """

    __slots__ = ("_length", "_raw")

    def __init__(self, raw: RawKeyedStream, length: int) -> None:
        self._raw = raw
        self._length = length

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Raise an error that says where what is looked for is found."""
            raise no_attribute(self, name)

    def agg(self, *aggregates: Expr, **named: Expr) -> Stream:
        """Aggregate, for each record, the records that it sees.

        Parameters
        ----------
        *aggregates
            Aggregates, each named after its column.
        **named
            Aggregates by the name of their column.

        Returns
        -------
        Stream
            One row for each record: its columns, then the aggregates. It is emitted when the watermark has passed the time
            of the record. Records that arrive later than that are in ``.late`` and in no result.

        Raises
        ------
        SchemaError
            When a column does not exist, or an aggregate does not fit its type.
        PlanError
            When an expression is not an aggregate, or two columns have the same name.

        Examples
        --------
        >>> from datetime import datetime
        >>> rows = [{"k": 1, "x": x, "at": datetime(2024, 1, 1, 0, x)} for x in (1, 3, 8)]
        >>> s = mill.from_iter(rows).event_time("at")
        >>> recent = s.key_by("k").rolling("5m").agg(total=col("x").sum())
        >>> [(row["x"], row["total"]) for row in recent.collect().to_pylist()]
        [(1, 1), (3, 4), (8, 8)]
        """
        _check_no_emit(named)
        return Stream(self._raw.rolling(self._length, _columns(aggregates, named, "agg")))


def _declared(states: Mapping[str, State]) -> list[tuple[str, str, RawSchema, str | None, int | None, bool, int, int]]:
    """Return states as the engine declares them."""
    declared = []
    for name, state in states.items():
        columns = [(name + suffix, kind) for suffix, kind in state._types()]
        written = len(columns)
        if state._ttl is not None:
            # Times of one clock mean nothing to the other: under another clock, what is stored counts as written now.
            clock = "@processing" if state._clock == "processing" else ""
            columns.append((f"{name}{clock}@written", data_type(list[int] if state._is_list() else int)))
        is_processing = state._clock == "processing"
        declared.append((name, state.kind, RawSchema(columns), state._shown_default(), state._ttl, is_processing, written, state._migration()))
    return declared


_OP = "__op"
"""The column of what becomes of a row, while an updating stream is broadcast."""


def _broadcast_side(
    function: ProcessFunction, broadcast: Any, states: dict[str, State]
) -> tuple[BroadcastSide, tuple[RawStream, list[Any]]] | tuple[None, None]:
    """Return what a function has of its broadcast stream, and that stream with the columns of its states; None without one."""
    from millstream._process import BroadcastSide

    keys, is_changelog = None, False
    latest = _latest_rows(function, broadcast, list(states))
    if latest is None:
        _check_broadcast(function, broadcast, list(states))
    else:
        broadcast, states, keys, is_changelog = latest
    if broadcast is None:
        return None, None
    zone = broadcast._raw.ungrouped().event_time_zone()
    side = BroadcastSide(states, tuple(broadcast.schema.names), zone, keys, is_changelog=is_changelog)
    return side, (broadcast._raw, _declared(states))


def _latest_rows(
    function: ProcessFunction, broadcast: Any, states: list[str]
) -> tuple[Stream, dict[str, State], tuple[str, ...], bool] | None:
    """Return the stream whose latest rows a function reads, with their state, their keys, and whether deletes are among them."""
    own = type(function)
    has_key = isinstance(broadcast, KeyedStream) or (isinstance(broadcast, Stream) and broadcast.updating_key is not None)
    if not has_key:
        return None
    if states or own.process_broadcast is not ProcessFunction.process_broadcast:
        if isinstance(broadcast, KeyedStream):
            return None
        raise PlanError(
            f"broadcast= is an updating stream, whose latest rows are in ctx.broadcast, and {own.__name__} keeps broadcast state of its "
            "own; leave that out, or pass broadcast=rules.to_changelog()"
        )
    keys = tuple(broadcast.keys) if isinstance(broadcast, KeyedStream) else tuple(broadcast.updating_key)
    stream = Stream(broadcast._raw.stream()) if isinstance(broadcast, KeyedStream) else broadcast.to_changelog(op=_OP)
    is_changelog = not isinstance(broadcast, KeyedStream)
    columns = {name: kind for name, kind in stream.schema.items() if not is_changelog or name != _OP}
    # The engine keeps the rows of all keys as one value, as they are in every task.
    of_rows: Any = list[columns]  # type: ignore[valid-type]
    rows = ValueState(data_type(of_rows), broadcast=True)
    return stream, {"broadcast": rows}, keys, is_changelog


def _check_broadcast(function: ProcessFunction, broadcast: Any, states: list[str]) -> None:
    """Refuse a broadcast stream without a method and states for it, and these without a stream."""
    own = type(function)
    has_method = own.process_broadcast is not ProcessFunction.process_broadcast
    if broadcast is None:
        if states or has_method:
            what = f"declares broadcast state {states[0]!r}" if states else "defines process_broadcast()"
            raise PlanError(f"{own.__name__} {what}, and process() has no broadcast= stream; pass one")
        return
    if isinstance(broadcast, KeyedStream):
        raise PlanError("broadcast= takes a stream without key_by(): every task gets all of its records")
    if not isinstance(broadcast, Stream):
        raise PlanError(f"broadcast= takes a stream, as in process(…, broadcast=rules), not {broadcast!r:.200}")
    if not has_method:
        raise PlanError(f"{own.__name__} does not define process_broadcast(self, row, ctx), which the records of broadcast= are passed to; "
            'for their latest rows in ctx.broadcast pass a stream with a key, as in broadcast=rules.key_by("id")')
    check_callable(function.process_broadcast, "process", "row", "ctx")
    if inspect.isgeneratorfunction(own.process_broadcast):
        raise PlanError(f"process_broadcast() of {own.__name__} yields records, and it emits nothing: every task is called with the record")
    if not states:
        raise PlanError(
            f"{own.__name__} declares no state that process_broadcast() could write; declare one with broadcast=True, as in "
            "rules = mill.MapState(str, float, broadcast=True)"
        )


def _check_function(function: Any) -> None:
    if isinstance(function, type) and issubclass(function, ProcessFunction):
        raise PlanError(f"process() takes an object, and {function.__name__} is a class: write {function.__name__}()")
    if not isinstance(function, ProcessFunction):
        raise PlanError(f"process() takes a mill.ProcessFunction, not {function!r:.200}")
    # Only who uses it pays for it when the package is imported.
    from millstream._process import METHODS

    check_spelling(type(function), ProcessFunction, METHODS)


class ConnectedStreams:
    """Two keyed streams for one process function; made by :meth:`KeyedStream.connect`.

    Examples
    --------
    >>> orders, prices = mill.from_iter([{"item": "pen", "n": 3}]), mill.from_iter([{"what": "pen", "price": 0.5}])
    >>> orders.key_by("item").connect(prices.key_by("what"))
    <ConnectedStreams by item and what>
    """

    __slots__ = ("_left", "_right")

    def __init__(self, left: KeyedStream, right: KeyedStream) -> None:
        of_keys = [[stream._raw.stream().schema().types()[_places(stream)[key]] for key in stream.keys] for stream in (left, right)]
        if of_keys[0] != of_keys[1]:
            raise PlanError(
                f"connect(): the keys {', '.join(left.keys)} are {', '.join(map(repr, of_keys[0]))}, and {', '.join(right.keys)} are "
                f"{', '.join(map(repr, of_keys[1]))}; cast one of them, so that both streams have keys of the same types"
            )
        self._left = left
        self._right = right

    def __repr__(self) -> str:
        """Show the keys."""
        return f"<ConnectedStreams by {', '.join(self._left.keys)} and {', '.join(self._right.keys)}>"

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Raise an error that says where what is looked for is found."""
            raise no_attribute(self, name)

    def process(
        self,
        function: ProcessFunction,
        *,
        schema: SchemaLike = None,
        side_outputs: Mapping[str, SchemaLike] | None = None,
        broadcast: Stream | KeyedStream | None = None,
    ) -> Stream:
        """Call a function with the records of both streams that have the same key; it keeps state for each key.

        Parameters
        ----------
        function
            A :class:`ProcessFunction` with ``process_left(self, row, ctx)`` and ``process_right(self, row, ctx)``.
        schema, side_outputs, broadcast
            As for :meth:`KeyedStream.process`. The names in ``ctx.key`` are those of the left stream.

        Returns
        -------
        Stream
            The records that the function yields.

        Raises
        ------
        PlanError
            When ``function`` is not an object with both methods, only one of the streams has an event time, or a column
            holds Python objects; also as for :meth:`KeyedStream.process`.

        Notes
        -----
        Records of one stream arrive in their order. The order between records of the two streams depends on timing. Event
        time is the earlier one of both streams.

        Examples
        --------
        :meth:`KeyedStream.connect` has a longer example, with records that wait for the other side.

        >>> class Tag(mill.ProcessFunction):
        ...     def process_left(self, row, ctx):
        ...         yield {"key": ctx.key, "side": "left"}
        ...     def process_right(self, row, ctx):
        ...         yield {"key": ctx.key, "side": "right"}
        >>> a, b = mill.from_iter([{"k": 1}]), mill.from_iter([{"k": 1}])
        >>> tags = a.key_by("k").connect(b.key_by("k")).process(Tag(), schema={"key": int, "side": str})
        >>> sorted(tags.collect()["side"])
        ['left', 'right']
        """
        _check_function(function)
        own = type(function)
        for method in ("process_left", "process_right"):
            if getattr(own, method) is getattr(ProcessFunction, method):
                raise PlanError(f"{own.__name__} does not define {method}(self, row, ctx), which the records of that stream are passed to")
        left, right = (side._raw.stream() for side in (self._left, self._right))
        if left.has_event_time() != right.has_event_time():
            which = "right" if left.has_event_time() else "left"
            raise PlanError(f"connect(): the {which} stream has no event time, and the other one has; call event_time() on both, or on neither")
        union = _side(self._left, self._left, self._right, True).union(_side(self._right, self._left, self._right, False))
        keyed = union.key_by(*(f"key.{key}" for key in self._left.keys))
        return keyed._process(function, ("process_left", "process_right"), schema, side_outputs, tuple(self._left.keys), broadcast)


def _places(stream: KeyedStream) -> dict[str, int]:
    return {name: place for place, name in enumerate(stream._raw.stream().schema().names())}


def _side(own: KeyedStream, left: KeyedStream, right: KeyedStream, is_left: bool) -> Stream:
    """Return the records of one stream with the columns of both streams: those of the other one are null."""
    columns: dict[str, Expr] = {f"key.{name}": col(key) for name, key in zip(left.keys, own.keys, strict=True)}
    columns["is_left"] = lit(is_left)
    for prefix, stream in (("left", left), ("right", right)):
        schema = stream._raw.stream().schema()
        for name, kind in zip(schema.names(), schema.types(), strict=True):
            if "object" in repr(kind):
                raise PlanError(
                    f"connect(): column {name!r} is {kind!r}, and connected streams cannot pass on Python objects; convert them to "
                    "plain values"
                )
            columns[f"{prefix}.{name}"] = col(name) if stream is own else lit(None).cast(kind)
    return Stream(own._raw.stream()).select(**columns)


class WindowedStream:
    """A keyed stream whose records are assigned to windows; made by :meth:`KeyedStream.window`.

    Examples
    --------
    >>> s = mill.from_iter([{"k": 1, "x": x} for x in range(4)])
    >>> s.key_by("k").window(mill.count_window(2)).agg(total=col("x").sum()).collect()["total"]
    [1, 5]
    """

    __slots__ = ("_fields", "_keys", "_raw")

    def __init__(self, raw: RawWindowedStream, keys: list[str], fields: list[str]) -> None:
        self._raw = raw
        self._keys = keys
        self._fields = fields

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Raise an error that names the method of Millstream for one of another library."""
            raise no_attribute(self, name)

    def agg(self, *aggregates: Expr, **named: Expr) -> Stream:
        """Aggregate the records of each key and window.

        Parameters
        ----------
        *aggregates
            Aggregates, each named after its column.
        **named
            Aggregates by the name of their column.

        Returns
        -------
        Stream
            The columns of the key, ``window_start`` and ``window_end`` (not included in the window) where the windows have
            bounds, then the aggregates. A window is emitted once, when the watermark has passed its end and the allowed
            lateness, unless there is a trigger. Records that arrive later are in ``.late``.

        Raises
        ------
        SchemaError
            When a column does not exist, or an aggregate does not fit its type.
        PlanError
            When an expression is not an aggregate, two columns have the same name, or ``emit`` is used, which windows do
            not have.

        Notes
        -----
        Aggregates of overlapping windows are combined from those of their panes by the two-stacks method (Tangwongsan,
        Hirzel and Schneider, 2021), with at most five merges for each key and pane, whatever the length of the windows.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([{"k": 1, "at": datetime(2024, 1, 1)}]).event_time("at")
        >>> s.key_by("k").window(mill.tumbling("1h")).agg(n=mill.count()).schema.names
        ['k', 'window_start', 'window_end', 'n']
        """
        _check_no_emit(named)
        return Stream(self._raw.agg(_columns(aggregates, named, "agg")))

    def reduce(self, function: Callable[[Any, Any], Any]) -> Stream:
        """Fold the records of each key and window with a function.

        Parameters
        ----------
        function
            Takes the result so far and the next record, both as :class:`Row`. Returns a record with the same columns.

        Returns
        -------
        Stream
            The columns of the key, ``window_start`` and ``window_end`` where the windows have bounds, then the other
            columns of the input.

        Raises
        ------
        PlanError
            When the function cannot be called, or is asynchronous.
        UserFunctionError
            When the job runs and the function raises, or its result does not fit the columns.

        Notes
        -----
        Records are folded by event time, ties in the order of arrival. Those of a count window are folded as they arrived.

        Examples
        --------
        >>> s = mill.from_iter([{"k": 1, "x": x} for x in (2, 5, 1, 1)])
        >>> pairs = s.key_by("k").window(mill.count_window(2))
        >>> pairs.reduce(lambda a, b: {"k": a.k, "x": a.x * b.x}).collect().to_pylist()
        [{'k': 1, 'x': 10}, {'k': 1, 'x': 1}]
        """
        check_callable(function, "reduce", "before", "row")
        adapter = FoldAdapter(function, tuple(self._fields))
        return Stream(self._raw.reduce(f"reduce({function_name(function)})", adapter))

    def apply(self, function: Callable[[Any, Any, Any], Any], *, schema: SchemaLike = None) -> Stream:
        """Call a function with the records of each key and window.

        Parameters
        ----------
        function
            Takes the key, the window and its records. The key is its value, a :class:`Row` of several columns, or None
            without a key. The window is a :class:`WindowBounds`, or None where it has no bounds. The records are a
            ``pyarrow.RecordBatch``, sorted by event time. It returns a record, an iterable of records, None for none, or
            anything with an Arrow interface. With a trigger, a later result replaces an earlier one, so it returns one
            record or None.
        schema
            The columns that it returns; by default those of its annotation.

        Returns
        -------
        Stream
            The columns of the key, ``window_start`` and ``window_end``, but for those that the function returns itself;
            then the columns that it returns.

        Raises
        ------
        PlanError
            When the function cannot be called or is asynchronous, the columns are not known, or pyarrow is not installed.
        UserFunctionError
            When the job runs and the function raises, or its result does not fit. With ``on_error="skip"`` or ``"route"``
            the window is skipped or routed.

        Notes
        -----
        A dict that lacks a column has null there, as for :meth:`Stream.map`.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([{"k": "a", "x": x, "at": datetime(2024, 1, 1, 0, x)} for x in (1, 2, 40)]).event_time("at")
        >>> def spread(key, window, rows):
        ...     values = rows["x"].to_pylist()
        ...     return {"minutes": (window.end - window.start).seconds // 60, "values": values}
        >>> visits = s.key_by("k").window(mill.session("10m")).apply(spread, schema={"minutes": int, "values": list[int]})
        >>> rows = visits.select("k", "minutes", "values").collect().to_pylist()
        >>> sorted(rows, key=lambda row: row["values"])
        [{'k': 'a', 'minutes': 11, 'values': [1, 2]}, {'k': 'a', 'minutes': 10, 'values': [40]}]
        """
        check_pyarrow("apply")
        check_callable(function, "apply", "key", "window", "rows")
        given = returned_schema(function, is_many=False) if schema is None else schema_of(schema)
        if given is None:
            raise PlanError("apply() needs schema=, the columns that its function returns, as in schema={\"total\": float}")
        adapter = WindowAdapter(function, tuple(self._keys))
        return Stream(self._raw.apply(f"apply({function_name(function)})", adapter, given._raw))
