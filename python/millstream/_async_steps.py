"""Steps that call asynchronous functions; :class:`millstream.Stream` has all of them."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

from millstream._call_options import (
    BACKOFF,
    BACKOFF_MAX,
    BATCH_ROWS,
    BATCHES_IN_FLIGHT,
    RetryOn,
    checked_batch_rows,
    checked_capacity,
    checked_ordered,
    checked_policy,
)
from millstream.functions import check_async, check_pyarrow, function_name
from millstream.time import Duration
from millstream.types import SchemaLike, schema_of

if TYPE_CHECKING:
    from millstream.stream import Stream

__all__ = ["AsyncSteps"]


class AsyncSteps:
    """Methods that call asynchronous functions; :class:`millstream.Stream` has all of them."""

    __slots__ = ()

    def map_async(
        self,
        function: Callable[[Any], Awaitable[Any]],
        *,
        schema: SchemaLike = None,
        capacity: int = 100,
        timeout: Duration | None = None,
        ordered: bool = True,
        retries: int = 0,
        retry_on: RetryOn = Exception,
        backoff: Duration = BACKOFF,
        backoff_max: Duration = BACKOFF_MAX,
    ) -> Stream:
        """Call an ``async def`` function for each record, many at a time; what it returns is the new record.

        Parameters
        ----------
        function
            Takes a :class:`Row`. Returns a dict, a tuple, a dataclass, or a plain value for a schema of one column.
        schema
            The columns that it returns. By default they are taken from its annotation, or else inferred from its first
            results: for this, the stream before the step is run for up to 100 records when the step is declared.
        capacity
            How many records are in flight in each task at most. Others wait for their turn.
        timeout
            How long a record may take, all attempts and pauses together. No attempt starts after it. None waits forever.
        ordered
            Whether results are in the order of the records. Otherwise each result is emitted as soon as it is available.
        retries
            How many times a record is tried again after the function has raised.
        retry_on
            The exceptions after which a record is tried again. Any other exception fails the record at once.
        backoff, backoff_max
            The pause before the second attempt. Each further pause is twice as long, up to ``backoff_max``. A random part
            of up to a half is subtracted from it.

        Returns
        -------
        Stream
            The records that the function returns. A result has the event time of its record.

        Raises
        ------
        PlanError
            When the function is not an ``async def`` one, or an option is out of range.
        SchemaError
            When the columns are neither declared nor annotated and cannot be inferred.
        UserFunctionError
            When the job runs and a record has failed; ``on_error`` can skip or route such records.

        Notes
        -----
        All asynchronous functions of a process run on one event loop, in its own thread. The loop starts with the first job
        that needs it and runs until the interpreter ends, so a client that is created once serves all jobs. A function that
        blocks delays all of them.

        A function whose time is up is cancelled. If it continues nevertheless, because a bare ``except:`` catches the
        cancellation, its record fails a second later.

        Calls in flight do not delay a checkpoint: their records are part of it, and are called again after a restart. So
        results are exactly once, and the outside world may see a call twice.

        A watermark is passed on as far as no record in flight would be late after it. Call ``event_time()`` before this
        step.

        Examples
        --------
        >>> import asyncio
        >>> async def ask(row):
        ...     await asyncio.sleep(0.001)
        ...     return {"id": row.id, "length": len(row.text)}
        >>> s = mill.from_iter([{"id": 1, "text": "to be"}, {"id": 2, "text": "or not"}])
        >>> s.map_async(ask, capacity=10, timeout="5s", retries=3).collect().to_pylist()
        [{'id': 1, 'length': 5}, {'id': 2, 'length': 6}]
        """
        # Only who uses it pays for asyncio when the package is imported.
        from millstream._async import AsyncAdapter, outcomes
        from millstream.stream import Stream

        method = "map_async"
        check_async(function, method, "map", "row")
        in_flight, in_order = checked_capacity(method, capacity), checked_ordered(method, ordered)
        policy = checked_policy(method, timeout, retries, retry_on, backoff, backoff_max)
        stream = cast("Stream", self)
        called = functools.partial(outcomes, functools.partial(policy.call, function), capacity=in_flight)
        given = stream._given(function, schema, method, is_many=False, outcomes=called)
        adapter = AsyncAdapter(function, tuple(stream.schema.names), policy)
        name = f"{method}({function_name(function)})"
        return Stream(stream._raw.map_async(name, adapter, given._raw, in_flight, None, in_order))

    def map_batches_async(
        self,
        function: Callable[[Any], Awaitable[Any]],
        *,
        schema: SchemaLike = None,
        batch_rows: int = BATCH_ROWS,
        capacity: int = BATCHES_IN_FLIGHT,
        timeout: Duration | None = None,
        ordered: bool = True,
        retries: int = 0,
        retry_on: RetryOn = Exception,
        backoff: Duration = BACKOFF,
        backoff_max: Duration = BACKOFF_MAX,
    ) -> Stream:
        """Call an ``async def`` function for batches of records, several at a time.

        Parameters
        ----------
        function
            Takes a ``pyarrow.RecordBatch``. Returns one, or a dict of arrays, or anything with an Arrow interface. In a
            stream with event time, it returns one row for each record.
        schema
            The columns that it returns; by default those that it takes. Values are converted as for :meth:`map_batches`.
        batch_rows
            How many records a batch has at most. Batches are cut from frames as these arrive, so many are smaller.
        capacity
            How many batches are in flight in each task at most.
        timeout, ordered, retries, retry_on, backoff, backoff_max
            As for :meth:`map_async`, for a batch instead of a record.

        Returns
        -------
        Stream
            The rows that the function returns. If there is one row for each record, it has the event time of its record.

        Raises
        ------
        PlanError
            When the function is not an ``async def`` one, an option is out of range, or pyarrow is not installed.
        SchemaError
            When ``schema`` is not a schema.
        UserFunctionError
            When the job runs and the function raises, or its result does not fit. With ``on_error="skip"`` or ``"route"``,
            the records of the batch are skipped or routed. If the result has one row for each record, only the rows that do
            not fit are.

        Notes
        -----
        The notes of :meth:`map_async` apply, on the event loop, checkpoints and watermarks.

        Examples
        --------
        >>> import pyarrow.compute as pc
        >>> async def half(batch):
        ...     return {"half": pc.divide(batch["value"], 2.0)}
        >>> s = mill.from_iter([1.0, 2.0, 3.0])
        >>> s.map_batches_async(half, schema={"half": float}, batch_rows=2).collect().to_pylist()
        [{'half': 0.5}, {'half': 1.0}, {'half': 1.5}]
        """
        from millstream._async import AsyncBatchAdapter
        from millstream.stream import Stream

        method = "map_batches_async"
        check_pyarrow(method)
        check_async(function, method, "map_batches", "batch")
        in_flight, in_order = checked_capacity(method, capacity), checked_ordered(method, ordered)
        size = checked_batch_rows(method, batch_rows)
        policy = checked_policy(method, timeout, retries, retry_on, backoff, backoff_max)
        stream = cast("Stream", self)
        given = stream.schema if schema is None else schema_of(schema)
        name = f"{method}({function_name(function)})"
        adapter = AsyncBatchAdapter(functools.partial(policy.call, function))
        return Stream(stream._raw.map_async(name, adapter, given._raw, in_flight, size, in_order))
