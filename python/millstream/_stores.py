"""Sinks of stores and services that are reached by packages of Python."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from millstream.time import Duration

if TYPE_CHECKING:
    from millstream.io._table_sink import TableMode
    from millstream.io.http import HttpFormat, HttpMethod
    from millstream.io.sinks import Output
    from millstream.stream import Stream

__all__ = ["Stores"]


class Stores:
    """Methods that write into stores and services; :class:`millstream.Stream` has all of them."""

    __slots__ = ()

    def write_delta(
        self,
        path: str | os.PathLike[str],
        *,
        mode: TableMode = "append",
        key: str | Sequence[str] | None = None,
        partition_by: str | Sequence[str] = (),
    ) -> Output:
        """Write into a Delta Lake table.

        Parameters
        ----------
        path
            The directory of the table. A table that does not exist is created when the job starts.
        mode
            ``"append"`` adds rows. ``"overwrite"`` replaces the whole table in one transaction when the job ends; the stream must be bounded
            and the job must have no checkpoints.
        key
            A column or several. With a key a row replaces the row that has the same key, and an updating stream is accepted: where a key is
            deleted, its row is.
        partition_by
            The columns that partition the table, if it is created: text, whole numbers, booleans or dates. A table that exists is written
            as it is partitioned.

        Returns
        -------
        Output
            What :func:`run` and :func:`start` take.

        Raises
        ------
        PlanError
            When the package ``deltalake`` is not installed (``pip install millstream[delta]``), an option is not one of its choices, options
            contradict each other, or this is an updating stream and ``key`` is not its key.
        SchemaError
            When a column is named that does not exist, Delta Lake has no exact type for a column, or the table exists and has no such
            column, one that does not hold every value, or a rule that this sink does not keep to.
        ConnectorError
            When the job runs and the table cannot be written; when a value cannot be stored exactly, is null in a ``NOT NULL`` column or in the
            key, or is an empty text in a partition column (its ``__cause__`` is a :class:`DataError`); and when the table was lost, replaced, or
            restored from a backup that is older than the checkpoint that the run continues from (a :class:`CheckpointError`).

        Notes
        -----
        Exactly once: each checkpoint with new rows is one transaction of the table, which also has the number of the checkpoint (an
        application transaction, ``txn``). After a crash the table shows whether it was written. Appended rows are in data files
        before the checkpoint, which no reader sees before the transaction; rows with a key are in the checkpoint, and are merged after it.

        Unsigned integers are stored as the next larger signed type, 64-bit ones as ``decimal(20,0)``; times as microseconds, in UTC if they
        have a zone. Nanoseconds, durations and times of day are an error: convert them first.

        Examples
        --------
        >>> counts = mill.from_iter(["a", "b", "a"]).key_by("value").agg(n=mill.count(), emit="each")
        >>> report = mill.run(counts.write_delta("lake/counts", key="value"))
        >>> sorted(mill.read_delta("lake/counts").collect().to_pylist(), key=lambda row: row["value"])
        [{'value': 'a', 'n': 2}, {'value': 'b', 'n': 1}]
        """
        from millstream.io import _delta_sink

        return _delta_sink.delta_sink(_stream(self), path, mode, key, partition_by)

    def write_http(
        self,
        url: str,
        *,
        batch_rows: int = 1000,
        headers: Mapping[str, str] | None = None,
        method: HttpMethod = "POST",
        format: HttpFormat = "json",
        timeout: Duration = "30s",
        retry: Duration = "1m",
    ) -> Output:
        """Send records to an HTTP service, such as a webhook.

        Parameters
        ----------
        url
            ``"https://example.com/hook"``. Messages, plans and checkpoints show its host alone.
        batch_rows
            How many records a request has at most.
        headers
            Headers to add, such as ``{"Authorization": "Bearer …"}``. Their values are shown and stored nowhere.
        method
            ``"POST"``, ``"PUT"`` or ``"PATCH"``.
        format
            ``"json"``: the body is an array of objects. ``"ndjson"``: it has an object in each line. Values have the form in which
            :meth:`write_json` writes them.
        timeout
            How long a request may take, without an answer or a part of one.
        retry
            For how long a request is repeated that was not taken.

        Returns
        -------
        Output
            What :func:`run` and :func:`start` take.

        Raises
        ------
        PlanError
            When an argument is not of its type or not one of its choices, or this is an updating stream.
        ConnectorError
            When the job runs and the service cannot be reached, does not take a request within ``retry``, or refuses it: with any answer
            from 300 to 499 other than 408, 425 and 429. The message has the first line of the answer.

        Notes
        -----
        Exactly once if the receiver honours the header ``Idempotency-Key``, at least once if it does not: the records of a checkpoint are sent
        after it, and after a crash all its requests are sent again, byte for byte and with the same keys. A receiver that has
        seen a key ignores the request and answers with success.

        A request is sent again after 408, 425, 429, any answer from 500 on, and a connection that was lost, with growing pauses or after
        the time that ``Retry-After`` asks for. Requests are sent one after the other on one connection.

        Examples
        --------
        >>> alerts = mill.from_iter([{"user": "ann", "score": 0.9}])
        >>> alerts.write_http("https://example.com/hook", headers={"Authorization": "Bearer 1234"})
        <Sink write_http("https://example.com"), exactly once if the receiver honours Idempotency-Key>
        """
        from millstream.io import http

        return http.http_sink(_stream(self), url, batch_rows, headers, method, format, timeout, retry)

    def write_iceberg(
        self,
        table: str,
        *,
        catalog: str | Mapping[str, str],
        mode: TableMode = "append",
        key: str | Sequence[str] | None = None,
        partition_by: str | Sequence[str] = (),
    ) -> Output:
        """Write into an Apache Iceberg table.

        Parameters
        ----------
        table
            The name of the table with its namespace: ``"shop.orders"``. A table that does not exist is created when the job starts.
        catalog
            The name of a catalog that pyiceberg is configured with (in ``.pyiceberg.yaml`` or by environment variables), or its properties,
            such as ``{"type": "sql", "uri": "sqlite:///catalog.db", "warehouse": "lake"}``. Its type is ``sql``, ``rest``, ``hive`` or ``glue``.
            The property ``"name"`` is the name of the catalog.
        mode
            ``"append"`` adds rows. ``"overwrite"`` replaces the whole table in one transaction when the job ends; the stream must be bounded
            and the job must have no checkpoints.
        key
            A column or several. With a key a row replaces the row that has the same key, and an updating stream is accepted: where a key is
            deleted, its row is.
        partition_by
            How the table is partitioned, if it is created: by columns (text, whole numbers, booleans, dates or timestamps), or by transforms of
            them: ``"year(at)"``, ``"month(at)"``, ``"day(at)"``, ``"hour(at)"``, ``"bucket(16, id)"``, ``"truncate(4, name)"``. A table that
            exists is written as it is partitioned.

        Returns
        -------
        Output
            What :func:`run` and :func:`start` take.

        Raises
        ------
        PlanError
            When the package ``pyiceberg`` is not installed (``pip install millstream[iceberg]``), it knows no such catalog or cannot commit by it, an
            option is not one of its choices, options contradict each other, or this is an updating stream and ``key`` is not its key.
        SchemaError
            When a column is named that does not exist, Iceberg has no exact type for a column, or the table exists and has no such
            column, one that does not hold every value, other partitions, or another version of the format than 2.
        ConnectorError
            When the catalog cannot be reached; when the job runs and the table cannot be written; when a value cannot be stored exactly, or
            is null in a required column or in the key (its ``__cause__`` is a :class:`DataError`); and when the table was lost, replaced, or
            rolled back to before output that the checkpoint knows (a :class:`CheckpointError`).

        Notes
        -----
        Exactly once: each checkpoint with new rows is one commit of the table, which also sets a property of the table to the number of the
        checkpoint. The commit takes effect only if the table still has the snapshot that was read; else the sink reads the table and that
        property again. Appended rows are in data files before the checkpoint, which no reader sees before the commit; rows with a key are in
        the checkpoint, and the files that have their keys are rewritten after it.

        Small integers are stored as ``int``, unsigned ones as the next larger type, 64-bit ones as ``decimal(20, 0)``; times as microseconds,
        in UTC if they have a zone. Nanoseconds and durations are an error: convert them first.

        Examples
        --------
        >>> lake = {"type": "sql", "uri": "sqlite:///catalog.db", "warehouse": "lake"}
        >>> counts = mill.from_iter(["a", "b", "a"]).key_by("value").agg(n=mill.count(), emit="each")
        >>> report = mill.run(counts.write_iceberg("shop.counts", catalog=lake, key="value"))
        >>> sorted(mill.read_iceberg("shop.counts", catalog=lake).collect().to_pylist(), key=lambda row: row["value"])
        [{'value': 'a', 'n': 2}, {'value': 'b', 'n': 1}]
        """
        from millstream.io import _iceberg_sink

        return _iceberg_sink.iceberg_sink(_stream(self), table, catalog, mode, key, partition_by)

    def write_redis(
        self,
        url: str,
        *,
        stream: str | None = None,
        hash: str | None = None,
        key: str | Sequence[str] | None = None,
        maxlen: int | None = None,
    ) -> Output:
        """Write into a stream or into hashes of a Redis server.

        Parameters
        ----------
        url
            ``"redis://user:password@localhost:6379/0"``, ``rediss://`` for TLS, or ``unix://``. It is shown nowhere.
        stream
            The name of a stream, to which each record is added as an entry whose fields are its columns.
        hash
            What the keys of hashes begin with, such as ``"user:"``. Each row is a hash, whose fields are its columns.
        key
            The column, or several, that name the hash of a row, for ``hash``. An updating stream is accepted: where a key is deleted, the fields
            of its hash are.
        maxlen
            How many entries of a stream are kept, about (``MAXLEN ~``); by default all.

        Returns
        -------
        Output
            What :func:`run` and :func:`start` take.

        Raises
        ------
        PlanError
            When the package ``redis`` is not installed (``pip install millstream[redis]``), an argument is not of its type, not exactly one of
            ``stream`` and ``hash`` is given, or this is an updating stream and ``key`` is not its key.
        SchemaError
            When a key column does not exist, or a column has values without a text.
        ConnectorError
            When the job runs and the server cannot be reached (a commit is tried for a minute), refuses a command, or has a key of another type;
            when a value of the key, or all values of an entry, are null; and when the server has lost what the checkpoint knows to be committed.

        Notes
        -----
        Exactly once: the rows of a checkpoint are written after it, by a script that the server runs as a whole and that also keeps the
        number of the checkpoint, in the hash ``_millstream:epochs``. After a crash it shows what has to be written. A server that
        loses what it has confirmed (without ``appendfsync always`` it may, when it crashes) is noticed, and the job fails.

        Values are text as :meth:`write_json` writes them, without quotes; lists, structs and maps are JSON. A null field is left out of
        an entry, and removed from a hash. Other fields of a hash, and its time to live, stay as they are.

        Examples
        --------
        >>> clicks = mill.from_iter([{"user": "ann", "page": "/"}])
        >>> clicks.write_redis("redis://localhost:6379/0", stream="clicks", maxlen=100_000)
        <Sink write_redis(stream="clicks")>
        """
        from millstream.io import redis

        return redis.redis_sink(_stream(self), url, stream, hash, key, maxlen)


def _stream(stores: Stores) -> Stream:
    """Return the stream that this mixin is part of."""
    return cast("Stream", stores)
