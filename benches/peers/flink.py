"""Flink by PyFlink: SQL that runs in the JVM, in streaming mode, with mini-batches and reused objects.

Records are in the JVM's memory as Arrow batches (`from_pandas`). What is timed goes to the `blackhole` sink, and the time is
the one that Flink reports for the job, without the start of its cluster in the process, which takes about a second. What is
checked goes to the `print` sink, of which every line is read: the last one a key counts.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyflink.common import Configuration
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway
from pyflink.table import DataTypes, Schema, StreamTableEnvironment
from pyflink.table.udf import udf
from task import Cannot, Task

ROWS = {
    "words": 60_000,
    "map": 3_000_000,
    "filter": 4_000_000,
    "keyed": 2_000_000,
    "window": 2_000_000,
    "million": 1_000_000,
    "checkpoint": 2_000_000,
    "csv": 2_000_000,
    "lambda": 200_000,
    "batch": 1_000_000,
}
_SUMS = "SELECT auction, COUNT(*) AS n, SUM(price) AS total FROM bids {where} GROUP BY auction"
_WINDOW = "TABLE(TUMBLE(TABLE bids, DESCRIPTOR(`at`), INTERVAL '10' SECOND))"
_QUERIES = {
    "words": """SELECT word, COUNT(*) AS n FROM lines
                CROSS JOIN UNNEST(REGEXP_EXTRACT_ALL(LOWER(line), '[a-z'']+', 0)) AS words (word) GROUP BY word""",
    "map": "SELECT price * CAST(0.908 AS DOUBLE) AS price FROM bids",
    "filter": "SELECT auction, price FROM bids WHERE auction % 123 = 0",
    "keyed": _SUMS.format(where=""),
    "million": _SUMS.format(where=""),
    "checkpoint": _SUMS.format(where=""),
    "window": f"SELECT auction, window_start, COUNT(*) AS n, MAX(price) AS top FROM {_WINDOW} GROUP BY auction, window_start, window_end",
    # The line of names is no number, and read as null.
    "csv": _SUMS.format(where="WHERE auction IS NOT NULL"),
    "lambda": "SELECT cheaper(price) AS price FROM bids",
    "batch": "SELECT cheaper(price) AS price FROM bids",
}
_KEYS = {"words": 1, "window": 2}
_OPTIONS = {
    "pipeline.object-reuse": "true",
    "table.exec.mini-batch.enabled": "true",
    "table.exec.mini-batch.allow-latency": "1 s",
    "table.exec.mini-batch.size": "20000",
    "python.fn-execution.arrow.batch.size": "10000",
    "python.fn-execution.bundle.size": "100000",
    "table.local-time-zone": "UTC",
    "python.executable": sys.executable,
}
_seconds: list[float] = []
_checkpoints: list[int] = []


def _start_jvm() -> Path:
    """Start the JVM with its stdout in a file, where the `print` sink writes."""
    path = Path(tempfile.mkdtemp()) / "printed"
    path.touch()
    out = os.dup(1)
    handle = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.dup2(handle, 1)
    try:
        get_gateway()
    finally:
        os.dup2(out, 1)
        os.close(out)
        os.close(handle)
    return path


_PRINTED = _start_jvm()


def versions() -> dict[str, str]:
    """Say what this is."""
    java = get_gateway().jvm.java.lang.System.getProperty("java.version")
    return {"apache-flink": version("apache-flink"), "java": java}


def extras() -> dict[str, Any]:
    """Give the seconds as Flink counts them, and how many checkpoints there were."""
    found: dict[str, Any] = {"seconds": _seconds.pop()} if _seconds else {}
    return found | ({"checkpoints": _checkpoints.pop()} if _checkpoints else {})


def _environment(task: Task) -> StreamTableEnvironment:
    options = Configuration()
    for name, value in _OPTIONS.items():
        options.set_string(name, value)
    options.set_string("parallelism.default", str(task.threads))
    if task.checkpoint_seconds:
        options.set_string("execution.checkpointing.interval", f"{task.checkpoint_seconds:g} s")
        options.set_string("execution.checkpointing.dir", task.fresh("state").as_uri())
        options.set_string("execution.checkpointing.num-retained", "1000")
    return StreamTableEnvironment.create(StreamExecutionEnvironment.get_execution_environment(options))


def _load(task: Task, tables: StreamTableEnvironment) -> None:
    """Declare what the query reads."""
    if task.job == "words":
        path = task.file("words.txt").as_uri()
        tables.execute_sql(f"CREATE TEMPORARY TABLE lines (line STRING) WITH ('connector'='filesystem', 'path'='{path}', 'format'='raw')")
        return
    if task.job == "csv":
        path = task.file("bids.csv").as_uri()
        columns = "auction BIGINT, bidder BIGINT, price BIGINT, `at` STRING"
        options = f"'connector'='filesystem', 'path'='{path}', 'format'='csv', 'csv.ignore-parse-errors'='true'"
        tables.execute_sql(f"CREATE TEMPORARY TABLE bids ({columns}) WITH ({options})")
        return
    columns = ["auction", "price"] + ["at"] * (task.job == "window")
    records = task.table("drawn" if task.job in ("million", "checkpoint") else "bids", columns)
    if task.job == "window":
        records = records.rename_columns(["auction", "price", "ms"]).cast(pa.schema([(name, pa.int64()) for name in ("auction", "price", "ms")]))
    bids = tables.from_pandas(records.to_pandas(), splits_num=max(1, task.rows // 20_000))
    if task.job == "window":
        timed = Schema.new_builder().column("auction", "BIGINT").column("price", "BIGINT").column("ms", "BIGINT")
        timed.column_by_expression("at", "TO_TIMESTAMP_LTZ(ms, 3)").watermark("at", "`at` - INTERVAL '1' SECOND")
        bids = tables.from_data_stream(tables.to_data_stream(bids), timed.build())
    tables.create_temporary_view("bids", bids)


def prepare(task: Task) -> Callable[[], Any]:
    """Load the records and declare the tables."""
    if task.job == "parquet":
        raise Cannot("its Parquet jar is not in the package")
    tables = _environment(task)
    _load(task, tables)
    if task.job == "lambda":
        tables.create_temporary_function("cheaper", udf(lambda price: price * 0.908, result_type=DataTypes.DOUBLE()))
    elif task.job == "batch":
        tables.create_temporary_function("cheaper", udf(lambda prices: prices * 0.908, result_type=DataTypes.DOUBLE(), func_type="pandas"))
    query = tables.sql_query(_QUERIES[task.job])
    names = query.get_schema().get_field_names()
    is_real = "price" in names and task.job != "filter"
    types = {"word": "STRING", "window_start": "TIMESTAMP(3)", "price": "DOUBLE" if is_real else "BIGINT"}
    declared = ", ".join(f"`{name}` {types.get(name, 'BIGINT')}" for name in names)
    tables.execute_sql(f"CREATE TEMPORARY TABLE sink ({declared}) WITH ('connector'='{'print' if task.is_checked else 'blackhole'}')")

    def run() -> Any:
        if task.is_checked:
            os.truncate(_PRINTED, 0)
        done = query.execute_insert("sink")
        client = done.get_job_client()
        assert client
        _seconds.append(client.get_job_execution_result().result().get_net_runtime() / 1000)
        if task.checkpoint_seconds:
            # A folder a checkpoint: `chk-1`, `chk-2`, and so on.
            taken = [int(path.name.partition("-")[2]) for path in (task.scratch / "state").glob("*/chk-*")]
            _checkpoints.append(max(taken, default=0))
        return names, _KEYS.get(task.job, 1)

    return run


def answer(result: Any) -> Any:
    """Read the printed lines, such as `2> +U[17, 3, 4711]`."""
    names, keys = result
    is_updated = "n" in names
    rows: Any = {} if is_updated else []
    with _PRINTED.open(encoding="utf-8") as lines:
        for line in lines:
            kind, _, rest = line.rpartition("> ")[2].partition("[")
            values = rest.rstrip("]\n").split(", ")
            if not is_updated:
                rows.append(values)
            elif kind in ("+I", "+U"):
                rows[tuple(values[:keys])] = values
            else:
                rows.pop(tuple(values[:keys]), None)
    columns = list(zip(*(rows.values() if is_updated else rows), strict=True))
    found = {name: pa.array(column) for name, column in zip(names, columns, strict=True)}
    for name, column in found.items():
        if name == "window_start":
            found[name] = pa.array([datetime.fromisoformat(text) for text in column.to_pylist()])
        elif name != "word":
            found[name] = column.cast(pa.float64() if name == "price" else pa.int64())
    return pa.table(found)
