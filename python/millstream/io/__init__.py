"""Where records come from and where they go."""

from __future__ import annotations

from millstream.io.delta import read_delta
from millstream.io.files import read_arrow, read_csv, read_json, read_parquet, read_text
from millstream.io.iceberg import read_iceberg
from millstream.io.kafka import read_kafka
from millstream.io.memory import from_arrow, from_iter, generate, index, random
from millstream.io.postgres import read_postgres, read_postgres_changes
from millstream.io.sinks import Output, Sink
from millstream.io.objects import storage
from millstream.io.sources import Source, SourceReader, from_source
from millstream.io.sql import read_sql

__all__ = [
    "Output",
    "Sink",
    "Source",
    "SourceReader",
    "from_arrow",
    "from_iter",
    "from_source",
    "generate",
    "index",
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
    "read_text",
    "storage",
]
