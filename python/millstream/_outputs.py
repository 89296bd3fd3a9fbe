"""What ends a stream: sinks, tables, and pictures of its plan."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from millstream._counts import count
from millstream._stores import Stores
from millstream.functions import check_callable, check_pyarrow
from millstream.time import Duration

if TYPE_CHECKING:
    from millstream._graph import Graph
    from millstream._writing import ArrowCompression, OnExisting, ParquetCompression, TextCompression
    from millstream.expr import Expr
    from millstream.io.kafka import KafkaDelivery, KafkaFormat
    from millstream.io.postgres import PostgresVia
    from millstream.io.sinks import Output, Sink
    from millstream.options import OnError
    from millstream.stream import Stream
    from millstream.table import Table

__all__ = ["Outputs"]


class Outputs(Stores):
    """Methods that end a stream; :class:`millstream.Stream` has all of them."""

    __slots__ = ()

    # -- sinks -------------------------------------------------------------------------------------------------------

    def write_csv(
        self,
        path: str | os.PathLike[str],
        *,
        include_header: bool = True,
        separator: str = ",",
        quote_char: str = '"',
        null_value: str | None = None,
        datetime_format: str | None = None,
        date_format: str | None = None,
        time_format: str | None = None,
        decimal_comma: bool = False,
        compression: TextCompression | None = None,
        compression_level: int | None = None,
        partition_by: str | Sequence[str] | None = None,
        max_rows_per_file: int | None = None,
        approximate_bytes_per_file: int | None = None,
        on_existing: OnExisting = "refuse",
    ) -> Output:
        """Write CSV files.

        Parameters
        ----------
        path
            The directory, which is created if it does not exist, or a prefix in an object store, such as
            ``"s3://bucket/out/"``; or one file, if its name ends with ``.csv``, ``.tsv`` or ``.txt``, and ``.gz`` or ``.zst``
            after that. A ``.tsv`` file needs ``separator="\\t"``. ``"-"`` is standard output: rows appear as they come, and a
            reader that has enough ends the job.
        include_header
            Whether the first row of each file names the columns.
        separator
            The character between fields.
        quote_char
            The character that encloses fields that need it; two of them stand for one inside.
        null_value
            What is written for null; by default nothing. A value that is this text fails the job.
        datetime_format, date_format, time_format
            The form of timestamps, dates and times of day, as in ``"%d.%m.%Y"``; by default ISO 8601.
        decimal_comma
            Whether floats and decimals have a comma in place of the point. The separator must be another character.
        compression
            ``"gzip"`` or ``"zstd"``, which is added to the names of the files; by default as the extension of the file says, or
            ``"uncompressed"``.
        compression_level
            0 to 9 for gzip, 1 to 22 for zstd.
        partition_by
            Columns whose values name directories ``key=value``, and which are not in the files. ``hive_partitioning`` of the
            readers makes columns of them again.
        max_rows_per_file
            How many rows a file has at most.
        approximate_bytes_per_file
            After how many bytes a file is complete. It is looked at after each frame, so a file may be larger by that.
        on_existing
            What a run that starts from nothing does with output of earlier runs: ``"refuse"`` raises an error, ``"replace"``
            removes files in a directory first, and replaces one file when the new one is complete.

        Returns
        -------
        Output
            What :func:`run` and :func:`start` take.

        Raises
        ------
        PlanError
            When an option is not one of its choices, options contradict each other, this is an updating stream, the path has the
            ending of another format or compression, or one file is asked for of an input that has no end.
        SchemaError
            When a column is named that does not exist, or has a type that CSV cannot hold, such as a list.
        ConnectorError
            When the job runs and files cannot be written, or there is output of earlier runs.

        Notes
        -----
        Files are hidden until a checkpoint, or the end of the job, commits them. One file appears once the input has ended: it
        is written by one task, in parts, in a directory next to it, if there are checkpoints.

        Times are written as ISO 8601, null as an empty field, and empty text as ``""``.

        Examples
        --------
        >>> report = mill.run(mill.from_iter([{"a": 1}]).write_csv("out/"))
        >>> mill.read_csv("out/").collect().to_pylist()
        [{'a': 1}]
        >>> from pathlib import Path
        >>> report = mill.run(mill.from_iter([{"a": 1.5}]).write_csv("one.csv", separator=";", decimal_comma=True))
        >>> Path("one.csv").read_text()
        'a\\n1,5\\n'
        """
        from millstream._writing import writing
        from millstream.io import sinks

        options = writing(
            "write_csv",
            on_existing=on_existing,
            compression=compression,
            compression_level=compression_level,
            partition_by=partition_by,
            max_rows_per_file=max_rows_per_file,
            approximate_bytes_per_file=approximate_bytes_per_file,
            include_header=include_header,
            separator=separator,
            quote_char=quote_char,
            null_value=null_value,
            decimal_comma=decimal_comma,
            datetime_format=datetime_format,
            date_format=date_format,
            time_format=time_format,
        )
        return sinks.file_sink(_stream(self), "csv", path, options)

    def write_json(
        self,
        path: str | os.PathLike[str],
        *,
        compression: TextCompression | None = None,
        compression_level: int | None = None,
        partition_by: str | Sequence[str] | None = None,
        max_rows_per_file: int | None = None,
        approximate_bytes_per_file: int | None = None,
        on_existing: OnExisting = "refuse",
    ) -> Output:
        """Write JSON files with one record in each line.

        Parameters
        ----------
        path
            The directory, which is created if it does not exist, or a prefix in an object store, such as
            ``"s3://bucket/out/"``; or one file, if its name ends with ``.json``, ``.jsonl`` or ``.ndjson``, and ``.gz`` or
            ``.zst`` after that. ``"-"`` is standard output, as for :meth:`write_csv`.
        compression, compression_level, partition_by, max_rows_per_file, approximate_bytes_per_file, on_existing
            As for :meth:`write_csv`.

        Returns
        -------
        Output
            What :func:`run` and :func:`start` take.

        Raises
        ------
        PlanError
            When an option is not one of its choices, options contradict each other, this is an updating stream, the path has the
            ending of another format or compression, or one file is asked for of an input that has no end.
        SchemaError
            When a column is named that does not exist, or has a type that JSON cannot hold.
        ConnectorError
            When the job runs and files cannot be written, or there is output of earlier runs.

        Notes
        -----
        Files are hidden until a checkpoint, or the end of the job, commits them. One file appears once the input has ended: it
        is written by one task, in parts, in a directory next to it, if there are checkpoints.

        Examples
        --------
        >>> report = mill.run(mill.from_iter([{"a": [1, 2]}]).write_json("out/"))
        >>> mill.read_json("out/").collect().to_pylist()
        [{'a': [1, 2]}]
        """
        from millstream._writing import writing
        from millstream.io import sinks

        options = writing(
            "write_json",
            on_existing=on_existing,
            compression=compression,
            compression_level=compression_level,
            partition_by=partition_by,
            max_rows_per_file=max_rows_per_file,
            approximate_bytes_per_file=approximate_bytes_per_file,
        )
        return sinks.file_sink(_stream(self), "json", path, options)

    def write_parquet(
        self,
        path: str | os.PathLike[str],
        *,
        compression: ParquetCompression | None = None,
        compression_level: int | None = None,
        row_group_size: int | None = None,
        partition_by: str | Sequence[str] | None = None,
        max_rows_per_file: int | None = None,
        approximate_bytes_per_file: int | None = None,
        on_existing: OnExisting = "refuse",
    ) -> Output:
        """Write Parquet files.

        Parameters
        ----------
        path
            The directory, which is created if it does not exist, or a prefix in an object store, such as
            ``"s3://bucket/out/"``; or one file, if its name ends with ``.parquet`` or ``.pq``.
        compression
            How pages are compressed: ``"uncompressed"``, ``"snappy"`` (the default), ``"gzip"``, ``"lz4"``, ``"zstd"`` or
            ``"brotli"``.
        compression_level
            0 to 9 for gzip, 1 to 22 for zstd, 0 to 11 for brotli.
        row_group_size
            How many rows a row group has at most; by default 262,144.
        partition_by, max_rows_per_file, approximate_bytes_per_file, on_existing
            As for :meth:`write_csv`.

        Returns
        -------
        Output
            What :func:`run` and :func:`start` take.

        Raises
        ------
        PlanError
            When an option is not one of its choices, options contradict each other, this is an updating stream, the path has the
            ending of another format or compression, or one file is asked for of an input that has no end.
        SchemaError
            When a column is named that does not exist, or has a type that Parquet cannot hold.
        ConnectorError
            When the job runs and files cannot be written, or there is output of earlier runs.

        Notes
        -----
        Files are hidden until a checkpoint, or the end of the job, commits them. One file appears once the input has ended: it
        is written by one task, in parts, in a directory next to it, if there are checkpoints.

        Parquet has no seconds: times in seconds are written in milliseconds, and a value that does not fit is an error.

        Examples
        --------
        >>> report = mill.run(mill.from_iter([{"a": 1, "day": "mon"}]).write_parquet("out/", partition_by="day"))
        >>> mill.read_parquet("out/", hive_partitioning=True).collect().to_pylist()
        [{'a': 1, 'day': 'mon'}]
        """
        from millstream._writing import writing
        from millstream.io import sinks

        options = writing(
            "write_parquet",
            on_existing=on_existing,
            compression=compression,
            compression_level=compression_level,
            row_group_size=row_group_size,
            partition_by=partition_by,
            max_rows_per_file=max_rows_per_file,
            approximate_bytes_per_file=approximate_bytes_per_file,
        )
        return sinks.file_sink(_stream(self), "parquet", path, options)

    def write_arrow(
        self,
        path: str | os.PathLike[str],
        *,
        compression: ArrowCompression | None = None,
        compression_level: int | None = None,
        partition_by: str | Sequence[str] | None = None,
        max_rows_per_file: int | None = None,
        approximate_bytes_per_file: int | None = None,
        on_existing: OnExisting = "refuse",
    ) -> Output:
        """Write Arrow IPC files, also called Feather.

        Parameters
        ----------
        path
            The directory, which is created if it does not exist, or a prefix in an object store, such as
            ``"s3://bucket/out/"``; or one file, if its name ends with ``.arrow``, ``.feather`` or ``.ipc``. ``"-"`` is
            standard output, to which an Arrow stream is written.
        compression
            How record batches are compressed: ``"uncompressed"`` (the default), ``"lz4"`` or ``"zstd"``.
        compression_level
            1 to 22 for zstd.
        partition_by, max_rows_per_file, approximate_bytes_per_file, on_existing
            As for :meth:`write_csv`.

        Returns
        -------
        Output
            What :func:`run` and :func:`start` take.

        Raises
        ------
        PlanError
            When an option is not one of its choices, options contradict each other, this is an updating stream, the path has the
            ending of another format or compression, or one file is asked for of an input that has no end.
        SchemaError
            When a column is named that does not exist, or has a type that no reader takes.
        ConnectorError
            When the job runs and files cannot be written, or there is output of earlier runs.

        Notes
        -----
        Files are hidden until a checkpoint, or the end of the job, commits them. One file appears once the input has ended: it
        is written by one task, in parts, in a directory next to it, if there are checkpoints.

        A record batch has 65,536 rows, or fewer at the end of a file. Dictionary columns are written as their values.

        Examples
        --------
        >>> report = mill.run(mill.from_iter([{"a": 1}]).write_arrow("out.arrow", compression="lz4"))
        >>> mill.read_arrow("out.arrow").collect().to_pylist()
        [{'a': 1}]
        """
        from millstream._writing import writing
        from millstream.io import sinks

        options = writing(
            "write_arrow",
            on_existing=on_existing,
            compression=compression,
            compression_level=compression_level,
            partition_by=partition_by,
            max_rows_per_file=max_rows_per_file,
            approximate_bytes_per_file=approximate_bytes_per_file,
        )
        return sinks.file_sink(_stream(self), "arrow", path, options)

    def write_sqlite(self, path: str | os.PathLike[str], table: str, *, key: str | Sequence[str] | None = None) -> Output:
        """Write rows into a table of an SQLite database.

        Parameters
        ----------
        path
            The database file; it is created if it does not exist.
        table
            The table; it is created if it does not exist.
        key
            The columns of the key, whose latest row is kept (an upsert). By default rows are appended.

        Returns
        -------
        Output
            What :func:`run` and :func:`start` take.

        Raises
        ------
        PlanError
            When an argument is not of its type, or this is an updating stream by another key.
        SchemaError
            When a key column does not exist, or a column has a type that SQLite cannot hold.
        ConnectorError
            When the job runs and the database cannot be written.
        CheckpointError
            When the database is older than the checkpoint that the run continues from.

        Notes
        -----
        Values are stored exactly, or the job fails with an error that names the column. Decimals, dates, times and
        durations are stored as text. A column of SQLite's type ``REAL`` has one zero, so ``-0.0`` is stored as ``0.0``. It
        has no NaN, which is stored as null; a keyed table refuses a NaN key that would share its row with a null key.
        SQLite has no integers above 9223372036854775807: cast such a column to ``str``.

        Several jobs, and several sinks of a job, may write to one table. What was applied is recorded in the table
        ``_millstream`` of the same database. A job refuses to continue if its database was lost, or replaced by a copy that
        is older than its checkpoint.

        The table may be read while the job runs, and shows whole commits: from other processes and, on Linux, from this one
        with Python's ``sqlite3``.

        Examples
        --------
        >>> import sqlite3
        >>> from contextlib import closing
        >>> s = mill.from_iter([{"k": 1, "x": "a"}, {"k": 1, "x": "b"}])
        >>> report = mill.run(s.write_sqlite("out.db", "latest", key="k"))
        >>> with closing(sqlite3.connect("out.db")) as database:
        ...     database.execute("select * from latest").fetchall()
        [(1, 'b')]
        """
        from millstream.io import sinks

        return sinks.sqlite_sink(_stream(self), path, table, [key] if isinstance(key, str) else key)

    def write_postgres(
        self,
        url: str,
        table: str,
        *,
        key: str | Sequence[str] | None = None,
        create: bool = True,
        via: PostgresVia = "auto",
    ) -> Output:
        """Write rows into a table of a PostgreSQL database.

        Parameters
        ----------
        url
            ``"postgresql://user:password@host:5432/database?sslmode=require"``. A password that is not in the URL is taken from
            the environment variable ``PGPASSWORD``. It is shown nowhere.
        table
            The table, as ``"totals"`` or ``"shop.totals"``. Names are used as they are written.
        key
            A column or several. With a key a row replaces the row that has the same key, and an updating stream is accepted:
            where a key is deleted, its row is. The table needs a primary key or unique index on these columns. Without a key
            rows are appended.
        create
            Whether a table that does not exist is created when the job starts, with the columns of the stream and the key as
            its primary key; otherwise it is an error.
        via
            ``"copy"`` appends, ``"upsert"`` replaces by ``key``; ``"auto"`` is what ``key`` says. ``"two_phase"`` writes the rows before
            the checkpoint, in a transaction that is prepared (``PREPARE TRANSACTION``) and committed after it: what the database
            refuses fails the job before the checkpoint. The server must allow it (``max_prepared_transactions``), and one task
            writes.

        Returns
        -------
        Output
            What :func:`run` and :func:`start` take.

        Raises
        ------
        PlanError
            When the URL or an option cannot be used, or this is an updating stream and ``key`` is not its key.
        SchemaError
            When a key column does not exist, or a column has a type that PostgreSQL cannot hold. When the job starts and the
            table has no such column, or one that does not hold every value as it is.
        ConnectorError
            When the job runs and the server cannot be reached or refuses the rows. A commit is tried for a minute.
        DataError
            When the job runs and a value cannot be stored: text with the character NUL, nanoseconds, null in a column that is
            NOT NULL or in the key. ``on_error`` can skip or route such records.

        Notes
        -----
        Exactly once: the rows of a checkpoint are written after it in one transaction, together with its number, which is kept in
        a table ``_millstream_epochs`` in the same schema. After a restart, or when a connection is lost during a commit, that
        table shows what has to be written. Rows reach the table by binary COPY.

        Unsigned 64-bit integers are ``numeric(20,0)``, decimals ``numeric``, lists of plain values arrays, other lists, structs and
        maps ``jsonb``, durations ``interval``.

        Examples
        --------
        >>> counts = mill.from_iter([{"word": "a", "n": 1}])
        >>> counts.write_postgres("postgresql://ann@localhost/shop", "shop.counts", key="word")
        <Sink write_postgres("shop.counts")>
        """
        from millstream.io import postgres

        return postgres.postgres_sink(_stream(self), url, table, key, create, via)

    def write_sql(
        self,
        url: str,
        table: str,
        *,
        key: str | Sequence[str] | None = None,
        create: bool = True,
    ) -> Output:
        """Write rows into a table of a database.

        Parameters
        ----------
        url
            ``"mysql://user:password@host:3306/database"``, the same with ``mariadb://``, ``"postgresql://…"`` as for
            :meth:`write_postgres`, or ``"sqlite:///orders.db"`` as for :meth:`write_sqlite`. A password that is not in the URL is
            taken from the environment variable ``MYSQL_PWD`` or ``PGPASSWORD``. It is shown nowhere.
        table
            The table, as ``"totals"`` or ``"shop.totals"``. Names are used as they are written.
        key
            A column or several. With a key a row replaces the row that has the same key, and an updating stream is accepted:
            where a key is deleted, its row is. The table needs a primary key or unique index on these columns. Without a key
            rows are appended.
        create
            Whether a table that does not exist is created when the job starts, with the columns of the stream and the key as
            its primary key; otherwise it is an error. SQLite always creates it.

        Returns
        -------
        Output
            What :func:`run` and :func:`start` take.

        Raises
        ------
        PlanError
            When the URL or an option cannot be used, or this is an updating stream and ``key`` is not its key.
        SchemaError
            When a key column does not exist, or a column has a type that the database cannot hold. When the job starts and the
            table has no such column, one that does not hold every value as it is, or, with a key, another unique index than that of the
            key.
        ConnectorError
            When the job runs and the server cannot be reached or refuses the rows. A commit is tried for a minute.
        DataError
            When the job runs and a value cannot be stored: NaN, nanoseconds, a text that is too long, null in a column that is
            NOT NULL or in the key. ``on_error`` can skip or route such records.

        Notes
        -----
        Exactly once: the rows of a checkpoint are written after it in one transaction, together with its number, which is kept in
        a table ``_millstream_epochs`` of the same database. After a restart, when a connection is lost during a commit, or after a
        deadlock, that table shows what has to be written. Tables of MySQL must be stored by InnoDB.

        In MySQL, texts are ``LONGTEXT`` in UTF-8 (``VARCHAR(255)`` in a key), timestamps with a zone ``TIMESTAMP(6)``, others
        ``DATETIME(6)``, times and durations ``TIME(6)``, lists, structs and maps ``JSON``.

        Examples
        --------
        >>> counts = mill.from_iter([{"word": "a", "n": 1}])
        >>> counts.write_sql("mysql://ann@localhost/shop", "counts", key="word")
        <Sink write_sql("counts")>
        """
        from millstream.io import sql

        return sql.sql_sink(_stream(self), url, table, key, create)

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
        avro_schema: str | Mapping[str, Any] | None = None,
        registry: str | None = None,
    ) -> Output:
        """Write messages to a Kafka topic.

        Parameters
        ----------
        brokers
            ``"host:port"``, or a list of them.
        topic
            The topic, which must exist.
        format
            ``"json"``: the value is a JSON object of the columns, as :meth:`write_json` writes a line. ``"avro"``: the value is a
            record in Avro of the columns. ``"raw"``: the value is the column ``value``, text or bytes, and the key is the column
            ``key`` if there is one.
        key
            The key of the messages: a column of text or bytes as it is, any other column as JSON, several columns as a JSON
            object; or an expression. With a key, an updating stream is accepted: where a key is deleted, a message without
            a value is sent, which deletes it in a compacted topic.
        partition
            The partition, an integer; by default it is derived from the key.
        headers
            A map of text, a struct, or a list of structs with ``key`` and ``value``.
        timestamp
            The time of the messages; by default the time at which they are sent.
        delivery
            ``"exactly_once"``, ``"at_least_once"``, or None for the guarantee of the job.
        options
            Options of librdkafka, by its names.
        avro_schema
            The schema of a record, for ``"avro"``: JSON as text, or as a dict. Its fields are the columns, by name. By
            default it is made of the columns.
        registry
            The URL of a schema registry, for ``"avro"``: it gets the schema as one of the subject ``<topic>-value`` when the
            job starts, and values begin with its number. User and password may be part of the URL; they are shown nowhere.

        Returns
        -------
        Output
            What :func:`run` and :func:`start` take.

        Raises
        ------
        PlanError
            When an argument is not one of its choices, or this is an updating stream and there is no key.
        SchemaError
            When a column does not exist, has a type that cannot be written, or does not fit its field in ``avro_schema``.
        ConnectorError
            When the job runs and the brokers or the registry cannot be reached, or messages cannot be sent.

        Notes
        -----
        Exactly once: the messages of a checkpoint are sent after it, in one transaction, together with a note of the
        checkpoint's number, which the cluster keeps as the offset of a consumer group of the sink. After a restart, the
        note shows what has to be sent. Consumers must read with ``isolation.level=read_committed``.

        At least once, and in a job without a checkpoint: messages are sent as they come, and a checkpoint waits until the
        cluster has them.

        An argument that is an expression is not part of the value; a column that is named is.

        Examples
        --------
        >>> counts = mill.from_iter([{"word": "a", "n": 1}])
        >>> counts.write_kafka("localhost:9092", "counts", format="json", key="word")
        <Sink write_kafka("counts")>
        """
        from millstream.io import kafka

        columns = {"partition": partition, "headers": headers, "timestamp": timestamp}
        return kafka.kafka_sink(_stream(self), brokers, topic, format, key, columns, delivery, options, avro_schema, registry)

    def for_each(self, function: Callable[[Any], object]) -> Output:
        """Call a function for each record.

        Parameters
        ----------
        function
            Takes a :class:`Row`. What it returns is ignored.

        Returns
        -------
        Output
            What :func:`run` and :func:`start` take.

        Raises
        ------
        PlanError
            When the function cannot be called or is asynchronous, or this is an updating stream from which rows are
            deleted.
        UserFunctionError
            When the job runs and the function raises.

        Notes
        -----
        After a crash, records since the last checkpoint are passed to the function again: at least once. For exactly once,
        write a :class:`Sink`.

        Examples
        --------
        >>> seen = []
        >>> report = mill.run(mill.from_iter([1, 2]).for_each(lambda row: seen.append(row.value)))
        >>> seen
        [1, 2]
        """
        check_callable(function, "for_each", "row")
        from millstream.io import sinks

        return sinks.callback_sink(_stream(self), function, is_batch=False)

    def for_each_batch(self, function: Callable[[Any], object]) -> Output:
        """Call a function for each batch of records.

        Parameters
        ----------
        function
            Takes a ``pyarrow.RecordBatch``. What it returns is ignored.

        Returns
        -------
        Output
            What :func:`run` and :func:`start` take.

        Raises
        ------
        PlanError
            When the function cannot be called or is asynchronous, pyarrow is not installed, or this is an updating stream
            from which rows are deleted.
        UserFunctionError
            When the job runs and the function raises.

        Notes
        -----
        After a crash, records since the last checkpoint are passed to the function again: at least once.

        Examples
        --------
        >>> rows = []
        >>> report = mill.run(mill.from_iter([1, 2]).for_each_batch(lambda batch: rows.append(batch.num_rows)))
        >>> sum(rows)
        2
        """
        check_pyarrow("for_each_batch")
        check_callable(function, "for_each_batch", "batch")
        from millstream.io import sinks

        return sinks.callback_sink(_stream(self), function, is_batch=True)

    def print(self) -> Output:
        """Print each record to ``sys.stdout``.

        Returns
        -------
        Output
            What :func:`run` and :func:`start` take.

        Raises
        ------
        PlanError
            When this is an updating stream from which rows are deleted.

        Examples
        --------
        >>> report = mill.run(mill.from_iter([1]).print())
        Row(value=1)
        """
        from millstream.io import sinks

        return sinks.print_sink(_stream(self))

    def sink_to(self, sink: Sink) -> Output:
        """Write to a sink of your own.

        Parameters
        ----------
        sink
            An object of your subclass of :class:`Sink`.

        Returns
        -------
        Output
            What :func:`run` and :func:`start` take.

        Raises
        ------
        PlanError
            When ``sink`` is not such an object, or lacks methods that its ``kind`` needs.

        Examples
        --------
        >>> class Lines(mill.Sink):
        ...     kind = "idempotent"
        ...     def write(self, batch):
        ...         print(batch.to_pylist())
        >>> report = mill.run(mill.from_iter([1]).sink_to(Lines()))
        [{'value': 1}]
        """
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
        """Run the stream and return its records as a table.

        Parameters
        ----------
        limit
            How many records to return at most, as :meth:`Stream.limit` takes them; the rest is not computed. Of an updating
            stream it is so many keys, and which of them depends on timing.
        until
            How long it may run; then what has arrived so far is returned. Unbounded input needs this or ``limit``.
        parallelism
            How many parallel tasks each step has; by default one for each core.
        on_error
            What happens to a record that fails: ``"fail"`` raises the error, ``"skip"`` drops the record, ``"route"`` sends
            it to ``.errors``.

        Returns
        -------
        Table
            The records; of an updating stream the latest row of each key. Where tasks run in parallel, the order of rows is
            not defined; see :meth:`Table.sort`.

        Raises
        ------
        PlanError
            When an option is not one of its choices, or the input is unbounded and neither ``limit`` nor ``until`` is set.
        DataError
            When a record cannot be processed.
        UserFunctionError
            When a function of yours raises.
        ConnectorError
            When a source fails.

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
        """Run the stream and iterate over its records, as ``pyarrow.RecordBatch``.

        Parameters
        ----------
        until
            How long it may run; by default until the input ends.
        parallelism
            How many parallel tasks each step has; by default one for each core.
        on_error
            What happens to a record that fails, as for :meth:`collect`.

        Yields
        ------
        pyarrow.RecordBatch
            The records as they come. Of an updating stream these are all changed rows, not the latest of each key.

        Raises
        ------
        PlanError
            When pyarrow is not installed, an option is not one of its choices, or rows of an updating stream may be
            deleted, which a batch does not show: call :meth:`Stream.to_changelog` first.
        DataError, UserFunctionError, ConnectorError
            When the job fails, as for :meth:`collect`.

        Notes
        -----
        A consumer that is slower than the job slows the job down. Leaving the loop ends the job.

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

        Parameters
        ----------
        rows
            How many records to print at most. An unbounded stream runs for at most ten seconds.

        Raises
        ------
        PlanError
            When ``rows`` is not an integer of at least 0.
        DataError, UserFunctionError, ConnectorError
            When the job fails, as for :meth:`collect`.

        Examples
        --------
        >>> mill.from_iter([{"a": 1, "b": "x"}]).show()
        a      b
        int64  str
        -----  ---
        1      x
        """
        print(self.collect(limit=count(rows, "show() takes a number of rows"), until=None if _stream(self).is_bounded else "10s"))

    def graph(
        self,
        *,
        parallelism: int | None = None,
    ) -> Graph:
        """Return the plan as a graph, which a notebook draws.

        Parameters
        ----------
        parallelism
            How many parallel tasks each step has; by default one for each core.

        Raises
        ------
        PlanError
            When ``parallelism`` is not an integer of at least 1.

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
        """Return the plan as text: steps, chains, threads, state and guarantees.

        Parameters
        ----------
        parallelism
            How many parallel tasks each step has; by default one for each core.

        Raises
        ------
        PlanError
            When ``parallelism`` is not an integer of at least 1.

        Examples
        --------
        >>> plan = mill.from_iter([1]).filter(col("value") > 0).explain()
        >>> "filter" in plan
        True
        """
        from millstream.job import explain_stream

        return explain_stream(_stream(self), parallelism=parallelism)


def _stream(outputs: Outputs) -> Stream:
    """Return the stream that this mixin is part of."""
    return cast("Stream", outputs)
