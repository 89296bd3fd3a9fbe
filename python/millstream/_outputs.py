"""Where a stream goes: sinks, tables, and pictures of its plan."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from millstream.functions import check_callable, check_pyarrow
from millstream.time import Duration

if TYPE_CHECKING:
    from millstream._graph import Graph
    from millstream.expr import Expr
    from millstream.io.kafka import KafkaDelivery, KafkaFormat
    from millstream.io.sinks import OnExisting, Sink
    from millstream.options import OnError
    from millstream.stream import Stream
    from millstream.table import Table

__all__ = ["Outputs"]


class Outputs:
    """What ends a stream; :class:`millstream.Stream` has all of it."""

    __slots__ = ()

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

        return sinks.file_sink(_stream(self), "csv", path, on_existing)

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

        return sinks.file_sink(_stream(self), "json", path, on_existing)

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

        return sinks.file_sink(_stream(self), "parquet", path, on_existing)

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

        Notes
        -----
        Values are stored exactly, or the job fails with an error that names the column. Decimals, dates, times and durations
        are text. A column of SQLite's type ``REAL`` has one zero, and so stores ``-0.0`` as ``0.0``. It has no NaN, for which
        null is stored; a keyed table refuses a NaN key that would share its row with a null key. It has no whole numbers above 9223372036854775807: cast such a column to ``str``.

        Several jobs, and several sinks of a job, may write one table. What was applied is noted in the table
        ``_millstream`` of the same database. A job refuses to go on if its database was lost or put back from a copy that
        is older than its checkpoint.

        The table may be read while the job runs, and shows whole commits: from other processes and, on Linux, from this one
        with Python's ``sqlite3``.

        Examples
        --------
        >>> sink = mill.from_iter([{"k": 1}]).write_sqlite("out.db", "rows", key="k")
        """
        from millstream.io import sinks

        return sinks.sqlite_sink(_stream(self), path, table, [key] if isinstance(key, str) else key)

    def write_kafka(
        self,
        brokers: str | Sequence[str],
        topic: str,
        *,
        format: KafkaFormat,
        key: str | Sequence[str] | Expr | None = None,
        partition: str | Expr | None = None,
        headers: str | Expr | None = None,
        timestamp: str | Expr | None = None,
        delivery: KafkaDelivery | None = None,
        options: Mapping[str, str | float] | None = None,
    ) -> Sink:
        """Write messages into a Kafka topic.

        Parameters
        ----------
        brokers
            ``"host:port"``, or several.
        topic
            The topic, which has to exist.
        format
            ``"json"``: the value is a JSON object of the columns, as :meth:`write_json` writes a line. ``"raw"``: the value is the column
            ``value``, text or bytes, and the key the column ``key`` if there is one.
        key
            The key of the messages: a column of text or bytes as it is, any other as JSON, several as a JSON object; or an expression.
            With it an updating stream is taken: where a key goes, a message without a value is sent, which deletes it in a
            compacted topic.
        partition
            The partition, a whole number; by default it follows from the key.
        headers
            A map of text, a struct, or a list of structs with ``key`` and ``value``.
        timestamp
            The time of the messages; by default the time at which they are sent.
        delivery
            ``"exactly_once"``, ``"at_least_once"``, or None for what the job promises.
        options
            Options of librdkafka, by its names.

        Notes
        -----
        Exactly once: the messages of a checkpoint are sent after it, in one transaction, together with a note of which checkpoint
        it was, which the cluster keeps as the offset of a consumer group of the sink's own. After a restart the note says what has
        to be sent. Consumers have to read with ``isolation.level=read_committed``.

        At least once, and in a job without a checkpoint: messages are sent as they come, and a checkpoint waits until the
        cluster has them.

        An argument that is an expression is no part of the value; a column that is named is.

        Examples
        --------
        >>> counts = mill.from_iter([{"word": "a", "n": 1}])
        >>> counts.write_kafka("localhost:9092", "counts", format="json", key="word")
        <Sink write_kafka("counts")>
        """
        from millstream.io import kafka

        columns = {"partition": partition, "headers": headers, "timestamp": timestamp}
        return kafka.kafka_sink(_stream(self), brokers, topic, format, key, columns, delivery, options)

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

        return sinks.callback_sink(_stream(self), function, is_batch=False)

    def for_each_batch(self, function: Callable[[Any], object]) -> Sink:
        """Call a function for each frame, a ``pyarrow.RecordBatch``; after a crash some are given again.

        Examples
        --------
        >>> rows = []
        >>> report = mill.run(mill.from_iter([1, 2]).for_each_batch(lambda batch: rows.append(batch.num_rows)))
        >>> sum(rows)
        2
        """
        check_pyarrow("for_each_batch")
        check_callable(function, "for_each_batch")
        from millstream.io import sinks

        return sinks.callback_sink(_stream(self), function, is_batch=True)

    def print(self) -> Sink:
        """Print each record.

        Examples
        --------
        >>> report = mill.run(mill.from_iter([1]).print())
        Row(value=1)
        """
        from millstream.io import sinks

        return sinks.print_sink(_stream(self))

    def sink_to(self, sink: Sink) -> Sink:
        """Write into a sink of your own; see :class:`Sink`."""
        from millstream.io import sinks

        return sinks.custom_sink(_stream(self), sink)

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
        >>> len(mill.generate(rows=10**6).collect(limit=2))
        2
        """
        from millstream.job import collect

        return collect(_stream(self), limit, until=until, parallelism=parallelism, on_error=on_error)

    def iter_batches(
        self,
        *,
        until: Duration | None = None,
        parallelism: int | None = None,
        on_error: OnError = "fail",
    ) -> Iterator[Any]:
        """Run the stream and give its records batch by batch, as ``pyarrow.RecordBatch``.

        A consumer that is slower than the job holds the job back; one that stops ends it. Of an updating stream these are
        all rows as they come, not the latest of each key.

        Raises
        ------
        PlanError
            When rows of an updating stream may withdraw their key, which a batch does not show: put ``to_changelog()``
            before.

        Examples
        --------
        >>> sum(batch.num_rows for batch in mill.generate(rows=1000).iter_batches())
        1000
        """
        check_pyarrow("iter_batches")
        from millstream.errors import PlanError
        from millstream.job import iter_batches

        if _stream(self)._raw.withdraws():
            raise PlanError(
                "iter_batches() cannot show which rows of an updating stream are withdrawn; put to_changelog() before it, for "
                "a column that says what happens to each row, or use collect() for the latest row of each key"
            )
        return iter_batches(_stream(self), until=until, parallelism=parallelism, on_error=on_error)

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
        print(self.collect(limit=rows, until=None if _stream(self).is_bounded else "10s"))

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

        return graph_of_stream(_stream(self), parallelism=parallelism)

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

        return explain_stream(_stream(self), parallelism=parallelism)


def _stream(outputs: Outputs) -> Stream:
    """Give the stream that something with outputs is."""
    return cast("Stream", outputs)
