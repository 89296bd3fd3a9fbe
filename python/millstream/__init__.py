"""Millstream: stream processing inside a Python process.

Declare a dataflow over files, tables or iterables, and run it: with event time, windows and keyed state, on all cores,
and with the same results after a failure as if nothing had failed.

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

from typing import TYPE_CHECKING

from millstream import types
from millstream._aggregate import Aggregate, aggregate
from millstream._conditions import when
from millstream._dead_letters import all_errors
from millstream._engine import version as _version
from millstream._given import parameter
from millstream._lookup_functions import Lookup, lookup
from millstream._lookup_postgres import lookup_postgres
from millstream._lookup_sqlite import lookup_sqlite
from millstream._row import Row
from millstream._udf import udf
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
    Expr,
    coalesce,
    col,
    concat_list,
    concat_str,
    count,
    element,
    lit,
    max_horizontal,
    min_horizontal,
    now,
)
from millstream.io import (
    Output,
    Sink,
    Source,
    SourceReader,
    from_arrow,
    from_iter,
    from_source,
    generate,
    index,
    random,
    read_arrow,
    read_csv,
    read_delta,
    read_iceberg,
    read_json,
    read_kafka,
    read_parquet,
    read_postgres,
    read_postgres_changes,
    read_sql,
    read_text,
    storage,
)
from millstream.job import Job, graph, jobs, run, start
from millstream.keyed import ConnectedStreams, KeyedStream, RollingStream, WindowedStream
from millstream.nexmark import Nexmark
from millstream.options import Checkpoint, Restart
from millstream.process import (
    ListState,
    MapState,
    ProcessContext,
    ProcessFunction,
    ReducingState,
    Timers,
    ValueState,
)
from millstream.report import Held, JobStatus, Metrics, Overdue, Paused, QueueMetrics, Report, StepMetrics
from millstream.state import CheckpointInfo, StateDiff, StepDiff, checkpoints, read_state, state_diff
from millstream.stream import Stream, from_changelog
from millstream.table import Table
from millstream.time import WatermarkStrategy
from millstream.trigger import Trigger, each, every, on_count, on_processing_time, on_watermark
from millstream.types import DataType, Schema, Timestamp
from millstream.watermark import WatermarkGenerator
from millstream.window import (
    CountWindow,
    CumulativeWindow,
    GlobalWindow,
    SessionWindow,
    SlidingWindow,
    TumblingWindow,
    Window,
    WindowBounds,
    count_window,
    cumulative,
    global_window,
    session,
    sliding,
    tumbling,
)

if TYPE_CHECKING:
    # At run time it is the package, which can be called as the function.
    from millstream.nexmark import nexmark

else:

    def __getattr__(name: str) -> object:
        """Raise an error that names what was probably meant, also for a name of another library."""
        import sys

        from millstream._hints import no_name

        raise no_name(sys.modules[__name__], __all__, name)


__version__ = _version()

__all__ = [
    "Aggregate",
    "Checkpoint",
    "CheckpointError",
    "CheckpointInfo",
    "ConnectedStreams",
    "ConnectorError",
    "CountWindow",
    "CumulativeWindow",
    "DataError",
    "DataType",
    "Expr",
    "GlobalWindow",
    "Held",
    "Job",
    "JobStatus",
    "KeyedStream",
    "ListState",
    "Lookup",
    "MapState",
    "Metrics",
    "MillstreamError",
    "Nexmark",
    "Output",
    "Overdue",
    "Paused",
    "PlanError",
    "ProcessContext",
    "ProcessFunction",
    "QueueMetrics",
    "ReducingState",
    "Report",
    "Restart",
    "RollingStream",
    "Row",
    "Schema",
    "SchemaError",
    "SessionWindow",
    "Sink",
    "SlidingWindow",
    "Source",
    "SourceReader",
    "StateDiff",
    "StepDiff",
    "StepMetrics",
    "Stream",
    "Table",
    "Timers",
    "Timestamp",
    "Trigger",
    "TumblingWindow",
    "UserFunctionError",
    "ValueState",
    "WatermarkGenerator",
    "WatermarkStrategy",
    "Window",
    "WindowBounds",
    "WindowedStream",
    "aggregate",
    "all_errors",
    "checkpoints",
    "coalesce",
    "col",
    "concat_list",
    "concat_str",
    "count",
    "count_window",
    "cumulative",
    "each",
    "element",
    "every",
    "from_arrow",
    "from_changelog",
    "from_iter",
    "from_source",
    "generate",
    "global_window",
    "graph",
    "index",
    "jobs",
    "lit",
    "lookup",
    "lookup_postgres",
    "lookup_sqlite",
    "max_horizontal",
    "min_horizontal",
    "nexmark",
    "now",
    "on_count",
    "on_processing_time",
    "on_watermark",
    "parameter",
    "random",
    "read_arrow",
    "read_csv",
    "read_delta",
    "read_iceberg",
    "read_json",
    "read_kafka",
    "read_parquet",
    "read_postgres",
    "read_postgres_changes",
    "read_sql",
    "read_state",
    "read_text",
    "run",
    "session",
    "sliding",
    "start",
    "storage",
    "state_diff",
    "tumbling",
    "types",
    "udf",
    "when",
]
