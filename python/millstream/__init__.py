"""Millstream: stream processing inside a Python process.

Declare a dataflow over files, tables or iterables, and run it: with event time, windows and keyed state, on all cores,
and with results that are exactly what they would have been had nothing ever failed.

>>> import millstream as mill
>>> from millstream import col
>>> words = (
...     mill.from_iter(["to be or not to be"])
...     .select(word=col("value").str.split(" "))
...     .explode("word")
...     .key_by("word")
...     .agg(n=mill.count())
... )
>>> words.filter(col("word") == "be").collect().to_pylist()
[{'word': 'be', 'n': 2}]
"""

from __future__ import annotations

from millstream import types
from millstream._engine import version as _version
from millstream._row import Row
from millstream.errors import (
    CheckpointError,
    ConnectorError,
    DataError,
    MillstreamError,
    PlanError,
    SchemaError,
    UserFunctionError,
)
from millstream.expr import (
    Aggregate,
    Expr,
    aggregate,
    coalesce,
    col,
    concat_str,
    count,
    lit,
    max_horizontal,
    min_horizontal,
    when,
)
from millstream.functions import udf
from millstream.io import (
    Sink,
    Source,
    SourceReader,
    from_arrow,
    from_iter,
    from_source,
    generate,
    index,
    random,
    read_csv,
    read_json,
    read_parquet,
    read_text,
)
from millstream.job import Checkpoint, Job, JobStatus, Metrics, Report, Restart, StepMetrics, run, start
from millstream.state import CheckpointInfo, checkpoints, read_state
from millstream.stream import KeyedStream, Stream, WindowedStream
from millstream.table import Table
from millstream.time import WatermarkStrategy
from millstream.types import DataType, Schema, Timestamp
from millstream.window import TumblingWindow, tumbling

__version__ = _version()

__all__ = [
    "Aggregate",
    "Checkpoint",
    "CheckpointError",
    "CheckpointInfo",
    "ConnectorError",
    "DataError",
    "DataType",
    "Expr",
    "Job",
    "JobStatus",
    "KeyedStream",
    "Metrics",
    "MillstreamError",
    "PlanError",
    "Report",
    "Restart",
    "Row",
    "Schema",
    "SchemaError",
    "Sink",
    "Source",
    "SourceReader",
    "StepMetrics",
    "Stream",
    "Table",
    "Timestamp",
    "TumblingWindow",
    "UserFunctionError",
    "WatermarkStrategy",
    "WindowedStream",
    "aggregate",
    "checkpoints",
    "coalesce",
    "col",
    "concat_str",
    "count",
    "from_arrow",
    "from_iter",
    "from_source",
    "generate",
    "index",
    "lit",
    "max_horizontal",
    "min_horizontal",
    "random",
    "read_csv",
    "read_json",
    "read_parquet",
    "read_state",
    "read_text",
    "run",
    "start",
    "tumbling",
    "types",
    "udf",
    "when",
]
