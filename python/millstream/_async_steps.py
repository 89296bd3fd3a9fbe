"""Asynchronous functions as steps; :class:`millstream.Stream` has all of them."""

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
    """What calls asynchronous functions."""

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
        """Call an ``async def`` function for each record, many at a time; what it returns is a record.

        Parameters
        ----------
        function
            Takes a :class:`Row`, returns a dict, a tuple, a dataclass, or a plain value for a schema of one column.
        schema
            The columns it returns; by default those of its annotation, else those of its first results: for these, the stream
            before is run for a few records when the step is declared.
        capacity
            How many records are in flight in each task at most. Others wait for their turn.
        timeout
            How long a record may take, all tries and pauses together. No try starts after it. None waits for ever.
        ordered
            Whether results come in the order of the records. Without it each comes as soon as it is there.
        retries
            How often a record is tried again after the function has raised.
        retry_on
            The exceptions that are worth another try; any other one fails the record at once.
        backoff, backoff_max
            How long to wait before the second try. Each further pause is twice as long, up to ``backoff_max``. A random part
            of up to a half is taken off.

        Returns
        -------
        Stream
            A result has the event time of its record.

        Raises
        ------
        PlanError
            When the function is no ``async def`` one, or a number or duration is none.
        UserFunctionError
            When the job runs and a record has failed. With ``on_error="skip"`` or ``"route"`` it is left out or routed.

        Notes
        -----
        All asynchronous functions of a process run on one event loop, on a thread of its own. It begins with the first job that
        needs it and stays until the interpreter ends, so a client that is made once serves all jobs. A function that blocks holds
        up all of them.

        A function whose time is up is cancelled. If it goes on nevertheless, because a bare ``except:`` takes the
        cancellation, its record fails a second later.

        Calls in flight delay no checkpoint: their records are part of it, and are called again after a restart. So results are
        exactly once, and the outside world may see a call twice.

        A watermark is passed on as far as no record in flight would be late after it. ``event_time()`` comes before this step.

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
        check_async(function, method, "map")
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
            Takes a ``pyarrow.RecordBatch``, returns one, or a dict of arrays, or anything with an Arrow interface. In a stream
            with event time it returns a row for each record.
        schema
            The columns it returns; by default those it takes. Values are converted as of :meth:`map_batches`.
        batch_rows
            How many records a batch has at most. Batches are cut from frames as these come, so many are smaller.
        capacity
            How many batches are in flight in each task at most.
        timeout, ordered, retries, retry_on, backoff, backoff_max
            As of :meth:`map_async`, for a batch instead of a record.

        Returns
        -------
        Stream
            A result that is row for row has the event times of its records.

        Raises
        ------
        PlanError
            When the function is no ``async def`` one, or a number or duration is none.
        UserFunctionError
            When the job runs and the function raises, or its result does not fit. With ``on_error="skip"`` or ``"route"`` the
            records of the batch are left out or routed; of a result that is row for row only those that don't fit.

        Notes
        -----
        What is said of :meth:`map_async` holds here: the event loop, what a checkpoint has, and watermarks.

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
        check_async(function, method, "map_batches")
        in_flight, in_order = checked_capacity(method, capacity), checked_ordered(method, ordered)
        size = checked_batch_rows(method, batch_rows)
        policy = checked_policy(method, timeout, retries, retry_on, backoff, backoff_max)
        stream = cast("Stream", self)
        given = stream.schema if schema is None else schema_of(schema)
        name = f"{method}({function_name(function)})"
        adapter = AsyncBatchAdapter(functools.partial(policy.call, function))
        return Stream(stream._raw.map_async(name, adapter, given._raw, in_flight, size, in_order))
